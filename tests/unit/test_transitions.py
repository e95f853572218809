"""The table of legal moves, and that every move may be sent twice, and the first sending may come after the second."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, get_args

import pytest

from jobqueue import transitions as t
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.lifecycle import MOVES, Step, legal
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    Applied,
    Batch,
    HashAdd,
    LockKey,
    Mend,
    Move,
    Moved,
    Place,
    Put,
    Refused,
    These,
    claim_mark,
)

KEYS = queue_keys("test", "low")
SPACE = namespace_keys("test")
NOW = 1_000_000
LEASE = 30_000
PLACES: tuple[Place | None, ...] = ("waiting", "ready", "working", "dead", None)


def record(number: int = 0) -> bytes:
    return encode(b"%08d" % number, Stored("kind", b"{}", 13, number, 0, NOW, NOW))


def claims(*numbers: int, fence: int = NOW, name: bytes = b"a") -> dict[bytes, bytes]:
    return {b"j%d" % number: claim_mark(name, fence, 5_000) for number in numbers}


def claim(name: bytes = b"a", number: int = 1, limit: int = 2, now: int = NOW) -> Batch:
    return t.claim(KEYS, name, number, limit=limit, now=now, lease=LEASE, beat=5_000)


# ------------------------------------------------------------------------------------------------------------ the table


def test_every_step_has_its_moves() -> None:
    assert set(MOVES) == set(get_args(Step))


@pytest.mark.parametrize(("step", "source", "target"), list(itertools.product(get_args(Step), PLACES, PLACES)))
def test_the_table_answers_for_every_pair(step: Step, source: Place | None, target: Place | None) -> None:
    allowed = legal(step, source, target)
    assert allowed is ((source, target) in MOVES[step])
    if target is None and allowed:
        assert step in ("finish", "delete", "prune"), "the only ways out"
    if source is None and allowed:
        assert step in ("enqueue", "schedule", "mend"), "the only ways in"
    if allowed and "working" in (source, target):
        assert step not in ("delete", "requeue", "hurry", "promote", "prune"), "a held job belongs to its runner"
    if allowed and source == "dead":
        assert step in ("requeue", "delete", "prune"), "dead is final"


def batches() -> dict[str, Batch]:
    """One batch of every transition that moves jobs."""
    held = claims(0, 1)
    records = {id: record(7) for id in held}
    scores = dict.fromkeys(held, NOW + 9)
    leases = {id: (mark, NOW + LEASE) for id, mark in held.items()}
    return {
        "put ready": t.put(KEYS, {b"j9": record()}, {}, {}),
        "put waiting": t.put(KEYS, {}, {b"j9": record()}, {b"j9": NOW + 5}),
        "promote": t.promote(KEYS, NOW),
        "claim": claim(number=9),
        "extend": t.extend(KEYS, held, NOW + 2 * LEASE),
        "note": t.note(KEYS, b"j0", held[b"j0"], record(7), NOW + 2 * LEASE),
        "finish": t.finish(KEYS, held),
        "retry": t.move_out("retry", KEYS, KEYS.waiting, held, records, scores, "retried"),
        "park": t.move_out("park", KEYS, KEYS.waiting, held, records, scores, "parked"),
        "bury": t.move_out("bury", KEYS, KEYS.dead, held, records, scores, "dead"),
        "release": t.release(KEYS, held),
        "rescue": t.rescue(KEYS, leases, records),
        "condemn": t.condemn(KEYS, leases, records, dict.fromkeys(leases, NOW)),
        "requeue": t.requeue(KEYS, b"j6", NOW - 6, record(7)),
        "hurry": t.hurry(KEYS, b"j4", NOW - 4),
        "delete waiting": t.delete(KEYS.waiting, [b"j4"], {b"j4": NOW - 4}),
        "delete ready": t.delete(KEYS.ready, [b"j2"], None),
        "delete dead": t.delete(KEYS.dead, [b"j6"], {b"j6": NOW - 6}),
        "prune": t.prune(KEYS, NOW - 1),
        "mend": t.mend(KEYS, b"j8", record(8), record(7), NOW),
        "close": t.close_requests(KEYS, b"a"),
    }


def test_each_builds_what_the_table_allows() -> None:
    for name, batch in batches().items():
        for op in batch.ops:
            match op:
                case Move(source, target):
                    step = name.split()[0]
                    assert legal(step, source.name, target.name if target else None), name  # type: ignore[arg-type]
                case Put(target):
                    assert legal("enqueue" if target.name == "ready" else "schedule", None, target.name)  # type: ignore[arg-type]
                case Mend(target):
                    assert legal("mend", None, target.name)  # type: ignore[arg-type]
                case _:
                    assert name == "close"


def test_what_the_table_forbids_cannot_be_built() -> None:
    with pytest.raises(AssertionError, match="may not move"):
        t.move_out("retry", KEYS, KEYS.dead, {}, {}, {}, "retried")
    with pytest.raises(AssertionError, match="may not move"):
        t.delete(KEYS.working, [b"j0"], None)


# ------------------------------------------------------------------------------------------------------------- replays


@pytest.fixture
def stage() -> MemoryStorage:
    """j0, j1 held by ``a``; j2, j3 ready; j4, j5 waiting and due; j6, j7 dead; j8 in no place, as somebody else left it."""
    storage = MemoryStorage()
    storage.apply([t.put(KEYS, {}, {b"j8": record(8)}, {b"j8": NOW})])
    storage._shared.contents.set_remove(KEYS.waiting.full, (b"j8",))
    storage.apply([t.put(KEYS, {b"j%d" % number: record(number) for number in (0, 1, 2, 3, 6, 7)}, {}, {})])
    storage.apply([t.put(KEYS, {}, {b"j4": record(4), b"j5": record(5)}, {b"j4": NOW - 4, b"j5": NOW - 5})])
    storage.apply([claim()])
    for number in (6, 7):
        for id in (b"j2", b"j3"):
            storage.apply([Batch(KEYS.scope, (Move(KEYS.ready, KEYS.ready, These((id,))),))])  # to the tail
        [taken] = storage.apply([claim(b"x", number, 1, NOW + number)])
        assert isinstance(taken, Applied)
        [moved] = taken.answers
        assert isinstance(moved, Moved)
        assert moved.ids == (b"j%d" % number,)
        held = claims(number, fence=moved.fence, name=b"x")
        storage.apply([t.move_out("bury", KEYS, KEYS.dead, held, {}, dict.fromkeys(held, NOW - number), "dead")])
    return storage


NAMES = tuple(batches())


@pytest.mark.parametrize("name", NAMES)
def test_each_does_something(stage: MemoryStorage, name: str) -> None:
    before = stage.dump()
    [outcome] = stage.apply([batches()[name]])
    assert isinstance(outcome, Applied)
    assert stage.dump() != before


@pytest.mark.parametrize("name", NAMES)
def test_twice_is_once(stage: MemoryStorage, name: str) -> None:
    stage.apply([batches()[name]])
    once = stage.dump()
    stage.apply([batches()[name]])
    assert stage.dump() == once


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_the_first_sending_may_arrive_after_the_second_and_another(stage: MemoryStorage, name: str, other: str) -> None:
    """The state after (name, other, name again) is that after (name, other)."""
    stage.apply([batches()[name]])
    stage.apply([batches()[other]])
    settled = stage.dump()
    stage.apply([batches()[name]])
    assert stage.dump() == settled


# --------------------------------------------------------------------------------------------------------------- locks


@pytest.fixture
def locks() -> Callable[..., Applied | Refused]:
    storage = MemoryStorage()

    def apply(build: Callable[..., Batch], *args: Any) -> Applied | Refused:
        [outcome] = storage.apply([build(SPACE, "name", *args)])
        assert isinstance(outcome, Applied | Refused)
        return outcome

    return apply


def test_a_lock_has_one_holder_and_a_growing_fence(locks: Callable[..., Applied | Refused]) -> None:
    first = locks(t.take_lock, b"a", NOW, NOW + 10, 0)
    assert first == Applied((NOW,))
    assert isinstance(locks(t.take_lock, b"b", NOW + 9, NOW + 19, NOW), Refused)
    second = locks(t.take_lock, b"b", NOW + 10, NOW + 20, NOW)
    assert second == Applied((NOW + 10,))
    assert isinstance(locks(t.extend_lock, b"a", NOW + 11, NOW + 99), Refused)
    locks(t.drop_lock, b"a")
    assert isinstance(locks(t.take_lock, b"c", NOW + 12, NOW + 22, NOW + 10), Refused), "b still holds it"


def test_a_late_request_for_a_dropped_lock_does_not_take_it_for_nobody(locks: Callable[..., Applied | Refused]) -> None:
    locks(t.take_lock, b"a", NOW, NOW + 10, 0)
    locks(t.drop_lock, b"a")
    assert isinstance(locks(t.take_lock, b"a", NOW, NOW + 10, 0), Refused)
    assert isinstance(locks(t.extend_lock, b"a", NOW, NOW + 10), Refused)
    assert isinstance(locks(t.take_lock, b"b", NOW + 1, NOW + 11, NOW), Applied)


def test_a_late_request_does_not_take_what_somebody_held_since(locks: Callable[..., Applied | Refused]) -> None:
    locks(t.take_lock, b"b", NOW, NOW + 10, 0)
    locks(t.drop_lock, b"b")
    assert isinstance(locks(t.take_lock, b"a", NOW, NOW + 10, 0), Refused), "it looked before b took the lock"
    assert isinstance(locks(t.take_lock, b"a", NOW - 5, NOW + 5, NOW), Applied), (
        "its clock is behind, which is no matter"
    )


def test_a_resent_request_for_a_lock_is_answered_alike(locks: Callable[..., Applied | Refused]) -> None:
    assert locks(t.take_lock, b"a", NOW, NOW + 10, 0) == locks(t.take_lock, b"a", NOW, NOW + 10, 0) == Applied((NOW,))


def test_keys_of_a_namespace_are_its_own() -> None:
    assert SPACE.lock("a") == LockKey("test", "lock:a")
    assert not any(isinstance(op, HashAdd) for batch in batches().values() for op in batch.ops), (
        "no move counts blindly"
    )
