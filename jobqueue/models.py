"""pydantic models as JSON and back, where the application has imported pydantic; this package never does."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any, NoReturn

import msgspec

from jobqueue.words import article

__all__ = ["build", "from_json", "is_model", "lost", "names", "to_json"]


def is_model(cls: object) -> bool:
    """Answer whether this is a pydantic model class."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def to_json(model: Any) -> msgspec.Raw:
    """Write a model by the names of its fields, without what is computed from them.

    Not by alias: a field can have one alias for reading and another for writing, or a path.
    """
    return msgspec.Raw(model.model_dump_json(by_alias=not _by_name(), round_trip=True, warnings="error").encode())


def from_json(cls: Any, text: bytes) -> Any:
    """Read a model again.

    Raises:
        ValueError: It does not fit; what is wrong, and where, in the way of msgspec.
    """
    try:
        # As JSON, not as Python values: pydantic reads a date out of a string only there, whatever its mode.
        return cls.model_validate_json(text, **_by_name())
    except sys.modules["pydantic"].ValidationError as error:
        _refuse(error)


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


def _refuse(error: Any) -> NoReturn:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    # Without the cause, which quotes the arguments.
    raise ValueError(f"{first['msg']} - at `${path}`") from None
