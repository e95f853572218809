"""A real `Runner` over memory: shapes of jobs, what they see, how they end, and how it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import attrs
import pytest

from jobqueue import (
    Context,
    Discard,
    Job,
    JobQueue,
    RetryPolicy,
    Runner,
    Snooze,
    current_context,
)
from jobqueue.keys import queue_keys
from jobqueue.looking import Counts
from jobqueue.storage.ops import Batch, Move, These
from tests.faults.ledger import await_that
from tests.runner.running import drained, run_until_drained, running, start

QUICK = RetryPolicy(limit=3, backoff=lambda _: 0.1)


# ------------------------------------------------------------------------------------------------------ shapes of jobs


def test_functions_coroutines_and_classes(jobs: JobQueue) -> None:
    seen: list[Any] = []

    @jobs.job(name="function")
    def function(word: str, times: int = 2) -> None:
        seen.append((word * times, threading.current_thread().name))

    @jobs.job(name="coroutine")
    async def coroutine(ctx: Context, word: str) -> None:
        await asyncio.sleep(0)
        seen.append((ctx.record.name, word))

    @jobs.register
    @attrs.frozen
    class Thing(Job, name="thing"):
        word: str

        def perform(self, ctx: Context) -> None:
            seen.append((self, ctx.attempt))

    @jobs.register
    @attrs.frozen
    class Later(Job, name="later"):
        word: str

        async def perform(self, ctx: Context) -> None:
            await asyncio.sleep(0)
            seen.append(self)

    function.enqueue("a")
    coroutine.enqueue("b")
    jobs.enqueue(Thing("c"))
    jobs.enqueue(Later("d"))
    runner = run_until_drained(jobs)

    assert len(seen) == 4
    assert any(entry[0] == "aa" and entry[1].startswith("jobqueue-") for entry in seen if isinstance(entry, tuple))
    assert ("coroutine", "b") in seen
    assert (Thing("c"), 1) in seen
    assert Later("d") in seen
    assert runner.status.done == runner.status.executed == 4


async def test_on_the_callers_loop(jobs: JobQueue) -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    threads: list[str] = []
    ended = asyncio.Event()

    @jobs.job(name="coroutine")
    async def coroutine() -> None:
        loops.append(asyncio.get_running_loop())
        ended.set()

    @jobs.job(name="function")
    def function() -> None:
        threads.append(threading.current_thread().name)

    await function.aenqueue()
    await coroutine.aenqueue()
    runner = Runner(jobs, threads=1, lease=0.6)
    task = asyncio.create_task(runner.arun())
    await asyncio.wait_for(ended.wait(), 10)
    runner.stop()
    await asyncio.wait_for(task, 10)
    await jobs.aclose()

    assert loops == [asyncio.get_running_loop()]
    assert threads != [threading.current_thread().name]
    assert runner.status.done == 2


async def test_cancelling_arun_stops_it_and_hands_back(jobs: JobQueue) -> None:
    begun = asyncio.Event()

    @jobs.job(name="slow")
    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    record = await slow.aenqueue()
    task = asyncio.create_task(Runner(jobs, lease=0.6, grace=0).arun())
    await asyncio.wait_for(begun.wait(), 10)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)

    again = await jobs.aget(record.id)
    await jobs.aclose()
    assert again is not None
    assert (again.place, again.attempt, again.recoveries) == ("ready", 0, 0)


@pytest.mark.parametrize("retry", [0, 3])
def test_the_end_of_the_callers_loop_is_no_failure(jobs: JobQueue, retry: int) -> None:
    """The loop cancels all that is on it, in any order: the runner is not the first to know."""

    @jobs.job(name="slow", retry=retry)
    async def slow() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        running = asyncio.create_task(Runner(jobs, lease=0.6, grace=0).arun())
        await asyncio.wait_for(begun.wait(), 10)
        assert not running.done()

    begun = asyncio.Event()
    record = slow.enqueue()
    asyncio.run(main())

    again = jobs.get(record.id)
    assert again is not None
    assert (again.place, again.attempt, again.recoveries) == ("ready", 0, 0)


# ---------------------------------------------------------------------------------------------------- what a job sees


def test_what_a_job_sees_of_itself(jobs: JobQueue) -> None:
    seen: list[tuple[int, int, bool, bool, str]] = []
    contexts: list[bool] = []

    @jobs.job(name="curious", retry=QUICK)
    def curious(ctx: Context) -> None:
        contexts.append(current_context() is ctx)
        seen.append((ctx.attempt, ctx.fence, ctx.lease_lost, ctx.cancelled, ctx.record.id))
        if ctx.attempt < 3:
            raise ValueError("again")

    record = curious.enqueue()
    run_until_drained(jobs)

    assert [entry[0] for entry in seen] == [1, 2, 3]
    fences = [entry[1] for entry in seen]
    assert fences == sorted(set(fences)), "they grow"
    assert {entry[2:] for entry in seen} == {(False, False, record.id)}
    assert contexts == [True] * 3


def test_what_a_job_sets_is_not_seen_by_the_next(jobs: JobQueue) -> None:
    seen: list[str] = []
    variable = ContextVar("variable", default="unset")

    @jobs.job(name="work")
    def work(number: int) -> None:
        seen.append(variable.get())
        variable.set(f"set by {number}")

    jobs.enqueue_many([work.call(number) for number in range(3)])
    run_until_drained(jobs, threads=1)
    assert seen == ["unset"] * 3


def test_a_retry_really_waits(jobs: JobQueue) -> None:
    starts: list[float] = []

    @jobs.job(name="failing", retry=QUICK)
    def failing() -> None:
        starts.append(time.monotonic())
        raise ValueError("no")

    record = failing.enqueue()
    runner = run_until_drained(jobs)

    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert len(pauses) == 3
    assert all(0.099 <= pause < 5 for pause in pauses), pauses
    [dead] = jobs.dead()
    assert (dead.id, dead.attempt) == (record.id, 4)
    assert (runner.status.failed, runner.status.retried, runner.status.dead) == (4, 3, 1)


# --------------------------------------------------------------------------------------------------- how a job can end


class Hard(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Hard("x")])
@pytest.mark.parametrize("shape", ["function", "coroutine"])
def test_whatever_a_job_raises_ends_its_run_and_not_the_runner(
    jobs: JobQueue, shape: str, error: BaseException
) -> None:
    done: list[int] = []

    @jobs.job(name="function", retry=0)
    def function() -> None:
        raise error

    @jobs.job(name="coroutine", retry=0)
    async def coroutine() -> None:
        raise error

    @jobs.job(name="after")
    def after() -> None:
        done.append(1)

    record = (function if shape == "function" else coroutine).enqueue()
    after.enqueue()
    run_until_drained(jobs, threads=1)

    assert done == [1]
    dead = jobs.get(record.id)
    assert dead is not None
    assert dead.place == "dead"
    assert (dead.error or "").split("\n")[0].split(":")[0].endswith(type(error).__name__)


def test_a_task_that_exits_ends_no_other_coroutine(jobs: JobQueue) -> None:
    """asyncio lets a `SystemExit` of any task out of the loop."""
    left: list[str] = []

    twice = threading.Barrier(2)

    async def leave() -> None:
        left.append("exits")
        if len(left) == 2:
            twice.wait(20)
        raise SystemExit(3)

    @jobs.job(name="exits", retry=RetryPolicy(limit=1, backoff=lambda _: 0))
    async def exits() -> None:
        await asyncio.gather(leave())

    @jobs.job(name="stays")
    async def stays() -> None:
        await asyncio.to_thread(twice.wait, 20)
        left.append("stays")

    stays.enqueue()
    exits.enqueue()
    runner = run_until_drained(jobs)

    [dead] = jobs.dead()
    assert (dead.name, dead.attempt, (dead.error or "").split("\n")[0]) == ("exits", 2, "SystemExit: 3")
    assert left == ["exits", "exits", "stays"]
    assert (runner.status.done, runner.status.released) == (1, 0)


def test_a_coroutine_that_was_cancelled_by_itself_has_failed(jobs: JobQueue) -> None:
    @jobs.job(name="coroutine", retry=0)
    async def coroutine() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    coroutine.enqueue()
    run_until_drained(jobs)
    assert jobs.counts()["low"] == Counts(0, 0, 0, 1)


@pytest.mark.parametrize("shape", ["sync", "async"])
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), Hard("x")])
def test_a_class_that_cannot_be_made_is_a_failure_of_its_job(jobs: JobQueue, shape: str, error: BaseException) -> None:
    """Its own code runs before its job does: it must neither end a thread nor count as done."""
    armed = False

    @jobs.register
    @attrs.frozen
    class Sync(Job, name="sync", retry=0):
        number: int

        def __attrs_post_init__(self) -> None:
            if armed:
                raise error

        def perform(self, ctx: Context) -> None: ...

    @jobs.register
    @attrs.frozen
    class Async(Job, name="async", retry=0):
        number: int

        def __attrs_post_init__(self) -> None:
            if armed:
                raise error

        async def perform(self, ctx: Context) -> None: ...

    ran: list[int] = []

    @jobs.job(name="after")
    def after() -> None:
        ran.append(1)

    jobs.enqueue(Sync(1) if shape == "sync" else Async(1))
    after.enqueue()
    armed = True
    run_until_drained(jobs, threads=1)

    assert ran == [1]
    assert jobs.counts()["low"].dead == 1


@pytest.mark.parametrize("answer", [-1, float("nan"), "soon", None])
def test_a_backoff_that_fails_is_replaced_by_the_default(jobs: JobQueue, answer: Any) -> None:
    def backoff(_: int) -> float:
        if answer is None:
            raise ZeroDivisionError("my mistake")
        return answer  # type: ignore[no-any-return]

    @jobs.job(name="failing", retry=RetryPolicy(backoff=backoff))
    def failing() -> None:
        raise ValueError("no")

    record = failing.enqueue()
    with running(jobs) as runner:
        await_that(lambda: runner.status.retried, "it failed once")
    waiting = jobs.get(record.id)
    assert waiting is not None
    assert waiting.place == "waiting"
    assert 100 < (waiting.due - waiting.created).total_seconds() < 140
    assert "backoff" in (waiting.error or "")


def test_snooze_and_discard(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    runs: Counter[str] = Counter()

    @jobs.job(name="sleepy", retry=0)
    def sleepy() -> Snooze | None:
        runs["sleepy"] += 1
        return Snooze(0.05) if runs["sleepy"] < 3 else None

    @jobs.job(name="useless")
    async def useless() -> None:
        runs["useless"] += 1
        raise Discard("no use")

    sleepy.enqueue()
    useless.enqueue()
    with caplog.at_level(logging.INFO):
        runner = run_until_drained(jobs)
    assert runs == {"sleepy": 3, "useless": 1}
    assert any(line.endswith(" asked to be discarded: no use") for line in caplog.messages)
    assert (runner.status.snoozed, runner.status.discarded, runner.status.failed) == (2, 1, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_job_may_fork(jobs: JobQueue) -> None:
    ended: list[int] = []

    @jobs.job(name="forking")
    def forking() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    for _ in range(5):
        forking.enqueue()
    run_until_drained(jobs)
    assert ended == [7] * 5


# -------------------------------------------------------------------------------------------------------------- sharing


def test_two_runners_share_a_queue_without_doubles(jobs: JobQueue) -> None:
    runs: Counter[int] = Counter()

    @jobs.job(name="work")
    def work(number: int) -> None:
        runs[number] += 1

    jobs.enqueue_many([work.call(number) for number in range(2_000)])
    first, second = start(jobs), start(jobs)
    await_that(drained(jobs), "all jobs ended")
    first.stop()
    second.stop()
    assert runs == dict.fromkeys(range(2_000), 1)
    assert first.runner.status.done + second.runner.status.done == 2_000


def test_a_coroutine_that_blocks_its_loop_does_not_keep_its_neighbours(jobs: JobQueue) -> None:
    gate, blocked = threading.Event(), threading.Event()
    others: Counter[int] = Counter()

    @jobs.job(name="rude")
    async def rude() -> None:
        blocked.set()
        gate.wait(30)

    @jobs.job(name="kind")
    async def kind(number: int) -> None:
        others[number] += 1

    rude.enqueue()
    first = start(jobs, coroutines=50)
    assert blocked.wait(10)
    jobs.enqueue_many([kind.call(number) for number in range(30)])
    second = start(jobs, coroutines=50)
    await_that(lambda: len(others) == 30, "the other runner runs them")
    assert others == dict.fromkeys(range(30), 1)
    gate.set()
    first.stop()
    second.stop()
    assert jobs.counts()["low"] == Counts(0, 0, 0, 0)


def test_a_delayed_job_does_not_start_before_it_is_due(jobs: JobQueue) -> None:
    """That it does not wait for the next look of an idle runner either: `test_notifications`."""
    started: list[float] = []

    @jobs.job(name="work")
    def work() -> None:
        started.append(time.time())

    with running(jobs):
        record = work.opts(delay=0.3).enqueue()
        await_that(lambda: started, "it ran")
    assert started[0] >= record.due.timestamp()


def test_every_queue_that_the_storage_knows_is_served(jobs: JobQueue) -> None:
    ran: list[str] = []

    @jobs.job(name="work")
    def work(ctx: Context) -> None:
        ran.append(ctx.record.queue)

    with running(jobs):
        work.opts(queue="surprise").enqueue()
        work.enqueue()
        await_that(lambda: sorted(ran) == ["low", "surprise"], "both queues are served")


def test_named_queues_alone_are_served(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    @jobs.job(name="work")
    def work(ctx: Context) -> None:
        ran.append(ctx.record.queue)

    work.opts(queue="other").enqueue()
    work.opts(queue="high").enqueue()
    with caplog.at_level(logging.WARNING), running(jobs, queues={"high": 1}):
        await_that(lambda: ran, "the named queue is served")
    assert ran == ["high"]
    assert jobs.length("other") == 1
    assert "other" in caplog.text, "it is said that nobody serves it"


# ------------------------------------------------------------------------------------------------------------ timeouts


def test_a_coroutine_that_takes_too_long_is_cancelled(jobs: JobQueue) -> None:
    """A failed attempt like any other, kept with the place where it was."""
    cleaned_up: list[int] = []

    @jobs.job(name="slow", timeout=0.05, retry=RetryPolicy(limit=1, backoff=lambda _: 0))
    async def slow(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(ctx.attempt)

    @jobs.job(name="own", timeout=60, retry=0)
    async def own() -> None:
        raise TimeoutError("of its own")

    slow.enqueue()
    own.enqueue()
    runner = run_until_drained(jobs)

    errors = {dead.name: str(dead.error) for dead in jobs.dead()}
    assert errors["slow"].startswith("TimeoutError: timed out after 0.05 s\n")
    assert "await asyncio.Event().wait()" in errors["slow"]
    assert errors["own"].startswith("TimeoutError: of its own\n")
    assert cleaned_up == [1, 2]
    assert (runner.status.retried, runner.status.dead) == (1, 2)


def test_a_coroutine_that_is_stopped_while_it_has_time_left_goes_back(jobs: JobQueue) -> None:
    begun = threading.Event()

    @jobs.job(name="patient", timeout=600)
    async def patient() -> None:
        begun.set()
        await asyncio.Event().wait()

    patient.enqueue()
    with running(jobs, grace=0.1):
        assert begun.wait(20)
    [record] = jobs.find(place="ready")
    assert (record.attempt, record.error) == (0, None)


# ---------------------------------------------------------------------------------------------------- wake-ups are lost


def test_a_job_that_nobody_rang_for_is_found(jobs: JobQueue) -> None:
    """Long before an idle runner looks by itself."""
    ran = threading.Event()

    @jobs.job(name="silent")
    def silent() -> None:
        ran.set()

    queue = queue_keys(jobs.namespace, "low")
    id = silent.opts(delay=3600).enqueue().id.encode()
    moved = Batch(queue.scope, (Move(queue.waiting, queue.ready, These((id,))),))
    silent.enqueue()
    storage = jobs.access.opened().backend.storage()
    storage.wait((queue.scope,), 1)  # takes the wake-up of the two away
    with running(jobs) as runner:
        assert ran.wait(10)
        ran.clear()
        await_that(
            lambda: runner.status.done and runner._listener.listening, "the runner has nothing to do and listens"
        )
        storage.apply([moved])
        assert ran.wait(10)
