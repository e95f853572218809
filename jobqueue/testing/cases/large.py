"""Large batches, and bytes of every kind and length: where a server's limits show (rules 1, 2 and 6)."""

from __future__ import annotations

from typing import Final

from jobqueue.storage.ops import (
    CLEAR,
    Absent,
    Applied,
    Due,
    Fields,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    ListPush,
    Locked,
    LockKey,
    LockTake,
    Move,
    Once,
    Page,
    Peek,
    Put,
    Records,
    Refused,
    SetAdd,
    SetRemove,
    Sizes,
    Stamp,
    These,
    claim_mark,
)
from jobqueue.testing.cases.bench import NOW, Bench, case, record

__all__: list[str] = []

_MANY: Final = 5000


@case(1)
def a_record_may_be_large_and_binary(t: Bench) -> None:
    large = b"nonce-01" + bytes(range(256)) * 4096 + b"\r\n\x00$3\r\n:1\r\n"
    id_ = b"\x00\r\n\xff:,{}"
    t.put(Put(t.waiting, {id_: large}, NOW))
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, 1), give=True)).records == (large,), True, "1 MB given unchanged")
    claim = Move(
        t.ready,
        t.working,
        Head(5, len(large)),
        NOW,
        stamp=Stamp(b"\x00:\r\n", 1, NOW),
        once=Once(b"\x00:\r\n", 1),
        give=True,
    )
    t.check(t.move(claim).records == (large,), True, "1 MB claimed unchanged")
    again = t.move(claim)
    t.check((again.ids, again.records == (large,)), ((id_,), True), "1 MB claimed again, under an id of odd bytes")
    kept = t.read(Records(t.scope, (id_,)))
    t.check(isinstance(kept, tuple) and getattr(kept[0], "record", None) == large, True, "1 MB read unchanged")
    t.do(HashSet(t.notes, {id_: large}), ListPush(t.log, (large,)), SetAdd(t.index, {large[:1000]: 1}))
    t.check(t.read(Fields(t.notes, None, None)) == {id_: large}, True, "1 MB in a field unchanged")
    t.check(t.read(Peek(t.log, 0, 1)) == (large,), True, "1 MB in a list unchanged")
    t.check(t.read(Page(t.index, 1)), ((large[:1000], 1),), "a long binary member")


@case(6)
def thousands_of_jobs_move_at_once(t: Bench) -> None:
    ids = tuple(b"%05d" % (number * 7919 % _MANY) for number in range(_MANY))
    records = {id_: record(id_) for id_ in ids}
    due = {id_: NOW + number for number, id_ in enumerate(ids)}
    t.check(set(t.put(Put(t.waiting, records, due))), {"stored"}, "thousands put")
    t.check(set(t.put(Put(t.waiting, records, due))), {"same"}, "thousands put again")
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW + _MANY, _MANY), give=True)).ids, ids, "thousands promoted")
    t.check(t.read(Peek(t.ready, 0, _MANY)), ids, "thousands in ready")
    claim = Move(t.ready, t.working, Head(_MANY, 10**9), NOW, stamp=Stamp(b"r", 1, NOW), once=Once(b"r", 1), give=True)
    claimed = t.move(claim)
    t.check((claimed.ids, claimed.records), (ids, tuple(records.values())), "thousands claimed")
    t.check(t.move(claim) == claimed, True, "thousands claimed again")
    ours = dict.fromkeys(ids, claim_mark(b"r", claimed.fence, 1))
    t.check(t.move(Move(t.working, t.working, These(ids), NOW + 9, expect=ours)).ids, ids, "thousands extended")
    each: dict[bytes, bytes] = {id_: b"%s" % claim for id_, claim in ours.items()}
    each[ids[4321]] = b"another"
    new = {id_: record(id_, body=b"new ") for id_ in ids}
    buried = t.move(Move(t.working, t.dead, These(ids), due, expect=each, stamp=CLEAR, records=new))
    t.check(buried.ids, ids[:4321] + ids[4322:], "thousands buried but one that is not as expected")
    t.check(t.read(Sizes((t.working, t.dead, t.records, t.claims))), (1, _MANY - 1, _MANY, 1), "sizes after it")
    entries = tuple((id_, score) for id_, score in due.items() if id_ != ids[4321])
    t.check(t.read(Page(t.dead, _MANY)), entries, "thousands in a page")
    kept = t.read(Records(t.scope, ids))
    assert isinstance(kept, tuple)
    stored = [getattr(each, "record", None) for each in kept]
    t.check(stored == [records[id_] if id_ == ids[4321] else new[id_] for id_ in ids], True, "thousands of records")
    t.move(Move(t.dead, t.ready, Due(NOW + _MANY, _MANY), front=True))
    t.check(t.read(Peek(t.ready, 0, _MANY)), buried.ids, "thousands put at the head, in the order picked")
    t.check(
        t.move(Move(t.ready, None, Head(_MANY, 10**9), count=(t.counters, b"gone"))).ids, buried.ids, "thousands gone"
    )
    t.check(t.move(Move(t.working, None, These(ids))).ids, (ids[4321],), "the last one")
    t.check(sorted(t.state()), ["counters", "requests"], "what is left")


@case(1)
def thousands_of_plain_values_are_written_at_once(t: Bench) -> None:
    values = tuple(b"%05d" % number for number in range(_MANY))
    t.do(
        ListPush(t.log, values),
        SetAdd(t.index, {value: _MANY - number for number, value in enumerate(values)}),
        HashSet(t.notes, {value: value * 3 for value in values}),
    )
    expected = {
        "log": list(values),
        "index": [(value, _MANY - number) for number, value in enumerate(values)][::-1],
        "notes": {value: value * 3 for value in values},
    }
    t.check(t.state() == expected, True, "thousands of values, entries and fields")
    t.check(t.read(Fields(t.notes, values)) == expected["notes"], True, "thousands of fields asked for")
    t.do(SetRemove(t.index, values[1:]), HashDelete(t.notes, values[1:]))
    t.check(
        (t.state()["index"], t.state()["notes"]), ([(values[0], _MANY)], {values[0]: values[0] * 3}), "all but one gone"
    )


@case(1)
def every_byte_is_kept_everywhere(t: Bench) -> None:
    odd = (b"", b"\x00", b"\x00\x00", b"a\x00", b"a", b"a ", b"A", b"\xc3\xa9", b"e\xcc\x81", b"7", b"07", b"7.0")
    values = (*dict.fromkeys((*(bytes([byte]) for byte in range(256)), *odd)), bytes(range(256)) * 400)
    ordered = sorted(values)
    nonce = b"\x00\xff\r\n:,{}"
    records = {id_: nonce + id_ for id_ in values}
    t.check(set(t.put(Put(t.ready, records))), {"stored"}, "ids of every byte, stored")
    t.check(set(t.put(Put(t.ready, records))), {"same"}, "ids of every byte, sent again")
    t.check(t.read(Peek(t.ready, 0, len(values))) == values, True, "ids of every byte in a list, in their order")
    stamp, once = Stamp(nonce, 5, NOW), Once(nonce, 1)
    claimed = t.move(Move(t.ready, t.working, Head(len(values), 2**40), NOW, stamp=stamp, once=once, give=True))
    t.check(claimed.ids == values and claimed.records == tuple(records.values()), True, "ids of every byte, claimed")
    entries = tuple((id_, NOW) for id_ in ordered)
    t.check(t.read(Page(t.working, len(values))) == entries, True, "equal scores, in the order of bytes")
    expect = dict.fromkeys(values, claim_mark(nonce, claimed.fence, 5))
    left = t.move(Move(t.working, None, These(values), expect=expect, give=True))
    t.check(left.ids == values and left.records == claimed.records, True, "ids of every byte, leaving")
    fields = {value: value[::-1] for value in values}
    t.do(HashSet(t.notes, fields), ListPush(t.log, values), SetAdd(t.index, dict.fromkeys(values, 1)))
    t.check(list(t.read(Fields(t.notes)).items()) == sorted(fields.items()), True, "fields and values of every byte")  # type: ignore[union-attr]
    t.check(t.read(Fields(t.notes, values)) == fields, True, "fields of every byte, asked for")
    t.check(t.read(Peek(t.log, 0, len(values))) == values, True, "values of every byte in a list")
    for token in (b"", b"\x00", bytes(range(256)) * 400):
        lock = LockKey(t.scope, f"lock:{len(token)}")
        t.do(LockTake(lock, token, NOW, NOW + 1))
        t.check(t.outcome(guards=[Locked(lock, token, NOW)]), Applied(()), "a lock held by a token of odd bytes")
        t.check(t.outcome(guards=[Locked(lock, token + b"\x00", NOW)]), Refused((0,)), "the token with a byte more")
    far = HashKey(t.scope, "name:" + "n" * 300)
    t.do(HashSet(far, {b"f": b"v"}), HashSet(HashKey(t.scope, far.name + "n"), {b"f": b"w"}))
    t.check(t.read(Fields(far)), {b"f": b"v"}, "a key with a long name")


@case(2)
def many_batches_and_many_operations_travel_together(t: Bench) -> None:
    count = 3000
    batches = [t.batch(HashAdd(t.notes, b"batches", 1), ListPush(t.log, (b"%d" % number,))) for number in range(count)]
    batches[1234] = t.batch(HashAdd(t.notes, b"batches", 1), guards=[Absent(t.notes, b"batches")])
    outcomes = t.storage.apply(batches)
    expected = [Applied((None, None)) for _ in range(count)]
    t.check(outcomes[:1234] + outcomes[1235:] == expected[1:], True, "thousands of batches, all but one applied")
    t.check(outcomes[1234], Refused((0,)), "the one of thousands whose guard fails")
    ops = [op for number in range(count) for op in (HashAdd(t.notes, b"ops", 1), ListPush(t.log, (b"op %d" % number,)))]
    t.check(len(t.do(*ops)), 2 * count, "answers of one batch of thousands of operations")
    state = t.state()
    t.check(state["notes"], {b"batches": b"%d" % (count - 1), b"ops": b"%d" % count}, "what all of them added")
    numbers = [b"%d" % number for number in range(count) if number != 1234]
    t.check(state["log"] == numbers + [b"op %d" % number for number in range(count)], True, "in the order given")


@case(6)
def more_jobs_than_any_chunk_holds_move_at_once(t: Bench) -> None:
    ids = tuple(b"%05d" % number for number in range(4 * _MANY))
    t.put(Put(t.waiting, dict.fromkeys(ids, b"nonce-01"), NOW))
    t.check(t.move(Move(t.waiting, t.ready, Due(NOW, len(ids)))).ids == ids, True, "20,000 promoted")
    claim = Move(t.ready, t.working, Head(len(ids), 2**40), NOW, stamp=Stamp(b"r", 1, NOW), once=Once(b"r", 1))
    claimed = t.move(claim)
    t.check(claimed.ids == ids, True, "20,000 claimed")
    t.check(t.move(claim) == claimed, True, "20,000 claimed again")
    ours = dict.fromkeys(ids, claim_mark(b"r", claimed.fence, 1))
    left = t.move(Move(t.working, None, These(ids), expect=ours, count=(t.notes, b"gone")))
    t.check(left.ids == ids, True, "20,000 finished")
    t.check(t.state()["notes"], {b"gone": b"%d" % len(ids)}, "20,000 counted")
