"""The storage in memory, beyond what the conformance suite asks of every storage."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jobqueue.errors import StorageRefused
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    Absent,
    Applied,
    Batch,
    Due,
    HashAdd,
    HashKey,
    HashSet,
    Head,
    ListKey,
    ListPush,
    LockKey,
    LockTake,
    Move,
    Once,
    Op,
    Peek,
    Put,
    Refused,
    SetAdd,
    SetKey,
    Stamp,
    These,
)
from jobqueue.storage.redis import open_redis
from jobqueue.storage.wrappers import AsyncFromSync
from jobqueue.testing import Fault, FaultyStorage
from tests.servers import Server

SCOPE = "ns:queue"
READY = ListKey(SCOPE, "ready")
WAITING = SetKey(SCOPE, "waiting")
WORKING = SetKey(SCOPE, "working")
LOG = ListKey(SCOPE, "log")
NOTES = HashKey(SCOPE, "notes")
LONG = 60.0  # seconds; no test waits for it to pass


def _batch(*ops: Op, scope: str = SCOPE) -> Batch:
    return Batch(scope, ops)


def _filled() -> MemoryStorage:
    storage = MemoryStorage()
    storage.apply(
        [
            _batch(
                Put(READY, {b"b": b"nonce-01b", b"a": b"nonce-01a"}),
                Put(WAITING, {b"d": b"nonce-01d", b"c": b"nonce-01c"}, 7),
                HashSet(NOTES, {b"z": b"1", b"y": b"2"}),
                LockTake(LockKey(SCOPE, "duty"), b"owner", 5, 9),
            )
        ]
    )
    return storage


def test_a_dump_is_everything_as_plain_sorted_values() -> None:
    dump = _filled().dump()

    assert dump == {
        "{ns:queue}:duty": (b"owner", 9, 5),
        "{ns:queue}:notes": {b"y": b"2", b"z": b"1"},
        "{ns:queue}:ready": [b"b", b"a"],
        "{ns:queue}:records": {id_: b"nonce-01" + id_ for id_ in (b"a", b"b", b"c", b"d")},
        "{ns:queue}:waiting": [(b"c", 7), (b"d", 7)],
    }
    assert list(dump) == sorted(dump)
    assert list(dump["{ns:queue}:notes"]) == [b"y", b"z"]  # type: ignore[call-overload]


def test_the_same_batches_leave_the_same_dump() -> None:
    assert repr(_filled().dump()) == repr(_filled().dump())


def test_a_copy_is_independent() -> None:
    storage = _filled()
    before = storage.dump()

    copy = storage.copy()
    copy.apply(
        [_batch(Move(READY, WORKING, Head(2, 999), 1), Move(WAITING, None, Due(7, 1)), HashSet(NOTES, {b"z": b"9"}))]
    )

    assert storage.dump() == before
    assert copy.dump() != before


def test_restore_brings_everything_back_for_all_who_share() -> None:
    storage = _filled()
    shared = storage.share()
    saved = storage.copy()
    before = storage.dump()
    storage.apply([_batch(Move(READY, None, Head(2, 999)))])

    storage.restore(saved)
    assert shared.dump() == before
    storage.apply([_batch(Move(READY, None, Head(2, 999)))])

    assert saved.dump() == before


def test_an_interrupt_is_for_one_storage_only() -> None:
    storage = MemoryStorage()
    other = storage.share()
    other.interrupt()
    ended = threading.Event()

    def wait() -> None:
        storage.wait([SCOPE], LONG)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    other.wait([SCOPE], LONG)  # its own interrupt ends it at once
    assert not ended.is_set()

    storage.interrupt()
    thread.join(LONG)
    assert ended.is_set()


def test_a_wake_up_reaches_one_who_shares() -> None:
    storage = MemoryStorage()
    other = storage.share()
    storage.apply([_batch(Put(READY, {b"a": b"nonce-01"}, wake=True))])

    assert other.wait([SCOPE], LONG) == SCOPE
    assert storage.wait([SCOPE], 0) is None, "one token for one who waits"


JOB = b"nonce-01"


RINGS: list[tuple[Op, bool]] = [
    (Put(READY, {b"x": JOB}, wake=True), True),
    (Put(READY, {b"x": JOB}), False),
    (Put(READY, {b"r1": JOB}, wake=True), False),
    (Put(WAITING, {b"x": JOB}, 4, wake=True), True),
    (Put(WAITING, {b"x": JOB}, 4), False),
    (Put(WAITING, {b"x": JOB}, 6, wake=True), False),
    (Put(WAITING, {b"x": JOB, b"y": JOB}, {b"x": 9, b"y": 1}, wake=True), True),
    (Move(READY, WORKING, Head(1, 99), 9, wake=True), True),
    (Move(READY, WORKING, Head(1, 99), 9), False),
    (Move(READY, WORKING, Head(0, 99), 9, wake=True), True),
    (Move(READY, WORKING, Head(2, 99), 6, wake=True), False),
    (Move(READY, WORKING, Head(2, 99), 4, wake=True), False),
    (Move(READY, None, Head(1, 99), wake=True), True),
    (Move(READY, None, Head(2, 99), wake=True), False),
    (Move(WAITING, READY, Due(5, 9), wake=True), True),
    (Move(WAITING, READY, Due(5, 9)), False),
    (Move(WAITING, READY, Due(4, 9), wake=True), False),
    (Move(WAITING, None, Due(5, 9), wake=True), False),
    (Move(WORKING, WAITING, Due(5, 9), 4, wake=True), True),
    (Move(WORKING, WAITING, Due(5, 9), 6, wake=True), False),
    (Move(WORKING, WORKING, Due(5, 9), 6, wake=True), False),
    (Move(WORKING, READY, These((b"nowhere",)), wake=True), False),
]


def _where_jobs_are() -> Batch:
    return _batch(Put(READY, {b"r1": JOB, b"r2": JOB}), Put(WAITING, {b"w": JOB}, 5), Put(WORKING, {b"k": JOB}, 5))


@pytest.mark.parametrize(("op", "rings"), RINGS, ids=repr)
def test_a_scope_is_rung_when_there_is_something_to_do(op: Op, rings: bool) -> None:
    storage = MemoryStorage()
    storage.apply([_where_jobs_are()])

    storage.apply([_batch(op)])

    assert storage._shared.bell._tokens == ({SCOPE} if rings else set())


def test_a_server_rings_when_memory_does(server: Server) -> None:
    storage, client = open_redis(server.url).storage(), server.client()
    rung: list[tuple[Op, bool]] = []
    for op, _ in RINGS:
        client.flushdb()
        storage.apply([_where_jobs_are()])
        storage.apply([_batch(op)])
        rung.append((op, client.exists("{ns:queue}:wake") == 1))
    storage.close()
    client.close()

    assert rung == RINGS


def test_a_foreign_kind_of_key_is_named_with_its_kind() -> None:
    storage = MemoryStorage()
    storage.apply([_batch(ListPush(LOG, (b"x",)))])

    [outcome] = storage.apply([_batch(HashSet(HashKey(SCOPE, "log"), {b"f": b"v"}))])

    assert isinstance(outcome, StorageRefused)
    assert "{ns:queue}:log is a ListKey, not a HashKey" in str(outcome)


def test_one_batch_cannot_use_a_name_as_two_kinds() -> None:
    storage = MemoryStorage()

    [outcome] = storage.apply([_batch(ListPush(LOG, (b"x",)), HashSet(HashKey(SCOPE, "log"), {b"f": b"v"}))])

    assert isinstance(outcome, StorageRefused)
    assert storage.dump() == {}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (_batch(ListPush(LOG, (b"x",)), scope="ns:other"), "not of the scope 'ns:other'"),
        (Batch("ns:other", (), (Absent(NOTES, b"f"),)), "not of the scope 'ns:other'"),
        (_batch(Move(READY, SetKey("ns:other", "dead"), Head(1, 1), 1)), "{ns:other}:dead is not of the scope"),
        (_batch(Move(READY, None, Head(1, 1), count=(HashKey("ns:other", "counters"), b"f"))), "not of the scope"),
        (_batch(Put(WAITING, {b"a": b"nonce-01"})), "{ns:queue}:waiting: a sorted set needs a score"),
        (_batch(Put(WAITING, {b"a": b"nonce-01"}, {b"b": 1})), "no score for b'a'"),
        (_batch(Move(READY, WAITING, Head(1, 1))), "a sorted set needs a score"),
        (_batch(Move(READY, WAITING, Head(1, 1), {b"a": 1})), "needs a pick of These"),
        (_batch(Move(WAITING, WORKING, These((b"a",)), {b"b": 1})), "no score for b'a'"),
        (_batch(Move(READY, None, Head(-1, 1))), "a limit of -1"),
        (_batch(Move(READY, None, Due(1, 1))), "Head picks from a list, Due from a sorted set"),
        (_batch(Move(WAITING, None, Head(1, 1))), "Head picks from a list, Due from a sorted set"),
        (_batch(Move(READY, None, These(tuple(b"%d" % n for n in range(11))))), "at most 10 ids"),
        (_batch(Move(READY, WORKING, Head(1, 1), 1, once=Once(b"r", 1))), "needs a stamp and a sorted set"),
        (_batch(Move(WAITING, READY, Due(1, 1), stamp=Stamp(b"r", 1, 1), once=Once(b"r", 1))), "needs a stamp and a"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_applied(batch: Batch, message: str) -> None:
    storage = MemoryStorage()

    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        storage.apply([_batch(HashSet(NOTES, {b"f": b"v"})), batch])

    assert storage.dump() == {}


# ------------------------------------------------------------------------------------------------------------- awaited


async def test_an_awaited_wait_leaves_the_loop_free() -> None:
    storage = AsyncFromSync(MemoryStorage())
    waiting = asyncio.create_task(storage.wait([SCOPE], LONG))

    await storage.apply([_batch(HashSet(NOTES, {b"f": b"v"}))])
    assert not waiting.done()
    await storage.apply([_batch(Put(READY, {b"a": b"nonce-01"}, wake=True))])

    await asyncio.wait_for(waiting, LONG)
    await storage.close()


async def test_a_cancelled_wait_ends_below_too() -> None:
    below = MemoryStorage()
    storage = AsyncFromSync(below)
    waiting = asyncio.create_task(storage.wait([SCOPE], LONG))
    await storage.apply([])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert storage._waiters is not None

    storage._waiters.shutdown(wait=True)  # would hang if a thread still waited


async def test_other_tasks_run_between_a_call_and_its_answer() -> None:
    storage = AsyncFromSync(MemoryStorage())

    both = await asyncio.gather(*(_add_by_reading(storage) for _ in range(2)))

    assert both == [b"1", b"1"], "both read before either wrote, as two clients of a server may"
    await storage.close()


async def _add_by_reading(storage: AsyncFromSync) -> bytes:
    [values] = await storage.read([Peek(LOG, 0, 100)])
    assert isinstance(values, tuple)
    await storage.apply([_batch(ListPush(LOG, (b"%d" % (len(values) + 1),)))])
    return b"%d" % (len(values) + 1)


# -------------------------------------------------------------------------------------------------------------- faulty


ADD = _batch(HashAdd(NOTES, b"sum", 1))


@pytest.mark.parametrize(
    ("fault", "kind", "total"),
    [
        (Fault.OK, "Applied", 1),
        (Fault.REFUSED, "NotApplied", 0),
        (Fault.REQUEST_LOST, "OutcomeUnknown", 0),
        (Fault.REPLY_LOST, "OutcomeUnknown", 1),
        (Fault.SENT_TWICE, "Applied", 2),
        (Fault.STALLED, "OutcomeUnknown", 0),
    ],
)
def test_a_fault_does_what_its_name_says(fault: Fault, kind: str, total: int) -> None:
    below = MemoryStorage()
    storage = FaultyStorage(below, lambda _scope, _batches: fault)

    [outcome] = storage.apply([ADD])

    assert type(outcome).__name__ == kind
    assert below.dump() == ({"{ns:queue}:notes": {b"sum": b"%d" % total}} if total else {})


def test_scopes_have_fates_of_their_own() -> None:
    faults = {SCOPE: Fault.REPLY_LOST, "ns:other": Fault.OK}
    storage = FaultyStorage(MemoryStorage(), lambda scope, _batches: faults[scope])
    other = HashKey("ns:other", "notes")

    outcomes = storage.apply([ADD, _batch(HashAdd(other, b"sum", 1), scope="ns:other"), ADD])

    assert [type(outcome).__name__ for outcome in outcomes] == ["OutcomeUnknown", "Applied", "OutcomeUnknown"]


def test_what_stalled_arrives_after_what_was_sent_later() -> None:
    faults = iter([Fault.STALLED, Fault.STALLED, Fault.OK])
    storage = FaultyStorage(MemoryStorage(), lambda _scope, _batches: next(faults))
    for word in (b"first", b"second", b"third"):
        storage.apply([_batch(ListPush(LOG, (word,)))])

    storage.deliver(1)
    storage.deliver()

    assert storage.read([Peek(LOG, 0, 9)]) == [(b"third", b"second", b"first")]
    with pytest.raises(IndexError):
        storage.deliver()


def test_a_claim_sent_twice_takes_its_jobs_once() -> None:
    storage = FaultyStorage(_filled(), lambda _scope, _batches: Fault.SENT_TWICE)
    claim = Move(READY, WORKING, Head(1, 999), 9, stamp=Stamp(b"r", 1, 1), once=Once(b"r", 1))

    [outcome] = storage.apply([_batch(claim)])

    assert isinstance(outcome, Applied)
    assert outcome.answers[0].ids == (b"b",)  # type: ignore[union-attr]
    assert storage.read([Peek(READY, 0, 9)]) == [(b"a",)]
    [late] = storage.apply([_batch(Move(READY, WORKING, Head(1, 9), 9, stamp=Stamp(b"r", 1, 1), once=Once(b"r", 0)))])
    assert late == Refused((0,))


def test_waiting_goes_through_to_the_storage_below() -> None:
    storage = FaultyStorage(MemoryStorage(), lambda _scope, _batches: Fault.REPLY_LOST)
    storage.apply([_batch(Put(READY, {b"a": b"nonce-01"}, wake=True))])

    assert storage.wait([SCOPE], LONG) == SCOPE
    storage.interrupt()
    assert storage.wait([SCOPE], LONG) is None


def test_the_index_of_a_set_stays_sorted_however_large() -> None:
    storage = MemoryStorage()
    index = SetKey(SCOPE, "index")
    members = {b"%05d" % (n * 7919 % 10_007): n * 104_729 % 5_003 for n in range(10_007)}
    for start in range(0, 10_007, 999):
        storage.apply([_batch(SetAdd(index, dict(list(members.items())[start : start + 999])))])

    assert storage.dump()["{ns:queue}:index"] == sorted(members.items(), key=lambda entry: (entry[1], entry[0]))
