"""Typed arguments as JSON, and back.

The declared parameters of a kind become two structs, built once: one that knows which arguments were given, for the
producer, and one whose missing arguments are the declared defaults, for the runner. Encoding alone checks no types and
turns NaN into null, and conversion does not look inside attrs instances; so `Codec.encode_all` converts, encodes, and
decodes those very bytes once. What a job receives is what was checked here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from operator import methodcaller
from typing import Any, Final
from uuid import UUID

import attrs
import msgspec

from jobqueue import models
from jobqueue.crowds import MOST, PARTS, Crowds
from jobqueue.errors import PayloadError
from jobqueue.refusals import TOO_DEEP, UNDECLARED, Refused, told
from jobqueue.roundtrip import at, find_non_finite, first, kept_types, parts, round_trip_differs, surely_kept

__all__ = ["REQUIRED", "Codec", "Parameter"]

REQUIRED: Final = msgspec.NODEFAULT
"""The default of a parameter that has none."""

# Conversion takes values of these types as they are. Without the list a str "aGk=" would pass for the bytes b"hi".
_NATIVE: Final = (bytes, bytearray, memoryview, datetime, date, time, timedelta, UUID, Decimal)
_PLAIN: Final = (str, int, float, datetime, date, timedelta, Decimal)
_CALL: Final = re.compile(r"(?:\[\d+\])*\.?")
"""What a path begins with, before the name of the argument: the indexes are those of `Codec.encode_all`."""


@attrs.frozen
class Parameter:
    """One declared argument of a kind.

    Attributes:
        name: What it is stored as.
        type: Its annotation, resolved.
        default: What the job receives where it was not given, `REQUIRED` for none, `msgspec.UNSET` to leave it out.
    """

    name: str
    type: Any
    default: Any = REQUIRED


def _enc_hook(value: Any) -> Any:
    if models.is_model(type(value)):
        return models.to_json(value)
    plain = next((cls.__name__ for cls in _PLAIN if isinstance(value, cls)), None)
    advice = "" if plain is None else f"; give a plain {plain}"
    raise Refused(f"{type(value).__qualname__} has no form in JSON{advice}")


def _dec_hook(cls: Any, value: Any) -> Any:
    if isinstance(value, cls):
        return value
    if models.is_model(cls):
        return models.from_json(cls, msgspec.json.encode(value))
    raise Refused(f"{cls.__qualname__} has no form in JSON")


_encode: Final = msgspec.json.Encoder(enc_hook=_enc_hook).encode
_values: Final = methodcaller("values")
_keys: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Named(Refused):
    """An argument does not fit; says which."""


class Codec:
    """Arguments by name to JSON and back.

    Args:
        kind: The name of the kind, for error messages.
        parameters: The arguments there are, in their order.

    Attributes:
        parameters: The arguments there are, by name.
        required: The names of those that have to be given.
    """

    __slots__ = (
        "_batch",
        "_crowds",
        "_decode_lines",
        "_fields",
        "_kept",
        "_kind",
        "_leaves",
        "_runner_decode",
        "_surely_kept",
        "parameters",
        "required",
    )

    def __init__(self, kind: str, parameters: Sequence[Parameter]) -> None:
        self._kind = kind
        self.parameters: Final = {parameter.name: parameter for parameter in parameters}
        self.required: Final = frozenset(parameter.name for parameter in parameters if parameter.default is REQUIRED)
        self._fields = {parameter.name: f"p{index}" for index, parameter in enumerate(parameters)}
        self._kept = {parameter.name: kept_types(parameter.type) for parameter in parameters}
        self._surely_kept = {parameter.name: surely_kept(parameter.type) for parameter in parameters}
        together = frozenset[type]().union(*self._kept.values())
        # Where all are plain, the type of a value tells that it arrives, whichever argument it is; but for an int, which may
        # be given for a float as well.
        self._leaves = together if all(self._kept.values()) and not {int, float} <= together else None
        given: Any = _struct(parameters, runner=False)
        # A struct of its own, because a bare list[given] is taken apart anew by every conversion.
        self._batch = msgspec.defstruct("Batch", [("all", list[given])], array_like=True)
        self._decode_lines = msgspec.json.Decoder(given, dec_hook=_dec_hook).decode_lines
        runner = _struct(parameters, runner=True)
        self._runner_decode: Callable[[bytes], Any] = msgspec.json.Decoder(runner, dec_hook=_dec_hook).decode
        self._crowds = Crowds({parameter.name: parameter.type for parameter in parameters}) or None
        if self._crowds is not None:
            self._runner_decode = _bounded(self._crowds, self._runner_decode)

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
            return self._checked(calls)
        except (Refused, msgspec.ValidationError) as error:
            problem: Exception = error
        except Exception as error:  # of msgspec, of pydantic, or of a class of the user's
            problem = error
            if len(calls) == 1 and self._passes(calls):
                raise  # a signal handler threw it in here: it says nothing of the arguments
        try:
            if len(calls) > 1:
                # Which of them it was, and in what words, comes out when each is alone.
                for arguments in calls:
                    self.encode(arguments)
                raise problem  # see above
            declared = {name: value for name, value in calls[0].items() if name in self.parameters}
            refusal = self._refusal(problem, declared)
        finally:
            del problem  # it would hold itself, by way of this frame
        # Not in the handler, and without a cause: both would show an exception that may quote the arguments.
        raise refusal

    def _checked(self, calls: Sequence[Mapping[str, object]]) -> list[bytes]:
        batch: Any = msgspec.convert((calls,), self._batch, builtin_types=_NATIVE, dec_hook=_dec_hook)
        payloads = [*map(_encode, batch.all)]
        if self._crowds is not None:
            for payload in payloads:
                _check_size(self._crowds, payload)
        decoded = self._decode_lines(b"\n".join(payloads))
        given = chain.from_iterable(map(_values, calls))
        if self._leaves is None or not self._leaves.issuperset(map(type, given)):
            for arguments, got in zip(calls, decoded, strict=True):
                self._compare(arguments, got)
        return payloads

    def _passes(self, calls: Sequence[Mapping[str, object]]) -> bool:
        with contextlib.suppress(Exception):
            self._checked(calls)
            return True
        return False

    def decode(self, payload: bytes) -> tuple[Any, ...]:
        """Answer the values of all parameters, in their order, defaults filled in. The runner's fast path.

        Raises:
            PayloadError: The bytes are no JSON, or do not fit the declaration.
        """
        try:
            return msgspec.structs.astuple(self._runner_decode(payload))
        except Exception as error:  # noqa: BLE001 - as in `encode_all`
            refusal = self._refusal(error, {})
        raise refusal

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
        kept, surely = self._kept, self._surely_kept
        for name, given in arguments.items():
            if type(given) in kept[name] or ((is_kept := surely[name]) is not None and is_kept(given)):
                continue
            if problem := round_trip_differs(given, getattr(decoded, self._fields[name]), name):
                raise _Named(problem)

    def _refusal(self, error: Exception, arguments: Mapping[str, object]) -> PayloadError:
        return PayloadError(f"{self._kind}: {self._problem(error, arguments)}")

    def _problem(self, error: Exception, arguments: Mapping[str, object]) -> str:
        """Say what is wrong, and with which argument if they are known."""
        if isinstance(error, _Named):
            return error.problem
        # NaN was written as null, so the error at hand speaks of a null that nobody gave.
        if problem := _first_of(find_non_finite, arguments):
            return problem
        text, path = told(error)
        path = _CALL.sub("", path, count=1)
        if path:
            return at(path, text)
        if problem := _first_of(_unwritable, arguments):
            return problem
        if text == UNDECLARED:
            declared = ", ".join(f"`{name}`" for name in self.parameters) or "none"
            return f"there is an argument that is not declared; declared: {declared}"
        return text if isinstance(error, msgspec.MsgspecError | RecursionError) else self._alone(text, arguments)

    def _alone(self, text: str, arguments: Mapping[str, object]) -> str:
        """Say which argument it is, of an error that names none: one that fails by itself."""
        if len(arguments) == 1:
            return at(next(iter(arguments)), text)
        for name, value in arguments.items():
            try:
                self.partial({name: value})
            except PayloadError as error:
                return str(error).removeprefix(f"{self._kind}: ")
        return text


def _bounded(crowds: Crowds, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def bounded(payload: bytes) -> Any:
        _check_size(crowds, payload)
        return decode(payload)

    return bounded


def _check_size(crowds: Crowds, payload: bytes) -> None:
    if name := crowds.too_large(payload):
        most = f"{MOST:,} elements in all, where {PARTS} parts of elements count as one"
        problem = f"sets, and dicts whose keys are not text, may have {most}"
        raise _Named(at(name, f"{problem}: give a list, and make the set in the job"))


def _first_of(problem_of: Callable[[Any, str], str | None], arguments: Mapping[str, object]) -> str | None:
    """Say what the first argument is that has a problem, or answer None."""
    for name, value in arguments.items():
        try:
            problem = problem_of(value, name)
        except RecursionError:
            problem = at(name, TOO_DEEP)
        except AttributeError:
            problem = at(name, "a field of it has no value")
        if problem:
            return problem
    return None


def _unwritable(value: Any, path: str) -> str | None:
    """Say which part of a value has no form in JSON, or answer None."""
    try:
        _encode(value)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 - of msgspec, of pydantic, or of the value
        if problem := first(_unwritable(part, where) for part, where in parts(value, path)):
            return problem
        for key in value if isinstance(value, Mapping) else ():
            try:
                _encode({key: None})
            except Exception:  # noqa: BLE001 - whatever it says, it speaks of the class alone
                return at(path, f"a key of type {type(key).__qualname__} has no form in JSON")
        return at(path, told(error)[0])
    return None


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
