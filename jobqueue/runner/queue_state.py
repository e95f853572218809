"""What a runner knows of one queue."""

from __future__ import annotations

from typing import Final

import attrs

from jobqueue.keys import QueueKeys
from jobqueue.storage.ops import Batch

__all__ = ["NEVER", "PendingClaim", "QueueState"]

NEVER: Final = 2**53
"""A time in ms that does not come."""


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
    """

    keys: QueueKeys
    left: int | None = None
    next_due: int | None = None
    number: int = 0
    claim: PendingClaim | None = None
    closed: bool = False
