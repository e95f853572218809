"""Background jobs on Redis or Valkey whose delivery guarantees you can check yourself.

`JobQueue` declares kinds of job and enqueues jobs; `Runner` runs them; ``jobs.testing()`` runs the same rules in memory
under a fake clock.
"""

from __future__ import annotations

from jobqueue import shadows

shadows.leave_out_current_folder()
try:
    from typing import TYPE_CHECKING, Any

    from jobqueue.audit import Audit, Finding
    from jobqueue.context import Context, current_context
    from jobqueue.errors import (
        DeclarationError,
        DuplicateJob,
        JobNotFound,
        JobQueueError,
        LockTaken,
        NotApplied,
        OutcomeUnknown,
        PayloadError,
        QueueFull,
        StorageError,
        StorageRefused,
        UnknownElsewhere,
        UnknownJob,
    )
    from jobqueue.job import Call, Job
    from jobqueue.lock import Lease, Lock
    from jobqueue.looking import Counts, Totals
    from jobqueue.queue import JobQueue
    from jobqueue.record import JobRecord
    from jobqueue.retry import Discard, Retry, RetryPolicy, Snooze
    from jobqueue.runner_info import RunnerInfo
    from jobqueue.storage.ops import Place
    from jobqueue.version import __version__
except Exception as error:  # also of another sort: such a module has not what it seems to have
    if told := shadows.explained(error):
        raise ImportError(told) from error
    raise
shadows.refuse()

if TYPE_CHECKING:
    from jobqueue.runner.runner import Runner, RunnerStatus

__all__ = [
    "Audit",
    "Call",
    "Context",
    "Counts",
    "DeclarationError",
    "Discard",
    "DuplicateJob",
    "Finding",
    "Job",
    "JobNotFound",
    "JobQueue",
    "JobQueueError",
    "JobRecord",
    "Lease",
    "Lock",
    "LockTaken",
    "NotApplied",
    "OutcomeUnknown",
    "PayloadError",
    "Place",
    "QueueFull",
    "Retry",
    "RetryPolicy",
    "Runner",
    "RunnerInfo",
    "RunnerStatus",
    "Snooze",
    "StorageError",
    "StorageRefused",
    "Totals",
    "UnknownElsewhere",
    "UnknownJob",
    "__version__",
    "current_context",
]


def __getattr__(name: str) -> Any:
    # A program that only enqueues does not need the runner, which imports several modules more.
    if name in ("Runner", "RunnerStatus"):
        try:
            from jobqueue.runner import runner
        except Exception as error:
            if told := shadows.explained(error):
                raise ImportError(told) from error
            raise
        return getattr(runner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
