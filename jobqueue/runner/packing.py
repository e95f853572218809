"""From jobs that ended, or go back, to the batches that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from jobqueue import transitions
from jobqueue.keys import QueueKeys
from jobqueue.lifecycle import Step
from jobqueue.record import rewrite
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Applied, Batch
from jobqueue.storage.protocol import Outcome

__all__ = ["RESULTS", "Landed", "Sent", "pack", "parted"]

RESULTS: Final[frozenset[str]] = frozenset({"finish", "discard", "retry", "snooze", "park", "bury"})
"""The steps that store how jobs ended."""


class Sent(msgspec.Struct):
    """A batch under way, and the jobs in it."""

    queue: QueueKeys
    batch: Batch
    tasks: list[Task] = []

    @property
    def step(self) -> str:
        """What the batch does."""
        return self.batch.step


class Landed(msgspec.Struct, frozen=True):
    """A batch that was answered, to be looked at when there is time.

    Attributes:
        entry: What was sent.
        outcome: Its answer.
        mark: The claims that a claim made.
        deadline: Until when (local ms) these are certain.
    """

    entry: Sent
    outcome: Outcome
    mark: bytes = b""
    deadline: float = 0.0

    @property
    def claimed(self) -> int:
        """How many jobs it brought."""
        return len(self.outcome.moved.ids) if self.mark and isinstance(self.outcome, Applied) else 0


def pack(tasks: Iterable[Task]) -> list[Sent]:
    """The batches that store the verdicts of jobs: one per queue and step, releases last."""
    sent = []
    finished: dict[tuple[QueueKeys, Step], list[Task]] = {}
    moved: dict[tuple[QueueKeys, Step], list[Task]] = {}
    released: dict[tuple[QueueKeys, Step], list[Task]] = {}
    for task in tasks:
        assert task.verdict is not None
        step = task.verdict.step
        group = finished if step in ("finish", "discard") else released if step == "release" else moved
        group.setdefault((task.queue, step), []).append(task)
    for (queue, step), some in finished.items():
        for part in _chunks(some):
            batch = transitions.finish(queue, {task.id: task.claim for task in part}, step)
            sent.append(Sent(queue, batch, part))
    for (queue, step), some in moved.items():
        sent += [Sent(queue, _move_out(queue, step, part), part) for part in transitions.parts(some, _record)]
    for (queue, _), some in released.items():
        # In the order in which they were claimed: the first of them is to be the head again. Each step puts its jobs before
        # those of the step before, so the last part goes first.
        some.sort(key=lambda task: (task.fence, task.order))
        parts = [*transitions.parts(some, _record_if_changed)]
        sent += [Sent(queue, _release(queue, part), part) for part in reversed(parts)]
    return sent


def _move_out(queue: QueueKeys, step: Step, tasks: list[Task]) -> Batch:
    claims, records, scores = {}, {}, {}
    for task in tasks:
        assert task.verdict is not None
        assert task.verdict.score is not None
        claims[task.id] = task.claim
        if task.record:  # what was not read stays as it is
            records[task.id] = rewrite(task.record, **task.verdict.changes)
        scores[task.id] = task.verdict.score
    return transitions.move_out(step, queue, claims, records, scores)


def _release(queue: QueueKeys, tasks: list[Task]) -> Batch:
    records = {task.id: rewrite(task.record, **changes) for task in tasks if (changes := _changes(task))}
    return transitions.release(queue, {task.id: task.claim for task in tasks}, records or None)


def parted(tasks: list[Task], quiet: Collection[str]) -> tuple[list[Task], list[Task]]:
    """Those whose queues are asked now, and those whose queues are quiet."""
    if not quiet:
        return tasks, []
    now: list[Task] = []
    later: list[Task] = []
    for task in tasks:
        (later if task.queue.queue in quiet else now).append(task)
    return now, later


def _chunks(tasks: list[Task]) -> Iterable[list[Task]]:
    for start in range(0, len(tasks), transitions.LIMIT):
        yield tasks[start : start + transitions.LIMIT]


def _record(task: Task) -> int:
    return len(task.record)


def _record_if_changed(task: Task) -> int:
    return len(task.record) if _changes(task) else 0


def _changes(task: Task) -> dict[str, object]:
    assert task.verdict is not None
    return task.verdict.changes
