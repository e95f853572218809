"""The duties that forget: jobs that have been dead for too long, runners that are gone, and what those left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import StorageError
from jobqueue.flows import Flow, Read, read_on, send, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.runner.attempts import Attempts, groups
from jobqueue.runner_info import beats
from jobqueue.storage.ops import Ids, Page, Score, Sizes

__all__ = ["Pruning"]

DAY_MS: Final = 24 * 3_600_000
LATE_MS: Final = 3_600_000
"""How long the claim requests of a runner that is gone are remembered: no copy of one is under way for longer. A system
gives up sending again what nobody confirms after about a quarter of an hour."""
PASSES: Final = 100
"""Steps in which dead jobs of one queue are forgotten in one round."""
SILENT: Final = 5_000
"""So many runners that were not seen for long are looked at in one round."""
REQUESTS: Final = 10_000
"""So many claim requests of one queue are looked at in one round."""


class Pruning:
    """What one runner forgets for all.

    Args:
        keys: The namespace.
        served: Answers the queues that the runner serves, whose dead jobs it forgets.
        known: Answers all queues of the namespace.
        keep_dead: How long dead jobs are kept, in ms.
        moment: Reads the clocks.
    """

    def __init__(
        self,
        keys: NamespaceKeys,
        served: Callable[[], list[QueueKeys]],
        known: Callable[[], list[QueueKeys]],
        *,
        keep_dead: int,
        moment: Callable[[], Moment],
    ) -> None:
        self._keys = keys
        self._served = served
        self._known = known
        self._keep_dead = keep_dead
        self._moment = moment
        self._silent: dict[bytes, Score] = {}

    def dead_jobs(self) -> Flow[None]:
        """Forget jobs that have been dead for too long."""
        attempts = Attempts()
        before = self._moment().now - self._keep_dead
        for queue in self._served():
            yield from attempts.make(self._dead_jobs_of(queue, before))
        attempts.end()

    def _dead_jobs_of(self, queue: QueueKeys, before: int) -> Flow[None]:
        """Forget jobs of a queue that died before this time."""
        for _ in range(PASSES):
            outcome = yield from send_one(transitions.prune(queue, before))
            if outcome is None:
                break  # a later version of the library knows what these hold, and forgets them
            if len(outcome.moved.ids) < transitions.LIMIT:
                break

    def runners(self) -> Flow[None]:
        """Forget runners that were not seen for `LATE_MS`, and their claim requests.

        As with leases, one look is no proof: the clock may have jumped. So it is those that the last look saw as silent.
        """
        before, self._silent = self._silent, {}
        page = Page(self._keys.seen, transitions.LIMIT, before=self._moment().now - LATE_MS)
        [first] = yield Read((page,))
        self._silent.update((yield from read_on(page, first, SILENT)))
        gone = [incarnation for incarnation, seen in self._silent.items() if before.get(incarnation) == seen]
        for part in transitions.parts(gone, len):
            # Their requests first: where some are left, only a search of a queue finds them (`requests`).
            for group in groups(self._known()):
                outcomes = yield from send([transitions.prune_requests(queue, part) for queue in group])
                for outcome in outcomes:
                    if isinstance(outcome, StorageError) and outcome.passes:
                        raise outcome
            yield from send_one(transitions.unregister_runners(self._keys, part))

    def leases(self) -> Flow[None]:
        """Forget lengths of leases that no runner has any more."""
        [leases] = yield Read((Page(self._keys.leases, transitions.LIMIT, before=self._moment().now - DAY_MS),))
        if leases:
            yield from send_one(transitions.forget_leases(self._keys, [lease for lease, _ in leases]))

    def requests(self) -> Flow[None]:
        """Forget the requests of runners that are not registered."""
        attempts = Attempts()
        for group in groups(self._known()):
            if (yield from attempts.make(self._requests_of(group))):
                continue
            for queue in group:
                yield from attempts.make(self._requests_of((queue,)))
        attempts.end()

    def _requests_of(self, queues: Sequence[QueueKeys]) -> Flow[None]:
        """Forget them where a queue has more requests than there are runners."""
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
