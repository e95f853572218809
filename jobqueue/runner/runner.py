"""`Runner`: the threads, sockets, signals and clocks around the runner's core."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec

from jobqueue import lookup, meta, transitions
from jobqueue.clock import Moment, going
from jobqueue.drive import run
from jobqueue.durations import milliseconds
from jobqueue.errors import DeclarationError, StorageError
from jobqueue.job import Lane
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.logs import AnyLogger, Careful, counted
from jobqueue.queue import DEFAULT_QUEUES, JobQueue
from jobqueue.runner.aio import Loop, loop_maker
from jobqueue.runner.beat import Heart
from jobqueue.runner.beside import Background, on_a_thread, refuse_loop
from jobqueue.runner.decisions import Config, Leave, LookAround, Rest
from jobqueue.runner.duties import Duties, Reports
from jobqueue.runner.duty_thread import DutyThread
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import JobsRescued, to_all
from jobqueue.runner.greeting import doubtful, persistence
from jobqueue.runner.journal import Journal, RunnerStatus, count
from jobqueue.runner.leaving import lasting, leave_process, watch_the_end
from jobqueue.runner.outstanding import lanes_of
from jobqueue.runner.process_child import is_importing
from jobqueue.runner.processes import Processes, cores
from jobqueue.runner.rehearsal import Patience, rehearse
from jobqueue.runner.report import Reporter
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.settings import check_count, check_lease, check_weights, default_weight
from jobqueue.runner.signals import SignalsToStop
from jobqueue.runner.task import Task
from jobqueue.runner.threads import RUNG, STOP, UNHEARD, Inbox, Listener, Pool, Work
from jobqueue.runner_info import Beat
from jobqueue.storage.protocol import Storage
from jobqueue.storage.wrappers import overlapped
from jobqueue.version import __version__
from jobqueue.words import explains

__all__ = ["Runner", "RunnerStatus"]

LISTEN_S: Final = 30.0
LOOK_AGAIN_S: Final = 0.5
KEEP_DEAD: Final = timedelta(days=180)


@explains("Runner")
class Runner:
    """Claims jobs and runs them: functions on threads or in processes, coroutines on one event loop.

    Args:
        jobs: The `JobQueue` whose jobs it runs; its ``imports`` are imported when it starts.
        threads: How many functions run at a time.
        coroutines: How many coroutines run at a time.
        job_processes: How many functions declared with ``process=True`` run at a time, each in a process; by default as
            many as there are cores. A process is started when the first such job comes, and runs one after the other.
        jobs_per_process: After so many jobs a process is replaced by a new one, which frees what jobs leaked.
        queues: Queue → weight, or queue names. None serves every queue that a kind declares or the storage knows, with
            weight 1 (``high`` 2).
        strict: Serve a queue only while no queue of a larger weight has work; it may starve. Without it queues share by
            weight, and none starves.
        lease: For how long a claim is good without a beat, in seconds; six beats a lease. The jobs of a runner that died
            start again after the lease and about three beats.
        grace: How long running jobs may go on after a stop, in seconds; the rest is handed back.
        keep_dead: How long dead jobs are kept, in seconds or as a `timedelta`; 180 days by default.
        uvloop: Run coroutine jobs on uvloop's event loop, which is faster; not with `arun`, where the loop is yours.
        named: Called with the runner's name (its incarnation) before anything is claimed under it: at the start, and again
            after the storage lost its data. On one of the runner's threads.
        logger: Where to log to instead of ``jobqueue.runner``; an adapter is fine too.

    Raises:
        DeclarationError: An argument cannot work.
    """

    def __init__(
        self,
        jobs: JobQueue,
        *,
        threads: int = 8,
        coroutines: int = 100,
        job_processes: int | None = None,
        jobs_per_process: int = 1_000,
        queues: Mapping[str, int] | Iterable[str] | None = None,
        strict: bool = False,
        lease: float | timedelta = 30,
        grace: float | timedelta = 30,
        keep_dead: float | timedelta = KEEP_DEAD,
        uvloop: bool = False,
        named: Callable[[bytes], None] | None = None,
        logger: AnyLogger | None = None,
    ) -> None:
        if not isinstance(jobs, JobQueue):
            raise DeclarationError(f"a Runner takes a JobQueue, as in Runner(jobs, queues=…), not {jobs!r}")
        self.jobs = jobs
        self.status = RunnerStatus()
        self._threads = check_count("threads", threads, 1)
        self._coroutines = check_count("coroutines", coroutines, 1)
        self._job_processes = check_count("job_processes", cores() if job_processes is None else job_processes, 1)
        self._jobs_per_process = check_count("jobs_per_process", jobs_per_process, 1)
        self._weights = None if queues is None else check_weights(queues)
        self._strict = strict
        self._lease, self._beat = check_lease(lease)
        self._grace = milliseconds(grace, "grace")
        self._keep_dead = milliseconds(keep_dead, "keep_dead")
        self._new_loop = loop_maker(uvloop=uvloop)
        self._named = named
        self._log = Careful("jobqueue.runner" if logger is None else logger)
        self._inbox = Inbox(Reporter(self._log))
        self._guard = threading.Lock()  # between the pump and the beat
        self._running = False
        self._signals: SignalsToStop | None = None
        self._caller: asyncio.Task[Any] | None = None
        self._journal = Journal(self.status, self._inbox.report, jobs.registry.names)
        self._observe = to_all(partial(count, self.status), self._journal.observe)

    def stop(self) -> None:
        """Ask the runner to end: no more claims, running jobs end within the grace time, the rest is handed back.

        Returns at once; callable from any thread, and before `run`.
        """
        self._inbox.say(STOP)

    def run(self, *, signals: bool = True, until_empty: bool = False) -> None:
        """Run until SIGTERM, SIGINT, SIGHUP or `stop`.

        Args:
            until_empty: Return as well when nothing is ready or due in the queues served and the jobs of this runner have
                ended. Jobs that are due later (also retries), and jobs that other runners hold, do not count. A
                storage that cannot be reached at the start is waited for as long as a lease.
            signals: Handle these signals: the first ends as `stop` does, a second leaves the process at once with 128
                and the signal's number. The same one again within a second counts as one, and SIGHUP is left alone where
                it is ignored (`nohup`) or handled already. Only the main thread can; elsewhere pass False. A job whose
                thread does not end within the grace time is handed back and, with ``signals``, the process is left with
                exit code 0. So it is when your program has ended, the grace time is over, and threads or processes that
                jobs have left behind (work in an executor) still keep it alive. With False the process is yours: such
                work keeps it alive.

        Raises:
            DeclarationError: A module in ``imports`` does not exist, or no kind was declared; or an event loop runs here.
            StorageError: The storage was refused at the start; with ``until_empty`` also if not reached for a lease.
        """
        refuse_loop()
        if not signals:
            self._pump(None, until_empty)
            return
        if threading.current_thread() is not threading.main_thread():
            raise DeclarationError("only the main thread can handle signals: call run(signals=False) and stop() here")
        there = lasting()
        self._signals = SignalsToStop(self.stop, self._inbox, self._log)
        with self._signals:
            hard = self._pump(None, until_empty)
        if hard:
            # The threads of these jobs cannot be ended, and their jobs have been handed back: they must not go on here.
            self._log.warning(
                "some jobs have not ended within the grace time; they were handed back, the process is left"
            )
            leave_process()
        watch_the_end(there, (self._stopped_at + self._grace - self._clock.monotonic()) / 1000, self._log)

    async def arun(self, *, until_empty: bool = False) -> None:
        """Run on the running event loop until `stop`, or until the awaiting task is cancelled.

        Args:
            until_empty: See `run`.

        Coroutine jobs run on this loop, everything else on threads. Signals stay yours, and so does the process: what a job
        has left behind (work in an executor) may keep it alive when this has ended.
        """
        loop = asyncio.get_running_loop()
        self._caller = asyncio.current_task()
        try:
            await on_a_thread(lambda: self._pump(loop, until_empty), self.stop)
        finally:
            if not self._running:
                self._inbox.take(0.0)  # a word that came too late is not for the next run

    def background(self) -> AbstractAsyncContextManager[Runner]:
        """Run for the length of an ``async with`` block, on the event loop of whoever enters it, as `arun` does.

        At the end of the block the runner stops as for `stop`, and the block waits until it has: its jobs may go on within
        the grace time. So it does when the body raises or is cancelled. A runner that fails cancels the body.

        Raises:
            DeclarationError: As `run`, once the runner has met it.
            StorageError: As `run`.
            BaseExceptionGroup: The body failed, and so did the runner.
        """
        return Background(self.arun, self.stop, self)

    # -------------------------------------------------------------------------------------------------------- start

    def _pump(self, loop: asyncio.AbstractEventLoop | None, until_empty: bool) -> bool:
        if is_importing():
            raise DeclarationError(
                "a worker process imported the module that runs this runner: put that below `if __name__ == '__main__':`"
            )
        if self._running:
            raise DeclarationError("this runner is running already; make another one")
        self._running, self._stopped_at = True, 0.0
        try:
            return self._session(loop, until_empty)
        finally:
            self._running = False

    def _session(self, loop: asyncio.AbstractEventLoop | None, until_empty: bool) -> bool:
        jobs = self.jobs
        jobs.load()
        self._inbox.report.begin()
        context = copy_context()  # of which each job gets a copy
        if not len(jobs.registry):
            raise DeclarationError("no kind of job is declared: name the modules that do in JobQueue(imports=[…])")
        opened = jobs.access.opened()
        self._clock = clock = going(opened.backend.clock)
        pump_storage, beat_storage, duty_storage, wait_storage = storages = [opened.backend.storage() for _ in range(4)]
        reached = self._reach(pump_storage, wait_storage, until_empty)
        if reached is None:
            return False
        epoch, served = reached
        incarnation = self._new_name()
        config = Config(
            incarnation, self._lease, self._beat, float(self._grace), self._threads, self._coroutines, self._job_processes,
            self._strict, until_empty, transitions.longest_record(jobs.max_payload),
        )  # fmt: skip
        engine = Engine(
            config, jobs.namespace, served, jobs.registry.get, moment=self._moment, start=self._start,
            interrupt=self._interrupt, observe=self._observe, lanes=lanes_of(jobs.registry),
            jitter=jobs.access.chance.jitter, guard=self._guard,
        )  # fmt: skip
        self._core = core = engine.core
        started = clock.now()

        def info(now: int) -> bytes:
            with self._guard:
                weights = dict(core.weights)
            beat = Beat(
                host=socket.gethostname(), pid=os.getpid(), started=started, seen=now, lease=self._lease,
                queues=weights, threads=self._threads, coroutines=self._coroutines, version=__version__,
                stopped=core.stopping,
            )  # fmt: skip
            return msgspec.json.encode(beat)

        heart = Heart(
            beat_storage, clock, jobs.access.keys, core.leases, self._guard, every=self._beat, incarnation=incarnation,
            info=info, epoch=epoch, data_lost=lambda: self._data_lost(beat_storage), observe=self._observe,
        )  # fmt: skip
        duties = Duties(
            jobs.access.keys, self._served, lease=self._lease, beat=self._beat, keep_dead=self._keep_dead,
            moment=self._moment, reports=Reports(self._rescued, self._discovered, self._work),
            discover=self._weights is None, max_bytes=transitions.longest_record(jobs.max_payload),
        )  # fmt: skip
        self._duties = DutyThread(duties, duty_storage, clock, self._observe)
        self._pool = Pool(self._threads, self._inbox, clock.monotonic, context)
        self._loop = Loop(self._inbox, clock.monotonic, loop, self._new_loop, self._caller, context)
        processes = Processes(self._job_processes, self._jobs_per_process, jobs, self._inbox, clock.monotonic)
        self._drivers: dict[Lane, Pool | Loop | Processes] = {  # another process would know nothing of a testing block
            "thread": self._pool, "loop": self._loop, "process": self._pool if jobs.access.depth else processes
        }  # fmt: skip
        self._listener = Listener(wait_storage, lambda: [keys.scope for keys in self._served()], self._inbox)
        self._greet(opened.backend.url, incarnation)
        heart.start()
        self._duties.start()
        try:
            hard = self._turn(engine, pump_storage)
        finally:
            self._duties.close()
            self._listener.close()
            heart.close()
            self._pool.close()
            self._loop.close()
            processes.close()
            self._duties.join()
        if heart.answers:
            heart.beat()  # the last one says that the runner has ended
            if not core.unsure:  # nothing of it can arrive later; without an answer a duty forgets it
                beat_storage.apply([transitions.unregister_runners(jobs.access.keys, (core.config.incarnation,))])
        for storage in storages:
            storage.close()
        self._journal.stopped(len(self._core.leases.held))
        return hard

    def _new_name(self) -> bytes:
        incarnation = self.jobs.access.chance.entropy(16).hex().encode()
        if self._named is not None:
            self._named(incarnation)
        return incarnation

    def _reach(
        self, storage: Storage, waiting: Storage, until_empty: bool
    ) -> tuple[bytes, Mapping[str, int]] | None:  # fmt: skip
        """Wait until the storage does all that a runner needs, with ``until_empty`` for the length of a lease.

        Answers its epoch and the queues to serve, with their weights; None if asked to stop before.
        """
        patience = Patience(self._clock.monotonic(), self._lease if until_empty else None, self._log)
        while True:
            try:
                self._clock.refresh(0)
                weights = self._weights or {queue: default_weight(queue) for queue in self._all_queues(storage)}
                queues = [self._queue_keys(queue) for queue in weights]
                return rehearse(self.jobs.access, storage, waiting, queues, self._log), weights
            except StorageError as error:
                pause_s = patience.pause_s(error, self._clock.monotonic())
            _, words = self._inbox.take(pause_s)
            if STOP in words:
                self._log.info("stopped before the storage could be reached")
                return None

    def _all_queues(self, storage: Storage) -> list[str]:
        """Those that are there from the start, those that a kind declares, and those that the storage knows."""
        known: list[str] = []
        with contextlib.suppress(StorageError):  # the duties look again and again
            known = self._stored_queues(storage)
        # In this order they are looked at: those that were declared wait for no other.
        declared = {*DEFAULT_QUEUES, *(kind.queue for kind in self.jobs.registry)}
        return [*sorted(declared), *sorted({*known} - declared)]

    def _stored_queues(self, storage: Storage) -> list[str]:
        return run(lookup.queues(self.jobs.access.keys, self._clock.now()), storage, self._clock)

    def _greet(self, url: str, incarnation: bytes) -> None:
        kinds = [kind.name for kind in self.jobs.registry]
        self._log.info(
            "runner %s on %s, namespace %s: %d threads, %d coroutines, %d job processes, lease %.1f s, queues %s; "
            "%s: %s",
            incarnation.decode(), url, self.jobs.namespace, self._threads, self._coroutines,
            self._job_processes, self._lease / 1000,
            ", ".join(f"{queue}={weight}" for queue, weight in self._core.weights.items()),
            counted(len(kinds), "kind"), ", ".join(kinds),
        )  # fmt: skip
        try:
            level, line = persistence(self.jobs.access.opened().backend.describe())
            self._log.log(level, line)
            for line in doubtful(self.jobs, self._weights or (), self._core.weights):
                self._log.warning(line)
        except StorageError as error:
            self._log.warning("could not look at the server and its queues: %s", error)

    # ---------------------------------------------------------------------------------------------------- the turns

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    def _turn(self, engine: Engine, storage: Storage) -> bool:
        apply_while = overlapped(storage)
        while True:
            then = engine.take_turn(apply_while).then
            self.status.running = self._core.outstanding
            if isinstance(then, Rest):
                self._rest(then)
            elif isinstance(then, LookAround):
                self._look_around(storage)
            elif isinstance(then, Leave):
                if not self._stopped_at:
                    self._stopped_at = self._clock.monotonic()
                    self._log.info("nothing ready or due is left")
                return then.hard
            else:
                self._collect(0.0)

    def _start(self, tasks: Sequence[Task]) -> None:
        lanes: dict[Lane, list[Task]] = {}
        for task in tasks:
            assert task.kind is not None
            lanes.setdefault(task.kind.lane, []).append(task)
        for lane, some in lanes.items():
            self._drivers[lane].start(some)

    def _interrupt(self, tasks: Sequence[Task]) -> None:
        self._loop.interrupt(tasks)  # threads cannot be; those of processes see it by themselves

    def _look_around(self, storage: Storage) -> None:
        try:
            for queue in self._stored_queues(storage) if self._weights is None else ():
                self._discovered(queue)
        except StorageError as error:
            self._log.debug("cannot look for queues, trying again: %s", error)
            self._collect(LOOK_AGAIN_S)
            return
        with self._guard:
            self._core.looked_around()
        self._collect(0.0)

    def _rest(self, rest: Rest) -> None:
        if rest.listen:
            self._listener.listen(LISTEN_S)
        else:
            self._listener.hush()
        self._collect(max(0.0, rest.until - self._clock.monotonic()) / 1000)

    def _collect(self, timeout: float) -> None:
        tasks, words = self._inbox.take(timeout)
        if not tasks and not words:
            return
        at = self._moment()
        with self._guard:
            if tasks:
                self._core.returned(tasks, at, self._inbox.idle_since)
            if RUNG in words:
                self._listener.listening = False
                self._core.woken(at, self._listener.heard)
            elif UNHEARD in words:
                self._listener.listening = False
            for word in words:
                if isinstance(word, Work):
                    self._core.woken(at, word)
            if STOP in words and not self._core.stopping:
                self._core.stop(at)
                self._stopped_at = at.local
                signal = self._signals.first if self._signals else ""
                self._journal.stopping(self._core.outstanding, self._grace, signal)

    # ------------------------------------------------------------------------------------------------------- duties

    def _queue_keys(self, queue: str) -> QueueKeys:
        return queue_keys(self.jobs.namespace, queue)

    def _served(self) -> list[QueueKeys]:
        with self._guard:
            return self._core.served

    def _rescued(self, rescued: list[Rescued]) -> None:
        self._observe(JobsRescued(rescued))
        # The rescue notified somebody, but that may be the very runner that is out of touch: its wait at the server goes on.
        # Looking now keeps the bound of a rescue; if there is no room here, the notification is passed on.
        for queue in {job.queue for job in rescued}:
            self._work(self._queue_keys(queue))

    def _discovered(self, queue: str) -> None:
        with self._guard:
            if queue in self._core.weights:
                return
            self._core.serve(queue, default_weight(queue))
        self._listener.hush()  # it listens to the queues that there were

    def _work(self, queue: QueueKeys) -> None:
        self._inbox.say(Work(queue.scope))

    def _data_lost(self, storage: Storage) -> tuple[bytes, bytes] | None:
        self._log.error(
            "the storage lost its data (the namespace's epoch is not the one this runner started with): %d jobs that are "
            "held now will end, and their results will be refused",
            len(self._core.leases.held),
        )
        access = self.jobs.access
        try:
            epoch = run(meta.prepare(access.keys, access.chance), storage, self._clock)
        except StorageError as error:
            self._log.warning("could not register again: %s", error)
            return None
        incarnation = self._new_name()
        with self._guard:
            self._core.renew(incarnation)
        self._duties.poke("ask queues")  # those it serves are registered no more
        return epoch, incarnation
