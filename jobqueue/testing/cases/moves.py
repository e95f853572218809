"""Where jobs are: order, what a `Move` picks, skips and answers (rules 4 and 6)."""

from __future__ import annotations

from typing import Final

from jobqueue.storage.ops import (
    CLEAR,
    NO_CLAIM,
    Absent,
    Due,
    Expect,
    Fields,
    Guard,
    HashAdd,
    HashSet,
    Head,
    Kept,
    Member,
    Move,
    Moved,
    Once,
    Page,
    Peek,
    Put,
    Records,
    Refused,
    SetAdd,
    Stamp,
    These,
    Unread,
    claim_mark,
)
from jobqueue.testing.cases.bench import NOW, Bench, case, record

__all__: list[str] = []

_BINARY: Final = (
    b"",
    b"\x00",
    b"\x00\x00",
    b"\x00\xff",
    b"\r\n",
    b"a",
    b"a\x00b",
    b"b",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\x00",
)
_STAMP: Final = Stamp(b"runner", 5000, NOW)


@case(4)
def a_list_is_first_in_first_out(t: Bench) -> None:
    t.fill(b"b", b"a")
    t.fill(b"\xff\x00", b"c")
    t.check(t.read(Peek(t.ready, 0, 10)), (b"b", b"a", b"\xff\x00", b"c"), "ready after two puts")
    t.check(t.read(Peek(t.ready, 1, 2)), (b"a", b"\xff\x00"), "two values from the position 1")
    t.check(t.read(Peek(t.ready, 4, 2)), (), "values behind the end")
    taken = t.move(Move(t.ready, t.working, Head(3, 1000), NOW))
    t.check(taken.ids, (b"b", b"a", b"\xff\x00"), "three from the head")
    t.check(t.places()["ready"], [b"c"], "what is left")


@case(4)
def a_sorted_set_is_ordered_by_score_and_member_bytes(t: Bench) -> None:
    scores = {**dict.fromkeys(reversed(_BINARY), 7), b"high": 8, b"low": 6, b"negative": -1}
    t.do(SetAdd(t.index, scores))
    expected = ((b"negative", -1), (b"low", 6), *((member, 7) for member in _BINARY), (b"high", 8))
    t.check(t.read(Page(t.index, 100)), expected, "entries with equal scores")
    t.put(Put(t.waiting, {id_: record(id_) for id_ in reversed(_BINARY)}, NOW))
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, 5))).ids, _BINARY[:5], "five that are due at the same time")
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, 100))).ids, _BINARY[5:], "the others")
    t.check(t.places(), {"ready": list(_BINARY)}, "ready after it")


@case(4)
def pages_of_a_sorted_set_continue_behind_their_cursor(t: Bench) -> None:
    t.do(SetAdd(t.index, {**dict.fromkeys(_BINARY, 7), b"later": 9}))
    seen: list[tuple[bytes, int]] = []
    after: tuple[int, bytes] | None = None
    for _ in range(10):
        page = t.read(Page(t.index, 3, after=after))
        assert isinstance(page, tuple)
        if not page:
            break
        seen += page  # type: ignore[arg-type]
        after = (seen[-1][1], seen[-1][0])
    t.check(seen, [*((member, 7) for member in _BINARY), (b"later", 9)], "all pages of three")
    rest = tuple((member, 7) for member in _BINARY[8:])
    t.check(t.read(Page(t.index, 100, before=7, after=(7, b"b"))), rest, "scores of at most 7 behind (7, b)")
    expected = ((b"a\x00b", 7), (b"b", 7), *rest, (b"later", 9))
    t.check(t.read(Page(t.index, 100, after=(7, b"a\x00"))), expected, "behind a cursor that is no entry")
    t.check(t.read(Page(t.index, 100, after=(9, b"later"))), (), "behind the last entry")


@case(4)
def front_keeps_the_order_picked(t: Bench) -> None:
    t.fill(b"x", b"y")
    t.put(Put(t.working, {b"a": record(b"a"), b"b": record(b"b"), b"c": record(b"c")}, {b"a": 3, b"b": 1, b"c": 2}))
    t.move(Move(t.working, t.ready, These((b"c", b"a")), front=True))
    t.check(t.places()["ready"], [b"c", b"a", b"x", b"y"], "two put at the head, in the order picked")
    t.move(Move(t.working, t.ready, Due(9, 9), front=True))
    t.check(t.places(), {"ready": [b"b", b"c", b"a", b"x", b"y"]}, "a third one put before them")


@case(4)
def these_move_in_the_order_asked_for(t: Bench) -> None:
    t.fill(b"a", b"b", b"c", b"d")
    moved = t.move(Move(t.ready, t.working, These((b"d", b"nowhere", b"a", b"d")), NOW, give=True))
    expected = Moved((b"d", b"a"), (record(b"d"), record(b"a")), left=2)
    t.check(moved, expected, "four ids picked, of which one is not there and one is named twice")
    back = t.move(Move(t.working, t.ready, These((b"d", b"nowhere", b"a", b"d"))))
    t.check(back, Moved((b"d", b"a")), "the way back")
    t.check(t.places(), {"ready": [b"b", b"c", b"d", b"a"]}, "places after it")


@case(6)
def head_takes_at_most_its_limit_and_bytes(t: Bench) -> None:
    records = {b"a": b"n" * 100, b"b": b"n" * 100, b"c": b"n" * 101, b"d": b"n" * 10, b"e": b"n" * 90, b"f": b"n" * 9}
    t.put(Put(t.ready, records))
    for head, ids in (
        (Head(0, 1000), ()),
        (Head(1, 1000), (b"a",)),
        (Head(10, 200), (b"b",)),
        (Head(10, 111), (b"c", b"d")),
        (Head(1, 80), (b"e",)),
        (Head(10, 8), (b"f",)),
        (Head(10, 100), ()),
    ):
        moved = t.move(Move(t.ready, t.working, head, NOW))
        t.check(moved.ids, ids, f"{head}: a record that is longer by itself counts nothing")


@case(6)
def head_answers_no_record_that_is_longer_than_its_bytes(t: Bench) -> None:
    records = {b"a": b"n" * 50, b"b": b"n" * 101, b"c": b"n" * 200_000, b"d": b"n" * 50, b"e": b"n", b"f": b"n" * 100}
    t.put(Put(t.ready, records))
    claim = Move(
        t.ready,
        t.working,
        Head(10, 100),
        NOW,
        stamp=Stamp(b"one", 5000, NOW),
        once=Once(b"one", 1),
        give=True,
        wake=True,
    )
    given = (records[b"a"], Unread(101), Unread(200_000), records[b"d"])
    expected = Moved((b"a", b"b", b"c", b"d"), given, fence=NOW, left=2)
    t.check(
        t.move(claim), expected, "a claim: the sizes of two records, and no more bytes of the others than asked for"
    )
    t.check(t.move(claim), expected, "the same claim asked for again")
    t.check(t.read(Fields(t.records, None, None)), records, "no record is changed")
    these = Move(t.working, t.dead, These((b"b", b"c")), 5, stamp=CLEAR)
    t.check(t.move(these), Moved((b"b", b"c"), left=2, next=NOW), "those that were not read go where they are sent")
    replaced = Move(t.ready, t.working, Head(10, 10), NOW, records={b"f": b"n" * 11}, give=True)
    t.check(t.move(replaced), Moved((b"e", b"f"), (b"n", b"n" * 11)), "a new record is answered, whatever its length")


@case(6)
def due_takes_what_is_due_and_no_more(t: Bench) -> None:
    t.put(Put(t.waiting, {id_: record(id_) for id_ in (b"a", b"b", b"c")}, {b"a": NOW - 1, b"b": NOW, b"c": NOW + 1}))
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW - 2, 9))), Moved((), left=3, next=NOW - 1), "before all are due")
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, 0))), Moved((), left=3, next=NOW - 1), "with a limit of 0")
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, 1))), Moved((b"a",), left=2, next=NOW), "with a limit of 1")
    t.check(
        t.move(Move(t.waiting, t.ready, Due(NOW, 9))), Moved((b"b",), left=1, next=NOW + 1), "due at this very time"
    )
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW + 1, 9))), Moved((b"c",)), "the last")


@case(6)
def expect_skips_what_is_otherwise(t: Bench) -> None:
    ids = (b"a", b"b", b"c")
    t.fill(*ids)
    fence = t.move(Move(t.ready, t.working, Head(2, 1000), NOW, stamp=_STAMP)).fence
    t.move(Move(t.ready, t.working, Head(2, 1000), NOW + 1))
    claim = claim_mark(b"runner", fence, 5000)
    table: list[tuple[Expect, tuple[bytes, ...]]] = [
        (dict.fromkeys(ids, claim), (b"a", b"b")),
        ({b"a": claim, b"b": claim + b"0"}, (b"a",)),
        ({b"c": b""}, ()),
        ({b"a": (claim, NOW), b"b": (claim, NOW + 1), b"c": (claim, NOW + 1)}, (b"a",)),
        ({b"a": NOW, b"b": NOW + 1, b"c": NOW + 1}, (b"a", b"c")),
        (NO_CLAIM, (b"c",)),
        ({}, ()),
    ]
    for expect, moved in table:
        answer = t.move(Move(t.working, t.working, These(ids), NOW, expect=expect))
        t.check(answer, Moved(moved, left=3, next=NOW), f"three ids with expect={expect}")
    gone = t.move(Move(t.working, t.dead, These(ids), 1, expect={b"a": claim, b"b": b"another"}))
    t.check(gone.ids, (b"a",), "one of three is as expected")
    t.check(t.places(), {"dead": [(b"a", 1)], "working": [(b"b", NOW), (b"c", NOW + 1)]}, "the others stay")
    t.check(t.move(Move(t.dead, t.ready, These(ids), expect=NO_CLAIM)).ids, (), "its claim went with it")


@case(6)
def expect_works_with_every_pick(t: Bench) -> None:
    t.fill(b"a", b"b")
    t.check(
        t.move(Move(t.ready, t.working, Head(9, 1000), 5, expect={b"b": 0})).ids, (b"b",), "the score in a list is 0"
    )
    t.check(t.move(Move(t.working, t.ready, Due(9, 9), expect={b"b": 4})).ids, (), "another score than expected")
    t.check(t.move(Move(t.working, t.ready, Due(9, 9), expect={b"b": 5})).ids, (b"b",), "the score expected")
    t.check(t.places(), {"ready": [b"a", b"b"]}, "places after it")


@case(6)
def an_id_without_record_is_removed_and_reported(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    t.lose_record(b"b")
    claimed = t.move(Move(t.ready, t.working, Head(9, 1000), NOW, stamp=_STAMP, give=True))
    expected = Moved((b"a", b"c"), (record(b"a"), record(b"c")), (b"b",), claimed.fence)
    t.check(claimed, expected, "a claim that meets an id without record")
    t.lose_record(b"c")
    extended = t.move(Move(t.working, t.working, These((b"a", b"c")), NOW + 5))
    t.check(extended, Moved((b"a", b"c"), left=2, next=NOW + 5), "an extension, where no job changes its place")
    rescued = t.move(Move(t.working, t.ready, Due(NOW + 5, 9), stamp=CLEAR, count=(t.counters, b"rescued")))
    t.check(rescued, Moved((b"a",), missing=(b"c",)), "a rescue that meets an id without record")
    state = t.state()
    t.check(
        [state.get(name) for name in ("ready", "working", "claims")], [[b"a"], None, None], "ready, working, claims"
    )
    t.check(state["counters"].get(b"rescued"), b"1", "the count of what really moved")


@case(6)
def a_move_answers_what_the_source_still_holds(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    t.check(t.move(Move(t.ready, t.waiting, Head(2, 1000), 7)), Moved((b"a", b"b"), left=1), "a list as source")
    t.put(Put(t.waiting, {b"d": record(b"d")}, 4))
    t.check(
        t.move(Move(t.waiting, t.dead, These((b"a",)), 1)), Moved((b"a",), left=2, next=4), "a sorted set as source"
    )
    t.check(t.move(Move(t.waiting, t.dead, These((b"a",)), 1)), Moved((), left=2, next=4), "nothing moved")
    t.check(t.move(Move(t.working, t.dead, Due(9, 9), 1)), Moved(()), "a source that does not exist")


@case(6)
def records_of_what_moved_are_replaced_and_given(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    new = {b"a": record(b"a", body=b"new "), b"c": record(b"c", body=b"new "), b"z": record(b"z")}
    moved = t.move(Move(t.ready, t.dead, These((b"a", b"b")), 9, records=new, give=True))
    t.check(moved, Moved((b"a", b"b"), (new[b"a"], record(b"b")), left=1), "two moved, one with a new record")
    stored = {b"a": new[b"a"], b"b": record(b"b"), b"c": record(b"c")}
    t.check(t.state()["records"], stored, "what did not move keeps its record, and none appears")
    t.check(t.move(Move(t.dead, t.dead, These((b"b",)), records={b"b": b"whole new"})).records, (), "without give")
    t.check(t.state()["records"], {**stored, b"b": b"whole new"}, "a record replaced where its job stays")


@case(6)
def leaving_forgets_record_and_claim(t: Bench) -> None:
    t.fill(b"a", b"b")
    t.move(Move(t.ready, t.working, Head(9, 1000), NOW, stamp=_STAMP))
    left = t.move(Move(t.working, None, These((b"a",)), give=True))
    t.check(left, Moved((b"a",), (record(b"a"),), left=1, next=NOW), "the job that leaves, with its last record")
    state = t.state()
    t.check((list(state["records"]), list(state["claims"])), ([b"b"], [b"b"]), "records and claims after it")
    t.check(t.put(Put(t.waiting, {b"a": record(b"a")}, NOW)), ("stored",), "its id is free again")


@case(6)
def a_score_for_each_or_for_all(t: Bench) -> None:
    t.put(Put(t.waiting, {b"a": record(b"a"), b"b": record(b"b"), b"c": record(b"c")}, {b"a": 3, b"b": 2, b"c": 1}))
    t.check(t.places(), {"waiting": [(b"c", 1), (b"b", 2), (b"a", 3)]}, "a Put with a score for each")
    t.move(Move(t.waiting, t.dead, These((b"a", b"b")), {b"a": 10, b"b": 20, b"other": 30}))
    t.check(t.places()["dead"], [(b"a", 10), (b"b", 20)], "a Move with a score for each")
    t.move(Move(t.dead, t.waiting, Due(99, 9), 5))
    t.check(t.places(), {"waiting": [(b"c", 1), (b"a", 5), (b"b", 5)]}, "a Move with a score for all")


@case(6)
def counts_are_of_what_really_moved(t: Bench) -> None:
    t.fill(b"a", b"b")
    moved = (t.counters, b"moved")
    t.move(Move(t.working, t.ready, Due(NOW, 9), count=moved))
    t.check(t.state().get("counters"), None, "nothing moved: nothing is counted, not even 0")
    t.do(HashAdd(t.counters, b"moved", 40))
    t.move(Move(t.ready, t.working, These((b"a", b"b", b"c")), NOW, count=moved))
    t.check(t.state()["counters"], {b"moved": b"42"}, "two of three moved")


@case(6)
def records_are_found_wherever_their_job_is(t: Bench) -> None:
    t.fill(b"r")
    for id_, place, score in ((b"w", t.waiting, 1), (b"k", t.working, 2), (b"d", t.dead, 3)):
        t.put(Put(place, {id_: record(id_)}, score))
    t.move(Move(t.working, t.working, These((b"k",)), stamp=_STAMP))
    claim = t.state()["claims"][b"k"]
    expected = (
        Kept(record(b"d"), "dead", 3, None),
        None,
        Kept(record(b"k"), "working", 2, claim),
        Kept(record(b"r"), "ready", 0, None),
        Kept(record(b"w"), "waiting", 1, None),
    )
    t.check(t.read(Records(t.scope, (b"d", b"nowhere", b"k", b"r", b"w"))), expected, "what is kept of five ids")


@case(1)
def a_move_of_all_or_none_moves_all_or_none(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    t.move(Move(t.ready, t.working, Head(2, 1000), NOW, stamp=Stamp(b"r", 5, NOW)))
    claim = claim_mark(b"r", NOW, 5)
    mine = {b"a": claim, b"b": claim}
    write = HashSet(t.notes, {b"done": b"1"})

    def finish(*ids: bytes, expect: dict[bytes, bytes]) -> Move:
        return Move(t.working, None, These(ids), expect=expect, whole=True)

    before = t.state()
    refused: list[tuple[Move, tuple[bytes, ...]]] = [
        (finish(b"a", b"c", expect={**mine, b"c": claim}), (b"c",)),
        (finish(b"a", b"x", b"b", expect={**mine, b"x": claim, b"b": b"another"}), (b"x", b"b")),
        (Move(t.ready, t.dead, These((b"a", b"c")), NOW, whole=True), (b"a",)),
        (Move(t.waiting, t.ready, These((b"c",)), expect={b"c": NOW}, whole=True), (b"c",)),
    ]
    for move, skipped in refused:
        t.check(t.outcome(write, move), Refused((1,), skipped), f"{move}, which cannot move all")
    guards: list[Guard] = [Member(t.working, b"x"), Absent(t.notes, b"done")]
    t.check(
        t.outcome(write, finish(b"c", expect={b"c": claim}), guards=guards),
        Refused((0, 3), (b"c",)),
        "behind a guard too",
    )
    t.check(t.state(), before, "nothing was changed")
    t.fill(b"d")
    t.lose_record(b"d")
    t.check(t.outcome(Move(t.ready, None, These((b"d",)), whole=True)), Refused((0,), (b"d",)), "without a record")
    t.do(write, finish(b"b", b"a", expect=mine), Move(t.ready, t.dead, These((b"c",)), NOW, whole=True))
    t.check(t.state()["dead"], [(b"c", NOW)], "all moved")
    t.check(t.state().get("working"), None, "all finished")
