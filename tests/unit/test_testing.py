"""Running jobs in a testing block."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobqueue import Context, JobQueue, JobQueueError, LockTaken, PayloadError, Snooze
from jobqueue.testing import Testing, TestingError
from tests.unit.kit_jobs import (
    NEW_YEAR,
    Broken,
    Resize,
    add,
    again,
    broken,
    circle,
    endless,
    flaky,
    jobs,
    mail,
    seen,
    urgent,
)

# --------------------------------------------------------------------------------------------------------------- drain


def test_a_delayed_job_runs_when_its_time_has_come_and_no_earlier(t: Testing) -> None:
    mail.opts(delay=3600).enqueue("a@example.org")
    t.assert_enqueued(mail, to="a@example.org")

    assert t.drain() == {}
    t.clock.advance(hours=1, milliseconds=-1)
    assert t.drain() == {}
    t.clock.advance(milliseconds=1)
    assert t.drain() == {"done": 1}
    assert seen == [("mail", "a@example.org")]
    assert t.drain() == {}


def test_all_shapes_run(t: Testing) -> None:
    mail.enqueue("a")
    add.enqueue(1)
    jobs.enqueue(Resize("x.png"))

    assert t.drain() == {"done": 3}
    assert sorted(entry[0] for entry in seen) == ["add", "mail", "resize"]


def test_jobs_of_a_queue_run_in_the_order_of_enqueueing(t: Testing) -> None:
    for number in range(20):
        mail.enqueue(str(number))

    t.drain()

    assert seen == [("mail", str(number)) for number in range(20)]


def test_what_became_due_meanwhile_runs_in_the_order_of_its_time(t: Testing) -> None:
    for minutes in (5, 1, 4, 2, 3):
        mail.opts(delay=60 * minutes).enqueue(f"after {minutes}")
    mail.opts(at=NEW_YEAR + timedelta(seconds=90)).enqueue("after 1½")
    mail.enqueue("now")
    flaky.opts(delay=30).enqueue(2)  # fails when it runs, at the end, and is due an hour later

    t.clock.advance(minutes=4)
    assert t.drain(reraise=False) == {"done": 6, "retried": 1}

    assert [entry[1] for entry in seen if entry[0] == "mail"] == [
        "now", "after 1", "after 1½", "after 2", "after 3", "after 4",
    ]  # fmt: skip
    assert seen.index(("flaky", 1)) == 1, "due after 30 seconds, it comes behind what was ready at once"
    seen.clear()
    t.clock.advance(hours=2)
    assert t.drain() == {"done": 2}
    assert seen == [("mail", "after 5"), ("flaky", 2)]


def test_queues_share_by_weight_and_none_starves(t: Testing) -> None:
    for number in range(30):
        urgent.enqueue(number)
        mail.enqueue(str(number))

    t.drain()

    kinds = [entry[0] for entry in seen]
    assert kinds[:6].count("urgent") == 4  # high has twice the weight
    assert kinds[:30].count("mail") == 10


def test_drain_runs_what_is_enqueued_on_the_way_in_queues_unheard_of(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="first")
    def first() -> None:
        second.opts(queue="unheard.of").enqueue()

    @queue.job(name="second")
    def second() -> None:
        seen.append("second")

    with queue.testing() as inner:
        first.enqueue()

        assert inner.drain() == {"done": 2}
    assert seen == ["second"]


def test_the_clock_stands_still_while_jobs_run(t: Testing) -> None:
    broken.enqueue(1)
    mail.opts(delay=0.001).enqueue("a")

    t.drain(reraise=False)

    assert t.clock.datetime == NEW_YEAR
    assert seen == [("broken", 1)]


def test_a_failure_is_raised_as_the_very_object_once_the_attempt_is_stored(t: Testing) -> None:
    queue = JobQueue(namespace="kit")
    error = Broken("mine")

    @queue.job(name="fails")
    def fails() -> None:
        raise error

    with queue.testing() as inner:
        fails.enqueue()
        fails.enqueue()

        with pytest.raises(Broken) as caught:
            inner.drain()

        assert caught.value is error
        retried, untouched = sorted(inner.enqueued(), key=lambda record: -record.attempt)
        assert (retried.attempt, retried.place, retried.due) == (1, "waiting", NEW_YEAR + timedelta(minutes=2))
        assert (untouched.attempt, untouched.place) == (0, "ready")
        assert queue.counts()["low"].working == 0


class Thing:
    """Something that a job holds while it runs."""


@pytest.mark.parametrize("way", ["drain", "drain and count", "run_one", "run_until_idle"])
@pytest.mark.parametrize("shape", ["function", "coroutine"])
def test_what_a_failed_job_held_is_let_go_at_once(t: Testing, way: str, shape: str) -> None:
    queue = JobQueue(namespace="kit")
    things: list[weakref.ref[Thing]] = []

    def work(ctx: Context) -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise Broken(ctx.attempt)

    @queue.job(name="function", retry=0)
    def function(ctx: Context) -> None:
        work(ctx)

    @queue.job(name="coroutine", retry=0)
    async def coroutine(ctx: Context) -> None:
        work(ctx)

    gc.disable()
    try:
        with queue.testing() as inner:
            (function if shape == "function" else coroutine).enqueue()
            if way == "drain and count":
                inner.drain(reraise=False)
            elif way == "run_until_idle":
                inner.run_until_idle()
            else:
                with contextlib.suppress(Broken):
                    inner.drain() if way == "drain" else inner.run_one()

            assert [thing() for thing in things] == [None]
    finally:
        gc.enable()


def test_the_cause_of_a_failure_survives(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="fails")
    def fails() -> None:
        raise Broken from KeyError("cause")

    with queue.testing() as inner:
        fails.enqueue()
        with pytest.raises(Broken) as caught:
            inner.drain()

    assert isinstance(caught.value.__cause__, KeyError)


def test_without_reraise_every_ending_is_counted(t: Testing) -> None:
    mail.enqueue("a")
    broken.enqueue(1)
    broken.opts(retry=0).enqueue(2)
    for then in ("snooze", "discard", "retry"):
        again.enqueue(then)

    assert t.drain(reraise=False) == {"done": 1, "retried": 2, "dead": 1, "snoozed": 1, "discarded": 1}


def test_what_a_job_asks_for_is_no_failure(t: Testing) -> None:
    for then in ("snooze", "discard", "retry"):
        again.enqueue(then)

    assert t.drain() == {"retried": 1, "snoozed": 1, "discarded": 1}
    assert sorted((record.due - NEW_YEAR).seconds for record in t.enqueued()) == [30, 60]


def test_a_payload_that_does_not_fit_is_dead_and_raised(t: Testing) -> None:
    other = JobQueue(namespace=jobs.namespace, storage=t._backend.direct, clock=t.clock)

    @other.job(name="mail")
    def earlier(address: str) -> None: ...

    earlier.enqueue("a")

    with pytest.raises(PayloadError, match="not declared; declared: `to`"):
        t.drain()
    assert [record.error for record in t.dead()] != [None]


def test_an_unknown_kind_is_parked_and_dead_after_a_day(t: Testing) -> None:
    other = JobQueue(namespace=jobs.namespace, storage=t._backend.direct, clock=t.clock)

    @other.job(name="foreign")
    def foreign() -> None: ...

    foreign.enqueue()

    assert t.drain() == {"parked": 1}
    t.clock.advance(59)
    assert t.drain() == {}
    counts = t.run_until_idle()
    assert counts["dead"] == 1
    assert timedelta(days=1) <= t.clock.datetime - NEW_YEAR <= timedelta(days=1, hours=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, pytest.fail.Exception("verdict")])
def test_what_ends_the_whole_test_run_is_always_raised(t: Testing, error: Any) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="interrupted")
    def interrupted() -> None:
        raise error

    with queue.testing() as inner:
        interrupted.enqueue()
        with pytest.raises(error if isinstance(error, type) else type(error)):
            inner.drain(reraise=False)


def test_a_job_that_exits_has_failed_and_no_more(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="exits", retry=0)
    def exits() -> None:
        raise SystemExit(3)

    with queue.testing() as inner:
        exits.enqueue()

        assert inner.drain(reraise=False) == {"dead": 1}


def test_a_circle_ends_with_an_error_that_names_it(t: Testing) -> None:
    circle.enqueue()
    mail.enqueue("a")

    with pytest.raises(TestingError, match=r"after 50 runs \(49 of 'circle', 1 of 'mail'\), .*limit="):
        t.drain(limit=50)
    assert len(seen) == 50
    t.assert_enqueued(circle)
    assert jobs.counts()["low"].working == 0


def test_the_limit_is_no_error_when_nothing_is_left(t: Testing) -> None:
    for number in range(5):
        mail.enqueue(str(number))

    assert t.drain(limit=5) == {"done": 5}


def test_payloads_make_the_journey_through_json(t: Testing) -> None:
    with pytest.raises(PayloadError, match="argument `to`: Expected `str`, got `object`"):
        mail.enqueue(object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert t.enqueued() == []

    given: list[Any] = []
    queue = JobQueue(namespace="kit")

    @queue.job(name="take")
    def take(numbers: list[int]) -> None:
        given.append(numbers)

    with queue.testing() as inner:
        numbers = [1, 2]
        take.enqueue(numbers)
        numbers.append(3)
        inner.drain()

    assert given == [[1, 2]]
    assert given[0] is not numbers


def test_a_job_may_advance_the_clock_and_keeps_its_lease(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="slow")
    def slow(ctx: Context) -> bool:
        inner.clock.advance(hours=1)
        return ctx.lease_lost

    with queue.testing() as inner:
        slow.enqueue()
        slow.enqueue()

        assert inner.run_one().result is False
        assert inner.drain() == {"done": 1}
    assert inner.clock.datetime == NEW_YEAR + timedelta(hours=2)


def test_coroutine_jobs_of_one_block_share_an_event_loop(t: Testing) -> None:
    import asyncio

    queue = JobQueue(namespace="kit")
    loops: list[Any] = []

    @queue.job(name="where")
    async def where() -> None:
        loops.append(asyncio.get_running_loop())

    with queue.testing() as inner:
        for _ in range(2):
            where.enqueue()
        inner.drain()
        where.enqueue()
        inner.drain()

    assert len(set(map(id, loops))) == 1
    assert loops[0].is_closed()


# ------------------------------------------------------------------------------------------------------------- run_one


def test_run_one_runs_one_job_and_answers_what_became_of_it(t: Testing) -> None:
    first, second = mail.enqueue("a"), mail.enqueue("b")

    run = t.run_one()

    assert (run.outcome, run.result, run.error) == ("done", "hello, a", None)
    assert run.record.id == first.id
    assert [record.id for record in t.enqueued()] == [second.id]
    assert jobs.counts()["low"].working == 0


def test_run_one_answers_what_a_coroutine_and_a_class_return(t: Testing) -> None:
    add.enqueue(2, 3)
    assert t.run_one().result == 5
    jobs.enqueue(Resize("x.png", 7))
    assert t.run_one().result == 7


def test_run_one_takes_the_heaviest_queue_first(t: Testing) -> None:
    mail.enqueue("a")
    urgent.enqueue(1)
    urgent.enqueue(2)

    assert [t.run_one().record.name for _ in range(3)] == ["urgent", "urgent", "mail"]


def test_run_one_raises_or_tells(t: Testing) -> None:
    broken.enqueue(1)
    broken.enqueue(2)

    with pytest.raises(Broken):
        t.run_one()
    assert sorted(record.attempt for record in t.enqueued()) == [0, 1]
    run = t.run_one(reraise=False)

    assert (run.outcome, run.result) == ("retried", None)
    assert isinstance(run.error, Broken)


@pytest.mark.parametrize(("then", "outcome"), [("snooze", "snoozed"), ("discard", "discarded"), ("retry", "retried")])
def test_run_one_tells_what_a_job_asked_for(t: Testing, then: str, outcome: str) -> None:
    again.enqueue(then)

    run = t.run_one()

    assert (run.outcome, run.result) == (outcome, None)
    assert run.error is not None


def test_run_one_with_nothing_due_says_when_something_is(t: Testing) -> None:
    with pytest.raises(TestingError, match="no job is due; nothing is enqueued"):
        t.run_one()
    mail.opts(delay=90).enqueue("a")
    with pytest.raises(TestingError, match=r"the next one is in 0:01:30: jump\(\)"):
        t.run_one()


# ---------------------------------------------------------------------------------------------------------------- time


def test_jump_goes_to_the_next_due_moment_and_no_further(t: Testing) -> None:
    mail.opts(delay=90).enqueue("a")
    urgent.opts(delay=30.5).enqueue(1)

    assert t.jump() == timedelta(seconds=30.5)
    assert t.drain() == {"done": 1}
    assert seen == [("urgent", 1)]
    assert t.jump() == timedelta(seconds=59.5)
    assert t.drain() == {"done": 1}
    assert t.clock.datetime == NEW_YEAR + timedelta(seconds=90)


def test_jump_passes_over_what_is_due_already(t: Testing) -> None:
    mail.enqueue("a")
    mail.opts(delay=1).enqueue("b")
    mail.opts(delay=60).enqueue("c")
    t.clock.advance(5)

    assert t.jump() == timedelta(seconds=55)


def test_jump_with_nowhere_to_go_is_an_error(t: Testing) -> None:
    with pytest.raises(TestingError, match="nothing is enqueued"):
        t.jump()
    mail.enqueue("a")
    with pytest.raises(TestingError, match=r"1 are due now: drain\(\) runs them"):
        t.jump()
    assert t.clock.datetime == NEW_YEAR


def test_run_until_idle_sums_up(t: Testing) -> None:
    flaky.enqueue(3)
    mail.opts(delay=60).enqueue("a")

    assert t.run_until_idle() == {"done": 2, "retried": 2}
    assert seen == [("flaky", 1), ("mail", "a"), ("flaky", 2), ("flaky", 3)]
    assert t.clock.datetime == NEW_YEAR + timedelta(hours=1 + 2)
    assert t.enqueued() == []


def test_run_until_idle_leaves_the_dead(t: Testing) -> None:
    broken.enqueue(1)

    assert t.run_until_idle() == {"retried": 2, "dead": 1}
    assert [record.attempt for record in t.dead()] == [3]


def test_run_until_idle_raises_if_it_is_asked_to(t: Testing) -> None:
    flaky.enqueue(2)
    mail.opts(delay=1).enqueue("a")

    with pytest.raises(Broken):
        t.run_until_idle(reraise=True)
    assert t.clock.datetime == NEW_YEAR
    assert len(t.enqueued()) == 2


def test_run_until_idle_ends_although_a_job_does_not(t: Testing) -> None:
    endless.enqueue()

    with pytest.raises(TestingError, match="after 100 runs"):
        t.run_until_idle(limit=100)


def test_the_retries_of_thirty_days_wait_for_nothing(t: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", pytest.fail)
    endless.enqueue()
    runs = 0

    while t.clock.datetime < NEW_YEAR + timedelta(days=30):
        assert t.drain(reraise=False) == {"retried": 1}
        runs += 1
        t.jump()

    # 2 + 4 + … + 1024 minutes for the first ten, then one every 1024 minutes
    assert runs == 51


def test_the_default_retries_are_those_of_production(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="fails")
    def fails() -> None:
        raise Broken

    with queue.testing() as inner:
        fails.enqueue()
        waits = []
        while inner.drain(reraise=False) == {"retried": 1}:
            waits.append(inner.jump() // timedelta(minutes=1))

    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]


def test_locks_live_by_the_same_clock(t: Testing) -> None:
    with jobs.lock("nightly", ttl=60) as lease:
        with pytest.raises(LockTaken), jobs.lock("nightly", ttl=60):
            pass
        assert not lease.lost
        t.clock.advance(60)
        assert lease.lost
        with jobs.lock("nightly", ttl=60) as next_lease:
            assert next_lease.fence > lease.fence


def test_the_dead_are_kept_for_180_days(t: Testing) -> None:
    broken.opts(retry=0).enqueue(1)
    t.drain(reraise=False)
    t.clock.advance(days=179)
    t.drain()
    assert len(t.dead()) == 1
    t.clock.advance(days=2)
    t.drain()
    assert t.dead() == []


# ----------------------------------------------------------------------------------------------------------- the block


def test_no_url_is_needed_and_nothing_else_is_touched() -> None:
    queue = JobQueue("redis://127.0.0.1:1/0", namespace="kit")

    with queue.testing() as t:
        assert queue.counts() == {}
        assert t.drain() == {}


def test_the_block_starts_where_it_is_told() -> None:
    start = datetime(2024, 2, 29, tzinfo=UTC)

    with jobs.testing(start=start) as t:
        assert t.clock.datetime == start
        assert mail.enqueue("a").created == start


def test_two_blocks_make_the_same_ids() -> None:
    ids = []
    for _ in range(2):
        with jobs.testing():
            ids.append([mail.enqueue("a").id for _ in range(3)])

    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_blocks_stack_and_each_is_empty(t: Testing) -> None:
    outer = mail.enqueue("outer")

    with jobs.testing() as inner:
        assert jobs.counts() == {}
        assert mail.enqueue("inner").id != outer.id
        assert jobs.get(outer.id) is None
        assert [jobs.decode(record).arguments for record in inner.enqueued()] == [{"to": "inner"}]
        with pytest.raises(TestingError, match="another one inside of it is open"):
            t.drain()
        t.assert_enqueued(mail, to="outer")

    assert jobs.get(outer.id) == outer
    assert t.drain() == {"done": 1}


def test_the_swap_is_undone_by_an_error_too() -> None:
    with pytest.raises(Broken), jobs.testing():
        raise Broken

    with pytest.raises(JobQueueError, match="has no URL"):
        jobs.counts()


def test_a_block_that_has_ended_runs_nothing() -> None:
    with jobs.testing() as t:
        mail.enqueue("a")

    for call in (t.drain, t.run_one, t.jump, t.run_until_idle, t.crash_runner, t.lose_reply):
        with pytest.raises(TestingError, match="has ended"):
            call()


def test_the_swap_is_seen_by_all_threads(t: Testing) -> None:
    with ThreadPoolExecutor(1) as pool:
        record = pool.submit(mail.enqueue, "a").result()

        assert pool.submit(jobs.get, record.id).result() == record
        t.assert_enqueued(mail, to="a")
        assert pool.submit(t.drain).result() == {"done": 1}


def test_a_second_thread_cannot_open_a_block_of_its_own(t: Testing) -> None:
    def enter() -> None:
        with jobs.testing():
            pass

    with ThreadPoolExecutor(1) as pool, pytest.raises(JobQueueError, match="another thread"):
        pool.submit(enter).result()

    mail.enqueue("a")
    assert t.drain() == {"done": 1}


def test_after_the_block_another_thread_can(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    def enter() -> dict[str, Any]:
        with queue.testing():
            return dict(queue.counts())

    with queue.testing():
        pass
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() == {}


def test_storage_is_looked_up_at_each_call() -> None:
    bound, call, lock = mail.opts(delay=5), mail.call("a"), jobs.lock("name", ttl=5)

    with jobs.testing() as t:
        bound.enqueue("b")
        jobs.enqueue(call)
        with lock:
            pass
        assert len(t.enqueued(mail)) == 2
    with jobs.testing() as t:
        assert t.enqueued() == []
        bound.enqueue("b")
        assert len(t.enqueued(mail)) == 1


def test_jobs_cannot_run_jobs(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="recursive")
    def recursive() -> None:
        inner.drain()

    with queue.testing() as inner:
        recursive.enqueue()
        with pytest.raises(TestingError, match="already"):
            inner.drain()


def test_a_failed_drain_can_be_followed_by_another(t: Testing) -> None:
    broken.enqueue(1)
    mail.enqueue("a")

    with pytest.raises(Broken):
        t.drain()
    assert t.drain() == {"done": 1}


def test_snoozed_jobs_come_back(t: Testing) -> None:
    queue = JobQueue(namespace="kit")
    times: list[datetime] = []

    @queue.job(name="sleepy")
    def sleepy() -> Snooze | None:
        times.append(inner.clock.datetime)
        return Snooze(60) if len(times) < 3 else None

    with queue.testing() as inner:
        sleepy.opts(retry=0).enqueue()

        assert inner.run_until_idle() == {"snoozed": 2, "done": 1}
    assert times == [NEW_YEAR + timedelta(minutes=minute) for minute in range(3)]


def test_the_kit_loads_neither_a_client_nor_a_test_framework() -> None:
    code = """
import sys
from jobqueue import JobQueue
jobs = JobQueue()
@jobs.job(name="add")
def add(a: int) -> int: return a + 1
with jobs.testing() as t:
    add.enqueue(1)
    assert t.run_one().result == 2
print([name for name in ("redis", "pytest", "hypothesis", "click", "rich") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.stdout, ended.stderr) == ("[]\n", "")
