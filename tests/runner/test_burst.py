"""A real `Runner` that leaves when nothing is ready or due; the rule itself is tested in `test_until_empty`."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from jobqueue import JobQueue, Runner
from jobqueue.looking import Counts
from tests.conftest import MakeServer
from tests.faults.ledger import PATIENCE, await_that


def runner_of(jobs: JobQueue) -> Runner:
    """With short leases, and two threads."""
    return Runner(jobs, threads=2, lease=0.6, grace=5)


@pytest.mark.parametrize("how", ["run", "arun"])
def test_it_runs_what_there_is_and_what_that_enqueues(jobs: JobQueue, how: str) -> None:
    """The job enqueues into queues that it is the first to use."""
    runs: Counter[int] = Counter()

    @jobs.job(name="work")
    def work(number: int) -> None:
        runs[number] += 1
        if number < 100:
            work.opts(queue=f"queue{number % 7}").enqueue(number + 1)
        elif number < 200:
            raise ValueError("to be retried later")

    jobs.enqueue_many([work.call(number) for number in (0, 300, 301, 302)])
    later = work.opts(delay=3600).enqueue(400)
    runner = runner_of(jobs)
    if how == "run":
        runner.run(signals=False, until_empty=True)
    else:
        asyncio.run(runner.arun(until_empty=True))

    assert runs == dict.fromkeys([*range(101), 300, 301, 302], 1)
    assert (runner.status.done, runner.status.retried, runner.status.running) == (103, 1, 0)
    counts = jobs.counts().values()
    assert sum(count.waiting for count in counts) == 2, "a retry and a delayed job"
    assert not any(count.ready or count.working for count in counts)
    assert [record.id for record in jobs.find(queue=later.queue, place="waiting")] == [later.id]
    assert jobs.runners() == []


def test_only_its_own_queues_count(jobs: JobQueue) -> None:
    @jobs.job(name="work")
    def work() -> None: ...

    work.opts(queue="other").enqueue()
    work.opts(queue="mine").enqueue()
    Runner(jobs, queues=["mine"]).run(signals=False, until_empty=True)
    assert jobs.counts()["mine"] == Counts(0, 0, 0, 0)
    assert jobs.counts()["other"] == Counts(0, 1, 0, 0)


def test_it_waits_for_a_server_that_is_away(own_server: MakeServer) -> None:
    server = own_server()
    with JobQueue(server.url, namespace="runner") as jobs:
        ran = threading.Event()

        @jobs.job(name="work")
        def work() -> None:
            ran.set()
            server.restart()

        work.enqueue()
        thread = threading.Thread(target=runner_of(jobs).run, kwargs={"signals": False, "until_empty": True})
        thread.start()
        assert ran.wait(PATIENCE)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_stop_ends_it_before(jobs: JobQueue) -> None:
    gate, begun = threading.Event(), threading.Event()

    @jobs.job(name="work")
    def work() -> None:
        begun.set()
        gate.wait(PATIENCE)

    jobs.enqueue_many([work.call() for _ in range(5)])
    runner = Runner(jobs, threads=1, lease=0.6)
    thread = threading.Thread(target=runner.run, kwargs={"signals": False, "until_empty": True})
    thread.start()
    assert begun.wait(PATIENCE)
    runner.stop()
    await_that(lambda: jobs.runners() == [], "it drains")
    gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert jobs.counts()["low"] == Counts(0, 4, 0, 0)
