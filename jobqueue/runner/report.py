"""The line about a run that failed, written where its exception is at hand: on the thread of the job, in its context.

There the tools that collect errors find what the job has told them. And an exception keeps alive what its frames hold. Here
it is dropped when its line is written; in a task it would live until the runner's main thread comes to it, which may wait
for the storage meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from types import TracebackType
from typing import Any, Final

from jobqueue.durations import span
from jobqueue.endings import asks
from jobqueue.judge import RaisedElsewhere, abridged, is_retried, pause_ms
from jobqueue.logs import Careful, about, name_jobs
from jobqueue.retry import Retry
from jobqueue.runner import execute
from jobqueue.runner.task import End, Task
from jobqueue.safe_text import LINE, printable
from jobqueue.texts import first_line

__all__ = ["Reporter", "fields_of", "labelled", "stand_in"]

_UNWRITABLE: Final = re.compile(r"\\ud[89a-f]")
"""Half a character, as `clean` writes it: a record of that exception could not be written to a file."""
_TRACE: Final[Any] = BaseException.__dict__["__traceback__"].__get__


class Reporter:
    """Logs runs that failed.

    Arguments of jobs are not in its lines: they may hold what nobody should read. The text of an exception is the job's own.

    Args:
        log: Where to log to.

    Attributes:
        log: The same.
        timed: Whether how long a run took is of interest although it did not fail: there is a line about each at DEBUG.
    """

    def __init__(self, log: logging.Logger | None = None) -> None:
        self.log = Careful("jobqueue.runner") if log is None else log
        self.timed = False

    def begin(self) -> None:
        """A runner starts."""
        name_jobs()
        self.look()

    def look(self) -> bool:
        """Answer `timed`, as the log's level is now: looking at it for each job would cost more than the clock."""
        self.timed = self.log.isEnabledFor(logging.DEBUG)
        return self.timed

    def __call__(self, task: Task, error: BaseException | None = None) -> None:
        """Log that a run failed, and leave in the task what the runner's core has to know of its exception.

        Args:
            task: The job. One that was handed back, or asked for something that is no failure, is let pass.
            error: The exception, if it is not the outcome in the task.
        """
        raised = task.outcome
        if raised is None or task.end is End.HANDED_BACK or (asks(raised) and not isinstance(raised, Retry)):
            return
        assert task.kind is not None
        retried, again = task.end is not End.UNFIT, ""
        with contextlib.suppress(BaseException):  # it is foreign code that raised this; `after_run` says so
            task.outcome, task.text = abridged(raised, task.text, task.kind.retry)
            retried = retried and is_retried(task.stored, task.outcome)
            if retried:  # asked here, so that the line can tell it
                after, task.text = pause_ms(task.stored, task.outcome, task.text, task.kind.retry)
                task.outcome.after_ms = after
                again = f" in {span(after / 1000)}"
        what, level = ("retried", logging.WARNING) if retried else ("dead", logging.ERROR)
        shown, trace = error or raised, _own_frames(error or raised)
        if isinstance(shown, RaisedElsewhere) or _UNWRITABLE.search(task.text):
            shown = stand_in(task.text)
        with contextlib.suppress(BaseException), about({**fields_of(task), "outcome": what, **duration(task)}):
            self.log.log(
                level, "job %s failed (%s%s): %s", labelled(task), what, again, printable(first_line(task.text), LINE),
                exc_info=(type(shown), shown, trace),
            )  # fmt: skip


class RemoteError(Exception):
    """Stands in log records for an exception of which there is only the text. Its class is named as the real one."""


class RemoteTraceback(Exception):
    """The text that would be the traceback of a `RemoteError`, shown as its cause."""

    def __str__(self) -> str:
        return f"\n{super().__str__()}"


def stand_in(text: str) -> RemoteError:
    """What log records have as their exception for an error that is kept as this text; see `jobqueue.endings.error_text`."""
    first, _, frames = text.partition("\n")
    name, _, message = first.partition(": ")
    if not all(part.isidentifier() for part in name.split(".")):
        name, message = f"{__name__}.RemoteError", first
    error = _named(name)(message)
    if frames:
        error.__cause__ = RemoteTraceback(frames)
    return error


@functools.lru_cache(maxsize=256)
def _named(name: str) -> type[RemoteError]:
    module, _, short = name.rpartition(".")
    return type(short, (RemoteError,), {"__module__": module or "builtins"})


def _own_frames(error: BaseException) -> TracebackType | None:
    """The traceback of an exception without the frame that called the job."""
    trace: TracebackType | None = _TRACE(error)
    if trace is not None and trace.tb_frame.f_code.co_filename == execute.__file__:
        return trace.tb_next
    return trace


def fields_of(task: Task) -> dict[str, object]:
    """What log records say of a job."""
    return dict(task.context().log_fields)


def duration(task: Task) -> dict[str, object]:
    """How long it ran, in seconds, as a field of log records; nothing of a job that did not run."""
    return {"duration": round(task.took / 1000, 6)} if task.took else {}


def labelled(task: Task) -> str:
    """The kind and the id of a job, for a line about it."""
    return f"{printable(task.stored.name) or '(unreadable)'} {printable(task.id)}"
