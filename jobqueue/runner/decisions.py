"""What a runner's core is told at its start, and what it answers a driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from jobqueue.runner.task import Task
from jobqueue.storage.ops import Batch
from jobqueue.transitions import BYTES

__all__ = ["Config", "Decision", "Leave", "LookAround", "Rest", "Send", "Then"]


class Config(msgspec.Struct, frozen=True):
    """What a runner is told at its start. Durations in ms.

    Attributes:
        incarnation: Its name, never used before.
        lease: Length of a lease.
        beat: Time between two extensions.
        grace: How long running jobs may go on after a stop.
        threads: Functions that run at a time.
        coroutines: Coroutines that run at a time.
        processes: Functions that run in processes at a time.
        strict: Serve a queue only while none of a larger weight has work.
        until_empty: Leave when nothing is ready or due, and its own jobs have ended.
        max_bytes: Bytes of records that one claim brings at most, and of the longest record that is read.
    """

    incarnation: bytes
    lease: int
    beat: int
    grace: float
    threads: int
    coroutines: int
    processes: int = 1
    strict: bool = False
    until_empty: bool = False
    max_bytes: int = BYTES


class Send(msgspec.Struct, frozen=True):
    """Apply the batches, ask `Core.meanwhile`, and tell `Core.answered`."""

    batches: tuple[Batch, ...]


class Rest(msgspec.Struct, frozen=True):
    """Do nothing until ``until`` (local ms), a job returns or somebody asks to stop; with ``listen`` also until rung."""

    until: float
    listen: bool


class LookAround(msgspec.Struct, frozen=True):
    """Find the queues that there are by now, name new ones to `Core.serve`, and tell `Core.looked_around`.

    A runner that leaves when nothing is left may have jobs that enqueue others, into queues of which it does not know yet.
    """


class Leave(msgspec.Struct, frozen=True):
    """The runner holds nothing any more, or (``hard``) cannot wait for its jobs: their threads are still running."""

    hard: bool


Then: TypeAlias = Send | Rest | LookAround | Leave


class Decision(msgspec.Struct, frozen=True):
    """What to do: start these, interrupt those, then one thing."""

    then: Then
    start: Sequence[Task] = ()
    interrupt: Sequence[Task] = ()
