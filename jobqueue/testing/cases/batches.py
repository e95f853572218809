"""Batches, guards and plain operations (rules 1, 2, 3, 5 and 7)."""

from __future__ import annotations

from typing import Final

from jobqueue.errors import NotApplied, StorageRefused
from jobqueue.storage.ops import (
    Absent,
    Applied,
    Due,
    Empty,
    FieldIs,
    Fields,
    Guard,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    Held,
    ListKey,
    ListPush,
    LockDrop,
    Locked,
    LockTake,
    Member,
    Move,
    Once,
    Op,
    Page,
    Peek,
    Placed,
    Put,
    Refused,
    SetAdd,
    SetKey,
    SetRemove,
    Sizes,
    Stamp,
    Unlocked,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, record

__all__: list[str] = []

_DAY: Final = 86_400_000


@case(1)
def every_guard_holds_and_fails_as_it_says(t: Bench) -> None:
    t.do(HashSet(t.notes, {b"f": b"v"}), SetAdd(t.index, {b"m": 3}), LockTake(t.duty, b"owner", NOW, NOW + 10))
    table: list[tuple[Guard, bool]] = [
        (Absent(t.notes, b"other"), True),
        (Absent(t.notes, b"f"), False),
        (Absent(HashKey(t.scope, "nothing"), b"f"), True),
        (FieldIs(t.notes, b"f", b"v"), True),
        (FieldIs(t.notes, b"f", b"w"), False),
        (FieldIs(t.notes, b"other", b""), False),
        (Member(t.index, b"m"), True),
        (Member(t.index, b"n"), False),
        (Empty(SetKey(t.scope, "nothing")), True),
        (Empty(t.index), False),
        (Locked(t.duty, b"owner", NOW), True),
        (Locked(t.duty, b"other", NOW), False),
        (Unlocked(t.duty, b"owner", NOW, NOW), True),
        (Unlocked(t.duty, b"other", NOW, NOW), False),
    ]
    for guard, holds in table:
        expected: object = Applied((None,)) if holds else Refused((0,))
        t.check(t.outcome(HashSet(t.notes, {b"g": b"x"}), guards=[guard]), expected, f"a batch behind {guard}")


@case(1)
def every_failing_guard_is_named(t: Bench) -> None:
    t.do(HashSet(t.notes, {b"f": b"v"}))
    guards: list[Guard] = [
        Absent(t.notes, b"f"),
        Absent(t.notes, b"g"),
        FieldIs(t.notes, b"f", b"w"),
        FieldIs(t.notes, b"f", b"v"),
        Member(t.index, b"m"),
        Locked(t.duty, b"owner", NOW),
        Unlocked(t.duty, b"owner", NOW, NOW),
    ]
    outcome = t.outcome(HashSet(t.notes, {b"h": b"x"}), guards=guards)
    t.check(outcome, Refused((0, 2, 4, 5)), "a batch with seven guards, of which four fail")


@case(1)
def a_refused_batch_changes_nothing(t: Bench) -> None:
    t.fill(b"a", b"b")
    t.do(HashSet(t.notes, {b"f": b"v"}), SetAdd(t.index, {b"m": 3}), LockTake(t.duty, b"owner", NOW, NOW + 10))
    ops: tuple[Op, ...] = (
        ListPush(t.log, (b"x",)),
        SetAdd(t.index, {b"n": 4}),
        SetRemove(t.index, (b"m",)),
        HashSet(t.notes, {b"g": b"x"}),
        HashAdd(t.notes, b"sum", 1),
        HashDelete(t.notes, (b"f",)),
        LockDrop(t.duty, b"owner"),
        Put(t.waiting, {b"c": record(b"c")}, NOW),
        Move(t.ready, t.working, Head(1, 1000), NOW),
        Move(t.ready, None, Head(1, 1000), count=(t.notes, b"gone")),
    )
    several: list[list[Guard]] = [[Absent(t.notes, b"f")], [FieldIs(t.notes, b"f", b"v"), Member(t.index, b"z")]]
    for guards in several:
        refused = Refused((len(guards) - 1,))
        t.unchanged(lambda: t.check(t.outcome(*ops, guards=guards), refused, "the outcome"), "a refused batch")  # noqa: B023


@case(1)
def guards_see_the_state_before_the_batch(t: Bench) -> None:
    first = t.outcome(HashSet(t.notes, {b"f": b"v"}), guards=[Absent(t.notes, b"f")])
    t.check(first, Applied((None,)), "a batch that writes the field whose absence it asks for")
    second = t.outcome(HashSet(t.notes, {b"g": b"v"}), guards=[FieldIs(t.notes, b"g", b"v")])
    t.check(second, Refused((0,)), "a batch that asks for the value which it would write itself")


@case(1)
def operations_see_those_before_them(t: Bench) -> None:
    answers = t.do(
        Put(t.waiting, {b"a": record(b"a"), b"b": record(b"b")}, NOW),
        Move(t.waiting, t.ready, Due(NOW, 10)),
        Move(t.ready, t.working, Head(1, 1000), NOW + 5),
    )
    t.check(answers[0], Placed(("stored", "stored")), "the answer of the Put")
    t.check(
        t.places(), {"ready": [b"b"], "working": [(b"a", NOW + 5)]}, "places after a Put and two moves in one batch"
    )


@case(1)
def plain_operations_do_what_they_say(t: Bench) -> None:
    t.do(
        ListPush(t.log, (b"1", b"2")),
        ListPush(t.log, (b"1",)),
        SetAdd(t.index, {b"a": 5, b"b": 4, b"c": 3}),
        SetAdd(t.index, {b"a": 1, b"d": -2}),
        SetRemove(t.index, (b"b", b"absent")),
        HashSet(t.notes, {b"x": b"1", b"y": b"", b"z": b"3"}),
        HashSet(t.notes, {b"x": b"\x00\xff\r\n"}),
        HashDelete(t.notes, (b"z", b"absent")),
        HashAdd(t.notes, b"sum", 7),
        HashAdd(t.notes, b"sum", -9),
    )
    expected = {
        "log": [b"1", b"2", b"1"],
        "index": [(b"d", -2), (b"a", 1), (b"c", 3)],
        "notes": {b"sum": b"-2", b"x": b"\x00\xff\r\n", b"y": b""},
    }
    t.check(t.state(), expected, "lists, sets and hashes after plain operations")


@case(1)
def a_key_of_another_kind_refuses_the_whole_batch(t: Bench) -> None:
    t.do(ListPush(t.log, (b"x",)), SetAdd(t.index, {b"m": 1}))
    clash = SetKey(t.scope, "log")
    before = t.state()
    for op in (SetAdd(clash, {b"m": 1}), SetRemove(clash, (b"m",)), HashSet(HashKey(t.scope, "index"), {b"f": b"v"})):
        outcome = t.outcome(HashSet(t.notes, {b"f": b"v"}), op)
        if not isinstance(outcome, StorageRefused) or ("log" not in str(outcome) and "index" not in str(outcome)):
            raise CaseFailed(f"{op}\n  expected: StorageRefused that names the key\n  got:      {outcome!r}")
    outcome = t.outcome(HashSet(t.notes, {b"f": b"v"}), guards=[Member(clash, b"m")])
    if not isinstance(outcome, StorageRefused):
        raise CaseFailed(f"a guard on a foreign kind of key\n  expected: StorageRefused\n  got:      {outcome!r}")
    t.check(t.state(), before, "after batches that use a list as a set and a set as a hash")
    try:
        answers = t.storage.read([Page(clash, 10)])
    except NotApplied:
        return
    raise CaseFailed(f"reading a list as a set\n  expected: StorageRefused is raised\n  got:      {answers}")


@case(1)
def a_claim_whose_bookkeeping_is_of_another_kind_moves_nothing(t: Bench) -> None:
    stamp, once = Stamp(b"runner", 5000, NOW), Once(b"runner", 1)
    for name in ("requests", "counters", "statistics"):
        u = t.another()
        u.fill(b"a")
        u.do(ListPush(ListKey(u.scope, name), (b"x",)))
        claim = Move(
            u.ready, u.working, Head(1, 1000), NOW, stamp=stamp, once=once, count=(HashKey(u.scope, "statistics"), b"f")
        )
        outcome = u.outcome(claim)
        if not isinstance(outcome, StorageRefused):
            raise CaseFailed(f"a claim with a list as {name}\n  expected: StorageRefused\n  got:      {outcome!r}")
        t.check(u.read(Peek(u.ready, 0, 9)), (b"a",), "ready after it")


@case(1)
def sums_stay_exact(t: Bench) -> None:
    largest = 2**53 - 1
    t.do(HashAdd(t.notes, b"up", largest), HashAdd(t.notes, b"down", -largest))
    t.check(t.state()["notes"], {b"down": b"%d" % -largest, b"up": b"%d" % largest}, "the largest and the lowest sum")
    for op in (HashAdd(t.notes, b"up", 1), HashAdd(t.notes, b"down", -1)):
        before = t.state()
        outcome = t.outcome(ListPush(t.log, (b"x",)), op)
        if not isinstance(outcome, StorageRefused):
            raise CaseFailed(f"{op} past {largest}\n  expected: StorageRefused\n  got:      {outcome!r}")
        t.check(t.state(), before, "after it")


@case(1)
def counts_keep_nothing_from_moving(t: Bench) -> None:
    largest = 2**53 - 1
    count = (t.notes, b"moved")
    t.fill(*[b"%d" % number for number in range(9)])
    for before, moved, after in (
        (b"%d" % (largest - 1), 1, b"%d" % largest),
        (b"%d" % (largest - 1), 2, b"2"),
        (b"%d" % largest, 1, b"1"),
        (b"many", 1, b"1"),
        (b"", 1, b"1"),
        (b"007", 1, b"1"),
        (b"9" * 30, 1, b"1"),
    ):
        t.do(HashSet(t.notes, {b"moved": before}))
        t.move(Move(t.ready, t.working, Head(moved, 1000), NOW, count=count))
        t.check(t.read(Fields(t.notes)), {b"moved": after}, f"the count {before!r} and {moved} more")


@case(1)
def fences_stay_exact(t: Bench) -> None:
    last = 2**53 - 1
    before_it, at_it = Stamp(b"runner", 5000, last - 2), Stamp(b"runner", 5000, last)
    t.fill(b"a", b"b", b"c")

    def claim(stamp: Stamp) -> Move:
        return Move(t.ready, t.working, Head(1, 1000), NOW, stamp=stamp)

    for stamps in ((at_it, at_it), (before_it, before_it, before_it, before_it)):
        outcome = t.outcome(*(claim(stamp) for stamp in stamps))
        if not isinstance(outcome, StorageRefused):
            raise CaseFailed(
                f"claims up to fence {last} and one more\n  expected: StorageRefused\n  got:      {outcome!r}"
            )
        t.check(t.read(Peek(t.ready, 0, 9)), (b"a", b"b", b"c"), "ready after a batch with one claim too many")
    fences = [t.move(claim(before_it)).fence for _ in range(3)]
    t.check(fences, [last - 2, last - 1, last], "the last three fences there are")


@case(1)
def adding_to_no_integer_refuses_the_whole_batch(t: Bench) -> None:
    for value in (b"x", b"", b"1.5", b" 1", b"01", b"99999999999999999999"):
        t.do(HashSet(t.notes, {b"f": value}))
        before = t.state()
        outcome = t.outcome(ListPush(t.log, (b"x",)), HashAdd(t.notes, b"f", 1))
        if not isinstance(outcome, StorageRefused):
            raise CaseFailed(f"adding to {value!r}\n  expected: StorageRefused\n  got:      {outcome!r}")
        t.check(t.state(), before, f"after adding to {value!r}")


@case(2)
def batches_of_one_scope_are_applied_in_order(t: Bench) -> None:
    outcomes = t.storage.apply(
        [
            t.batch(ListPush(t.log, (b"first",)), HashSet(t.notes, {b"f": b"v"})),
            t.batch(ListPush(t.log, (b"never",)), guards=[Absent(t.notes, b"f")]),
            t.batch(ListPush(t.log, (b"second",)), guards=[FieldIs(t.notes, b"f", b"v")]),
        ]
    )
    t.check(outcomes, [Applied((None, None)), Refused((0,)), Applied((None,))], "three batches, the second refused")
    t.check(t.state(), {"log": [b"first", b"second"], "notes": {b"f": b"v"}}, "after them")


@case(2)
def scopes_end_alone(t: Bench) -> None:
    u, v = t.another(), t.another()
    t.do(SetAdd(t.index, {b"m": 1}))
    outcomes = t.storage.apply(
        [
            u.batch(ListPush(u.log, (b"1",))),
            t.batch(ListPush(t.log, (b"1",)), guards=[Member(t.index, b"n")]),
            v.batch(HashSet(HashKey(v.scope, "log"), {b"f": b"v"})),
            u.batch(ListPush(u.log, (b"2",))),
            v.batch(ListPush(v.log, (b"1",))),
            t.batch(ListPush(t.log, (b"2",))),
        ]
    )
    kinds = [type(outcome) for outcome in outcomes]
    expected = [Applied, Refused, Applied, Applied, StorageRefused, Applied]
    t.check(kinds, expected, "outcomes of six batches of three scopes, in the order of the batches")
    t.check(u.state(), {"log": [b"1", b"2"]}, "the scope where all went well")
    t.check(t.state(), {"log": [b"2"], "index": [(b"m", 1)]}, "the scope where one was refused")


@case(2)
def scopes_do_not_share_names(t: Bench) -> None:
    u = t.another()
    t.do(ListPush(t.log, (b"1",)))
    t.fill(b"a")
    t.check(u.state(), {}, "a scope of which nothing was written")
    t.check(u.put(Put(u.ready, {b"a": record(b"a")})), ("stored",), "the same id in another scope")


@case(3)
def times_are_what_the_caller_says(t: Bench) -> None:
    far = 2**53 - 1
    t.put(Put(t.waiting, {b"past": record(b"past"), b"far": record(b"far")}, {b"past": 1, b"far": far}))
    t.do(LockTake(t.duty, b"owner", 1, 5))
    t.check(t.places(), {"waiting": [(b"past", 1), (b"far", far)]}, "jobs due long ago and in the far future")
    held = t.outcome(guards=[Locked(t.duty, b"owner", 4), Unlocked(t.duty, b"owner", 4, NOW)])
    t.check(held, Applied(()), "a lock until 5 at the time 4, whatever the real time is")
    t.check(t.outcome(guards=[Unlocked(t.duty, b"other", 4, NOW)]), Refused((0,)), "the same lock for another token")
    t.check(t.outcome(guards=[Unlocked(t.duty, b"other", 5, NOW)]), Applied(()), "the same lock at the time 5")
    t.check(t.state()["duty"], Held(b"owner", 5, 1), "the lock")
    t.check(t.move(Move(t.waiting, t.ready, Due(far - 1, 10))).ids, (b"past",), "what is due just before the far one")


@case(5)
def what_is_empty_does_not_exist(t: Bench) -> None:
    name = "changing"
    as_set, as_hash, as_list = SetKey(t.scope, name), HashKey(t.scope, name), ListKey(t.scope, name)
    t.do(SetAdd(as_set, {b"m": 1, b"n": 2}))
    t.do(SetRemove(as_set, (b"m", b"n")))
    t.do(HashSet(as_hash, {b"f": b"v"}))  # a set that is empty but there would refuse this
    t.do(HashDelete(as_hash, (b"f",)))
    t.check(t.read(Sizes((as_set, as_hash, as_list))), (0, 0, 0), "sizes of an emptied key, as any kind")
    t.check(t.outcome(guards=[Absent(as_hash, b"f")]), Applied(()), "a field of a hash that is gone is absent")
    t.do(ListPush(as_list, (b"x",)))
    t.check(t.read(Peek(as_list, 0, 10)), (b"x",), "the list under that name")


@case(5)
def writing_nothing_makes_nothing(t: Bench) -> None:
    t.do(
        ListPush(t.log, ()),
        SetAdd(t.index, {}),
        SetRemove(t.index, ()),
        HashSet(t.notes, {}),
        HashDelete(t.notes, ()),
        Put(t.ready, {}),
        Move(t.ready, t.working, Head(10, 1000), NOW),
        Move(t.ready, t.working, Head(0, 1000), NOW),
        LockDrop(t.duty, b"owner"),
    )
    t.check(t.state(), {}, "after operations on nothing")
    t.do(HashSet(HashKey(t.scope, "log"), {b"f": b"v"}), SetAdd(SetKey(t.scope, "notes"), {b"m": 1}))


@case(5)
def emptied_places_do_not_exist(t: Bench) -> None:
    t.put(Put(t.waiting, {b"a": record(b"a")}, NOW))
    for source, target in ((t.waiting, t.ready), (t.ready, t.dead), (t.dead, t.working), (t.working, None)):
        pick = Head(10, 1000) if isinstance(source, ListKey) else Due(NOW, 10)
        t.check(t.move(Move(source, target, pick, NOW)).ids, (b"a",), f"a move out of {source.name}")
    t.check(t.state(), {}, "after the only job went through all places and left")
    t.check(t.read(Fields(t.records)), {}, "the fields of no record")


@case(7)
def outcomes_are_values_one_per_batch(t: Bench) -> None:
    t.check(t.storage.apply([]), [], "no batches")
    t.check(t.storage.read([]), [], "no queries")
    t.do(ListPush(t.log, (b"x",)))
    outcomes = t.storage.apply(
        [
            t.batch(HashAdd(t.notes, b"sum", 1)),
            t.batch(HashAdd(HashKey(t.scope, "log"), b"sum", 1)),
            t.batch(),
            t.batch(HashAdd(t.notes, b"sum", 1), guards=[Member(t.index, b"m")]),
        ]
    )
    if not isinstance(outcomes, list) or len(outcomes) != 4 or not isinstance(outcomes[1], StorageRefused):
        raise CaseFailed(
            f"four batches\n  expected: a list of four outcomes, the second StorageRefused\n  got: {outcomes}"
        )
    t.check(outcomes[0], Applied((None,)), "the first batch")
    t.check(outcomes[2:], [Applied(()), Refused((0,))], "a batch of nothing, and one with a guard that fails")


@case(7)
def an_answered_batch_was_applied_once(t: Bench) -> None:
    for _ in range(50):
        t.do(HashAdd(t.notes, b"sum", 1), ListPush(t.log, (b"x",)))
    t.check(t.state(), {"notes": {b"sum": b"50"}, "log": [b"x"] * 50}, "after fifty answered batches")
