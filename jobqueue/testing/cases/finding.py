"""Finding what is stored: the mark of a registered queue, scopes by their own keys, answers bounded by bytes (rule 10)."""

from __future__ import annotations

from jobqueue.storage.ops import (
    LONGEST_CLAIM,
    REGISTERED,
    Fields,
    HashSet,
    Head,
    Kept,
    Match,
    Matched,
    Move,
    Placed,
    Put,
    Records,
    ScopePage,
    Scopes,
    Stamp,
    These,
    Unread,
    claim_mark,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, record

__all__: list[str] = []


@case(10)
def a_put_says_whether_its_scope_is_marked_as_registered(t: Bench) -> None:
    new, unmarked = Put(t.ready, {b"a": record(b"a")}, wake=True), Placed(("stored",), registered=False)
    t.check(t.do(new), (unmarked,), "the first Put of a scope")
    stamp = Stamp(b"r", 1, NOW)
    claimed = t.move(Move(t.ready, t.working, Head(1, 99), NOW, stamp=stamp, count=(t.counters, b"claimed")))
    t.move(Move(t.working, None, These((b"a",)), expect={b"a": claim_mark(b"r", claimed.fence, 1)}))
    t.check(t.do(new), (unmarked,), "a Put where jobs were counted, and nobody marked the scope")
    t.do(HashSet(t.counters, {REGISTERED: b"1"}))
    later = Put(t.waiting, {b"b": record(b"b"), b"c": record(b"c")}, NOW)
    t.check(t.do(later), (Placed(("stored", "stored"), registered=True),), "a Put of several in a scope that is marked")
    one = Put(t.ready, {b"d": record(b"d")}, wake=True)
    t.check(t.do(one), (Placed(("stored",), registered=True),), "a Put of one in a scope that is marked")
    t.check(t.do(one), (Placed(("same",), registered=True),), "the same Put again")
    both = t.do(Put(t.ready, {b"e": record(b"e")}), Put(t.waiting, {b"a": record(b"a", b"nonce-02")}, NOW))
    t.check(both, (Placed(("stored",), True), Placed(("different",), True)), "two Puts in one batch")


@case(10)
def a_scope_that_has_records_or_counters_is_found_by_its_own_keys(t: Bench) -> None:
    others = [t.another() for _ in range(4)]
    for each in (t, *others[:2]):
        each.fill(b"a")
    others[2].do(HashSet(others[2].notes, {b"f": b"v"}))
    others[1].move(Move(others[1].ready, None, These((b"a",))))
    others[3].do(HashSet(others[3].counters, {REGISTERED: b"1"}))
    namespace, _, _ = t.scope.partition(":")
    for limit in (10, 100_000):
        found, cursor = set[str](), b""
        while True:
            answer = t.read(Scopes(namespace, cursor, limit))
            if not isinstance(answer, ScopePage):
                raise CaseFailed(f"Scopes answers {answer!r}, no ScopePage")
            found.update(answer.scopes)
            cursor = answer.cursor
            if not cursor:
                break
        seen = [each.scope in found for each in (t, *others)]
        t.check(seen, [True, True, False, False, True], f"scopes that are found, {limit} keys at a time")
        t.check(
            all(scope.startswith(f"{namespace}:") for scope in found), True, "all of them of the namespace asked for"
        )
    nothing = t.read(Scopes(namespace[:-1], b"", 100_000))
    t.check(isinstance(nothing, ScopePage) and nothing.scopes, (), "scopes of a namespace whose name begins alike")


@case(10)
def records_are_answered_up_to_a_number_of_bytes(t: Bench) -> None:
    bodies = {b"a": b"x" * 92, b"b": b"x" * 192, b"c": b""}
    t.put(Put(t.ready, {id_: b"nonce-01" + body for id_, body in bodies.items()}))
    kept = {id_: Kept(b"nonce-01" + body, "ready", 0, None) for id_, body in bodies.items()}
    ids = (b"a", b"none", b"b", b"c", b"none")
    everything = (kept[b"a"], None, kept[b"b"], kept[b"c"], None)
    for most, count in ((None, 5), (308, 5), (307, 3), (300, 3), (299, 2), (200, 2)):
        t.check(t.read(Records(t.scope, ids, most)), everything[:count], f"records of {most} bytes at most")
    t.check(t.read(Records(t.scope, (), 1)), (), "records of no ids")


@case(10)
def records_that_are_too_long_are_answered_by_their_size(t: Bench) -> None:
    records = {b"a": b"x" * 100, b"b": b"x" * 200_000, b"c": b"x" * 101, b"d": b""}
    t.put(Put(t.ready, {b"a": records[b"a"]}))
    t.put(Put(t.waiting, {id_: records[id_] for id_ in (b"b", b"c", b"d")}, 7))
    ids = (b"a", b"b", b"none", b"c", b"d")
    expected = {
        100: (Kept(records[b"a"], "ready", 0, None), Unread(200_000), None, Unread(101), b""),
        0: (Kept(Unread(100), "ready", 0, None), Unread(200_000), None, Unread(101), b""),
    }
    for most, (first, *rest) in expected.items():
        kept = tuple([None if one is None else Kept(one, "waiting", 7, None) for one in rest])
        t.check(
            t.read(Records(t.scope, ids, most)), (first, *kept), f"records of {most} bytes at most, where others are"
        )


@case(10)
def a_slice_of_a_place_is_searched(t: Bench) -> None:
    records = {b"%d" % n: b"nonce-%d red" % n + b" blue" * (n % 2) for n in range(7)}
    t.put(Put(t.ready, records))
    t.put(Put(t.dead, {b"d" + id_: record for id_, record in records.items()}, {b"d%d" % n: n // 3 for n in range(7)}))
    odd = (b"1", b"3", b"5")
    for limit, max_bytes, slices in ((100, 1000, 1), (7, 1000, 2), (3, 1000, 3), (100, 60, 2), (2, 1000, 4)):
        for place in (t.ready, t.dead):
            found: list[tuple[bytes, object]] = []
            after, count = None, 0
            while True:
                answer = t.read(Match(place, (b"red", b"blue"), limit, max_bytes, after))
                assert isinstance(answer, Matched)
                found += answer.entries
                after, count = answer.next, count + 1
                if after is None or count > 20:
                    break
            listed = [(id_, int(id_)) for id_ in odd]
            scored = [(b"d" + id_, int(id_) // 3) for id_ in odd]
            what = f"{place.name} in slices of {limit} and {max_bytes} bytes"
            t.check(found, listed if place is t.ready else scored, f"what is red and blue in {what}")
            t.check(count, slices, f"slices of {what}")
    t.check(t.read(Match(t.ready, (b"red",), 100, 10)), Matched((), 7, None), "a search of records that are too long")
    t.check(t.read(Match(t.ready, (), 2, 100)), Matched(((b"0", 0), (b"1", 1)), 2, (2, b"")), "a search for nothing")
    t.check(t.read(Match(t.waiting, (), 2, 100)), Matched((), 0, None), "a search where nothing is")


@case(10)
def claims_and_values_that_are_too_long_are_not_answered(t: Bench) -> None:
    t.fill(b"a", b"b")
    for id_, incarnation in ((b"a", b"r"), (b"b", b"r" * LONGEST_CLAIM)):
        t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(incarnation, 5, NOW)))
        kept = t.read(Records(t.scope, (id_,), 0))
        claim = getattr(kept[0], "claim", b"") if isinstance(kept, tuple) else b""
        t.check(
            claim is None, incarnation != b"r", f"there is no claim by a runner whose name has {len(incarnation)} bytes"
        )
    values = {b"a": b"", b"b": b"x" * 10, b"c": b"x" * 11}
    t.do(HashSet(t.notes, values))
    for most, count in ((None, 3), (11, 3), (10, 2), (9, 1), (0, 1)):
        short = dict([*values.items()][:count])
        t.check(t.read(Fields(t.notes, None, most)), short, f"all values of {most} bytes at most")
        t.check(t.read(Fields(t.notes, (b"c", b"b", b"a", b"z"), most)), short, f"four, of {most} bytes at most")
