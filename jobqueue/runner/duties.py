"""What every runner does besides running jobs, as one table of flows: each is safe to be done by all runners at once.

No leader is elected: two runners that do the same duty waste a call, and cannot do harm, because every move they make
names what it expects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import StorageError, StorageRefused
from jobqueue.flows import Flow, Read, read_on, send, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys, queue_keys
from jobqueue.lookup import queue_names, registry, search
from jobqueue.runner.rescue import Look, Rescued, Watch, follow, look_at
from jobqueue.runner_info import beats, read_leases
from jobqueue.storage.ops import Ids, Page, Score, Sizes

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
REST_MS: Final = 1.0
"""How long a runner rests for each queue that it has looked at, which takes about a tenth of that."""
APART: Final = 10
"""So many of the queues that could not be looked at are tried again in one round, in turn and each by itself."""
PASSES: Final = 100
"""Steps in which dead jobs of one queue are forgotten in one round."""
SILENT: Final = 5_000
"""So many runners that were not seen for long are looked at in one round."""
REQUESTS: Final = 10_000
"""So many claim requests of one queue are looked at in one round."""


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
        self._fields = frozenset[bytes]()
        self._told: set[str] = set()
        self._apart: dict[str, None] = {}  # scopes of queues that could not be looked at, those tried last at the end
        self._failed: Exception | None = None
        self._refused: StorageRefused | None = None
        self._rested = -math.inf
        self._silent: dict[bytes, Score] = {}

    def next_due(self, after: float) -> float:
        """When (local ms) there is something to do: a beat after ``after``, or when a watched lease is ripe.

        Not before the runner has rested from a round, by as much as there was to do in it: with very many queues the next
        round begins later, and the interpreter has time for jobs.
        """
        ripe = self._watch.next_look(after)
        due = after + self.every if ripe is None else min(after + self.every, ripe)
        return max(due, self._rested)

    def round(self) -> Flow[None]:
        """Do what is due now, in every queue that answers; raises the first error at the end.

        What something else spoiled, or whose node is away, keeps none of the other duties, and no other queue, waiting.
        What is asked in every second round and was refused counts as failed until it is asked again.
        """
        at = self._moment()
        self._failed = None
        pruning = at.local - self._pruned >= PRUNE_EVERY_MS
        # In every second round: both seldom change. A runner with a longer lease than any known is missed for less than two
        # beats, and nothing is taken from it sooner than after two of its own.
        if pruning or at.local - self._asked >= 1.5 * self.every:
            yield from self._attempt(self._ask_leases(at.local))
            yield from self._attempt(self._ask_queues())
            self._refused = self._failed if isinstance(self._failed, StorageRefused) else None
        leases = [self._lease, *self._leases]
        queues = self._to_look_at(min(leases))
        # Nobody has said yet how long leases are: none is too long to be true.
        longest = max(leases) if self._asked > -math.inf else FOREVER_MS
        for group in _groups(queues):
            yield from self._patrol(group, longest)
        if pruning:
            self._pruned = at.local
            yield from self._prune(self._moment().now)
        end = self._moment().local
        self._rested = end + max(min(end - at.local, self.every), REST_MS * len(queues))
        if self._failed is not None:
            raise self._failed
        if self._refused is not None:
            raise self._refused.with_traceback(None)  # or that would grow

    def _attempt(self, duty: Flow[None]) -> Flow[bool]:
        """Do one duty, and remember how it failed; answers whether it did not."""
        try:
            yield from duty
        except Exception as error:  # noqa: BLE001 - also what nobody thought of: the duties go on with the next
            self._failed = self._failed or error
            return False
        return True

    def _to_look_at(self, shortest: int) -> list[QueueKeys]:
        """The queues to look at in this round: those that held something at the last look, and some empty ones in turn.

        An empty queue is looked at again before a lease that began right after the last look can end. So all are rescued in
        time, and what is looked at grows with the work and not with the queues.
        """
        queues = self._queues()
        served = {queue.scope for queue in queues}
        empty = [scope for scope in self._empty if scope in served]
        share = max(GROUP, math.ceil(len(empty) * self.every / shortest))
        later = {*empty[share:], *[*self._apart][APART:]}
        # Until a look has shown again that they are empty they count as not looked at: one may go without an answer.
        for scope in empty[:share]:
            del self._empty[scope]
        # Those that could not be looked at come last: each is asked by itself.
        return sorted([queue for queue in queues if queue.scope not in later], key=lambda one: one.scope in self._apart)

    def _patrol(self, queues: Sequence[QueueKeys], longest: int) -> Flow[None]:
        """Look at some queues and rescue there."""
        together = [queue for queue in queues if queue.scope not in self._apart]
        alone = [queue for queue in queues if queue.scope in self._apart]
        looks: list[Look] = []
        try:
            if together:
                looks = yield from look_at(together, longest, self._moment, self.every)
        except Exception as error:  # noqa: BLE001 - see `_attempt`
            # One of them does not answer. Each is asked by itself, so that the others are looked at.
            if len(together) == 1:
                self._failed = self._failed or error
                self._apart[together[0].scope] = None
            else:
                alone += together
        for look in looks:
            yield from self._attempt(self._follow(look))
        for queue in alone:
            self._apart.pop(queue.scope, None)
            yield from self._patrol((queue,), longest)

    def _follow(self, look: Look) -> Flow[None]:
        """Rescue in a queue that was looked at."""
        if look.is_empty:
            self._empty[look.queue.scope] = None
        rescued = yield from follow(look, self._watch, self._moment, self._max_bytes)
        if rescued:
            self._reports.rescued(rescued)
        if look.has_work:
            self._reports.work(look.queue)

    def _ask_leases(self, local: float) -> Flow[None]:
        """Ask how long the leases of the namespace's runners are."""
        [leases] = yield Read((Page(self._keys.leases, transitions.LIMIT),))
        self._leases = read_leases(leases)
        self._asked = local

    def _ask_queues(self) -> Flow[None]:
        """Ask which queues the namespace has, and enter those served that are missing there."""
        known = yield from registry(self._keys)
        found = yield from search(self._keys, known, self._moment().now, pages=SEARCH_PAGES)
        if not known.fields | found <= self._fields:
            self._names = queue_names(known.fields | found)
        self._fields = known.fields | found
        for name in self._names if self._discover else ():
            if name not in self._told:
                self._told.add(name)
                self._reports.queue(name)
        missing = [queue.queue for queue in self._queues() if queue.queue.encode() not in known.fields]
        for name in missing if known.whole else ():
            yield from send_one(transitions.register_queue(self._keys, name, self._moment().now))

    def _prune(self, now: int) -> Flow[None]:
        """Forget jobs that have been dead for too long, and runners that are gone."""
        for queue in self._queues():
            yield from self._attempt(self._prune_dead(queue, now - self._keep_dead))
        queues = [queue_keys(self._keys.scope, name) for name in self._names]
        yield from self._attempt(self._prune_runners(queues, now))
        for group in _groups(queues):
            if (yield from self._attempt(self._prune_orphans(group))):
                continue
            for queue in group:
                yield from self._attempt(self._prune_orphans((queue,)))
        yield from self._attempt(self._prune_leases(now))

    def _prune_dead(self, queue: QueueKeys, before: int) -> Flow[None]:
        """Forget jobs of a queue that died before this time."""
        for _ in range(PASSES):
            outcome = yield from send_one(transitions.prune(queue, before))
            if outcome is None:
                break  # a later version of the library knows what these hold, and forgets them
            if len(outcome.moved.ids) < transitions.LIMIT:
                break

    def _prune_runners(self, queues: Sequence[QueueKeys], now: int) -> Flow[None]:
        """Forget runners that were not seen for `LATE_MS`, and their claim requests.

        As with leases, one look is no proof: the clock may have jumped. So it is those that the last look saw as silent.
        """
        before, self._silent = self._silent, {}
        page = Page(self._keys.seen, transitions.LIMIT, before=now - LATE_MS)
        [first] = yield Read((page,))
        self._silent.update((yield from read_on(page, first, SILENT)))
        gone = [incarnation for incarnation, seen in self._silent.items() if before.get(incarnation) == seen]
        for part in transitions.parts(gone, len):
            # Their requests first: where some are left, only a search of a queue finds them (`_prune_orphans`).
            for group in _groups(queues):
                outcomes = yield from send([transitions.prune_requests(queue, part) for queue in group])
                for outcome in outcomes:
                    if isinstance(outcome, StorageError) and outcome.passes:
                        raise outcome
            yield from send_one(transitions.unregister_runners(self._keys, part))

    def _prune_leases(self, now: int) -> Flow[None]:
        """Forget lengths of leases that no runner has any more."""
        [leases] = yield Read((Page(self._keys.leases, transitions.LIMIT, before=now - DAY_MS),))
        if leases:
            yield from send_one(transitions.forget_leases(self._keys, [lease for lease, _ in leases]))

    def _prune_orphans(self, queues: Sequence[QueueKeys]) -> Flow[None]:
        """Forget the requests of runners that are not registered, where a queue has more of them than there are runners."""
        sizes = yield Read((Sizes((self._keys.seen,)), *(Sizes((queue.requests,)) for queue in queues)))
        runners, *counts = [size for (size,) in sizes]
        for queue, count in zip(queues, counts, strict=True):
            cursor: bytes | None = None
            looked = 0 if count > runners else REQUESTS
            while looked < REQUESTS:
                # In this order: a runner registers before its first request, so one whose request is seen here and whose
                # registration is not seen afterwards has been forgotten for good.
                [page] = yield Read((Ids(queue.requests, transitions.LIMIT, cursor),))
                owners = {requester: transitions.incarnation_of(requester) for requester in page.ids}
                alive = yield from beats(self._keys, sorted({*owners.values()}))
                orphans = [requester for requester, incarnation in owners.items() if incarnation not in alive]
                for part in transitions.parts(orphans, len):
                    yield from send_one(transitions.prune_requests(queue, part))
                cursor = page.next
                looked = looked + len(page.ids) if cursor is not None else REQUESTS


def _groups(queues: Sequence[QueueKeys]) -> Iterator[Sequence[QueueKeys]]:
    """The queues in parts that one request may ask."""
    for start in range(0, len(queues), GROUP):
        yield queues[start : start + GROUP]
