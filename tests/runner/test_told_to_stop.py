"""A run that has seen that it should stop is handed back, however it ends, unless it says that it is complete."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import attrs
import pytest

from jobqueue import Context, Discard, Job, JobQueue, Retry, Runner, Snooze, current_context
from jobqueue.runner.aio import Loop
from jobqueue.runner.execute import run_coroutine, run_function
from jobqueue.runner.task import End
from jobqueue.runner.threads import Inbox, Pool
from tests.faults.ledger import await_that
from tests.runner.running import run_until_drained, start
from tests.runner.sim import BEAT, LEASE, Sim, World

Way: TypeAlias = Callable[[Callable[[], None]], Awaitable[Any]]
"""What a coroutine does, given what to call when it has begun."""
BACK: Final = ("ready", 0)
DEAD: Final = ("dead", 1)
DONE: Final = None


def places(jobs: JobQueue) -> dict[str, tuple[str, int]]:
    """Name → place and counted attempts of all jobs that are left."""
    return {record.name: (record.place, record.attempt) for record in jobs.find(limit=100)}


def raises(error: BaseException) -> Any:
    """Raise it: for the middle of an expression."""
    raise error


def complete(then: Callable[[], Any]) -> Callable[[], Any]:
    """An ending that says first that the work is done."""

    def end() -> Any:
        current_context().complete()
        return then()

    return end


ENDINGS: Final[dict[str, tuple[Callable[[], Any], Any]]] = {
    "returns": (lambda: 1, BACK),
    "raises": (lambda: raises(ValueError("broken off")), BACK),
    "exits": (lambda: raises(SystemExit(0)), BACK),
    "cancels": (lambda: raises(asyncio.CancelledError()), BACK),
    "raises a group": (lambda: raises(BaseExceptionGroup("all", [asyncio.CancelledError()])), BACK),
    "raises Retry": (lambda: raises(Retry(after=5)), BACK),
    "returns Retry": (lambda: Retry(after=5), BACK),
    "snoozes": (lambda: Snooze(60), ("waiting", 0)),
    "discards": (lambda: raises(Discard("not wanted")), DONE),
    "is complete": (complete(lambda: 1), DONE),
    "is complete and fails": (complete(lambda: raises(ValueError("really"))), DEAD),
}
"""What a run does after it saw that it should stop, and what has to become of its job, which has no retries."""


def stop_in_the_middle(jobs: JobQueue, count: int, begun: threading.Semaphore, **options: Any) -> Runner:
    """Stop a runner without any grace when so many of its jobs run."""
    live = start(jobs, grace=0, threads=count, **options)
    for _ in range(count):
        assert begun.acquire(timeout=10)
    live.stop()
    return live.runner


def test_how_a_function_ends_after_it_saw_the_stop(jobs: JobQueue) -> None:
    begun, told = threading.Semaphore(0), threading.Event()
    pause = threading.Event()

    def declare(name: str, end: Callable[[], Any]) -> None:
        @jobs.job(name=name, retry=0)
        def looks(ctx: Context) -> Any:
            begun.release()
            while not ctx.cancelled:
                pause.wait(0.002)
            told.set()
            return end()

        looks.enqueue()

    for name, (end, _) in ENDINGS.items():
        declare(name, end)

    @jobs.job(name="looks elsewhere", retry=0)
    def looks_elsewhere() -> None:
        begun.release()
        while not current_context().cancelled:
            pause.wait(0.002)

    @jobs.register
    @attrs.frozen
    class Looks(Job, name="class", retry=0):
        def perform(self, ctx: Context) -> None:
            begun.release()
            while not ctx.cancelled:
                pause.wait(0.002)

    @jobs.job(name="never looks", retry=0)
    def never_looks() -> None:
        begun.release()
        told.wait(20)

    @jobs.job(name="never looks and fails", retry=0)
    def never_looks_and_fails() -> None:
        begun.release()
        told.wait(20)
        raise ValueError("of its own")

    for kind in (looks_elsewhere, never_looks, never_looks_and_fails):
        kind.enqueue()
    jobs.enqueue(Looks())
    runner = stop_in_the_middle(jobs, len(ENDINGS) + 4, begun)

    expected = {name: place for name, (_, place) in ENDINGS.items()}
    expected |= {"looks elsewhere": BACK, "class": BACK, "never looks": DONE, "never looks and fails": DEAD}
    assert places(jobs) == {name: place for name, place in expected.items() if place is not None}
    back = sum(place == BACK for place in expected.values())
    assert (runner.status.released, runner.status.done, runner.status.dead) == (back, 2, 2)


def catching(end: Callable[[], Any]) -> Way:
    """Wait, and end so when it is cancelled."""

    async def catches(begin: Callable[[], None]) -> Any:
        try:
            begin()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return end()

    return catches


async def cleans_up_badly(begin: Callable[[], None]) -> None:
    """Raise while it is cancelled."""
    try:
        begin()
        await asyncio.sleep(3600)
    finally:
        raise ValueError("while it cleaned up")


async def lets_it_through(begin: Callable[[], None]) -> None:
    """Do nothing about it."""
    begin()
    await asyncio.sleep(3600)


async def is_complete_and_lets_it_through(begin: Callable[[], None]) -> None:
    """What is left is of no importance."""
    current_context().complete()
    await lets_it_through(begin)


async def in_a_group(begin: Callable[[], None]) -> None:
    """A group wraps what it raises."""
    async with asyncio.TaskGroup() as group:
        group.create_task(cleans_up_badly(begin))


async def in_time(begin: Callable[[], None]) -> None:
    """Under a limit of its own."""
    async with asyncio.timeout(3600):
        await cleans_up_badly(begin)


async def shields(begin: Callable[[], None]) -> None:
    """A part of it goes on to its end."""
    gate = asyncio.Event()
    inner = asyncio.ensure_future(gate.wait())
    try:
        begin()
        await asyncio.shield(inner)
    except asyncio.CancelledError:
        gate.set()
        await inner


async def swallowed_below(begin: Callable[[], None]) -> None:
    """The cancellation reaches what it waits for, which ends early; the job itself never hears of it."""
    await asyncio.ensure_future(catching(lambda: "half")(begin))


WAYS: Final[dict[str, tuple[Way, Any]]] = {
    **{name: (catching(end), place) for name, (end, place) in ENDINGS.items()},
    **{
        way.__name__: (way, BACK)
        for way in (cleans_up_badly, lets_it_through, in_a_group, in_time, shields, swallowed_below)
    },
    "is complete and lets it through": (is_complete_and_lets_it_through, DONE),
}


def test_how_a_coroutine_ends_after_it_was_cancelled(jobs: JobQueue) -> None:
    begun = threading.Semaphore(0)

    def declare(name: str, way: Way) -> None:
        @jobs.job(name=name, retry=0)
        async def waits() -> Any:
            return await way(lambda: begun.release())

        waits.enqueue()

    for name, (way, _) in WAYS.items():
        declare(name, way)
    stop_in_the_middle(jobs, len(WAYS), begun)

    assert places(jobs) == {name: place for name, (_, place) in WAYS.items() if place is not None}


@pytest.fixture
def world() -> World:
    return World()


async def ended(loop: Loop, inbox: Inbox) -> Any:
    """The one job of a loop that has come back."""
    for _ in range(20):
        await asyncio.sleep(0)
    [task], _ = inbox.take(0)
    return task


async def held(world: World, run: Callable[[], Awaitable[Any]], **declared: Any) -> tuple[Loop, Inbox, Any]:
    """A coroutine job that runs on this loop."""

    @world.jobs.job(name="coroutine", retry=0, **declared)
    async def coroutine() -> Any:
        return await run()

    coroutine.enqueue()
    sim = Sim(world)
    sim.settle()
    [task] = sim.given
    inbox = Inbox()
    loop = Loop(inbox, world.clock.monotonic, asyncio.get_running_loop())
    loop.start([task])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return loop, inbox, task


async def test_a_coroutine_that_has_just_returned_is_done(world: World) -> None:
    """It was asked to end in the same turn of the loop, and never noticed."""
    gate = asyncio.Event()
    loop, inbox, task = await held(world, gate.wait)
    task.cancelled = True
    gate.set()
    await asyncio.sleep(0)
    loop._cancel([task])

    assert await ended(loop, inbox) is task
    assert (task.result, task.end, task.seen) == (True, End.RAN, False)


async def test_a_coroutine_that_failed_before_it_was_cancelled_has_failed(world: World) -> None:
    """The core has decided to interrupt it, but nobody has told it yet."""
    gate = asyncio.Event()

    async def fails() -> None:
        await gate.wait()
        raise asyncio.CancelledError

    loop, inbox, task = await held(world, fails)
    task.cancelled = True
    gate.set()

    assert await ended(loop, inbox) is task
    assert (task.text.split("\n")[0], task.end) == ("asyncio.exceptions.CancelledError", End.RAN)


async def test_a_limit_that_is_over_at_the_time_of_the_stop(world: World) -> None:
    """A run that was told to stop goes back, whatever else ended it."""
    loop, inbox, task = await held(world, asyncio.Event().wait, timeout=0.001)
    clock = asyncio.get_running_loop()
    wait_until = clock.time() + 0.002
    while clock.time() < wait_until:
        pass
    task.cancelled = True
    loop._cancel([task])

    assert await ended(loop, inbox) is task
    assert task.end is End.HANDED_BACK


@pytest.mark.parametrize("swallowed", [False, True])
def test_the_end_of_a_callers_loop_is_no_failure_however_the_job_takes_it(jobs: JobQueue, swallowed: bool) -> None:
    begun = asyncio.Event()

    @jobs.job(name="slow", retry=0)
    async def slow() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallowed:
                raise ValueError("while it cleaned up") from None

    async def main() -> None:
        running = asyncio.create_task(Runner(jobs, lease=0.6, grace=0).arun())
        await asyncio.wait_for(begun.wait(), 10)
        assert not running.done()

    slow.enqueue()
    asyncio.run(main())

    assert places(jobs) == {"slow": BACK}


async def test_a_leftover_of_the_jobs_own_cancellation_is_not_the_end_of_the_loop(jobs: JobQueue) -> None:
    """Libraries that cancel a job to end its wait may leave the request behind. It must not be run for ever."""

    @jobs.job(name="leaves it", retry=0)
    async def leaves_it() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise TimeoutError from None

    await leaves_it.aenqueue()
    runner = Runner(jobs, lease=0.6)
    task = asyncio.create_task(runner.arun())
    await asyncio.to_thread(await_that, lambda: runner.status.dead, "it has failed")
    runner.stop()
    await asyncio.wait_for(task, 10)
    await jobs.aclose()


# ---------------------------------------------------------------------------------------------------------- lost leases


@pytest.mark.parametrize("shape", ["function", "coroutine"])
@pytest.mark.parametrize("says", [False, True])
def test_a_run_that_saw_a_lost_lease_goes_back_even_if_the_lease_comes_back(
    world: World, shape: str, says: bool
) -> None:
    """The server was away for longer than a lease, and nobody has taken the job."""
    seen: list[bool] = []

    def look(ctx: Context) -> None:
        seen.append(ctx.lease_lost)
        if says:
            ctx.complete()

    if shape == "function":

        @world.jobs.job(name="looks")
        def looks(ctx: Context) -> None:
            out_of_touch()
            look(ctx)

        looks.enqueue()
    else:

        @world.jobs.job(name="looks")
        async def alooks(ctx: Context) -> None:
            out_of_touch()
            look(ctx)

        alooks.enqueue()
    sim = Sim(world, weights={"low": 1})
    sim.core._lanes = lambda: ("thread", "loop")
    sim.settle()
    [task] = sim.given

    def out_of_touch() -> None:
        world.clock.advance(milliseconds=LEASE + BEAT)
        sim.core.leases.overdue(sim.at)

    if shape == "function":
        run_function(task, world.clock.monotonic)
    else:
        asyncio.run(run_coroutine(task, world.clock.monotonic))
    sim.given.clear()
    sim.beat()
    assert (seen, task.lease_lost) == ([True], False)
    sim.core.returned([task], sim.at)
    sim.settle()

    assert (world.counter("done"), world.counter("released")) == ((1, 0) if says else (0, 1))
    assert places(world.jobs) == ({} if says else {"looks": BACK})


def test_a_run_that_saw_a_lost_lease_and_was_replaced_is_late(world: World) -> None:
    world.enqueue(1)
    sim, other = Sim(world, "a"), Sim(world, "b")
    sim.settle()

    def act(_: int) -> None:
        if world.runs[1] == 1:
            assert len(other.rescue()) == 1
            other.core.woken(other.at)
            other.work()
            sim.beat()
            assert current_context().lease_lost

    world.act = act
    sim.run()
    sim.settle()
    assert (other.told("done"), sim.told("late"), sim.told("released")) == (1, 1, 0)
    assert world.runs == {1: 2}


def test_a_stop_that_nobody_saw_costs_nothing(world: World) -> None:
    """A thread that never looked has done all of its work: it must not run again."""
    world.enqueue(1)
    sim = Sim(world, grace=0)
    sim.settle()
    [task] = sim.given
    inbox = Inbox()

    def act(_: int) -> None:
        sim.core.stop(sim.at)
        sim.step()

    world.act = act
    pool = Pool(1, inbox, world.clock.monotonic)
    pool.start([task])
    tasks, _ = inbox.take(10)
    pool.close()
    assert task.cancelled
    sim.core.returned(tasks, sim.at)
    sim.settle()
    run_until_drained(world.jobs)
    assert world.runs == {1: 1}


def test_a_job_that_cancels_itself_on_its_callers_loop_has_failed(jobs: JobQueue) -> None:
    """Nobody else has asked for it. It must not be run for ever."""

    @jobs.job(name="cancels itself", retry=0)
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def main() -> None:
        runner = Runner(jobs, lease=0.6)
        running = asyncio.create_task(runner.arun())
        await asyncio.to_thread(await_that, lambda: runner.status.dead, "it has failed")
        runner.stop()
        await running

    cancels_itself.enqueue()
    asyncio.run(main())

    assert [record.attempt for record in jobs.dead()] == [1]
