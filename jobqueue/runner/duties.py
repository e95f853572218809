"""What every runner does besides running jobs, as one table of flows: each is safe to be done by all runners at once.

No leader is elected: two runners that do the same duty waste a call, and cannot do harm, because every move they make
names what it expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import StorageError
from jobqueue.flows import Flow, Read, send, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.lookup import queue_names
from jobqueue.runner.rescue import Rescued, Watch, follow, look_at
from jobqueue.runner_info import Beat, read_beats
from jobqueue.storage.ops import Applied, Fields

__all__ = ["Duties", "Reports"]

DAY_MS: Final = 24 * 3_600_000
PRUNE_EVERY_MS: Final = 300_000.0
LOOK_EVERY_MS: Final = 5_000
"""How often the queues are looked at if a beat takes longer: a notification may be lost."""
GROUP: Final = 100
"""So many queues are asked in one request, and so many empty ones are looked at in one round at least."""


@attrs.frozen
class Reports:
    """Where a duty tells what it found.

    Attributes:
        rescued: Jobs came back from a runner that is gone.
        queue: A queue exists.
        work: A queue has jobs that are ready, or due soon. Whoever waits to be notified may have missed it.
    """

    rescued: Callable[[list[Rescued]], None]
    queue: Callable[[str], None]
    work: Callable[[QueueKeys], None]


class Duties:
    """The duties of one runner.

    Args:
        keys: The namespace.
        queues: Answers the queues that the runner serves.
        lease: Its own lease in ms.
        beat: Its own beat in ms.
        keep_dead: How long dead jobs are kept, in ms.
        moment: Reads the clocks.
        reports: Where to tell.
        discover: Whether to look for queues that are not served yet.

    Attributes:
        every: How much time passes between two rounds at most, in ms.
    """

    def __init__(
        self,
        keys: NamespaceKeys,
        queues: Callable[[], list[QueueKeys]],
        *,
        lease: int,
        beat: int,
        keep_dead: int,
        moment: Callable[[], Moment],
        reports: Reports,
        discover: bool,
    ) -> None:
        self._keys = keys
        self._queues = queues
        self._lease = lease
        self.every = min(beat, LOOK_EVERY_MS)
        self._keep_dead = keep_dead
        self._moment = moment
        self._reports = reports
        self._discover = discover
        self._watch = Watch()
        self._empty: set[str] = set()  # scopes of queues that held nothing at the last look
        self._turn = 0
        self._pruned = moment().local
        self._asked = -math.inf
        self._runners: dict[bytes, Beat] = {}

    def next_due(self, after: float) -> float:
        """When (local ms) there is something to do: a beat after ``after``, or when a watched lease is ripe."""
        ripe = self._watch.next_look()
        return after + self.every if ripe is None else min(after + self.every, ripe)

    def round(self) -> Flow[None]:
        """Do what is due now, in every queue that answers; raises the first `StorageError` at the end."""
        at = self._moment()
        pruning = at.local - self._pruned >= PRUNE_EVERY_MS
        # What a foreign writer spoiled, or whose node is away, must not keep all others from being rescued.
        failed: StorageError | None = None
        # In every second round: both seldom change. A runner with a longer lease than any known is missed for less than two
        # beats, and nothing is taken from it sooner than after two of its own.
        if pruning or at.local - self._asked >= 1.5 * self.every:
            try:
                yield from self._ask()
                self._asked = at.local
            except StorageError as error:
                failed = error
        leases = [self._lease, *(beat.lease for beat in self._runners.values())]
        queues = self._to_look_at(min(leases))
        for start in range(0, len(queues), GROUP):
            trouble = yield from self._patrol(queues[start : start + GROUP], max(leases))
            failed = failed or trouble
        if failed is not None:
            raise failed
        if pruning:
            self._pruned = at.local
            yield from self._prune(self._moment().now)

    def _to_look_at(self, shortest: int) -> list[QueueKeys]:
        """The queues to look at in this round: those that held something at the last look, and some empty ones in turn.

        An empty queue is looked at again before a lease that began right after the last look can end. So all are rescued in
        time, and what is looked at grows with the work and not with the queues.
        """
        queues = self._queues()
        empty = [queue for queue in queues if queue.scope in self._empty]
        share = max(GROUP, math.ceil(len(empty) * self.every / shortest))
        if len(empty) <= share:
            return queues
        start = self._turn % len(empty)
        self._turn = start + share
        turn = {queue.scope for queue in (*empty[start : start + share], *empty[: max(0, start + share - len(empty))])}
        return [queue for queue in queues if queue.scope not in self._empty or queue.scope in turn]

    def _patrol(self, queues: Sequence[QueueKeys], longest: int) -> Flow[StorageError | None]:
        """Look at some queues and rescue there; answers the first error."""
        try:
            looks = yield from look_at(queues, longest, self._moment, self.every)
        except StorageError as error:
            if len(queues) == 1:
                return error
            # One of them does not answer. Each is asked by itself, so that the others are looked at.
            failed: StorageError | None = None
            for queue in queues:
                one = yield from self._patrol((queue,), longest)
                failed = failed or one
            return failed
        failed = None
        for look in looks:
            (self._empty.add if look.is_empty else self._empty.discard)(look.queue.scope)
            try:
                rescued = yield from follow(look, self._watch, self._moment)
            except StorageError as error:
                failed = failed or error
                continue
            if rescued:
                self._reports.rescued(rescued)
            if look.has_work:
                self._reports.work(look.queue)
        return failed

    def _ask(self) -> Flow[None]:
        """Ask which queues and runners the namespace has."""
        [queues, runners] = yield Read((Fields(self._keys.queues), Fields(self._keys.runners)))
        self._runners = read_beats(runners)
        if self._discover:
            for name in queue_names(queues):
                self._reports.queue(name)
        for queue in self._queues():
            if queue.queue.encode() not in queues:
                yield from send_one(transitions.register_queue(self._keys, queue.queue, self._moment().now))

    def _prune(self, now: int) -> Generator[Any, Any, None]:
        """Forget jobs that have been dead for too long, and runners that ended more than a day ago."""
        for queue in self._queues():
            while True:
                [outcome] = yield from send([transitions.prune(queue, now - self._keep_dead)])
                if not isinstance(outcome, Applied):
                    return
                if len(outcome.moved.ids) < transitions.LIMIT:
                    break
        gone = [incarnation for incarnation, beat in self._runners.items() if now - beat.seen > DAY_MS]
        for queue in self._queues():
            # In this order: a runner registers before its first request, so one whose request is seen here and whose
            # registration is not seen afterwards has been forgotten for good.
            [requests] = yield Read((Fields(queue.requests),))
            [alive] = yield Read((Fields(self._keys.runners),))
            forgotten = [incarnation for incarnation in requests if incarnation not in alive or incarnation in gone]
            if forgotten:
                yield from send_one(transitions.prune_requests(queue, forgotten))
        if gone:
            yield from send_one(transitions.unregister_runners(self._keys, gone))
