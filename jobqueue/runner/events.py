"""What happens in a runner, as values: told to one observer, which hands them on to whoever counts, logs or measures.

An event is told where it happens, on whichever thread, and sometimes under the runner's lock: an observer is quick, asks the
runner nothing and raises nothing. Jobs come in groups, as they travel: an event costs as much for a hundred as for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageError
from jobqueue.lifecycle import Ending
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.task import Task

__all__ = [
    "BeatEnded", "BeatFailed", "BeatLate", "DutiesEnded", "Event", "JobsEnded", "JobsRescued", "LeasesExpired", "LeasesLost",
    "Observer", "RequestsSpoiled", "StorageAnswered", "StorageTroubled", "to_all",
]  # fmt: skip


class JobsEnded(msgspec.Struct, frozen=True):
    """Runs ended alike, and that was stored; or, if they were ``late``, was refused."""

    ending: Ending
    tasks: Sequence[Task]


class StorageTroubled(msgspec.Struct, frozen=True):
    """Batches of the runner were not carried out, or went without an answer. Told for each call in which that happens."""

    error: NotApplied | OutcomeUnknown


class StorageAnswered(msgspec.Struct, frozen=True):
    """The trouble is over: all queues answer again."""


class RequestsSpoiled(msgspec.Struct, frozen=True):
    """Something other than jobqueue wrote to the claim requests of this runner in a queue."""

    queue: str


class JobsRescued(msgspec.Struct, frozen=True):
    """A duty brought jobs back from runners that are gone."""

    jobs: Sequence[Rescued]


class DutiesEnded(msgspec.Struct, frozen=True):
    """A round of duties that began at this time (local ms) ended: well, or with an error."""

    error: Exception | None
    local: float


class BeatEnded(msgspec.Struct, frozen=True):
    """A beat was answered, or had this trouble.

    Attributes:
        error: What the storage said, None if all is well.
        local: When it was sent, in local ms.
        took_ms: How long it took.
        is_slow: Whether that is longer than the time between two beats.
        lease: How long a lease lasts, in ms.
    """

    error: StorageError | None
    local: float
    took_ms: float
    is_slow: bool
    lease: int


class BeatFailed(msgspec.Struct, frozen=True):
    """A beat met something that no storage should do, at this time (local ms)."""

    error: Exception
    local: float


class BeatLate(msgspec.Struct, frozen=True):
    """A beat was sent so many ms after its time; a lease lasts for ``lease`` ms."""

    late_ms: float
    lease: int


class LeasesExpired(msgspec.Struct, frozen=True):
    """No beat was answered within the leases of these jobs: others may have taken them, or will."""

    tasks: Sequence[Task]


class LeasesLost(msgspec.Struct, frozen=True):
    """These jobs were taken away, each with the reason as far as it is known."""

    lost: Sequence[tuple[Task, str]]


Event: TypeAlias = (
    JobsEnded
    | StorageTroubled
    | StorageAnswered
    | RequestsSpoiled
    | JobsRescued
    | DutiesEnded
    | BeatEnded
    | BeatFailed
    | BeatLate
    | LeasesExpired
    | LeasesLost
)

Observer: TypeAlias = Callable[[Event], None]


def to_all(*observers: Observer) -> Observer:
    """One observer that hands each event on to these, in order."""

    def observe(event: Event) -> None:
        for observer in observers:
            observer(event)

    return observe
