"""The threads of a runner: those that run functions, and the one that waits to be rung.

Jobs go to the threads and come back through two simple queues. A future for each job would cost several microseconds.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final

from jobqueue.errors import StorageError
from jobqueue.runner.execute import failed, run_function
from jobqueue.runner.queue_state import behind
from jobqueue.runner.report import Reporter
from jobqueue.runner.task import Task
from jobqueue.storage.protocol import Storage
from jobqueue.texts import one_line

__all__ = ["Inbox", "Listener", "Pool", "Word", "Work"]


class Word(str):
    """What is put into a runner's inbox besides jobs."""

    __slots__ = ()


class Work(Word):
    """The scope of a queue that has work: found by a look, since the notification may have gone to a runner out of touch."""

    __slots__ = ()


RUNG: Final = Word("rung")
STOP: Final = Word("stop")
UNHEARD: Final = Word("unheard")


class Inbox:
    """Where jobs come back to, and wake-ups and the wish to stop arrive. One thread takes, any may put.

    A queue beside the two lists holds a token while there may be something in them. Rejected: a queue of the jobs
    themselves, which wakes the reader for each of them.

    Args:
        report: Tells of runs that failed.

    Attributes:
        report: The same.
        idle_since: When (local ms) somebody who runs jobs had none left. The reader, who may wait for the storage meanwhile,
            learns from it how long the jobs took.
    """

    def __init__(self, report: Reporter | None = None) -> None:
        self.report = Reporter() if report is None else report
        self._tasks: deque[Task] = deque()
        self._words: deque[Word] = deque()
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._told = False
        self.idle_since = 0.0

    def put(self, task: Task) -> None:
        """A job came back."""
        self._tasks.append(task)
        if not self._told:
            self._tell()

    def give_up(self, tasks: Iterable[Task], error: BaseException) -> None:
        """These cannot be run, for a reason that lies outside of them: failed attempts, so that they are tried later."""
        for task in tasks:
            if task.take():
                self.fail(task, error)

    def fail(self, task: Task, error: BaseException) -> None:
        """A job comes back that failed for a reason that lies outside of it."""
        failed(task, error)
        self.report(task, error)
        self.put(task)

    def say(self, word: Word) -> None:
        """Something else happened. May be called in a signal handler."""
        self._words.append(word)
        self._tell()

    def _tell(self) -> None:
        self._told = True
        self._tokens.put(None)

    def take(self, timeout: float) -> tuple[list[Task], set[Word]]:
        """All that is there; waits up to ``timeout`` seconds for something to come, and may return early with nothing."""
        if timeout > 0 and not self._tasks and not self._words:
            with contextlib.suppress(Empty):
                self._tokens.get(timeout=timeout)
        # In this order: whatever comes after the second line is either found by the third or has a token of its own.
        for _ in range(self._tokens.qsize()):
            self._tokens.get_nowait()
        self._told = False
        tasks = [self._tasks.popleft() for _ in range(len(self._tasks))]
        return tasks, {self._words.popleft() for _ in range(len(self._words))}


class Pool:
    """Threads that run functions.

    They are daemons: a job that does not end must not keep a process that was told to leave.

    Args:
        size: How many.
        inbox: Where jobs go when they end.
        monotonic_ms: The local clock in ms.
        context: The context variables of which each job gets a copy; by default those that are set here.
    """

    def __init__(
        self, size: int, inbox: Inbox, monotonic_ms: Callable[[], float], context: Context | None = None
    ) -> None:
        self._size = size
        self._context = copy_context() if context is None else context
        self._tasks: deque[Task] = deque()
        # A token wakes a thread, which then runs what it finds; False ends it. More than one per thread are not needed.
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._inbox = inbox
        self._monotonic_ms = monotonic_ms
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"jobqueue-{number}", daemon=True) for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, tasks: Sequence[Task]) -> None:
        """Run these when a thread is free."""
        self._tasks.extend(tasks)
        for _ in range(min(len(tasks), self._size - self._tokens.qsize())):
            self._tokens.put(True)

    def close(self) -> None:
        """End the threads that have nothing to do; those with a job end after it."""
        self._closed = True
        for _ in self._threads:
            self._tokens.put(False)

    def _work(self) -> None:
        held: list[object] = []
        while True:
            try:
                self._serve(held)
                return
            except BaseException as error:  # noqa: BLE001 - see `_broke_off`
                with contextlib.suppress(BaseException):  # the log is a foreign place
                    self._broke_off(held, error)
                held.clear()

    def _broke_off(self, held: list[Any], error: BaseException) -> None:
        """Give back the job in hand, so that the thread can go on with the next.

        Not for what a job raises: that has been caught. A thread may be interrupted between two jobs as well, by an
        exception or a trace function that a job has left to it.
        """
        if held:
            task, *ended = held
            if ended:
                self._inbox.put(task)
            else:
                self._inbox.fail(task, error)
        self._inbox.report.log.error(
            "a thread of the runner broke off, and goes on: %s", one_line(error), exc_info=error
        )

    def _serve(self, held: list[object]) -> None:
        """Run jobs until the pool is closed.

        Args:
            held: The job in hand, and True when it has ended: for whoever sees this break off.
        """
        pop, put, monotonic_ms = self._tasks.popleft, self._inbox.put, self._monotonic_ms
        context, report = self._context, self._inbox.report
        go_on = True
        while go_on:
            while True:
                try:
                    task = pop()
                except IndexError:
                    self._inbox.idle_since = monotonic_ms()
                    break
                held.append(task)
                if task.take():
                    run_function(task, monotonic_ms, context, report)
                    held.append(True)
                    put(task)
                held.clear()
            go_on = not self._closed and self._tokens.get()


class Listener:
    """A thread that waits at the storage to be rung while the runner has nothing to do.

    Attributes:
        listening: It was asked to, and its `RUNG` or `UNHEARD` has not been taken yet.
        heard: Which scope was rung last, if the storage told.
    """

    def __init__(self, storage: Storage, channels: Callable[[], Sequence[str]], inbox: Inbox) -> None:
        self._storage = storage
        self._channels = channels
        self._inbox = inbox
        self._wanted: SimpleQueue[float | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._tells = False
        self.listening = False
        self.heard: str | None = None
        self._thread = threading.Thread(target=self._listen, name="jobqueue-listener", daemon=True)
        self._thread.start()

    def listen(self, seconds: float) -> None:
        """Put `RUNG` into the inbox when rung, or after some seconds."""
        if not self.listening:
            self.listening = True
            self._wanted.put(seconds)

    def hush(self) -> None:
        """Stop waiting: a wake-up should go to a runner that has room. `UNHEARD` is put into the inbox, or `RUNG`."""
        if self.listening:
            self._storage.interrupt()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._wanted.put(None)
        self._storage.interrupt()
        self._thread.join(timeout=1)

    def _listen(self) -> None:
        while (seconds := self._wanted.get()) is not None and not self._stopped.is_set():
            scopes, self.heard = behind(self.heard, self._channels()), None
            try:
                self.heard = self._storage.wait(scopes, seconds)
            except StorageError as error:
                # Whoever sends next will meet the same trouble and say so; here it only must not spin.
                self._inbox.report.log.debug("cannot wait for wake-ups: %s", error)
                self._stopped.wait(min(seconds, 0.5))
            # A storage that has told once which scope was rung tells every time. Of another one None may mean that one was.
            self._tells = self._tells or self.heard is not None
            self._inbox.say(UNHEARD if self._tells and self.heard is None else RUNG)
