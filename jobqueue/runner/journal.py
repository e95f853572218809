"""What a runner counts and logs."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, assert_never

import attrs

from jobqueue.doors import is_beyond
from jobqueue.errors import StorageError, StorageRefused
from jobqueue.lifecycle import Ending
from jobqueue.logs import about, counted
from jobqueue.names import unknown_kind
from jobqueue.runner.events import (
    BeatEnded,
    BeatFailed,
    BeatLate,
    DutiesEnded,
    Event,
    JobsEnded,
    JobsRescued,
    LeasesExpired,
    LeasesLost,
    RequestsSpoiled,
    StorageAnswered,
    StorageTroubled,
)
from jobqueue.runner.report import Reporter, duration, fields_of, labelled
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.task import End, Task
from jobqueue.safe_text import LINE, printable

__all__ = ["Journal", "Lasting", "RunnerStatus", "count", "tell_dead"]

EXECUTED: Final[frozenset[Ending]] = frozenset({"done", "retried", "dead", "snoozed", "discarded"})
UNTOLD: Final[frozenset[Ending]] = frozenset({"done", "snoozed", "released"})
"""Of these there is a line at DEBUG alone: it costs more than a small job does."""
NAMED: Final = 100
"""So many runners, and so many dead jobs, are named of those that one look at a queue brought back."""
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


def count(status: RunnerStatus, event: Event) -> None:
    """Add what happened to a status."""
    match event:
        case JobsEnded(ending, tasks):
            _count_ended(status, ending, len(tasks))
        case JobsRescued(jobs):
            status.rescued += len(jobs)
        case _:
            pass


def _count_ended(status: RunnerStatus, ending: Ending, jobs: int) -> None:
    match ending:
        case "done":
            status.done += jobs
        case "retried":
            status.retried += jobs
            status.failed += jobs
        case "dead":
            status.dead += jobs
            status.failed += jobs
        case "snoozed":
            status.snoozed += jobs
        case "discarded":
            status.discarded += jobs
        case "parked":
            status.parked += jobs
        case "crashed":
            status.crashed += jobs
        case "released":
            status.released += jobs
        case "late":
            status.late += jobs
        case "rescued" | "deleted" | "pruned":
            raise AssertionError(f"no run ends so: {ending}")
        case _:
            assert_never(ending)
    if ending in EXECUTED:
        status.executed += jobs


class Journal:
    """Logs what happens in a runner.

    Arguments of jobs are never logged: they may hold what nobody should read.

    Args:
        status: What the runner has done, for its last line.
        report: Tells of runs that failed, and has the log.
        known: The kinds that the runner knows, one of which may be meant by the name of one that it does not.
    """

    def __init__(self, status: RunnerStatus, report: Reporter, known: Callable[[], Iterable[str]] = tuple[str]) -> None:
        self._status = status
        self._report = report
        self._log = report.log
        # A batch may have hundreds of jobs of one kind, and to look for what is near takes a millisecond.
        self._meant = functools.lru_cache(maxsize=64)(lambda name: unknown_kind(name, known()))
        self._troubled = False
        self._duties = Lasting()
        self._beats = Lasting()
        self._slow_beats = Lasting()
        self._failed_beats = Lasting()
        self._spoiled: set[str] = set()

    def observe(self, event: Event) -> None:
        """Something happened."""
        match event:
            case JobsEnded(ending, tasks):
                if self._report.look() or ending not in UNTOLD:
                    for task in tasks:
                        with about({**fields_of(task), "outcome": ending, **duration(task)}):
                            self._tell(ending, task)
            case StorageTroubled(error):
                if not self._troubled:
                    self._log.warning("the storage %s; running jobs go on, it is asked again: %s", _does(error), error)
                self._troubled = True
            case StorageAnswered():
                self._troubled = False
                self._log.info("the storage answers again")
            case RequestsSpoiled(queue):
                if queue not in self._spoiled:
                    self._log.warning(
                        "queue %s: something other than jobqueue wrote to the claim requests of this runner; it goes on "
                        "claiming there under another name",
                        queue,
                    )
                self._spoiled.add(queue)
            case JobsRescued(jobs):
                self._tell_rescued(jobs)
            case DutiesEnded(error, local):
                self._tell_duties(error, local)
            case LeasesExpired() | LeasesLost():
                self._tell_leases(event)
            case BeatEnded() | BeatFailed() | BeatLate():
                self._tell_beat(event)
            case _:
                assert_never(event)

    def _tell_leases(self, event: LeasesExpired | LeasesLost) -> None:
        if isinstance(event, LeasesLost):
            lost = event.lost
        else:
            why = (
                "no beat was answered within its lease; if another runner has taken it, it runs a second time, and what "
                "this run ends with is discarded"
            )
            lost = [(task, why) for task in event.tasks]
        for task, why in lost:
            with about(fields_of(task)):
                self._log.warning("job %s: %s", labelled(task), why)

    def _tell_beat(self, event: BeatEnded | BeatFailed | BeatLate) -> None:
        match event:
            case BeatLate(late_ms, lease):
                self._log.warning(
                    "a beat came %.1f s late: something held this process, or its interpreter's lock; leases last %.1f s",
                    late_ms / 1000, lease / 1000,
                )  # fmt: skip
                return
            case BeatFailed(error, local):
                if self._failed_beats.is_news(f"{type(error).__name__}: {error}", local):
                    self._log.error("a beat met something unexpected; it is tried again", exc_info=error)
                return
            case BeatEnded():
                self._failed_beats.ended()
        if event.error is None:
            if self._beats.ended():
                self._log.info("the storage answers beats again")
        elif self._beats.is_news("", event.local):
            self._log.warning(
                "the storage %s beats; they are sent again and again: %s", _does(event.error), event.error
            )
        if not event.is_slow:
            self._slow_beats.ended()
        elif event.error is None and self._slow_beats.is_news("", event.local + event.took_ms):
            self._log.warning(
                "the storage took %.1f s to answer a beat; leases last %.1f s", event.took_ms / 1000, event.lease / 1000
            )

    def _tell(self, what: Ending, task: Task) -> None:
        label = labelled(task)
        if what == "discarded":
            self._log.info(
                "job %s asked to be discarded: %s", label, printable(task.text, LINE) or "it does not say why"
            )
        elif what == "crashed":
            self._log.error("job %s: %s; it will run again", label, printable(task.text, LINE))
        elif what == "late":
            self._log.warning(
                "job %s: its result is discarded: another runner took the job, or somebody removed its keys",
                label,
            )
        elif what == "parked" and is_beyond(task.stored):
            self._log.warning(
                "job %s: only a later version of jobqueue can run it; it is put back for a runner of that version",
                label,
            )
        elif what == "parked":
            self._log.warning(
                "job %s: this runner does not know the kind; it is put back for one that does%s",
                label, self._meant(task.stored.name),
            )  # fmt: skip
        elif what == "dead" and (task.end is End.CRASHED or task.kind is None):
            # Nothing was raised. Of all other failures `Reporter` tells.
            self._log.error("job %s failed (dead): %s", label, printable(task.text.split("\n", 1)[0], LINE))
        else:
            self._log.debug("job %s: %s%s", label, what, f" after {task.took / 1000:.3f} s" if task.took else "")

    def _tell_duties(self, error: Exception | None, local: float) -> None:
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

    def stopping(self, running: int, grace_ms: float, signal: str) -> None:
        """The runner begins to stop, perhaps for a signal; so many jobs are running, which may go on for so long."""
        of = f"{signal}, " if signal else ""
        if not running:
            self._log.info("%sstopping: nothing is running", of)
            return
        self._log.info(
            "%sstopping: %s running, for %g s more at most (the grace time)%s", of,
            counted(running, "job"), grace_ms / 1000, "; a second signal leaves at once" if signal else "",
        )  # fmt: skip

    def stopped(self, left: int) -> None:
        """The runner has stopped; so many jobs could not be handed back."""
        status = self._status
        self._log.log(
            logging.WARNING if left else logging.INFO, "stopped: %d executed, %d failed, %d handed back, %d late%s",
            status.executed, status.failed, status.released, status.late,
            f"; {left} left as they are, to run again when their leases have ended" if left else "",
        )  # fmt: skip

    def _tell_rescued(self, rescued: Sequence[Rescued]) -> None:
        returned: dict[str, int] = {}
        for job in rescued:
            if not job.dead:
                returned[job.incarnation] = returned.get(job.incarnation, 0) + 1
        for incarnation, count in [*returned.items()][:NAMED]:
            self._log.warning(
                "runner %s gave no sign of life: %s returned to their queues and will run again",
                printable(incarnation),
                counted(count, "job"),
            )
        if len(returned) > NAMED:
            self._log.warning(
                "%s more gave no sign of life: their jobs returned to their queues and will run again",
                counted(len(returned) - NAMED, "runner"),
            )
        tell_dead(self._log, rescued)


def _does(error: StorageError) -> str:
    return "refuses" if isinstance(error, StorageRefused) else "does not answer"


def tell_dead(log: logging.Logger, rescued: Sequence[Rescued]) -> None:
    """Name the jobs that did not come back; of very many the first ones."""
    dead = [job for job in rescued if job.dead]
    for job in dead[:NAMED]:
        why = "it took its runner down too often, or its record cannot be read"
        if not job.record:
            why = "its record is longer than max_payload allows and was not read"
        with about(job.log_fields):
            log.error("job %s of queue %s went to dead: %s", printable(job.id), job.queue, why)
    if len(dead) > NAMED:
        log.error("%s of queue %s went to dead as well", counted(len(dead) - NAMED, "job"), dead[0].queue)
