"""`check_job` stands on the queue's own rules: what a crash and a pause do to a job, and that nothing leaks out of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import attrs
import pytest

from jobqueue import Context, Job, JobQueue, UnknownJob
from jobqueue.testing import TestingError, check_job
from tests.faults.ledger import await_that
from tests.unit import shop
from tests.unit.shop import Shop, check

# --------------------------------------------------------------------------------------------------- the queue's rules

runs: list[list[tuple[Any, ...]]] = []
"""What `reports` was told in its runs, by history."""


@shop.jobs.job
def reports(ctx: Context) -> None:
    record = ctx.record
    runs[-1].append((record.id, ctx.attempt, record.recoveries, ctx.fence, ctx.lease_lost))
    shop.shop.mail("a")
    runs[-1].append(("end of", ctx.fence))


class Reporting(Shop):
    def __init__(self) -> None:
        super().__init__()
        runs.append([])


@pytest.fixture
def told() -> Iterator[list[list[tuple[Any, ...]]]]:
    runs.clear()
    report = check(reports.call(), world=Reporting, state=lambda made: "a" in made.mails)
    assert (report.ok, report.histories) == (True, 42)
    yield runs
    runs.clear()


def test_a_crash_is_no_attempt_and_the_fence_grows(told: list[list[tuple[Any, ...]]]) -> None:
    [first_clean, second_clean, at_its_start, before, after, redelivered, lost_reply, *_] = told

    [(id, *start), end] = first_clean
    assert (start[:2], start[3]) == ([1, 0], False)
    assert second_clean == lost_reply == first_clean
    assert [line[:3] for line in at_its_start[:-1]] == [(id, 1, 1)]
    for crashed, ends in ((before, 0), (after, 0), (redelivered, 1)):
        first, *ended, second, _ = crashed
        assert (first, ended) == ((id, *start), [end] * ends)
        assert second[:3] == (id, 1, 1)  # the same job in its first attempt, once recovered
        assert second[3] > first[3]


def test_a_zombie_and_its_successor_have_both_their_turns(told: list[list[tuple[Any, ...]]]) -> None:
    overlaps = told[10:]
    orders = set()
    for history in overlaps:
        fences = sorted({line[3] for line in history if line[0] != "end of"})
        assert len(fences) == 2
        assert not any(line[4] for line in history if line[0] != "end of"), "it has just woken up"
        orders.add(tuple(fences.index(line[1]) for line in history if line[0] == "end of"))
    assert orders == {(0, 1), (1, 0)}


log: list[tuple[str, int]] = []


class Logging:
    def __init__(self) -> None:
        log.clear()

    def first(self, fence: int) -> None:
        log.append(("first", fence))

    def second(self, fence: int) -> None:
        log.append(("second", fence))


@shop.jobs.job
def two_steps(ctx: Context) -> None:
    shop.shop.first(ctx.fence)  # type: ignore[attr-defined]
    shop.shop.second(ctx.fence)  # type: ignore[attr-defined]


def test_all_orders_of_the_effects_of_two_runners_happen() -> None:
    seen = set()

    def state(_: Logging) -> set[str]:
        fences = sorted({fence for _, fence in log})
        seen.add(" ".join(f"{name[0]}{fences.index(fence) + 1}" for name, fence in log))
        return {name for name, _ in log}

    assert check(two_steps.call(), "first", "second", world=Logging, state=state).ok

    assert seen == {
        "",  # before the job
        "f1 s1",  # clean, or a crash before the first effect
        "f1 f2 s2",  # a crash after it
        "f1 s1 f2 s2", "f1 f2 s1 s2", "f1 f2 s2 s1", "f2 f1 s1 s2", "f2 f1 s2 s1", "f2 s2 f1 s1",
    }  # fmt: skip


@shop.jobs.job
def locks(ctx: Context) -> None:
    with shop.jobs.lock("shop", ttl=300):
        shop.shop.mail(f"attempt {ctx.attempt}")


def test_locks_and_retries_are_those_of_the_queue() -> None:
    seen: list[list[str]] = []

    def state(made: Shop) -> bool:
        seen.append(list(made.mails))
        return bool(made.mails)

    assert check(locks.call(), state=state).ok

    _, _, _, _, before, after, redelivered, *_ = seen
    # The dead one's lock is held for five minutes: 40 s later it is taken, and 2 minutes after that; 4 more are enough.
    assert before == ["attempt 3"]
    assert after == ["attempt 1", "attempt 3"]
    assert redelivered == ["attempt 1", "attempt 1"]  # it was given back before the runner died


# --------------------------------------------------------------------------------------------------------- dead is dead


def test_a_job_that_catches_everything_does_not_survive_a_crash() -> None:
    seen: list[list[str]] = []

    def state(made: Shop) -> int:
        seen.append(list(made.mails))
        return made.balance

    report = check(shop.swallows_crashes.call(7), state=state)

    assert report.verdict == "duplicates"
    assert "swallowed" not in report.explain()
    assert seen[0] == []  # before the job
    assert seen[1] == seen[2] == ["cleaned up", "sent"]
    # Neither the handlers of the dead run nor its cleaning up happen; those of its successor do.
    assert seen[3] == seen[4] == ["cleaned up", "sent"]


@shop.jobs.job
def enqueues_in_the_end(order: int) -> None:
    try:
        shop.shop.mail("m", key=str(order))
    finally:
        shop.charge.enqueue(order)


def test_a_dead_run_enqueues_nothing() -> None:
    report = check(enqueues_in_the_end.call(7))

    # Of four crashes, four stops, a redelivery and a lost reply, only the redelivery enqueues twice.
    assert (report.verdict, report.histories, report.wrong) == ("duplicates", 10, 1)
    assert "✗ dies before its end is stored" in report.explain()


@shop.jobs.job
def never_gives_up(ctx: Context) -> None:
    while True:
        try:
            return shop.shop.mail("a", key=ctx.record.id)
        except BaseException:  # noqa: BLE001 - the planted fault
            continue


def test_a_job_that_no_death_ends_is_left_standing() -> None:
    assert check(never_gives_up.call()).ok

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if "never_gives_up" in thread.name]

    await_that(lambda: len(left()) == 2, "one for each of the two crashes; all others came to their end")
    assert all(thread.daemon for thread in left())


def test_nothing_else_is_left_behind() -> None:
    before = set(threading.enumerate())
    check(shop.swallows_crashes.call(7))
    check(shop.acharge.call(7))

    await_that(lambda: set(threading.enumerate()) <= before, "all its threads end")
    assert type(shop.shop) is Shop


# ------------------------------------------------------------------------------------------------------------- hanging

gate = threading.Event()


@shop.jobs.job
def waits_for_ever() -> None:
    shop.shop.debit(1)
    gate.wait()


@shop.jobs.job
async def waits_for_ever_too() -> None:
    await asyncio.to_thread(gate.wait)


@pytest.fixture
def gated() -> Iterator[None]:
    gate.clear()
    yield
    gate.set()
    for thread in threading.enumerate():
        if "waits_for_ever" in thread.name or "holds_a_lock" in thread.name:
            thread.join(10)


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize(
    ("job", "where"),
    [
        (waits_for_ever.call(), "after it came to the point 'after debit'"),
        (waits_for_ever_too.call(), "before its first effect"),
    ],
    ids=shop.name_of,
)
def test_a_job_that_hangs_is_an_error_that_says_where(job: Any, where: str) -> None:
    with pytest.raises(TestingError, match=rf"run 1 of job '{job.kind.name}' hangs: 0\.5 s {where}"):
        check(job, patience=0.5)


held = threading.Lock()


@shop.jobs.job
def holds_a_lock(ctx: Context) -> None:
    with held:
        shop.shop.mail("a", key=ctx.record.id)


@pytest.mark.usefixtures("gated")
def test_a_successor_that_waits_for_a_zombie_is_an_error() -> None:
    with pytest.raises(TestingError, match=r"run 2 of job .* hangs: .* before its first effect"):
        check(holds_a_lock.call(), patience=0.5)


# -------------------------------------------------------------------------------------------------------------- worlds


@attrs.frozen
class Frozen:
    mails: list[str] = attrs.field(factory=list)

    def mail(self, to: str, key: str | None = None) -> None:
        self.mails.append(to)


class Mailer:
    def __init__(self) -> None:
        self.mails: list[str] = []

    def send(self, to: str) -> None:
        self.mails.append(to)


class Parts:
    def __init__(self) -> None:
        self.mailer = Mailer()

    def mail(self, to: str) -> None:
        self.mailer.send(to)


@shop.jobs.job
def mails_once() -> None:
    shop.shop.mail("a")


@shop.jobs.job
async def awaits_once() -> None:
    await shop.shop.amail("a")


@pytest.mark.parametrize(
    ("job", "world", "effect", "state"),
    [
        (mails_once.call(), Frozen, "mail", lambda made: made.mails),  # slots, and nothing can be set
        (mails_once.call(), Parts, "mailer.send", lambda made: made.mailer.mails),
        (mails_once.call(), mock.Mock, "mail", lambda made: made.mock_calls),
        (awaits_once.call(), mock.AsyncMock, "amail", lambda made: made.mock_calls),
    ],
    ids=["slots", "parts", "Mock", "AsyncMock"],
)
def test_worlds_of_all_kinds(job: Any, world: Any, effect: str, state: Any) -> None:
    report = check(job, effect, world=world, state=state)

    assert report.verdict == "duplicates", report.explain()
    assert f"{effect}('a') happens twice" in report.explain()


@shop.jobs.job
def mails_an_object() -> None:
    shop.shop.mail(object())  # type: ignore[arg-type]


def test_calls_with_like_objects_are_the_same_call() -> None:
    report = check(mails_an_object.call(), state=lambda made: len(made.mails))

    assert report.verdict == "duplicates"
    assert "mail(<object object>) happens twice" in report.explain()


def test_calls_that_nobody_runs_are_no_effects() -> None:
    assert check(shop.charge.call(7), state=lambda made: made.read()).ok


@shop.jobs.job
async def mails_many(ctx: Context) -> None:
    await asyncio.gather(*(shop.shop.amail(to, key=f"{ctx.record.id} {to}") for to in "ab"))


def test_effects_under_way_at_the_same_time_are_all_points() -> None:
    report = check(mails_many.call(), state=lambda made: sorted(made.mails))

    assert (report.ok, report.histories) == (True, 473)


class Closed(Shop):
    def mail(self, to: str, key: str | None = None) -> None:
        raise shop.Refused("no mails today")


@shop.jobs.job
def goes_on_regardless() -> None:
    with contextlib.suppress(shop.Refused):
        shop.shop.mail("a")
    shop.shop.debit(1)


def test_an_effect_that_raises_is_told_and_is_a_point_too() -> None:
    report = check(goes_on_regardless.call(), world=Closed)

    assert (
        report.histories == 5 + 5 + 2
    )  # crashes and stops at the start, before and after both, redelivery, lost reply
    assert report.explain().count("mail('a') raises Refused: no mails today") == 2


# ----------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_gets_a_clear_error() -> None:
    call = shop.charge.call(7)
    good: dict[str, Any] = {"world": Shop, "use": shop.use, "effects": ["debit"], "state": shop.state}
    wrong: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (call, {"effects": "debit"}, TypeError, r"effects=\['debit'\]"),
        (call, {"world": Shop()}, TypeError, "world is a function"),
        (call, {"use": None}, TypeError, "use is a function"),
        (call, {"use": lambda made: made}, TypeError, "use answers a context manager"),
        (call, {"enqueued": "all"}, ValueError, "one of 'each', 'distinct', 'ignored'"),
        (call, {"limit": 0}, ValueError, "must be positive"),
        (call, {"patience": -1}, ValueError, "must be positive"),
        (call, {"world": functools.cache(Shop)}, TestingError, "an object that it had answered before"),
        (shop.charge, {}, TypeError, r"pass a function's \.call"),
    ]
    for job, changed, error, words in wrong:
        with pytest.raises(error, match=words):
            check_job(job, **{**good, **changed})


def test_the_queue_of_a_job_is_found() -> None:
    first, second = JobQueue(namespace="first"), JobQueue(namespace="second")

    @attrs.frozen
    class Two(Job):
        def perform(self, ctx: Context) -> None:
            shop.shop.mail("a", key=ctx.record.id)

    with pytest.raises(UnknownJob, match="not declared on any JobQueue"):
        check(Two())
    first.register(Two)
    assert check(Two()).ok
    second.register(Two)
    with pytest.raises(TypeError, match="registered on 2 JobQueues"):
        check(Two())
    assert check(second.call_of(Two())).ok


def test_an_error_in_state_says_after_which_history() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        check(shop.double_charge.call(7), state=lambda made: 100 // (made.balance - 80))

    assert caught.value.__notes__ == ["raised by state(…) of check_job, after the history Crash(run=0, point=2)"]


class Judging(Shop):
    def mail(self, to: str, key: str | None = None) -> None:
        pytest.fail("nobody gets a mail here")


def test_the_verdict_of_a_test_framework_comes_through() -> None:
    with pytest.raises(pytest.fail.Exception, match="nobody gets a mail"):
        check(mails_once.call(), world=Judging)


# ----------------------------------------------------------------------------------------------- beside everything else


def test_inside_of_a_testing_block_nothing_of_it_changes() -> None:
    with shop.jobs.testing() as t:
        record = shop.charge.enqueue(1)
        now = t.clock.datetime

        assert check(shop.charge.call(7)).ok

        assert [one.id for one in t.enqueued()] == [record.id]
        assert t.clock.datetime == now


async def test_under_a_running_event_loop() -> None:
    assert check(shop.acharge.call(7)).ok
