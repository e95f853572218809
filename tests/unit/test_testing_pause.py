"""Runners that stand still, and servers out of reach, in a testing block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from jobqueue import Context, JobQueue, NotApplied
from jobqueue.testing import Testing, TestingError
from tests.unit.kit_jobs import NEW_YEAR, Broken, add, broken, jobs, looks, mail, seen, urgent

# --------------------------------------------------------------------------------------------- a runner that stands still


def test_a_zombie_runs_its_job_a_second_time_and_its_result_is_refused(t: Testing) -> None:
    record = mail.enqueue("a")

    assert t.pause_runner().id == record.id
    assert seen == []
    t.clock.advance(seconds=46)
    assert t.drain() == {"done": 1}
    run = t.resume_runner()

    assert (run.outcome, run.record.id, run.result) == ("late", record.id, "hello, a")
    assert seen == [("mail", "a"), ("mail", "a")]
    assert jobs.get(record.id) is None


def test_a_zombie_does_not_disturb_the_run_of_its_successor(t: Testing) -> None:
    broken.enqueue(1)
    t.pause_runner()
    t.clock.advance(seconds=46)
    assert t.drain(reraise=False) == {"retried": 1}
    before = t.assert_enqueued(broken)

    with pytest.raises(Broken):
        t.resume_runner()

    assert t.assert_enqueued(broken) == before


def test_a_runner_that_was_not_missed_ends_its_job(t: Testing) -> None:
    record = mail.enqueue("a")
    t.pause_runner()
    t.clock.advance(seconds=29)
    assert t.drain() == {}

    assert t.resume_runner().outcome == "done"
    assert jobs.get(record.id) is None
    assert t.drain() == {}


def test_a_zombie_that_looks_is_refused_as_well(t: Testing) -> None:
    """It is handed back, since it saw that its lease was lost; but another runner has taken the job."""
    looks.enqueue()
    t.pause_runner()
    t.clock.advance(seconds=46)

    assert t.drain() == {"done": 1}
    assert t.resume_runner().outcome == "late"
    assert seen == [("looks", False), ("looks", True)]


def test_a_run_that_saw_a_lost_lease_is_handed_back_if_nobody_took_its_job(t: Testing) -> None:
    record = looks.enqueue()
    t.pause_runner()
    t.clock.advance(seconds=35)

    run = t.resume_runner()

    assert (run.outcome, run.result) == ("released", "half")
    again = jobs.get(record.id)
    assert again is not None
    assert (again.place, again.attempt) == ("ready", 0)
    assert t.drain() == {"done": 1}


def test_runners_go_on_in_the_order_in_which_they_stopped(t: Testing) -> None:
    urgent.enqueue(1)
    urgent.enqueue(2)
    t.pause_runner()
    t.pause_runner()

    assert [t.resume_runner().result, t.resume_runner().result] == [1, 2]
    with pytest.raises(TestingError, match="no runner stands still"):
        t.resume_runner()


def test_with_nothing_due_there_is_none_to_pause(t: Testing) -> None:
    mail.opts(delay=60).enqueue("a")

    with pytest.raises(TestingError, match=r"pause_runner\(\): no job is due; the next one is in 0:01:00"):
        t.pause_runner()


def test_a_runner_that_never_goes_on_has_died(t: Testing) -> None:
    mail.enqueue("a")
    t.pause_runner()

    assert t.run_until_idle() == {"done": 1}
    assert seen == [("mail", "a")]


async def test_so_in_asynchronous_tests(t: Testing) -> None:
    await add.aenqueue(1)
    assert (await t.apause_runner()).name == "add"
    t.clock.advance(seconds=46)
    assert await t.adrain() == {"done": 1}

    with pytest.raises(TestingError, match=r"use `await t\.aresume_runner"):
        t.resume_runner()
    assert (await t.aresume_runner()).outcome == "late"
    assert seen == [("add", 1, 1), ("add", 1, 1)]


Told = list[tuple[str, int, bool]]


def declared(queue: JobQueue, told: Told, pause: Callable[[], object]) -> Callable[[], object]:
    """A job that stands still in its first run."""

    @queue.job(name="slow")
    def slow(ctx: Context) -> None:
        told.append(("begins", ctx.fence, ctx.lease_lost))
        if ctx.record.recoveries == 0:
            pause()
        told.append(("ends", ctx.fence, ctx.lease_lost))

    return slow.enqueue


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_inside_of_a_job_others_run_it_meanwhile(t: Testing, way: str) -> None:
    queue, told = JobQueue(namespace="kit"), Told()
    enqueue = declared(queue, told, lambda: inner.pause_runner())

    with queue.testing() as inner:
        enqueue()
        counts = inner.drain() if way == "drain" else asyncio.run(inner.adrain())

        assert counts == {"done": 1, "late": 1}
        assert [(what, lost) for what, _, lost in told] == [
            ("begins", False),
            ("begins", False),
            ("ends", False),
            ("ends", True),
        ]
        assert told[0][1] == told[3][1] < told[1][1] == told[2][1]
        assert (inner.clock.datetime - NEW_YEAR).total_seconds() == 46
        assert queue.counts()["low"].working == 0
        assert inner.drain() == {}


@pytest.mark.parametrize("way", ["drain", "adrain"])
def test_inside_of_a_coroutine_too(way: str) -> None:
    queue, told = JobQueue(namespace="kit"), list[bool]()

    @queue.job(name="slow")
    async def slow(ctx: Context) -> None:
        if ctx.record.recoveries == 0:
            with pytest.raises(TestingError, match=r"use `await t\.apause_runner"):
                inner.pause_runner()
            await inner.apause_runner()
        told.append(ctx.lease_lost)

    @queue.job(name="other")
    def other() -> None:
        told.append(False)

    with queue.testing() as inner:
        slow.enqueue()
        other.enqueue()
        counts = inner.drain() if way == "drain" else asyncio.run(inner.adrain())

        assert counts == {"done": 2, "late": 1}
        assert told == [False, False, True]


def test_a_job_that_stops_every_runner_ends_in_the_dead_place() -> None:
    """A fake that pauses at every call does not go on for ever."""
    queue = JobQueue(namespace="kit")

    @queue.job(name="slow")
    def slow() -> None:
        inner.pause_runner()

    with queue.testing() as inner:
        slow.enqueue()

        assert inner.run_until_idle() == {"late": 5}
        assert [record.name for record in inner.dead()] == ["slow"]


def test_run_one_tells_the_outcome_of_the_zombie() -> None:
    queue, told = JobQueue(namespace="kit"), Told()
    enqueue = declared(queue, told, lambda: inner.pause_runner())

    with queue.testing() as inner:
        enqueue()

        assert inner.run_one().outcome == "late"


# ------------------------------------------------------------------------------------------------ a server out of reach


def test_nothing_reaches_a_server_that_is_cut(t: Testing) -> None:
    with t.cut_server():
        with pytest.raises(NotApplied, match="cannot be reached") as caught:
            mail.enqueue("a")
        with pytest.raises(NotApplied):
            jobs.counts()
        with pytest.raises(NotApplied), jobs.lock("nightly", ttl=60):
            pass
        assert t.enqueued() == []

    jobs.enqueue_records(caught.value.records)
    assert t.drain() == {"done": 1}


async def test_nor_in_asynchronous_tests(t: Testing) -> None:
    with t.cut_server():
        with pytest.raises(NotApplied):
            await mail.aenqueue("a")
        with pytest.raises(NotApplied):
            await jobs.acounts()

    await mail.aenqueue("b")
    assert [record.payload for record in t.enqueued()] == [b'{"to":"b"}']


def test_a_number_of_calls(t: Testing) -> None:
    t.cut_server(2)

    for _ in range(2):
        with pytest.raises(NotApplied):
            mail.enqueue("a")
    mail.enqueue("b")
    assert t.drain() == {"done": 1}


@pytest.mark.parametrize("times", [1, 7])
def test_a_runner_asks_again_and_time_stands_still(t: Testing, times: int) -> None:
    for number in range(5):
        urgent.enqueue(number)
    t.cut_server(times)

    assert t.drain() == {"done": 5}
    assert seen == [("urgent", number) for number in range(5)]
    assert t.clock.datetime == NEW_YEAR


def test_a_result_that_cannot_be_stored_is_sent_until_it_is(t: Testing) -> None:
    queue = JobQueue(namespace="kit")
    runs = []

    @queue.job(name="works")
    def works() -> None:
        runs.append(1)
        inner.cut_server(5)

    with queue.testing() as inner:
        works.enqueue()

        assert inner.drain() == {"done": 1}
        assert runs == [1]


def test_jobs_cannot_be_run_under_a_cut_without_end(t: Testing) -> None:
    mail.enqueue("a")

    with t.cut_server(), pytest.raises(TestingError, match="it would wait for ever"):
        t.drain()

    assert t.drain() == {"done": 1}


def test_a_cut_ends_with_its_block(t: Testing) -> None:
    with pytest.raises(ZeroDivisionError), t.cut_server(50):
        raise ZeroDivisionError

    mail.enqueue("a")


@pytest.mark.parametrize("times", [0, -1, 101])
def test_so_many_calls_are_refused(t: Testing, times: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 100"):
        t.cut_server(times)
