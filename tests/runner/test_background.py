"""`Runner.background`: a runner beside an application on the application's event loop."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from jobqueue import DeclarationError, JobQueue, Runner, StorageRefused
from jobqueue.looking import Counts
from jobqueue.storage.memory import MemoryStorage
from tests.faults.ledger import PATIENCE, await_that

SOON = 0.05


class App:
    """An application with a job that says when it begins, and goes on until it may end."""

    def __init__(self, jobs: JobQueue, **options: Any) -> None:
        self.jobs = jobs
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.ended = 0

        @jobs.job(name="work")
        async def work() -> None:
            self.loops.append(asyncio.get_running_loop())
            self.begun.set()
            await self.may_end.wait()
            self.ended += 1

        self.work = work
        self.runner = Runner(jobs, **{"grace": PATIENCE, **options})

    async def begin(self) -> None:
        """Enqueue one and wait until it runs."""
        await self.work.aenqueue()
        async with asyncio.timeout(PATIENCE):
            await self.begun.wait()

    def end_soon(self) -> None:
        """Let the job go on, when the body has ended."""
        asyncio.get_running_loop().call_later(SOON, self.may_end.set)


def test_it_runs_on_the_loop_of_the_application_and_stops_with_the_block(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs)
        async with app.runner.background() as runner:
            assert runner is app.runner
            await app.begin()
            assert app.loops == [asyncio.get_running_loop()]
            app.end_soon()
        assert app.ended == 1, "within the grace time"
        assert (runner.status.done, runner.status.released) == (1, 0)
        assert await jobs.arunners() == []

    asyncio.run(main())
    assert jobs.counts()["low"] == Counts(0, 0, 0, 0)


def test_what_does_not_end_within_the_grace_time_is_handed_back(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs, grace=SOON)
        async with app.runner.background():
            await app.begin()
        assert (app.ended, app.runner.status.released) == (0, 1)

    asyncio.run(main())
    assert jobs.counts()["low"] == Counts(0, 1, 0, 0)


def test_an_error_of_the_body_is_raised_as_it_is_once_the_runner_has_stopped(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs)
        error = KeyError("body")

        async def serve() -> None:
            async with app.runner.background():
                await app.begin()
                app.end_soon()
                raise error

        with pytest.raises(KeyError) as raised:
            await serve()
        assert raised.value is error
        assert (app.ended, app.runner.status.done) == (1, 1)

    asyncio.run(main())


def test_a_body_that_is_cancelled_stops_the_runner(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs)

        async def serve() -> None:
            async with app.runner.background():
                await app.begin()
                await asyncio.Event().wait()

        serving = asyncio.create_task(serve())
        async with asyncio.timeout(PATIENCE):
            await app.begun.wait()
        serving.cancel()
        app.end_soon()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert app.ended == 1

    asyncio.run(main())


def test_nobody_leaves_before_the_runner_has_stopped(jobs: JobQueue) -> None:
    """However often the block is cancelled while it waits."""

    async def main() -> None:
        app = App(jobs)
        waits = asyncio.Event()

        async def serve() -> None:
            async with app.runner.background():
                await app.begin()
                asyncio.get_running_loop().call_later(SOON, waits.set)

        serving = asyncio.create_task(serve())
        await waits.wait()
        for _ in range(3):
            serving.cancel()
            await asyncio.sleep(0)
        assert not serving.done()
        app.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert (app.ended, app.runner.status.done) == (1, 1)

    asyncio.run(main())


def test_arun_does_not_leave_before_either(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs)
        running = asyncio.create_task(app.runner.arun())
        await app.begin()
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0.01)
        assert not running.done()
        app.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (app.ended, app.runner.status.running) == (1, 0)
        assert app.runner.status.done + app.runner.status.released == 1

    asyncio.run(main())


async def for_ever() -> None:
    """What an application does."""
    await asyncio.Event().wait()


async def by_itself() -> None:
    """A body that has nothing to wait for."""


@pytest.mark.parametrize("body", [for_ever, by_itself])
def test_an_error_of_the_runner_ends_the_body_and_is_raised_as_it_is(body: Any) -> None:
    async def main() -> None:
        jobs = JobQueue(storage=MemoryStorage())  # it declares no kind
        with pytest.raises(DeclarationError, match="no kind") as raised:
            async with Runner(jobs).background():
                await body()
        assert raised.value.__context__ is None, "nothing that the user did not do"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # and nothing is left of it

    asyncio.run(main())


class Full(MemoryStorage):
    """Refuses everything, for good."""

    def read(self, queries: Any, /) -> Any:
        raise StorageRefused("no", passes=False)

    def share(self) -> Full:
        """See `MemoryStorage.share`."""
        return self


def test_an_error_of_the_storage_too() -> None:
    async def main() -> None:
        app = App(JobQueue(storage=Full()))
        with pytest.raises(StorageRefused):
            async with app.runner.background():
                await for_ever()

    asyncio.run(main())


async def fails_on_the_way_out() -> None:
    """A body that meets an error of its own while it is cancelled."""
    try:
        await for_ever()
    finally:
        raise KeyError("on the way out")


def test_when_both_fail_both_are_raised() -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup) as raised:
            async with Runner(JobQueue(storage=MemoryStorage())).background():
                await fails_on_the_way_out()
        assert {type(error) for error in raised.value.exceptions} == {KeyError, DeclarationError}

    asyncio.run(main())


def test_the_body_goes_on_after_a_stop(jobs: JobQueue) -> None:
    async def main() -> None:
        app = App(jobs)
        async with app.runner.background() as runner:
            await app.begin()
            app.may_end.set()
            runner.stop()
            await asyncio.to_thread(await_that, lambda: jobs.runners() == [], "it has stopped")
        assert app.ended == 1

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["end", "error", "stop", "at once"])
def test_a_runner_can_be_used_again(jobs: JobQueue, ending: str) -> None:
    """What stopped it the last time does not stop it now."""

    async def use(app: App) -> None:
        async with app.runner.background():
            if ending == "at once":
                raise KeyError
            await app.begin()
            app.may_end.set()
            if ending == "error":
                raise KeyError
            if ending == "stop":
                app.runner.stop()

    async def main() -> None:
        app = App(jobs)
        for _ in range(2):
            with pytest.raises(KeyError) if ending in ("error", "at once") else nullcontext():
                await use(app)
        app.begun.clear()
        app.may_end.set()
        async with app.runner.background():
            await app.begin()

    asyncio.run(main())


def test_inside_of_a_testing_block(jobs: JobQueue) -> None:
    """An application that starts a runner itself can be tested as it is; its runner uses the storage of the block."""

    async def main() -> None:
        app = App(jobs)
        with jobs.testing() as t:
            async with app.runner.background():
                await app.begin()
                app.may_end.set()
            assert t.enqueued(app.work) == []
            assert "done" in t.history()
            await app.work.aenqueue()
            assert await t.adrain() == {"done": 1}
        assert app.ended == 2

    asyncio.run(main())
    assert jobs.find() == [], "nothing of it was stored elsewhere"


def test_a_with_that_should_be_an_async_with_is_told_so(jobs: JobQueue) -> None:
    block: Any = Runner(jobs).background()
    with pytest.raises(DeclarationError, match="write `async with"), block:
        pass


@pytest.mark.parametrize("signals", [True, False])
async def test_run_does_not_freeze_the_event_loop_that_it_is_called_on(jobs: JobQueue, signals: bool) -> None:
    with pytest.raises(DeclarationError, match=r"use `await runner\.arun\(\)` or `async with runner\.background\(\)`"):
        Runner(jobs).run(signals=signals, until_empty=True)
