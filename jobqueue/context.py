"""What a running job knows of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobqueue.record import JobRecord

__all__ = ["Context", "Flags", "current_context", "set_current"]

_LOGGER = logging.getLogger("jobqueue.job")


class Flags:
    """What a runner tells a job while it runs: plain booleans, set by the runner and read by the job's thread."""

    __slots__ = ("cancelled", "lease_lost")

    def __init__(self) -> None:
        self.lease_lost = False
        self.cancelled = False


class Context:
    """What a job can ask about its own run.

    One is made per run, so this is a plain class and the record is made only when somebody looks at it.

    Attributes:
        attempt: 1 for the first run, 2 for the first retry.
        fence: A number that grows with every claim of a job. Pass it on to what you write to: a writer with a smaller
            number than the last one seen has been replaced.
        logger: Where the job should log to.
    """

    __slots__ = ("_flags", "_record", "attempt", "fence", "logger")

    def __init__(
        self,
        record: JobRecord[Any] | Callable[[], JobRecord[Any]],
        *,
        attempt: int = 1,
        fence: int = 0,
        flags: Flags | None = None,
        logger: logging.Logger = _LOGGER,
    ) -> None:
        """Make a context; ``record`` may be a function that makes the record at first use."""
        self._record = record
        self._flags = flags if flags is not None else Flags()
        self.attempt = attempt
        self.fence = fence
        self.logger = logger

    @property
    def record(self) -> JobRecord[Any]:
        """The job as it was claimed."""
        record = self._record
        if callable(record):
            record = self._record = record()
        return record

    @property
    def lease_lost(self) -> bool:
        """Whether the runner could not renew its right to this job, which may be running elsewhere by now: stop."""
        return self._flags.lease_lost

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked this job to end: stop when convenient."""
        return self._flags.cancelled


_current: ContextVar[Context] = ContextVar("jobqueue.context")


def current_context() -> Context:
    """Answer the context of the job that this code runs in.

    Raises:
        LookupError: No job is running here.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("no job is running here: current_context() works only inside of a job") from None


def set_current(context: Context) -> None:
    """Make this the current context of this thread or task; the runner's half of `current_context`."""
    _current.set(context)
