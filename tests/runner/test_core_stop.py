"""What the runner's core hands back, and how it comes to its end."""

from __future__ import annotations

import pytest

from jobqueue import transitions
from jobqueue.runner.decisions import Leave, Rest, Send
from jobqueue.runner.stop import UNSURE_MS
from jobqueue.storage.ops import Head, Move, Refused
from jobqueue.testing import Fault
from tests.runner.sim import Sim, World


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------------------------------------------ going back


def test_what_was_not_started_in_time_goes_back_while_others_run(world: World) -> None:
    world.enqueue(*range(5))
    runner = Sim(world, threads=4)
    runner.settle()
    slow = runner.given[0]
    assert slow.take(), "the only one that a thread took up"
    world.clock.advance(milliseconds=49)
    runner.settle()
    assert world.numbers("ready") == [4]
    world.clock.advance(milliseconds=1)

    runner.step()

    assert world.numbers("ready") == [1, 2, 3, 4], "at the head, in their order"
    assert world.counter("released") == 3
    assert all(not task.take() for task in runner.given[1:]), "and no thread can start them any more"
    assert runner.core.outstanding == 1


def test_what_went_back_is_left_to_others_for_a_while(world: World) -> None:
    """Two of four slots are stuck: the runner does not take at once again what it has just given back."""
    world.enqueue(*range(6))
    runner = Sim(world, threads=4)
    runner.settle()
    first, second, *_ = runner.given
    assert first.take()
    assert second.take()
    world.clock.advance(milliseconds=50)
    then = runner.settle()
    assert isinstance(then, Rest)
    assert then.until == runner.at.local + 50
    assert world.numbers("ready") == [2, 3, 4, 5]

    world.clock.advance(milliseconds=50)
    runner.given.clear()
    runner.settle()

    assert [task.order for task in runner.given] == [0, 0], "then one at a time, each by a claim of its own"
    runner.core.returned([first], runner.at)
    runner.run()
    runner.wait(1)
    assert world.counter("done") == 5, "all but the one that still runs"
    world.enqueue(*range(10, 20))
    runner.core.woken(runner.at)
    runner.settle()
    assert len({task.fence for task in runner.given}) == 1, "and then as before"
    assert len(runner.given) >= 3


def test_a_stop_lets_running_jobs_end_and_hands_the_rest_back(world: World) -> None:
    world.enqueue(*range(5))
    runner = Sim(world, threads=3)
    runner.settle()
    running, *others = runner.given
    assert running.take()
    runner.core.stop(runner.at)

    then = runner.settle()

    assert isinstance(then, Rest)
    assert not then.listen
    assert world.numbers("ready") == [1, 2, 3, 4]
    assert world.numbers("working") == [0]
    world.clock.advance(seconds=5)
    runner.core.returned([running], runner.at)
    assert runner.settle() == Leave(hard=False)
    assert world.counter("done") == 1
    assert not any(task.take() for task in others)


def test_more_than_one_batch_goes_back_in_order(world: World) -> None:
    world.enqueue(*range(720))
    runner = Sim(world, threads=700)
    runner.settle()
    assert len(runner.given) == 700
    runner.core.stop(runner.at)
    assert isinstance(runner.settle(), Leave)
    assert world.numbers("ready") == list(range(720))


def test_what_does_not_end_in_time_is_interrupted_and_handed_back_last(world: World) -> None:
    [id] = world.enqueue(1)
    runner = Sim(world, grace=2_000)
    runner.settle()
    [task] = runner.given
    task.take()
    runner.core.stop(runner.at)
    then = runner.settle()
    assert isinstance(then, Rest)
    assert then.until - runner.at.local <= 2_000
    world.clock.advance(seconds=2)
    assert runner.step().interrupt == [task]
    assert task.cancelled
    assert world.kept(id).place == "working", "it has a second to end"
    world.clock.advance(seconds=1)

    assert runner.settle() == Leave(hard=True)

    assert world.kept(id).place == "ready"
    assert world.stored(id).attempt == 0
    runner.core.returned([task], runner.at)
    assert world.kept(id).place == "ready", "its late end changes nothing"


@pytest.mark.parametrize("holding", [True, False])
def test_a_stop_with_the_storage_away_ends_in_bounded_time(world: World, holding: bool) -> None:
    if holding:
        world.enqueue(1)
    runner = Sim(world, grace=2_000)
    runner.settle()
    for task in runner.given:
        task.take()
    world.away = True
    start = runner.at.local
    runner.core.stop(runner.at)
    while not isinstance(then := runner.settle(), Leave):
        world.clock.advance(milliseconds=max(1, round(then.until - runner.at.local)))
    assert then.hard is holding
    assert runner.at.local - start <= 2_000 + 1_000 + 3_000 + 2_000


@pytest.mark.parametrize("since", [0, 60], ids=["just now", "for a minute"])
def test_who_holds_nothing_does_not_wait_for_a_storage_that_is_away(world: World, since: float) -> None:
    runner = Sim(world, grace=30_000)
    runner.work()
    world.away = True
    runner.wait(since)
    stopped = runner.at.local
    runner.core.stop(runner.at)
    assert runner.settle() == Leave(hard=False)
    assert runner.at.local == stopped


def test_who_runs_a_job_waits_for_its_end_and_for_a_storage_that_is_away(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world, grace=30_000)
    runner.settle()
    [task] = runner.given
    assert task.take()
    world.away = True
    runner.core.stop(runner.at)
    for _ in range(10):
        world.clock.advance(seconds=1)
        assert isinstance(runner.settle(), Rest)
    runner.core.returned([task], runner.at)
    assert isinstance(runner.settle(), Rest), "its result is not stored"
    world.away = False
    world.clock.advance(seconds=2)
    assert runner.settle() == Leave(hard=False)
    assert world.counter("done") == 1


def test_a_claim_without_an_answer_is_asked_for_again_for_two_seconds_of_a_stop(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world, grace=30_000)
    world.fail("claim", Fault.REPLY_LOST)
    runner.settle()
    world.away = True
    start, asked = runner.at.local, world.sent.count("claim")
    runner.core.stop(runner.at)
    while not isinstance(then := runner.settle(), Leave):
        world.clock.advance(milliseconds=max(1, round(then.until - runner.at.local)))
    assert then == Leave(hard=False)
    assert runner.at.local - start == UNSURE_MS
    assert world.sent.count("claim") - asked >= 3, "it was asked for again"
    assert world.numbers("working") == [1], "it comes back when its lease ends, as after a crash"
    other = Sim(world, "other")
    assert other.rescue()


def test_nothing_is_claimed_after_a_stop(world: World) -> None:
    runner = Sim(world)
    runner.settle()
    runner.core.stop(runner.at)
    world.enqueue(1)
    runner.core.woken(runner.at)
    assert isinstance(runner.settle(), Leave)
    assert world.numbers("ready") == [1]
    assert world.keys().requests.full not in world.memory.dump(), "every claim was answered: nothing is left behind"


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST])
def test_a_copy_of_a_claim_that_arrives_after_the_stop_takes_nothing(world: World, fault: Fault) -> None:
    """It was sent again and answered; the first sending may still be on its way."""
    world.enqueue(1)
    runner = Sim(world)
    world.fail("claim", fault)
    runner.work()
    late = transitions.claim(world.keys(), b"a", 1, limit=1, now=world.clock.now(), lease=1, beat=1)
    world.enqueue(2)
    runner.core.stop(runner.at)
    while not isinstance(then := runner.settle(), Leave):
        world.clock.advance(milliseconds=max(1, round(then.until - runner.at.local)))
    [refused] = world.memory.apply([late])
    assert isinstance(refused, Refused)
    assert world.numbers("working") == []


def test_a_claim_whose_answer_was_lost_before_the_stop_is_settled_by_it(world: World) -> None:
    world.enqueue(1, 2)
    runner = Sim(world)
    world.fail("claim", Fault.REPLY_LOST)
    runner.settle()
    assert world.numbers("working") == [1]
    runner.core.stop(runner.at)
    runner.wait(1)
    assert runner.settle() == Leave(hard=False)
    assert world.numbers("ready") == [1, 2]
    assert not world.runs


def test_a_claim_brings_a_bounded_number_of_bytes(world: World) -> None:
    """Head(limit, max_bytes) is what the core asks with."""
    world.enqueue(1)
    runner = Sim(world)
    then = runner.step().then
    assert isinstance(then, Send)
    picks = [op.pick for batch in then.batches for op in batch.ops if isinstance(op, Move)]
    assert Head(1, transitions.BYTES) in picks
