"""The jobs that every queue runs, as functions and as coroutine functions. Standard library alone, like the tally."""

from __future__ import annotations

import asyncio
import time

from benchmarks.tally import tally

__all__ = ["anap", "anoop", "nap", "noop"]


def noop(number: int) -> None:
    """Do nothing but leave a mark."""
    tally().ended(number)


def nap(number: int, seconds: float) -> None:
    """Sleep; with 0, tell when it began and ended."""
    marks = tally()
    marks.began(number)
    time.sleep(seconds)
    marks.ended(number)


async def anoop(number: int) -> None:
    """`noop`."""
    tally().ended(number)


async def anap(number: int, seconds: float) -> None:
    """`nap`."""
    marks = tally()
    marks.began(number)
    await asyncio.sleep(seconds)
    marks.ended(number)
