"""Typed arguments as JSON, and back.

The declared parameters of a kind become two structs, built once: one that knows which arguments were given, for the
producer, and one whose missing arguments are the declared defaults, for the runner. Encoding alone checks no types and
turns NaN into null, and conversion does not look inside attrs instances; so `Codec.encode_all` converts, encodes, and
decodes those very bytes once. What a job receives is what was checked here.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec

from jobqueue.errors import PayloadError

__all__ = ["REQUIRED", "Codec", "Parameter", "is_pydantic", "round_trip_differs"]

REQUIRED: Final = msgspec.NODEFAULT
"""The default of a parameter that has none."""

# Conversion takes values of these types as they are. Without the list a str "aGk=" would pass for the bytes b"hi".
_NATIVE: Final = (bytes, bytearray, memoryview, datetime, date, time, timedelta, UUID, Decimal)
_AT: Final = re.compile(r"(.*) - at `\$(?:\[\d+\])*\.?(.*)`", re.DOTALL)
"""What a message ends with, from the name of the argument on: the indexes before it are those of `Codec.encode_all`."""


@attrs.frozen
class Parameter:
    """One declared argument of a kind.

    Attributes:
        name: What it is stored as.
        type: Its annotation, resolved.
        default: What the job receives where it was not given, `REQUIRED` for none, `msgspec.UNSET` to leave it out.
        exact: Whether a value that passed conversion surely arrives as it was (see `Codec.encode_all`).
    """

    name: str
    type: Any
    default: Any = REQUIRED
    exact: bool = False


def is_pydantic(cls: object) -> bool:
    """Answer whether this is a pydantic model class, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _enc_hook(value: Any) -> Any:
    if is_pydantic(type(value)):
        return value.model_dump(mode="json", warnings="error")
    raise NotImplementedError(f"{type(value).__qualname__} has no form in JSON")


def _dec_hook(cls: Any, value: Any) -> Any:
    if isinstance(value, cls):
        return value
    if is_pydantic(cls):
        # As JSON, not as Python values: pydantic reads a date out of a string only there, whatever its mode.
        return cls.model_validate_json(msgspec.json.encode(value))
    raise NotImplementedError(f"{cls.__qualname__} has no form in JSON")


_encode: Final = msgspec.json.Encoder(enc_hook=_enc_hook).encode
_keys: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Codec:
    """Arguments by name to JSON and back.

    Args:
        kind: The name of the kind, for error messages.
        parameters: The arguments there are, in their order.
    """

    __slots__ = ("_batch", "_decode_lines", "_exact", "_kind", "_required", "_runner_decode", "parameters")

    def __init__(self, kind: str, parameters: Sequence[Parameter]) -> None:
        self._kind = kind
        self.parameters: Final = {parameter.name: parameter for parameter in parameters}
        self._required = frozenset(parameter.name for parameter in parameters if parameter.default is REQUIRED)
        self._exact = all(parameter.exact for parameter in parameters)
        given: Any = _struct(parameters, runner=False)
        # A struct of its own, because a bare list[given] is taken apart anew by every conversion.
        self._batch = msgspec.defstruct("Batch", [("all", list[given])], array_like=True)
        self._decode_lines = msgspec.json.Decoder(given, dec_hook=_dec_hook).decode_lines
        runner = _struct(parameters, runner=True)
        self._runner_decode: Callable[[bytes], Any] = msgspec.json.Decoder(runner, dec_hook=_dec_hook).decode

    def fits(self, arguments: Mapping[str, object]) -> bool:
        """Answer whether none of these names is unknown, and none is missing; values are not looked at."""
        return self._required <= arguments.keys() <= self.parameters.keys()

    def encode(self, arguments: Mapping[str, object]) -> bytes:
        """Check arguments and write them as JSON, only those given.

        Raises:
            PayloadError: One is missing, unknown, of the wrong type, has no form in JSON, or would arrive changed.
        """
        return self.encode_all((arguments,))[0]

    def encode_all(self, calls: Sequence[Mapping[str, object]]) -> list[bytes]:
        """Do the same for the arguments of many calls, at a fifth of the price for each.

        Raises:
            PayloadError: See `encode`; of the first that does not fit.
        """
        try:
            payloads = [*map(_encode, _convert((calls,), self._batch).all)]
            decoded = self._decode_lines(b"\n".join(payloads))
            if not self._exact:
                for arguments, got in zip(calls, decoded, strict=True):
                    self._compare(arguments, got)
        except Exception as error:
            if len(calls) == 1:
                if isinstance(error, msgspec.ValidationError):
                    error.__traceback__ = None  # of this module alone
                raise self._refusal(error, calls[0]) from error
        else:
            return payloads
        # Which of them it was, and in what words, comes out when each is alone.
        return [self.encode(arguments) for arguments in calls]

    def decode(self, payload: bytes) -> tuple[Any, ...]:
        """Answer the values of all parameters, in their order, defaults filled in. The runner's fast path.

        Raises:
            PayloadError: The bytes are no JSON, or do not fit the declaration.
        """
        try:
            return msgspec.structs.astuple(self._runner_decode(payload))
        except Exception as error:
            raise self._refusal(error, None) from error

    def arguments(self, payload: bytes) -> dict[str, Any]:
        """Answer the arguments that were given, by name.

        Raises:
            PayloadError: The bytes are no JSON, or do not fit the declaration.
        """
        values = dict(zip(self.parameters, self.decode(payload), strict=True))
        given = _keys(payload)
        return {name: value for name, value in values.items() if name in given}

    def partial(self, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Check some of the arguments alone, and answer them as the job would receive them.

        Raises:
            PayloadError: As `encode`, but none is missing.
        """
        some = [attrs.evolve(self.parameters[name], default=REQUIRED) for name in arguments if name in self.parameters]
        codec = Codec(self._kind, some)
        return codec.arguments(codec.encode(arguments))

    def _compare(self, arguments: Mapping[str, object], decoded: msgspec.Struct) -> None:
        for name, got in zip(self.parameters, msgspec.structs.astuple(decoded), strict=True):
            if name in arguments:
                problem = round_trip_differs(arguments[name], got, name)
                if problem:
                    raise PayloadError(problem)

    def _refusal(self, error: Exception, arguments: Mapping[str, object] | None) -> PayloadError:
        try:
            # NaN was written as null, so the error at hand speaks of a null that nobody gave.
            problem = _first(_find_non_finite(value, name) for name, value in (arguments or {}).items())
        except RecursionError as too_deep:
            error, problem = too_deep, None
        if isinstance(error, RecursionError):
            problem = "the arguments are nested too deep, or contain themselves"
        if problem is None:
            found = _AT.fullmatch(str(error))
            problem = str(error) if found is None else _at(found[2], found[1]) if found[2] else found[1]
        return PayloadError(f"{self._kind}: {problem}")


def _struct(parameters: Sequence[Parameter], *, runner: bool) -> type[msgspec.Struct]:
    fields: list[Any] = []
    for index, parameter in enumerate(parameters):
        if parameter.default is REQUIRED:
            default = REQUIRED
        elif runner:
            # Handed out as the very object that a plain call would use, like Python does.
            default = msgspec.field(default_factory=_constant(parameter.default))
        else:
            default = msgspec.UNSET
        fields.append((f"p{index}", parameter.type, msgspec.field() if default is REQUIRED else default))
    return msgspec.defstruct(
        "Arguments",
        fields,
        # Fields have names of our own: a struct cannot have every name that a parameter can.
        rename={f"p{index}": parameter.name for index, parameter in enumerate(parameters)},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _convert(value: object, struct: type[msgspec.Struct]) -> Any:
    return msgspec.convert(value, struct, builtin_types=_NATIVE, dec_hook=_dec_hook)


# ------------------------------------------------------------------------------------------------ what arrives changed


def round_trip_differs(given: Any, got: Any, path: str) -> str | None:
    """Say where a value that came back from JSON differs from the one given, or answer None.

    A list may arrive as the tuple or set that is declared, and an int as the float. Anything else that changes would be a
    surprise in the job: a subclass cut down to its base, a key that was dropped, NaN as None.
    """
    if isinstance(got, Enum):
        return None if given in (got, got.value) else _changed(given, got, path)
    if isinstance(got, dict):
        return _mapping_differs(given, got, path)
    if isinstance(got, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(got):
            return _changed(given, got, path)
        items = zip(given, got, strict=True)
        return _first(round_trip_differs(a, b, f"{path}[{index}]") for index, (a, b) in enumerate(items))
    if isinstance(got, set | frozenset):
        same = isinstance(given, set | frozenset | list | tuple) and set(given) == got
        return None if same else _changed(given, got, path)
    names = _field_names(type(got))
    if names is not None:
        if type(given) is not type(got):
            return _at(path, f"a {type(given).__qualname__} would arrive as a {type(got).__qualname__}")
        return _first(round_trip_differs(getattr(given, n), getattr(got, n), f"{path}.{n}") for n in names)
    if isinstance(given, datetime) and isinstance(got, datetime) and None not in (given.tzinfo, got.tzinfo):
        # By subtraction: equality of two zones is always false in the hour that summer time ends.
        return None if given - got == timedelta(0) else _changed(given, got, path)
    return None if given == got else _changed(given, got, path)


def _mapping_differs(given: Any, got: dict[Any, Any], path: str) -> str | None:
    if not isinstance(given, Mapping):
        return _changed(given, got, path)
    if given.keys() != got.keys():
        lost = [key for key in given if key not in got]
        return _at(path, f"the key {lost[0]!r} would not arrive") if lost else _changed(given, got, path)
    # An infinite key would arrive, as a string; it is refused because no infinite value would.
    problem = _first(_find_non_finite(key, path) for key in got)
    return problem or _first(round_trip_differs(given[key], got[key], f"{path}[{key!r}]") for key in got)


def _field_names(cls: type[Any]) -> tuple[str, ...] | None:
    if attrs.has(cls):
        return tuple(attribute.name for attribute in attrs.fields(cls))
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    return cls.__struct_fields__ if issubclass(cls, msgspec.Struct) else None


def _at(path: str, problem: str) -> str:
    return f"argument `{path}`: {problem}"


def _first(problems: Any) -> str | None:
    return next((problem for problem in problems if problem), None)


def _changed(given: Any, got: Any, path: str) -> str:
    return _find_non_finite(given, path) or _at(path, f"{given!r} would arrive as {got!r}")


def _find_non_finite(value: Any, path: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else _at(path, f"{value} has no form in JSON; give a finite number")
    if isinstance(value, Mapping):
        items = (_find_non_finite(item, f"{path}[{key!r}]") for key, item in value.items())
        return _first(_find_non_finite(key, path) for key in value) or _first(items)
    if isinstance(value, list | tuple | set | frozenset):
        return _first(_find_non_finite(item, f"{path}[{index}]") for index, item in enumerate(value))
    names = _field_names(type(value))
    return _first(_find_non_finite(getattr(value, name), f"{path}.{name}") for name in names) if names else None
