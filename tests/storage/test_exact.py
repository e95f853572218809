"""Single cases at the edges of what an operation means, in memory and on every kind of server.

The lockstep meets most of them by chance; what is written here is met in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from msgspec.structs import force_setattr

from jobqueue.errors import StorageRefused
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    Applied,
    Due,
    Fields,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    Holder,
    Locked,
    LockTake,
    Move,
    Moved,
    Once,
    Op,
    Page,
    Peek,
    Put,
    Query,
    Records,
    Refused,
    SetAdd,
    SetKey,
    Sizes,
    Stamp,
    These,
    Unlocked,
    claim_mark,
)
from jobqueue.storage.redis import open_redis
from jobqueue.testing.cases.bench import Bench, record
from tests.servers import kinds

LIMIT: Final = 2**53
A, B, C, D = b"a", b"b", b"c", b"d"


@pytest.fixture(params=["memory", *kinds()])
def t(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(MemoryStorage(), 5)
        return
    bench = Bench(open_redis(request.getfixturevalue("running_servers")(request.param).url).storage(), 5)
    yield bench
    bench.close()


def notes(t: Bench) -> Any:
    return t.read(Fields(t.notes))


# ------------------------------------------------------------------------------------- numbers that are added to

N: Final = b"n"


def _ops(t: Bench, words: str) -> list[Op]:
    """``set x``, ``add 1``, ``drop``: one operation on the field after the other."""
    made: list[Op] = []
    for word in words.split(", "):
        verb, _, value = word.partition(" ")
        if verb == "set":
            made.append(HashSet(t.notes, {N: value.encode()}))
        elif verb == "add":
            made.append(HashAdd(t.notes, N, int(value)))
        else:
            made.append(HashDelete(t.notes, (N,)))
    return made


@pytest.mark.parametrize(
    ("stored", "words", "after"),
    [
        (b"x", "set 1, add 1", b"2"),
        (b"x", "drop, add 5", b"5"),
        (b"7", "set x, add 1", None),
        (b"7", "add 1, set x, add 1", None),
        (b"", "add 1", None),
        (b"00", "add 1", None),
        (b"007", "add 1", None),
        (b"-0", "add 1", None),
        (b"+7", "add 1", None),
        (b" 7", "add 1", None),
        (b"7\n", "add 1", None),
        (b"1.0", "add 1", None),
        (b"-7", "add 7", b"0"),
        (b"0", "add -1", b"-1"),
        (b"%d" % (LIMIT - 2), "add 1", b"%d" % (LIMIT - 1)),
        (b"%d" % (LIMIT - 1), "add 1", None),
        (b"%d" % (LIMIT - 2), "add 1, add 1", None),
        (b"%d" % (1 - LIMIT), "add -1", None),
        (b"%d" % (2 - LIMIT), "add -1", b"%d" % (1 - LIMIT)),
        (b"%d" % LIMIT, "add -1", None),
        (b"%d" % -LIMIT, "add 1", None),
        (b"10000000000000000", "add -9999999999999999", None),
    ],
)
def test_what_can_be_added_to(t: Bench, stored: bytes, words: str, after: bytes | None) -> None:
    t.do(HashSet(t.notes, {N: stored}))

    outcome = t.outcome(*_ops(t, words))

    if after is None:
        assert isinstance(outcome, StorageRefused)
        assert notes(t) == {N: stored}, "nothing was changed"
    else:
        assert isinstance(outcome, Applied)
        assert notes(t) == {N: after}


def test_the_number_of_a_request_cannot_be_added_to_in_the_same_batch(t: Bench) -> None:
    t.fill(A)
    before = t.state()

    outcome = t.outcome(_claim(t, 1), HashAdd(t.requests, b"r", 1))

    assert isinstance(outcome, StorageRefused)
    assert t.state() == before


def test_a_count_starts_anew_where_what_could_move_at_most_would_not_fit(t: Bench) -> None:
    t.put(Put(t.waiting, {A: record(A)}, 1))
    t.fill(B)
    count = (t.notes, N)
    three = These((A, b"x", b"y"))
    near = b"%d" % (LIMIT - 3)

    for move, after in (
        (Move(t.waiting, t.waiting, Due(9, 3), 1, count=count), b"1"),
        (Move(t.ready, t.ready, Head(3, 999), count=count), b"1"),
        (Move(t.waiting, t.waiting, three, 1, count=count), b"1"),
        (
            Move(t.waiting, t.waiting, three, 1, expect={A: 1}, count=count),
            b"%d" % (LIMIT - 2),
        ),  # one can be as expected
        (Move(t.waiting, t.waiting, These((b"x", b"y", C)), 1, count=count), near),  # nothing moved
    ):
        t.do(HashSet(t.notes, {N: near}))
        t.do(move)
        assert notes(t) == {N: after}, move


def test_a_count_that_may_stay_spoiled_is_not_added_to(t: Bench) -> None:
    """Where nothing moves it stays as it is."""
    t.fill(A)
    t.do(HashSet(t.notes, {N: b"many"}))
    count = Move(t.ready, t.dead, Head(1, 999), 5, count=(t.notes, N))

    assert isinstance(t.outcome(count, HashAdd(t.notes, N, 1)), StorageRefused)
    t.do(count)
    assert notes(t) == {N: b"1"}


# ------------------------------------------------------------------------------------------------- numbered claims


def _claim(t: Bench, number: int, limit: int = 9, **changes: Any) -> Move:
    options: dict[str, Any] = {"stamp": Stamp(b"r", 5, 100), "once": Once(b"r", number), "give": True} | changes
    return Move(t.ready, t.working, Head(limit, 999), 50, **options)


def test_a_claim_that_is_repeated_answers_only_what_still_has_a_record(t: Bench) -> None:
    t.fill(A, B)
    t.move(_claim(t, 1))
    t.lose_record(A)

    again = t.move(_claim(t, 1))

    assert again == Moved((B,), (record(B),), (), 100, 0, None)


def test_a_claim_that_is_repeated_answers_only_what_is_still_in_its_place(t: Bench) -> None:
    t.fill(A, B, C)
    first = t.move(_claim(t, 1))
    t.move(Move(t.working, t.ready, These((A,))))  # with its claim, as nothing of ours would leave it

    again = t.move(_claim(t, 1))

    assert first.ids == (A, B, C)
    assert (again.ids, again.fence, again.left) == ((B, C), 100, 1)


def test_a_claim_that_is_repeated_without_give_answers_ids_alone(t: Bench) -> None:
    t.fill(A)
    t.move(_claim(t, 1, give=False))

    assert t.move(_claim(t, 1, give=False)) == Moved((A,), (), (), 100, 0, None)


@pytest.mark.parametrize("remembered", [b"closed", b"", b"1", b"1:7", b"2:07,", b"x:7,", b"1:x,"])
def test_a_request_is_refused_where_the_last_one_cannot_be_read(t: Bench, remembered: bytes) -> None:
    t.fill(A)
    t.do(HashSet(t.requests, {b"r": remembered}))

    assert t.outcome(_claim(t, 9)) == Refused((0,))
    assert t.places() == {"ready": [A]}


def test_a_refused_claim_is_counted_behind_the_guards(t: Bench) -> None:
    t.fill(A)
    t.do(HashSet(t.requests, {b"r": b"closed"}))
    guards = (Unlocked(t.duty, A, 1, 0), Locked(t.duty, A, 1))

    assert t.outcome(HashSet(t.notes, {N: b"1"}), _claim(t, 9), guards=guards) == Refused((1, 3))


# ----------------------------------------------------------------------------------------- what has no record


def test_what_leaves_needs_no_record(t: Bench) -> None:
    t.fill(A, B)
    t.put(Put(t.waiting, {C: record(C), D: record(D)}, 7))
    t.lose_record(A)
    t.lose_record(C)

    assert t.move(Move(t.ready, None, Head(9, 999), give=True)) == Moved((A, B), (b"", record(B)), (), 0, 0, None)
    assert t.move(Move(t.waiting, None, Due(7, 9))) == Moved((C, D), (), (), 0, 0, None)
    assert t.state() == {}


def test_what_stays_needs_no_record(t: Bench) -> None:
    t.put(Put(t.working, {A: record(A), B: record(B)}, 7))
    t.lose_record(A)

    moved = t.move(Move(t.working, t.working, These((A, B)), 9, give=True))

    assert moved == Moved((A, B), (b"", record(B)), (), 0, 2, 9)


def test_what_goes_elsewhere_without_a_record_is_removed_with_its_claim(t: Bench) -> None:
    t.fill(A, B, C, D)
    fence = t.move(_claim(t, 1)).fence
    for id_ in (A, C):
        t.lose_record(id_)
    scores = {A: 1, B: 2, C: 3, D: 4}

    moved = t.move(
        Move(t.working, t.waiting, These((A, B, C, D)), scores, records={A: b"new-----a", B: b"new-----b"}, give=True)
    )

    assert moved == Moved((B, D), (b"new-----b", record(D)), (A, C), 0, 0, None)
    assert t.places() == {"waiting": [(B, 2), (D, 4)]}
    assert t.read(Fields(t.claims)) == dict.fromkeys((B, D), claim_mark(b"r", fence, 5))
    assert t.read(Fields(t.records)) == {B: b"new-----b", D: record(D)}


def test_records_of_what_did_not_move_are_not_replaced(t: Bench) -> None:
    t.put(Put(t.working, {A: record(A), B: record(B)}, {A: 1, B: 2}))

    t.do(Move(t.working, t.waiting, These((A, B)), 5, expect={A: 1, B: 9}, records={A: b"new-----a", B: b"new-----b"}))

    assert t.read(Fields(t.records)) == {A: b"new-----a", B: record(B)}


# ------------------------------------------------------------------------------------------------------- picking


def test_the_bytes_of_a_head_may_be_used_up_exactly(t: Bench) -> None:
    t.fill(A, B, C)
    two = 2 * len(record(A))

    assert t.move(Move(t.ready, None, Head(9, two - 1))).ids == (A,)
    t.fill(D)
    assert t.move(Move(t.ready, None, Head(9, two))).ids == (B, C)
    assert t.move(Move(t.ready, None, Head(9, 0))).ids == (D,), "one that is too large does not stop the queue"


def test_what_has_no_record_takes_no_part_of_the_bytes_of_a_head(t: Bench) -> None:
    t.fill(A, B, C)
    t.lose_record(A)

    assert t.move(Move(t.ready, t.working, Head(9, len(record(B))), 5)) == Moved((B,), (), (A,), 0, 1, None)


def test_ids_that_are_picked_twice_count_once(t: Bench) -> None:
    t.fill(A, B)
    t.put(Put(t.waiting, {C: record(C)}, 5))
    t.do(Move(t.ready, t.working, These((B, A, B)), 5, count=(t.notes, N)))
    t.do(Move(t.waiting, t.dead, These((C, C)), 5, count=(t.notes, N)))

    assert notes(t) == {N: b"3"}
    assert t.places() == {"working": [(A, 5), (B, 5)], "dead": [(C, 5)]}


def test_a_move_within_a_list_takes_out_what_it_puts_in(t: Bench) -> None:
    t.fill(A, B, C)

    t.do(Move(t.ready, t.ready, These((B,))))
    assert t.places() == {"ready": [A, C, B]}
    t.do(Move(t.ready, t.ready, These((B, C)), front=True))
    assert t.places() == {"ready": [B, C, A]}
    t.do(Move(t.ready, t.ready, Head(1, 999)))
    assert t.places() == {"ready": [C, A, B]}


def test_skipped_ids_count_for_the_limit_and_keep_their_order(t: Bench) -> None:
    t.fill(A, B, C, D)
    t.do(Move(t.ready, t.working, Head(4, 999), 5, stamp=Stamp(b"r", 5, 100)))
    t.do(Move(t.working, t.ready, These((A, B, C, D))))  # the claims stay, as nothing of ours would leave them
    claims = t.read(Fields(t.claims))
    assert isinstance(claims, dict)

    moved = t.move(Move(t.ready, t.working, Head(3, 999), 5, expect={B: claims[B], D: claims[D]}))

    assert moved == Moved((B,), (), (), 0, 3, None)
    assert t.read(Peek(t.ready, 0, 9)) == (A, C, D)


@pytest.mark.parametrize(("score", "moved"), [(4, ()), (5, (A,)), (6, ())])
def test_a_score_that_is_expected_is_compared(t: Bench, score: int, moved: tuple[bytes, ...]) -> None:
    t.fill(A)
    claim = claim_mark(b"r", t.move(_claim(t, 1)).fence, 5)
    t.do(Move(t.working, t.waiting, These((A,)), 5))

    assert t.move(Move(t.waiting, t.waiting, These((A,)), 5, expect={A: (claim, score)})).ids == moved
    assert t.move(Move(t.waiting, t.waiting, These((A,)), 5, expect={A: score})).ids == moved
    assert t.move(Move(t.waiting, t.waiting, These((A,)), 5, expect={A: (claim + b"0", score)})).ids == ()


# --------------------------------------------------------------------------------------------------------- locks


def test_a_lock_at_its_edges(t: Bench) -> None:
    take = LockTake(t.duty, A, 10, 20)
    assert t.do(take) == (10,)

    assert t.outcome(guards=[Locked(t.duty, A, 19)]) == Applied(())
    assert t.outcome(guards=[Locked(t.duty, A, 20)]) == Refused((0,))
    assert t.outcome(guards=[Locked(t.duty, B, 19)]) == Refused((0,))
    assert t.outcome(guards=[Unlocked(t.duty, B, 19, 99)]) == Refused((0,))
    assert t.outcome(guards=[Unlocked(t.duty, B, 20, 9)]) == Refused((0,))
    assert t.outcome(guards=[Unlocked(t.duty, B, 20, 10)]) == Applied(())
    assert t.do(LockTake(t.duty, A, 11, 15)) == (10,), "taken again, it is not shortened"
    assert t.outcome(guards=[Locked(t.duty, A, 19)]) == Applied(())
    assert t.do(LockTake(t.duty, B, 10, 30)) == (11,), "a fence grows although the clock stands still"
    assert t.do(LockTake(t.duty, C, 99, 120)) == (99,), "and follows the clock"


# -------------------------------------------------------------------------------------------------- pages and kinds


def test_a_page_goes_on_behind_its_cursor(t: Bench) -> None:
    t.do(SetAdd(t.index, {A: 1, B: 2, C: 2, D: 3, b"": 2, b"b\0": 2}))
    everything = ((A, 1), (b"", 2), (B, 2), (b"b\0", 2), (C, 2), (D, 3))

    for at, (member, score) in enumerate(everything):
        assert t.read(Page(t.index, 9, after=(score, member))) == everything[at + 1 :]
        assert t.read(Page(t.index, 2, after=(score, member))) == everything[at + 1 : at + 3]
        assert t.read(Page(t.index, 9, before=2, after=(score, member))) == everything[at + 1 : 5]
    assert t.read(Page(t.index, 9, after=(2, b"aa"))) == everything[2:], "behind one that is not there"
    assert t.read(Page(t.index, 9, before=2)) == everything[:5]


def _foreign(t: Bench, name: str) -> None:
    """Put a sorted set where a hash, or a hash where a sorted set or list, belongs: something else uses our names."""
    if name in ("records", "claims", "counters", "requests", "notes"):
        wrong: Any = SetAdd(t.index, {A: 1})
        force_setattr(wrong, "set", SetKey(t.scope, name))
    else:
        wrong = HashSet(t.notes, {N: b"1"})
        force_setattr(wrong, "hash", HashKey(t.scope, name))
    t.do(wrong)


@pytest.mark.parametrize(
    ("name", "kinds_of_query"),
    [
        ("records", ["Records", "Fields", "Sizes"]),
        ("claims", ["Records"]),
        ("waiting", ["Records", "Page", "Sizes"]),
        ("working", ["Records"]),
        ("dead", ["Records"]),
        ("ready", ["Peek", "Sizes"]),
        ("duty", ["Holder"]),
    ],
)
def test_a_query_of_a_foreign_key_is_refused(t: Bench, name: str, kinds_of_query: list[str]) -> None:
    queries: dict[str, Query] = {
        "Records": Records(t.scope, (A,)), "Page": Page(t.waiting, 9), "Peek": Peek(t.ready, 0, 9),
        "Fields": Fields(t.records), "Holder": Holder(t.duty), "Sizes": Sizes((t.ready, t.waiting, t.records)),
    }  # fmt: skip
    if name == "duty":  # on a server a lock is a hash itself, so it is another kind that is foreign there
        wrong = SetAdd(t.index, {A: 1})
        force_setattr(wrong, "set", SetKey(t.scope, name))
        t.do(wrong)
    else:
        _foreign(t, name)

    for kind, query in queries.items():
        if kind in kinds_of_query:
            with pytest.raises(StorageRefused, match=name):
                t.read(query)
        else:
            t.read(query)


@pytest.mark.parametrize("name", ["counters", "requests", "claims", "records"])
def test_a_key_that_a_move_uses_by_itself_is_looked_at_before_anything_is_written(t: Bench, name: str) -> None:
    t.fill(A)
    t.do(HashSet(t.notes, {N: b"1"}))
    if name == "records":
        t.do(Move(t.ready, None, Head(9, 999)))
    _foreign(t, name)

    for op in (_claim(t, 1), Put(t.ready, {B: record(B)}), Put(t.waiting, {B: record(B)}, 1)):
        if isinstance(op, Put) and name != "records":
            continue
        assert isinstance(t.outcome(HashSet(t.notes, {N: b"2"}), op), StorageRefused), op
        assert isinstance(t.outcome(op), StorageRefused), op
    assert notes(t) == {N: b"1"}
