"""What happened to each job of a testing block, told when somebody wants to know.

While a block is open only the calls of the storage are kept, as they are: what they mean is worked out for a message.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

import attrs

from jobqueue.clock import Clock
from jobqueue.errors import PayloadError
from jobqueue.lifecycle import COUNTED
from jobqueue.record import Stored, decode
from jobqueue.storage.ops import Applied, Batch, Move, Moved, Placed, Put, These
from jobqueue.storage.protocol import Outcome

__all__ = ["Event", "History", "Story"]

CALLS: Final = 20_000
"""Calls of the storage that are kept: the latest."""
SPOKEN: Final[Mapping[str, str]] = {
    **{str(step): word for step, word in COUNTED.items()},
    "promote": "due",
    "hurry": "requeued",
    "claim": "claimed",
    "requeue": "requeued",
    "delete": "deleted",
    "prune": "forgotten, it was dead for long",
    "release": "handed back",
    "rescue": "taken from its runner, which is gone",
    "park": "put back, its kind is unknown",
}
"""What steps are called here."""
UNREADABLE: Final = Stored("", b"", 0, 0, 0, 0, 0)


@attrs.define
class _Call:
    at: int
    batches: tuple[Batch, ...]
    outcomes: tuple[Outcome, ...]


@attrs.define
class _Note:
    at: int
    id: bytes
    what: str


@attrs.frozen
class Event:
    """One thing that happened to a job.

    Attributes:
        after: How much time of the block had passed.
        what: What it was.
    """

    after: timedelta
    what: str


@attrs.define
class Story:
    """All that happened to one job.

    Attributes:
        id: Its id.
        stored: Its fields, as they were last written.
        events: What happened, in order.
    """

    id: bytes
    stored: Stored
    events: list[Event] = attrs.field(factory=list)


class History:
    """The calls of one block.

    Args:
        clock: Tells when they were made.

    Attributes:
        calls: How many calls changed the storage, or may have.
        scopes: Where they did.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start = clock.now()
        self.calls = 0
        self.scopes: set[str] = set()
        self._entries: deque[_Call | _Note] = deque(maxlen=CALLS)
        self._lock = threading.RLock()  # a signal handler may enqueue while its thread does

    def apply(
        self, storage: Callable[[Sequence[Batch]], list[Outcome]], batches: Sequence[Batch]
    ) -> list[Outcome]:  # fmt: skip
        """Apply batches by way of this function, and keep the call: calls of several threads in the order they had."""
        with self._lock:
            outcomes = storage(batches)
            self.calls += 1
            for batch in batches:
                self.scopes.add(batch.scope)
            # Both in tuples of its own: whoever called goes on with the lists.
            self._entries.append(_Call(self._clock.now(), tuple(batches), tuple(outcomes)))
        return outcomes

    def lost(self, batches: Sequence[Batch], outcomes: Sequence[Outcome]) -> None:
        """Keep that the replies to the last call got lost."""
        for batch, outcome in zip(batches, outcomes, strict=True):
            for op, answer in zip(batch.ops, outcome.answers if isinstance(outcome, Applied) else (), strict=False):
                for id in op.records if isinstance(op, Put) else answer.ids if isinstance(answer, Moved) else ():
                    self.note(id, "the reply to that got lost")

    def note(self, id: bytes, what: str) -> None:
        """Keep something that no storage sees."""
        with self._lock:
            self._entries.append(_Note(self._clock.now(), id, what))

    def stories(self) -> list[Story]:
        """What happened to each job, in the order in which they were enqueued."""
        teller = _Teller(self._start)
        with self._lock:
            entries = list(self._entries)
        for entry in entries:
            if isinstance(entry, _Note):
                teller.tell(entry.at, entry.id, entry.what)
                continue
            for batch, outcome in zip(entry.batches, entry.outcomes, strict=True):
                if isinstance(outcome, Applied):
                    teller.applied(entry.at, batch, outcome)
        return list(teller.stories.values())


class _Teller:
    def __init__(self, start: int) -> None:
        self.stories: dict[bytes, Story] = {}
        self._start = start
        self._settled: set[tuple[bytes, object]] = set()

    def tell(self, at: int, id: bytes, what: str) -> None:
        story = self.stories.get(id)
        if story is not None:  # else its beginning is not kept any more
            story.events.append(Event(timedelta(milliseconds=at - self._start), what))

    def applied(self, at: int, batch: Batch, outcome: Applied) -> None:
        queue = batch.scope.rpartition(":")[2]
        for op, answer in zip(batch.ops, outcome.answers, strict=True):
            if isinstance(op, Put) and isinstance(answer, Placed):
                for (id, record), state in zip(op.records.items(), answer.states, strict=True):
                    self._put(at, id, record, state, queue)
            elif isinstance(op, Move) and isinstance(answer, Moved) and op.source != op.target:
                self._moved(at, batch.step, op, answer)

    def _put(self, at: int, id: bytes, record: bytes, state: str, queue: str) -> None:
        if state == "stored":
            stored = _decoded(record, UNREADABLE)
            self.stories[id] = Story(id, stored)
            due = f", due in {timedelta(milliseconds=stored.due - at)}" if stored.due > at else ""
            self.tell(at, id, f"enqueued in {queue}{due}")
        else:
            self.tell(
                at, id, "enqueued again, and was stored already" if state == "same" else "met by another job's id"
            )

    def _moved(self, at: int, step: str, op: Move, answer: Moved) -> None:
        what = SPOKEN[step]
        for id in answer.ids:
            if op.records is not None and id in op.records and id in self.stories:
                self.stories[id].stored = _decoded(op.records[id], self.stories[id].stored)
            if step in COUNTED:
                self._settled.add((id, _claim(op, id)))
            self.tell(at, id, what + self._detail(step, id, at))
        if step not in COUNTED or not isinstance(op.pick, These):
            return
        for id in op.pick.ids:
            # Sent again after a lost reply it moves nothing either, and that is no news.
            if id not in answer.ids and (id, _claim(op, id)) not in self._settled:
                self.tell(at, id, f"{what}: refused, the job had been taken away from this runner")

    def _detail(self, step: str, id: bytes, at: int) -> str:
        story = self.stories.get(id)
        if story is None:
            return ""
        stored = story.stored
        said = f": {stored.error.splitlines()[0]}" if stored.error else ""
        if step == "claim":
            return f", attempt {stored.attempt + 1}"
        if step in ("retry", "snooze"):
            return f", due in {timedelta(milliseconds=stored.due - at)}" + (said if step == "retry" else "")
        return said if step in ("bury", "condemn") else ""


def _claim(op: Move, id: bytes) -> object:
    return op.expect.get(id) if isinstance(op.expect, Mapping) else None


def _decoded(record: bytes, before: Stored) -> Stored:
    try:
        return decode(record)
    except PayloadError:
        return before
