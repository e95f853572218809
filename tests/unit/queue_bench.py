"""A `JobQueue` over memory whose calls can be made to fail, under a fake clock."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jobqueue import JobQueue, transitions
from jobqueue.backend import GivenBackend
from jobqueue.ids import SeededChance
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Batch, Moved, claim_mark
from jobqueue.testing import FakeClock, Fault, FaultyStorage

__all__ = ["Bench"]


class Bench:
    """A queue with one kind, and what happens to its next calls.

    Attributes:
        faults: Scope → what happens to the next calls of that scope; ``""`` for all scopes.
        calls: The batches of every call, by scope, in order.
        meddle: Called before each call, once: what somebody else does just then.
    """

    def __init__(self, **options: Any) -> None:
        self.memory = MemoryStorage()
        self.clock = FakeClock()
        self.numbers = itertools.count(1)
        self.faults: dict[str, deque[Fault]] = {}
        self.calls: list[tuple[str, tuple[Batch, ...]]] = []
        self.meddle: Callable[[], object] | None = None
        self.storage = FaultyStorage(self.memory, self._plan)
        self.jobs = JobQueue("memory://", namespace="test", **options)
        self.open()

        @self.jobs.job(name="work", retry=3)
        def work(number: int) -> None: ...

        self.work = work

    def open(self) -> None:
        """Forget what the queue knows of its storage, as another process would."""
        self.jobs.access.replace(
            GivenBackend(self.storage, self.clock), chance=SeededChance(len(self.calls)), pauses=False
        )

    def _plan(self, scope: str, batches: Sequence[Batch]) -> Fault:
        self.calls.append((scope, tuple(batches)))
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            meddle()
        for key in (scope, ""):
            if self.faults.get(key):
                return self.faults[key].popleft()
        return Fault.OK

    def fail(self, *faults: Fault, scope: str = "test:low") -> None:
        """Plan faults for the next calls of a scope."""
        self.faults.setdefault(scope, deque()).extend(faults)

    def keys(self, queue: str = "low") -> QueueKeys:
        """The keys of a queue."""
        return queue_keys("test", queue)

    def many(self, count: int, **options: Any) -> list[Any]:
        """Calls to be enqueued."""
        return [self.work.opts(**options).call(number) for number in range(count)]

    def claim(self, limit: int = 1, *, queue: str = "low") -> Moved:
        """Take jobs as a runner would."""
        now, number = self.clock.now(), next(self.numbers)
        batch = transitions.claim(self.keys(queue), b"runner", number, limit=limit, now=now, lease=30_000, beat=5_000)
        [outcome] = self.memory.apply([batch])
        assert isinstance(outcome, Applied)
        [moved] = outcome.answers
        assert isinstance(moved, Moved)
        return moved

    def bury(self, id: str, *, queue: str = "low") -> None:
        """Take the job at the head of ready to dead."""
        self._move_out("bury", id, self.clock.now(), queue)

    def park(self, id: str, due: int, *, queue: str = "low") -> None:
        """Put the job at the head of ready off until ``due`` (ms)."""
        self._move_out("park", id, due, queue)

    def _move_out(self, step: Literal["bury", "park"], id: str, score: int, queue: str) -> None:
        moved = self.claim(queue=queue)
        assert moved.ids == (id.encode(),)
        claims = {moved.ids[0]: claim_mark(b"runner", moved.fence, 5_000)}
        keys = self.keys(queue)
        self.memory.apply([transitions.move_out(step, keys, claims, {}, dict.fromkeys(claims, score))])
