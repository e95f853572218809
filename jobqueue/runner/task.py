"""A job in the hands of a runner."""

from __future__ import annotations

from typing import Any

from jobqueue.context import Context, Flags
from jobqueue.job import Kind
from jobqueue.judge import Verdict
from jobqueue.keys import QueueKeys
from jobqueue.record import JobRecord, Stored, job_record

__all__ = ["Task"]


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
        unfit: The payload does not fit the kind: the job never started.
        crashed: The process that ran it died; ``text`` says how.
        noted: Its record says that it was started alone.
        handed_back: The driver did not start it, or it ended because its runner told it to stop.
        verdict: What is to become of it; None finishes it.
        returned: The driver is done with it; what is left is to store the result.
        unsure: Its result was sent once without an answer.
    """

    __slots__ = (
        "_free", "began", "crashed", "deadline", "fence", "handed_back", "id", "kind", "noted", "order", "outcome",
        "queue", "record", "result", "returned", "stored", "text", "took", "unfit", "unsure", "verdict",
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
        self.unfit = False
        self.crashed = False
        self.noted = False
        self.handed_back = False
        self.verdict: Verdict | None = None
        self.returned = False
        self.unsure = False
        self._free = True

    def take(self) -> bool:
        """Whether the caller is the one who may start it, or hand it back: True for exactly one caller."""
        try:
            del self._free  # the second to try fails; cheaper than a lock, or anything else, for every job
        except AttributeError:
            return False
        return True

    def context(self) -> Context:
        """What the job can ask about its run, and what its log records say."""
        return Context(self.job_record, attempt=self.stored.attempt + 1, fence=self.fence, flags=self)

    def job_record(self) -> JobRecord[Any]:
        """What the job sees of itself."""
        return job_record(self.id, self.queue.queue, self.stored, "working", fence=self.fence)
