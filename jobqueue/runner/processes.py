"""The worker processes of a runner: for functions that compute, and for those that must end in time.

Each process has a thread that starts it when the first job comes, hands it one job after the other, and kills it when a job
takes too long. What becomes of the job is written into the task, as every driver does.

Rejected: `multiprocessing`, which passes objects by pickle, forks by default, and imports the program that was started under
another name, so that kinds declared there would have another name too. Rejected: `concurrent.futures.ProcessPoolExecutor`:
one death breaks the whole pool, and a running call cannot be ended. Rejected: one thread for all processes with a selector:
few processes are in use at a time, and a thread that waits costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from jobqueue.errors import PayloadError
from jobqueue.judge import RaisedElsewhere
from jobqueue.logs import carefully
from jobqueue.names import main_module, origin_of
from jobqueue.queue import JobQueue
from jobqueue.record import clean
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.process_child import SIGNALS
from jobqueue.runner.process_pipe import Ended, FromChild, Go, Logged, Pipe, Ready, Run, Setup, Tell
from jobqueue.runner.report import stand_in
from jobqueue.runner.signals import how_ended
from jobqueue.runner.task import End, Task
from jobqueue.runner.threads import Inbox
from jobqueue.texts import one_line, said, shortened

__all__ = ["Processes", "cores"]

PROGRAM: Final = "import sys; sys.path.append(sys.argv[3]); from jobqueue.runner.process_child import main; main()"
START_MS: Final = 60_000.0
"""How long a process may take to start and to import what declares the kind."""
LOOK_MS: Final = 100.0
"""How often a thread looks whether its process lives and its job is still to go on."""
CANCELLED_MS: Final = 500.0
"""How long a job may go on after it was told to end. The runner's own patience, a second, has to be longer."""
LONGEST: Final = 4 * 2**20
"""Bytes of a message from a worker process at most. What it sends itself is shorter."""
LEAVE_S: Final = 1.0
"""How long a process without a job may take to leave."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Processes:
    """Runs functions in processes, a given number at a time.

    Args:
        size: How many at a time.
        jobs_per_process: After so many jobs a process is replaced.
        jobs: The `JobQueue` whose kinds are run.
        inbox: Where jobs go when they end.
        monotonic_ms: The local clock in ms.
    """

    def __init__(
        self, size: int, jobs_per_process: int, jobs: JobQueue, inbox: Inbox, monotonic_ms: Callable[[], float]
    ) -> None:
        self._size = size
        self._jobs_per_process = jobs_per_process
        self._jobs = jobs
        self._inbox = inbox
        self._monotonic_ms = monotonic_ms
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, tasks: Sequence[Task]) -> None:
        """Run these when a process is free. No process is started before the first job comes."""
        try:
            for number in range(len(self._threads), self._size):
                thread = threading.Thread(target=self._work, name=f"jobqueue-process-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError as error:  # this process can start no more threads
            if not self._threads:
                self._inbox.give_up(tasks, error)
                return
        for task in tasks:
            self._tasks.put(task)

    def close(self) -> None:
        """End all processes: those without a job in order, the others at once."""
        self._closed.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(timeout=2 * LEAVE_S)

    def _work(self) -> None:
        # A process starts with the mask of the thread that starts it: a signal to all processes of a service must not end
        # one before it can handle signals itself.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        worker: _Worker | None = None
        while not self._closed.is_set():
            held: list[Task] = []
            try:
                worker = self._serve(worker, held)
            except BaseException as error:
                with contextlib.suppress(BaseException):
                    for task in held:
                        self._inbox.fail(task, error)
                    self._inbox.report.log.error("a worker process was given up: %s", one_line(error), exc_info=error)
                    if worker is not None:
                        worker.kill()
                worker = None
        if worker is not None:
            worker.leave()

    def _serve(self, worker: _Worker | None, held: list[Task]) -> _Worker | None:
        """Run the next job, in this process or in a new one; answers the process for the one after it."""
        task = self._tasks.get()
        if task is None or not task.take():
            return worker
        held.append(task)
        try:
            if worker is None or not _ran(worker, task):
                worker = _Worker(self._setup(), self._monotonic_ms, self._closed)
                worker.run(task)
        except _Gone as gone:
            worker = None
            gone.tell(task)
        except BaseException as error:  # noqa: BLE001 - see below
            # No process, no memory, no file descriptors, a message that nobody understands. The next try may be luckier; a
            # job that never came back from here would be held for ever.
            _fail(task, error, clean(f"{type(error).__name__}: its worker process could not be used: {said(error)}"))
            if worker is not None:
                worker.kill()
                worker = None
        self._inbox.report(task)
        self._inbox.put(task)
        held.clear()
        if self._tasks.empty():
            self._inbox.idle_since = self._monotonic_ms()
        if worker is not None and worker.jobs >= self._jobs_per_process:
            worker.leave()
            worker = None
        return worker

    def _setup(self) -> Setup:
        jobs = self._jobs
        main = sys.modules["__main__"]
        file = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
        named = logging.root.manager.loggerDict.items()
        levels = {name: logger.level for name, logger in named if isinstance(logger, logging.Logger) and logger.level}
        return Setup(
            path=[os.path.abspath(folder) for folder in sys.path],  # noqa: PTH100 - they are text, and "" is one
            argv=sys.argv,
            main=(main_module(), None if file is None else os.path.abspath(file)),  # noqa: PTH100
            imports=jobs.imports,
            url=None if jobs.url is None else str(jobs.url),  # msgspec takes no subclass
            namespace=jobs.namespace,
            levels={"": logging.root.level, **levels},
        )


class _Gone(Exception):
    """The process is gone, and its job with it."""

    def tell(self, task: Task) -> None:
        """Write into the task what that means for it."""
        raise NotImplementedError


class _Crashed(_Gone):
    """By itself, while it ran a job."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how

    def tell(self, task: Task) -> None:
        task.end = End.CRASHED
        task.text = f"its process {self.how}"


class _NeverBegan(_Gone):
    """It could not import what it needs, or died of it: a failed attempt, so that it is tried less and less often."""

    def tell(self, task: Task) -> None:
        text = f"the worker process {self} before the job began"
        _fail(task, RuntimeError(text), f"RuntimeError: {text}")


class _TimedOut(_Gone):
    """It was killed, since its job took too long."""

    def tell(self, task: Task) -> None:
        assert task.kind is not None
        assert task.kind.timeout is not None
        text = f"timed out after {task.kind.timeout / 1000:g} s, its process was killed"
        _fail(task, TimeoutError(text), f"TimeoutError: {text}")


class _Stopped(_Gone):
    """It was killed, since the runner stops; or it died after its job was told so, and cannot be asked any more."""

    def tell(self, task: Task) -> None:
        task.end = End.HANDED_BACK


def _fail(task: Task, error: BaseException, text: str) -> None:
    task.outcome = error
    task.text = text


def _ran(worker: _Worker, task: Task) -> bool:
    """Run a job in a process that has run others; answers False if what they have left behind ended it before."""
    try:
        worker.run(task)
    except _NeverBegan:
        return False
    return True


class _Worker:
    """One process, as the thread sees it that it belongs to.

    Attributes:
        jobs: How many jobs it has run.
    """

    def __init__(self, setup: Setup, monotonic_ms: Callable[[], float], closed: threading.Event) -> None:
        self.jobs = 0
        self._monotonic_ms = monotonic_ms
        self._closed = closed
        self._run = b""
        self._runs: set[bytes] = set()
        ours, theirs = socket.socketpair()
        self._pipe: Pipe[FromChild] = Pipe(ours, FromChild, LONGEST)
        with theirs:
            package = str(Path(__file__).parents[2])
            command = [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno()), str(os.getpid()), package]
            try:
                # A group of its own: Ctrl-C in a terminal is for the runner, and what a job has started is killed with it.
                self._process = subprocess.Popen(  # noqa: S603 - the interpreter that is running
                    command, pass_fds=(theirs.fileno(),), process_group=0, stdin=subprocess.DEVNULL
                )
            except BaseException:
                self._pipe.close()
                raise
        self._send(setup)

    def run(self, task: Task) -> None:
        """Run one job, and write into the task how it ended.

        Raises:
            _Gone: The process has ended, before the job or with it.
        """
        assert task.kind is not None
        module, qualname = origin_of(task.kind.target)
        self._run = run = secrets.token_bytes(16)
        self._runs.add(run)
        self._send(
            Run(run, task.kind.name, module, qualname, task.queue.queue, task.id, task.record, task.claim, task.fence)
        )
        try:
            answer = self._answer(task, START_MS, (Ready, Ended))
        except _Crashed as error:
            raise _NeverBegan(error.how) from error
        except _TimedOut as error:
            raise _NeverBegan(f"was killed, since it took more than {START_MS / 1000:g} s to start") from error
        if isinstance(answer, Ready):
            if task.cancelled or task.lease_lost or task.deadline <= self._monotonic_ms():
                task.end = End.HANDED_BACK  # nothing starts under a lease that is not certain
                return
            task.began = self._monotonic_ms()
            self._send(Go(run))
            try:
                answer = self._answer(task, task.kind.timeout, (Ended,))
            finally:
                task.took = self._monotonic_ms() - task.began
        assert isinstance(answer, Ended)
        self.jobs += 1
        _write(answer, task)

    def leave(self) -> None:
        """Let it end, now that it has no job."""
        self._pipe.close()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _send(self, message: Setup | Run | Go | Tell) -> None:
        self._pipe.patience(START_MS / 1000)
        with contextlib.suppress(OSError):  # it is gone, or as good as gone: who waits for its answer will see
            self._pipe.send(message)

    def _answer(self, task: Task, limit: float | None, expected: tuple[type[FromChild], ...]) -> FromChild:
        """Wait for the end of what it was told to do, within so many ms: for one of these messages."""
        run = self._run
        end = math.inf if limit is None else self._monotonic_ms() + limit
        why: type[_Gone] = _TimedOut
        told = Tell(run, lease_lost=False, cancelled=False)
        while True:
            now = self._monotonic_ms()
            tell = Tell(run, task.lease_lost, task.cancelled)
            if tell.cancelled and not told.cancelled:
                # Whichever comes first ends the run: from now on the stop, and its own limit no more.
                end, why = now + CANCELLED_MS, _Stopped
            if now >= end or self._closed.is_set():
                self.kill()
                raise why if now >= end else _Stopped
            if tell != told:
                told = tell
                self._send(told)
            self._pipe.patience(max(1.0, min(LOOK_MS, end - now)) / 1000)
            try:
                message = self._pipe.receive()
                if not isinstance(message, Logged):
                    if message.run != run or not isinstance(message, expected):
                        raise ValueError("an answer of another run")
                    return message
                self._log(message)
            except TimeoutError:
                # A process that the job forked may hold the other end of the pipe: its end alone proves nothing.
                if self._process.poll() is not None:
                    raise self._died(told) from None
            except EOFError:
                raise self._died(told) from None
            except ValueError:
                # Not a result, whatever it says: something that a job has started or left behind writes into the pipe.
                self.kill()
                raise self._died(told, "sent what is not a message of its run, and was killed") from None

    def _died(self, told: Tell, how: str = "") -> _Gone:
        """What its death means for its job, which was told so."""
        how = how or self._how()
        return _Stopped() if told.cancelled else _Crashed(how)

    def _how(self) -> str:
        """How it ended; it is made to if it only closed its pipe."""
        try:
            code = self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its pipe to the runner and was killed"
        self._pipe.close()
        return how_ended(code)

    def kill(self) -> None:
        """Kill it and what its job has started; the group is there as long as the process has not been waited for."""
        self._pipe.close()
        if self._process.poll() is None:
            with contextlib.suppress(OSError):  # its job has taken it out of its group
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def _log(self, message: Logged) -> None:
        """Log a line of its. Raises `ValueError`: it is not one."""
        if message.run not in self._runs:
            raise ValueError("a line of no run")
        extra = _extra(message)
        logger = logging.getLogger(message.logger)
        if logger.isEnabledFor(message.level):
            record = logging.LogRecord(
                message.logger, message.level, message.pathname, message.line, message.message, None, None,
                message.function,
            )  # fmt: skip
            record.created, record.msecs = message.created, message.created % 1 * 1000
            record.process, record.processName, record.threadName = self._process.pid, "jobqueue", message.thread
            if message.trace is not None:
                record.exc_text = message.trace
                error = stand_in(message.error)
                record.exc_info = (type(error), error, None)
            record.stack_info = message.stack
            for name, value in extra.items():
                record.__dict__.setdefault(name, value)
            with carefully(message.message):
                logger.handle(record)


def _extra(message: Logged) -> dict[str, object]:
    try:
        extra = json.loads(message.extra)
    except RecursionError:
        extra = None
    if not isinstance(extra, dict):
        raise ValueError("a line that says no more in JSON")
    return extra


def _write(ended: Ended, task: Task) -> None:
    """Write into the task how its run ended, with values that mean what the real ones meant in the other process."""
    task.text = shortened(ended.text)
    after = timedelta(milliseconds=ended.after or 0)
    if ended.how == "handed back":
        task.end, task.seen = End.HANDED_BACK, True
    elif ended.how == "raised":
        task.outcome = RaisedElsewhere(ended.wanted)
    elif ended.how == "unfit":
        task.end, task.outcome = End.UNFIT, PayloadError(ended.text)
    elif ended.how == "snooze":
        task.outcome = Snooze(after)
    elif ended.how == "discard":
        task.outcome = Discard(ended.text)
    elif ended.how == "retry":
        task.outcome = Retry(None if ended.after is None else after)
