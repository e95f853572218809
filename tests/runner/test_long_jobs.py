"""A job that takes far longer than a lease runs once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from jobqueue import Context, JobQueue
from tests.faults.ledger import Ledger, await_that
from tests.runner.running import drained, running
from tests.runner.sim import Sim, World

LEASE = 3_000
BEAT = LEASE // 6


def test_two_hours_with_a_lease_of_three_seconds() -> None:
    """The core, its beats and another runner that watches all leases, under a fake clock."""
    world = World()
    world.enqueue(1)
    owner, other = Sim(world, "owner", lease=LEASE), Sim(world, "other", lease=LEASE)
    owner.settle()
    [task] = owner.given
    for _ in range(2 * 3_600_000 // BEAT):
        world.clock.advance(milliseconds=BEAT)
        assert owner.beat() == []
        other.settle()
        assert (other.look(), other.given) == ([], [])

    assert not task.lease_lost
    owner.run()
    owner.settle()
    assert world.runs == {1: 1}
    assert (owner.told("done"), owner.told("late")) == (1, 0)


def test_five_leases_on_real_runners(jobs: JobQueue, tmp_path: Path) -> None:
    """Until the beats of five leases were answered, as the runners themselves say."""
    ledger = Ledger(tmp_path / "ledger")
    over: list[bool] = []

    @jobs.job(name="long")
    def long(ctx: Context) -> None:
        ledger.write("start", "a", ctx.fence, ctx.attempt)
        await_that(lambda: len(jobs.runners()) == 2, "both are there")
        first = {runner.id: runner.seen for runner in jobs.runners()}
        lease = timedelta(seconds=0.6)

        def have_beaten() -> bool:
            seen = {runner.id: runner.seen for runner in jobs.runners()}
            return seen.keys() == first.keys() and all(seen[id] - first[id] > 5 * lease for id in first)

        await_that(have_beaten, "they beat for five leases, and are listed all the time")
        over.append(ctx.lease_lost)
        ledger.write("end", "a", ctx.fence, ctx.attempt)

    long.enqueue()
    with running(jobs, lease=0.6), running(jobs, lease=0.6):
        await_that(drained(jobs), "it ends")
    ledger.check(["a"])
    assert over == [False]
