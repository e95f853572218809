"""Many writers at once, on one handle and on several, and what is there after a crash (rules 1, 7, 9 and 10)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from jobqueue.storage.ops import (
    Absent,
    Applied,
    FieldIs,
    Fields,
    HashAdd,
    HashSet,
    Head,
    ListPush,
    LockTake,
    Move,
    Once,
    Peek,
    Put,
    Refused,
    SetAdd,
    Stamp,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, in_threads, record

__all__: list[str] = []

_WRITERS: Final = 4
_ROUNDS: Final = 15
_BEFORE_CRASH: Final = 12
_OTHERS: Final = 200
_PARTS: Final = 300
"""How many values one batch writes while a crash comes: enough for a storage to be in the middle of it."""


@case(1)
def nothing_comes_between_a_guard_and_its_batch(t: Bench) -> None:
    _take_turns(t, [t] * _WRITERS)


@case(1, needs="another handle")
def no_other_handle_comes_between_a_guard_and_its_batch(t: Bench) -> None:
    _take_turns(t, [t, *(t.handle() for _ in range(_WRITERS - 1))])


def _take_turns(t: Bench, writers: Sequence[Bench]) -> None:
    """Each reads a number and writes the next one, if it is still the number it read; so no two may write the same."""
    t.do(HashSet(t.notes, {b"number": b"0"}))

    def work(writer: Bench) -> int:
        done = 0
        for _ in range(_ROUNDS):
            fields = writer.read(Fields(writer.notes))
            assert isinstance(fields, dict)
            number = int(fields[b"number"])
            write = HashSet(t.notes, {b"number": b"%d" % (number + 1)})
            push = ListPush(t.log, (b"%d" % number,))
            done += isinstance(
                writer.outcome(push, write, guards=[FieldIs(t.notes, b"number", b"%d" % number)]), Applied
            )
        return done

    done = sum(in_threads([partial(work, writer) for writer in writers]))
    expected = {"notes": {b"number": b"%d" % done}, "log": [b"%d" % number for number in range(done)]}
    t.check(t.state(), expected, f"{done} batches applied, each behind a guard on what it changes")


@case(10, needs="another handle")
def what_one_handle_wrote_another_reads(t: Bench) -> None:
    other = t.handle()
    t.do(HashSet(t.notes, {b"f": b"v"}), Put(t.ready, {b"a": record(b"a")}))
    t.check(other.state(), t.state(), "what two handles of one store show")
    other.move(Move(t.ready, t.dead, Head(1, 1000), NOW))
    t.check(t.places(), {"dead": [(b"a", NOW)]}, "places after a move through the other handle")


@case(10, needs="another handle")
def many_handles_lose_and_repeat_nothing(t: Bench) -> None:
    handles = [t, *(t.handle() for _ in range(_WRITERS - 1))]

    def work(number: int) -> list[bytes]:
        mine, claimed = handles[number], list[bytes]()
        for round in range(_ROUNDS):
            id_ = b"%d-%02d" % (number, round)
            mine.do(Put(t.ready, {id_: record(id_)}), ListPush(t.log, (id_,)), HashAdd(t.notes, b"sum", 1))
            stamp, once = Stamp(b"%d" % number, 5000, NOW), Once(b"%d" % number, round)
            claimed += mine.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=stamp, once=once)).ids
        return claimed

    claimed = in_threads([partial(work, number) for number in range(len(handles))])
    ids = sorted(b"%d-%02d" % (number, round) for number in range(len(handles)) for round in range(_ROUNDS))
    state = t.state()
    t.check(sorted(id_ for each in claimed for id_ in each), ids, "what all handles claimed, each job once")
    t.check(state["notes"], {b"sum": b"%d" % len(ids)}, "additions of all handles")
    t.check(sorted(state["log"]), ids, "pushes of all handles")
    for number in range(len(handles)):
        mine = [id_ for id_ in state["log"] if id_.startswith(b"%d-" % number)]
        t.check(mine, sorted(mine), "each handle's own order")


@case(8, needs="another handle")
def fences_grow_from_handle_to_handle(t: Bench) -> None:
    handles = [t, t.handle()]
    t.do(Put(t.ready, {b"%d" % number: record(b"") for number in range(6)}))
    stamp = Stamp(b"runner", 5000, 1)
    fences = [
        handles[number % 2].move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=stamp)).fence for number in range(6)
    ]
    t.check(fences, sorted(set(fences)), "fences of claims through two handles in turn, each above the one before")


@case(8)
def a_claim_is_known_behind_many_others(t: Bench) -> None:
    t.do(Put(t.ready, {b"a": record(b"a")}))

    def claim(by: bytes, limit: int) -> Move:
        return Move(t.ready, t.working, Head(limit, 1000), NOW, stamp=Stamp(by, 5000, 1), once=Once(by, 1))

    first = t.move(claim(b"! first", 1))
    for start in range(0, _OTHERS, 50):
        t.do(*(claim(b"%d" % number, 0) for number in range(start, start + 50)))
    again = t.move(claim(b"! first", 1))
    t.check((again.ids, again.fence), (first.ids, first.fence), f"a claim sent again behind {_OTHERS} of other runners")


@case(9, needs="wake-ups between handles")
def another_handle_is_woken(t: Bench) -> None:
    other = t.handle()
    for number in range(3):
        put = Put(t.ready, {b"%d" % number: record(b"")}, wake=True)
        other.returns_early([t.scope], "a Put into ready through another handle", partial(t.put, put))


@case(7, needs="surviving a crash")
def what_was_answered_survives_a_crash(t: Bench) -> None:
    t.fill(b"a", b"b", b"c")
    t.put(Put(t.waiting, {b"w": record(b"w")}, NOW + 5))
    claim = Move(t.ready, t.working, Head(2, 1000), NOW, stamp=Stamp(b"r", 5000, NOW), once=Once(b"r", 1), give=True)
    claimed = t.move(claim)
    t.do(LockTake(t.duty, b"owner", NOW, NOW + 10), HashAdd(t.counters, b"done", 3), SetAdd(t.index, {b"m": 1}))
    t.do(ListPush(t.log, (b"x", b"", b"\x00")), HashSet(t.notes, {b"last": b"\xff"}))
    for crashes in range(2):
        before = t.state()
        before["notes"][b"last"] = b"%d" % crashes
        t.do(HashSet(t.notes, {b"last": b"%d" % crashes}))
        t.crash()  # at once: not even a read came between
        t.check(t.state(), before, "everything that was answered before the crash")
        t.check(t.move(claim), claimed, "a numbered claim, sent again after the crash")
        t.check(t.put(Put(t.ready, {b"a": record(b"a")})), ("same",), "a job, sent again after the crash")
        t.do(HashAdd(t.counters, b"crashes", 1))


@case(1, needs="surviving a crash")
def a_crash_tears_no_batch(t: Bench) -> None:
    """Each batch writes one number to several keys; after the crash every number is in all of them or in none."""
    written = threading.Semaphore(0)
    stop = threading.Event()
    storage = t.storage

    def write(writer: int) -> list[bytes]:
        answered: list[bytes] = []
        while not stop.is_set():
            number = b"%d-%d" % (writer, len(answered))
            values = tuple(b"%b:%d" % (number, part) for part in range(_PARTS))
            ops = (
                HashSet(t.notes, dict.fromkeys(values, bytes(200))), ListPush(t.log, values),
                Put(t.ready, {number: record(number)}), HashAdd(t.counters, b"batches", 1),
            )  # fmt: skip
            try:
                [outcome] = storage.apply([t.batch(*ops, guards=[Absent(t.notes, values[0])])])
            except Exception:  # noqa: BLE001 - whatever the dead storage says now, it acknowledges nothing any more
                return answered
            if isinstance(outcome, Refused):
                raise CaseFailed(f"batch {number!r} is refused, so it was there before it was sent: it was sent twice")
            if not isinstance(outcome, Applied):
                return answered
            answered.append(number)
            written.release()
        return answered

    def crash_it() -> list[bytes]:
        for _ in range(_BEFORE_CRASH):
            if not written.acquire(timeout=t.patience):
                break  # the writers have ended already, and why is told below
        try:
            t.crash()
        finally:
            stop.set()
        return []

    works: list[Callable[[], list[bytes]]] = [partial(write, 1), partial(write, 2), crash_it]
    answered = {number for each in in_threads(works) for number in each}
    state = t.state()
    ready, log, notes = state.get("ready", []), state.get("log", []), state.get("notes", {})
    there = set(ready)
    lost = sorted(answered - there)
    if lost:
        raise CaseFailed(
            f"batches that were answered before the crash\n  expected: {len(answered)}\n  lost:     {lost}"
        )
    parts = {b"%b:%d" % (number, part) for number in there for part in range(_PARTS)}
    whole = (len(log), len(notes), int(state["counters"][b"batches"])) == (len(parts), len(parts), len(there))
    t.check(whole and set(log) == parts == notes.keys(), True, "every batch is in all of its keys, or in none")
    t.check(
        log == sorted(log, key=lambda value: ready.index(value.partition(b":")[0])), True, "one batch after the other"
    )
    t.check(t.read(Peek(t.log, 0, 0)), (), "reading after the crash")
