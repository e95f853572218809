"""What would arrive changed: the value that was given, beside the one that came back from its JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin
from uuid import UUID

import attrs
import msgspec

from jobqueue import models
from jobqueue.words import article

__all__ = ["at", "find_non_finite", "first", "kept_types", "parts", "round_trip_differs", "surely_kept"]

KEPT: Final = frozenset({bool, bytearray, bytes, date, float, int, NoneType, str, timedelta, UUID})
"""What came back as exactly one of these, and was given as one, is the same value. NaN comes back as None."""


def kept_types(hint: Any) -> frozenset[type]:
    """Answer the types of values that surely arrive as they were where this is declared; none if more has to be looked at.

    That is: what passed conversion and is of exactly one of these is of the very type that is declared for it. An int may
    have become a float where that is declared, and NaN has become None where both are; a bytearray may have become bytes.
    """
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if float in members and len(members) > 1:
        return frozenset()
    return frozenset(members) if KEPT - {bytearray} >= {*members} else frozenset()


def surely_kept(hint: Any) -> Callable[[Any], bool] | None:
    """Answer what tells of values of a type, once they passed conversion, that they surely arrive as they were.

    None where only the comparison can tell. It looks at types alone, which costs less.
    """
    kind, inside = get_origin(hint), get_args(hint)
    if kind is dict:
        keys, values = map(kept_types, inside)
        if not keys or not values or float in keys:
            return None
        return lambda given: (
            type(given) is dict and keys.issuperset(map(type, given)) and values.issuperset(map(type, given.values()))
        )
    if kind not in (list, set, frozenset) and not (kind is tuple and inside[1:] == (...,)):
        return None
    if types := kept_types(inside[0]):
        return lambda given: type(given) is kind and types.issuperset(map(type, given))
    are_kept = surely_kept(inside[0])
    return are_kept and (lambda given: type(given) is kind and all(map(are_kept, given)))


def round_trip_differs(given: Any, got: Any, path: str) -> str | None:
    """Say where a value that came back from JSON differs from the one given, or answer None.

    An int may arrive as the float that is declared, if it is the same number. Anything else that changes would be a
    surprise in the job: a tuple as a list, a subclass cut down to its base, a key that was dropped, NaN as None.
    """
    cls = type(got)
    if type(given) is not cls:
        # Python compares an int to a float exactly: 2**53 + 1 is another number than the float next to it.
        return None if cls is float and type(given) is int and given == got else _changed(given, got, path)
    if cls in KEPT:
        return None if given == got else _changed(given, got, path)
    if cls is dict:
        return _mapping_differs(given, got, path)
    if isinstance(got, list | tuple):
        return _items_differ(given, got, path)
    if isinstance(got, set | frozenset):
        return _members_differ(given, got, path)
    if isinstance(given, datetime | time) and (problem := _zone_lost(given)):
        return at(path, problem)
    names = _field_names(got)
    if names is not None:
        problem = first(round_trip_differs(getattr(given, n), getattr(got, n), _step(got, path, n)) for n in names)
        if problem is None and models.is_model(cls) and (lost := models.lost(given, got)):
            return at(path, lost)
        return problem
    # NaN first: comparing it raises where it is one that signals.
    return find_non_finite(given, path) or (None if given == got else _changed(given, got, path))


def _items_differ(given: Any, got: Any, path: str) -> str | None:
    if _plain(given, got) and given == got:
        return None
    if len(given) != len(got):
        return _changed(given, got, path)
    items = enumerate(zip(given, got, strict=True))
    return first(round_trip_differs(a, b, f"{path}[{index}]") for index, (a, b) in items)


def _members_differ(given: Any, got: Any, path: str) -> str | None:
    originals = {item: item for item in given}
    if len(given) != len(got) or not all(item in originals for item in got):
        return _changed(given, got, path)
    return first(round_trip_differs(originals[item], item, path) for item in got)


def _mapping_differs(given: dict[Any, Any], got: dict[Any, Any], path: str) -> str | None:
    if given.keys() != got.keys():
        lost = [key for key in given if key not in got]
        problem = first(find_non_finite(key, path) for key in lost)
        return problem or (
            at(path, f"a key of type {type(lost[0]).__qualname__} would not arrive")
            if lost
            else _changed(given, got, path)
        )
    if set(map(type, given)) == {str} == set(map(type, got)) and _plain(given.values(), got.values()) and given == got:
        return None
    originals = {key: key for key in given}
    for key, item in got.items():
        # An infinite key would arrive, as a string; it is refused because no infinite value would.
        problem = find_non_finite(key, path) or round_trip_differs(originals[key], key, path)
        problem = problem or round_trip_differs(given[key], item, f"{path}[...]")
        if problem:
            return problem
    return None


def _plain(given: Collection[Any], got: Collection[Any]) -> bool:
    """Whether nothing in them has to be looked into: most lists of numbers and texts are compared by Python itself."""
    types = [*map(type, given)]
    return KEPT.issuperset(types) and types == [*map(type, got)]


def _zone_lost(given: datetime | time) -> str | None:
    zone = given.tzinfo
    if zone is None:
        return None
    if zone.utcoffset(None) is None:
        if isinstance(given, time):
            return "its zone would not arrive: give the time without one, and the zone's name as an argument"
        return (
            "its zone would arrive as the fixed offset of that moment: give the moment, .astimezone(UTC), and the zone's "
            "name as an argument of its own where the job needs it"
        )
    if (given.utcoffset() or timedelta()) % timedelta(minutes=1):
        return "the seconds of its offset from UTC would not arrive: give the moment, .astimezone(UTC)"
    return None


def parts(value: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Go through what a value is made of, but for the keys of a mapping."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield item, f"{path}[...]"
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield item, f"{path}[{index}]"
    else:
        for name in _field_names(value) or ():
            yield getattr(value, name), _step(value, path, name)


def find_non_finite(value: Any, path: str) -> str | None:
    """Say where in a value there is a number that JSON has not, or answer None."""
    if isinstance(value, float):
        return None if math.isfinite(value) else _no_number(value, path)
    if isinstance(value, Decimal):
        return _no_number(value, path) if value.is_nan() else None
    if isinstance(value, Mapping) and (problem := first(find_non_finite(key, path) for key in value)):
        return problem
    return first(find_non_finite(part, where) for part, where in parts(value, path))


def _no_number(value: float | Decimal, path: str) -> str:
    # Not as a Decimal shows itself, which has digits even in a NaN.
    shown = ("sNaN" if value.is_snan() else "NaN") if isinstance(value, Decimal) else float.__repr__(value)
    return at(path, f"{shown} has no form in JSON; give a finite number")


def _field_names(value: Any) -> tuple[str, ...] | None:
    cls = type(value)
    if attrs.has(cls):
        return tuple(attribute.name for attribute in attrs.fields(cls))
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    if models.is_model(cls):
        return models.names(value)
    return cls.__struct_fields__ if issubclass(cls, msgspec.Struct) else None


def at(path: str, problem: str) -> str:
    """Answer the sentence that says what is wrong with an argument, or a part of one."""
    return f"argument `{path}`: {problem}"


def first(problems: Iterable[str | None]) -> str | None:
    """Answer the first of them that is one."""
    return next((problem for problem in problems if problem), None)


def _changed(given: Any, got: Any, path: str) -> str:
    """Say so by types: the values themselves may be nobody else's business."""
    problem = find_non_finite(given, path)
    if problem:
        return problem
    before, after = (article(type(value).__qualname__) for value in (given, got))
    if type(got) is float and type(given) is int:
        return at(path, "an int would arrive as a float that is another number: give one that a float holds")
    return at(path, f"{before} would arrive as {after}" if before != after else f"{before} would arrive changed")


def _step(value: object, path: str, name: str) -> str:
    """The path to a field; the names of what a model was given besides its fields are no part of its declaration."""
    extra = models.is_model(type(value)) and name not in type(value).model_fields  # type: ignore[attr-defined]
    return f"{path}[...]" if extra else f"{path}.{name}"
