"""A job that needs a later version of the library is handed on: nobody here runs it, ends it or begins it again."""

from __future__ import annotations

from typing import get_args

import pytest

from jobqueue.doors import LEAVE, LEVEL, let_go
from jobqueue.errors import StorageRefused
from jobqueue.judge import TOO_OFTEN
from jobqueue.lifecycle import Step
from jobqueue.record import parse_claim, rewrite
from jobqueue.storage.ops import Batch, Move, These
from tests.runner.sim import LEASE, Sim, World


@pytest.fixture
def world() -> World:
    return World()


def needs_more(world: World, id: str, **changes: object) -> None:
    """Let a later version have stored this job."""
    record = rewrite(world.kept(id).record, needs=LEVEL + 1, **changes)
    world.memory._shared.contents.hashes[f"{{{world.keys().scope}}}:records"][id.encode()] = record


def test_a_runner_puts_it_back_without_end(world: World) -> None:
    [id] = world.enqueue(1)
    needs_more(world, id)
    runner = Sim(world, "a")

    for _ in range(40):  # one of a kind that is unknown would be dead after a day
        runner.work()
        assert (world.kept(id).place, world.stored(id).needs) == ("waiting", LEVEL + 1)
        world.clock.advance(hours=2)
    assert world.counter("done") == 0


def test_it_comes_back_from_dead_runners_and_is_not_condemned(world: World) -> None:
    [id] = world.enqueue(1)
    Sim(world, "a").settle()
    _, fence, _ = parse_claim(world.kept(id).claim or b"")
    needs_more(world, id, recoveries=TOO_OFTEN, started=fence)
    other = Sim(world, "b")

    world.clock.advance(milliseconds=LEASE)
    assert other.look() == []
    world.clock.advance(milliseconds=LEASE)
    rescued = other.look()

    assert [job.dead for job in rescued] == [False]
    assert world.kept(id).place == "ready"


@pytest.mark.parametrize("place", ["ready", "waiting", "dead"])
def test_an_operator_is_refused(world: World, place: str) -> None:
    keys = world.keys()
    [id] = world.enqueue(1, delay=3600 if place == "waiting" else 0)
    if place == "dead":
        world.memory.apply([Batch(keys.scope, (Move(keys.ready, keys.dead, These((id.encode(),)), 7),))])
    needs_more(world, id)
    before = world.kept(id)

    with pytest.raises(StorageRefused, match=f"{id} was stored by a later version of jobqueue"):
        world.jobs.delete(id)
    if place == "dead":
        with pytest.raises(StorageRefused, match="nothing was changed"):
            world.jobs.requeue(id)
    assert world.kept(id) == before


def test_every_step_says_what_is_given_back() -> None:
    assert set(LEAVE) == set(get_args(Step))


def test_where_a_job_goes_that_may_be_run() -> None:
    assert let_go(due=5, now=5) == ("ready", 0)
    assert let_go(due=6, now=5) == ("waiting", 6)
