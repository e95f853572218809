"""Running jobs in a testing block: one at a time, by the rules of a runner, when a test says so."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, NoReturn

import attrs

from jobqueue.endings import asks
from jobqueue.flows import Flow, Read
from jobqueue.keys import QueueKeys
from jobqueue.logs import name_jobs
from jobqueue.queue import JobQueue
from jobqueue.runner.execute import run_coroutine, run_function
from jobqueue.runner.task import End, Task
from jobqueue.storage.ops import Page
from jobqueue.testing.awaited import watch_also
from jobqueue.testing.backend import CountingChance, KitBackend
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.inline import BEAT_MS, InlineRunner, Run, RunnerDied, TestingError, keep_house
from jobqueue.testing.looking import Looking

__all__ = ["RUNS", "Running", "Tally", "arun_task"]

RUNS: Final = 10_000
"""Runs after which a drain gives up, since something runs in circles."""
MOST_KINDS: Final = 5
"""Kinds that a message counts."""
LATEST: Final = b"\xff" * 64
ORDER: Final = ("done", "retried", "dead", "snoozed", "discarded", "released", "parked", "crashed", "late")


@attrs.define
class Tally:
    """What a drain has done so far."""

    counts: defaultdict[str, int] = attrs.field(factory=lambda: defaultdict(int))
    runs: list[Run] = attrs.field(factory=list)
    failure: BaseException | None = None

    def add(self, runner: InlineRunner) -> None:
        """Count what a runner did."""
        for what, count in runner.counts.items():
            self.counts[what] += count
        self.runs += runner.runs
        runner.runs.clear()  # it and its core hold each other, and an error all that its job held

    def by_kind(self) -> str:
        """Which kinds ran how often, as text."""
        kinds = Counter(run.record.name for run in self.runs)
        return ", ".join(f"{count} of {name!r}" for name, count in kinds.most_common(MOST_KINDS))

    def failed(self, task: Task, *, reraise: bool) -> None:
        """Keep what a job raised, if that is to be raised."""
        self.failure = self.failure or _failure(task.outcome, reraise=reraise)

    def end(self) -> None:
        """Raise the failure of the job that ended it, if one did; the runs are forgotten.

        Otherwise errors would hold themselves, by way of the frames in their tracebacks, and all that their jobs held.
        """
        __tracebackhide__ = True  # pytest shows the frames of the test and of the job, not those between them
        failure, self.failure = self.failure, None
        self.runs.clear()
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def one(self) -> Run | None:
        """The only run there was, if there was one; or raise as `end` does."""
        __tracebackhide__ = True
        run = self.runs.pop() if self.runs and self.failure is None else None
        self.end()
        return run

    def last(self) -> Run:
        """The only run, which there was; or raise as `end` does."""
        __tracebackhide__ = True
        run = self.one()
        assert run is not None, "it neither ended nor raised"
        return run

    def answer(self) -> dict[str, int]:
        """How many runs ended how, without zeros."""
        return {what: self.counts[what] for what in ORDER if what in self.counts}


class Running(Looking):
    """The part of `Testing` that runs jobs.

    Nothing runs by itself. Time passes in `clock` and `jump`, jobs run in `drain`, `run_one` and `run_until_idle`, one at a
    time, by the rules of a `Runner` with a lease of 30 seconds. Functions run where the call is made, in `adrain` and its
    like on a thread; coroutines on an event loop.

    Attributes:
        clock: What time it is.
    """

    def __init__(
        self, jobs: JobQueue, backend: KitBackend, clock: FakeClock, seed: int, chance: CountingChance
    ) -> None:
        super().__init__(jobs, backend, clock, seed)
        name_jobs()
        self._chance = chance
        self._busy = threading.Lock()
        self._storage = backend.storage()
        self._runner: InlineRunner | None = None
        self._tally = Tally()
        self._loop: asyncio.Runner | None = None

    # --------------------------------------------------------------------------------------------------------- running

    def drain(self, *, reraise: bool = True, limit: int = RUNS) -> dict[str, int]:
        """Run all that is due now, also what is enqueued on the way; the clock stands still.

        Args:
            reraise: Raise what a job raised, when that attempt is stored; the jobs behind it stay where they are. What a
                job asks for (`Snooze`, `Discard`, `Retry`) is no failure. False: go on, and count it.
            limit: Runs after which to give up.

        Returns:
            How many runs ended how, without zeros: ``done``, ``retried``, ``dead``, ``snoozed``, ``discarded``,
            ``released`` (it saw that it should stop, and was handed back), ``parked`` (unknown kind), ``crashed``
            (`crash_runner` inside of the job), ``late`` (the job had been taken away; its result was refused).

        Raises:
            TestingError: The limit was reached; or from an event loop (use `adrain`), from a job, or after the block.
        """
        __tracebackhide__ = True
        self._refuse_loop("drain")
        tally = Tally()
        self._run_here("drain", self._work(tally, limit, None, reraise=reraise))
        tally.end()
        return tally.answer()

    async def adrain(self, *, reraise: bool = True, limit: int = RUNS) -> dict[str, int]:
        """See `drain`. To cancel it, or another of its like, is the death of a runner: its job stays in working."""
        __tracebackhide__ = True
        tally = Tally()
        await self._run_on_loop("adrain", self._work(tally, limit, None, reraise=reraise))
        tally.end()
        return tally.answer()

    def run_one(self, *, reraise: bool = True) -> Run:
        """Run the job that a runner would start next, and no other.

        That is the first of the queue with the largest weight (``high`` before the others) that has any.

        Args:
            reraise: Raise what the job raised, when the attempt is stored.

        Returns:
            What became of it: ``result``, ``outcome`` (as in `drain`), ``error`` and ``record``.

        Raises:
            TestingError: Nothing is due; or from an event loop (use `arun_one`), from a job, or after the block.
        """
        __tracebackhide__ = True
        self._refuse_loop("run_one")
        tally = Tally()
        self._run_here("run_one", self._work(tally, RUNS, 1, reraise=reraise))
        return tally.one() or self._nothing_due("run_one")

    async def arun_one(self, *, reraise: bool = True) -> Run:
        """See `run_one`."""
        __tracebackhide__ = True
        tally = Tally()
        await self._run_on_loop("arun_one", self._work(tally, RUNS, 1, reraise=reraise))
        return tally.one() or self._nothing_due("arun_one")

    def run_until_idle(self, *, reraise: bool = False, limit: int = RUNS) -> dict[str, int]:
        """`drain` and `jump` in turn until no job is left but dead ones.

        Args:
            reraise: Raise what a job raised, and stop there. Not by default: retries are what one comes here for.
            limit: Runs after which to give up.

        Returns:
            How many runs ended how, as in `drain`.

        Raises:
            TestingError: As in `drain`.
        """
        __tracebackhide__ = True
        self._refuse_loop("run_until_idle")
        tally = Tally()
        self._run_here("run_until_idle", self._idle(tally, limit, reraise=reraise))
        tally.end()
        return tally.answer()

    async def arun_until_idle(self, *, reraise: bool = False, limit: int = RUNS) -> dict[str, int]:
        """See `run_until_idle`."""
        __tracebackhide__ = True
        tally = Tally()
        await self._run_on_loop("arun_until_idle", self._idle(tally, limit, reraise=reraise))
        tally.end()
        return tally.answer()

    def jump(self) -> timedelta:
        """Advance the clock to the next moment at which a job is due that is not due yet, and answer how far that was.

        The job of a runner that died counts too: it is due when others may take it.

        Raises:
            TestingError: There is no such job; or from an event loop (use `ajump`), or after the block.
        """
        self._refuse_loop("jump")
        return self._jump("jump")

    async def ajump(self) -> timedelta:
        """See `jump`."""
        return self._jump("ajump")

    # ---------------------------------------------------------------------------------------------------------- inside

    def _work(self, tally: Tally, limit: int, most: int | None, *, reraise: bool) -> Generator[Task, None, None]:
        """Yield each job to be run; stop after ``most`` runs, or at a failure that is to be raised."""
        self._tally = tally
        self._keep_house()
        died = True
        while died:
            runner = self._new_runner()
            outer, self._runner = self._runner, runner  # there is one where a job waits for others: `pause_runner`
            beyond: Task | None = None
            for task in runner.work(most):
                if limit <= 0:
                    beyond, task.end = task, End.HANDED_BACK
                    runner.stop()
                    continue
                limit -= 1
                yield task
                tally.failed(task, reraise=reraise)
                if tally.failure is not None:
                    runner.stop()
            self._runner = outer
            tally.add(runner)
            if beyond is not None:
                raise TestingError(
                    f"gave up after {len(tally.runs)} runs ({tally.by_kind()}), before another one of "
                    f"{beyond.stored.name!r}: does a job enqueue itself, or retry or snooze without end? If so many runs "
                    "are meant, say limit=…"
                )
            # Another runner goes on with what the dead one did not hold.
            died = runner.died is not None and most is None and tally.failure is None

    def _idle(self, tally: Tally, limit: int, *, reraise: bool) -> Generator[Task, None, None]:
        while True:
            yield from self._work(tally, limit - len(tally.runs), None, reraise=reraise)
            if tally.failure is not None or self._next_moment() is None:
                return
            self._jump("run_until_idle")

    def _run_here(self, call: str, work: Generator[Task, None, None]) -> None:
        with self._alone(call):
            for task in work:
                self._run_task(task, self.clock.monotonic)

    async def _run_on_loop(self, call: str, work: Generator[Task, None, None]) -> None:
        with self._alone(call):
            for task in work:
                await arun_task(task, self.clock.monotonic)

    def _run_task(self, task: Task, monotonic_ms: Callable[[], float]) -> None:
        if _is_coroutine(task):
            if self._loop is None:
                # With a factory of its own it leaves the thread's current event loop, and its end, alone.
                self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            # In a task of its own: what Ctrl-C cancels is the one around it, and not the job's business.
            self._loop.run(arun_task(task, monotonic_ms))
        else:
            run_function(task, monotonic_ms)

    def _new_runner(self) -> InlineRunner:
        return InlineRunner(
            self._jobs.registry,
            self._all_keys,
            self._queues,
            self._storage,
            self.clock,
            self._chance.entropy(16).hex().encode(),
            jitter=self._chance.jitter,
            changes=lambda: self._history.calls,
        )

    def _keep_house(self) -> None:
        keep_house(self._all_keys, self._keys(), self._backend.direct, self.clock)

    def _jump(self, call: str) -> timedelta:
        self._check_open(call)
        moment = self._next_moment()
        if moment is None:
            raise TestingError(f"{call}(): no job becomes due later; {self._next()}")
        distance = timedelta(milliseconds=moment - self.clock.now())
        self.clock.advance(distance)
        return distance

    def _next_moment(self) -> int | None:
        """When (ms) something becomes due that is not due yet."""
        now = self.clock.now()
        moments = []
        for queue in self._keys():
            moments += self._read(_ahead(queue, now))
        return min(moments, default=None)

    def _nothing_due(self, call: str) -> NoReturn:
        raise TestingError(f"{call}(): no job is due; {self._next()}")

    def _next(self) -> str:
        moment = self._next_moment()
        if moment is not None:
            return f"the next one is in {timedelta(milliseconds=moment - self.clock.now())}: jump() goes there"
        ready = len(self._find("ready", "waiting"))
        return f"{ready} are due now: drain() runs them" if ready else "nothing is enqueued"

    def _refuse_loop(self, call: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise TestingError(f"{call}() cannot be called inside of a running event loop: use `await t.a{call}()`")

    def _check_open(self, call: str) -> None:
        if not self._jobs.access.uses(self._backend):
            raise TestingError(f"{call}(): this testing() block has ended, or another one inside of it is open")

    @contextmanager
    def _alone(self, call: str) -> Iterator[None]:
        self._check_open(call)
        if not self._busy.acquire(blocking=False):
            raise TestingError(f"{call}(): jobs are being run already; a job, or another thread, cannot run them too")
        try:
            yield
        finally:
            self._runner = None
            self._busy.release()

    def close(self) -> None:
        """End the event loop on which coroutine jobs ran; the end of the block does this."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


watch_also(Running, lambda running: running._jobs.access)  # noqa: SLF001 - its own module


def _ahead(queue: QueueKeys, now: int) -> Flow[list[int]]:
    """When (ms) the next waiting job of a queue is due, and when the next held one may be taken."""
    waiting = Page(queue.waiting, 1, after=(now, LATEST))
    held = Page(queue.working, 1, after=(now - 2 * BEAT_MS, LATEST))
    [dues, ends] = yield Read((waiting, held))
    return [due for _, due in dues] + [end + 2 * BEAT_MS for _, end in ends]


async def arun_task(task: Task, monotonic_ms: Callable[[], float]) -> None:
    """Run a job from an event loop; what a driver's `run_function` and `run_coroutine` do."""
    if not _is_coroutine(task):
        # On a thread, as a runner does: it may call asyncio.run, or wait for what this loop serves.
        await asyncio.to_thread(run_function, task, monotonic_ms)
        return
    running = asyncio.create_task(run_coroutine(task, monotonic_ms))
    try:
        # Shielded, or the job would take for its own a cancellation that is meant for the drain.
        await asyncio.shield(running)
    except asyncio.CancelledError:
        task.cancelled = True
        running.cancel()
        await asyncio.wait([running])
        raise


def _is_coroutine(task: Task) -> bool:
    assert task.kind is not None
    return task.kind.is_coroutine


def _failure(error: BaseException | None, *, reraise: bool) -> BaseException | None:
    """What is to be raised of what a job raised.

    An interrupt of the whole test run, or the verdict of a test framework, always is: these are no `Exception`.
    """
    if asks(error) or isinstance(error, RunnerDied):
        return None
    own = isinstance(error, Exception | SystemExit | asyncio.CancelledError)
    return error if reraise or not own else None
