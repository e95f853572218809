"""Kinds of job that the tests of the testing kit share."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import attrs

from jobqueue import Context, Discard, Job, JobQueue, Retry, RetryPolicy, Snooze

jobs: Final = JobQueue(namespace="kit")
"""It has no URL: whatever reaches past a testing block fails."""
seen: Final[list[Any]] = []
"""What jobs did, in order; emptied by `fresh`."""


@contextmanager
def fresh() -> Iterator[list[Any]]:
    """An empty ledger, emptied again."""
    seen.clear()
    yield seen
    seen.clear()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Address:
    street: str
    city: str = "Ulm"


class Broken(Exception):
    pass


@jobs.job(name="mail", aliases=("post",))
def mail(to: str, subject: str = "hello") -> str:
    seen.append(("mail", to))
    return f"{subject}, {to}"


@jobs.job(name="looks")
def looks(ctx: Context) -> str:
    seen.append(("looks", ctx.lease_lost))
    return "half" if ctx.lease_lost else "whole"


@jobs.job(name="urgent", queue="high")
def urgent(number: int) -> int:
    seen.append(("urgent", number))
    return number


@jobs.job(name="add")
async def add(ctx: Context, a: int, b: int = 0) -> int:
    seen.append(("add", a, ctx.attempt))
    return a + b


@jobs.job(name="typed")
def typed(
    at: datetime,
    address: Address | None = None,
    tags: frozenset[str] = frozenset(),
    colour: Colour = Colour.RED,
    day: date = date(2030, 1, 1),
) -> None: ...


@jobs.job(name="broken", retry=2)
def broken(number: int) -> None:
    seen.append(("broken", number))
    raise Broken(number)


@jobs.job(name="endless", retry=-1)
def endless() -> None:
    raise Broken("again")


@jobs.job(name="flaky", retry=RetryPolicy(limit=5, backoff=lambda n: timedelta(hours=n)))
def flaky(ctx: Context, good: int) -> int:
    seen.append(("flaky", ctx.attempt))
    if ctx.attempt < good:
        raise Broken(ctx.attempt)
    return ctx.attempt


@jobs.job(name="again")
def again(then: str) -> Snooze | Discard | Retry:
    seen.append(("again", then))
    if then == "snooze":
        raise Snooze(60)
    if then == "discard":
        return Discard("no use")
    raise Retry(after=30)


@jobs.job(name="circle")
def circle() -> None:
    seen.append("circle")
    circle.enqueue()


@jobs.register
@attrs.frozen
class Resize(Job, name="resize", queue="images"):
    path: str
    width: int = 640

    def perform(self, ctx: Context) -> int:
        seen.append(("resize", self.path))
        return self.width


NEW_YEAR: Final = datetime(2030, 1, 1, tzinfo=UTC)
