"""Crashes and lost replies in a testing block."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from jobqueue import Context, JobQueue, LockTaken, OutcomeUnknown, StorageRefused
from jobqueue.flows import Flow, Read
from jobqueue.storage.ops import Fields, HashKey
from jobqueue.testing import Testing, TestingError
from tests.unit.kit_jobs import NEW_YEAR, Broken, add, jobs, mail, seen, urgent


def place_of(id: str) -> str | None:
    record = jobs.get(id)
    return None if record is None else record.place


# -------------------------------------------------------------------------------------------------------------- crash


def test_a_crashed_runner_leaves_its_job_in_working_and_others_alone(t: Testing) -> None:
    held, free = mail.enqueue("a"), mail.enqueue("b")

    assert t.crash_runner().id == held.id

    assert (place_of(held.id), place_of(free.id)) == ("working", "ready")
    assert seen == []
    assert t.drain() == {"done": 1}
    assert seen == [("mail", "b")]


def test_its_job_comes_back_after_the_lease_and_two_looks_and_not_earlier(t: Testing) -> None:
    record = mail.enqueue("a")
    t.crash_runner()

    t.clock.advance(seconds=40, milliseconds=-1)
    assert t.drain() == {}
    assert place_of(record.id) == "working"
    t.clock.advance(milliseconds=1)
    assert t.drain() == {"done": 1}


def test_the_promised_46_seconds_are_enough(t: Testing) -> None:
    mail.enqueue("a")
    t.crash_runner()
    t.clock.advance(seconds=46)

    run = t.run_one()

    assert (run.record.attempt, run.record.recoveries) == (0, 1)


def test_it_comes_back_at_the_head(t: Testing) -> None:
    for to in "abc":
        mail.enqueue(to)
    t.crash_runner()
    t.clock.advance(seconds=46)

    t.drain()

    assert seen == [("mail", to) for to in "abc"]


def test_jump_and_run_until_idle_know_when(t: Testing) -> None:
    mail.enqueue("a")
    t.crash_runner()

    assert t.jump() == timedelta(seconds=40)
    assert t.drain() == {"done": 1}

    mail.enqueue("b")
    t.crash_runner()
    assert t.run_until_idle() == {"done": 1}
    assert t.clock.datetime == NEW_YEAR + timedelta(seconds=80)


def test_jump_passes_over_a_job_that_others_may_take_already(t: Testing) -> None:
    mail.enqueue("a")
    t.crash_runner()
    mail.opts(delay=100).enqueue("b")
    t.clock.advance(46)

    assert t.jump() == timedelta(seconds=54)


def test_five_crashes_in_a_row_and_the_job_is_dead_but_not_its_neighbour(t: Testing) -> None:
    poison = mail.enqueue("poison")
    neighbour = mail.enqueue("neighbour")
    for crash in range(5):
        assert t.crash_runner().recoveries == crash
        t.clock.advance(seconds=46)

    assert t.drain() == {"done": 1}
    assert [record.id for record in t.dead()] == [poison.id]
    assert seen == [("mail", "neighbour")]
    assert jobs.get(neighbour.id) is None


def test_there_must_be_something_to_crash_with(t: Testing) -> None:
    mail.opts(delay=60).enqueue("a")

    with pytest.raises(TestingError, match=r"no job is due.*in 0:01:00"):
        t.crash_runner()


@pytest.mark.parametrize("shape", ["function", "coroutine"])
def test_a_runner_can_die_in_the_middle_of_a_job(t: Testing, shape: str) -> None:
    queue = JobQueue(namespace="kit")
    fences: list[int] = []

    def work(ctx: Context) -> None:
        fences.append(ctx.fence)
        try:
            if len(fences) == 1:
                inner.crash_runner()
        except Exception as error:  # what a job might do
            raise AssertionError from error
        fences.append(-1)

    @queue.job(name="function")
    def function(ctx: Context) -> None:
        work(ctx)

    @queue.job(name="coroutine")
    async def coroutine(ctx: Context) -> None:
        work(ctx)

    @queue.job(name="other")
    def other() -> None: ...

    with queue.testing() as inner:
        record = (function if shape == "function" else coroutine).enqueue()
        other.enqueue()

        assert inner.drain() == {"done": 1, "crashed": 1}
        held = queue.get(record.id)
        assert held is not None
        assert (held.place, held.attempt) == ("working", 0)
        inner.clock.advance(seconds=46)
        assert inner.drain() == {"done": 1}
    first, second, end = fences
    assert first < second
    assert end == -1


def test_a_runner_never_holds_more_than_it_runs(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="quick")
    def quick(number: int) -> None:
        inner.clock.advance(milliseconds=1)  # a real runner claims such jobs by the dozen
        if number == 30:
            inner.crash_runner()

    with queue.testing() as inner:
        queue.enqueue_many([quick.call(number) for number in range(40)])

        assert inner.drain() == {"done": 39, "crashed": 1}
        assert queue.counts()["low"].working == 1


def test_run_one_tells_of_a_crash(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="dies")
    def dies() -> None:
        inner.crash_runner()

    with queue.testing() as inner:
        dies.enqueue()
        dies.enqueue()

        assert inner.run_one().outcome == "crashed"
        assert len(inner.enqueued()) == 1


async def test_runners_crash_in_asynchronous_tests_too(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="dies")
    def dies(ctx: Context) -> None:
        if ctx.record.recoveries == 0:
            inner.crash_runner()

    with queue.testing() as inner:
        await dies.aenqueue()

        assert await inner.arun_until_idle() == {"done": 1, "crashed": 1}


# -------------------------------------------------------------------------------------------------------- lost replies


def test_an_enqueue_whose_reply_is_lost_stores_once(t: Testing) -> None:
    t.lose_reply()

    record = mail.enqueue("a")

    assert [found.id for found in t.enqueued()] == [record.id]
    assert t.drain() == {"done": 1}


async def test_so_does_an_asynchronous_one(t: Testing) -> None:
    t.lose_reply(2)

    record = await mail.aenqueue("a")

    assert [found.id for found in t.enqueued()] == [record.id]
    t.lose_reply(3)
    with pytest.raises(OutcomeUnknown):
        await mail.aenqueue("b")


def test_nobody_waits_for_real_before_it_sends_again(t: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept for {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)
    t.lose_reply(2)
    mail.enqueue("a")
    t.lose_reply(5)

    assert t.drain() == {"done": 1}


def test_a_flow_that_never_waits_still_sees_refusals(t: Testing) -> None:
    mail.enqueue("a")

    def flow() -> Flow[str]:
        try:
            yield Read((Fields(HashKey(f"{jobs.namespace}:low", "ready")),))
        except StorageRefused:
            return "seen"
        return "not refused"

    assert jobs.access.run(flow()) == "seen"


def test_three_losses_are_an_unknown_outcome_and_sending_again_stores_once(t: Testing) -> None:
    t.lose_reply(3)

    with pytest.raises(OutcomeUnknown) as caught:
        jobs.enqueue_many([mail.call("a"), urgent.call(1)])

    assert len(caught.value.records) == 2
    jobs.enqueue_records(caught.value.records)
    assert len(t.enqueued()) == 2
    assert t.drain() == {"done": 2}


@pytest.mark.parametrize("times", [1, 5])
def test_a_runner_whose_claim_is_answered_late_runs_each_job_once(t: Testing, times: int) -> None:
    for number in range(5):
        urgent.enqueue(number)
    t.lose_reply(times)

    assert t.drain() == {"done": 5}
    assert seen == [("urgent", number) for number in range(5)]
    assert t.clock.datetime == NEW_YEAR


@pytest.mark.parametrize("times", [1, 5])
def test_the_reply_to_a_result_can_be_lost_from_inside_of_the_job(t: Testing, times: int) -> None:
    queue = JobQueue(namespace="kit")
    runs: list[int] = []

    @queue.job(name="works")
    def works(number: int) -> None:
        runs.append(number)
        inner.lose_reply(times)

    @queue.job(name="fails", retry=1)
    def fails() -> None:
        inner.lose_reply(times)
        raise Broken

    with queue.testing() as inner:
        works.enqueue(1)
        works.enqueue(2)
        fails.enqueue()

        assert inner.drain(reraise=False) == {"done": 2, "retried": 1}
        assert inner.assert_enqueued(fails).attempt == 1
    assert runs == [1, 2]


def test_a_lost_reply_concerns_locks_too(t: Testing) -> None:
    t.lose_reply()

    with jobs.lock("nightly", ttl=60), pytest.raises(LockTaken), jobs.lock("nightly", ttl=60):
        pass


def test_a_loss_is_not_spent_on_what_the_kit_itself_does(t: Testing) -> None:
    add.enqueue(1)
    t.lose_reply(3)
    t.enqueued()
    t.dead()
    t.clock.advance(1)

    with pytest.raises(OutcomeUnknown):
        mail.enqueue("a")


def test_replies_that_are_lost_one_by_one_are_counted(t: Testing) -> None:
    t.lose_reply(2)
    t.lose_reply()

    with pytest.raises(OutcomeUnknown):
        mail.enqueue("a")
    mail.enqueue("b")


@pytest.mark.parametrize("times", [0, -1, 101])
def test_so_many_losses_are_refused(t: Testing, times: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100"):
        t.lose_reply(times)
