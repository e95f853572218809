"""How a run ended, as plain values, whatever object the job raised or returned.

What a job raises or returns is foreign code: its ``__str__``, its properties, even its ``__class__`` may raise anything. The
functions here that a runner calls never raise. They look at types and not at what an object says of itself, and what has to
be asked of an object is asked under a guard.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

from jobqueue.durations import LONGEST_MS
from jobqueue.record import clean
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.texts import CAUSED, before, error_text, leaves, one_line, text_of, type_name

__all__ = ["asks", "checked_ms", "never_ran", "not_done", "outcome_of", "requested_by"]

_REQUESTS: Final = (Snooze, Discard, Retry)
"""What a job raises or returns to ask for something: no failures."""

# What `type` itself knows of a class, past a metaclass that answers something else.
_BASES: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
_ATTRIBUTES: Final[Callable[[type], Mapping[str, object]]] = type.__dict__["__dict__"].__get__


# -------------------------------------------------------------------------------------------------------------- endings


def asks(outcome: object) -> bool:
    """Whether this is what a job raises or returns to ask for something, which is no failure. This never raises."""
    return issubclass(type(outcome), _REQUESTS)


def requested_by(cls: type) -> str | None:
    """Which of `Snooze`, `Discard` and `Retry` this class is, or is made of. This never raises."""
    return next((request.__name__ for request in _REQUESTS if issubclass(cls, request)), None)


def outcome_of(error: BaseException, caller: str | None = None) -> tuple[BaseException, str]:
    """What a runner goes on with after a job raised this, or returned it to ask for something. This never raises.

    A group in which all members ask for something, as an `asyncio.TaskGroup` raises it, asks for what keeps most of the job:
    `Retry` before `Snooze` before `Discard`, and of two alike the later one. A group with any other member has failed.

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
        requests = list(leaves(error))
        if not all(map(asks, requests)):
            return error, error_text(error, caller)
    except BaseException:  # noqa: BLE001 - the exception's own code
        return _stand_in(error, caller)
    asked = []
    for request in requests:
        try:
            asked.append(_asked(request))
        except BaseException as broken:  # noqa: BLE001 - as above
            wrong = TypeError(
                f"the job asked for something with {type_name(type(request))}, and what it asks for cannot be used "
                f"({text_of(broken)}): call super().__init__(…) in its __init__, and leave its attributes as they are"
            )
            wrong.__cause__ = error
            return wrong, error_text(wrong, caller)
    most = max(asked)
    request = requests[asked.index(most)]
    return request, error_text(error, caller) if isinstance(request, Retry) else clean(most[2])


def _asked(request: BaseException) -> tuple[int, int, str]:
    """How much a request keeps of its job, when it is run again, and why it is not. Raises whatever its code raises."""
    if isinstance(request, Retry):
        return 2, 0 if request.after_ms is None else checked_ms(request.after_ms), ""
    if isinstance(request, Snooze):
        return 1, checked_ms(request.delay_ms), ""
    return 0, 0, _reason(request)


def _reason(request: Any) -> str:
    """Why a job is to be discarded: its words, and what it was raised from; without words what was being handled."""
    reason = request.reason
    words = "" if reason is None else text_of(reason)
    led = before(request)
    if led is None or led[1] is reason or (words and led[0] != CAUSED):
        return words
    return f"{words}: {one_line(led[1])}" if words else one_line(led[1])


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
    which = type_name(cls)
    with contextlib.suppress(BaseException):  # a generator may have begun, and runs its `finally` blocks now
        if isinstance(result, types.CoroutineType | types.GeneratorType | types.AsyncGeneratorType):
            which += f" {result.__qualname__!r}"
        if what in ("an awaitable", "a generator"):
            result.close()  # type: ignore[attr-defined] # a future has no such method
    return TypeError(f"the job returned {what} ({which}), and {_ADVICE[what]}")
