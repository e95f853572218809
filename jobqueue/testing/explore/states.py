"""What a walk consists of: states, what leads from one to the next, and what is found."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import attrs

__all__ = ["FAULTS", "LOST", "PENDING", "REFUSED", "Action", "Found", "Numbers", "State", "Totals"]

PENDING: Final = -1
LOST: Final = -2
REFUSED: Final = -3
FAULTS: Final = {"reply lost", "sent twice", "delayed", "refused", "crash", "pause", "jump ahead", "jump back"}


class State(NamedTuple):
    """One state of everything.

    Attributes:
        store: The number of what the storage holds.
        time: The number of ticks that have passed.
        skew: How far the server's clock has jumped ahead (or, below 0, back), in ms.
        faults: How many faults may still happen.
        past: The number of the history.
        late: Numbers of parts that are still under way although their sender was told otherwise.
        processes: State (``runs``, ``sleeps@tick``, ``dead``) and number of the memory of each.
        actors: The program's state of each, and of each part that it sent: `PENDING`, or what will be answered.
    """

    store: int
    time: int
    skew: int
    faults: int
    past: int
    late: tuple[int, ...]
    processes: tuple[tuple[str, int], ...]
    actors: tuple[tuple[int, tuple[int, ...]], ...]


class Action(NamedTuple):
    """What happened: its name, the actor or process, the part."""

    what: str
    who: int = -1
    part: int = -1


class Numbers:
    """Values by number; equal ones have the same."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def of(self, value: Any) -> int:
        """The number of a value."""
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


class Found(Exception):
    """An invariant is broken.

    Attributes:
        path: Every state on the shortest way there, with the action that led to it.
        why: What is broken.
    """

    def __init__(self, path: list[tuple[Action, State]], why: str) -> None:
        super().__init__(why)
        self.path = path
        self.why = why


@attrs.define
class Totals:
    """What was walked through."""

    states: int = 0
    transitions: int = 0
    leaves: int = 0
    depth: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = attrs.field(factory=dict)
    complete: bool = True
