"""The table of legal moves, and that every move may be sent twice, and the first sending may come after the second."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import jobqueue
from jobqueue import transitions as t
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.lifecycle import MOVES, Step, legal
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    Applied,
    Batch,
    Fields,
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

TABLE: dict[tuple[Place | None, Place | None], set[Step]] = {
    (None, "ready"): {"enqueue"},
    (None, "waiting"): {"schedule"},
    ("waiting", "ready"): {"promote", "hurry"},
    ("ready", "working"): {"claim"},
    ("working", "working"): {"extend", "note"},
    ("working", "ready"): {"release", "rescue"},
    ("working", "waiting"): {"retry", "snooze", "park"},
    ("working", "dead"): {"bury", "condemn"},
    ("working", None): {"finish", "discard"},
    ("dead", "ready"): {"requeue"},
    ("dead", None): {"delete", "prune"},
    ("waiting", None): {"delete"},
    ("ready", None): {"delete"},
    (None, "dead"): {"mend"},
}
"""Which steps lead from one place to another: written down once more, by pairs of places instead of by steps."""


def test_every_step_has_its_moves() -> None:
    assert set(MOVES) == set(get_args(Step)) == set().union(*TABLE.values())


@pytest.mark.parametrize(("source", "target"), list(itertools.product(PLACES, PLACES)))
def test_the_table_answers_for_every_pair(source: Place | None, target: Place | None) -> None:
    assert {step for step in get_args(Step) if legal(step, source, target)} == TABLE.get((source, target), set())


def batches(fence: int = NOW) -> dict[str, Batch]:
    """One batch of every transition that moves jobs; ``fence`` is that of the claims on those that are held."""
    held = claims(0, 1, fence=fence)
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
        "discard": t.finish(KEYS, held, "discard"),
        "retry": t.move_out("retry", KEYS, held, records, scores),
        "snooze": t.move_out("snooze", KEYS, held, records, scores),
        "park": t.move_out("park", KEYS, held, records, scores),
        "bury": t.move_out("bury", KEYS, held, records, scores),
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
        assert len(batch.ops) == 1, f"{name}: what holds of one of several need not hold of the batch"


def test_every_batch_of_the_package_says_what_it_does() -> None:
    found = 0
    for path in Path(jobqueue.__file__).parent.rglob("*.py"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Batch":
                found += 1
                assert len(node.args) == 4 or "step" in {word.arg for word in node.keywords}, (
                    f"{path.name}:{node.lineno}"
                )
    assert found > 10
    assert {name for name, batch in batches().items() if batch.step not in get_args(Step)} == {"close"}


def test_what_the_table_forbids_cannot_be_built() -> None:
    """Not by ``assert`` alone: ``python -O`` takes these out."""
    for step in get_args(Step):
        if not any(pair in {("working", "waiting"), ("working", "dead")} for pair in MOVES[step]):
            with pytest.raises((ValueError, KeyError)):
                t.move_out(step, KEYS, {}, {}, {})
        if ("working", None) not in MOVES[step]:
            with pytest.raises((ValueError, KeyError)):
                t.finish(KEYS, {}, step)
    with pytest.raises(ValueError, match="nothing is deleted from working"):
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
        storage.apply([t.move_out("bury", KEYS, held, {}, dict.fromkeys(held, NOW - number))])
    return storage


NAMES = tuple(batches())


@pytest.mark.parametrize("name", NAMES)
def test_each_does_something(stage: MemoryStorage, name: str) -> None:
    before = stage.dump()
    [outcome] = stage.apply([batches()[name]])
    assert isinstance(outcome, Applied)
    assert stage.dump() != before


FENCED = ("extend", "note", "finish", "discard", "retry", "snooze", "park", "bury", "release", "rescue", "condemn")


@pytest.mark.parametrize("name", FENCED)
@pytest.mark.parametrize("fence", [NOW - 1, NOW + 1])
def test_under_another_claim_than_the_present_one_nothing_moves(stage: MemoryStorage, name: str, fence: int) -> None:
    before = stage.dump()

    [outcome] = stage.apply([batches(fence)[name]])

    assert isinstance(outcome, Applied)
    assert outcome.moved.ids == ()
    assert stage.dump() == before


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


# ------------------------------------------------------------------------------------------------------- notifications

NOTIFY: dict[str, bool] = {
    "put ready": True, "put waiting": True, "promote": True, "extend": False, "note": False, "finish": False,
    "discard": False, "retry": True, "snooze": True, "park": True, "bury": False, "release": True, "rescue": True,
    "condemn": False, "requeue": True, "hurry": True, "delete waiting": False, "delete ready": False, "delete dead": False,
    "prune": False, "mend": False, "close": False,
}  # fmt: skip
"""Whether a runner that waits is to be told: there is something to run, or something is due earlier than all before."""


def test_what_notifies_is_decided_for_every_transition() -> None:
    assert NOTIFY.keys() == set(NAMES) - {"claim"}, "a claim passes on what it leaves"


@pytest.mark.parametrize("name", NOTIFY)
def test_a_waiting_runner_is_notified_where_there_is_something_to_do(stage: MemoryStorage, name: str) -> None:
    if name in ("put waiting", "retry", "snooze", "park"):
        stage.apply([t.promote(KEYS, NOW)])  # what becomes the earliest of the waiting jobs is what matters
    stage.wait([KEYS.scope], 0)
    assert stage.wait([KEYS.scope], 0) is None

    stage.apply([batches()[name]])

    assert stage.wait([KEYS.scope], 0) == (KEYS.scope if NOTIFY[name] else None)


@pytest.mark.parametrize("name", ["put waiting", "retry", "snooze", "park"])
def test_a_job_that_waits_behind_another_notifies_nobody(stage: MemoryStorage, name: str) -> None:
    stage.wait([KEYS.scope], 0)

    stage.apply([batches()[name]])

    assert stage.wait([KEYS.scope], 0) is None


@pytest.mark.parametrize(("limit", "left"), [(1, True), (2, False)])
def test_a_claim_passes_the_notification_on_if_it_leaves_something(
    stage: MemoryStorage, limit: int, left: bool
) -> None:
    stage.wait([KEYS.scope], 0)

    stage.apply([claim(number=9, limit=limit)])

    assert stage.wait([KEYS.scope], 0) == (KEYS.scope if left else None)


# --------------------------------------------------------------------------------------------------------------- counts

COUNTED: dict[str, str] = {
    "finish": "done", "discard": "discarded", "retry": "retried", "snooze": "snoozed", "park": "parked", "bury": "dead",
    "condemn": "dead", "release": "released", "rescue": "rescued", "prune": "pruned",
    **dict.fromkeys(("delete waiting", "delete ready", "delete dead"), "deleted"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_ends_a_claim_or_a_job_is_counted_once_for_each_job_and_nothing_else_is(
    stage: MemoryStorage, name: str
) -> None:
    def counted() -> dict[bytes, int]:
        [fields] = stage.read([Fields(KEYS.counters)])
        assert isinstance(fields, dict)
        return {field: int(value) for field, value in fields.items() if field != b"fence"}

    before = counted()
    stage.apply([batches()[name]])
    grown = {field: value - before.get(field, 0) for field, value in counted().items()}

    assert {field.decode(): count for field, count in grown.items() if count} == (
        {COUNTED[name]: 1 if "delete" in name else 2} if name in COUNTED else {}
    )


def test_a_queue_is_registered_once_with_the_time_of_its_first_use() -> None:
    storage = MemoryStorage()

    first, second = storage.apply([t.register_queue(SPACE, "low", NOW), t.register_queue(SPACE, "low", NOW + 1)])

    assert isinstance(first, Applied)
    assert second == Refused((0,))
    assert storage.read([Fields(SPACE.queues)]) == [{b"low": b"%d" % NOW}]


# --------------------------------------------------------------------------------------------------------------- bounds


def test_a_claim_brings_a_megabyte_at_most() -> None:
    storage = MemoryStorage()
    storage.apply([t.put(KEYS, {b"j%d" % number: b"x" * 2**18 for number in range(6)}, {}, {})])

    [outcome] = storage.apply([claim(limit=6)])

    assert isinstance(outcome, Applied)
    assert outcome.moved.ids == (b"j0", b"j1", b"j2", b"j3")


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
