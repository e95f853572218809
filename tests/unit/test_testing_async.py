"""Testing blocks in asynchronous tests."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.testing import Testing, TestingError
from tests.unit.kit_jobs import Broken, Resize, add, broken, flaky, jobs, mail, seen


async def test_the_async_twins_do_the_same(t: Testing) -> None:
    await mail.aenqueue("a")
    await add.opts(delay=60).aenqueue(1)
    await jobs.aenqueue(Resize("x.png"), delay=120)
    await jobs.aenqueue_many([flaky.opts(delay=180).call(2)])

    assert await t.adrain() == {"done": 1}
    assert await t.ajump() == timedelta(seconds=60)
    assert (await t.arun_one()).result == 1
    assert await t.arun_until_idle() == {"done": 2, "retried": 1}
    assert [entry[0] for entry in seen] == ["mail", "add", "resize", "flaky", "flaky"]


async def test_they_raise_the_same(t: Testing) -> None:
    await broken.aenqueue(1)
    await broken.aenqueue(2)
    await broken.aenqueue(3)

    with pytest.raises(Broken):
        await t.adrain()
    with pytest.raises(Broken):
        await t.arun_one()
    with pytest.raises(Broken):
        await t.arun_until_idle(reraise=True)
    with pytest.raises(TestingError, match="no job is due"):
        await t.arun_one()


@pytest.mark.parametrize("name", ["drain", "run_one", "run_until_idle", "jump"])
async def test_the_sync_ones_refuse_to_block_a_running_loop(t: Testing, name: str) -> None:
    mail.enqueue("a")

    with pytest.raises(TestingError, match=re.escape(f"use `await t.a{name}()`")):
        getattr(t, name)()

    assert seen == []
    assert await t.adrain() == {"done": 1}


async def test_coroutines_run_on_the_loop_of_the_test_and_functions_beside_it(t: Testing) -> None:
    queue = JobQueue(namespace="kit")
    where: list[Any] = []
    answered = threading.Event()
    loop = asyncio.get_running_loop()

    @queue.job(name="coroutine")
    async def coroutine() -> None:
        where.append(asyncio.get_running_loop())

    @queue.job(name="function")
    def function() -> None:
        loop.call_soon_threadsafe(answered.set)
        where.append(answered.wait(30))  # the loop answers while the job waits for it
        asyncio.run(asyncio.sleep(0))

    with queue.testing() as inner:
        coroutine.enqueue()
        function.enqueue()

        assert await inner.adrain() == {"done": 2}
    assert where == [loop, True]


async def test_a_cancelled_drain_is_like_a_crash(t: Testing) -> None:
    queue = JobQueue(namespace="kit")
    started = asyncio.Event()

    @queue.job(name="endless")
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    with queue.testing() as inner:
        record = await endless.aenqueue()
        drain = asyncio.create_task(inner.adrain())
        await started.wait()
        with pytest.raises(TestingError, match="already"):
            await inner.adrain()
        drain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drain

        held = await queue.aget(record.id)
        assert held is not None
        assert held.place == "working"


# ------------------------------------------------------------------------------------------------------- never awaited


@pytest.mark.parametrize("cls", [JobQueue, Testing])
def test_every_call_that_can_be_awaited_is_watched(cls: type) -> None:
    """Also those that a class has from a base of it."""
    calls = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
    names = [name for name, call in calls.items() if inspect.iscoroutinefunction(call)]
    assert len(names) > 4
    with jobs.testing():
        assert [name for name in names if getattr(cls, name) is calls[name]] == []
    assert [name for name in names if getattr(cls, name) is not calls[name]] == []


Forgotten = Callable[[Testing], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("forget", "name"),
    [
        (lambda t: mail.aenqueue("a"), "JobFunction.aenqueue"),
        (lambda t: mail.opts(delay=1).aenqueue("a"), "BoundFunction.aenqueue"),
        (lambda t: jobs.aenqueue(Resize("x.png")), "JobQueue.aenqueue"),
        (lambda t: jobs.acounts(), "JobQueue.acounts"),
        (lambda t: jobs.lock("x", 5).arun(asyncio.sleep, 0), "Lock.arun"),
        (lambda t: t.adrain(), "Testing.adrain"),
    ],
)
@pytest.mark.parametrize("hold", [True, False])
async def test_leaving_fails_if_a_call_was_never_awaited(forget: Forgotten, name: str, hold: bool) -> None:
    held: list[Any] = []

    def block() -> None:
        with jobs.testing() as t:
            made = forget(t)
            if hold:
                held.append(made)
            del made

    with pytest.raises(TestingError, match=rf"never awaited(.|\n)*{re.escape(name)}\(\) at .*test_testing_async\.py:"):
        block()


async def test_each_forgotten_call_is_named() -> None:
    async def block() -> None:
        with jobs.testing():
            for _ in range(300):  # more than are remembered at a time
                await mail.aenqueue("a")
                mail.aenqueue("b")  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]
                add.aenqueue(1)  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]

    with pytest.raises(TestingError) as caught:
        await block()

    assert str(caught.value).count("JobFunction.aenqueue()") == 600


async def test_an_error_in_the_block_is_not_hidden_by_a_forgotten_call() -> None:
    held: list[Coroutine[Any, Any, Any]] = []

    def block() -> None:
        with jobs.testing():
            held.append(mail.aenqueue("a"))
            raise Broken

    with pytest.raises(Broken):
        block()
    held.pop().close()


async def test_awaited_calls_are_fine_in_tasks_and_groups() -> None:
    with jobs.testing() as t:
        await asyncio.gather(*(mail.aenqueue(str(number)) for number in range(10)))
        await asyncio.create_task(add.aenqueue(1))

        assert await t.adrain() == {"done": 11}


async def test_a_forgotten_call_belongs_to_its_own_queue() -> None:
    other = JobQueue(namespace="other")
    with jobs.testing():
        held = other.acounts()
    held.close()

    with other.testing():
        with jobs.testing():
            held = other.acounts()
        await held


async def test_a_forgotten_call_belongs_to_the_innermost_block() -> None:
    def block() -> None:
        with jobs.testing():
            mail.aenqueue("a")  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]

    with jobs.testing() as t:
        with pytest.raises(TestingError, match="never awaited"):
            block()
        await mail.aenqueue("b")

        assert await t.adrain() == {"done": 1}


def test_the_methods_are_themselves_again_afterwards() -> None:
    before = JobQueue.aenqueue

    with jobs.testing():
        with jobs.testing():
            pass
        assert JobQueue.aenqueue is not before
        # Web frameworks ask this to tell what to await.
        assert asyncio.iscoroutinefunction(jobs.aenqueue)
        assert asyncio.iscoroutinefunction(mail.aenqueue)

    assert JobQueue.aenqueue is before
    assert inspect.iscoroutinefunction(jobs.aenqueue)


@pytest.mark.parametrize("how", ["run_until_idle", "drain"])
def test_ctrl_c_ends_the_test_and_not_the_job(how: str) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="interrupted")
    async def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with queue.testing() as t:
            record = interrupted.enqueue()
            with pytest.raises(KeyboardInterrupt):
                getattr(t, how)(reraise=False)
            held = queue.get(record.id)
            assert held is not None
            assert (held.place, held.attempt) == ("working", 0), "as if its runner had died"
    finally:
        signal.signal(signal.SIGINT, before)
