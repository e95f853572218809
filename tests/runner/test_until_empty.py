"""A runner that leaves when nothing is ready or due: when it may, and when it may not."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from jobqueue.keys import queue_keys
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.decisions import Leave, LookAround, Rest
from jobqueue.runner.queue_state import NEVER, PendingClaim, QueueState
from jobqueue.storage.ops import Batch
from jobqueue.testing import Fault
from tests.runner.sim import Sim, World

LEFT = Leave(hard=False)


@pytest.fixture
def world() -> World:
    return World()


def burst(world: World, name: str = "a", **options: Any) -> Sim:
    """A runner that leaves when it has nothing more to do."""
    return Sim(world, name, until_empty=True, **options)


@pytest.mark.parametrize(
    ("left", "next_due", "is_empty"),
    [(0, NEVER, True), (0, 11, True), (0, 10, False), (1, 11, False), (None, 11, False), (0, None, False)],
)
def test_a_queue_is_empty_when_it_has_said_so(left: int | None, next_due: int | None, is_empty: bool) -> None:
    queue = QueueState(queue_keys("test", "low"), left, next_due)
    assert queue.is_empty(10) is is_empty
    queue.claim = PendingClaim(Batch("", ()), 1, 0.0)
    assert not queue.is_empty(10), "the claim may have taken a job"


def test_with_nothing_to_do_it_leaves(world: World) -> None:
    runner = burst(world)
    assert runner.settle() == LEFT
    assert world.sent.count("claim") == 2, "the second look is the one that counts"


def test_it_runs_what_there_is_and_leaves(world: World) -> None:
    world.enqueue(*range(250))
    runner = burst(world, threads=7)
    assert runner.work() == LEFT
    assert world.runs == dict.fromkeys(range(250), 1)
    assert world.counter("done") == 250


def test_what_is_not_due_does_not_count(world: World) -> None:
    world.enqueue(1)
    world.enqueue(2, delay=60)
    assert burst(world).work() == LEFT
    assert (world.numbers("waiting"), dict(world.runs)) == ([2], {1: 1})


def test_what_becomes_due_while_it_works_does(world: World) -> None:
    world.enqueue(1)
    world.enqueue(2, delay=60)
    world.act = lambda number: world.clock.advance(seconds=60) if number == 1 else None
    assert burst(world).work() == LEFT
    assert world.runs == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("ending", "runs"),
    [(ValueError("later"), 1), (Retry(after=60), 1), (Retry(after=0), 4), (Snooze(60), 1), (Discard(), 1)],
    ids=repr,
)
def test_a_retry_counts_if_it_is_due(world: World, ending: Exception, runs: int) -> None:
    def act(_: int) -> None:
        raise ending

    world.act = act
    world.enqueue(1, retry=3)
    assert burst(world).work() == LEFT
    assert world.runs == {1: runs}


def test_jobs_of_others_do_not_count(world: World) -> None:
    world.enqueue(1)
    other = Sim(world, "b")
    other.settle()
    assert burst(world).settle() == LEFT
    assert world.numbers("working") == [1]


def test_it_waits_for_its_own_jobs(world: World) -> None:
    world.enqueue(1)
    runner = burst(world)
    runner.settle()
    [task] = runner.given
    assert task.take()
    for _ in range(50):
        assert isinstance(runner.settle(), Rest)
        world.clock.advance(seconds=1)
        runner.beat()
    runner.core.returned([task], runner.at)
    assert runner.settle() == LEFT
    assert world.counter("done") == 1


def test_also_for_one_that_it_has_lost(world: World) -> None:
    world.enqueue(1)
    runner = burst(world)
    runner.settle()
    [task] = runner.given
    assert task.take()
    other = Sim(world, "b")
    other.rescue()
    other.work()
    assert isinstance(runner.work(), Rest)
    runner.core.returned([task], runner.at)
    assert runner.work() == LEFT


@pytest.mark.parametrize("queue", ["low", "high", "new"])
def test_what_a_job_enqueues_is_run(world: World, queue: str) -> None:
    """Also into a queue that was seen to be empty, or that nobody has used before."""

    def act(number: int) -> None:
        if number < 5:
            world.enqueue(number + 1, queue=queue)

    world.act = act
    world.enqueue(0)
    runner = burst(world, weights={"low": 1, "high": 2}, discover=True)
    assert runner.work() == LEFT
    assert world.runs == dict.fromkeys(range(6), 1)


def test_what_a_job_enqueues_after_the_look_around_is_asked_for(world: World) -> None:
    """What makes it look around again is a job that it took, however late."""
    runner = burst(world)
    while not isinstance(runner.step().then, LookAround):
        pass
    world.act = lambda number: world.enqueue(number + 1) if number < 3 else None
    world.enqueue(1)
    assert runner.work() == LEFT
    assert world.runs == {1: 1, 2: 1, 3: 1}


def test_a_queue_that_does_not_answer_may_have_work(world: World) -> None:
    world.enqueue(1)
    world.away = True
    runner = burst(world)
    for _ in range(20):
        then = runner.settle()
        assert isinstance(then, Rest)
        world.clock.advance(milliseconds=max(1, round(then.until - runner.at.local)))
    world.away = False
    runner.wait(5)
    assert world.runs == {1: 1}
    assert runner.settle() == LEFT


def test_a_claim_without_an_answer_is_asked_again(world: World) -> None:
    """It may have taken a job, although the queue is empty now."""
    world.enqueue(1)
    world.fail("claim", Fault.REPLY_LOST)
    runner = burst(world)
    assert isinstance(runner.settle(), Rest)
    runner.wait(5)
    assert world.runs == {1: 1}
    assert runner.settle() == LEFT


def test_a_stop_ends_it_sooner(world: World) -> None:
    world.enqueue(*range(9))
    runner = burst(world)
    runner.step()
    runner.core.stop(runner.at)
    assert runner.settle() == LEFT
    assert len(world.numbers("ready")) == 9


def fates(chance: random.Random) -> Callable[[], Fault]:
    """Mostly none."""
    weights = {Fault.OK: 8, Fault.REPLY_LOST: 1, Fault.REFUSED: 1}
    return lambda: chance.choices(list(weights), list(weights.values()))[0]


@pytest.mark.parametrize("seed", range(40))
def test_when_all_have_left_nothing_is_ready_or_due(seed: int) -> None:
    """One to three runners; jobs that enqueue jobs, fail, snooze and go back; answers that get lost."""
    world, chance = World(), random.Random(seed)
    fate, number = fates(chance), 0
    queues = ["low", "high", "new"]
    queue_of: dict[int, str] = {}

    def enqueue(count: int) -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            queue_of[number] = chance.choice(queues)
            world.enqueue(number, queue=queue_of[number], delay=chance.choice([0, 0, 0, 0.001, 600]), retry=2)

    def act(_: int) -> Any:
        if number < 60:
            enqueue(chance.choice([0, 1, 1, 2]))
        what = chance.random()
        if what < 0.1:
            raise Retry(after=chance.choice([0, 600]))
        return Snooze(chance.choice([0, 600])) if what < 0.15 else Discard() if what < 0.2 else None

    world.act = act
    enqueue(5)
    runners = [
        burst(world, name, threads=chance.randint(1, 3), weights={"low": 1, "high": 2}, discover=True)
        for name in "abc"[: chance.randint(1, 3)]
    ]
    for _ in range(5_000):
        if not runners:
            break
        runner = chance.choice(runners)
        world.fail("any", fate())
        if isinstance(runner.step().then, Leave):
            runners.remove(runner)
        elif runner.given and chance.random() < 0.6:
            runner.run(chance.choice(runner.given))
        world.clock.advance(milliseconds=chance.choice([0, 1, 2, 60]))
    world.faults.clear()

    assert runners == [], "all come to their end"
    now = world.clock.now()
    for queue in queues:
        assert world.numbers("ready", queue) == []
        assert [
            record for record in world.jobs.find(queue=queue, place="waiting", limit=1_000) if due(record) <= now
        ] == []


def due(record: Any) -> float:
    """When (ms) a job is due."""
    return float(record.due.timestamp() * 1000)
