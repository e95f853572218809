"""What a job may raise or return, in every way that a runner could stumble over; and jobs that do, in each lane."""

# pyright: reportAssignmentType=false, reportIncompatibleVariableOverride=false, reportIncompatibleMethodOverride=false
from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, NoReturn

from jobqueue import Discard, JobQueue, Retry, RetryPolicy, Snooze

__all__ = ["DISCARDED", "FAILED", "jobs"]

jobs = JobQueue("memory://", namespace="hostile")


def _refuse(*_: object) -> NoReturn:
    raise KeyError("whatever is asked")


class NoAttributes(Exception):
    """As of a proxy whose target is gone."""

    __getattr__ = _refuse


class NoText(Exception):
    """Cannot be shown."""

    __str__ = __repr__ = _refuse


class Interrupts(Exception):
    """Ends whoever shows it."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class Exits(BaseException):
    """The same for one that is no `Exception`."""

    def __str__(self) -> str:
        raise SystemExit(0)


class NoClass(Exception):
    """Does not tell its class."""

    __class__ = property(_refuse)


class GivesItselfOut(Exception):
    """Gives itself out as another."""

    __class__ = property(lambda _: Discard)


class HidesAll(Exception):
    """Tells nothing of what every exception has."""

    __cause__ = __context__ = __traceback__ = __suppress_context__ = __notes__ = property(_refuse)


class Endless(Exception):
    """Always has another cause."""

    __cause__ = property(lambda _: Endless())


class CutOff(TimeoutError):
    """Looks like the runner's own until it is looked at."""

    __cause__ = property(_refuse)


class Meta(type):
    """Of a class of which nothing can be learnt."""

    __getattribute__ = __instancecheck__ = _refuse


class Opaque(Exception, metaclass=Meta):
    """Its class answers nothing."""


class Sly(str):
    """A text that is none when it is used."""

    __slots__ = ()
    __format__ = __getitem__ = encode = split = strip = _refuse  # type: ignore[assignment]


class SlyText(Exception):
    """Answers such a text."""

    def __str__(self) -> str:
        return Sly("sly")


class SnoozeWithout(Snooze):
    """Does not call the constructor above."""

    def __init__(self) -> None: ...


class RetryWithout(Retry):
    """The same."""

    def __init__(self) -> None: ...


class DiscardWithout(Discard):
    """The same."""

    def __init__(self) -> None: ...


class SnoozeTwice(Snooze):
    """Answers something else each time."""

    def __init__(self) -> None:
        self.asked = 0

    @property
    def delay_ms(self) -> Any:  # type: ignore[override]
        """First a number."""
        self.asked += 1
        return 1 if self.asked == 1 else "soon"


class RetryRefuses(Retry):
    """Refuses to say when."""

    def __init__(self) -> None: ...

    after_ms = property(_refuse)


def _with(request: BaseException, **attributes: object) -> BaseException:
    for name, value in attributes.items():
        setattr(request, name, value)
    return request


def _noted() -> Exception:
    error = Exception("noted")
    error.__notes__ = [1, None, NoText()]  # type: ignore[list-item]
    return error


async def _coroutine() -> None: ...


def _hidden(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that does not say what it is around."""

    def wrapper() -> Any:
        return function()

    return wrapper


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


class Awaitable:
    """Of its own making."""

    def __await__(self) -> Iterator[None]:
        yield


RAISED: Final[dict[str, Callable[[], BaseException]]] = {
    "no attributes": NoAttributes,
    "syntax error of a template": lambda: SyntaxError("x", ("m.html", 3, 5, b"<%")),  # type: ignore[arg-type]
    "no text": NoText,
    "interrupts": Interrupts,
    "exits": Exits,
    "no class": NoClass,
    "gives itself out": GivesItselfOut,
    "hides all": HidesAll,
    "endless": Endless,
    "cut off": CutOff,
    "opaque": Opaque,
    "sly text": SlyText,
    "noted": _noted,
    "surrogates": lambda: ValueError("\udcff"),
    "exit with an object": lambda: SystemExit(NoText()),
    "snooze without": SnoozeWithout,
    "snooze twice": SnoozeTwice,
    "snooze nan": lambda: _with(Snooze(1), delay_ms=float("nan")),
    "snooze below zero": lambda: _with(Snooze(1), delay_ms=-1),
    "snooze for ever": lambda: _with(Snooze(1), delay_ms=10**30),
    "snooze text": lambda: _with(Snooze(1), delay_ms="1"),
    "retry without": RetryWithout,
    "retry refuses": RetryRefuses,
    "retry text": lambda: _with(Retry(1), after_ms=b"1"),
    "the class Snooze": lambda: Snooze,  # type: ignore[dict-item,return-value]
    "the class Retry": lambda: Retry,  # type: ignore[dict-item,return-value]
}
RETURNED: Final[dict[str, Callable[[], Any]]] = {
    "a coroutine": _hidden(_coroutine),
    "a generator": _generator,
    "a generator expression": lambda: (number for number in (1,)),
    "an async generator": _async_generator,
    "an awaitable": Awaitable,
    "a context manager": contextlib.contextmanager(_generator),
    "an async context manager": contextlib.asynccontextmanager(_async_generator),
    "an exit stack": contextlib.ExitStack,
    "a lazy map": lambda: map(print, ["never"]),
    "Snooze": lambda: Snooze,
    "Retry": lambda: Retry,
    "Discard": lambda: Discard,
    "a subclass": lambda: DiscardWithout,
    "a snooze without": SnoozeWithout,
    "a retry without": RetryWithout,
}
FAILED: Final = [*(f"raise {what}" for what in RAISED), *(f"return {what}" for what in RETURNED)]
"""What is to become a failed attempt."""

_DISCARDS: Final[dict[str, Callable[[], Any]]] = {
    "an error": lambda: Discard(ValueError("seen")),
    "a number": lambda: Discard(404),
    "nothing": lambda: Discard(None),
    "an error without text": lambda: Discard(NoText()),
    "a sly text": lambda: Discard(Sly("sly")),
    "without": DiscardWithout,
    "overwritten": lambda: _with(Discard(""), reason=NoText()),
}
DISCARDED: Final = [*(f"{how} {what}" for how in ("raise", "return") for what in _DISCARDS), "raise the class"]
"""What is to be discarded."""


def act(what: str) -> Any:
    """Raise or return one of these."""
    how, _, name = what.partition(" ")
    if what == "raise the class":
        raise Discard
    made = {**(RAISED if how == "raise" else RETURNED), **_DISCARDS}[name]()
    if how == "raise":
        raise made
    return made


@jobs.job(name="thread", retry=0)
def on_a_thread(what: str) -> Any:
    """On a thread."""
    return act(what)


@jobs.job(name="loop", retry=0)
async def on_the_loop(what: str) -> Any:
    """On the loop."""
    await asyncio.sleep(0)
    return act(what)


@jobs.job(name="limited", retry=0, timeout=60)
async def on_the_loop_in_time(what: str) -> Any:
    """On the loop, within a time."""
    await asyncio.sleep(0)
    return act(what)


@jobs.job(name="process", retry=0, process=True)
def in_a_process(what: str) -> Any:
    """In a process."""
    return act(what)


class Picky(Exception, metaclass=Meta):
    """Refuses to say what is one of it."""


def _exits(_: int) -> float:
    raise SystemExit(1)


@jobs.job(name="picky", retry=RetryPolicy(limit=1, on=(Picky,), backoff=_exits), process=True)
def picky() -> None:
    """Its policy fails."""
    raise ValueError("picked")


@jobs.job(name="picky thread", retry=RetryPolicy(limit=1, give_up_on=(Picky,), backoff=_exits))
def picky_thread() -> None:
    """The same on a thread."""
    raise ValueError("picked")


@jobs.job(name="no stdout", process=True)
def closes_stdout(number: int) -> int:
    """Leaves no standard output."""
    sys.stdout = [None, NoText()][number % 2]
    return os.getpid()


@jobs.job(name="leaves its group", process=True, retry=0, timeout=0.3)
def leaves_its_group() -> None:
    """And has to be killed."""
    os.setpgid(0, os.getpgid(os.getppid()))
    while True:
        pass


@jobs.job(name="after")
def after() -> None:
    """An ordinary job."""


@jobs.job(name="after in a process", process=True)
def after_in_a_process() -> None:
    """The same in a process."""


LANES: Final[dict[str, Callable[[str], Any]]] = {
    "thread": on_a_thread.call,
    "loop": on_the_loop.call,
    "limited": on_the_loop_in_time.call,
    "process": in_a_process.call,
}
