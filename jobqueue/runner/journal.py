"""What a runner counts and logs."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from jobqueue.errors import StorageError, StorageRefused
from jobqueue.names import suggestion
from jobqueue.runner.decisions import Notice
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.task import Task
from jobqueue.texts import error_text

__all__ = ["Careful", "Journal", "Lasting", "RunnerStatus", "labelled", "tell_dead"]

EXECUTED: Final = frozenset({"done", "retried", "dead", "snoozed", "discarded"})
REMIND_MS: Final = 300_000.0
"""How long a trouble that lasts goes without another word."""


@attrs.define
class RunnerStatus:
    """What a runner has done since it started.

    Attributes:
        executed: Runs whose result was stored.
        done: Runs that succeeded.
        failed: Runs that raised, to be retried or given up.
        retried: Runs that are to be retried.
        dead: Jobs given up.
        snoozed: Runs that asked to be run later.
        discarded: Runs that asked to be forgotten.
        parked: Jobs put back because this runner does not know their kind.
        crashed: Runs whose own process died; their jobs were handed back.
        released: Jobs handed back.
        late: Results that were refused, because the job had been taken away.
        rescued: Jobs brought back from runners that are gone.
        running: Jobs running now.
    """

    executed: int = 0
    done: int = 0
    failed: int = 0
    retried: int = 0
    dead: int = 0
    snoozed: int = 0
    discarded: int = 0
    parked: int = 0
    crashed: int = 0
    released: int = 0
    late: int = 0
    rescued: int = 0
    running: int = 0


class Lasting:
    """A trouble that may last: each thing is said of it once, and again every few minutes, until it ends."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def is_news(self, text: str, local: float) -> bool:
        """Whether this is to be said now (local ms)."""
        recent = {said: at for said, at in self._said.items() if local - at < REMIND_MS}
        if text in recent:
            return False
        self._said = {**recent, text: local}
        return True

    def ended(self) -> bool:
        """It is over; answers whether something was said of it."""
        before, self._said = self._said, {}
        return bool(before)


class Careful(logging.Logger):
    """A logger whose filters and handlers may raise: that must not end a thread of the runner.

    Args:
        logger: Where everything goes.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.name)
        self._logger = logger

    @classmethod
    def of(cls, logger: logging.Logger) -> logging.Logger:
        """The same for a logger; an adapter is left as it is."""
        return cls(logger) if isinstance(logger, logging.Logger) else logger

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is that of the standard library
        """See `logging.Logger`."""
        return self._logger.isEnabledFor(level)

    def handle(self, record: logging.LogRecord) -> None:
        """See `logging.Logger`."""
        try:
            self._logger.handle(record)
        except Exception as error:  # noqa: BLE001 - a filter or a handler of the user's
            with contextlib.suppress(Exception):
                sys.stderr.write(f"{record.getMessage()}\n(the line above could not be logged: {error_text(error)})\n")


class Journal:
    """Turns what the core and the duties notice into numbers and lines.

    Arguments of jobs are never logged: they may hold what nobody should read.

    Args:
        status: Where it counts.
        log: Where it writes.
        known: The kinds that the runner knows, one of which may be meant by the name of one that it does not.
    """

    def __init__(
        self, status: RunnerStatus, log: logging.Logger, known: Callable[[], Iterable[str]] = tuple[str]
    ) -> None:
        self._status = status
        self._log = log
        # A batch may have hundreds of jobs of one kind, and to look for what is near takes a millisecond.
        self._meant = functools.lru_cache(maxsize=64)(lambda name: suggestion(name, known()))
        self._troubled = False
        self._duties = Lasting()

    def noticed(self, notice: Notice) -> None:
        """The core noticed something."""
        what = notice.what
        if what == "trouble":
            if not self._troubled:
                self._log.warning("the storage %s", notice.detail)
            self._troubled = True
        elif what == "answers":
            self._troubled = False
            self._log.info("the storage answers again")
        else:
            status, count = self._status, len(notice.tasks)
            setattr(status, what, getattr(status, what) + count)
            if what in EXECUTED:
                status.executed += count
            if what != "done":
                for task in notice.tasks:
                    self._tell(what, task)

    def _tell(self, what: str, task: Task) -> None:
        label = labelled(task)
        if what in ("retried", "dead"):
            self._status.failed += 1
            self._failed(label, what, task.text)
        elif what == "discarded":
            self._log.info("job %s asked to be discarded: %s", label, printable(task.text) or "it does not say why")
        elif what == "crashed":
            self._log.error("job %s: %s; it will run again", label, printable(task.text))
        elif what == "late":
            self._log.warning(
                "job %s: its result is discarded: another runner took the job, or somebody removed its keys",
                label,
            )
        elif what == "parked":
            self._log.warning(
                "job %s: this runner does not know the kind%s; it is put back for one that does",
                label, self._meant(task.stored.name),
            )  # fmt: skip
        else:
            self._log.debug("job %s: %s", label, what)

    def _failed(self, label: str, what: str, text: str) -> None:
        level = logging.WARNING if what == "retried" else logging.ERROR
        error, *rest = text.split("\n")
        message, values = "job %s failed (%s): %s", (label, what, printable(error))
        if not isinstance(self._log, logging.Logger):
            self._log.log(level, message, *values)  # an adapter makes no records
        elif self._log.isEnabledFor(level):
            record = self._log.makeRecord(self._log.name, level, __file__, 0, message, values, None, "_failed")
            # The frames alone: further lines of the error may tell what the job was given. And not the exception itself: it
            # would keep alive what its frames hold until the result is stored.
            frames = itertools.dropwhile(lambda line: not line.startswith('  File "'), rest)
            record.exc_text = "\n".join(f"  {printable(frame)}" for frame in frames) or None
            self._log.handle(record)

    def duties(self, error: Exception | None, local: float) -> None:
        """A round of duties ended at this time (local ms): well, or with an error."""
        if error is None:
            if self._duties.ended():
                self._log.info("the duties of this runner are done again")
        elif isinstance(error, StorageRefused):
            if self._duties.is_news(str(error), local):
                self._log.warning("the duties of this runner were refused; they are tried again: %s", error)
        elif isinstance(error, StorageError):
            self._log.debug("duties: %s", error)  # whoever sends jobs meets the same trouble and says so
        elif self._duties.is_news(f"{type(error).__name__}: {error}", local):
            # Most likely something that a foreign writer left in the storage.
            self._log.error("the duties of this runner met something unexpected; they are tried again", exc_info=error)

    def rescued(self, rescued: Sequence[Rescued]) -> None:
        """A duty brought jobs back."""
        self._status.rescued += len(rescued)
        returned: dict[str, int] = {}
        for job in rescued:
            if not job.dead:
                returned[job.incarnation] = returned.get(job.incarnation, 0) + 1
        for incarnation, count in returned.items():
            self._log.warning(
                "runner %s gave no sign of life: %d jobs returned to their queues and will run again",
                incarnation,
                count,
            )
        tell_dead(self._log, rescued)


def tell_dead(log: logging.Logger, rescued: Sequence[Rescued]) -> None:
    """Name the jobs that did not come back."""
    for job in rescued:
        if job.dead:
            log.error(
                "job %s of queue %s went to dead: it took its runner down too often, or its record cannot be read",
                printable(job.id.decode("utf-8", "replace")), job.queue,
            )  # fmt: skip


def labelled(task: Task) -> str:
    """The kind and the id of a job, for a line about it."""
    return f"{printable(task.stored.name) or '(unreadable)'} {printable(task.id.decode('utf-8', 'replace'))}"


def printable(text: str) -> str:
    """Text of a job that cannot break a line of the log or speak to a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
