"""Jobs in working that have lost their claim or their record, because somebody removed a key, do not stay there for good."""

from __future__ import annotations

import pytest

from jobqueue.looking import Counts
from jobqueue.record import rewrite
from jobqueue.runner.rescue import FOREIGN_BEAT
from tests.runner.sim import LEASE, Sim, World


@pytest.fixture
def world() -> World:
    return World()


def remove(world: World, name: str) -> None:
    """Remove a hash of the queue, as an operator might."""
    del world.memory._shared.contents.hashes[f"{{{world.keys().scope}}}:{name}"]


def test_without_a_claim(world: World) -> None:
    [id] = world.enqueue(1)
    Sim(world, "a").settle()
    remove(world, "claims")
    other = Sim(world, "b")

    world.clock.advance(milliseconds=LEASE)
    assert other.look() == []
    world.clock.advance(milliseconds=2 * FOREIGN_BEAT - 1)
    assert other.look() == []
    world.clock.advance(milliseconds=1)
    assert [job.id for job in other.look()] == [id.encode()]
    other.work()
    assert world.counter("done") == 1


def test_a_suspect_without_a_claim_is_not_blamed(world: World) -> None:
    [id] = world.enqueue(1)
    Sim(world, "a").settle()
    record = rewrite(world.kept(id).record, recoveries=2)
    world.memory._shared.contents.hashes[f"{{{world.keys().scope}}}:records"][id.encode()] = record
    remove(world, "claims")
    other = Sim(world, "b")
    for _ in range(2):
        world.clock.advance(milliseconds=LEASE)
        other.look()
    assert (world.kept(id).place, world.stored(id).recoveries) == ("ready", 2)


def test_without_a_record(world: World) -> None:
    world.enqueue(1)
    Sim(world, "a").settle()
    remove(world, "records")
    remove(world, "claims")
    other = Sim(world, "b")
    for _ in range(2):
        world.clock.advance(milliseconds=LEASE)
        assert other.look() == []
    assert world.jobs.counts()["low"] == Counts(waiting=0, ready=0, working=0, dead=0)


def test_without_a_record_but_with_a_claim(world: World) -> None:
    world.enqueue(1)
    Sim(world, "a").settle()
    remove(world, "records")
    other = Sim(world, "b")
    for _ in range(2):
        world.clock.advance(milliseconds=LEASE)
        assert other.look() == []
    assert world.jobs.counts()["low"].working == 0
