"""The table of legal moves of a job. No other module knows them: `transitions` takes the places of a move from here.

::

                     schedule                      enqueue
                        │                             │
                        ▼         promote             ▼        claim
                    waiting ───────────────────────► ready ───────────────► working ──┐ extend, note
                      ▲  │ hurry                     ▲ ▲ ▲                  │ │ │ │ ◄─┘
                      │  └───────────────────────────┘ │ └── release, rescue ┘ │ │ │
                      └───────── retry, snooze, park ──┼───────────────────────┘ │ └──► (gone) finish, discard
                                                requeue│                         ▼
                                                       └─────────────────────── dead   bury, condemn
    delete: from waiting, ready and dead
    mend: to dead, from no place, or out of several at once, where something other than these moves left it
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from jobqueue.storage.ops import Place

__all__ = ["COUNTED", "MOVES", "Ending", "Step", "legal"]

Step: TypeAlias = Literal[
    "enqueue", "schedule", "promote", "hurry", "claim", "extend", "note", "finish", "discard", "retry", "snooze", "park",
    "bury", "release", "rescue", "condemn", "requeue", "delete", "prune", "mend",
]  # fmt: skip

Ending: TypeAlias = Literal[
    "done", "discarded", "retried", "snoozed", "parked", "dead", "released", "rescued", "deleted", "pruned", "crashed",
    "late",
]  # fmt: skip
"""What became of a job: ``crashed`` if it goes back since its own process died, ``late`` if its result was refused."""

MOVES: Final[dict[Step, frozenset[tuple[Place | None, Place | None]]]] = {
    "enqueue": frozenset({(None, "ready")}),
    "schedule": frozenset({(None, "waiting")}),
    "promote": frozenset({("waiting", "ready")}),  # it is due
    "hurry": frozenset({("waiting", "ready")}),  # an operator will not wait for it
    "claim": frozenset({("ready", "working")}),
    "extend": frozenset({("working", "working")}),  # its lease
    "note": frozenset({("working", "working")}),  # a suspect is about to be started
    "finish": frozenset({("working", None)}),  # it ended well
    "discard": frozenset({("working", None)}),  # it asked for it
    "retry": frozenset({("working", "waiting")}),  # it failed and has retries left
    "snooze": frozenset({("working", "waiting")}),  # it asked for it
    "park": frozenset({("working", "waiting")}),  # its kind is unknown here
    "bury": frozenset({("working", "dead")}),  # it failed for good
    "release": frozenset({("working", "ready")}),  # handed back by its runner
    "rescue": frozenset({("working", "ready")}),  # taken from a runner that is gone
    "condemn": frozenset({("working", "dead")}),  # it took its runner down too often
    "requeue": frozenset({("dead", "ready")}),
    "delete": frozenset({("waiting", None), ("ready", None), ("dead", None)}),
    "prune": frozenset({("dead", None)}),  # too old
    "mend": frozenset({(None, "dead")}),  # it was in no place, or in several and so in none that is its own
}

COUNTED: Final[dict[Step, Ending]] = {
    "finish": "done", "discard": "discarded", "retry": "retried", "snooze": "snoozed", "park": "parked", "bury": "dead",
    "condemn": "dead", "release": "released", "rescue": "rescued", "delete": "deleted", "prune": "pruned",
}  # fmt: skip
"""Step → what a job is called after it, and counted as, per queue, in the step itself."""


def legal(step: Step, source: Place | None, target: Place | None) -> bool:
    """Whether a step may take a job from one place to another; None is outside."""
    return (source, target) in MOVES[step]
