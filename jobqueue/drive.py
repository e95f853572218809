"""What a request of a flow asks of the storage: `Blocking` for threads, `Awaiting` for an event loop.

A call may have a timeout: then everything that it asks ends together. Where a flow says that it begins `anew`, the time does
too.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

import msgspec

from jobqueue.clock import Clock, ServerClock, monotonic_s
from jobqueue.flows import Apply, Flow, Pause, Read, Refresh, Request
from jobqueue.loops import drive
from jobqueue.storage.protocol import AsyncStorage, Storage

__all__ = ["Awaiting", "Blocking", "run"]

T = TypeVar("T")


class _OneCall(msgspec.Struct):
    """One call: answers the requests of its flow. Made without Python code of its own, since every enqueue makes one.

    Attributes:
        storage: Asked for all but the time and the pauses; `Bounded` if there is a timeout.
        clock: What is refreshed.
        timeout_s: How long the call may take, None: as long as it takes.
        pauses: Whether it waits before it asks again; under a clock that stands still nobody should.
        end_s: When the call is over, by `monotonic_s`, once it has begun.
    """

    storage: Any
    clock: Clock
    timeout_s: float | None = None
    pauses: bool = True
    end_s: float | None = None

    def __call__(self, request: Request) -> Any:
        """The answer to a request, or what to await for it."""
        if self.timeout_s is not None and (self.end_s is None or request.anew):
            self.end_s = monotonic_s() + self.timeout_s
        end_s = self.end_s
        match request:
            case Apply(batches):
                return self.storage.apply(batches) if end_s is None else self.storage.apply(batches, end_s)
            case Read(queries):
                return self.storage.read(queries) if end_s is None else self.storage.read(queries, end_s)
            case Refresh(max_age_ms):
                return self._refresh(max_age_ms)
            case Pause(seconds):
                most = seconds if end_s is None else min(seconds, max(end_s - monotonic_s(), 0.0))
                return self._pause(most if self.pauses else 0.0)

    def _refresh(self, max_age_ms: float) -> Any:
        if self.end_s is not None and isinstance(self.clock, ServerClock):
            return self.clock.refresh(max_age_ms, self.end_s)
        return self.clock.refresh(max_age_ms)

    def _pause(self, seconds: float) -> Any:
        raise NotImplementedError


class Blocking(_OneCall):
    """Answers when the storage has; for `loops.drive`."""

    storage: Storage

    def _pause(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)


class Awaiting(_OneCall):
    """Answers what to await; for `loops.adrive`."""

    storage: AsyncStorage

    def _refresh(self, max_age_ms: float) -> Any:
        return asyncio.to_thread(super()._refresh, max_age_ms)

    def _pause(self, seconds: float) -> Any:
        return asyncio.sleep(seconds)


def run(flow: Flow[T], storage: Storage, clock: Clock) -> T:
    """Drive a flow without a timeout, blocking the calling thread."""
    return drive(flow, Blocking(storage, clock))
