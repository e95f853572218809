"""The two drivers of flows: one blocks the calling thread, one runs on an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from jobqueue.clock import Clock
from jobqueue.errors import NotApplied
from jobqueue.flows import Apply, Flow, Pause, Read, Refresh
from jobqueue.storage.protocol import AsyncStorage, Storage

__all__ = ["arun", "run"]

T = TypeVar("T")


def run(flow: Flow[T], storage: Storage, clock: Clock, *, pauses: bool = True) -> T:
    """Drive a flow, blocking the calling thread; without ``pauses`` it never waits."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            match request:
                case Apply(batches):
                    answer = storage.apply(batches)
                case Read(queries):
                    answer = storage.read(queries)
                case Refresh(max_age):
                    clock.refresh(max_age)
                case Pause(seconds):
                    if pauses:
                        time.sleep(seconds)
        except NotApplied as refusal:
            error = refusal


async def arun(flow: Flow[T], storage: AsyncStorage, clock: Clock, *, pauses: bool = True) -> T:
    """Drive a flow on the running event loop; see `run`."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            match request:
                case Apply(batches):
                    answer = await storage.apply(batches)
                case Read(queries):
                    answer = await storage.read(queries)
                case Refresh(max_age):
                    await asyncio.to_thread(clock.refresh, max_age)
                case Pause(seconds):
                    if pauses:
                        await asyncio.sleep(seconds)
        except NotApplied as refusal:
            error = refusal
