"""Jobs that fail because of something else, in each lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from jobqueue import Discard, JobQueue, Retry, Snooze

__all__ = ["LANES", "jobs"]

jobs = JobQueue("memory://", namespace="whole")


class ShopError(Exception):
    """One of the application's own."""


def _card() -> None:
    raise KeyError("card")


def _cause(error: Exception) -> Exception:
    try:
        _card()
    except KeyError as cause:
        error.__cause__ = cause
    return error


def raise_from() -> None:
    """Wraps what went wrong."""
    try:
        _card()
    except KeyError as error:
        raise ShopError("order 7") from error


def raise_while_handling() -> None:
    """Fails again while it handles a failure."""
    try:
        _card()
    except KeyError:
        raise ShopError("order 7")  # noqa: B904 - it is what is tested


def retry_from() -> None:
    """Asks for another run because of something."""
    try:
        _card()
    except KeyError as error:
        raise Retry(after=1) from error


def retry_returned() -> Retry:
    """The same without `raise`."""
    try:
        _card()
    except KeyError:
        return Retry(after=1)
    raise AssertionError


def discard_from() -> None:
    """Gives up because of something."""
    try:
        _card()
    except KeyError as error:
        raise Discard("no card") from error


def discard_returned() -> Discard:
    """Gives up because of something, without a word."""
    try:
        _card()
    except KeyError:
        return Discard()
    raise AssertionError


def discard_for() -> None:
    """Gives up because of something, which it names."""
    try:
        _card()
    except KeyError as error:
        raise Discard(error) from error


def deep(left: int = 700) -> None:
    """A recursion."""
    if not left:
        _card()
    deep(left - 1)


async def _group(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in errors:
            group.create_task(fail(error))


GROUPS: Final[dict[str, Callable[[], list[Exception]]]] = {
    "group": lambda: [_cause(ShopError("order 7")), KeyError("b")],
    "group of retries": lambda: [_cause(Retry(after=1)), Retry(), Snooze(5), Discard()],
    "group of discards": lambda: [Discard("no card"), Discard()],
    "group with a discard": lambda: [Discard(), ShopError("order 7")],
}
PLAIN: Final[dict[str, Callable[[], Any]]] = {
    "raise from": raise_from,
    "raise while handling": raise_while_handling,
    "retry from": retry_from,
    "retry returned": retry_returned,
    "discard from": discard_from,
    "discard returned": discard_returned,
    "discard for": discard_for,
    "deep": deep,
}


async def _act(what: str) -> Any:
    return PLAIN[what]() if what in PLAIN else await _group(*GROUPS[what]())


@jobs.job(name="thread", retry=0)
def on_a_thread(what: str) -> Any:
    """On a thread."""
    return asyncio.run(_act(what))


@jobs.job(name="loop", retry=0)
async def on_the_loop(what: str) -> Any:
    """On the loop."""
    return await _act(what)


@jobs.job(name="process", retry=0, process=True)
def in_a_process(what: str) -> Any:
    """In a process."""
    return asyncio.run(_act(what))


@jobs.job(name="logs", process=True)
def logs() -> None:
    """Logs what it met, which was deep."""
    import logging

    try:
        deep()
    except KeyError:
        logging.getLogger("shop").exception("met")


LANES: Final[dict[str, Callable[[str], Any]]] = {
    "thread": on_a_thread.call,
    "loop": on_the_loop.call,
    "process": in_a_process.call,
}
