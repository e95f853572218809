"""Looking at jobs and operating on them: every place, paging, races with runners, and the async twins."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import DeclarationError, JobNotFound, JobQueue, PayloadError, StorageRefused, UnknownJob, transitions
from jobqueue.lifecycle import COUNTED
from jobqueue.looking import Counts, Totals
from jobqueue.record import decode, job_record, rewrite
from jobqueue.runner_info import Beat
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch, HashSet, Put, Records, SetAdd, claim_mark
from jobqueue.testing import Fault
from tests.unit.queue_bench import Bench

PLACES = ("ready", "waiting", "working", "dead")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def put(bench: Bench, place: str, *, queue: str = "low", number: int = 1) -> str:
    """A job in a place."""
    record = bench.work.opts(queue=queue, delay=60 if place == "waiting" else 0).enqueue(number)
    if place == "working":
        assert record.id.encode() in bench.claim(99, queue=queue).ids
    elif place == "dead":
        bench.bury(record.id, queue=queue)
    bench.jobs.counts()  # the first look at all queues searches the storage for them
    return record.id


def finish(bench: Bench, id: str) -> None:
    """A runner claims and ends the job."""
    moved = bench.claim()
    assert moved.ids == (id.encode(),)
    claims = {id.encode(): claim_mark(b"runner", moved.fence, 5_000)}
    bench.memory.apply([transitions.finish(bench.keys(), claims)])


def ids(records: Any) -> list[str]:
    return [record.id for record in records]


# -------------------------------------------------------------------------------------------------------------- looking


@pytest.mark.parametrize("place", PLACES)
def test_get_finds_a_job_in_every_place(bench: Bench, place: str) -> None:
    id = put(bench, place, queue="other")
    record = bench.jobs.get(id)
    assert record is not None
    assert (record.id, record.place, record.queue, record.name) == (id, place, "other", "work")
    assert (record.fence > 0) is (place == "working")
    assert bench.jobs.get(id, queue="other") == record
    assert bench.jobs.get(id, queue="low") is None
    assert bench.jobs.decode(record).arguments == {"number": 1}


def test_what_is_not_there(bench: Bench) -> None:
    assert bench.jobs.get("nope") is None
    assert bench.jobs.find() == []
    assert bench.jobs.counts() == {}
    assert bench.jobs.length("low") == 0
    assert bench.jobs.dead() == []
    assert bench.jobs.runners() == []


def test_counts(bench: Bench) -> None:
    for number, place in enumerate(PLACES):
        put(bench, place, number=number)
    put(bench, "waiting", queue="other", number=9)
    assert bench.jobs.counts() == {"low": Counts(1, 0, 2, 1), "other": Counts(1, 0, 0, 0)}
    assert bench.jobs.length("low") == 0


@pytest.mark.parametrize("count", [1, 199, 200, 201, 455])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("limit", [7, 100, 1_000])
def test_paging_meets_every_job_once_in_order(bench: Bench, place: str, count: int, limit: int) -> None:
    if limit == 7 and count > 200:
        count = 210
    records = bench.jobs.enqueue_many(bench.many(count, delay=60 if place == "waiting" else 0))
    if place in ("working", "dead"):
        moved = bench.claim(count)
        if place == "dead":
            claims = {id: claim_mark(b"runner", moved.fence, 5_000) for id in moved.ids}
            keys, died = bench.keys(), dict.fromkeys(claims, 5)
            bench.memory.apply([transitions.move_out("bury", keys, claims, {}, died)])
    seen: list[str] = []
    while page := bench.jobs.find(limit=limit, after=seen[-1] if seen else None):
        assert len(page) <= limit
        assert {record.place for record in page} == {place}
        seen += ids(page)
    expected = ids(records)
    assert seen == (expected if place == "ready" else sorted(expected))


def test_find_by_queue_place_and_kind(bench: Bench) -> None:
    @bench.jobs.job(name="other")
    def other() -> None: ...

    a = put(bench, "ready")
    b = put(bench, "waiting", number=2)
    c = put(bench, "ready", queue="high", number=3)
    d = other.enqueue().id
    assert ids(bench.jobs.find()) == [c, a, d, b], "by queue, then place, then the order there"
    assert ids(bench.jobs.find(queue="low")) == [a, d, b]
    assert ids(bench.jobs.find(place="ready")) == [c, a, d]
    assert ids(bench.jobs.find(name="other")) == [d]
    assert ids(bench.jobs.find(name="work", limit=2)) == [c, a]
    assert ids(bench.jobs.find(after=a)) == [d, b]
    assert ids(bench.jobs.find(queue="low", place="waiting", after=b)) == []


def test_going_on_behind_a_job_that_moved_is_an_error(bench: Bench) -> None:
    """Rather than a listing that ends early, or begins anew."""
    records = bench.jobs.enqueue_many(bench.many(5))
    bench.jobs.delete(records[2].id)
    with pytest.raises(JobNotFound, match=r"use scan\(\)"):
        bench.jobs.find(after=records[2].id)
    with pytest.raises(JobNotFound, match="ready of queue 'low', where this search does not look"):
        bench.jobs.find(place="dead", after=records[3].id)
    with pytest.raises(JobNotFound, match=r"use scan\(\)"):
        bench.jobs.find(queue="other", after=records[3].id)


def test_a_foreign_record_is_listed_with_what_is_wrong(bench: Bench) -> None:
    put(bench, "ready")
    bench.memory.apply([Batch("test:low", (Put(bench.keys().ready, {b"\xffbad": b"\x00junk"}),))])
    [_, bad] = bench.jobs.find()
    assert bad.payload == b"\x00junk"
    assert bad.name == ""
    assert bad.error
    with pytest.raises(UnknownJob):
        bench.jobs.decode(bad)


def test_dead_jobs_longest_dead_first(bench: Bench) -> None:
    first = put(bench, "dead")
    bench.clock.advance(1)
    second = put(bench, "dead", number=2)
    assert ids(bench.jobs.dead()) == [first, second]
    assert ids(bench.jobs.dead(limit=1)) == [first]
    assert ids(bench.jobs.dead(after=first)) == [second]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"place": "done"}, ValueError, "there is no place 'done': it is one of waiting, ready, working, dead"),
        ({"limit": 0}, ValueError, "limit must be at least 1, not 0"),
        ({"limit": -1}, ValueError, "limit must be at least 1, not -1"),
        ({"queue": "a:b"}, DeclarationError, "'a:b' is no name of a queue"),
        ({"queue": "{x}"}, DeclarationError, "'{x}' is no name of a queue"),
    ],
)
def test_bad_questions(bench: Bench, arguments: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        bench.jobs.find(**arguments)


def test_decoding(bench: Bench) -> None:
    record = bench.work.enqueue(7)
    other = JobQueue("memory://")
    with pytest.raises(UnknownJob, match="imports="):
        other.decode(record)

    @other.job(name="work")
    def work(word: str) -> None: ...

    with pytest.raises(PayloadError, match=r"number|word"):
        other.decode(record)


def test_runners_are_those_that_were_seen_within_their_lease(bench: Bench) -> None:
    now = bench.clock.now()

    def beat(**fields: Any) -> bytes:
        plain = {
            "host": "h", "pid": 1, "started": now, "seen": now, "lease": 30_000, "queues": {"low": 1}, "threads": 1,
            "coroutines": 1, "version": "1",
        }  # fmt: skip
        return msgspec.json.encode(Beat(**{**plain, **fields}))

    keys = bench.jobs.access.keys
    beats = {
        b"old": beat(started=now - 5), b"new": beat(), b"gone": beat(seen=now - 30_001), b"stopped": beat(stopped=True),
        b"junk": b"{", b"\xff": b"[]",
    }  # fmt: skip
    seen = {**dict.fromkeys(beats, now), b"gone": now - 30_001}
    leases = SetAdd(keys.leases, {b"30000": now, b"junk": now})
    bench.memory.apply([Batch("test", (HashSet(keys.runners, beats), SetAdd(keys.seen, seen), leases))])
    assert [info.id for info in bench.jobs.runners()] == ["old", "new"]
    [info, _] = bench.jobs.runners()
    assert info.lease == 30.0
    assert info.seen == dt.datetime.fromtimestamp(now / 1000, dt.UTC)


# ------------------------------------------------------------------------------------------------------------ operators


@pytest.mark.parametrize("place", ["dead", "waiting", "ready"])
def test_requeue(bench: Bench, place: str) -> None:
    id = put(bench, place)
    last = put(bench, "ready", number=2)
    record = bench.jobs.requeue(id)
    assert (record.id, record.place) == (id, "ready")
    assert bench.jobs.get(id) == record
    assert ids(bench.jobs.find(place="ready")) == ([id, last] if place == "ready" else [last, id])


def test_requeue_keeps_the_attempts_and_forgives_the_crashes(bench: Bench) -> None:
    id = put(bench, "ready")
    [[kept]] = bench.memory.read([_records(bench, id)])  # type: ignore[misc]
    bench.jobs.delete(id)
    record = rewrite(kept.record, attempt=4, recoveries=5, started=9, parked=3, parked_since=7, error="boom")  # type: ignore[union-attr]
    bench.memory.apply([Batch("test:low", (Put(bench.keys().dead, {id.encode(): record}, score=3),))])
    requeued = bench.jobs.requeue(id)
    assert (requeued.attempt, requeued.recoveries, requeued.error) == (4, 0, "boom")
    [[kept]] = bench.memory.read([_records(bench, id)])  # type: ignore[misc]
    stored = decode(kept.record)  # type: ignore[union-attr]
    assert (stored.started, stored.parked, stored.parked_since) == (0, 0, 0)
    assert stored.died == 3, "so that it dies later the next time, and a requeue that arrives late finds nothing"


def _records(bench: Bench, id: str) -> Any:
    return Records(bench.keys().scope, (id.encode(),))


def test_a_requeue_rings(bench: Bench) -> None:
    id = put(bench, "dead")
    bell = bench.memory._shared.bell
    bell._tokens.clear()
    bench.jobs.requeue(id)
    assert bell._tokens == {"test:low"}


@pytest.mark.parametrize("place", ["dead", "waiting", "ready"])
def test_delete(bench: Bench, place: str) -> None:
    id = put(bench, place)
    kept = put(bench, "ready", number=2)
    assert bench.jobs.delete(id).id == id
    assert ids(bench.jobs.find()) == [kept]
    dump: Any = bench.memory.dump()
    assert list(dump["{test:low}:records"]) == [kept.encode()], "its record is gone too"


@pytest.mark.parametrize("operation", ["requeue", "delete"])
def test_a_job_that_is_run_belongs_to_its_runner(bench: Bench, operation: str) -> None:
    id = put(bench, "working")
    before = bench.memory.dump()
    with pytest.raises(StorageRefused, match="being run"):
        getattr(bench.jobs, operation)(id)
    assert bench.memory.dump() == before


@pytest.mark.parametrize("operation", ["requeue", "delete"])
def test_no_such_job(bench: Bench, operation: str) -> None:
    with pytest.raises(JobNotFound, match="nope"):
        getattr(bench.jobs, operation)("nope")
    id = put(bench, "ready")
    with pytest.raises(JobNotFound):
        getattr(bench.jobs, operation)(id, queue="other")


def test_an_unreadable_dead_job_can_be_deleted_and_not_requeued(bench: Bench) -> None:
    put(bench, "ready")
    bench.memory.apply([Batch("test:low", (Put(bench.keys().dead, {b"bad": b"junk"}, score=1),))])
    with pytest.raises(StorageRefused, match="only be deleted"):
        bench.jobs.requeue("bad")
    assert bench.jobs.delete("bad").payload == b"junk"


# ----------------------------------------------------------------------------------------------------------- their races


def test_a_requeued_job_that_a_runner_takes_at_once_was_requeued(bench: Bench) -> None:
    """Nothing is looked at again after the move: it may be anywhere by then."""
    id = put(bench, "dead")
    bench.calls.clear()
    original = bench.storage._apply

    def apply(scope: str, batches: Any) -> Any:
        outcomes = original(scope, batches)
        finish(bench, id)
        return outcomes

    bench.storage._apply = apply  # type: ignore[method-assign]
    assert bench.jobs.requeue(id).place == "ready"
    assert bench.jobs.get(id) is None


def test_a_dead_job_that_somebody_else_requeues_just_then(bench: Bench) -> None:
    id = put(bench, "dead")
    bench.meddle = lambda: bench.memory.apply([_requeue(bench, id)])
    assert bench.jobs.requeue(id).place == "ready"
    assert ids(bench.jobs.find()) == [id], "once"


def _requeue(bench: Bench, id: str) -> Batch:
    [[kept]] = bench.memory.read([_records(bench, id)])  # type: ignore[misc]
    return transitions.requeue(bench.keys(), id.encode(), kept.score, kept.record)  # type: ignore[union-attr]


def test_a_job_that_a_runner_takes_before_it_is_deleted(bench: Bench) -> None:
    id = put(bench, "ready")
    bench.meddle = lambda: bench.claim()
    with pytest.raises(StorageRefused, match="being run"):
        bench.jobs.delete(id)


def test_a_job_that_ends_before_it_is_deleted_was_not_deleted(bench: Bench) -> None:
    id = put(bench, "ready")
    bench.meddle = lambda: finish(bench, id)
    with pytest.raises(JobNotFound):
        bench.jobs.delete(id)


def test_a_job_that_died_again_meanwhile_is_not_taken_for_the_old_one(bench: Bench) -> None:
    id = put(bench, "dead")
    late = _requeue(bench, id)
    bench.jobs.requeue(id)
    bench.clock.advance(1)
    bench.bury(id)
    before = bench.memory.dump()
    bench.memory.apply([late])
    assert bench.memory.dump() == before


def test_a_job_that_waits_for_another_time_meanwhile_is_not_taken_for_the_old_one(bench: Bench) -> None:
    """An operator's request that arrives late must not cut short a pause that it never saw."""
    id = put(bench, "waiting")
    [[kept]] = bench.memory.read([_records(bench, id)])  # type: ignore[misc]
    late = transitions.hurry(bench.keys(), id.encode(), kept.score)  # type: ignore[union-attr]
    bench.jobs.requeue(id)
    bench.park(id, bench.clock.now() + 3_600_000)
    before = bench.memory.dump()
    bench.memory.apply([late])
    assert bench.memory.dump() == before


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST])
@pytest.mark.parametrize("operation", ["requeue", "delete"])
@pytest.mark.parametrize("place", ["dead", "waiting"])
def test_operators_are_answered_right_when_a_reply_is_lost(
    bench: Bench, operation: str, fault: Fault, place: str
) -> None:
    id = put(bench, place)
    bench.fail(fault)
    record = getattr(bench.jobs, operation)(id)
    assert record.id == id
    now = bench.jobs.get(id)
    assert (now.place if now else None) == ("ready" if operation == "requeue" else None)


def test_a_requeue_whose_reply_was_lost_and_that_a_runner_took_up(bench: Bench) -> None:
    id = put(bench, "dead")
    bench.fail(Fault.REPLY_LOST)
    original = bench.storage._apply

    def apply(scope: str, batches: Any) -> Any:
        outcomes = original(scope, batches)
        if bench.jobs.get(id) is not None:
            finish(bench, id)
        return outcomes

    bench.storage._apply = apply  # type: ignore[method-assign]
    assert bench.jobs.requeue(id).id == id


# ------------------------------------------------------------------------------------------------------------ async twins


async def test_the_async_twins_answer_alike(bench: Bench) -> None:
    jobs = bench.jobs
    dead, waiting = put(bench, "dead"), put(bench, "waiting", number=2)
    record = await bench.work.aenqueue(3)
    assert await jobs.acounts() == jobs.counts()
    assert await jobs.alength("low") == jobs.length("low") == 1
    assert await jobs.afind() == jobs.find()
    assert await jobs.adead() == jobs.dead()
    assert await jobs.aget(record.id) == jobs.get(record.id) == record
    assert await jobs.arunners() == jobs.runners()
    assert (await jobs.arequeue(dead)).place == "ready"
    assert (await jobs.adelete(waiting)).id == waiting
    assert len(await jobs.aenqueue_many(bench.many(3))) == 3
    assert await jobs.aenqueue_records([record]) == [record]
    with pytest.raises(JobNotFound):
        await jobs.adelete("nope")


# ------------------------------------------------------------------------------------------------------------- its making


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"url": "http://x"}, "redis://"), ({"namespace": "a:b"}, "namespace"), ({"imports": "shop.mail"}, "imports"),
        ({"url": "memory://", "storage": MemoryStorage()}, "only one"), ({"queues": ["a b"]}, "queue"),
        ({"namespace": ""}, "namespace"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        JobQueue(**arguments)


def test_no_url_is_an_error_at_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_URL", raising=False)
    jobs = JobQueue()
    with pytest.raises(DeclarationError, match="JOBQUEUE_URL"):
        jobs.counts()
    monkeypatch.setenv("JOBQUEUE_URL", "memory://")
    assert jobs.counts() == {}


def test_a_payload_over_the_limit() -> None:
    bench = Bench(max_payload=100)

    @bench.jobs.job(name="wordy")
    def wordy(text: str) -> None: ...

    wordy.enqueue("x" * (100 - len('{"text":""}')))
    with pytest.raises(PayloadError, match="max_payload=100"):
        wordy.enqueue("x" * 100)
    with pytest.raises(PayloadError, match="max_payload=100"):
        bench.jobs.enqueue_many([wordy.call("fits"), wordy.call("x" * 100)])
    assert bench.jobs.length("low") == 1, "nothing of it was stored"


def test_kinds_and_options_among_many_stay_with_their_jobs() -> None:
    jobs = JobQueue("memory://", queues=["images"])

    @jobs.job(name="text", retry=2)
    def text(value: str) -> None: ...

    @jobs.job(name="number", queue="images")
    def number(value: int, factor: int = 2) -> None: ...

    calls = [
        text.call("a"), text.opts(queue="high", retry=0).call("b"), number.call(1), number.opts(delay=9).call(2, factor=3),
        text.call("c"),
    ]  # fmt: skip
    with jobs.testing():
        records = jobs.enqueue_many(calls)
    assert [(record.name, record.payload, record.queue, record.retry, record.place) for record in records] == [
        ("text", b'{"value":"a"}', "low", 2, "ready"),
        ("text", b'{"value":"b"}', "high", 0, "ready"),
        ("number", b'{"value":1}', "images", 13, "ready"),
        ("number", b'{"value":2,"factor":3}', "images", 13, "waiting"),
        ("text", b'{"value":"c"}', "low", 2, "ready"),
    ]


def test_imports(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import not_installed_at_all\n")
    with pytest.raises(DeclarationError, match="nowhere"):
        JobQueue(imports=["nowhere.to.be.found"]).load()
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        JobQueue(imports=["needs_more"]).load()


def test_a_closed_queue_opens_again() -> None:
    with JobQueue("memory://") as jobs:
        jobs.counts()
    assert jobs.counts() == {}


def test_what_ever_became_of_jobs_is_told(bench: Bench) -> None:
    assert bench.jobs.totals() == {}
    id = put(bench, "dead")
    put(bench, "ready", number=2, queue="high")
    bench.jobs.delete(id)

    totals = bench.jobs.totals()

    assert set(totals) == {"high", "low"}
    assert totals["low"].deleted == 1
    assert totals["high"] == Totals()
    assert {field.name for field in attrs.fields(Totals)} == set(COUNTED.values())
    spoiled = HashSet(bench.keys("high").counters, {b"done": b"many", b"dead": b"3"})
    bench.memory.apply([Batch("test:high", (spoiled,))])
    assert bench.jobs.totals()["high"] == Totals(dead=3)


def test_what_runners_noted_of_a_job_is_not_enqueued_again() -> None:
    bench = Bench()
    made = bench.work.enqueue(1)
    noted = msgspec.structs.replace(made.stored, parked=2, parked_since=5, started=3, died=4, recoveries=1)
    bench.jobs.delete(made)
    seen = job_record(made.id.encode(), made.queue, noted, "waiting", nonce=made.nonce)
    assert seen.parked_since is not None

    [again] = bench.jobs.enqueue_records([seen])

    assert again.parked_since is None
    assert again.stored == msgspec.structs.replace(made.stored, recoveries=1)
    assert bench.jobs.get(made) is not None
