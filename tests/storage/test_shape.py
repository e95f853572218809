"""What no storage takes: each rule of `check_shape`, on both sides of its edge."""

from __future__ import annotations

import pytest

from jobqueue.storage.ops import (
    Absent,
    Batch,
    Due,
    Empty,
    FieldIs,
    Guard,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    ListKey,
    ListPush,
    LockDrop,
    Locked,
    LockKey,
    LockTake,
    Member,
    Mend,
    Move,
    Once,
    Op,
    Put,
    Ring,
    SetAdd,
    SetKey,
    SetRemove,
    Stamp,
    These,
    Unlocked,
)
from jobqueue.storage.shape import LIST_SEARCH_MAX, check_shape

HERE, THERE = "ns:queue", "ns:other"
READY, WAITING, WORKING = ListKey(HERE, "ready"), SetKey(HERE, "waiting"), SetKey(HERE, "working")
NOTES, LOG, INDEX, DUTY = HashKey(THERE, "n"), ListKey(THERE, "l"), SetKey(THERE, "s"), LockKey(THERE, "d")
STAMP, ONCE = Stamp(b"r", 1, 1), Once(b"r", 1)


def ids(count: int) -> tuple[bytes, ...]:
    return tuple(b"%d" % number for number in range(count))


ELSEWHERE: list[Op | Guard] = [
    ListPush(LOG, (b"x",)), SetAdd(INDEX, {b"x": 1}), SetRemove(INDEX, (b"x",)), HashSet(NOTES, {b"x": b"1"}),
    HashAdd(NOTES, b"x", 1), HashDelete(NOTES, (b"x",)), LockTake(DUTY, b"t", 1, 2), LockDrop(DUTY, b"t"),
    Put(ListKey(THERE, "ready"), {b"a": b"nonce-01"}), Put(SetKey(THERE, "waiting"), {b"a": b"nonce-01"}, 1),
    Move(ListKey(THERE, "ready"), None, Head(1, 1)), Move(SetKey(THERE, "dead"), None, Due(1, 1)),
    Move(READY, SetKey(THERE, "working"), Head(1, 1), 1), Move(WAITING, ListKey(THERE, "ready"), Due(1, 1)),
    Move(READY, None, Head(1, 1), count=(NOTES, b"x")),
    Absent(NOTES, b"x"), FieldIs(NOTES, b"x", b"1"), Member(INDEX, b"x"), Empty(INDEX), Unlocked(DUTY, b"t", 1, 0),
    Locked(DUTY, b"t", 1),
]  # fmt: skip


@pytest.mark.parametrize("what", ELSEWHERE, ids=repr)
def test_every_key_of_a_batch_is_of_its_scope(what: Op | Guard) -> None:
    guard = isinstance(what, Absent | FieldIs | Member | Empty | Unlocked | Locked)

    with pytest.raises(ValueError, match="is not of the scope 'ns:queue': a batch has one scope"):
        check_shape(Batch(HERE, () if guard else (what,), (what,) if guard else ()))  # type: ignore[arg-type]


FINE: list[Op] = [
    Move(READY, None, These(ids(LIST_SEARCH_MAX))), Move(WAITING, None, These(ids(LIST_SEARCH_MAX + 1))),
    Move(READY, None, Head(0, 0)), Move(WAITING, None, Due(0, 0)),
    Move(WORKING, WORKING, Due(1, 1)), Move(WORKING, READY, Due(1, 1)),
    Move(WORKING, WAITING, These((b"a",)), {b"a": 1, b"b": 2}), Put(WAITING, {b"a": b"nonce-01"}, {b"a": 1, b"b": 2}),
    Move(READY, WORKING, Head(1, 1), 1, stamp=STAMP, once=ONCE),
]  # fmt: skip


@pytest.mark.parametrize("op", FINE, ids=repr)
def test_what_makes_sense(op: Op) -> None:
    check_shape(Batch(HERE, (op,)))


WRONG: list[tuple[Op, str]] = [
    (Move(READY, None, These(ids(LIST_SEARCH_MAX + 1))), "at most 10 ids can be searched in a list, not 11"),
    (Move(READY, None, Head(-1, 9)), "a limit of -1 makes no sense"),
    (Move(WAITING, None, Due(9, -1)), "a limit of -1 makes no sense"),
    (Move(READY, None, Due(1, 1)), "Head picks from a list, Due from a sorted set"),
    (Move(WAITING, None, Head(1, 1)), "Head picks from a list, Due from a sorted set"),
    (Move(READY, WORKING, Head(1, 1)), "a sorted set needs a score"),
    (Move(WAITING, WORKING, Due(1, 1)), "a sorted set needs a score"),
    (Put(WAITING, {b"a": b"nonce-01"}), "a sorted set needs a score"),
    (Move(WAITING, WORKING, Due(1, 1), {b"a": 1}), "a score for each needs a pick of These"),
    (Move(WORKING, WORKING, Due(1, 1), {b"a": 1}), "a score for each needs a pick of These"),
    (Move(WORKING, WAITING, These((b"a", b"b")), {b"a": 1}), "no score for b'b'"),
    (Put(WAITING, {b"a": b"nonce-01", b"b": b"nonce-01"}, {b"a": 1}), "no score for b'b'"),
    (Move(READY, WORKING, Head(1, 1), 1, once=ONCE), "once numbers a claim"),
    (Move(READY, None, Head(1, 1), stamp=STAMP, once=ONCE), "once numbers a claim"),
    (Move(WAITING, READY, Due(1, 1), stamp=STAMP, once=ONCE), "once numbers a claim"),
]


@pytest.mark.parametrize(("op", "said"), WRONG, ids=repr)
def test_what_makes_no_sense(op: Op, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_shape(Batch(HERE, (op,)))


A, B, ALL = (b"a",), (b"b",), {b"a": b"claim"}
WHOLE = Move(WORKING, None, These(A), expect=ALL, whole=True)


@pytest.mark.parametrize(
    "ops",
    [
        (WHOLE,),
        (WHOLE, Ring(), HashSet(HashKey(HERE, "n"), {b"a": b"1"})),
        (WHOLE, Move(WORKING, None, These(B)), Put(READY, {b"c": b"nonce-01"})),
        (Move(READY, None, These((b"a", b"a")), whole=True),),
    ],
    ids=repr,
)
def test_what_makes_sense_beside_a_whole_move(ops: tuple[Op, ...]) -> None:
    check_shape(Batch(HERE, ops))


@pytest.mark.parametrize(
    ("ops", "said"),
    [
        ((Move(READY, None, Head(1, 1), whole=True),), "moves pick These"),
        ((WHOLE, Move(WORKING, None, Due(1, 1))), "moves pick These"),
        ((Move(READY, WORKING, These(B), 1, stamp=STAMP, once=ONCE, whole=True),), "none is numbered"),
        ((Move(WORKING, None, These((b"a", b"b")), expect=ALL, whole=True),), "expects something of each, not of b'b'"),
        ((WHOLE, Move(WAITING, None, These(A))), "b'a' is named by two operations"),
        ((WHOLE, Put(READY, {b"a": b"nonce-01"})), "b'a' is named by two operations"),
        ((Mend(WAITING, b"a", None), WHOLE), "b'a' is named by two operations"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_beside_a_whole_move(ops: tuple[Op, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_shape(Batch(HERE, ops))
