"""A queue that is paused: nothing is claimed there, and what was claimed before goes on."""

from __future__ import annotations

import pytest

from jobqueue.storage.ops import Batch, HashDelete, HashSet, Ring
from jobqueue.testing import Fault
from jobqueue.transitions import PAUSED
from tests.runner.sim import Sim, World


@pytest.fixture
def world() -> World:
    return World()


def pause(world: World, queue: str = "low") -> None:
    keys = world.keys(queue)
    world.memory.apply([Batch(keys.scope, (HashSet(keys.state, {PAUSED: b"an operator"}),))])


def resume(world: World, queue: str = "low") -> None:
    keys = world.keys(queue)
    world.memory.apply([Batch(keys.scope, (HashDelete(keys.state, (PAUSED,)), Ring()))])


def test_nothing_is_claimed_until_it_is_resumed(world: World) -> None:
    world.enqueue(1, 2)
    world.enqueue(3, queue="high")
    pause(world)
    runner = Sim(world, weights={"low": 1, "high": 2})

    runner.wait(60)

    assert world.runs == {3: 1}
    assert world.numbers("ready") == [1, 2]
    assert world.sent.count("claim") < 50, "it is not asked again and again"
    resume(world)
    runner.core.woken(runner.at, world.keys().scope)
    runner.work()
    assert world.runs == {1: 1, 2: 1, 3: 1}
    assert runner.told("RequestsSpoiled") == 0


def test_what_runs_meanwhile_ends_as_ever(world: World) -> None:
    world.enqueue(1, 2)
    runner = Sim(world)
    runner.settle()
    pause(world)

    runner.work()

    assert world.runs[1] == 1
    assert world.counter("done") == len(world.runs)


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST])
def test_a_claim_without_an_answer_is_settled_though_the_queue_is_paused_now(world: World, fault: Fault) -> None:
    """What its first sending took is run; if that took nothing, it takes nothing now, and no claim later takes it twice."""
    world.enqueue(1, 2)
    runner = Sim(world, threads=1)
    world.fail("claim", fault)
    runner.settle()
    took = world.numbers("working")
    pause(world)

    runner.wait(5)

    assert sorted(world.runs.elements()) == took
    assert world.numbers("working") == []
    assert world.counter("rescued") == 0
    resume(world)
    runner.core.woken(runner.at, world.keys().scope)
    runner.wait(5)
    assert world.runs == {1: 1, 2: 1}
