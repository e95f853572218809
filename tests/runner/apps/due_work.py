"""A shop with due work as a target of ``jobqueue run --burst``. The environment says where it goes wrong, each time once:

``DUE_DIES``: points in a job (``charge:before``), and moves of jobs that the storage has carried out (``move:2``), at which
the process is gone. ``DUE_LOSES``: moves that the storage carries out while the reply to them gets lost.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobqueue import Context, JobQueue, Retry
from jobqueue.errors import OutcomeUnknown
from jobqueue.storage.ops import Answer, Applied, Batch, Move, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.wrappers import Over
from tests.faults.ledger import Ledger

__all__ = ["charge", "follow", "jobs", "mail", "retry"]

jobs = JobQueue(os.environ["DUE_URL"], namespace="due")
ledger = Ledger(Path(os.environ["DUE_LEDGER"]))
_dies = os.environ.get("DUE_DIES", "").split()
_loses = os.environ.get("DUE_LOSES", "").split()
_moves = 0
_counting = threading.Lock()


def happens(point: str, planned: Sequence[str]) -> bool:
    """Whether this is to go wrong now: planned, and not done yet by any process."""
    if point not in planned:
        return False
    try:
        ledger.path.with_name(point).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_at(point: str) -> None:
    """Be gone at once, like a process that was killed, if it is planned."""
    if happens(point, _dies):
        os._exit(9)


class Unlucky(Over):
    """A storage whose client dies, or loses replies, once jobs have been moved. Its calls have no end."""

    def read(self, queries: Sequence[Query], _: float | None = None, /) -> list[Answer]:
        return super().read(queries)

    def apply(self, batches: Sequence[Batch], _: float | None = None, /) -> list[Outcome]:
        global _moves
        outcomes = super().apply(batches)
        for batch, outcome in zip(batches, outcomes, strict=True):
            is_move = any(isinstance(op, Move) for op in batch.ops)
            if is_move and isinstance(outcome, Applied) and outcome.moved.ids:
                with _counting:
                    _moves += 1
                    point = f"move:{_moves}"
                die_at(point)
                if happens(point, _loses):
                    return [OutcomeUnknown("the reply was lost") for _ in batches]
        return outcomes


if _dies or _loses:
    _backend: Any = type(jobs.access.opened().backend)
    _make = _backend.storage
    _backend.storage = lambda backend: Unlucky(_make(backend))


@jobs.job
def mail(key: str) -> None:
    """Has an effect each time it runs."""
    die_at("mail:before")
    ledger.write("sent", key)
    die_at("mail:after")


@jobs.job
def charge(key: str) -> None:
    """Looks first whether its effect is there."""
    die_at("charge:before")
    if key not in ledger.runs("charged"):
        ledger.write("charged", key)
    die_at("charge:after")


@jobs.job
def follow(key: str, left: int) -> None:
    """Enqueues more work on the way, into a queue that may be new."""
    if key not in ledger.runs("followed"):
        ledger.write("followed", key)
    if left:
        follow.opts(queue=f"queue{left}").enqueue(f"{key}.{left}", left - 1)


@jobs.job
def retry(ctx: Context, key: str, after: float) -> None:
    """Fails once, and is due again after some seconds."""
    ledger.write("tried", key)
    if ctx.attempt == 1:
        raise Retry(after=after)
