"""Everything that jobqueue raises.

Each error says what happened, to which job, and what to do. All of them pickle: they keep their arguments as plain
attributes and are rebuilt from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqueue.record import JobRecord

__all__ = [
    "DeclarationError",
    "DuplicateJob",
    "JobNotFound",
    "JobQueueError",
    "LockTaken",
    "NotApplied",
    "OutcomeUnknown",
    "PayloadError",
    "QueueFull",
    "StorageError",
    "StorageRefused",
    "UnknownJob",
]


class JobQueueError(Exception):
    """The root of all errors of this package."""


class DeclarationError(JobQueueError, TypeError):
    """A kind of job, a queue or an option was declared in a way that cannot work."""


class DuplicateJob(DeclarationError):
    """Two kinds of job were declared under one name."""


class UnknownJob(JobQueueError, LookupError):
    """No kind of job is declared under this name."""


class JobNotFound(JobQueueError, LookupError):
    """No job with this id is stored (any more)."""


class PayloadError(JobQueueError, ValueError):
    """The arguments of a job do not fit its declaration, or cannot be written as JSON. Nothing was stored."""


class LockTaken(JobQueueError):
    """Somebody else holds the lock."""


class StorageError(JobQueueError):
    """The storage did not do what was asked.

    Attributes:
        stored: The records that were certainly stored before the error.
        records: The records that were not stored (``NotApplied``) or may have been (``OutcomeUnknown``);
            ``JobQueue.enqueue_records`` sends them again, each is stored once.
        passes: Whether it passes by itself, so that waiting helps: a server that is away, loading or busy; not a missing
            right, a wrong password or a newer schema.
    """

    passes = True

    def __init__(
        self, message: str, *, stored: Sequence[JobRecord[Any]] = (), records: Sequence[JobRecord[Any]] = ()
    ) -> None:
        super().__init__(message)
        self.stored = tuple(stored)
        self.records = tuple(records)


class NotApplied(StorageError):
    """Certainly nothing was changed; sending again is safe."""


class StorageRefused(NotApplied):
    """The server answered that it will not do it (out of memory, read only, no permission, a foreign key …)."""

    passes = False

    def __init__(
        self,
        message: str,
        *,
        stored: Sequence[JobRecord[Any]] = (),
        records: Sequence[JobRecord[Any]] = (),
        passes: bool = False,
    ) -> None:
        super().__init__(message, stored=stored, records=records)
        self.passes = passes


class QueueFull(NotApplied):
    """There was no room in a queue for these jobs: more would be ready than ``JobQueue(max_ready=…)`` allows.

    It does not pass if there are more of them at once than may ever be ready.
    """


class OutcomeUnknown(StorageError):
    """The request may have been carried out: no answer came. Sending the same records again stores each once."""


class UnknownElsewhere(UserWarning):
    """Warned at enqueue, once per kind: no other process can import what declares it, so no other runner knows it."""
