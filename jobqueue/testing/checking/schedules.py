"""What can go wrong in a history, as values."""

from __future__ import annotations

from typing import TypeAlias

import attrs

__all__ = ["Clean", "Crash", "Doubled", "LostReply", "Overlap", "Redelivery", "Schedule", "Stop"]


@attrs.frozen
class Clean:
    """Nothing."""


@attrs.frozen
class Crash:
    """The runner dies while it runs the job.

    Attributes:
        run: In which run of the job; others come before it only if the job asks for them, by `Snooze` or `Retry`.
        point: At which of the points that this run comes to.
    """

    run: int
    point: int


@attrs.frozen
class Stop:
    """The runner stops while it runs the job, and tells it to end: `Context.cancelled` is set, a coroutine is cancelled.

    Attributes:
        run: In which run of the job.
        point: At which of the points that this run comes to. The job goes on from there and may notice, or not.
    """

    run: int
    point: int


@attrs.frozen
class Redelivery:
    """The job comes to its end, but its runner dies before this is stored."""

    run: int


@attrs.frozen
class LostReply:
    """The end of the job is stored, but the runner does not hear of it and sends it again."""

    run: int


@attrs.frozen
class Overlap:
    """The runner pauses for longer than its lease; another takes the job, and both go on in turns.

    Attributes:
        run: In which run of the job.
        stops: At which of its points each turn ends; the first runner has the first turn. Behind the last of them each goes
            on to its end, first the one whose turn it is.
    """

    run: int
    stops: tuple[int, ...]


@attrs.frozen
class Doubled:
    """An effect is carried out twice in a row, without a fault: tells whether that does any harm.

    Attributes:
        call: Which: the text of the call.
    """

    call: str


Schedule: TypeAlias = Clean | Crash | Stop | Redelivery | LostReply | Overlap | Doubled
