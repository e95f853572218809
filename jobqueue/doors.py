"""The two doors of a queue: what a job gives back when it leaves, and where one goes that may be run.

A job may hold more than its place: a unique key, permits of limiters, a place in a batch, the next step of a chain, a result
that is kept. What it holds stands in its record, and belongs to it until the step that `LEAVE` names gives it back, in the
very batch of that step. A record says too which level of the library it ``needs``: a version below that would end the job
and leave what it holds to nobody, so it hands such a job on and ends it in no way.

This version is of level 0. It writes no holds and needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from jobqueue.errors import StorageRefused
from jobqueue.lifecycle import Step
from jobqueue.record import Stored
from jobqueue.storage.ops import Place, Score

__all__ = ["LEAVE", "LEVEL", "Hold", "is_beyond", "let_go", "refuse_beyond"]

LEVEL: Final = 0
"""What this version can give back."""

Hold: TypeAlias = Literal["unique", "permits", "batch", "next", "result"]

_ENDED: Final[frozenset[Hold]] = frozenset({"unique", "permits", "batch", "next", "result"})
_DIED: Final = _ENDED - {"next"}

LEAVE: Final[Mapping[Step, frozenset[Hold]]] = {
    "finish": _ENDED, "discard": _ENDED, "delete": _ENDED,
    "bury": _DIED, "condemn": _DIED, "mend": _DIED,  # a requeue goes on with the next step
    "prune": frozenset({"next"}),  # the rest was given back when it died
    "retry": frozenset({"permits"}), "park": frozenset({"permits"}),  # it joins the backlog again
    "enqueue": frozenset(), "schedule": frozenset(), "promote": frozenset(), "hurry": frozenset(), "claim": frozenset(),
    "extend": frozenset(), "note": frozenset(), "snooze": frozenset({"permits"}), "release": frozenset(),
    "rescue": frozenset(), "requeue": frozenset(),
}  # fmt: skip
"""Step → what a job gives back in it. Nothing holds anything yet."""


def is_beyond(stored: Stored) -> bool:
    """Whether only a later version of the library can run and end this job."""
    return stored.needs > LEVEL


def refuse_beyond(id: str, stored: Stored) -> None:
    """Raise `StorageRefused` if only a later version of the library can end, or begin again, this job."""
    if is_beyond(stored):
        raise StorageRefused(
            f"job {id} was stored by a later version of jobqueue, which alone knows what it holds (level {stored.needs}, "
            f"this one has {LEVEL}); nothing was changed: use that version"
        )


def let_go(due: int, now: int) -> tuple[Place, Score]:
    """Where a job goes that may be run from ``due`` on (ms), and its score there."""
    return ("waiting", due) if due > now else ("ready", 0)
