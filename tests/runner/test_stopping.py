"""How a real `Runner` over memory stops, what it says of itself, and what it refuses."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import Counter
from typing import Any

import pytest

from jobqueue import Context, DeclarationError, JobQueue, Runner, RunnerStatus
from jobqueue.looking import Counts
from tests.conftest import MakeServer
from tests.faults.ledger import PATIENCE, await_that
from tests.runner.running import run_until_drained, running, start

# ------------------------------------------------------------------------------------------------------------- the stop


def test_a_stop_under_load_loses_nothing(jobs: JobQueue) -> None:
    runs: Counter[int] = Counter()

    @jobs.job(name="work")
    def work(number: int) -> None:
        runs[number] += 1

    jobs.enqueue_many([work.call(number) for number in range(3_000)])
    for stop_at in (100, 700, 1_500):
        with running(jobs) as runner:
            await_that(lambda at=stop_at: len(runs) >= at, "it is under way")  # type: ignore[misc]
        assert jobs.counts()["low"].working == 0
        assert runner.status.running == 0
    run_until_drained(jobs)
    assert runs == dict.fromkeys(range(3_000), 1)


def test_a_job_longer_than_the_grace_time_is_run_again_elsewhere(jobs: JobQueue) -> None:
    runs: list[tuple[int, int, bool]] = []
    gate, begun = threading.Event(), threading.Event()

    @jobs.job(name="long")
    def long(ctx: Context) -> None:
        first = not runs
        runs.append((ctx.attempt, ctx.fence, first))
        begun.set()
        if first:
            gate.wait(30)

    record = long.enqueue()
    live = start(jobs, grace=0.1)
    assert begun.wait(10)
    live.stop()
    assert live.runner.status.released == 1
    back = jobs.get(record.id)
    assert back is not None
    assert (back.place, back.attempt) == ("ready", 0)
    run_until_drained(jobs)
    gate.set()

    assert [entry[0] for entry in runs] == [1, 1], "its attempt was not counted"
    assert runs[1][1] > runs[0][1]


def test_a_job_is_told_to_end_after_the_grace_time(jobs: JobQueue) -> None:
    begun, told = threading.Event(), threading.Event()

    @jobs.job(name="polite")
    def polite(ctx: Context) -> None:
        begun.set()
        pause = threading.Event()
        while not ctx.cancelled:
            pause.wait(0.005)
        told.set()

    polite.enqueue()
    live = start(jobs, grace=0.1)
    assert begun.wait(10)
    live.stop()
    assert told.is_set()
    assert jobs.counts()["low"] == Counts(0, 1, 0, 0)
    assert (live.runner.status.executed, live.runner.status.released) == (0, 1)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_coroutine_is_cancelled_after_the_grace_time(jobs: JobQueue, stubborn: bool) -> None:
    begun = threading.Event()
    cleaned: list[int] = []

    @jobs.job(name="slow")
    async def slow() -> None:
        try:
            begun.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cleaned.append(1)
            if not stubborn:
                raise

    record = slow.enqueue()
    live = start(jobs, grace=0.1)
    assert begun.wait(10)
    live.stop()
    assert cleaned == [1]
    back = jobs.get(record.id)
    assert back is not None
    assert (back.place, back.attempt) == ("ready", 0)


def test_stop_before_run(jobs: JobQueue) -> None:
    @jobs.job(name="work")
    def work() -> None: ...

    work.enqueue()
    runner = Runner(jobs)
    runner.stop()
    runner.run(signals=False)
    assert jobs.length("low") == 1


def test_stop_while_the_storage_is_not_there(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with JobQueue(f"unix://{tmp_path}/none") as queue:

        @queue.job(name="work")
        def work() -> None: ...

        live = start(queue)
        await_that(lambda: any(line.startswith("waiting for the storage") for line in caplog.messages), "it waits")
        live.stop()
    assert caplog.messages[-1] == "stopped before the storage could be reached"
    assert live.runner.status == RunnerStatus(), "it did nothing"


def test_an_idle_runner_leaves_a_server_that_is_gone(own_server: MakeServer) -> None:
    """Its grace time is longer than the patience of the test."""
    server = own_server()
    with JobQueue(server.url, namespace="runner") as queue:

        @queue.job(name="work")
        def work() -> None: ...

        live = start(queue, grace=10 * PATIENCE)
        await_that(queue.runners, "it runs")
        server.kill()
        live.stop()
    assert live.runner.status.executed == 0


def test_status_counts_what_runs_now(jobs: JobQueue) -> None:
    gate = threading.Event()

    @jobs.job(name="work")
    def work() -> None:
        gate.wait(30)

    work.enqueue()
    with running(jobs) as runner:
        await_that(lambda: runner.status.running == 1, "it is running")
        gate.set()
        await_that(lambda: runner.status.running == 0, "it has ended")


def test_runners_are_listed_while_they_live(jobs: JobQueue) -> None:
    @jobs.job(name="work")
    def work() -> None: ...

    with running(jobs, threads=3, queues={"low": 1}):
        await_that(jobs.runners, "it is registered")
        [info] = jobs.runners()
        assert (info.pid, info.threads, info.queues, info.lease) == (os.getpid(), 3, {"low": 1}, 0.6)
    assert jobs.runners() == [], "its last beat says that it has ended"


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_runner_without_kinds(jobs: JobQueue) -> None:
    with pytest.raises(DeclarationError, match="no kind"):
        Runner(jobs).run(signals=False)


def test_signals_off_the_main_thread(jobs: JobQueue) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            Runner(jobs).run()
        except DeclarationError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert "signals=False" in str(errors[0])


def test_one_runner_runs_once_at_a_time(jobs: JobQueue) -> None:
    @jobs.job(name="work")
    def work() -> None: ...

    with running(jobs) as runner:
        await_that(jobs.runners, "it runs")
        with pytest.raises(DeclarationError, match="running already"):
            runner.run(signals=False)


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 0.5}, {"lease": -1}, {"threads": 0}, {"threads": True}, {"threads": 1.5}, {"coroutines": 0},
        {"queues": {}}, {"queues": "high"}, {"queues": {"high": 0}}, {"queues": {"a:b": 1}},
        {"queues": {"high": True}}, {"grace": -1},
        {"grace": float("nan")}, {"keep_dead": -1}, {"threads": 10**9},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_work(jobs: JobQueue, options: dict[str, Any]) -> None:
    with pytest.raises((DeclarationError, ValueError, TypeError)):
        Runner(jobs, **options)


def test_threads_are_named_and_end(jobs: JobQueue) -> None:
    @jobs.job(name="work")
    def work() -> None: ...

    before = set(threading.enumerate())
    expected = {"jobqueue-0", "jobqueue-1", "jobqueue-beat", "jobqueue-leases", "jobqueue-duties", "jobqueue-listener"}

    def own() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread not in before]

    with running(jobs):
        # A runner is registered before it starts the last of its threads.
        await_that(lambda: expected <= set(own()), "all of its threads run")
        assert [name for name in own() if not name.startswith("jobqueue-")] == ["test-runner"]
    await_that(lambda: set(threading.enumerate()) <= before, "all of its threads have ended")
