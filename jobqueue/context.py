"""What a running job knows of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from jobqueue.logs import FIELDS, About, library_logger, subject
from jobqueue.record import JobRecord, parse_claim
from jobqueue.safe_text import printable

__all__ = ["Context", "Flags", "current_context", "set_current"]


class Flags:
    """What a runner and a running job tell each other: plain booleans.

    Attributes:
        lease_lost: Set by the runner: its lease on the job is lost, for now or for good.
        cancelled: Set by the runner: the job is to end.
        seen: The run has seen one of the two, or its coroutine was cancelled by the runner. It stays so.
        complete: The job says that it has done all of its work.
        claim: The mark of its claim, where there is one: for `Context.log_fields`.
    """

    __slots__ = ("cancelled", "claim", "complete", "lease_lost", "seen")
    claim: bytes

    def __init__(self) -> None:
        self.lease_lost = False
        self.cancelled = False
        self.seen = False
        self.complete = False


class Context:
    """What a job can ask about its own run.

    One is made per run, so this is a plain class and the record is made only when somebody looks at it.

    Attributes:
        attempt: 1 for the first run, 2 for the first retry.
        fence: A number that grows with every claim of a job. Pass it on to what you write to: a writer with a smaller
            number than the last one seen has been replaced.
    """

    __slots__ = ("_fields", "_flags", "_logger", "_record", "attempt", "fence")

    def __init__(
        self,
        record: JobRecord[Any] | Callable[[], JobRecord[Any]],
        *,
        attempt: int = 1,
        fence: int = 0,
        flags: Flags | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Make a context; ``record`` may be a function that makes the record at first use."""
        self._record = record
        self._flags = flags if flags is not None else Flags()
        self.attempt = attempt
        self.fence = fence
        if logger is not None:
            self._logger = logger

    @property
    def logger(self) -> logging.Logger:
        """Where the job should log to: ``jobqueue.job``. What is logged anywhere in a job says which job it is."""
        try:
            return self._logger
        except AttributeError:
            return library_logger("jobqueue.job")

    @property
    def record(self) -> JobRecord[Any]:
        """The job as it was claimed."""
        record = self._record
        if callable(record):
            record = self._record = record()
        return record

    @property
    def log_fields(self) -> Mapping[str, object]:
        """What log records say of this job: ``job_id``, ``kind``, ``queue``, ``attempt``, ``runner`` and ``fence``."""
        try:
            return self._fields
        except AttributeError:  # nobody has asked before: most jobs log nothing
            record, claim = self.record, getattr(self._flags, "claim", b"")
            runner = printable(parse_claim(claim)[0])
            values = (printable(record.id), printable(record.name), record.queue, self.attempt, runner, self.fence)
            self._fields: Mapping[str, object] = dict(zip(FIELDS, values, strict=True))
            return self._fields

    @property
    def lease_lost(self) -> bool:
        """Whether the runner could not renew its right to this job, which may be running elsewhere by now: stop.

        A run that has read True here is handed back when it ends, see `complete`.
        """
        flags = self._flags
        if not flags.lease_lost:
            return False
        flags.seen = True
        return True

    @property
    def cancelled(self) -> bool:
        """Whether this job is to end now, because its runner stops.

        A run that has read True here is handed back when it ends, see `complete`.
        """
        flags = self._flags
        if not flags.cancelled:
            return False
        flags.seen = True
        return True

    def complete(self) -> None:
        """Say: I have done all of my work, although I was told to stop.

        A run that has seen that it should stop (it read `cancelled` or `lease_lost` as True, or was cancelled as a
        coroutine) is taken for broken off. However it ends, its job is handed back and runs again, and no attempt is
        counted. After this call it counts as it ends: a return is a success, an exception a failed attempt.
        """
        self._flags.complete = True


def current_context() -> Context:
    """Answer the context of the job that this code runs in.

    Raises:
        LookupError: No job is running here.
    """
    found = subject.get(None)
    if isinstance(found, About):  # the library tells of the job: its filters and handlers run here
        found = found.before
    if isinstance(found, Context):
        return found
    raise LookupError("no job is running here: current_context() works only inside of a job")


def set_current(context: Context) -> None:
    """Make this the current context of this thread or task; the runner's half of `current_context`."""
    subject.set(context)
