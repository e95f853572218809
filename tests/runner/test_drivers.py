"""The parts around the core: the event loop, the threads, the thread that waits to be rung."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import pytest

from jobqueue.errors import NotApplied
from jobqueue.runner.aio import Loop
from jobqueue.runner.task import End, Task
from jobqueue.runner.threads import RUNG, STOP, Inbox, Listener, Pool
from jobqueue.storage.memory import MemoryStorage
from tests.faults.ledger import PATIENCE, await_that
from tests.runner.sim import Sim, World


@pytest.fixture
def world() -> World:
    return World()


def coroutine_task(world: World, ran: list[int]) -> tuple[Sim, Task]:
    """A coroutine job in the hands of a runner."""

    @world.jobs.job(name="coroutine")
    async def coroutine(number: int) -> None:
        ran.append(number)
        await asyncio.sleep(3600)

    coroutine.enqueue(1)
    sim = Sim(world)
    sim.settle()
    [task] = sim.given
    return sim, task


async def test_a_coroutine_cancelled_before_its_first_step_goes_back(world: World) -> None:
    """Neither lost in the loop, nor taken for done."""
    ran: list[int] = []
    sim, task = coroutine_task(world, ran)
    inbox = Inbox()
    loop = Loop(inbox, world.clock.monotonic, asyncio.get_running_loop())
    task.cancelled = True
    loop.start([task])
    loop.interrupt([task])
    for _ in range(5):
        await asyncio.sleep(0)

    tasks, _ = inbox.take(0)

    assert tasks == [task]
    assert task.end is End.HANDED_BACK
    assert ran == []
    sim.core.returned(tasks, sim.at)
    sim.settle()
    assert world.jobs.length("low") == 1


async def test_a_coroutine_that_was_taken_back_is_not_started(world: World) -> None:
    ran: list[int] = []
    _, task = coroutine_task(world, ran)
    inbox = Inbox()
    loop = Loop(inbox, world.clock.monotonic, asyncio.get_running_loop())
    loop.start([task])
    assert task.take(), "the core was quicker"
    for _ in range(5):
        await asyncio.sleep(0)
    assert inbox.take(0) == ([], set())
    assert ran == []


def test_a_thread_does_not_start_what_was_taken_back(world: World) -> None:
    world.enqueue(1, 2)
    sim = Sim(world, threads=2)
    sim.settle()
    first, second = sim.given
    assert first.take()
    inbox = Inbox()
    pool = Pool(1, inbox, world.clock.monotonic)
    pool.start([first, second])
    tasks, _ = inbox.take(10)
    pool.close()
    assert tasks == [second]
    assert world.runs == {2: 1}


def test_the_inbox_gives_all_there_is_at_once(world: World) -> None:
    world.enqueue(1)
    sim = Sim(world)
    sim.settle()
    inbox = Inbox()
    assert inbox.take(0) == ([], set())
    inbox.say(RUNG)
    inbox.put(sim.given[0])
    inbox.say(STOP)
    inbox.say(RUNG)
    assert inbox.take(5) == (sim.given, {RUNG, STOP})
    assert inbox.take(0) == ([], set())


class Tokens(SimpleQueue[None]):
    """Says what happens while somebody goes to sleep, and whether they would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None
        self.slept = False

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        if timeout and self.meanwhile is not None:
            self.meanwhile()
            try:
                return super().get(block=False)
            except Empty:
                self.slept = True
                raise
        return super().get(block, timeout)


def lines_of(function: Callable[..., object], act: Callable[[int], None]) -> Callable[[FrameType, str, object], Any]:
    """A tracer that calls ``act`` before each line of a function, with how many lines there were before."""
    count = 0

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "line":
            act(count)
            count += 1
        return line

    return lambda frame, event, _: line if frame.f_code is function.__code__ else None


def test_what_comes_back_while_the_inbox_is_emptied_wakes_the_pump(world: World) -> None:
    """Before whichever line of `take` it comes, it is found, and so is what comes back after it, without a sleep."""
    world.enqueue(1, 2)
    sim = Sim(world, threads=2)
    sim.settle()
    first, second = sim.given
    tried = 0
    for which in range(100):
        inbox = Inbox()
        inbox._tokens = tokens = Tokens()
        found: list[Task] = []

        def act(line: int, which: int = which, inbox: Inbox = inbox) -> None:
            nonlocal tried
            if line == which:
                tried += 1
                inbox.put(first)

        before = sys.gettrace()
        sys.settrace(lines_of(Inbox.take, act))
        try:
            found += inbox.take(0)[0]
        finally:
            sys.settrace(before)
        if tried == which:
            break  # it has no more lines
        tokens.meanwhile = partial(inbox.put, second)
        while len(found) < 2:
            found += inbox.take(PATIENCE)[0]
            assert not tokens.slept, f"nothing woke the pump after something came before line {which}"
        assert found == [first, second], f"put before line {which}"
    assert tried > 4


class Deaf(MemoryStorage):
    """A storage that nobody can wait at."""

    waits = 0

    def wait(self, channels: Sequence[str], timeout: float, /) -> None:
        self.waits += 1
        raise NotApplied("not there")


def test_a_listener_hears_a_queue_beside_one_that_is_rung_all_the_time() -> None:
    inbox, storage = Inbox(), MemoryStorage()
    listener = Listener(storage, lambda: ["test:high", "test:low"], inbox)
    heard = []
    storage._shared.bell.ring(["test:low"])
    for _ in range(4):
        storage._shared.bell.ring(["test:high"])
        listener.listen(10)
        assert inbox.take(10) == ([], {RUNG})
        listener.listening = False
        heard.append(listener.heard)
    listener.close()
    assert heard == ["test:high", "test:low", "test:high", "test:high"]


def test_a_listener_whose_storage_is_away_does_not_spin() -> None:
    inbox, storage = Inbox(), Deaf()
    listener = Listener(storage, lambda: ["test:low"], inbox)
    begun = time.monotonic()
    for _ in range(2):
        listener.listen(0.2)
        assert inbox.take(10) == ([], {RUNG})
        listener.listening = False
    listener.close()
    assert time.monotonic() - begun >= 0.39, "it waited all the same"
    assert storage.waits == 2


def test_a_listener_can_be_hushed_and_closed() -> None:
    inbox = Inbox()
    listener = Listener(MemoryStorage(), lambda: ["test:low"], inbox)
    before = threading.active_count()
    listener.listen(60)
    listener.hush()
    assert inbox.take(10) == ([], {RUNG})
    listener.listening = False
    listener.listen(60)
    listener.close()
    await_that(lambda: threading.active_count() < before, "its thread has ended")
