"""The thread of a beat without its thread: a fake clock, and a storage that takes its time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from jobqueue import transitions
from jobqueue.keys import namespace_keys
from jobqueue.runner.beat import Heart
from jobqueue.runner.journal import Journal, RunnerStatus
from jobqueue.runner.leases import Leases
from jobqueue.runner.report import Reporter
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.testing import FakeClock

__all__ = ["BEAT", "LEASE", "SPACE", "Slow", "Turns", "beats", "heart_of"]

SPACE: Final = namespace_keys("runner")
LEASE, BEAT = 30_000, 5_000


class Turns(threading.Event):
    """Stands in for the event at which the thread of the beat waits: time passes at once, and a turn may come late."""

    def __init__(self, clock: FakeClock, turns: int) -> None:
        super().__init__()
        self.clock = clock
        self.left = turns
        self.late: dict[int, float] = {}

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.clock.advance(timeout + self.late.get(self.left, 0.0))
        self.left -= 1
        return self.left < 0


class Slow(MemoryStorage):
    """Takes its time, and answers what it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock = clock
        self.takes: list[float] = []
        self.answers: list[Outcome | None] = []
        self.beats: list[float] = []
        self.apply([transitions.create_meta(SPACE, b"epoch")])
        self.beats.clear()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        self.beats.append(self.clock.monotonic())
        outcomes = super().apply(batches)
        self.clock.advance(self.takes.pop(0) if self.takes else 0)
        answer = self.answers.pop(0) if self.answers else None
        return outcomes if answer is None else [answer] * len(batches)


def heart_of(storage: Storage, clock: FakeClock, leases: Leases) -> Heart:
    return Heart(
        storage, clock, SPACE, leases, threading.Lock(), every=BEAT, incarnation=b"owner", info=lambda now: b"alive",
        epoch=b"epoch", data_lost=lambda: None,
        observe=Journal(RunnerStatus(), Reporter(logging.getLogger("beats"))).observe,
    )  # fmt: skip


def beats(storage: Slow, turns: int, late: dict[int, float] | None = None) -> None:
    """Let the thread of a heart take so many turns; ``late`` has the seconds that turns come late, the last is 1."""
    heart = heart_of(storage, storage.clock, Leases(LEASE))
    heart._stopped = events = Turns(storage.clock, turns)
    events.late = late or {}
    heart._run()
