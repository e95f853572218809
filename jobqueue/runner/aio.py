"""The event loop on which a runner's coroutine jobs run: one of its own, or the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import threading
from collections.abc import Callable, Sequence
from typing import Any

from jobqueue.errors import DeclarationError
from jobqueue.runner.execute import cancel, run_coroutine, told_to_stop
from jobqueue.runner.task import Task
from jobqueue.runner.threads import Inbox

__all__ = ["Loop", "check_uvloop", "new_uvloop"]


def check_uvloop() -> None:
    """Raise `DeclarationError` where uvloop is not installed."""
    if importlib.util.find_spec("uvloop") is None:
        raise DeclarationError("uvloop is not installed here: install jobqueue[fast], or leave the option out")


def new_uvloop() -> asyncio.AbstractEventLoop:
    """A new event loop of uvloop's."""
    import uvloop

    return uvloop.new_event_loop()


class Loop:
    """Runs coroutine jobs.

    Args:
        inbox: Where they go when they end.
        monotonic: The local clock in ms.
        loop: The loop to run them on; None starts one on a thread of its own when the first job comes.
        new_loop: Makes that one.
        caller: The task that serves the runner on the caller's loop; None with a loop of its own.
    """

    def __init__(
        self,
        inbox: Inbox,
        monotonic: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        caller: asyncio.Task[Any] | None = None,
    ) -> None:
        self._inbox = inbox
        self._monotonic = monotonic
        self._loop = loop
        self._new_loop = new_loop
        self._caller = caller
        self._thread: threading.Thread | None = None
        self._closing = False
        self._running: dict[Task, asyncio.Task[None]] = {}

    def start(self, tasks: Sequence[Task]) -> None:
        """Run these; one hop to the loop for all of them."""
        self._started().call_soon_threadsafe(self._start, list(tasks))

    def interrupt(self, tasks: Sequence[Task]) -> None:
        """Cancel those of these that are running."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel, list(tasks))

    def close(self) -> None:
        """End the loop, if it is our own."""
        if self._thread is not None:
            assert self._loop is not None
            self._closing = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=1)
            self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = loop = self._new_loop()
            self._thread = threading.Thread(target=self._serve, args=(loop,), name="jobqueue-loop", daemon=True)
            self._thread.start()
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while not self._closing:
                # A task that a job started may end so. asyncio tells whoever awaits it, and then leaves the loop as well,
                # where the other jobs still are.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _start(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.take():
                self._running[task] = running = asyncio.ensure_future(run_coroutine(task, self._monotonic))
                # Not a `finally` in a coroutine around it: one that is cancelled before its first step never gets there.
                running.add_done_callback(functools.partial(self._ended, task))

    def _ended(self, task: Task, running: asyncio.Task[None]) -> None:
        del self._running[task]
        if running.cancelled():
            task.handed_back, task.seen = True, False  # it had not begun
        elif not task.seen and self._thread is None and running.cancelling() and self._others_cancelled(task):
            task.seen = True
            told_to_stop(task)
        self._inbox.put(task)
        if not self._running:
            self._inbox.idle_since = self._monotonic()

    def _others_cancelled(self, task: Task) -> bool:
        """Whether a coroutine was cancelled by its caller's loop, which comes to its end with all that is on it.

        A request to cancel that is still open at the end of a run may also be one of the job's own; then the task that
        serves the runner has none.
        """
        if self._caller is not None and self._caller.cancelling():
            return True
        return isinstance(task.outcome, asyncio.CancelledError)

    def _cancel(self, tasks: list[Task]) -> None:
        for task in tasks:
            if running := self._running.get(task):
                cancel(task, running)
