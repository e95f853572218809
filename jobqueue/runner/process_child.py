"""A worker process: it runs one job after the other for the runner that started it, and ends with it.

The main thread runs the jobs, so that they may handle signals; another one listens to the runner.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.machinery
import importlib.util
import logging
import math
import os
import signal
import socket
import sys
import threading
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final

from jobqueue.clock import monotonic_ms
from jobqueue.declared import QUEUES
from jobqueue.endings import checked_ms
from jobqueue.errors import DeclarationError
from jobqueue.job import Kind
from jobqueue.judge import is_wanted
from jobqueue.keys import queue_keys
from jobqueue.logs import extra_of, name_jobs
from jobqueue.names import origin_of
from jobqueue.queue import JobQueue
from jobqueue.record import clean, decode
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.execute import failed, run_function
from jobqueue.runner.process_pipe import Ended, Go, Logged, Pipe, Ready, Run, Setup, Tell, ToChild
from jobqueue.runner.task import End, Task
from jobqueue.texts import error_text, shortened, text_of

__all__ = ["SIGNALS", "is_importing", "main"]

SIGNALS: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Left to the runner, which ends its worker processes itself."""
PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 70
"""The exit code of a worker process whose runner is gone."""
LONGEST_EXTRA: Final = 2**20
"""Characters of what a log record says besides its text. More is left out: its message would be too long for the runner."""
FORKED: Final = 1
"""The exit code of a process that a job forked and that came to the end of the job as well."""

_importing = False


def is_importing() -> bool:
    """Whether this is a worker process that is importing what declares its kinds: no runner may start here."""
    return _importing


def main() -> None:
    """Run jobs until the runner closes its end of the pipe. ``sys.argv`` has the pipe's descriptor and the runner's pid."""
    descriptor, parent = map(int, sys.argv[1:3])
    _die_with(parent)
    own = os.getpid()

    def ignore(number: int, _: FrameType | None) -> None:
        if os.getpid() != own:  # a process that a job forked has nobody who ends it in another way
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in SIGNALS:
        # Not SIG_IGN: programs that a job starts would inherit it. They are to inherit that of `nohup`.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _Worker(Pipe(socket.socket(fileno=descriptor), ToChild)).work()


def _die_with(parent: int) -> None:
    """Be killed when the runner dies, even while a job holds the interpreter's lock and nothing here could notice it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)


class _Worker:
    def __init__(self, pipe: Pipe[ToChild]) -> None:
        self._pipe = pipe
        self._frames: SimpleQueue[Run | Go | None] = SimpleQueue()
        self._task: Task | None = None
        first = pipe.receive()
        assert isinstance(first, Setup)
        self._setup = first
        sys.path[:] = first.path
        sys.argv[:] = first.argv
        self._lines = _log_to(pipe, first.levels)
        threading.Thread(target=self._listen, name="jobqueue-pipe", daemon=True).start()

    def work(self) -> None:
        """Run what comes, until the runner is gone or has no more use for this process."""
        while (frame := self._frames.get()) is not None:
            answer = self._prepare(frame) if isinstance(frame, Run) else self._run(frame)
            if self._pipe.closed:
                os._exit(FORKED)  # a process that a job forked, in a way that Python does not see, is no worker
            with contextlib.suppress(Exception):  # a job may have closed it, or put something else in its place
                sys.stdout.flush()  # whoever is killed later has lost nothing of it
            self._pipe.send(answer)

    def _listen(self) -> None:
        try:
            while True:
                frame = self._pipe.receive()
                task = self._task
                if isinstance(frame, Tell):
                    if task is not None and frame.run == self._lines.run:
                        task.lease_lost, task.cancelled = frame.lease_lost, frame.cancelled
                elif isinstance(frame, Run | Go):
                    self._frames.put(frame)
        except (EOFError, OSError, ValueError):
            if self._task is not None:
                os._exit(ORPHANED)
            self._frames.put(None)

    def _prepare(self, frame: Run) -> Ready | Ended:
        self._lines.run = frame.run
        try:
            queue, kind = self._find(frame)
            if self._setup.url not in (None, queue.url) or self._setup.namespace != queue.namespace:
                queue.relocate(url=self._setup.url, namespace=self._setup.namespace)
        except BaseException as error:  # noqa: BLE001 - a module may raise anything, also SystemExit
            return Ended(frame.run, "raised", error_text(error, __file__))
        self._task = Task(
            queue_keys(self._setup.namespace, frame.queue), frame.id, frame.claim, frame.fence, frame.record,
            decode(frame.record), kind, math.inf,
        )  # fmt: skip
        return Ready(frame.run)

    def _run(self, frame: Go) -> Ended:
        task = self._task
        assert frame.run == self._lines.run
        assert task is not None
        assert task.kind is not None
        run_function(task, monotonic_ms)
        self._task = None
        try:
            return _ended(frame.run, task)
        except BaseException as error:  # noqa: BLE001 - what the job raised or returned has the last word in there
            failed(task, error)
            return Ended(frame.run, "raised", task.text)

    # ------------------------------------------------------------------------------------------------------- imports

    def _find(self, frame: Run) -> tuple[JobQueue, Kind[Any]]:
        """The kind that the runner means, among those that importing its module declares.

        Raises:
            DeclarationError: There is none.
        """
        global _importing
        for module in (None, frame.module, *self._setup.imports):
            if module is not None:
                _importing = True
                try:
                    self._import(module)
                finally:
                    _importing = False
            for queue in list(QUEUES):
                kind = queue.registry.get(frame.name)
                if kind is not None and origin_of(kind.target) == (frame.module, frame.qualname):
                    return queue, kind
        raise DeclarationError(
            f"a worker process imported {frame.module} and found no kind {frame.name!r} in it: declare a kind with "
            "process=True where a plain import declares it, not below `if __name__ == '__main__':`"
        )

    def _import(self, module: str) -> None:
        name, file = self._setup.main
        if module != name or file is None or module in sys.modules:
            importlib.import_module(module)
            return
        # The program that was started: a file that need not be found by its name.
        loader = importlib.machinery.SourceFileLoader(name, file)
        spec = importlib.util.spec_from_file_location(name, file, loader=loader)
        assert spec is not None
        program = importlib.util.module_from_spec(spec)
        sys.modules[name] = program
        try:
            loader.exec_module(program)
        except BaseException:
            del sys.modules[name]
            raise


def _ended(run: bytes, task: Task) -> Ended:
    """What the runner is told of a run. Raises what the objects of the job raise."""
    outcome, text = task.outcome, task.text
    if task.end is End.HANDED_BACK:
        return Ended(run, "handed back")
    if outcome is None:
        return Ended(run, "done")
    if task.end is End.UNFIT:
        return Ended(run, "unfit", text)
    if isinstance(outcome, Snooze):
        return Ended(run, "snooze", after=checked_ms(outcome.delay_ms))
    if isinstance(outcome, Discard):
        return Ended(run, "discard", text)
    if isinstance(outcome, Retry):
        after = outcome.after_ms
        return Ended(run, "retry", text, after=None if after is None else checked_ms(after))
    assert task.kind is not None
    wanted, text = is_wanted(task.kind.retry, outcome, text)
    return Ended(run, "raised", text, wanted=wanted)


class _ToRunner(logging.Handler):
    """Hands records to the runner, so that they go wherever its own go.

    Attributes:
        run: The run that this process is at.
    """

    def __init__(self, pipe: Pipe[ToChild]) -> None:
        super().__init__()
        self.run = b""
        self._pipe = pipe
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record's text: what it was made of may be anything."""
        if self._pipe.closed:  # in a process that a job forked
            if logging.lastResort is not None:
                logging.lastResort.handle(record)
            return
        try:
            trace = self._formatter.formatException(record.exc_info) if record.exc_info else record.exc_text
            error = text_of(record.exc_info[1]) if record.exc_info else (trace or "").rpartition("\n")[2]
            extra = extra_of(record)
            message = Logged(
                self.run, str(record.name), int(record.levelno), clean(record.getMessage()),
                float(record.created), trace and shortened(trace), clean(error), str(record.pathname),
                int(record.lineno), str(record.funcName or ""), str(record.threadName or ""),
                extra if len(extra) <= LONGEST_EXTRA else "{}",
                record.stack_info and shortened(record.stack_info),
            )  # fmt: skip
            self._pipe.send(message)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


def _log_to(pipe: Pipe[ToChild], levels: dict[str, int]) -> _ToRunner:
    name_jobs()
    handler = _ToRunner(pipe)
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    return handler
