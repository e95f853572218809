"""What a runner knows of one queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from jobqueue.keys import QueueKeys
from jobqueue.storage.ops import Batch

__all__ = ["NEVER", "PendingClaim", "QueueState", "behind"]

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
    closed: bool = False
    failures: int = 0
    quiet_until: float = 0.0

    def forget(self) -> None:
        """It has to be asked: what was seen may not be so any more."""
        self.left = None
        self.next_due = None

    def back_off(self, local: float, jitter: float) -> None:
        """A call went without its answer: ask again after a pause that grows, by ``jitter`` (0 up to 1) of its half."""
        wait = min(BACKOFF_FIRST_MS * 2 ** min(self.failures, 10), BACKOFF_LONGEST_MS)
        self.failures += 1
        self.quiet_until = local + wait * (0.5 + jitter / 2)


def behind(heard: str | None, scopes: Sequence[str]) -> list[str]:
    """The order in which to listen: behind the one heard last, which would drown the others if it is rung all the time."""
    at = scopes.index(heard) + 1 if heard in scopes else 0
    return [*scopes[at:], *scopes[:at]]
