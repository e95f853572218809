"""Whatever a job raises or returns: a failed attempt with a text, or what it asked for. Nothing of it ends what runs it."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobqueue import JobQueue, judge
from jobqueue.runner.execute import run_function
from jobqueue.runner.task import Task
from jobqueue.runner.threads import Inbox
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import check_job
from tests.faults.ledger import await_that
from tests.runner.apps import hostile
from tests.runner.apps.hostile import DISCARDED, FAILED, LANES
from tests.runner.running import drained, run_until_drained, running
from tests.servers import kinds

pytestmark = pytest.mark.filterwarnings("error:.*never awaited:RuntimeWarning")


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    """The queue of these jobs, in memory."""
    hostile.jobs.relocate(url="memory://", namespace="hostile")
    with hostile.jobs:
        yield hostile.jobs


@pytest.fixture
def server(running_servers: Any) -> Iterator[JobQueue]:
    """The same on a server."""
    running = running_servers(kinds()[0])
    running.flush()
    hostile.jobs.relocate(url=running.url, namespace="elsewhere")
    with hostile.jobs:
        yield hostile.jobs


def first_lines(jobs: JobQueue) -> dict[tuple[str, str], str]:
    """Lane, and what each job was to do → the first line of the error it is dead with."""
    told = {}
    for record in jobs.find(place="dead", limit=1_000):
        call = jobs.decode(record)
        told[call.kind.name, str(call.arguments["what"])] = (record.error or "").split("\n")[0]
    return told


class World:
    """What `check_job` watches: nothing happens in it."""

    def act(self) -> None: ...


@contextmanager
def nothing() -> Iterator[None]:
    yield


# ------------------------------------------------------------------------------------------------------- in every lane


@pytest.mark.parametrize("where", ["jobs", "server"])
def test_whatever_comes_back_ends_nothing_but_its_run(
    where: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    jobs: JobQueue = request.getfixturevalue(where)
    jobs.enqueue_many([call(what) for call in LANES.values() for what in [*FAILED, *DISCARDED]])
    runner = run_until_drained(jobs, threads=1, job_processes=1)

    told = first_lines(jobs)
    assert sorted(told) == sorted((lane, what) for lane in LANES for what in FAILED)
    assert [what for what, text in told.items() if not text] == []
    status = runner.status
    failed, discarded = len(LANES) * len(FAILED), len(LANES) * len(DISCARDED)
    assert (status.failed, status.dead, status.discarded) == (failed, failed, discarded)
    assert (status.done, status.crashed, status.late) == (0, 0, 0)
    assert "broke off" not in caplog.text
    assert "given up" not in caplog.text


def test_what_the_texts_say(jobs: JobQueue) -> None:
    jobs.enqueue_many([hostile.on_a_thread.call(what) for what in FAILED])
    run_until_drained(jobs, threads=1)

    told = {what: text for (_, what), text in first_lines(jobs).items()}
    where = "tests.runner.apps.hostile"
    assert told["raise no text"] == f"{where}.NoText: its text could not be made, that raised KeyError"
    assert told["raise interrupts"] == f"{where}.Interrupts: its text could not be made, that raised KeyboardInterrupt"
    assert told["raise no attributes"] == f"{where}.NoAttributes"
    assert told["raise syntax error of a template"] == "SyntaxError: x (m.html, line 3)"
    assert told["raise opaque"] == f"{where}.Opaque"
    assert told["raise sly text"] == f"{where}.SlyText: sly"
    assert told["raise surrogates"] == "ValueError: \\udcff"
    assert "SnoozeWithout" in told["raise snooze without"]
    assert "call super().__init__(…)" in told["return a snooze without"]
    assert told["raise retry without"] == f"{where}.RetryWithout: it asked for another run"
    assert told["return a coroutine"] == (
        "TypeError: the job returned an awaitable (coroutine '_coroutine'), and nobody awaits it, so its work is not done: "
        "await it in an `async def`; where a decorator made a plain function of one, put @jobs.job below that decorator"
    )
    assert "a generator (generator '_generator'), and nothing of it has run" in told["return a generator"]
    assert told["return Discard"].endswith("return or raise an instance, as in `return Discard()`")


@pytest.mark.parametrize("job", [hostile.picky, hostile.picky_thread])
def test_a_retry_policy_that_fails_is_replaced_by_the_default(jobs: JobQueue, job: Any) -> None:
    record = job.enqueue()
    with running(jobs, job_processes=1) as runner:
        await_that(lambda: runner.status.retried, "it failed once")

    again = jobs.get(record.id)
    assert again is not None
    first = str(again.error).split("\n")[0]
    assert first.startswith("ValueError: picked (its retry policy failed, so it is retried: KeyError: ")
    assert "(its backoff failed, the default was used: SystemExit: 1)" in first
    assert 100 < (again.due - again.created).total_seconds() < 140


def test_a_run_that_cannot_be_judged_is_a_failed_attempt(jobs: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = judge._after_run, itertools.count()

    def fails_at_first(*args: Any) -> judge.Verdict:
        if next(asked) % 2 == 0:
            raise SystemExit(1)
        return real(*args)

    monkeypatch.setattr(judge, "_after_run", fails_at_first)
    jobs.enqueue_many([hostile.on_a_thread.call("raise no text")] * 2)
    run_until_drained(jobs)

    assert {
        record.error is not None and "could not be judged: SystemExit: 1" in record.error for record in jobs.dead()
    } == {True}


# ----------------------------------------------------------------------------------------------------- in the testing kit


ERRORS = [what for what in FAILED if what != "raise exits"]
"""Without one that is no `Exception`: a testing block always raises those."""
ASKED = {"raise retry without", "return a retry without", "raise the class Retry", "raise snooze twice"}
"""What is no failure to a test: it asked for something."""


@pytest.mark.parametrize("lane", ["thread", "loop"])
def test_in_a_testing_block(lane: str) -> None:
    with hostile.jobs.testing() as t:
        hostile.jobs.enqueue_many([LANES[lane](what) for what in [*ERRORS, *DISCARDED]])
        assert t.drain(reraise=False) == {"dead": len(ERRORS), "discarded": len(DISCARDED)}
        raised = set()
        for what in FAILED:
            hostile.jobs.enqueue(LANES[lane](what))
            try:
                t.drain()
            except (Exception, SystemExit, hostile.Exits):  # noqa: BLE001 - any of these
                raised.add(what)
        assert raised == {*FAILED} - ASKED


async def test_in_a_testing_block_on_a_loop() -> None:
    with hostile.jobs.testing() as t:
        await hostile.jobs.aenqueue_many([LANES[lane](what) for what in ERRORS for lane in ("thread", "loop")])
        assert await t.adrain(reraise=False) == {"dead": 2 * len(ERRORS)}


@pytest.mark.parametrize("lane", ["thread", "loop"])
@pytest.mark.parametrize("what", ["raise no text", "raise no class", "raise snooze without", "return a coroutine"])
def test_in_check_job(lane: str, what: str) -> None:
    report = check_job(
        LANES[lane](what), world=World, use=lambda world: nothing(), effects=["act"], state=lambda _: None
    )
    assert report.verdict == "not checked", "its clean run fails"


# --------------------------------------------------------------------------------------------- threads, loops, processes


@pytest.fixture
def plain() -> Iterator[JobQueue]:
    """An empty queue in memory."""
    with JobQueue(storage=MemoryStorage(), namespace="plain") as queue:
        yield queue


def interrupt(thread: int) -> None:
    """Raise an exception in a thread, as libraries do that give functions a timeout; it comes when the thread goes on."""
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TimeoutError)) == 1


def test_a_thread_that_is_interrupted_between_two_jobs_goes_on(
    plain: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    runs: Counter[str] = Counter()
    idents: list[int] = []

    @plain.job(name="work")
    def work(key: str) -> None:
        idents.append(threading.get_ident())
        runs[key] += 1

    with running(plain, threads=1) as runner:
        for number, key in enumerate("abc", 1):
            work.enqueue(key)
            await_that(lambda number=number: runner.status.done == number, "it ran")  # type: ignore[misc]
            interrupt(idents[-1])
        work.enqueue("d")
        await_that(lambda: runs["d"], "the thread still runs jobs")
        await_that(drained(plain), "all ended")
    assert runs == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert caplog.text.count("broke off") == 3


@pytest.mark.parametrize("late", [False, True])
def test_the_job_of_a_thread_that_breaks_off_is_not_held_for_ever(
    plain: JobQueue, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed; or, if the job had ended, its end counts, and counts once."""
    runs: Counter[int] = Counter()

    @plain.job(name="work", retry=0)
    def work(number: int) -> None:
        runs[number] += 1

    plain.enqueue_many([work.call(number) for number in range(6)])
    broken: list[int] = []
    if late:
        put = Inbox.put

        def breaks(self: Inbox, task: Task) -> None:
            put(self, task)
            if len(broken) < 3:
                broken.append(1)
                raise SystemExit(1)

        monkeypatch.setattr(Inbox, "put", breaks)
    else:

        def run(task: Task, *how: Any) -> None:
            if len(broken) < 3:
                broken.append(1)
                raise KeyboardInterrupt
            run_function(task, *how)

        monkeypatch.setattr("jobqueue.runner.threads.run_function", run)
    runner = run_until_drained(plain, threads=2)

    assert broken == [1, 1, 1]
    assert (runner.status.done, runner.status.dead, runner.status.late) == ((6, 0, 0) if late else (3, 3, 0))
    assert {record.error is not None and record.error.split("\n")[0] for record in plain.dead()} <= {
        "KeyboardInterrupt"
    }


def test_an_event_loop_that_a_job_closed_is_replaced(plain: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @plain.job(name="waits", retry=0)
    async def waits() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.Event().wait()

    @plain.job(name="breaks", retry=0)
    async def breaks() -> None:
        def select(_: object) -> None:
            raise OSError("its descriptor is closed")

        loop: Any = asyncio.get_running_loop()
        loop._selector.select = select

    @plain.job(name="works")
    async def works() -> None:
        loops.append(asyncio.get_running_loop())

    with running(plain) as runner:
        waits.enqueue()
        await_that(lambda: loops, "it waits")
        breaks.enqueue()
        await_that(lambda: runner.status.dead, "it failed with its loop")
        works.enqueue()
        await_that(lambda: len(loops) == 2, "there is another loop")
    assert loops[0] is not loops[1]
    [error] = [(record.error or "").split("\n")[0] for record in plain.dead() if record.name == "waits"]
    assert error == "RuntimeError: the event loop that this job ran on was closed or broken by a job"
    assert "broke off" in caplog.text


def test_a_loop_that_makes_no_tasks_fails_its_jobs(plain: JobQueue) -> None:
    @plain.job(name="breaks")
    async def breaks() -> None:
        def factory(*_: Any, **__: Any) -> Any:
            raise ValueError("no task")

        asyncio.get_running_loop().set_task_factory(factory)

    @plain.job(name="works", retry=0)
    async def works() -> None: ...

    breaks.enqueue()
    run = running(plain)
    with run as runner:
        await_that(lambda: runner.status.done == 1, "it ended")
        plain.enqueue_many([works.call()] * 3)
        await_that(lambda: runner.status.dead == 3, "they failed")
    assert {(record.error or "").split("\n")[0] for record in plain.dead()} == {"ValueError: no task"}


def test_a_worker_process_without_standard_output_runs_the_next_job(jobs: JobQueue) -> None:
    jobs.enqueue_many([hostile.closes_stdout.call(number) for number in range(4)])
    runner = run_until_drained(jobs, job_processes=1)
    assert (runner.status.done, runner.status.crashed) == (4, 0)


def test_a_worker_process_that_left_its_group_is_killed_all_the_same(jobs: JobQueue) -> None:
    hostile.leaves_its_group.enqueue()
    hostile.after_in_a_process.enqueue()
    runner = run_until_drained(jobs, job_processes=1)
    [dead] = jobs.dead()
    assert str(dead.error).startswith("TimeoutError: timed out after 0.3 s")
    assert runner.status.done == 1


def test_a_loop_that_was_closed_behind_the_end_of_its_turn_is_replaced(plain: JobQueue) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @plain.job(name="closes", retry=0)
    async def closes() -> None:
        loop: Any = asyncio.get_running_loop()
        soon = loop.call_soon

        def closed(callback: Any, *args: Any, context: Any = None) -> Any:
            if callback.__name__ == "turned":
                raise RuntimeError("Event loop is closed")
            return soon(callback, *args, context=context)

        loop.call_soon = closed
        loop.stop()

    @plain.job(name="works")
    async def works() -> None:
        loops.append(asyncio.get_running_loop())

    with running(plain):
        closes.enqueue()
        await_that(drained(plain), "it has ended")
        works.enqueue()
        await_that(lambda: loops, "there is another loop")


def test_a_loop_whose_tasks_are_none_fails_its_jobs(plain: JobQueue) -> None:
    @plain.job(name="breaks")
    async def breaks() -> None:
        def factory(*_: Any, **__: Any) -> Any:
            return None

        asyncio.get_running_loop().set_task_factory(factory)

    @plain.job(name="works", retry=0)
    async def works() -> None: ...

    with running(plain) as runner:
        breaks.enqueue()
        await_that(lambda: runner.status.done, "the loop is broken")
        works.enqueue()
        await_that(lambda: runner.status.dead, "it is not held for ever")
