"""Running one job: the same for threads, the event loop, the testing kit and the simulation."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from jobqueue.context import Context, set_current
from jobqueue.endings import asks, not_done, outcome_of
from jobqueue.errors import PayloadError
from jobqueue.record import clean
from jobqueue.retry import Discard, Snooze
from jobqueue.runner.task import End, Task
from jobqueue.texts import error_text, text_of

__all__ = ["Report", "begin", "cancel", "failed", "forks", "go", "run_coroutine", "run_function", "told_to_stop"]

_forks = 0


def forks() -> int:
    """How many forks lie between this process and the one that loaded this module: what a job forks is no runner."""
    return _forks


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


def run_function(
    task: Task, monotonic_ms: Callable[[], float], base: contextvars.Context | None = None, report: Report | None = None
) -> None:
    """Run a job that is a function, and write into the task how it ended.

    Args:
        task: The job.
        monotonic_ms: The local clock in ms.
        base: The context variables of the runner's start; None: those that are set here. The job gets a copy: what it sets
            does not leak into the next one.
        report: Told how it ended.
    """
    before = _forks
    (contextvars.copy_context() if base is None else base.copy()).run(_run, task, monotonic_ms, report)
    if _forks != before:
        _leave(task)


def _run(task: Task, monotonic_ms: Callable[[], float], report: Report | None) -> None:
    before = _forks
    call = begin(task, monotonic_ms)
    if call is not None:
        go(task, call)
    if report is not None and (report.timed or task.outcome is not None) and _forks == before:
        _tell(task, monotonic_ms, report)


def go(task: Task, call: Callable[[], Any]) -> None:
    """The second half of `run_function`, behind `begin`."""
    try:
        result = call()
        if result is not None:
            _returned(task, result)
    except BaseException as error:  # noqa: BLE001 - whatever a job raises is its own failure, not the runner's
        _raised(task, error)
    if task.seen:
        told_to_stop(task)


async def run_coroutine(task: Task, monotonic_ms: Callable[[], float], report: Report | None = None) -> None:
    """Run a job that is a coroutine, and write into the task how it ended. To be awaited in an asyncio task of its own.

    For the arguments see `run_function`; the task has a copy of the context in which it was made.
    """
    before = _forks
    call = begin(task, monotonic_ms)
    if call is not None:
        assert task.kind is not None
        limit = task.kind.timeout
        timeout = None if limit is None else asyncio.timeout(limit / 1000)
        try:
            if timeout is None:
                _returned(task, await call())
            else:
                async with timeout:
                    result = await call()
                _returned(task, result)
        except TimeoutError as error:
            # In a class of the job's all may be otherwise.
            cause = error.__cause__ if type(error) is TimeoutError else None
            if limit is not None and timeout is not None and timeout.expired() and cause is not None:
                # Its cause shows where the job was cancelled, and what it was handling there; the words are those of a
                # process that took too long.
                error = TimeoutError(f"timed out after {limit / 1000:g} s").with_traceback(cause.__traceback__)
                error.__context__ = cause.__context__
            _raised(task, error)
        except BaseException as error:  # noqa: BLE001 - as above
            _raised(task, error)
        if task.seen:
            told_to_stop(task)
    if _forks != before:
        _leave(task)
    if report is not None and (report.timed or task.outcome is not None):
        _tell(task, monotonic_ms, report)


def _tell(task: Task, monotonic_ms: Callable[[], float], report: Report) -> None:
    if task.end is not End.HANDED_BACK:
        task.took = monotonic_ms() - task.began
        report(task)


class Report(Protocol):
    """Tells of runs that failed, in the context of the job and with its exception still in the task.

    Attributes:
        timed: How long any run takes is of interest, and not only one that failed.
    """

    timed: bool

    def __call__(self, task: Task) -> None:
        """The run has ended; it may have succeeded."""
        ...


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
        if task.end is End.RAN and not isinstance(task.outcome, Snooze | Discard):
            task.end = End.HANDED_BACK
    elif isinstance(task.outcome, asyncio.CancelledError):
        task.outcome, task.text = None, ""


def begin(task: Task, monotonic_ms: Callable[[], float]) -> Callable[[], Any] | None:
    """Make ready to run a job here: answers what to call; None if the task says already how it ended."""
    if task.lease_lost or task.deadline <= (now := monotonic_ms()):
        task.end = End.HANDED_BACK  # nothing starts under a lease that is not certain
        return None
    task.began = now
    assert task.kind is not None
    stored = task.stored
    # As `Task.context`, without a call more for each job.
    context = Context(task.job_record, attempt=stored.attempt + 1, fence=task.fence, flags=task)
    set_current(context)
    try:
        return task.kind.bind(stored.payload, context)
    except PayloadError as error:
        task.end = End.UNFIT
        task.outcome, _ = outcome_of(error)
        task.text = clean(text_of(error).removeprefix("jobqueue.errors."))
    except BaseException as error:  # noqa: BLE001 - a class's own validators ran: whatever they raise is the job's failure
        _raised(task, error)
    return None


def _returned(task: Task, result: object) -> None:
    """Write into the task what its job returned. Raises what the code of the result raises."""
    if result is None:
        return
    error = result if asks(result) else not_done(result)
    if error is None:
        task.result = result
    else:
        assert isinstance(error, BaseException)
        _raised(task, error)


def _raised(task: Task, error: BaseException) -> None:
    task.outcome, task.text = outcome_of(error, __file__)


def failed(task: Task, error: BaseException) -> None:
    """Write into the task that its attempt failed, for a reason that lies outside of the job."""
    task.outcome, task.text = RuntimeError(text_of(error)), error_text(error, __file__)


def _leave(task: Task) -> NoReturn:
    """End a process that a job has forked, now that the job has ended in it as well: as a program of its own would."""
    status = 1
    with contextlib.suppress(BaseException):
        error = task.outcome
        code = error.code if isinstance(error, SystemExit) else None if error is None or asks(error) else task.text
        if code is None or isinstance(code, int):
            status = (code or 0) & 0xFF
        else:
            sys.stderr.write(f"{code}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
