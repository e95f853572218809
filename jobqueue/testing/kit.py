"""`JobQueue.testing`: the real rules, over a storage of a test's own and a clock that the test moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self

import attrs

from jobqueue.context import current_context
from jobqueue.queue import JobQueue
from jobqueue.record import JobRecord
from jobqueue.runner.task import End, Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.protocol import Storage
from jobqueue.testing.awaited import Watch, watch_also
from jobqueue.testing.backend import FOREVER, CountingChance, KitBackend
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.inline import BEAT_MS, LEASE_MS, InlineRunner, Run, RunnerDied, TestingError
from jobqueue.testing.running import RUNS, Running, Tally, arun_task
from jobqueue.testing.server import Server

__all__ = ["Cut", "Testing", "open_testing"]

TAKEN: Final = timedelta(milliseconds=LEASE_MS + 3 * BEAT_MS + 1_000)
"""After this time others have taken the job of a runner that is silent: its lease, three beats and a call."""
MOST: Final = 100
"""Replies and calls that a test may lose at once."""


class Cut:
    """A server that is out of reach, until the end of a ``with`` block if it is used as one."""

    def __init__(self, backend: KitBackend, before: int) -> None:
        self._backend = backend
        self._before = before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._backend.cut(self._before)


@attrs.frozen
class _Paused:
    """A runner that stands still before the first line of its job.

    Attributes:
        runner: The runner.
        work: What it would go on with.
        task: The job.
        since: When (local ms) it stopped.
    """

    runner: InlineRunner
    work: Generator[Task, None, None]
    task: Task
    since: float

    def started(self, clock: FakeClock) -> float:
        """The time (local ms) by which the runner judged that the job could start: it looked before it stood still."""
        self.task.lease_lost = clock.monotonic() >= self.task.deadline  # the job is told, and has begun nevertheless
        return self.since


class Testing(Running):
    """What a test does with a `JobQueue` whose storage was swapped: see `JobQueue.testing`.

    Nothing runs by itself. Time passes in `clock` and `jump`, jobs run in `drain`, `run_one` and `run_until_idle`, one at a
    time, by the rules of a `Runner` with a lease of 30 seconds. Functions run where the call is made, in `adrain` and its
    like on a thread; coroutines on an event loop.

    Attributes:
        clock: What time it is.
        seed: Where all chance of the block comes from.
    """

    __test__ = False

    def __init__(
        self, jobs: JobQueue, backend: KitBackend, clock: FakeClock, seed: int, chance: CountingChance
    ) -> None:
        super().__init__(jobs, backend, clock, seed, chance)
        self._paused: deque[_Paused] = deque()

    # --------------------------------------------------------------------------------------------------------- runners

    def crash_runner(self) -> JobRecord[Any]:
        """Let a runner die while it holds a job, without a word to the storage.

        In a test: it takes the job that `run_one` would run, and dies before running it. Inside of a job: it dies at this
        line; what the job did so far stays done, and `drain` counts it as ``crashed``, whatever the job makes of the
        exception that ends it (its ``finally`` blocks run, which those of a killed process do not). Either way the job stays
        in working until its lease is over (30 s) and others have looked twice (10 s): from then on the next drain runs it.
        So ``clock.advance(seconds=46)`` is always enough, and `jump` knows the moment.

        Returns:
            The job it held.

        Raises:
            TestingError: Nothing is due; or after the block.
        """
        held = self._held()
        if held is not None:
            self._history.note(held.id, "its runner died in the middle of it")
            held.end = End.CRASHED
            raise RunnerDied(f"the runner of job {held.id.decode()} dies here")
        _, work, task = self._claim("crash_runner")
        work.close()
        self._history.note(task.id, "its runner died before it began")
        return task.job_record()

    def pause_runner(self) -> JobRecord[Any]:
        """Let a runner stand still with its job and send no beats, until it goes on as if nothing had been: a zombie.

        In a test: it takes the job that `run_one` would run and stands still before the job's first line, until
        `resume_runner`. Inside of a job: it stands still at this line for 46 seconds, in which other runners run what is
        due, this job too; then the line is left, with ``ctx.lease_lost`` set. If another runner has taken the job, the
        result of the zombie is refused, and it counts as ``late``.

        Returns:
            The job it holds.

        Raises:
            TestingError: Nothing is due; or after the block; or from a coroutine (use `apause_runner`).
        """
        held = self._held()
        if held is not None:
            self._refuse_loop("pause_runner")
            for task in self._others_work(held):
                self._run_task(task, self.clock.monotonic)
            self._history.note(held.id, "its runner went on")
            return held.job_record()
        runner, work, task = self._claim("pause_runner")
        self._history.note(task.id, "its runner stood still before it began")
        self._paused.append(_Paused(runner, work, task, self.clock.monotonic()))
        return task.job_record()

    async def apause_runner(self) -> JobRecord[Any]:
        """See `pause_runner`."""
        held = self._held()
        if held is None:
            return self.pause_runner()
        for task in self._others_work(held):
            await arun_task(task, self.clock.monotonic)
        self._history.note(held.id, "its runner went on")
        return held.job_record()

    def resume_runner(self, *, reraise: bool = True) -> Run:
        """Let the runner that `pause_runner` stopped in this test go on: it runs its job.

        Args:
            reraise: Raise what the job raised.

        Returns:
            What became of it: ``late`` if another runner has taken the job meanwhile.

        Raises:
            TestingError: None stands still; or from an event loop (use `aresume_runner`), from a job, or after the block.
        """
        __tracebackhide__ = True
        self._refuse_loop("resume_runner")
        tally = Tally()
        with self._alone("resume_runner"):
            for task, paused in self._go_on(tally, reraise=reraise):
                self._run_task(task, partial(paused.started, self.clock))
        return tally.last()

    async def aresume_runner(self, *, reraise: bool = True) -> Run:
        """See `resume_runner`."""
        __tracebackhide__ = True
        tally = Tally()
        with self._alone("aresume_runner"):
            for task, paused in self._go_on(tally, reraise=reraise):
                await arun_task(task, partial(paused.started, self.clock))
        return tally.last()

    # ---------------------------------------------------------------------------------------------------------- server

    def lose_reply(self, times: int = 1) -> None:
        """Let the storage carry out the next call of code under test, or of the runner, and lose its reply.

        Both send again what cannot harm: an enqueue two times before it raises `OutcomeUnknown`, so that takes three
        losses; a runner until it is answered. Nothing waits for real in between.

        Args:
            times: How many replies to lose.

        Raises:
            ValueError: ``times`` is not from 1 to 100.
            TestingError: After the block.
        """
        _check_times(times)
        self._check_open("lose_reply")
        self._backend.lose(times)

    def cut_server(self, times: int | None = None) -> Cut:
        """Let the next calls of code under test, or of the runner, not reach the storage: `NotApplied`.

        A runner waits and asks again, which takes no time here; so jobs can be run under a cut only if it ends by itself.

        Args:
            times: How many calls; None: all until the end of the ``with`` block, or of the testing block without one.

        Returns:
            What a ``with`` block can end.

        Raises:
            ValueError: ``times`` is not from 1 to 100.
            TestingError: After the block.
        """
        if times is not None:
            _check_times(times)
        self._check_open("cut_server")
        before = self._backend.cut(FOREVER if times is None else times)
        return Cut(self._backend, before)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _held(self) -> Task | None:
        """The job from which the call comes, if it comes from one that is run here."""
        task = None if self._runner is None else self._runner.current
        try:
            return task if task is not None and current_context().fence == task.fence else None
        except LookupError:
            return None

    def _claim(self, call: str) -> tuple[InlineRunner, Generator[Task, None, None], Task]:
        with self._alone(call):
            self._keep_house()
            runner = self._new_runner()
            work = runner.work(1)
            task = next(work, None)
        if task is None:
            self._nothing_due(call)
        return runner, work, task

    def _others_work(self, held: Task) -> Generator[Task, None, None]:
        """What other runners run while the one that holds this job stands still."""
        self._check_open("pause_runner")
        self._history.note(held.id, "its runner stood still in the middle of it")
        self.clock.advance(TAKEN)
        yield from self._work(self._tally, RUNS, None, reraise=False)
        held.lease_lost = True

    def _go_on(self, tally: Tally, *, reraise: bool) -> Generator[tuple[Task, _Paused], None, None]:
        if not self._paused:
            raise TestingError("resume_runner(): no runner stands still; pause_runner() stops one")
        paused = self._paused.popleft()
        self._runner = paused.runner
        self._history.note(paused.task.id, "its runner went on")
        yield paused.task, paused
        tally.failed(paused.task, reraise=reraise)
        for task in paused.work:
            raise AssertionError(f"a runner of one job started {task.id!r} too")
        tally.add(paused.runner)

    def close(self) -> None:
        """Let the runners go that stand still, and end the event loop; the end of the block does this."""
        for paused in self._paused:
            paused.work.close()
        self._paused.clear()
        super().close()


watch_also(Testing, lambda testing: testing._jobs.access)  # noqa: SLF001 - its own module


MEMORY: Final = "memory://"


def _check_times(times: int) -> None:
    if not 1 <= times <= MOST:
        raise ValueError(f"times must be from 1 to {MOST}, not {times}")


@contextmanager
def _storage(jobs: JobQueue, server: Server | str | None) -> Iterator[tuple[str, Storage, str | None]]:
    """What to call it, the storage, and the namespace if it is another one."""
    with ExitStack() as stack:
        if server is None or server == MEMORY:
            yield "memory", MemoryStorage(), None
            return
        if isinstance(server, str):
            server = stack.enter_context(Server(server))
        storage, namespace = stack.enter_context(server.lend(jobs.namespace))
        yield server.url, storage, namespace


@contextmanager
def open_testing(
    jobs: JobQueue, start: datetime | None = None, *, server: Server | str | None = None, seed: int = 0
) -> Iterator[Testing]:
    """See `JobQueue.testing`.

    Args:
        jobs: Whose storage to swap.
        start: What the fake clock shows at first.
        server: A server instead of memory, or its URL.
        seed: Where all chance of the block comes from.

    Raises:
        JobQueueError: Another thread has a block open on this `JobQueue`.
        TestingError: At the end: an ``a…`` call was never awaited.
        ValueError: ``start`` has no time zone.
        DeclarationError: Nothing can open the URL.
        NotApplied: The server cannot be reached.
    """
    clock = FakeClock(start)
    # Blocks inside of one another share no ids.
    chance = CountingChance(f"{seed}/{jobs.access.depth}")
    with _storage(jobs, server) as (url, storage, namespace):
        backend = KitBackend(clock, storage, url)
        clock.watch(backend.wake)
        restore: Callable[[], None] = jobs.access.replace(backend, namespace=namespace, chance=chance, pauses=False)
        testing = Testing(jobs, backend, clock, seed, chance)
        try:
            with Watch(jobs.access) as watch:
                jobs.counts()  # the first use of a namespace marks it; here and now, so that no lost reply concerns that
                yield testing
                unused = watch.unused()
        finally:
            restore()
            testing.close()
    if unused:
        calls = "\n".join(f"  {call}" for call in unused)
        raise TestingError(
            f"never awaited, so nothing happened:\n{calls}\nwrite `await` in front, or use the sync twin"
        )
