"""A bound on what is hashed of arguments.

A payload can have integers, UUIDs or tuples that all have one hash. To build a set of n of them takes n² steps, in one call
of C that lets nothing else run: a megabyte of integers holds a runner for 20 seconds, and its beat too. So what such sets,
and dicts with such keys, have in all of a payload is counted before they are built. Texts, bytes and times have hashes that
cannot be foreseen, and are not counted.

Rejected: counting equal hashes, which has to build each value first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import inspect as types

from jobqueue import models
from jobqueue.refusals import Refused

__all__ = ["MOST", "Crowds"]

MOST: Final = 5_000
"""Elements of the sets, and keys of the dicts, of a payload. So many integers of one hash take 0.15 s, UUIDs a second."""
PARTS: Final = 8
"""So many parts of elements count as one: tuples of one hash are compared part by part, for as long as these are equal."""

_UNFORESEEN: Final = (
    types.StrType | types.BytesType | types.DateTimeType | types.DateType | types.TimeType
    # and those of which there are too few with one hash
    | types.BoolType | types.NoneType | types.FloatType | types.TimeDeltaType | types.EnumType | types.LiteralType
)  # fmt: skip
_FIELDS: Final = types.StructType | types.DataclassType | types.TypedDictType | types.NamedTupleType


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all that stands in it: of two fields of one name a decoder builds both."""


class Crowds:
    """What has to be counted of the arguments of a kind.

    Args:
        hints: The type of each argument, by name.
    """

    def __init__(self, hints: Mapping[str, Any]) -> None:
        nodes = {name: types.type_info(hint) for name, hint in hints.items()}
        self._nodes = {name: node for name, node in nodes.items() if _is_crowd(node, set())}

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def too_large(self, payload: bytes) -> str | None:
        """Answer the argument with which there are too many, or None.

        Raises:
            Refused: It is no JSON.
        """
        if payload.count(b",") < MOST:  # most payloads are seen to be small without being read
            return None
        try:
            arguments = json.loads(payload.decode(), object_pairs_hook=_Pairs, parse_int=len, parse_float=len)
        except ValueError:
            raise Refused("it is no JSON") from None
        count = 0
        for name, value in arguments if isinstance(arguments, _Pairs) else ():
            count += _count(self._nodes.get(name), value)
            if count > MOST:
                return str(name)
        return None


def _is_crowd(node: Any, seen: set[int]) -> bool:
    """Whether something in a type is counted."""
    if id(node) in seen:
        return False
    seen.add(id(node))
    if isinstance(node, types.CustomType):
        return models.hashes(node.cls)
    return _hashed(node) or any(_is_crowd(part, seen) for part in _parts(node))


def _hashed(node: Any) -> bool:
    """Whether a type is a set or a dict, and what it hashes may be of one hash."""
    if isinstance(node, types.SetType | types.FrozenSetType):
        return not _is_unforeseen(node.item_type)
    if isinstance(node, types.DictType):
        # Where a key may be anything it is a text, as it is in JSON.
        return not isinstance(node.key_type, types.AnyType) and not _is_unforeseen(node.key_type)
    return False


def _is_unforeseen(node: Any) -> bool:
    if isinstance(node, types.UnionType | types.Metadata):
        return all(map(_is_unforeseen, _parts(node)))
    return isinstance(node, _UNFORESEEN)


def _parts(node: Any) -> Iterator[Any]:
    if isinstance(node, types.UnionType):
        yield from node.types
    elif isinstance(node, types.Metadata):
        yield node.type
    elif isinstance(node, types.CollectionType):
        yield node.item_type
    elif isinstance(node, types.TupleType):
        yield from node.item_types
    elif isinstance(node, types.DictType):
        yield node.value_type
    elif isinstance(node, _FIELDS):
        yield from (field.type for field in node.fields)


def _count(node: Any, value: Any) -> int:
    """How much of a value is hashed."""
    if not isinstance(value, list):
        return 0
    if isinstance(node, types.Metadata | types.UnionType):
        return max(_count(part, value) for part in _parts(node))
    if isinstance(node, types.CustomType):
        return _all(value)
    own = _own(value) if _hashed(node) else 0
    if isinstance(value, _Pairs):
        if isinstance(node, types.DictType):
            return own + sum(_count(node.value_type, part) for _, part in value)
        fields = {field.encode_name: field.type for field in node.fields} if isinstance(node, _FIELDS) else {}
        return sum(_count(fields.get(name), part) for name, part in value)
    if isinstance(node, types.CollectionType):
        return own + sum(_count(node.item_type, part) for part in value)
    return sum(map(_count, _parts(node), value))  # a tuple, or fields without names


def _own(value: list[Any]) -> int:
    """What the elements of a set count, or the keys of a dict."""
    return len(value) if isinstance(value, _Pairs) else len(value) + sum(map(_all, value)) // PARTS


def _all(value: Any) -> int:
    """All that is in a value that only its class knows how to read."""
    if isinstance(value, _Pairs):
        return len(value) + sum(_all(part) for _, part in value)
    return len(value) + sum(map(_all, value)) if isinstance(value, list) else 0
