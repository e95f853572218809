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
from jobqueue.flows import Flow, Read, read_on, send, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys, queue_keys
from jobqueue.lookup import queue_names, search
from jobqueue.runner.rescue import Rescued, Watch, follow, look_at
from jobqueue.storage.ops import Applied, Fields, Page, Sizes

__all__ = ["Duties", "Reports"]

DAY_MS: Final = 24 * 3_600_000
FOREVER_MS: Final = 2**52
LATE_MS: Final = 3_600_000
"""How long the claim requests of a runner that is gone are remembered: no copy of one is under way for longer. A system
gives up sending again what nobody confirms after about a quarter of an hour."""
PRUNE_EVERY_MS: Final = 300_000.0
SEARCH_PAGES: Final = 4
"""Of a search for lost registrations per round: a server with ten million keys is gone through in about an hour."""
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
        max_bytes: Of records that one step of a rescue reads; a longer one goes to dead unread.

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
        max_bytes: int = transitions.BYTES,
    ) -> None:
        self._keys = keys
        self._queues = queues
        self._lease = lease
        self.every = min(beat, LOOK_EVERY_MS)
        self._keep_dead = keep_dead
        self._moment = moment
        self._reports = reports
        self._discover = discover
        self._max_bytes = max_bytes
        self._watch = Watch()
        self._empty: dict[str, None] = {}  # scopes of queues that held nothing at the last look, the oldest look first
        self._pruned = moment().local
        self._asked = -math.inf
        self._leases: list[int] = []
        self._names: list[str] = []
        self._silent: dict[bytes, int] = {}

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
        leases = [self._lease, *self._leases]
        queues = self._to_look_at(min(leases))
        # Nobody has said yet how long leases are: none is too long to be true.
        longest = max(leases) if self._asked > -math.inf else FOREVER_MS
        for start in range(0, len(queues), GROUP):
            trouble = yield from self._patrol(queues[start : start + GROUP], longest)
            failed = failed or trouble
        if pruning:
            self._pruned = at.local
            yield from self._prune(self._moment().now)
        if failed is not None:
            raise failed

    def _to_look_at(self, shortest: int) -> list[QueueKeys]:
        """The queues to look at in this round: those that held something at the last look, and some empty ones in turn.

        An empty queue is looked at again before a lease that began right after the last look can end. So all are rescued in
        time, and what is looked at grows with the work and not with the queues.
        """
        queues = self._queues()
        served = {queue.scope for queue in queues}
        empty = [scope for scope in self._empty if scope in served]
        share = max(GROUP, math.ceil(len(empty) * self.every / shortest))
        later = {*empty[share:]}
        # Until a look has shown again that they are empty they count as not looked at: one may go without an answer.
        for scope in empty[:share]:
            del self._empty[scope]
        return [queue for queue in queues if queue.scope not in later]

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
            if look.is_empty:
                self._empty[look.queue.scope] = None
            try:
                rescued = yield from follow(look, self._watch, self._moment, self._max_bytes)
            except StorageError as error:
                failed = failed or error
                continue
            if rescued:
                self._reports.rescued(rescued)
            if look.has_work:
                self._reports.work(look.queue)
        return failed

    def _ask(self) -> Flow[None]:
        """Ask which queues the namespace has, and how long the leases of its runners are."""
        [queues, leases] = yield Read((Fields(self._keys.queues), Page(self._keys.leases, transitions.LIMIT)))
        self._leases = [int(lease) for lease, _ in leases if lease.isdigit()]
        found = yield from search(self._keys, queues, self._moment().now, pages=SEARCH_PAGES)
        self._names = queue_names({*queues, *found})
        if self._discover:
            for name in self._names:
                self._reports.queue(name)
        for queue in self._queues():
            if queue.queue.encode() not in queues:
                yield from send_one(transitions.register_queue(self._keys, queue.queue, self._moment().now))

    def _prune(self, now: int) -> Generator[Any, Any, None]:
        """Forget jobs that have been dead for too long, and runners that are gone."""
        for queue in self._queues():
            while True:
                [outcome] = yield from send([transitions.prune(queue, now - self._keep_dead)])
                if not isinstance(outcome, Applied):
                    break  # it is tried again; the other queues are not to wait for this one
                if len(outcome.moved.ids) < transitions.LIMIT:
                    break
        yield from self._prune_runners(now)

    def _prune_runners(self, now: int) -> Flow[None]:
        """Forget runners that were not seen for `LATE_MS`, and their claim requests.

        As with leases, one look is no proof: the clock may have jumped. So it is those that the last look saw as silent.
        """
        before, self._silent = self._silent, {}
        page = Page(self._keys.seen, transitions.LIMIT, before=now - LATE_MS)
        [first] = yield Read((page,))
        self._silent.update((yield from read_on(page, first)))
        gone = [incarnation for incarnation, seen in self._silent.items() if before.get(incarnation) == seen]
        queues = [queue_keys(self._keys.scope, name) for name in self._names]
        for part in transitions.parts(gone, len):
            # Their requests first, in all queues: nothing else leads to them.
            outcomes = yield from send([transitions.prune_requests(queue, part) for queue in queues])
            for outcome in outcomes:
                if isinstance(outcome, StorageError):
                    raise outcome
            yield from send_one(transitions.unregister_runners(self._keys, part))
        yield from self._prune_orphans(queues)
        [leases] = yield Read((Page(self._keys.leases, transitions.LIMIT, before=now - DAY_MS),))
        if leases:
            yield from send_one(transitions.forget_leases(self._keys, [lease for lease, _ in leases]))

    def _prune_orphans(self, queues: list[QueueKeys]) -> Flow[None]:
        """Forget the requests of runners that are not registered, where a queue has more of them than there are runners."""
        sizes = yield Read((Sizes((self._keys.seen,)), *(Sizes((queue.requests,)) for queue in queues)))
        runners, *counts = [size for (size,) in sizes]
        for queue, count in zip(queues, counts, strict=True):
            if count <= runners:
                continue
            # In this order: a runner registers before its first request, so one whose request is seen here and whose
            # registration is not seen afterwards has been forgotten for good.
            [requests] = yield Read((Fields(queue.requests),))
            [alive] = yield Read((Fields(self._keys.runners, tuple(requests)),))
            orphans = [incarnation for incarnation in requests if incarnation not in alive]
            for part in transitions.parts(orphans, len):
                yield from send_one(transitions.prune_requests(queue, part))
