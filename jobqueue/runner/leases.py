"""The leases a runner holds: what to extend, and until when it may believe in them.

The runner's core adds and removes; the beat, which runs on a thread of its own, extends. Whoever calls holds the
runner's lock. Pure: the driver sends the batches and reads the clocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.keys import QueueKeys
from jobqueue.runner.queue_state import NEVER
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Applied, Batch, Kept
from jobqueue.storage.protocol import Outcome

__all__ = ["Leases", "why_lost"]


class Leases:
    """What one runner holds.

    Args:
        lease: Length of a lease in ms.
    """

    def __init__(self, lease: int) -> None:
        self.lease = lease
        self.held: dict[bytes, Task] = {}
        self._taken: set[Task] = set()
        self._latest = 0

    def ask(self, at: Moment) -> int:
        """The end of a lease that is asked for at this moment. Every extension from now on goes beyond it."""
        until = at.now + self.lease
        self._latest = max(self._latest, until)
        return until

    def hold(self, task: Task) -> None:
        """Take note of a claimed job.

        An earlier claim of the same job by this runner, whose run may still go on, has been lost: the storage would not
        have given it away otherwise.
        """
        earlier = self.held.get(task.id)
        if earlier is not None:
            earlier.lease_lost = True
        self.held[task.id] = task

    def holds(self, task: Task) -> bool:
        """Whether this claim is still held, as far as is known here."""
        return self.held.get(task.id) is task

    def drop(self, task: Task) -> None:
        """This claim has come to its end."""
        self._taken.discard(task)
        if self.held.get(task.id) is task:
            del self.held[task.id]

    def extend(self, at: Moment) -> list[tuple[Batch, list[Task]]]:
        """The batches that raise all leases to ``at.now`` + lease, each with its jobs.

        To more than that if the server's clock was set back, because an end only ever rises: who watches a lease knows
        its living holder by nothing but that its end changes from beat to beat.

        Also those of overdue jobs: after a server that stood still for longer than a lease every runner is overdue and
        nobody has taken anything, so whoever extends first keeps what it holds. What was taken cannot be extended.
        """
        queues: dict[QueueKeys, list[Task]] = {}
        for task in self.held.values():
            if task not in self._taken:
                queues.setdefault(task.queue, []).append(task)
        batches = []
        until = self._latest = max(at.now + self.lease, self._latest + 1)
        for queue, tasks in queues.items():
            for start in range(0, len(tasks), transitions.LIMIT):
                part = tasks[start : start + transitions.LIMIT]
                claims = {task.id: task.claim for task in part}
                batches.append((transitions.extend(queue, claims, until), part))
        return batches

    def extended(
        self, batches: Sequence[tuple[Batch, list[Task]]], outcomes: Sequence[Outcome], sent: float
    ) -> list[Task]:  # fmt: skip
        """Take note of the answers; answers the jobs whose lease was taken away.

        The new deadline counts from ``sent`` (local ms), not from the answer: the server counted from some moment after
        it.
        """
        taken = []
        for (_, tasks), outcome in zip(batches, outcomes, strict=True):
            if not isinstance(outcome, Applied):
                continue
            alive = set(outcome.moved.ids)
            for task in tasks:
                if task.id in alive:
                    task.deadline = max(task.deadline, sent + self.lease)
                    task.lease_lost = not self.holds(task)
                # A job that ended while the beat was under way is not held any more, and nothing was taken from it.
                elif self.holds(task) and not task.returned:
                    task.lease_lost = True
                    self._taken.add(task)
                    taken.append(task)
        return taken

    def next_end(self) -> float:
        """When (local ms) the first of the leases ends unless it is extended; `NEVER` without one."""
        return min(
            [task.deadline for task in self.held.values() if not (task.lease_lost or task.returned)], default=NEVER
        )

    def overdue(self, at: Moment) -> list[Task]:
        """Jobs whose lease ran out unextended, newly marked: this runner is out of touch and must not trust them.

        They are until an extension is answered: the storage may still know them as ours.
        """
        late = [
            task
            for task in self.held.values()
            if not task.lease_lost and not task.returned and task.deadline <= at.local
        ]
        for task in late:
            task.lease_lost = True
        return late


def why_lost(task: Task, kept: Kept | None, sent: float) -> str:
    """What became of a claim that an extension sent at this time (local ms) did not find, by what is stored of its job.

    A job is taken from a runner only after its lease has ended, and then it gets another claim, or none and another place.
    """
    claim = kept.claim if kept is not None else None
    if claim is not None and claim != task.claim:
        return (
            "its lease was lost, another runner saw it expired and took it; it runs a second time, and what this run ends "
            "with is discarded"
        )
    moved = kept is None or (claim is None and kept.place != "working")
    if moved and task.deadline <= sent:
        return (
            "its lease was lost, it had expired and another runner took the job back; it runs a second time, and what this "
            "run ends with is discarded"
        )
    return (
        "its claim is gone: something other than jobqueue removed or changed the keys of the job; what this run ends with "
        "will be refused"
    )
