"""How a run ended, as plain values, whatever object the job raised or returned.

What a job raises or returns is foreign code: its ``__str__``, its properties, even its ``__class__`` may raise anything. The
functions here that a runner calls never raise. They look at types and not at what an object says of itself, and what has to
be asked of an object is asked under a guard.
"""

from __future__ import annotations

import contextlib
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from jobqueue.durations import LONGEST_MS
from jobqueue.record import clean
from jobqueue.retry import Discard, Retry, Snooze

__all__ = [
    "asks",
    "checked_ms",
    "class_name",
    "error_text",
    "never_ran",
    "not_done",
    "outcome_of",
    "requested_by",
    "said",
    "text_of",
]

FRAMES: Final = 30
"""Frames of a traceback that are kept."""

_REQUESTS: Final = (Snooze, Discard, Retry)
"""What a job raises or returns to ask for something: no failures."""

# What `type` itself knows of a class, past a metaclass that answers something else.
_SHORT: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
_NAME: Final[Callable[[type], str]] = type.__dict__["__qualname__"].__get__
_MODULE: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__
_BASES: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
_ATTRIBUTES: Final[Callable[[type], Mapping[str, object]]] = type.__dict__["__dict__"].__get__
_TRACEBACK: Final[Callable[[BaseException], types.TracebackType | None]] = BaseException.__dict__[
    "__traceback__"
].__get__


# ---------------------------------------------------------------------------------------------------------------- texts


def error_text(error: BaseException, caller: str | None = None) -> str:
    """The text of an exception as it is kept with a job: what it says, then the frames of its traceback.

    The last line of a usual traceback comes first: it is what people look for, and what is kept if the text has to be cut.
    No local variables: they hold what arguments hold.

    Args:
        error: The exception; any object of any class. This never raises.
        caller: The file that called the job. Where the traceback begins there, its first frame says nothing.
    """
    return clean(f"{_summary(error)}\n{_frames(error, caller)}".rstrip())


def text_of(value: object) -> str:
    """The text of an object; of an exception the type as well. This never raises."""
    return _summary(value) if issubclass(type(value), BaseException) else said(value)


def said(value: object) -> str:
    """What an object says of itself; of an exception without its type. This never raises."""
    try:
        return "".join((str(value),))  # an exact str, whatever subclass it was
    except BaseException as broken:  # noqa: BLE001 - the object's own code
        return _without_text(type(value), broken)


def _summary(error: Any) -> str:
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - the exception's own code
        return _without_text(type(error), broken)
    try:
        # Told that it is one of a chain, it does not walk through the chain.
        lines = traceback.TracebackException(type(error), error, None, _seen=set()).format_exception_only()
        return "".join(lines).strip()
    except BaseException:  # noqa: BLE001 - a note or a line of source that is no text, or whatever the exception hides
        name = _type_name(type(error))
        return "".join((f"{name}: ", text)) if text else name


def _without_text(cls: type, broken: BaseException) -> str:
    return f"{_type_name(cls)}: its text could not be made, that raised {_type_name(type(broken))}"


def _frames(error: BaseException, caller: str | None) -> str:
    try:
        trace = _TRACEBACK(error)
        if trace is not None and trace.tb_frame.f_code.co_filename == caller:
            trace = trace.tb_next
        return "".join(traceback.format_tb(trace, limit=-FRAMES))
    except BaseException:  # noqa: BLE001 - the source lines come from a loader, which may be the job's own
        return ""


def class_name(cls: type) -> str:
    """The plain name of a class, whatever its metaclass answers. This never raises."""
    return _SHORT(cls)


def _type_name(cls: type) -> str:
    name = "".join((_NAME(cls),))
    try:
        module = _MODULE(cls)
    except AttributeError:  # it was deleted
        return name
    return name if type(module) is not str or module in ("builtins", "__main__") else f"{module}.{name}"


# -------------------------------------------------------------------------------------------------------------- endings


def asks(outcome: object) -> bool:
    """Whether this is what a job raises or returns to ask for something, which is no failure. This never raises."""
    return issubclass(type(outcome), _REQUESTS)


def requested_by(cls: type) -> str | None:
    """Which of `Snooze`, `Discard` and `Retry` this class is, or is made of. This never raises."""
    return next((request.__name__ for request in _REQUESTS if issubclass(cls, request)), None)


def outcome_of(error: BaseException, caller: str | None = None) -> tuple[BaseException, str]:
    """What a runner goes on with after a job raised this, or returned it to ask for something. This never raises.

    Args:
        error: What came back.
        caller: See `error_text`.

    Returns:
        An exception that can be judged, and the text to keep: that of the error, or the reason of a `Discard`. It is the
        same exception, unless that gives itself out as another class, or asks for something that makes no sense.
    """
    cls = type(error)
    try:
        if error.__class__ is not cls:
            return _stand_in(error, caller)
        if isinstance(error, Discard):
            return error, "" if error.reason is None else clean(text_of(error.reason))
        if isinstance(error, Snooze):
            checked_ms(error.delay_ms)
            return error, ""
        if isinstance(error, Retry) and error.after_ms is not None:
            checked_ms(error.after_ms)
    except BaseException as broken:  # noqa: BLE001 - the exception's own code
        if not asks(error):
            return _stand_in(error, caller)
        wrong = TypeError(
            f"the job asked for something with {_type_name(cls)}, and what it asks for cannot be used "
            f"({text_of(broken)}): call super().__init__(…) in its __init__, and leave its attributes as they are"
        )
        return wrong, error_text(wrong)
    return error, error_text(error, caller)


def _stand_in(error: BaseException, caller: str | None) -> tuple[BaseException, str]:
    text = error_text(error, caller)
    return RuntimeError(text.split("\n", 1)[0]), text


def checked_ms(value: object) -> int:
    """Answer a delay in ms unchanged: what a subclass has made of that of a `Snooze` or `Retry` may be anything.

    Raises:
        ValueError: It is no whole number from 0 to a hundred years.
    """
    if type(value) is int and 0 <= value <= LONGEST_MS:
        return value
    raise ValueError(f"{text_of(value)} is no whole number of milliseconds from 0 to 100 years")


# ---------------------------------------------------------------------------------------------------- work that never ran


def never_ran(cls: type) -> str | None:
    """What an instance of this class is, if all of its work is still to be done, else None. This never raises.

    By the methods that the class has, as the abstract classes of the standard library do: other compilers have coroutines
    and generators of their own.
    """
    methods = {name for base in _BASES(cls) for name in _TELLING if name in _ATTRIBUTES(base)}
    if "__await__" in methods:
        return "an awaitable"
    if methods >= {"send", "throw", "__next__"}:
        return "a generator"
    if methods >= {"asend", "athrow", "__anext__"}:
        return "an async generator"
    if not _MANAGERS.isdisjoint(_BASES(cls)):
        return "a context manager"
    return "a lazy iterator" if issubclass(cls, map | filter) else None


_TELLING: Final = ("__await__", "send", "throw", "__next__", "asend", "athrow", "__anext__")
# Those that say so. A file or a connection may be entered as well, and is a result.
_MANAGERS: Final = frozenset({contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager})
_ADVICE: Final = {
    "an awaitable": (
        "nobody awaits it, so its work is not done: await it in an `async def`; where a decorator made a plain function of "
        "one, put @jobs.job below that decorator"
    ),
    "a generator": "nothing of it has run: go through it in the job, as in `for _ in …:`",
    "an async generator": "nothing of it has run: go through it in the job, as in `async for _ in …:`",
    "a context manager": "nobody entered it: enter it in the job, as in `with …:`",
    "a lazy iterator": "nothing of it has run: go through it in the job, as in `for _ in …:`",
}


def not_done(result: object) -> TypeError | None:
    """The error of a job that returned work which never ran, or a class where an instance was meant; None for other results.

    A coroutine or generator is closed, so that nothing complains later that nobody awaited it. This never raises.
    """
    cls = type(result)
    if issubclass(cls, type):
        request = requested_by(result)  # type: ignore[arg-type] # it is a class
        if request is None:
            return None
        example = "Snooze(60)" if request == "Snooze" else f"{request}()"
        return TypeError(
            f"the job returned the class {request}, which asks for nothing: return or raise an instance, as in "
            f"`return {example}`"
        )
    what = never_ran(cls)
    if what is None:
        return None
    which = _type_name(cls)
    with contextlib.suppress(BaseException):  # a generator may have begun, and runs its `finally` blocks now
        if isinstance(result, types.CoroutineType | types.GeneratorType | types.AsyncGeneratorType):
            which += f" {result.__qualname__!r}"
        if what in ("an awaitable", "a generator"):
            result.close()  # type: ignore[attr-defined] # a future has no such method
    return TypeError(f"the job returned {what} ({which}), and {_ADVICE[what]}")
