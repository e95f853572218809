"""Claims, fences, locks, and batches that arrive twice or late (rule 8)."""

from __future__ import annotations

from typing import Final

from jobqueue.storage.ops import (
    CLEAR,
    NO_CLAIM,
    Absent,
    Applied,
    Due,
    FieldIs,
    Guard,
    HashAdd,
    HashDelete,
    HashSet,
    Head,
    Held,
    LockDrop,
    Locked,
    LockTake,
    Move,
    Moved,
    Once,
    Op,
    Put,
    Refused,
    SetAdd,
    SetRemove,
    Stamp,
    These,
    Unlocked,
    claim_mark,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, record

__all__: list[str] = []

_STAMP: Final = Stamp(b"runner", 5000, NOW)


def _claim_of(t: Bench, number: int, limit: int = 2, *, give: bool = True) -> Move:
    return Move(
        t.ready, t.working, Head(limit, 10_000), NOW + 30, stamp=_STAMP, once=Once(b"runner", number), give=give
    )


# ------------------------------------------------------------------------------------------------------------- claims


@case(8)
def a_stamp_writes_one_new_fence(t: Bench) -> None:
    t.fill(b"a", b"b", b"c", b"d")
    first = t.move(Move(t.ready, t.working, Head(2, 1000), NOW, stamp=Stamp(b"one", 5000, NOW)))
    t.check(first.fence, NOW, "the first fence is the time")
    second = t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"two", 70, NOW - 9)))
    t.check(second.fence, NOW + 1, "a clock that runs backwards: the last fence + 1")
    third = t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"\x00:\xff", 1, NOW + 50)))
    t.check(third.fence, NOW + 50, "a clock that is ahead of the last fence")
    claims = {
        b"a": claim_mark(b"one", NOW, 5000),
        b"b": claim_mark(b"one", NOW, 5000),
        b"c": claim_mark(b"two", NOW + 1, 70),
        b"d": claim_mark(b"\x00:\xff", NOW + 50, 1),
    }
    t.check(t.state()["claims"], claims, "claims: incarnation:fence:beat")
    none = t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"one", 5000, NOW + 99)))
    t.check(none.fence, 0, "nothing moved: no fence")
    t.fill(b"e")
    last = t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"one", 5000, NOW)))
    t.check(last.fence, NOW + 51, "and none was used up")


@case(8)
def a_claim_is_cleared_kept_or_written(t: Bench) -> None:
    t.fill(b"a", b"b")
    t.move(Move(t.ready, t.working, Head(2, 1000), NOW, stamp=_STAMP))
    claim = claim_mark(b"runner", NOW, 5000)
    t.move(Move(t.working, t.working, These((b"a", b"b")), NOW + 1))
    t.check(t.state()["claims"], {b"a": claim, b"b": claim}, "without a stamp claims stay")
    t.move(Move(t.working, t.ready, These((b"a",)), stamp=CLEAR))
    t.check(t.state()["claims"], {b"b": claim}, "CLEAR takes the claim of what moved")
    t.move(Move(t.working, t.ready, These((b"a",)), stamp=CLEAR))
    t.move(Move(t.working, t.waiting, These((b"b",)), NOW))
    t.check(t.state()["claims"], {b"b": claim}, "a job that changes place without a stamp keeps it")


@case(8)
def an_extension_only_raises(t: Bench) -> None:
    t.fill(b"a", b"b")
    t.move(Move(t.ready, t.working, Head(2, 1000), NOW, stamp=_STAMP))
    claim = claim_mark(b"runner", NOW, 5000)
    ours = {b"a": claim, b"b": claim}
    for score, ends in (
        (NOW + 10, (NOW + 10, NOW + 10)),
        (NOW + 5, (NOW + 10, NOW + 10)),
        (NOW + 11, (NOW + 11, NOW + 11)),
    ):
        moved = t.move(Move(t.working, t.working, These((b"a", b"b")), score, expect=ours))
        t.check(moved, Moved((b"a", b"b"), left=2, next=ends[0]), f"an extension to {score}")
        t.check(t.places(), {"working": [(b"a", ends[0]), (b"b", ends[1])]}, "ends of leases after it")
    t.move(Move(t.working, t.working, These((b"a", b"b")), {b"a": NOW + 20, b"b": NOW}))
    t.check(t.places(), {"working": [(b"b", NOW + 11), (b"a", NOW + 20)]}, "one of two raised")
    t.move(Move(t.working, t.working, These((b"a", b"b"))))
    t.check(t.places(), {"working": [(b"b", NOW + 11), (b"a", NOW + 20)]}, "without a score they stay")


@case(8)
def a_numbered_claim_sent_again_answers_the_same(t: Bench) -> None:
    t.fill(b"a", b"b", b"c", b"d")
    first = t.move(_claim_of(t, 7))
    t.check(first, Moved((b"a", b"b"), (record(b"a"), record(b"b")), fence=NOW, left=2), "the first sending")
    t.unchanged(lambda: t.check(t.move(_claim_of(t, 7)), first, "the second sending"), "a claim sent again")
    t.move(Move(t.working, None, These((b"a",))))
    again = t.move(_claim_of(t, 7))
    t.check(again, Moved((b"b",), (record(b"b"),), fence=NOW, left=2), "sent again after one job was finished")
    t.move(Move(t.working, t.ready, These((b"b",)), stamp=CLEAR))
    other = t.move(Move(t.ready, t.working, These((b"b",)), NOW, stamp=Stamp(b"other", 5000, NOW)))
    again = t.move(_claim_of(t, 7))
    t.check(again, Moved((), fence=NOW, left=2), "sent again after the other job went to another runner")
    t.check(t.state()["claims"], {b"b": claim_mark(b"other", other.fence, 5000)}, "whose claim stands")
    t.check(t.move(_claim_of(t, 8)).ids, (b"c", b"d"), "the next number takes the next jobs")


@case(8)
def a_numbered_claim_is_not_counted_twice(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    op = Move(
        t.ready, t.working, Head(2, 1000), NOW, stamp=_STAMP, once=Once(b"runner", 1), count=(t.counters, b"claimed")
    )
    t.move(op)
    t.unchanged(lambda: t.move(op), "a claim with a count sent again")
    t.check(t.state()["counters"][b"claimed"], b"2", "what was claimed")


@case(8)
def a_late_numbered_claim_is_refused(t: Bench) -> None:
    t.fill(b"a", b"b", b"c", b"d")
    t.move(_claim_of(t, 2))
    push = SetAdd(t.index, {b"m": 1})

    def late() -> None:
        t.check(
            t.outcome(push, _claim_of(t, 1), guards=[Absent(t.notes, b"f")]), Refused((2,)), "number 1 after number 2"
        )

    t.unchanged(late, "a claim that arrives after the next one")
    t.check(t.move(_claim_of(t, 3)).ids, (b"c", b"d"), "number 3")
    both = t.outcome(_claim_of(t, 2), guards=[FieldIs(t.notes, b"f", b"v")])
    t.check(both, Refused((0, 1)), "a guard and a number that both fail")
    t.fill(b"e")
    other = Move(t.ready, t.working, Head(9, 1000), NOW, stamp=_STAMP, once=Once(b"other", 1))
    t.check(t.move(other).ids, (b"e",), "number 1 of another incarnation")


@case(8)
def a_numbered_claim_that_took_nothing_is_remembered(t: Bench) -> None:
    t.check(t.move(_claim_of(t, 1)), Moved(()), "a claim on nothing")
    t.fill(b"a")
    t.check(t.move(_claim_of(t, 1)), Moved((), left=1), "its first sending, arriving after a job did")
    t.check(t.places(), {"ready": [b"a"]}, "the job is still there for a claim that somebody waits for")


@case(8)
def a_closed_incarnation_claims_nothing(t: Bench) -> None:
    t.fill(b"a", b"b", b"c", b"d")
    t.move(_claim_of(t, 1))
    t.do(HashSet(t.requests, {b"runner": b"closed"}))
    for number in (1, 2, 99):
        t.unchanged(
            lambda: t.check(t.outcome(_claim_of(t, number)), Refused((0,)), f"number {number} after closing"),  # noqa: B023
            "a claim of a closed incarnation",
        )


@case(8)
def a_put_tells_the_same_job_from_another(t: Bench) -> None:
    put = Put(t.ready, {b"a": record(b"a"), b"b": record(b"b")})
    t.check(t.put(put), ("stored", "stored"), "two new jobs")
    t.unchanged(lambda: t.check(t.put(put), ("same", "same"), "the second sending"), "a Put sent again")
    mixed = {b"z": record(b"z"), b"a": record(b"a", b"nonce-02"), b"b": record(b"b", body=b"changed ")}
    t.check(t.put(Put(t.ready, mixed)), ("stored", "different", "same"), "a new id, another nonce, the same nonce")
    t.check(t.places(), {"ready": [b"a", b"b", b"z"]}, "ready after it")
    t.check(t.state()["records"], {id_: record(id_) for id_ in (b"a", b"b", b"z")}, "records after it")
    t.move(Move(t.ready, t.working, Head(1, 1000), NOW))
    t.check(t.put(put), ("same", "same"), "a first sending that arrives when one is working")
    t.check(t.places(), {"ready": [b"b", b"z"], "working": [(b"a", NOW)]}, "and stays so")


@case(1)
def a_bounded_put_finds_room_for_what_is_new_or_is_refused(t: Bench) -> None:
    t.fill(b"a", b"b")
    late = Put(t.waiting, {b"w": record(b"w")}, NOW)

    def put(most: int, *ids: bytes) -> Put:
        return Put(t.ready, {id_: record(id_) for id_ in ids}, wake=True, most=most)

    for most, ids in ((2, (b"c",)), (0, (b"c",)), (3, (b"c", b"d")), (3, (b"a", b"c", b"d"))):
        t.unchanged(lambda: t.check(t.outcome(put(most, *ids)), Refused((0,)), "the outcome"), "a Put without room")  # noqa: B023
    guards: list[Guard] = [Absent(t.notes, b"f"), Locked(t.duty, b"owner", NOW)]
    both = t.outcome(late, put(2, b"c"), guards=guards)
    t.check(
        both, Refused((1, 3)), "two guards, of which the second fails, and two Puts, of which the second has no room"
    )
    t.unchanged(
        lambda: t.check(t.outcome(late, put(2, b"c")), Refused((1,)), "the outcome"), "two Puts, one without room"
    )
    t.check(t.put(put(1, b"b", b"a")), ("same", "same"), "what is there already needs no room")
    t.check(t.put(put(3, b"a", b"c")), ("same", "stored"), "the last that finds room")
    t.check(t.put(put(3)), (), "a Put of nothing")
    t.move(Move(t.ready, t.working, Head(1, 1000), NOW))
    t.check(t.put(put(3, b"d")), ("stored",), "what a claim has made room for")
    t.check(t.places(), {"ready": [b"b", b"c", b"d"], "working": [(b"a", NOW)]}, "places after it")


# ------------------------------------------------------------------------------------------------------ sent twice


@case(8)
def batches_sent_twice_change_nothing_more(t: Bench) -> None:
    t.fill(*(b"%d" % number for number in range(12)))
    claim = claim_mark(b"runner", NOW, 5000)
    mine: dict[bytes, bytes] = dict.fromkeys((b"0", b"1", b"2", b"3"), claim)
    done = (t.counters, b"done")
    batches: list[tuple[str, tuple[Op, ...]]] = [
        ("enqueue", (Put(t.waiting, {b"x": record(b"x"), b"y": record(b"y")}, NOW),)),
        ("claim", (_claim_of(t, 1, 5),)),
        ("extend", (Move(t.working, t.working, These(tuple(mine)), NOW + 60, expect=mine),)),
        ("finish", (Move(t.working, None, These((b"0",)), expect=mine, count=done),)),
        (
            "retry",
            (Move(t.working, t.waiting, These((b"1",)), NOW + 9, expect=mine, stamp=CLEAR, records={b"1": b"n" * 9}),),
        ),
        (
            "bury",
            (Move(t.working, t.dead, These((b"2",)), NOW, expect=mine, stamp=CLEAR, count=(t.counters, b"dead")),),
        ),
        ("release", (Move(t.working, t.ready, These((b"3",)), expect=mine, stamp=CLEAR, front=True),)),
        (
            "rescue",
            (Move(t.working, t.ready, These((b"4",)), expect={b"4": (claim, NOW + 30)}, stamp=CLEAR, count=done),),
        ),
        ("promote", (Move(t.waiting, t.ready, Due(NOW, 10), count=(t.counters, b"promoted")),)),
        ("requeue", (Move(t.dead, t.ready, These((b"2",)), expect={b"2": NOW}),)),
        ("delete", (Move(t.ready, None, These((b"7",)), expect=NO_CLAIM, count=(t.counters, b"deleted")),)),
        ("index", (SetAdd(t.index, {b"m": 1, b"n": 2}), HashSet(t.notes, {b"f": b"v"}))),
        ("unindex", (SetRemove(t.index, (b"m",)), HashDelete(t.notes, (b"f",)))),
    ]
    for name, ops in batches:
        before = t.state()
        t.do(*ops)
        if t.state() == before:
            raise CaseFailed(f"{name}\n  expected: it changes something\n  got:      nothing changed")
        t.unchanged(lambda: t.do(*ops), f"{name}, sent twice")  # noqa: B023
    places = {
        "ready": [b"3", b"5", b"6", b"8", b"9", b"10", b"11", b"4", b"x", b"y", b"2"],
        "waiting": [(b"1", NOW + 9)],
    }
    t.check(t.places(), places, "places after all of it")
    counts = {name: value for name, value in t.state()["counters"].items() if name != b"fence"}
    t.check(counts, {b"dead": b"1", b"deleted": b"1", b"done": b"2", b"promoted": b"2"}, "counts after all of it")


@case(8)
def a_guard_makes_an_addition_safe_to_send_twice(t: Bench) -> None:
    ops = (HashAdd(t.notes, b"runs", 1), HashSet(t.notes, {b"mark": b"1"}))
    guards = [Absent(t.notes, b"mark")]
    t.check(t.outcome(*ops, guards=guards), Applied((None, None)), "the first sending")
    t.unchanged(lambda: t.check(t.outcome(*ops, guards=guards), Refused((0,)), "the second"), "an addition sent twice")


@case(8)
def a_late_finish_does_not_touch_the_next_claim(t: Bench) -> None:
    t.fill(b"a")
    late = t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=_STAMP)).fence
    t.move(Move(t.working, t.ready, These((b"a",)), stamp=CLEAR, front=True))
    t.move(Move(t.ready, t.working, Head(1, 1000), NOW + 5, stamp=_STAMP))
    ours = {b"a": claim_mark(b"runner", late, 5000)}
    moves = [
        Move(t.working, None, These((b"a",)), expect=ours),
        Move(t.working, t.dead, These((b"a",)), NOW, expect=ours, records={b"a": b"overwritten"}),
        Move(t.working, t.working, These((b"a",)), NOW + 99, expect=ours),
        Move(t.working, t.ready, These((b"a",)), expect={b"a": (ours[b"a"], NOW)}, stamp=CLEAR),
    ]
    for op in moves:
        t.unchanged(lambda: t.check(t.move(op).ids, (), f"{op}"), "a step of a claim that is gone")  # noqa: B023


# -------------------------------------------------------------------------------------------------------------- locks


@case(8)
def a_lock_has_one_holder_at_a_time(t: Bench) -> None:
    def take(token: bytes, now: int, until: int, seen: int) -> object:
        outcome = t.outcome(LockTake(t.duty, token, now, until), guards=[Unlocked(t.duty, token, now, seen)])
        return outcome.answers[0] if isinstance(outcome, Applied) else outcome

    t.check(take(b"a", NOW, NOW + 10, 0), NOW, "a lock that nobody held; its fence is the time")
    t.check(take(b"b", NOW + 9, NOW + 20, NOW), Refused((0,)), "another token, before its end")
    t.check(take(b"a", NOW + 1, NOW + 10, 0), NOW, "its holder, sending again")
    t.check(take(b"b", NOW + 10, NOW + 20, NOW - 1), Refused((0,)), "one that has not seen the last holder")
    t.check(take(b"b", NOW + 10, NOW + 20, NOW), NOW + 10, "another token, at its end")
    t.check(take(b"a", NOW + 11, NOW + 30, NOW + 10), Refused((0,)), "the former holder")
    t.check(
        take(b"b", NOW + 25, NOW + 30, NOW), NOW + 10, "its holder after its end, if nobody took it, keeps the fence"
    )
    t.check(take(b"c", 5, 6, NOW + 10), Refused((0,)), "a clock that runs behind")
    t.check(t.state()["duty"], Held(b"b", NOW + 30, NOW + 10), "the lock")


@case(8)
def a_lock_is_extended_by_its_holder_only(t: Bench) -> None:
    t.do(LockTake(t.duty, b"a", NOW, NOW + 10))

    def extend(token: bytes, now: int, until: int) -> object:
        return t.outcome(LockTake(t.duty, token, now, until), guards=[Locked(t.duty, token, now)])

    t.check(extend(b"a", NOW + 5, NOW + 20), Applied((NOW,)), "its holder in time")
    t.check(extend(b"a", NOW + 1, NOW + 11), Applied((NOW,)), "an extension that arrives late")
    t.check(t.state()["duty"], Held(b"a", NOW + 20, NOW), "does not shorten it")
    t.check(extend(b"b", NOW + 5, NOW + 20), Refused((0,)), "another token")
    t.check(extend(b"a", NOW + 20, NOW + 40), Refused((0,)), "its holder at its end")


@case(8)
def a_dropped_lock_cannot_be_taken_by_a_late_sending(t: Bench) -> None:
    t.do(LockTake(t.duty, b"a", NOW, NOW + 10))
    t.do(LockDrop(t.duty, b"b"))
    t.check(t.state()["duty"], Held(b"a", NOW + 10, NOW), "dropped by one who does not hold it")
    t.do(LockDrop(t.duty, b"a"))
    t.check(t.state()["duty"], Held(b"a", 0, NOW), "dropped by its holder")
    t.unchanged(lambda: t.do(LockDrop(t.duty, b"a")), "dropped twice")
    t.check(t.outcome(guards=[Locked(t.duty, b"a", NOW)]), Refused((0,)), "it is not locked any more")
    again = t.outcome(LockTake(t.duty, b"a", NOW, NOW + 10), guards=[Unlocked(t.duty, b"a", NOW, 0)])
    t.check(again, Refused((0,)), "the first sending of its taking, arriving late")
    t.check(t.outcome(guards=[Unlocked(t.duty, b"b", 1, NOW)]), Applied(()), "anybody who looks may take it at once")
    t.check(t.do(LockTake(t.duty, b"b", 1, 9)), (NOW + 1,), "with a fence above the last")


@case(8)
def a_lock_that_somebody_held_since_cannot_be_taken_by_a_late_sending(t: Bench) -> None:
    def take(token: bytes, now: int, seen: int) -> Applied | Refused:
        outcome = t.outcome(LockTake(t.duty, token, now, NOW + 100), guards=[Unlocked(t.duty, token, now, seen)])
        assert isinstance(outcome, Applied | Refused)
        return outcome

    # Both saw a lock that nobody had held; the request of the first was kept back on its way.
    t.check(take(b"b", NOW, 0), Applied((NOW,)), "who arrives first")
    t.do(LockDrop(t.duty, b"b"))
    before = t.state()
    t.check(take(b"a", NOW + 50, 0), Refused((0,)), "who looked before that")
    t.check(t.state(), before, "a taking that arrives late")
    t.check(take(b"c", 5, NOW), Applied((NOW + 1,)), "who looked after it, however far its clock is behind")


@case(8)
def an_unguarded_taking_overrules(t: Bench) -> None:
    t.do(LockTake(t.duty, b"a", NOW, NOW + 10))
    t.check(t.do(LockTake(t.duty, b"b", NOW, NOW + 2)), (NOW + 1,), "another token takes it whoever holds it")
    t.check(t.state()["duty"], Held(b"b", NOW + 2, NOW + 1), "the lock")
