"""The two drivers of flows: one blocks the calling thread, one runs on an event loop.

A call may have a ``timeout``, in seconds: then everything that it asks ends together. Where a flow says that it begins
`anew`, the time does too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar

from jobqueue.clock import Clock, ServerClock, monotonic_s
from jobqueue.flows import Apply, Flow, Pause, Read, Refresh
from jobqueue.storage.protocol import Answering, AsyncAnswering, AsyncStorage, Storage

__all__ = ["arun", "run"]

T = TypeVar("T")


def run(
    flow: Flow[T], storage: Storage, clock: Clock, *, pauses: bool = True, timeout: float | None = None
) -> T:  # fmt: skip
    """Drive a flow, blocking the calling thread; without ``pauses`` it never waits."""
    answer: Any = None
    error: BaseException | None = None
    # Not `isinstance`, which takes longer than all of the rest here.
    until: Callable[[float], Answering] | None = None if timeout is None else getattr(storage, "until", None)
    asked: Answering = storage
    end: float | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        answer, error = None, None
        if until is not None and (end is None or request.anew):
            assert timeout is not None
            end = monotonic_s() + timeout
            asked = until(end)
        try:
            match request:
                case Apply(batches):
                    answer = asked.apply(batches)
                case Read(queries):
                    answer = asked.read(queries)
                case Refresh(max_age_ms):
                    _refresh(clock, max_age_ms, end)
                case Pause(seconds):
                    if pauses:
                        time.sleep(seconds if end is None else min(seconds, max(end - monotonic_s(), 0.0)))
        except Exception as raised:  # noqa: BLE001 - the flow's to deal with, also a reply that nobody thought of
            error = raised


async def arun(
    flow: Flow[T],
    storage: AsyncStorage,
    clock: Clock,
    *,
    pauses: bool = True,
    timeout: float | None = None,  # noqa: ASYNC109 - one for all that is asked, with a kind of error of its own
) -> T:
    """Drive a flow on the running event loop; see `run`."""
    answer: Any = None
    error: BaseException | None = None
    until: Callable[[float], AsyncAnswering] | None = None if timeout is None else getattr(storage, "until", None)
    asked: AsyncAnswering = storage
    end: float | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        answer, error = None, None
        if until is not None and (end is None or request.anew):
            assert timeout is not None
            end = monotonic_s() + timeout
            asked = until(end)
        try:
            match request:
                case Apply(batches):
                    answer = await asked.apply(batches)
                case Read(queries):
                    answer = await asked.read(queries)
                case Refresh(max_age_ms):
                    await asyncio.to_thread(_refresh, clock, max_age_ms, end)
                case Pause(seconds):
                    if pauses:
                        await asyncio.sleep(seconds if end is None else min(seconds, max(end - monotonic_s(), 0.0)))
        except Exception as raised:  # noqa: BLE001 - the flow's to deal with, also a reply that nobody thought of
            error = raised


def _refresh(clock: Clock, max_age_ms: float, end: float | None) -> None:
    if end is not None and isinstance(clock, ServerClock):
        clock.refresh(max_age_ms, end)
    else:
        clock.refresh(max_age_ms)
