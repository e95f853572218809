"""The jobs that a driver has: how many run where, which were not started in time, and how many more it could take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from jobqueue.job import Kind, Lane
from jobqueue.runner.queue_state import NEVER
from jobqueue.runner.task import Task

__all__ = ["Outstanding", "lanes_of"]


class Outstanding:
    """What one driver has.

    Args:
        capacity: How many jobs can run at a time, by lane.
    """

    def __init__(self, capacity: dict[Lane, int]) -> None:
        self._capacity = capacity
        self.running: dict[Lane, int] = dict.fromkeys(capacity, 0)
        # By run, not by id: one that lost its lease may still run when the job is claimed again.
        self.tasks: dict[Task, None] = {}
        self._unproven: deque[tuple[float, Sequence[Task]]] = deque()
        # Whether some were not started in time, and none has ended since.
        self._doubted: dict[Lane, bool] = dict.fromkeys(capacity, False)

    def start(self, tasks: Sequence[Task], until: float) -> None:
        """The driver is given these, and is to start them by ``until`` (local ms)."""
        for task in tasks:
            assert task.kind is not None
            self.tasks[task] = None
            self.running[task.kind.lane] += 1
        self._unproven.append((until, tasks))

    def end(self, task: Task) -> bool:
        """The driver is done with it; answers whether it had it."""
        if task not in self.tasks:
            return False
        del self.tasks[task]
        assert task.kind is not None
        self.running[task.kind.lane] -= 1
        if not self.tasks:
            self._unproven.clear()
        return True

    def trust(self, task: Task) -> bool:
        """It ran to its end: whether that ends a doubt."""
        if task.kind is None or not self._doubted[task.kind.lane]:
            return False
        self._doubted[task.kind.lane] = False
        return True

    def take_back(self, local: float, *, everything: bool) -> list[Task]:
        """Take from the driver what it has not started in time; with ``everything`` also what still has time."""
        back: list[Task] = []
        while self._unproven and (everything or self._unproven[0][0] <= local):
            _, tasks = self._unproven.popleft()
            back += [task for task in tasks if task in self.tasks and task.take()]
        for task in back:
            self.end(task)
            assert task.kind is not None
            self._doubted[task.kind.lane] |= not everything
        return back

    @property
    def look_at(self) -> float:
        """When (local ms) to ask `take_back` again."""
        return self._unproven[0][0] if self._unproven else NEVER

    def room(self, lanes: Collection[Lane], ahead: int) -> int:
        """How many more jobs it can take, of whichever of these lanes, with so many to wait for a free place."""
        room = NEVER
        for lane in lanes:
            free = self._capacity[lane] + ahead - self.running[lane]
            # One at a time after some were not started, though there seemed to be room: a coroutine that blocks the event
            # loop would otherwise keep all its neighbours going back and forth.
            if self._doubted[lane] and free > 1:
                free = 1
            if free < room:
                room = free
        return room


class Kinds(Protocol):
    """Kinds of jobs, of which there may be more later."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[Kind[Any]]:
        """Each of them."""
        ...


def lanes_of(kinds: Kinds) -> Callable[[], frozenset[Lane]]:
    """Answers where the kinds run; looked at again only when there are more kinds."""
    counted, lanes = -1, frozenset[Lane]()

    def needed() -> frozenset[Lane]:
        nonlocal counted, lanes
        if counted != len(kinds):
            counted, lanes = len(kinds), frozenset[Lane](kind.lane for kind in kinds)
        return lanes

    return needed
