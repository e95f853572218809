"""Running one job: the same for threads, the event loop, the testing kit and the simulation."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol

from jobqueue.context import Context, set_current
from jobqueue.errors import PayloadError
from jobqueue.record import clean
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.task import Task

__all__ = ["begin", "cancel", "go", "run_coroutine", "run_function", "told_to_stop"]

FRAMES: Final = 30
"""Frames of a traceback that are kept."""


def run_function(task: Task, monotonic: Callable[[], float]) -> None:
    """Run a job that is a function, and write into the task how it ended."""
    call = begin(task, monotonic)
    if call is not None:
        # A context of its own, so that what a job sets there does not leak into the next job of the thread.
        contextvars.Context().run(go, task, call[0], call[1])


def go(task: Task, context: Context, call: Callable[[], Any]) -> None:
    """The second half of `run_function`, behind `begin`."""
    set_current(context)
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - whatever a job raises is its own failure, not the runner's
        _raised(task, error)
    else:
        if isinstance(result, _SPOKEN):
            _raised(task, result)
        else:
            task.result = result
    if task.seen:
        told_to_stop(task)


async def run_coroutine(task: Task, monotonic: Callable[[], float]) -> None:
    """Run a job that is a coroutine, and write into the task how it ended. To be awaited in an asyncio task of its own."""
    call = begin(task, monotonic)
    if call is None:
        return
    set_current(call[0])
    assert task.kind is not None
    limit = task.kind.timeout
    timeout = None if limit is None else asyncio.timeout(limit / 1000)
    try:
        if timeout is None:
            result = await call[1]()
        else:
            async with timeout:
                result = await call[1]()
    except TimeoutError as error:
        if limit is not None and timeout is not None and timeout.expired() and error.__cause__ is not None:
            # Its cause shows where the job was cancelled; the words are those of a process that took too long.
            where = error.__cause__.__traceback__
            error = TimeoutError(f"timed out after {limit / 1000:g} s").with_traceback(where)
        _raised(task, error)
    except BaseException as error:  # noqa: BLE001 - as above
        _raised(task, error)
    else:
        if isinstance(result, _SPOKEN):
            _raised(task, result)
        else:
            task.result = result
    if task.seen:
        told_to_stop(task)


class Cancellable(Protocol):
    """An `asyncio.Task`, or what stands for one in a simulation."""

    def cancel(self) -> bool:
        """Ask it to end; answers whether it had not ended yet."""
        ...


def cancel(task: Task, running: Cancellable) -> None:
    """Cancel a coroutine job for its runner, on the thread of its event loop.

    One that has ended already has not noticed, so it counts as it ended.
    """
    if running.cancel():
        task.seen = True


def told_to_stop(task: Task) -> None:
    """Judge a run that has ended after it saw that its runner told it to stop.

    What it returned or raised says nothing of its work: it was broken off. Three things count all the same. The job said
    that it is complete; it said what is to become of it, by `Discard` or `Snooze`; or it was complete and let through the
    cancellation, which is no error of its own.
    """
    if not task.complete:
        if not isinstance(task.outcome, Snooze | Discard):
            task.handed_back = True
    elif isinstance(task.outcome, asyncio.CancelledError):
        task.outcome, task.text = None, ""


_SPOKEN: Final = (Snooze, Discard, Retry)


def begin(task: Task, monotonic: Callable[[], float]) -> tuple[Context, Callable[[], Any]] | None:
    """Make ready to run a job: its context and what to call; None if the task says already how it ended."""
    if task.lease_lost or task.deadline <= monotonic():
        task.handed_back = True  # nothing starts under a lease that is not certain
        return None
    assert task.kind is not None
    stored = task.stored
    context = Context(task.job_record, attempt=stored.attempt + 1, fence=task.fence, flags=task)
    try:
        return context, task.kind.bind(stored.payload, context)
    except PayloadError as error:
        task.unfit = True
        task.outcome = error
        task.text = clean(f"PayloadError: {error}")
    except BaseException as error:  # noqa: BLE001 - a class's own validators ran: whatever they raise is the job's failure
        _raised(task, error)
    return None


def _raised(task: Task, error: BaseException) -> None:
    task.outcome = error
    if isinstance(error, Discard):
        task.text = clean(error.reason)
    if isinstance(error, Snooze | Discard):
        return
    # The last line first: it is what people look for, and what is kept if the text has to be cut. No locals: they hold
    # what arguments hold.
    summary = "".join(traceback.format_exception_only(error)).strip()
    trace = error.__traceback__
    if trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next  # where this module called the job, which says nothing
    frames = "".join(traceback.format_tb(trace, limit=-FRAMES))
    task.text = clean(f"{summary}\n{frames}".rstrip())
