"""Every content of the storage that was met, by number, and what each batch does to it: by the production interpreter.

Each content and each effect is made once, checked once, and remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from jobqueue.errors import PayloadError, StorageError
from jobqueue.keys import QueueKeys
from jobqueue.lifecycle import MOVES
from jobqueue.record import decode
from jobqueue.runner.packing import RESULTS
from jobqueue.storage.answers import Held, Refused
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Move, Query, Score, Stamp
from jobqueue.storage.queries import answer
from jobqueue.storage.shape import check_shape
from jobqueue.testing.explore.programs import Part

__all__ = ["OWN", "Change", "Effect", "Spot", "Stores"]

OWN: Final = frozenset({*RESULTS, "release", "extend", "note"})
"""What only the holder of a claim may do."""


@attrs.frozen
class Spot:
    """Where a job is, and what is kept of it.

    Attributes:
        place: Its place.
        score: Its score there, 0 in ready.
        claim: Its claim, empty without one.
        record: Its record.
    """

    place: str
    score: Score
    claim: bytes
    record: bytes

    @property
    def fence(self) -> int:
        """The number of its claim."""
        return int(self.claim.split(b":")[1])


@attrs.frozen
class Change:
    """What one batch did to one job; None is outside of the storage."""

    step: str
    id: bytes
    before: Spot | None
    after: Spot | None


@attrs.frozen
class Effect:
    """What a part does to a storage.

    Attributes:
        store: What the storage holds afterwards.
        outcomes: One per batch.
        changes: What became of jobs.
        locks: Locks before and after, if one changed.
        wrong: What must not be so, or None.
    """

    store: int
    outcomes: tuple[Any, ...]
    changes: tuple[Change, ...]
    locks: tuple[tuple[Held | None, Held | None], ...]
    wrong: str | None


class Stores:
    """All contents.

    Args:
        queues: The queues there are.
        payloads: Id → payload of every job that may ever be stored.
    """

    def __init__(self, queues: Sequence[QueueKeys], payloads: Mapping[bytes, bytes]) -> None:
        self.contents: list[Interpreter] = []
        self.spots: list[dict[bytes, Spot]] = []
        self.parts: list[Part] = []
        self.effects: dict[tuple[int, int], Effect] = {}
        self._queues = queues
        self._payloads = payloads
        self._numbers: dict[object, int] = {}
        self._part_numbers: dict[str, int] = {}

    def number_of(self, contents: Interpreter) -> int:
        """The number of these contents, which are not to be changed any more.

        Raises:
            AssertionError: They are impossible; see `_spots`.
        """
        key = (
            tuple(sorted((name, tuple(values)) for name, values in contents.lists.items())),
            tuple(sorted((name, tuple(entries)) for name, entries in contents.sets.items())),
            tuple(sorted((name, tuple(sorted(fields.items()))) for name, fields in contents.hashes.items())),
            tuple(sorted((name, lock) for name, lock in contents.locks.items())),
        )
        number = self._numbers.get(key)
        if number is None:
            spots = self._spots(contents)
            number = self._numbers[key] = len(self.contents)
            self.contents.append(contents)
            self.spots.append(spots)
        return number

    def part(self, part: Part) -> int:
        """The number of a part; equal ones have the same."""
        key = repr(part)
        number = self._part_numbers.get(key)
        if number is None:
            for batch in part.batches:
                check_shape(batch)
            number = self._part_numbers[key] = len(self.parts)
            self.parts.append(part)
        return number

    def read(self, store: int, queries: Sequence[Query]) -> tuple[Any, ...]:
        """Answer queries."""
        return tuple(answer(self.contents[store], query) for query in queries)

    def effect(self, store: int, part: int) -> Effect:
        """What a part does to these contents."""
        effect = self.effects.get((store, part))
        if effect is None:
            effect = self.effects[store, part] = self._effect(store, part)
        return effect

    def _effect(self, store: int, part: int) -> Effect:
        before = self.contents[store]
        contents = before.copy()
        outcomes: list[Any] = []
        changes: list[Change] = []
        spots = self.spots[store]
        wrong: str | None = None
        number = store
        meant = dict(self.parts[part].meant)
        for step, batch in zip(self.parts[part].steps, self.parts[part].batches, strict=True):
            outcome, _ = contents.apply(batch)
            if isinstance(outcome, StorageError):
                wrong = wrong or f"{step}: the storage refused: {outcome}"
            outcomes.append(outcome)
            try:
                number = self.number_of(contents)
            except AssertionError as error:
                return Effect(store, tuple(outcomes), (), (), f"after {step}: {error}")
            after = self.spots[number]
            if isinstance(outcome, Refused) and after != spots:
                wrong = wrong or f"{step}: refused, but it changed something"
            made = [
                Change(step, id, spots.get(id), after.get(id))
                for id in sorted(spots.keys() | after.keys())
                if spots.get(id) != after.get(id)
            ]
            for change in made:
                wrong = wrong or _check(change, batch.ops, self.contents[store])
                if step in OWN and change.before is not None and change.before.claim != meant.get(change.id):
                    wrong = (
                        wrong or f"{step} took job {change.id.decode()} from a claim that is not the sender's (I5, I17)"
                    )
            changes += made
            spots = after
            contents = contents.copy()
        wrong = wrong or self._check_again(part, contents, number)
        locks = tuple(
            (before.locks.get(name), contents.locks[name])
            for name in sorted(contents.locks)
            if before.locks.get(name) != contents.locks[name]
        )
        return Effect(number, tuple(outcomes), tuple(changes), locks, wrong)

    def _check_again(self, part: int, contents: Interpreter, number: int) -> str | None:
        """A part that arrives twice in a row changes nothing the second time (I18)."""
        for batch in self.parts[part].batches:
            contents.apply(batch)
        try:
            again = self.number_of(contents)
        except AssertionError as error:
            return f"sent twice: {error}"
        return (
            None if again == number else f"{' + '.join(self.parts[part].steps)}: sent twice it changes more than once"
        )

    def _spots(self, contents: Interpreter) -> dict[bytes, Spot]:
        """Where every job is.

        Raises:
            AssertionError: One is in two places, twice in ready, in a place without a record, has a record without a
                place, a claim without being held, or another payload than it was enqueued with (I1, I2, I3).
        """
        spots: dict[bytes, Spot] = {}
        for queue in self._queues:
            records = contents.hashes.get(f"{{{queue.scope}}}:records", {})
            claims = contents.hashes.get(f"{{{queue.scope}}}:claims", {})
            found: list[tuple[bytes, str, Score]] = [
                (id, "ready", 0) for id in contents.lists.get(queue.ready.full, ())
            ]
            for key in (queue.waiting, queue.working, queue.dead):
                entries = contents.sets.get(key.full)
                found += [(id, key.name, score) for score, id in entries] if entries is not None else []
            for id, place, score in found:
                assert id not in spots, f"job {id!r} is in {place} and in {spots[id].place}"
                assert id in records, f"job {id!r} is in {place} without a record"
                assert id in self._payloads, f"job {id!r} was never enqueued"
                assert _payload(records[id]) == self._payloads[id], f"job {id!r} has another payload than it had"
                assert (id in claims) == (place == "working"), (
                    f"job {id!r} is in {place}, its claim: {claims.get(id)!r}"
                )
                spots[id] = Spot(place, score, claims.get(id, b""), records[id])
            lost = sorted(records.keys() - spots.keys())
            assert not lost, f"job {lost[0]!r} has a record and is in no place"
        return spots


def _payload(record: bytes) -> bytes:
    try:
        return decode(record).payload
    except PayloadError:
        return record


def _check(change: Change, ops: Sequence[Any], before: Interpreter) -> str | None:
    """What is wrong with what a step did to a job, whatever happened before."""
    step, id, old, new = change.step, change.id.decode(), change.before, change.after
    places = (old.place if old else None, new.place if new else None)
    allowed: Any = MOVES
    if step == "enqueue":
        if places not in {(None, "ready"), (None, "waiting")}:
            return f"enqueue took job {id} from {places[0]} to {places[1]}"
        return None
    if places not in allowed[step]:
        return f"{step} took job {id} from {places[0]} to {places[1]} (I22)"
    assert old is not None
    [op] = ops
    assert isinstance(op, Move)
    if step == "promote" and old.score > op.pick.before:  # type: ignore[union-attr]
        return f"promote took job {id} before it was due (I9)"
    if step == "claim":
        assert new is not None
        assert isinstance(op.stamp, Stamp)
        counters = before.hashes.get(f"{{{op.source.scope}}}:counters", {})
        if new.fence <= int(counters.get(b"fence", b"0")):
            return f"claim gave job {id} the fence {new.fence}, which is not above the last one (I4)"
        if new.claim.split(b":")[0] != op.stamp.incarnation:
            return f"claim gave job {id} to somebody else"
        if new.score <= op.stamp.now:
            return f"claim gave job {id} a lease that is over at once"
    if step == "extend" and new is not None and new.score < old.score:
        return f"extend shortened the lease of job {id}"
    return _check_record(step, id, old, new)


def _check_record(step: str, id: str, old: Spot, new: Spot | None) -> str | None:
    """Attempts change by retry and bury alone, recoveries by rescue and condemn, or back to 0 (I11)."""
    if new is None:
        return None
    was, now = decode(old.record), decode(new.record)
    ended = step in ("retry", "bury")
    if now.attempt - was.attempt not in ((1,) if ended else (0,)):
        return f"{step} changed the attempts of job {id} from {was.attempt} to {now.attempt} (I11)"
    crashed = step in ("rescue", "condemn")
    if now.recoveries - was.recoveries not in ((0, 1) if crashed else (0, -was.recoveries)):
        return f"{step} changed the recoveries of job {id} from {was.recoveries} to {now.recoveries} (I11)"
    return None
