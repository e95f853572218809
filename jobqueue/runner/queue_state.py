"""What a runner knows of its queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.keys import QueueKeys
from jobqueue.runner.decisions import Config
from jobqueue.storage.ops import Batch, Refused
from jobqueue.storage.protocol import Outcome

__all__ = ["NEVER", "PendingClaim", "QueueState", "Queues", "behind"]

NEVER: Final = 2**53
"""A time in ms that does not come."""
BACKOFF_FIRST_MS: Final = 50.0
BACKOFF_LONGEST_MS: Final = 2_000.0


@attrs.define
class PendingClaim:
    """A claim request that is not settled: it is repeated under its number, since it may have been carried out.

    Attributes:
        batch: The request.
        limit: How many jobs it asks for.
        sent: When it was first sent (local ms).
        unsure: It was sent without an answer.
    """

    batch: Batch
    limit: int
    sent: float
    unsure: bool = False


@attrs.define
class QueueState:
    """What is known of one queue.

    Attributes:
        keys: Its keys.
        left: What ready held when last seen; None if it has to be asked.
        next_due: When the earliest waiting job is due (ms); None if it has to be asked.
        number: The last claim request.
        claim: The request that is not settled.
        renewals: How often the requests of this runner were found spoiled and begun anew, under another name.
        closed: The storage refuses further claims of this runner.
        failures: How many calls in a row went without its answer.
        quiet_until: It is not asked before (local ms). A pause of its own, because in a cluster the node of one queue may be
            away while those of others answer, and a key that somebody else wrote may spoil one queue alone.
    """

    keys: QueueKeys
    left: int | None = None
    next_due: int | None = None
    number: int = 0
    claim: PendingClaim | None = None
    renewals: int = 0
    closed: bool = False
    failures: int = 0
    quiet_until: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to do with it until somebody notifies, or it is asked again."""
        return self.left == 0 and self.next_due == NEVER and self.claim is None and not self.failures

    def is_empty(self, now: int) -> bool:
        """Whether it has answered that it has nothing ready or due."""
        return self.left == 0 and self.next_due is not None and self.next_due > now and self.claim is None

    def promote_at(self, at: Moment, otherwise: float) -> float:
        """When (local ms) to take to ready what is due; ``otherwise`` if nobody knows when that will be."""
        return otherwise if self.next_due is None else at.local + self.next_due - at.now

    def ask(self, config: Config, limit: int, at: Moment) -> Batch:
        """The next claim request, which is not settled from now on."""
        self.number += 1
        batch = transitions.claim(
            self.keys, config.incarnation, self.number, limit=limit, now=at.now, lease=config.lease, beat=config.beat,
            max_bytes=config.max_bytes, requester=transitions.requester_of(config.incarnation, self.renewals),
        )  # fmt: skip
        self.claim = PendingClaim(batch, limit, at.local)
        return batch

    def refused_by_pause(self, claim: PendingClaim, outcome: Outcome) -> bool:
        """Whether this answer to a claim says that the queue is paused: it counts as empty until somebody notifies.

        One that once went without an answer is asked again, for what its first sending took: else that would wait for the
        end of its lease, and count as a crash.
        """
        if not (isinstance(outcome, Refused) and outcome.failed == (0,)):
            return False
        self.left = 0
        if claim.unsure:
            claim.batch = transitions.claimed_before(claim.batch)
            self.claim = claim
        return True

    def close(self, config: Config, *, unsure: bool) -> Batch:
        """Refuses further claims of this runner."""
        requester = transitions.requester_of(config.incarnation, self.renewals)
        return transitions.close_requests(self.keys, requester, unsure=unsure)

    def begin_requests(self, *, renewed: bool = False) -> None:
        """Number claims from the beginning: the runner has another name, or (``renewed``) its requests here were spoiled.

        In place of those that were spoiled come others under a new name: what was sent under the old one stays refused.
        """
        self.number, self.claim = 0, None
        if renewed:
            self.left = None  # it is asked at once; after a loss of data whoever enqueues notifies
        self.renewals = self.renewals + 1 if renewed else 0

    def forget(self) -> None:
        """It has to be asked: what was seen may not be so any more."""
        self.left = None
        self.next_due = None

    def back_off(self, local: float, jitter: float) -> None:
        """A call went without its answer: ask again after a pause that grows, by ``jitter`` (0 up to 1) of its half."""
        wait = min(BACKOFF_FIRST_MS * 2 ** min(self.failures, 10), BACKOFF_LONGEST_MS)
        self.failures += 1
        self.quiet_until = local + wait * (0.5 + jitter / 2)


class Queues(dict[str, QueueState]):
    """The queues that a runner serves, by name.

    Args:
        names: The queues to begin with.
        keys: Answers the keys of a queue.

    Attributes:
        active: Those that may have something to do, or whose answer is awaited. What a runner does at every turn looks at
            these alone, so that a thousand empty queues cost nothing.
        failing: Those that did not answer when they were last asked.
    """

    def __init__(self, names: Iterable[str], keys: Callable[[str], QueueKeys]) -> None:
        super().__init__()
        self._keys = keys
        self.active: dict[str, QueueState] = {}
        self._by_scope: dict[str, str] = {}
        self._turn: deque[str] = deque()
        self.failing: set[str] = set()
        for name in names:
            self.serve(name)

    def serve(self, name: str) -> None:
        """Serve one more."""
        state = self[name] = self.active[name] = QueueState(self._keys(name))
        self._by_scope[state.keys.scope] = name
        self._turn.append(name)

    def of_scope(self, scope: str | None) -> str | None:
        """The name of the queue of this scope, if it is served."""
        return None if scope is None else self._by_scope.get(scope)

    def activate(self, name: str) -> QueueState:
        """Look at it at the next turn."""
        state = self.active[name] = self[name]
        return state

    def activate_all(self) -> None:
        """Look at all of them at the next turn."""
        self.active = dict(self)

    def put_last(self, names: Iterable[str]) -> None:
        """Look at these behind all other active ones: where only some can be asked, it is everybody's turn in the end."""
        for name in names:
            self.active[name] = self.active.pop(name)

    def forget(self, names: Iterable[str]) -> None:
        """Ask these: what was seen of them may not be so any more."""
        for name in names:
            self.activate(name).forget()

    def settle(self, names: Iterable[str]) -> None:
        """Look no more at those of these that have nothing to do."""
        for name in names:
            if self[name].is_settled:
                self.active.pop(name, None)

    def is_able(self, name: str, local: float) -> bool:
        """Whether it answers and has no claim under way."""
        queue = self[name]
        return queue.claim is None and queue.quiet_until <= local

    def open(self, at: Moment) -> tuple[list[str], list[str]]:
        """Those that answer and have something to claim, and those of which it is not known."""
        known: list[str] = []
        unknown: list[str] = []
        for name, queue in self.active.items():
            if self.is_able(name, at.local):
                if queue.left is None:
                    unknown.append(name)
                elif queue.left or (queue.next_due is not None and queue.next_due <= at.now):
                    known.append(name)
        return known, unknown

    def some_empty(self, count: int, local: float) -> list[str]:
        """Of the next ``count`` in turn, those that were empty and can be asked."""
        names = [*islice(self._turn, count)]
        self._turn.rotate(-count)
        return [name for name in names if self[name].left == 0 and self.is_able(name, local)]

    def answered(self, asked: Collection[str], failing: Collection[str], local: float, jitter: float) -> None:
        """Of those ``asked``, ``failing`` did not answer: ask these again after a pause."""
        for name in asked:
            if name in failing:
                self[name].back_off(local, jitter)
                self.failing.add(name)
            elif name in self.failing:
                self[name].failures = 0
                self.failing.discard(name)

    def quiet(self, local: float) -> Collection[str]:
        """Those that did not answer and are not asked now."""
        return [name for name in self.failing if self[name].quiet_until > local] if self.failing else ()


def behind(heard: str | None, scopes: Sequence[str]) -> list[str]:
    """The order in which to listen: behind the one heard last, which would drown the others if it is rung all the time."""
    at = scopes.index(heard) + 1 if heard in scopes else 0
    return [*scopes[at:], *scopes[:at]]
