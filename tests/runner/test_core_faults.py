"""The runner's core when requests, replies and leases are lost: each job is run, and its end is stored, once."""

from __future__ import annotations

import pytest

from jobqueue.looking import Counts
from jobqueue.retry import Discard, Snooze
from jobqueue.runner.decisions import Leave, Rest, Send
from jobqueue.runner.task import End
from jobqueue.testing import Fault
from tests.runner.sim import LEASE, Sim, World


@pytest.fixture
def world() -> World:
    return World()


def test_without_faults_each_job_runs_once_in_order(world: World) -> None:
    order: list[int] = []
    world.act = order.append
    world.enqueue(*range(40))

    Sim(world, threads=3).work()

    assert order == list(range(40))
    assert world.counter("done") == 40
    assert world.jobs.counts()["low"].working == 0


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.REFUSED, Fault.SENT_TWICE])
@pytest.mark.parametrize("step", ["claim", "finish"])
def test_a_lost_call_is_made_again(world: World, step: str, fault: Fault) -> None:
    world.enqueue(1, 2, 3)
    runner = Sim(world, threads=2)
    world.fail(step, fault, fault)

    runner.wait(1)

    assert world.runs == {1: 1, 2: 1, 3: 1}
    assert world.counter("done") == 3
    assert world.jobs.counts()["low"] == Counts(waiting=0, ready=0, working=0, dead=0)


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.REFUSED, Fault.SENT_TWICE])
def test_a_lost_hand_back_is_made_again(world: World, fault: Fault) -> None:
    world.enqueue(1, 2, 3)
    runner = Sim(world, threads=2)
    runner.settle()
    world.fail("release", fault, fault)
    runner.core.stop(runner.at)

    runner.wait(1)

    assert world.numbers("ready") == [1, 2, 3]
    assert not runner.core.leases.held
    assert isinstance(runner.settle(), Leave)


def test_a_claim_without_an_answer_keeps_its_number(world: World) -> None:
    """Its first sending took jobs: under another number they would wait for the end of a lease."""
    world.enqueue(1, 2)
    runner = Sim(world, threads=1)
    world.fail("claim", Fault.REPLY_LOST)

    runner.settle()
    assert world.numbers("working") == [1], "the first sending was carried out"
    runner.wait(0.5)

    assert world.runs == {1: 1, 2: 1}
    assert world.jobs.counts()["low"].working == 0


def test_a_claim_that_is_unsure_stays_so_when_the_storage_then_refuses(world: World) -> None:
    """What a server that dies looks like: one call without an answer, then connections refused."""
    world.enqueue(1, 2)
    runner = Sim(world, threads=1)
    world.fail("claim", Fault.REPLY_LOST, Fault.REFUSED, Fault.REFUSED)

    runner.wait(2)

    assert world.runs == {1: 1, 2: 1}
    assert world.jobs.counts()["low"].working == 0


def test_the_first_sending_of_a_claim_may_arrive_last(world: World) -> None:
    world.enqueue(1, 2, 3, 4)
    runner = Sim(world, threads=1)
    world.fail("claim", Fault.STALLED)
    runner.wait(0.2)
    assert world.counter("done") == 4, "the second sending was answered"
    world.enqueue(5)

    world.storage.deliver()

    assert world.numbers("ready") == [5], "the late one took nothing"
    runner.wait(6)
    assert world.runs[5] == 1


def test_a_claim_that_arrives_after_the_stop_takes_nothing(world: World) -> None:
    runner = Sim(world)
    world.fail("claim", Fault.STALLED)
    runner.settle()
    runner.core.stop(runner.at)
    runner.wait(1)
    assert isinstance(runner.settle(), Leave)
    world.enqueue(1)

    world.storage.deliver()

    assert world.numbers("ready") == [1]


def test_a_result_is_sent_until_it_is_answered(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world)
    runner.settle()
    world.away = True
    runner.run()
    runner.wait(10)
    assert world.numbers("working") == [1]
    assert world.runs == {1: 1}
    world.away = False

    runner.wait(3)

    assert world.jobs.counts()["low"] == Counts(waiting=0, ready=0, working=0, dead=0)
    assert world.runs == {1: 1}
    assert runner.told("done") == 1


def test_trouble_is_told_once_per_call_and_its_end_once(world: World) -> None:
    runner = Sim(world)
    world.away = True
    runner.wait(5)
    assert 2 <= runner.told("StorageTroubled") <= 12, "it is asked again, with growing pauses"
    world.away = False
    runner.wait(3)
    assert runner.told("StorageAnswered") == 1


def test_running_jobs_go_on_while_the_storage_is_away(world: World) -> None:
    world.enqueue(*range(4))
    runner = Sim(world, threads=4)
    runner.settle()
    assert len(runner.given) == 4
    world.away = True
    runner.run(runner.given[0])
    runner.settle()
    runner.run(runner.given[0])
    assert sum(world.runs.values()) == 2, "what was claimed is run"
    world.away = False
    runner.run()
    runner.wait(3)
    assert world.counter("done") == 4


# ------------------------------------------------------------------------------------------------------- lost leases


def test_nothing_starts_under_a_lease_that_is_not_certain(world: World) -> None:
    """The reply came after the lease's end: what it brought goes back unstarted, and then runs under a new claim."""
    world.enqueue(1)
    runner = Sim(world)
    world.fail("claim", Fault.REPLY_LOST)
    runner.settle()
    world.clock.advance(milliseconds=LEASE + 1)

    runner.settle()
    assert (world.counter("released"), runner.given) == (1, []), "what the late answer brought went back unstarted"
    assert world.rung()
    runner.core.woken(runner.at)
    runner.settle()
    [task] = runner.given
    assert task.deadline == runner.at.local + LEASE, "what is started comes with a claim of its own"
    runner.wait(1)
    assert world.runs == {1: 1}


def test_a_job_that_waited_past_its_lease_in_the_driver_is_not_begun(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world)
    runner.settle()
    [task] = runner.given
    world.clock.advance(milliseconds=LEASE)

    runner.run()

    assert task.end is End.HANDED_BACK
    assert not world.runs


def test_a_job_that_lost_its_lease_hears_of_it_and_its_result_changes_nothing(world: World) -> None:
    [id] = world.enqueue(1)
    first, second = Sim(world, "a"), Sim(world, "b")
    first.settle()
    [task] = first.given
    assert [job.id for job in second.rescue()] == [id.encode()]
    assert not task.lease_lost
    second.settle()
    first.beat()
    assert task.lease_lost

    first.core.returned([task], first.at)
    first.settle()
    assert world.numbers("working") == [1], "the claim of the second stands"
    assert first.told("late") == 1
    second.run()
    second.wait(1)

    assert world.counter("done") == 1
    assert second.told("done") == 1
    assert world.jobs.get(id) is None


@pytest.mark.parametrize("ending", [ValueError("late"), Snooze(60), Discard("late")], ids=repr)
def test_however_a_run_ends_that_lost_its_lease_it_changes_nothing(world: World, ending: Exception) -> None:
    [id] = world.enqueue(1, retry=0)
    first, second = Sim(world, "a"), Sim(world, "b")
    first.settle()
    [task] = first.given
    second.rescue()
    second.settle()
    before = world.memory.dump()

    task.outcome, task.text = ending, "late"
    first.core.returned([task], first.at)
    first.settle()

    assert first.told("late") == 1
    requests = world.keys().requests.full
    assert {**world.memory.dump(), requests: None} == {**before, requests: None}
    assert world.kept(id).place == "working"


def test_a_job_that_has_returned_keeps_its_lease_until_its_result_is_stored(world: World) -> None:
    world.enqueue(1)
    first, second = Sim(world, "a"), Sim(world, "b")
    first.settle()
    world.fail("finish", *[Fault.REFUSED] * 5)
    first.run()
    first.settle()

    assert second.rescue(first) == [], "taken from a runner that had only its result to store"
    first.wait(10)

    assert world.counter("done") == 1
    assert first.told("late") == 0
    assert world.runs[1] == 1


def test_one_runner_may_hold_a_job_twice(world: World) -> None:
    """It lost the lease, rescued and claimed the job itself, and the first run goes on: neither disturbs the other."""
    world.enqueue(1, 2)
    runner = Sim(world, threads=2)
    runner.settle()
    first, other = runner.given
    runner.given.clear()
    assert first.take()
    assert other.take()
    runner.core.returned([other], runner.at)
    world.clock.advance(milliseconds=5)
    runner.settle()
    world.clock.advance(milliseconds=LEASE + 1)
    assert runner.beat() == [first]
    assert runner.rescue(), "by its own patrol"
    runner.settle()
    [second] = runner.given
    assert second.id == first.id

    runner.core.returned([first], runner.at)
    runner.settle()

    assert runner.core.outstanding == 1, "the second run is still known"
    assert list(runner.core.leases.held.values()) == [second]
    assert runner.beat() == []
    assert second.deadline == runner.at.local + LEASE, "and still extended"
    runner.run()
    runner.wait(1)
    assert runner.core.outstanding == 0
    world.enqueue(3, 4)
    runner.core.woken(runner.at)
    runner.settle()
    assert len(runner.given) >= 2, "no slot was lost"


def test_a_second_claim_of_a_job_proves_that_the_first_is_lost(world: World) -> None:
    """Although no beat has told so yet: the first run hears of it at once."""
    world.enqueue(1)
    runner = Sim(world, threads=2)
    runner.settle()
    [first] = runner.given
    runner.given.clear()
    assert first.take()
    assert runner.rescue(), "by its own patrol"
    assert not first.lease_lost
    runner.settle()
    assert [task.id for task in runner.given] == [first.id]
    assert first.lease_lost


def test_a_beat_counts_from_when_it_was_sent(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world)
    runner.settle()
    [task] = runner.given
    sent = runner.at
    batches = runner.core.leases.extend(sent)
    world.clock.advance(seconds=4)
    outcomes = runner.send([batch for batch, _ in batches])

    runner.core.leases.extended(batches, outcomes, sent.local)

    assert task.deadline == sent.local + LEASE


def test_an_old_extension_does_not_shorten_a_lease(world: World) -> None:
    [id] = world.enqueue(1)
    runner = Sim(world)
    runner.settle()
    old = runner.core.leases.extend(runner.at)
    world.clock.advance(seconds=5)
    runner.beat()
    end = world.kept(id).score

    runner.send([batch for batch, _ in old])

    assert world.kept(id).score == end


def test_after_its_data_was_lost_a_runner_goes_on_under_another_name(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world)
    runner.settle()
    [task] = runner.given
    world.memory.restore(type(world.memory)())
    runner.core.renew(b"anew")
    assert runner.beat() == [task]
    runner.run()
    world.enqueue(2)
    runner.core.woken(runner.at)

    runner.wait(1)

    assert world.runs == {2: 1}, "the first was not begun without a lease"
    assert world.counter("done") == 1


# ------------------------------------------------------------------------------------------------------------- rests


def test_an_idle_runner_listens_and_looks_now_and_then(world: World) -> None:
    runner = Sim(world)

    rest = runner.settle()

    assert isinstance(rest, Rest)
    assert rest.listen
    assert 20_000 < rest.until - runner.at.local <= 30_000
    sent = len(world.sent)
    runner.wait(60)
    assert 4 <= len(world.sent) - sent <= 8, "two batches, twice a minute or a little more"


def test_it_rests_until_the_next_job_is_due_and_not_longer(world: World) -> None:
    world.enqueue(1, delay=2.5)
    runner = Sim(world)

    rest = runner.settle()

    assert isinstance(rest, Rest)
    assert rest.until == runner.at.local + 2_500
    world.clock.advance(milliseconds=2_499)
    assert isinstance(runner.settle(), Rest)
    assert not runner.given
    world.clock.advance(milliseconds=1)
    runner.settle()
    assert len(runner.given) == 1


def test_a_full_runner_that_is_rung_passes_the_token_on(world: World) -> None:
    world.enqueue(1, 2)
    runner = Sim(world, threads=1)
    runner.settle()
    world.rung()  # what the enqueue and the claim rang
    runner.core.woken(runner.at)

    decision = runner.step()

    assert isinstance(decision.then, Send)
    assert not runner.given[1:]
    assert world.numbers("ready") == [2]
    assert world.rung(), "somebody else may have room"


def test_a_runner_that_is_rung_for_nothing_does_not_ring(world: World) -> None:
    world.enqueue(1)
    runner = Sim(world, threads=1)
    runner.settle()
    world.rung()
    runner.core.woken(runner.at)
    runner.settle()
    assert not world.rung()
