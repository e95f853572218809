"""pydantic models as JSON and back, where the application has imported pydantic; this package never does."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping, MutableMapping, MutableSet
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from jobqueue.refusals import Refused, reason
from jobqueue.words import article

__all__ = ["build", "from_json", "hashes", "is_model", "lost", "names", "to_json"]


def is_model(cls: object) -> bool:
    """Answer whether this is a pydantic model class."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def to_json(model: Any) -> msgspec.Raw:
    """Write a model by the names of its fields, without what is computed from them.

    Not by alias: a field can have one alias for reading and another for writing, or a path.

    Raises:
        Refused: pydantic cannot.
    """
    try:
        text = model.model_dump_json(by_alias=not _by_name(), round_trip=True, warnings="error")
    except sys.modules["pydantic_core"].PydanticSerializationError:
        problem = f"pydantic cannot write {article(type(model).__qualname__)} as JSON"
    else:
        return msgspec.Raw(text.encode())
    raise Refused(problem)  # without the cause, which quotes values


def from_json(cls: Any, text: bytes) -> Any:
    """Read a model again.

    Raises:
        Refused: It does not fit.
    """
    try:
        # As JSON, not as Python values: pydantic reads a date out of a string only there, whatever its mode.
        return cls.model_validate_json(text, **_by_name())
    except sys.modules["pydantic"].ValidationError as error:
        refused = _refused(cls, error)
    raise refused  # without the cause, which quotes values


def build(cls: Any, /, **values: object) -> Any:
    """Make a model of the values of its fields by name."""
    return cls.model_validate(values, **_by_name())


def names(model: Any) -> tuple[str, ...]:
    """Answer the names of a model's fields, and of what else it was given."""
    return (*type(model).model_fields, *(model.model_extra or ()))


def lost(given: Any, got: Any) -> str | None:
    """Answer what of a model, besides its fields, did not come back."""
    if given.__pydantic_private__ != got.__pydantic_private__:
        return f"the private attributes of {article(type(given).__qualname__)} would not arrive"
    return None


@functools.cache
def _by_name() -> dict[str, bool]:
    """What lets a model be read by the names of its fields, whatever it says; before pydantic 2.11 the alias has to do."""
    parameters = inspect.signature(sys.modules["pydantic"].BaseModel.model_validate_json).parameters
    return {"by_alias": False, "by_name": True} if "by_name" in parameters else {}


_DECLARED: Final = frozenset({
    "bool_type", "bool_parsing", "bytes_type", "date_parsing", "date_type", "datetime_parsing", "datetime_type",
    "decimal_parsing", "decimal_type", "dict_type", "enum", "extra_forbidden", "finite_number", "float_parsing",
    "float_type", "frozen_set_type", "greater_than", "greater_than_equal", "int_from_float", "int_parsing",
    "int_type", "json_invalid", "less_than", "less_than_equal", "list_type", "literal_error", "missing", "model_type",
    "multiple_of", "none_required", "set_type", "string_pattern_mismatch", "string_too_long", "string_too_short",
    "string_type", "time_delta_parsing", "time_delta_type", "time_parsing", "time_type", "timezone_aware",
    "timezone_naive", "too_long", "too_short", "tuple_type", "union_tag_not_found", "uuid_type",
})  # fmt: skip
"""Kinds of error whose messages have nothing in them but the declaration. Others quote the value, or are of a validator."""


def _refused(cls: Any, error: Any) -> Refused:
    first = error.errors(include_input=False)[0]
    raised = first.get("ctx", {}).get("error")
    # An error of the user's own class may have the name of one of pydantic's kinds, but has no page in its documentation.
    is_declared = first["type"] in _DECLARED and "url" in first
    if is_declared:
        problem = first["msg"]
    else:
        problem = reason(raised) if isinstance(raised, Exception) else f"{cls.__qualname__} does not accept it"
    names = frozenset(_declared(cls))
    steps = (
        f"[{part}]" if isinstance(part, int) else f".{part}" if part in names else "[...]" for part in first["loc"]
    )
    return Refused(problem, "".join(steps))


def _declared(cls: Any) -> Iterator[str]:
    """The names of the fields in a model: what else is in the path to an error was made of keys in the value."""
    for hint in _types(cls, set()):
        yield from _fields(hint)


def hashes(cls: Any) -> bool:
    """Answer whether there are sets in a model, or dicts whose keys are not text."""
    for hint in _types(cls, set()) if is_model(cls) else ():
        origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
        if origin in (set, frozenset, AbstractSet, MutableSet) and arguments != (str,):
            return True
        if origin in (dict, Mapping, MutableMapping) and arguments and arguments[0] is not str:
            return True
    return False


def _types(hint: Any, seen: set[int]) -> Iterator[Any]:
    """A type, and all that it is made of."""
    if id(hint) in seen:
        return
    seen.add(id(hint))
    yield hint
    for part in (*typing.get_args(hint), *_fields(hint).values()):
        yield from _types(part, seen)


def _fields(hint: Any) -> dict[str, Any]:
    """The fields of a model, a dataclass or a `TypedDict`, with their types."""
    if is_model(hint):
        return {name: field.annotation for name, field in hint.model_fields.items()}
    if not isinstance(hint, type):
        return {}
    try:
        return typing.get_type_hints(hint)
    except Exception:  # noqa: BLE001 - a name that is known to the class alone
        return {**getattr(hint, "__annotations__", {})}
