"""Replays requests of the past on a copy of the contents: whatever arrives again, or late, must change nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import (
    RECORDS,
    REQUESTS,
    Applied,
    Batch,
    Due,
    HashKey,
    HashSet,
    Move,
    Moved,
    Once,
    Op,
    Placed,
    Put,
    These,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.testing.simulation.books import InvariantBroken
from jobqueue.testing.simulation.diagram import describe

__all__ = ["Replays"]


class Replays:
    """The requests of one history.

    Args:
        seed: Fixes which of them are replayed when.
        seen: Where to count those that had changed something when they arrived first.
    """

    def __init__(self, seed: int, seen: Counter[str]) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._seen = seen
        self._past: list[tuple[int, Batch]] = []
        self._last: Batch | None = None
        self._noted = 0
        self._stored: dict[bytes, int] = {}

    def note(self, batch: Batch, outcome: Outcome) -> None:
        """A request arrived and was answered."""
        self._last = None
        self._noted += 1
        if isinstance(outcome, Applied):
            for op, answer in zip(batch.ops, outcome.answers, strict=True):
                if isinstance(op, Put) and isinstance(answer, Placed):
                    new = (id for id, state in zip(op.records, answer.states, strict=True) if state == "stored")
                    self._stored.update(dict.fromkeys(new, self._noted))
            if any(map(_changed, outcome.answers)):
                self._past.append((self._noted, batch))
            if any(map(_is_full_page, batch.ops, outcome.answers)):
                return  # at once again it takes the next page
        self._last = batch

    def check(self, contents: Interpreter) -> None:
        """Let the last request, and any one of the past, arrive once more.

        Raises:
            InvariantBroken: It changed something (I18).
        """
        copy = contents.copy()
        if self._last is not None:
            self._replay(copy, contents, self._last)
            if self._past and self._past[-1][1] is self._last:
                self._seen["I18"] += 1
        if self._past:
            number, old = self._past[self._chance.randrange(len(self._past))]
            if not self._is_about_an_earlier_life(old, number) and not _is_excused(old, contents):
                self._replay(copy, contents, old)
                self._seen["I18"] += 1

    def _is_about_an_earlier_life(self, batch: Batch, number: int) -> bool:
        """Whether one of its jobs ended, or was deleted, and was stored once more by its producer: see `Put` below.

        What names the claim of the job knows the one life from the other, and has to stay without effect.
        """
        return any(
            self._stored.get(id, 0) > number
            for op in batch.ops
            if isinstance(op, Move) and isinstance(op.pick, These) and not _names_claims(op)
            for id in op.pick.ids
        )

    def _replay(self, copy: Interpreter, contents: Interpreter, batch: Batch) -> None:
        copy.apply(batch)
        if not _same(copy, contents):
            ids = tuple(id for op in batch.ops if isinstance(op, Put) for id in op.records)
            raise InvariantBroken("I18", f"{describe(batch)}: it changed something when it arrived again", ids)


def _names_claims(op: Move) -> bool:
    return isinstance(op.expect, Mapping) and not any(isinstance(expected, int) for expected in op.expect.values())


def _changed(answer: object) -> bool:
    match answer:
        case Moved():
            return bool(answer.ids)
        case Placed():
            return "stored" in answer.states
        case _:
            return True  # a plain operation that was applied


def _is_full_page(op: Op, answer: object) -> bool:
    return isinstance(op, Move) and isinstance(op.pick, Due) and len(answer.ids) == op.pick.limit  # type: ignore[attr-defined]


def _same(one: Interpreter, other: Interpreter) -> bool:
    return (
        one.hashes == other.hashes
        and one.lists == other.lists
        and one.locks == other.locks
        and one.sets.keys() == other.sets.keys()
        and all(entries.scores == other.sets[name].scores for name, entries in one.sets.items())
    )


def _is_excused(batch: Batch, contents: Interpreter) -> bool:
    """Whether an old request may act, because the world has moved on so that it says something new."""
    for op in batch.ops:
        match op:
            case Move(pick=Due()):
                return True  # what has become due since is due, whoever says so
            case Move(once=Once(incarnation=incarnation)):
                # A day after a runner ended its requests are forgotten. What it claimed then would come back in time.
                if incarnation not in contents.hashes.get(HashKey(batch.scope, REQUESTS).full, {}):
                    return True
            case Put():
                # A job that has ended is not remembered: sent again it runs again, which is promised to be so.
                records = contents.hashes.get(HashKey(batch.scope, RECORDS).full, {})
                if not op.records.keys() <= records.keys():
                    return True
            case HashSet(hash=HashKey(name="runners")):
                return True  # what a runner says of itself: its next beat says it anew
            case _:
                pass
    return False
