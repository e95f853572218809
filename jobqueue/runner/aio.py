"""The event loop on which a runner's coroutine jobs run: one of its own, or the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any, Final

from jobqueue.errors import DeclarationError
from jobqueue.runner.execute import cancel, failed, forks, run_coroutine, told_to_stop
from jobqueue.runner.task import End, Task
from jobqueue.runner.threads import STOP, Inbox
from jobqueue.texts import one_line

__all__ = ["Loop", "loop_maker"]

END_S: Final = 0.5
"""How long tasks that jobs have left behind may take to end with their loop."""
_loops: Final[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()
"""Those of our own."""


def _forked() -> None:
    """In a process that a job has forked: run no other job of its loop."""
    for loop in _loops:
        loop.stop()
        # What is to run in this turn still. Only asyncio's own loops keep it here.
        getattr(loop, "_ready", deque()).clear()


os.register_at_fork(after_in_child=_forked)


def loop_maker(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a new event loop; raises `DeclarationError` where it is to be uvloop's and that is not installed."""
    if not uvloop:
        return asyncio.new_event_loop
    if importlib.util.find_spec("uvloop") is None:
        raise DeclarationError("uvloop is not installed here: install jobqueue-py[fast], or leave the option out")
    return _new_uvloop


def _new_uvloop() -> asyncio.AbstractEventLoop:
    """A new event loop of uvloop's."""
    import uvloop

    return uvloop.new_event_loop()


async def _end_the_rest(loop: asyncio.AbstractEventLoop) -> None:
    """End what jobs have left on a loop, as `asyncio.run` does; what goes on although it is cancelled stays as it is."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, going = await asyncio.wait(left, timeout=END_S)
        for task in going:
            task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - asyncio would tell nothing new
    await loop.shutdown_asyncgens()


class Loop:
    """Runs coroutine jobs.

    Args:
        inbox: Where they go when they end.
        monotonic_ms: The local clock in ms.
        loop: The loop to run them on; None starts one on a thread of its own when the first job comes.
        new_loop: Makes that one.
        caller: The task that serves the runner on the caller's loop; None with a loop of its own.
        context: The context variables of which each job gets a copy; by default those that are set here.
    """

    def __init__(
        self,
        inbox: Inbox,
        monotonic_ms: Callable[[], float],
        loop: asyncio.AbstractEventLoop | None = None,
        new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        caller: asyncio.Task[Any] | None = None,
        context: Context | None = None,
    ) -> None:
        # A copy, in which nothing but `_start` runs: two threads cannot be in one context.
        self._context = copy_context() if context is None else context.copy()
        self._inbox = inbox
        self._monotonic_ms = monotonic_ms
        self._loop = loop
        self._new_loop = new_loop
        self._caller = caller
        self._thread: threading.Thread | None = None
        self._closing = False
        self._running: dict[Task, asyncio.Task[None]] = {}

    def start(self, tasks: Sequence[Task]) -> None:
        """Run these; one hop to the loop for all of them."""
        try:
            loop = self._started()
        except RuntimeError as error:  # this process can start no more threads
            self._inbox.give_up(tasks, error)
            return
        try:
            loop.call_soon_threadsafe(self._start, list(tasks), context=self._context)
        except RuntimeError:
            # It was closed: by a job, then the next ones get another; or by the caller, whose loop it is.
            for task in tasks:
                if task.take():
                    task.end = End.HANDED_BACK
                    self._inbox.put(task)
            if self._thread is None:
                self._inbox.say(STOP)

    def interrupt(self, tasks: Sequence[Task]) -> None:
        """Cancel those of these that are running."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed, and runs nothing any more
                self._loop.call_soon_threadsafe(self._cancel, list(tasks))

    def close(self) -> None:
        """End the loop, if it is our own."""
        if self._thread is not None:
            self._closing = True
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=1)
            self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = loop = self._new_loop()
            thread = threading.Thread(target=self._serve, args=(loop,), name="jobqueue-loop", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._loop = None
                loop.close()
                raise
            self._thread = thread
        return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        _loops.add(loop)
        before = forks()
        turns, broke_off_at = 0, -1

        def turned() -> None:
            nonlocal turns
            turns += 1

        while not self._closing:
            try:
                # A task that a job started may end so. asyncio tells whoever awaits it, and then leaves the loop as well,
                # where the other jobs still are.
                with contextlib.suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
            except BaseException as error:
                if forks() == before:
                    self._inbox.report.log.error(
                        "the event loop of the coroutine jobs broke off: %s", one_line(error), exc_info=error
                    )
                if broke_off_at == turns or loop.is_closed():  # it comes to no callback any more
                    self._replace()
                    break
                broke_off_at = turns
            if forks() != before:
                os._exit(0)  # a process that a job forked is no runner
            try:
                loop.call_soon(turned)
            except RuntimeError:  # closed since the turn ended
                self._replace()
                break
        rest = _end_the_rest(loop)
        # Each may fail: a job may have broken the loop.
        with contextlib.suppress(BaseException):
            loop.run_until_complete(rest)
        rest.close()
        with contextlib.suppress(BaseException):
            loop.close()

    def _replace(self) -> None:
        """Give up the loop of our own, which a job has closed or broken; the next job gets another."""
        self._inbox.report.log.error(
            "the event loop of the coroutine jobs was closed; %d jobs failed with it", len(self._running)
        )
        lost, self._running, self._loop = list(self._running), {}, None
        for task in lost:
            self._inbox.fail(task, RuntimeError("the event loop that this job ran on was closed or broken by a job"))

    def _start(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.take():
                job = run_coroutine(task, self._monotonic_ms, self._inbox.report)
                try:
                    self._running[task] = running = asyncio.ensure_future(job)
                    # Not a `finally` in a coroutine around it: one that is cancelled before its first step never gets there.
                    running.add_done_callback(functools.partial(self._ended, task))
                except BaseException as error:  # noqa: BLE001 - a job may have set a task factory of its own
                    self._running.pop(task, None)
                    job.close()
                    self._inbox.fail(task, error)

    def _ended(self, task: Task, running: asyncio.Task[None]) -> None:
        del self._running[task]
        if running.cancelled():
            task.end, task.seen = End.HANDED_BACK, False  # it had not begun
        elif (error := running.exception()) is not None:
            failed(task, error)
            self._inbox.report(task, error)
        elif not task.seen and self._thread is None and running.cancelling() and self._others_cancelled():
            task.seen = True
            told_to_stop(task)
        self._inbox.put(task)
        if not self._running:
            self._inbox.idle_since = self._monotonic_ms()

    def _others_cancelled(self) -> bool:
        """Whether a coroutine was cancelled by its caller's loop, which comes to its end with all that is on it.

        A request to cancel that is still open at the end of a run may also be one of the job's own; then the task that
        serves the runner has none.
        """
        return self._caller is not None and bool(self._caller.cancelling())

    def _cancel(self, tasks: list[Task]) -> None:
        for task in tasks:
            if running := self._running.get(task):
                cancel(task, running)
