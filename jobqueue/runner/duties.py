"""What every runner does besides running jobs, as one table of flows: each is safe to be done by all runners at once.

No leader is elected: two runners that do the same duty waste a call, and cannot do harm, because every move they make
names what it expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import StorageError
from jobqueue.flows import Flow, Read, send, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.lookup import queue_names, search
from jobqueue.runner.rescue import Rescued, Watch, patrol
from jobqueue.runner_info import Beat, read_beats
from jobqueue.storage.ops import Applied, Fields

__all__ = ["Duties", "Reports"]

DAY_MS: Final = 24 * 3_600_000
PRUNE_EVERY_MS: Final = 300_000.0
SEARCH_PAGES: Final = 4
"""Of a search for lost registrations per round: a server with ten million keys is gone through in about an hour."""
LOOK_EVERY_MS: Final = 5_000
"""How often the queues are looked at if a beat takes longer: a wake-up may be lost."""


@attrs.frozen
class Reports:
    """Where a duty tells what it found.

    Attributes:
        rescued: Jobs came back from a runner that is gone.
        queue: A queue exists.
        work: A queue has jobs that are ready, or due soon. Whoever waits to be rung may have missed it.
    """

    rescued: Callable[[list[Rescued]], None]
    queue: Callable[[str], None]
    work: Callable[[], None]


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
        longest = max([self._lease, *(beat.lease for beat in self._runners.values())])
        for queue in self._queues():
            try:
                rescued = yield from patrol(queue, self._watch, longest, self._moment, self.every)
            except StorageError as error:
                failed = failed or error
                continue
            if rescued:
                self._reports.rescued(rescued)
            if self._watch.work[queue.scope]:
                self._reports.work()
        if failed is not None:
            raise failed
        if pruning:
            self._pruned = at.local
            yield from self._prune(self._moment().now)

    def _ask(self) -> Flow[None]:
        """Ask which queues and runners the namespace has."""
        [queues, runners] = yield Read((Fields(self._keys.queues), Fields(self._keys.runners)))
        self._runners = read_beats(runners)
        found = yield from search(self._keys, queues, self._moment().now, pages=SEARCH_PAGES)
        if self._discover:
            for name in queue_names({*queues, *found}):
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
