"""A job in the hands of a runner.

Where it is there, is its phase, which the runner's core alone changes::

    claimed ──► outstanding ──► judged ◄──► sent ──► gone

A suspect waits before it is claimed for good. What is not to run any more is judged at once, and what somebody else holds is
gone at once. How a run ended is written by whoever ran it, on the thread of the job: ``end``, ``outcome``, ``result`` and
``text``. `Task.judge` makes the verdict of it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final

from jobqueue.context import Context, Flags
from jobqueue.job import Kind
from jobqueue.judge import FINISHED, Verdict, after_own_crash, after_run, released, unfit
from jobqueue.keys import QueueKeys
from jobqueue.record import JobRecord, Stored, job_record

__all__ = ["End", "Phase", "Task", "advance"]


class Phase(enum.Enum):
    """Where a job is in a runner."""

    CLAIMED = enum.auto()
    """It is started as soon as there is a place for it."""
    SUSPECT = enum.auto()
    """Runners died while they held it: it waits until nothing else runs."""
    OUTSTANDING = enum.auto()
    """The driver has it: it runs, or is about to."""
    JUDGED = enum.auto()
    """It has a verdict, which is to be stored. Most often the driver is done with it."""
    SENT = enum.auto()
    """Its verdict is under way to the storage."""
    GONE = enum.auto()
    """Its verdict is stored, or somebody else holds the job."""


NEXT: Final[dict[Phase, tuple[Phase, ...]]] = {
    Phase.CLAIMED: (Phase.SUSPECT, Phase.OUTSTANDING, Phase.JUDGED),
    Phase.SUSPECT: (Phase.CLAIMED, Phase.JUDGED, Phase.GONE),
    Phase.OUTSTANDING: (Phase.JUDGED, Phase.GONE),
    Phase.JUDGED: (Phase.SENT,),
    Phase.SENT: (Phase.GONE, Phase.JUDGED),  # it was not answered: it is sent again
    Phase.GONE: (),
}
"""Phase → the phases that may follow."""
_BEFORE: Final = {phase: tuple(one for one in Phase if phase in NEXT[one]) for phase in Phase}
# In Python 3.11 a member of an enum costs as much as a call: too much for what is looked at once for each job.
_CLAIMED: Final = Phase.CLAIMED
_RETURNED: Final = (Phase.JUDGED, Phase.SENT, Phase.GONE)


class End(enum.Enum):
    """How whoever ran a job is done with it."""

    RAN = enum.auto()
    """It came to its end: ``outcome`` says to which."""
    UNFIT = enum.auto()
    """Its payload does not fit its kind: it never began."""
    CRASHED = enum.auto()
    """The process that ran it died; ``text`` says how."""
    HANDED_BACK = enum.auto()
    """It was not started, or broken off, since its runner told it to stop."""


_RAN: Final = End.RAN


class Task(Flags):
    """One claimed job: made by the runner's core, run by a driver, given back to the core.

    Not an attrs class with a constructor per field: a runner makes a hundred thousand of them a second.

    Attributes:
        queue: Its queue.
        id: Its id.
        claim: The mark of the claim, which every later move has to show.
        fence: The number in it.
        order: Its place among the jobs of this claim.
        record: The stored bytes; empty if they are too many to be read.
        stored: Their fields.
        kind: Its kind; None if the record could not be read or the kind is unknown.
        deadline: Local monotonic milliseconds until which the lease is certain.
        outcome: What the job raised or returned that is not a plain success; None is success, or judged already.
        result: What the job returned, on success.
        text: The error as it is to be kept.
        began: When (local ms) it began.
        took: How long it ran, in ms.
        end: How whoever ran it is done with it.
        phase: Where it is in the runner.
        verdict: What is to become of it, once that is clear.
        unsure: Its verdict was sent once without an answer.
    """

    __slots__ = (
        "_free", "began", "deadline", "end", "fence", "id", "kind", "order", "outcome", "phase", "queue", "record", "result",
        "stored", "text", "took", "unsure", "verdict",
    )  # fmt: skip
    began: float

    def __init__(
        self,
        queue: QueueKeys,
        id: bytes,
        claim: bytes,
        fence: int,
        record: bytes,
        stored: Stored,
        kind: Kind[Any] | None,
        deadline: float,
        order: int = 0,
    ) -> None:
        super().__init__()
        self.queue = queue
        self.id = id
        self.claim = claim
        self.fence = fence
        self.record = record
        self.stored = stored
        self.kind = kind
        self.deadline = deadline
        self.order = order
        self.outcome: BaseException | None = None
        self.result: Any = None
        self.text = ""
        self.took = 0.0
        self.end = _RAN
        self.phase = _CLAIMED
        self.verdict: Verdict | None = None
        self.unsure = False
        self._free = True

    def take(self) -> bool:
        """Whether the caller is the one who may start it, or hand it back: True for exactly one caller."""
        try:
            del self._free  # the second to try fails; cheaper than a lock, or anything else, for every job
        except AttributeError:
            return False
        return True

    @property
    def returned(self) -> bool:
        """Whether what is left is to store its verdict."""
        return self.phase in _RETURNED

    def judge(self, now: int) -> None:
        """Make the verdict of a job that the driver is done with."""
        if self.end is _RAN:
            if self.outcome is None:
                self.verdict = FINISHED
                return
            assert self.kind is not None
            self.verdict = after_run(self.stored, self.outcome, self.text, self.kind.retry, now)
            self.text = str(self.verdict.changes.get("error", self.text))
        elif self.end is End.UNFIT:
            self.verdict = unfit(self.stored, self.text, now)
        elif self.end is End.CRASHED:
            self.verdict = after_own_crash(self.stored, self.fence, self.text, now)
        else:
            self.verdict = released(self.stored, self.fence)
        # An error holds the frames of the job, and these may hold the task: a circle that only the collector would end.
        self.outcome = None

    def context(self) -> Context:
        """What the job can ask about its run, and what its log records say."""
        return Context(self.job_record, attempt=self.stored.attempt + 1, fence=self.fence, flags=self)

    def job_record(self) -> JobRecord[Any]:
        """What the job sees of itself."""
        return job_record(self.id, self.queue.queue, self.stored, "working", fence=self.fence)


def advance(tasks: Iterable[Task], phase: Phase) -> None:
    """Take jobs to their next phase.

    Raises:
        RuntimeError: The table does not allow it for one of them: a mistake in the runner, which is not to go on.
    """
    before = _BEFORE[phase]
    for task in tasks:
        if task.phase not in before:
            raise RuntimeError(f"job {task.id!r} cannot go from {task.phase} to {phase}")
        task.phase = phase
