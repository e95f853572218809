"""Wake-ups, reading what was written, and many threads (rules 9 and 10)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from jobqueue.storage.ops import (
    Due,
    Fields,
    HashAdd,
    HashSet,
    Head,
    ListPush,
    Member,
    Move,
    Moved,
    Once,
    Peek,
    Put,
    Records,
    Ring,
    Sizes,
    Stamp,
    These,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, in_threads, record

__all__: list[str] = []

_THREADS: Final = 6


@case(9)
def a_wait_ends_with_its_timeout(t: Bench) -> None:
    # A server that takes 0 for no end at all must not be handed a time that was rounded down to it.
    for timeout in (0.01, 0.0004, 0.0, -5.0):
        what = f"a wait of {timeout} s that nobody rings"
        t.check(t.returns_early([t.scope], what, timeout=timeout), None, f"what {what} answered")


@case(9)
def a_wake_up_is_kept_for_the_next_wait(t: Bench) -> None:
    t.put(Put(t.ready, {b"a": record(b"a")}, wake=True))
    t.returns_early([t.scope], "a Put into ready before the wait")


@case(9)
def an_operation_rings_its_scope(t: Bench) -> None:
    t.do(Ring())
    t.returns_early([t.scope], "a Ring before the wait")
    t.outcome(Ring(), guards=[Member(t.index, b"m")])
    t.check(
        t.returns_early([t.scope], "a refused Ring", timeout=0.01), None, "what a wait behind a refused Ring answered"
    )


@case(9)
def a_wake_up_ends_a_wait_under_way(t: Bench) -> None:
    for number in range(5):
        id_ = b"%d" % number
        put = Put(t.ready, {id_: record(id_)}, wake=True)
        t.returns_early([t.scope], "a Put into ready from another thread", lambda: t.put(put))  # noqa: B023


@case(9)
def any_of_several_scopes_ends_a_wait(t: Bench) -> None:
    scopes = [t, t.another(), t.another()]
    for each in (scopes[2], scopes[0], scopes[1]):
        each.put(Put(each.ready, {b"a": record(b"a")}, wake=True))
        t.returns_early([each.scope for each in scopes], "a Put into one of three scopes")


@case(9)
def a_wait_answers_the_scope_that_was_rung_or_none(t: Bench) -> None:
    scopes = [t, t.another(), t.another()]
    names = [each.scope for each in scopes]
    for each in (scopes[2], scopes[0], scopes[1]):
        each.put(Put(each.ready, {b"a": record(b"a")}, wake=True))
        answered = t.returns_early(names, "a Put into one of three scopes")
        if answered is not None:
            t.check(answered, each.scope, "what a wait answered after a Put into one of three scopes")
    for turn, order in enumerate(((2, 0, 1), (1, 0, 2))):  # two: an order of the storage's own agrees with one at most
        for each in scopes:
            id_ = b"b%d" % turn
            each.put(Put(each.ready, {id_: record(id_)}, wake=True))
        for at in order:
            answered = t.returns_early([names[at], *names[:at], *names[at + 1 :]], "Puts into three scopes")
            if answered is not None:
                t.check(answered, names[at], "what a wait answered for three scopes that were rung, this one first")
    t.check(t.returns_early(names, "nobody rings", timeout=0.01), None, "what a wait answered that nobody rang")
    t.storage.interrupt()
    t.check(t.returns_early(names, "an interrupt"), None, "what a wait answered that was interrupted")


@case(9)
def what_can_be_run_or_comes_first_rings(t: Bench) -> None:
    """Each step rings a scope of its own, so that no token of another step can answer for it."""

    def put_first(u: Bench) -> None:
        u.put(Put(u.waiting, {b"a": record(b"a")}, NOW, wake=True))

    def put_earlier(u: Bench) -> None:
        u.put(Put(u.waiting, {b"a": record(b"a")}, NOW))
        u.put(Put(u.waiting, {b"b": record(b"b"), b"c": record(b"c")}, {b"b": NOW + 9, b"c": NOW - 1}, wake=True))

    def claim_one_of_two(u: Bench) -> None:
        u.fill(b"a", b"b")
        u.move(Move(u.ready, u.working, Head(1, 1000), NOW, wake=True))

    def promote(u: Bench) -> None:
        u.put(Put(u.waiting, {b"a": record(b"a")}, NOW))
        u.move(Move(u.waiting, u.ready, Due(NOW, 9), wake=True))

    def retry(u: Bench) -> None:
        u.put(Put(u.working, {b"a": record(b"a")}, NOW))
        u.move(Move(u.working, u.waiting, These((b"a",)), NOW, wake=True))

    steps: list[Callable[[Bench], None]] = [put_first, put_earlier, claim_one_of_two, promote, retry]
    for step in steps:
        u = t.another()
        step(u)
        u.returns_early([u.scope], f"a wait after the step {step.__name__}")


@case(9)
def an_interrupt_ends_the_next_wait(t: Bench) -> None:
    t.storage.interrupt()
    t.returns_early([t.scope], "an interrupt before the wait")


@case(9)
def an_interrupt_ends_a_wait_under_way(t: Bench) -> None:
    for _ in range(5):
        t.returns_early([t.scope], "an interrupt from another thread", t.storage.interrupt)


@case(9)
def waiting_does_not_keep_others_out(t: Bench) -> None:
    def meanwhile() -> None:
        t.do(HashAdd(t.notes, b"sum", 1))
        t.state()
        t.put(Put(t.ready, {b"a": record(b"a")}, wake=True))

    t.returns_early([t.scope], "batches and queries of another thread, the last of which rings", meanwhile)


@case(10)
def reading_sees_what_was_answered(t: Bench) -> None:
    for number in range(100):
        id_ = b"%d" % number
        t.put(Put(t.ready, {id_: record(id_)}))
        t.check(t.read(Sizes((t.ready,))), (number + 1,), "ready, read right after a Put")
        [kept] = t.read(Records(t.scope, (id_,)))  # type: ignore[misc]
        t.check(kept is not None, True, "the record, read right after its Put")


@case(10)
def answers_of_one_read_are_one_snapshot(t: Bench) -> None:
    t.fill(b"a")
    stop = threading.Event()

    def shuttle() -> None:
        while not stop.is_set():
            t.move(Move(t.ready, t.working, Head(1, 1000), NOW))
            t.move(Move(t.working, t.ready, These((b"a",))))

    def look() -> None:
        for _ in range(200):
            sizes, ready, working = t.storage.read(
                [Sizes((t.ready, t.working)), Peek(t.ready, 0, 9), Sizes((t.working,))]
            )
            assert isinstance(sizes, tuple)
            assert isinstance(ready, tuple)
            assert isinstance(working, tuple)
            seen = [*sizes, len(ready), *working]
            if seen not in ([1, 0, 1, 0], [0, 1, 0, 1]):
                raise CaseFailed(f"a job between two places\n  expected: seen in one of them\n  got:      {seen}")

    def look_and_stop() -> None:
        try:
            look()
        finally:
            stop.set()

    in_threads([look_and_stop, shuttle])


@case(10)
def many_threads_lose_and_repeat_nothing(t: Bench) -> None:
    rounds = 25

    def work(thread: int) -> None:
        for number in range(rounds):
            id_ = b"%d-%d" % (thread, number)
            t.do(HashAdd(t.notes, b"sum", 1), ListPush(t.log, (id_,)), Put(t.ready, {id_: record(id_)}))
            t.do(
                HashSet(t.notes, {id_: b"1"}),
                Move(t.ready, t.dead, Head(1, 1000), number, count=(t.counters, b"moved")),
            )

    in_threads([partial(work, thread) for thread in range(_THREADS)])
    total = _THREADS * rounds
    state = t.state()
    t.check(state["notes"][b"sum"], b"%d" % total, "additions of all threads")
    t.check(state["counters"], {b"moved": b"%d" % total}, "moves of all threads")
    t.check((len(state["log"]), len(set(state["log"]))), (total, total), "pushes of all threads")
    t.check((len(state["dead"]), state.get("ready")), (total, None), "jobs of all threads")
    for thread in range(_THREADS):
        mine = [id_ for id_ in state["log"] if id_.startswith(b"%d-" % thread)]
        t.check(mine, [b"%d-%d" % (thread, number) for number in range(rounds)], "each thread's own order")


@case(10)
def threads_share_jobs_out(t: Bench) -> None:
    ids = [b"%03d" % number for number in range(200)]
    t.fill(*ids)
    claimed: list[Moved] = []

    def work(thread: int) -> None:
        number = 0
        while True:
            stamp, once = Stamp(b"%d" % thread, 5000, NOW), Once(b"%d" % thread, number)
            moved = t.move(Move(t.ready, t.working, Head(7, 10_000), NOW, stamp=stamp, once=once, give=True))
            if not moved.ids:
                return
            claimed.append(moved)
            number += 1

    in_threads([partial(work, thread) for thread in range(_THREADS)])
    t.check(sorted(id_ for moved in claimed for id_ in moved.ids), ids, "what all threads claimed, each job once")
    fences = [moved.fence for moved in claimed]
    t.check(len(set(fences)), len(fences), "different fences")
    claims = t.read(Fields(t.claims))
    expected = {id_: moved.fence for moved in claimed for id_ in moved.ids}
    assert isinstance(claims, dict)
    t.check({id_: int(claim.split(b":")[1]) for id_, claim in claims.items()}, expected, "the fences in the claims")
