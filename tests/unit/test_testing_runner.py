"""A real `Runner` inside of a testing block: as an application starts one beside its web server."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from jobqueue import Context, JobQueue, Runner
from jobqueue.storage.ops import Batch
from jobqueue.testing import Testing
from jobqueue.testing.backend import KitBackend
from tests.servers import kinds

PATIENCE = 20.0


class Shop:
    """A `JobQueue` whose kinds say when they ran."""

    def __init__(self) -> None:
        self.jobs = JobQueue(namespace="shop")
        self.ran = threading.Semaphore(0)
        self.fenced: list[bool] = []

        @self.jobs.job(name="send", retry=2)
        def send(number: int) -> None:
            self.ran.release()
            if number < 0:
                raise ValueError(number)

        @self.jobs.job(name="fetch")
        async def fetch(ctx: Context, number: int) -> None:
            await asyncio.sleep(0)
            self.fenced.append(ctx.lease_lost)
            self.ran.release()

        self.send, self.fetch = send, fetch

    def await_runs(self, count: int) -> None:
        for _ in range(count):
            assert self.ran.acquire(timeout=PATIENCE), "a job did not run"


@contextmanager
def beside(runner: Runner) -> Iterator[None]:
    """Run it on a thread, as the start of a web application does."""
    thread = threading.Thread(target=runner.run, kwargs={"signals": False})
    thread.start()
    try:
        yield
    finally:
        runner.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture(params=["memory", *kinds()[:1]])
def t(request: pytest.FixtureRequest, shop: Shop) -> Iterator[Testing]:
    """In memory, and on a server."""
    url = None if request.param == "memory" else request.getfixturevalue("running_servers")(request.param).url
    with shop.jobs.testing(url=url) as testing:
        yield testing


def test_its_jobs_are_run_and_told(shop: Shop, t: Testing) -> None:
    with beside(Runner(shop.jobs, threads=2)):
        shop.send.enqueue(1)
        shop.fetch.enqueue(2)
        shop.await_runs(2)

    events = re.findall(r"\+0:00:00  (.*)", t.history())
    assert sorted(events) == [
        "claimed, attempt 1",
        "claimed, attempt 1",
        "done",
        "done",
        "enqueued in low",
        "enqueued in low",
    ]
    assert t.drain() == {}, "nothing was left to be done"


def test_it_wakes_up_when_the_clock_moves(shop: Shop, t: Testing) -> None:
    with beside(Runner(shop.jobs)):
        shop.send.opts(delay=3600).enqueue(1)
        shop.send.enqueue(2)
        shop.await_runs(1)
        assert shop.jobs.counts()["low"].waiting == 1

        t.clock.advance(hours=1)
        shop.await_runs(1)
    assert t.history().count("done") == 2


def test_retries_come_when_the_clock_says_so(shop: Shop, t: Testing) -> None:
    with beside(Runner(shop.jobs)):
        record = shop.send.enqueue(-1)
        for _ in range(3):
            shop.await_runs(1)
            while (seen := shop.jobs.get(record.id)) is not None and seen.place in ("working", "ready"):
                threading.Event().wait(0.005)
            if seen is not None and seen.place == "waiting":
                t.jump()
    [dead] = t.dead()
    assert dead.attempt == 3


def test_on_the_loop_of_a_test(shop: Shop) -> None:
    async def scenario() -> str:
        with shop.jobs.testing() as t:
            runner = Runner(shop.jobs)
            running = asyncio.create_task(runner.arun())
            await shop.send.aenqueue(1)
            await shop.fetch.aenqueue(2)
            await asyncio.to_thread(shop.await_runs, 2)
            runner.stop()
            await running
            return t.history()

    assert asyncio.run(scenario()).count("done") == 2


def test_one_that_ends_when_nothing_is_left(shop: Shop, t: Testing) -> None:
    """By the fake clock: what is due later is not waited for."""
    shop.send.enqueue(1)
    shop.fetch.opts(delay=3600).enqueue(2)
    Runner(shop.jobs).run(signals=False, until_empty=True)
    assert shop.jobs.counts()["low"].waiting == 1

    t.clock.advance(hours=1)
    Runner(shop.jobs).run(signals=False, until_empty=True)
    assert t.history().count("done") == 2


def test_beside_an_application_on_its_loop(shop: Shop) -> None:
    async def scenario() -> str:
        with shop.jobs.testing() as t:
            async with Runner(shop.jobs).background():
                await shop.fetch.opts(delay=60).aenqueue(1)
                t.clock.advance(minutes=1)
                await asyncio.to_thread(shop.await_runs, 1)
            return t.history()

    assert "+0:01:00  done" in asyncio.run(scenario())


apart = JobQueue("redis://nowhere.invalid", namespace="apart")


@apart.job(process=True)
def divide(number: int, pid: int = 0) -> None:
    if number:
        divide.enqueue(number - 1, os.getpid())


def test_no_job_leaves_the_process_that_knows_of_the_block() -> None:
    """Another one would enqueue into the storage of production."""
    with apart.testing() as t:
        divide.enqueue(3)
        Runner(apart, job_processes=2).run(signals=False, until_empty=True)
        assert t.history().count("done") == 4
        assert t.history().count(f"pid={os.getpid()}") == 3


def test_a_jump_over_its_lease_is_a_pause_of_the_runner(shop: Shop) -> None:
    """Nobody else is there to take its job, so the job ends as if nothing had been."""
    jumped, started = threading.Event(), threading.Event()

    @shop.jobs.job(name="slow")
    def slow() -> None:
        started.set()
        assert jumped.wait(PATIENCE)
        shop.ran.release()

    with shop.jobs.testing() as t:
        with beside(Runner(shop.jobs)):
            slow.enqueue()
            assert started.wait(PATIENCE)
            t.clock.advance(hours=1)
            jumped.set()
            shop.await_runs(1)
        assert "+1:00:00  done" in t.history()


def test_every_story_begins_with_its_beginning(shop: Shop) -> None:
    """Calls of several threads are kept in the order in which the storage had them."""
    with shop.jobs.testing() as t, beside(Runner(shop.jobs, threads=4)):
        producers = [
            threading.Thread(target=lambda: [shop.send.enqueue(number) for number in range(50)]) for _ in range(4)
        ]
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        shop.await_runs(200)
        stories = t._history.stories()
    assert len(stories) == 200
    assert {story.events[0].what for story in stories} == {"enqueued in low"}
    assert {story.events[1].what for story in stories} == {"claimed, attempt 1"}


def test_a_storage_is_given_what_nobody_changes_afterwards(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the batches nor the answers: a wrapper may keep both."""
    kept: list[tuple[Any, Any, str]] = []
    original = KitBackend.storage

    def storage(self: KitBackend) -> Any:
        below = original(self)
        apply: Callable[[Sequence[Batch]], list[Any]] = below.apply

        def remember(batches: Sequence[Batch], /) -> list[Any]:
            told = list(batches)
            outcomes = apply(batches)
            kept.append((told, outcomes, repr(copy.deepcopy((told, outcomes)))))
            return outcomes

        monkeypatch.setattr(below, "apply", remember)
        return below

    monkeypatch.setattr(KitBackend, "storage", storage)
    with shop.jobs.testing() as t:
        t.lose_reply(2)
        with beside(Runner(shop.jobs, threads=2)):
            shop.send.enqueue(-1)
            shop.jobs.enqueue_many([shop.fetch.call(number) for number in range(5)])
            shop.await_runs(6)
        t.run_until_idle(reraise=False)
    assert len(kept) > 10
    for batches, outcomes, before in kept:
        assert repr((batches, outcomes)) == before
