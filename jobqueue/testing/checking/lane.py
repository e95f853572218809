"""One run of a job, on a thread that moves only when it is told to.

A thread and not a generator, because a function can be stopped in the middle by nothing else; and the same for coroutines,
each on a loop of its own, so that one mechanism stops both. There is no concurrency: whoever lets a lane go on waits until
it stands again.

A crash is a lane that is never let go on. An exception in its place would run the job's ``finally`` and ``except`` blocks,
which no killed process does. The thread is ended when all has been read that it could spoil.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

import attrs

from jobqueue.context import Context
from jobqueue.runner.execute import cancel, run_coroutine, run_function
from jobqueue.runner.task import Task
from jobqueue.testing.inline import RunnerDied, TestingError

__all__ = ["Lane"]

STUBBORN: Final = 100
"""So many refused effects later, a dead run that goes on regardless is left standing."""


class Lane:
    """A run of a job that stops where it is told to.

    Args:
        task: The job; its kind is known.
        name: What to call this run in an error.
        monotonic_ms: Local milliseconds.
        patience: Seconds of real time that it may take from one stop to the next.

    Attributes:
        passed: The points that it has come to, in order.
        ended: It came to its end.
    """

    def __init__(self, task: Task, name: str, monotonic_ms: Callable[[], float], patience: float) -> None:
        self.task = task
        self.passed: list[str] = []
        self.ended = False
        self._name = name
        self._monotonic_ms = monotonic_ms
        self._patience = patience
        self._until: int | None = None
        self._dying = False
        self._running: asyncio.Task[Any] | None = None
        self._to_cancel = False
        self._hangs = False
        self._refused = 0
        self._points = threading.Lock()  # a job may have threads of its own
        self._go = threading.Semaphore(0)
        self._stands = threading.Semaphore(0)
        # A daemon, or a job that hangs would keep the whole process from ending.
        self._thread = threading.Thread(target=self._run, name=f"check_job {name}", daemon=True)
        assert task.kind is not None
        self._bind = task.kind.bind
        # The first point is the first line of the job: the runner has seen that its lease is certain, and may pause then.
        task.kind = attrs.evolve(task.kind, bind=self._begin)

    def go(self, until: int | None = None) -> bool:
        """Let it go on; answers whether it stands at a point now, False at its end.

        Args:
            until: The number of the point to stop at; None for none.

        Raises:
            TestingError: It took longer than its patience.
        """
        self._until = until
        self._hand_over()
        return not self.ended

    def point(self, name: str) -> None:
        """The job has come to a point: on its own thread, wait here if this is where to stop.

        Raises:
            RunnerDied: This run has died.
        """
        with self._points:
            self._refuse_the_dead()
            self.passed.append(name)
            if len(self.passed) - 1 == self._until:
                self._stands.release()
                self._go.acquire()
                self._refuse_the_dead()
            # While an effect is under way on a thread of `asyncio.to_thread`, the loop must not go on beside it.
            if self._to_cancel and (threading.current_thread() is self._thread or name.startswith("after ")):
                self._cancel()

    def tell_to_stop(self) -> None:
        """Tell the job that its runner stops, while it stands; a coroutine hears of it where it waits next."""
        self.task.cancelled = True
        self._to_cancel = self._running is not None

    def _cancel(self) -> None:
        self._to_cancel = False
        assert self._running is not None
        self._running.get_loop().call_soon_threadsafe(cancel, self.task, self._running)

    def end(self) -> None:
        """Unwind the run where it stands, for good; its further effects are refused.

        Raises:
            TestingError: It took longer than its patience.
        """
        if self._thread.ident is None or self.ended or self._hangs:
            return
        self._dying = True
        self._hand_over()

    def _begin(self, payload: bytes, context: Context) -> Callable[[], Any]:
        call = self._bind(payload, context)

        def begin() -> Any:
            self.point("at its start")
            return call()

        return begin

    def _hand_over(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        if not self._stands.acquire(timeout=self._patience):
            self._hangs = True
            where = f"after it came to the point {self.passed[-1]!r}" if self.passed[1:] else "before its first effect"
            raise TestingError(
                f"{self._name} hangs: {self._patience:g} s {where} it had neither come to the next effect nor ended. Does "
                "it wait for a lock that another run holds, or for something that nobody does here? If it is only slow, "
                "say patience=…"
            )
        if self.ended:
            self._thread.join(self._patience)

    def _refuse_the_dead(self) -> None:
        if not self._dying:
            return
        self._refused += 1
        if self._refused == STUBBORN:
            self._stands.release()
            self._go.acquire()  # for ever
        raise RunnerDied(f"{self._name} has died: it has no effects any more")

    def _run(self) -> None:
        try:
            assert self.task.kind is not None
            if self.task.kind.is_coroutine:
                with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                    runner.run(self._run_coroutine())
            else:
                run_function(self.task, self._monotonic_ms)
        finally:
            self.ended = True
            self._stands.release()

    async def _run_coroutine(self) -> None:
        self._running = asyncio.current_task()
        await run_coroutine(self.task, self._monotonic_ms)
