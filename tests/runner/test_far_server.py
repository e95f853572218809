"""A runner far from its server, in virtual time: what it claims, and how long a job waits in it, follow the round trip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.clock import Moment
from jobqueue.runner.ahead import ClaimAhead
from jobqueue.runner.decisions import Leave, Rest
from jobqueue.runner.task import End, Task
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome
from tests.runner.sim import Sim, World

THREADS = 8
TURN_MS = 0.05
"""What a turn of the runner takes besides the call; a call without any distance takes four times as long."""


class Far(Sim):
    """A runner whose calls take a round trip, and whose threads take time for each job.

    Attributes:
        trip: How long a call takes, in ms.
        takes: Answers how long a job takes, in ms.
        ended: How many jobs have ended.
        waited: How long the jobs that started had waited since their claim left; those taken back until that was stored.
    """

    def __init__(self, world: World, trip: float, takes: Callable[[], float], *, threads: int = THREADS) -> None:
        super().__init__(world, threads=threads)
        self.trip = trip
        self.takes = takes
        self.ended = 0
        self.waited: list[float] = []
        self._queue: deque[Task] = deque()
        self._since: dict[Task, float] = {}
        self._busy: list[tuple[float, Task]] = []  # until when each thread runs which job
        self._threads = threads
        self._idle_since = 0.0
        self._back: list[Task] = []
        self._local = 0.0  # the fake clock knows whole milliseconds alone

    @property
    def at(self) -> Moment:
        """Now."""
        return Moment(self.world.clock.now(), self._local)

    def play(self, milliseconds: float) -> None:
        """Let so much time pass."""
        end = self.at.local + milliseconds
        while self.at.local < end:
            then = self.engine.take_turn(self.send_while).then
            assert not isinstance(then, Leave)
            if isinstance(then, Rest):
                until = min([then.until, end, *[until for until, _ in self._busy]])
                self._pass(max(TURN_MS, until - self.at.local))
            self._pass(TURN_MS)
            if self._back:
                back, self._back = self._back, []
                self.core.returned(back, self.at, self._idle_since)

    def start(self, tasks: Sequence[Task]) -> None:
        """Let a thread take these when it is free."""
        self._since.update(dict.fromkeys(tasks, self.at.local))
        self._queue.extend(tasks)

    def send_while(self, batches: Sequence[Batch], work: Callable[[], None]) -> list[Outcome]:
        """A call takes its time."""
        work()
        self._pass(max(self.trip, 4 * TURN_MS))
        outcomes = self.send(batches)
        self._taken_back()
        return outcomes

    def _pass(self, milliseconds: float) -> None:
        """Time passes, and the threads run jobs."""
        end = self.at.local + milliseconds
        now = self.at.local
        while True:
            while self._queue and len(self._busy) < self._threads:
                task = self._queue.popleft()
                if task.take():
                    self.waited.append(now - self._since.pop(task))
                    self._busy.append((now + self.takes(), task))
            first = min(self._busy, key=lambda one: one[0], default=None)
            if first is None or first[0] > end:
                break
            self._busy.remove(first)
            now = first[0]
            self._back.append(first[1])
            self.ended += 1
            if not self._busy and not self._queue:
                self._idle_since = now
        self.world.clock.advance(milliseconds=int(end) - int(self._local))
        self._local = end

    def _taken_back(self) -> None:
        for task in [task for task in self._since if task.end is End.HANDED_BACK or task.returned]:
            self.waited.append(self.at.local - self._since.pop(task))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("trip", "least"), [(0.0, 12_000), (6.0, 12_000), (12.0, 8_000), (25.0, 5_000), (50.0, 2_500)])
def test_a_long_round_trip_costs_no_more_than_a_claim_can_bring(world: World, trip: float, least: int) -> None:
    world.enqueue(*range(6_000))
    runner = Far(world, trip, lambda: 0.1)

    runner.play(400)  # it has measured
    before = runner.ended
    runner.play(200)

    assert (runner.ended - before) * 5 >= min(least, (6_000 - before) * 5)
    assert world.counter("released") == 0


def test_jobs_that_take_longer_keep_all_threads_busy_at_25_ms(world: World) -> None:
    world.enqueue(*range(3_000))
    runner = Far(world, 25.0, lambda: 5.0)

    runner.play(500)
    before = runner.ended
    runner.play(1_000)

    assert runner.ended - before >= 0.9 * THREADS * 1_000 / 5
    assert world.counter("released") == 0


def test_after_a_bad_minute_the_old_rate_is_back_at_once(world: World) -> None:
    world.enqueue(*range(4_000))
    runner = Far(world, 0.0, lambda: 2.0)
    runner.play(200)
    good = runner.ended
    runner.trip = 50.0
    runner.play(400)

    runner.trip = 0.0
    before = runner.ended
    runner.play(200)

    assert runner.ended - before >= 0.95 * good


def test_a_stall_of_the_server_is_no_distance(world: World) -> None:
    ahead = ClaimAhead()
    for took in (1.0, 5_000.0, 1.2, 0.9):
        ahead.called(took)
    assert ahead.round_trip == 0.9
    assert ahead.patience == 50.0


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 3.0, 10.0, 25.0, 60.0, 400.0]),  # the round trip
            st.sampled_from([0.05, 1.0, 20.0, 300.0, 5_000.0]),  # what a job takes
            st.floats(20, 600),  # for how long
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([1, 8]),
)
def test_a_job_waits_behind_others_in_one_runner_no_longer_than_is_said(
    phases: list[tuple[float, float, float]], threads: int
) -> None:
    """Taken back after 50 ms or four round trips; then a call under way has to end, and another tells the storage."""
    world = World()
    world.enqueue(*range(600))
    runner = Far(world, 0.0, lambda: 0.05, threads=threads)
    longest = 0.0
    for trip, takes, lasts in phases:
        longest = max(longest, trip)
        runner.trip, runner.takes = trip, lambda takes=takes: takes  # type: ignore[misc]
        runner.play(lasts)

    bound = max(50.0, 4 * min(longest, 250.0)) + 2 * max(longest, 4 * TURN_MS) + 4 * TURN_MS
    assert max(runner.waited, default=0.0) <= bound
    held = [runner.at.local - since for since in runner._since.values()]
    assert max(held, default=0.0) <= bound
