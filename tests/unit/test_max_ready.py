"""`JobQueue(max_ready=…)`: what is one job too many is refused whole, and whatever moves jobs is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from jobqueue import DeclarationError, JobQueue, NotApplied, OutcomeUnknown, QueueFull, transitions
from jobqueue.storage.ops import Answer, Put, claim_mark
from jobqueue.testing import Fault
from tests.servers import Server
from tests.unit.queue_bench import Bench


def ids(records: Any) -> list[str]:
    return [record.id for record in records]


def test_one_too_many_is_refused_and_changes_nothing() -> None:
    bench = Bench(max_ready=3)
    bench.jobs.enqueue_many(bench.many(3))
    before = bench.memory.dump()

    with pytest.raises(QueueFull, match=r"queue 'low' is full: 3 jobs or more are ready, and max_ready=3") as caught:
        bench.work.enqueue(4)

    assert isinstance(caught.value, NotApplied)
    assert caught.value.passes
    assert bench.memory.dump() == before
    bench.claim()
    bench.jobs.enqueue_records(caught.value.records)
    assert ids(bench.jobs.find(place="ready"))[-1:] == ids(caught.value.records)


async def test_several_find_room_together_or_not_at_all() -> None:
    bench = Bench(max_ready=3)
    bench.work.enqueue(1)
    before = bench.memory.dump()
    with pytest.raises(QueueFull, match="no room for 3 jobs: more than 0 are ready, and max_ready=3"):
        await bench.jobs.aenqueue_many([*bench.many(3), *bench.many(2, delay=9)])
    with pytest.raises(QueueFull, match="cannot have 4 jobs more at once, since max_ready=3") as caught:
        bench.jobs.enqueue_many(bench.many(4))
    assert not caught.value.passes, "however long it waits"
    assert bench.memory.dump() == before
    await bench.jobs.aenqueue_many([*bench.many(2), *bench.many(2, delay=9)])
    assert bench.jobs.length("low") == 3


def test_a_queue_is_bounded_by_its_own_number() -> None:
    bench = Bench(max_ready={"high": 1})
    bench.jobs.enqueue_many(bench.many(1, queue="high"))
    with pytest.raises(QueueFull) as caught:
        bench.jobs.enqueue_many([*bench.many(2), *bench.many(1, queue="high"), *bench.many(1)])
    assert len(caught.value.stored) == 3
    assert [record.queue for record in caught.value.records] == ["high"]
    assert bench.jobs.length("low") == 3


def test_what_comes_behind_a_part_without_room_is_not_sent() -> None:
    bench = Bench(max_ready=700)
    with pytest.raises(QueueFull) as caught:
        bench.jobs.enqueue_many(bench.many(1_100))
    assert len(caught.value.stored) == bench.jobs.length("low") == 500
    assert len(caught.value.records) == 600


def test_whatever_moves_jobs_finds_room() -> None:
    """Promotion, release, rescue and requeue: a bound refuses what is new, and loses nothing."""
    bench = Bench(max_ready=1)
    dead = bench.work.enqueue(0)
    bench.bury(dead.id)
    bench.work.enqueue(1)
    held = bench.claim()
    bench.work.enqueue(2)
    bench.jobs.enqueue_many(bench.many(2, delay=1))
    bench.clock.advance(seconds=5)

    claims = {id: claim_mark(b"runner", held.fence, 5_000) for id in held.ids}
    bench.memory.apply(
        [transitions.promote(bench.keys(), bench.clock.now()), transitions.release(bench.keys(), claims)]
    )
    bench.jobs.requeue(dead.id)

    assert bench.jobs.length("low") == 5
    with pytest.raises(QueueFull):
        bench.work.enqueue(3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_lost_reply_is_no_lack_of_room(count: int) -> None:
    """The job itself fills the queue: sent again it is found."""
    bench = Bench(max_ready=count)
    bench.fail(Fault.REPLY_LOST)
    records = bench.jobs.enqueue_many(bench.many(count))
    assert ids(bench.jobs.find()) == ids(records)
    assert bench.jobs.enqueue_records(records) == records


def test_a_first_sending_may_still_find_the_room_that_its_repetition_did_not() -> None:
    bench = Bench(max_ready=1)
    bench.fail(Fault.STALLED, Fault.OK)
    other = transitions.put(bench.keys(), {b"other": b"nonce--1"}, {}, {})

    def fill() -> None:
        bench.meddle = lambda: bench.memory.apply([other])

    bench.meddle = fill
    with pytest.raises(OutcomeUnknown) as caught:
        bench.work.enqueue(1)
    bench.claim()
    bench.storage.deliver()
    assert ids(bench.jobs.find(place="ready")) == ids(caught.value.records)


@pytest.mark.parametrize("delayed", [0, 2])
async def test_what_an_earlier_call_stored_needs_no_room_and_is_not_told_as_missing(delayed: int) -> None:
    bench = Bench(max_ready=2)
    bench.fail(*[Fault.REPLY_LOST] * 3)
    with pytest.raises(OutcomeUnknown) as unknown:
        bench.jobs.enqueue_many([bench.work.call(1), *bench.many(delayed, delay=9)])
    bench.work.enqueue(2)
    with pytest.raises(QueueFull) as full:
        bench.work.enqueue(3)
    both = [*full.value.records, *unknown.value.records]
    before = bench.memory.dump()

    for again in (bench.jobs.enqueue_records, lambda records: asyncio.run(bench.jobs.aenqueue_records(records))):
        with pytest.raises(QueueFull) as caught:
            await asyncio.to_thread(again, both)
        assert caught.value.records == full.value.records
        assert caught.value.stored == unknown.value.records
        assert bench.memory.dump() == before


def test_whether_it_is_stored_is_unknown_where_that_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(max_ready=1)
    record = bench.work.enqueue(1)
    other = msgspec.structs.replace(record, id="other")

    def away(_: object) -> list[Answer]:
        raise NotApplied("away")

    monkeypatch.setattr(bench.storage, "read", away)

    with pytest.raises(OutcomeUnknown, match="whether they were stored before could not be seen") as caught:
        bench.jobs.enqueue_records([record, other])

    assert caught.value.records == (record, other)


def test_what_an_earlier_call_stored_and_has_ended_just_now_is_unknown() -> None:
    bench = Bench(max_ready=1)
    record = bench.work.enqueue(1)
    other = msgspec.structs.replace(record, id="other")
    bench.fail(Fault.OK)

    def fill() -> None:
        def end() -> None:
            held = bench.claim()
            claims = {id: claim_mark(b"runner", held.fence, 5_000) for id in held.ids}
            more = transitions.put(bench.keys(), {b"more": b"nonce--1"}, {}, {})
            bench.memory.apply([transitions.finish(bench.keys(), claims), more])

        bench.meddle = end

    bench.meddle = fill
    with pytest.raises(OutcomeUnknown, match="have ended just now") as caught:
        bench.jobs.enqueue_records([record, other])

    assert caught.value.records == (record, other)


def test_without_a_bound_nothing_is_asked() -> None:
    bench = Bench()
    bench.work.enqueue(1)
    puts = [op for _, batches in bench.calls for batch in batches for op in batch.ops if isinstance(op, Put)]
    assert [put.most for put in puts] == [None]


def test_racing_producers_fill_a_queue_to_the_last_job(server: Server) -> None:
    """[S06] Whoever comes too late is refused, in the same step in which it would have been stored."""
    refused: list[QueueFull] = []
    with JobQueue(server.url, namespace="test", max_ready=25) as jobs:

        @jobs.job(name="work")
        def work(number: int) -> None: ...

        def produce(together: int) -> None:
            for number in range(12):
                try:
                    jobs.enqueue_many([work.call(number)] * together)
                except QueueFull as full:
                    refused.append(full)

        threads = [threading.Thread(target=produce, args=(together,)) for together in (1, 1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert jobs.length("low") == 25
        assert 25 + sum(len(full.records) for full in refused) == 12 * 7
        assert all(full.stored == () for full in refused)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (0, "max_ready is a number of jobs, at least 1, not 0"),
        (True, "not True"),
        ("9", "not '9'"),
        ({"mail": 2.5}, "max_ready of queue 'mail' is a number of jobs, at least 1, not 2.5"),
        ({"a mail": 2}, "'a mail' is no name of a queue"),
    ],
)
def test_a_bound_is_a_number_of_jobs(given: Any, told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        JobQueue("memory://", max_ready=given)


def test_a_bound_of_a_queue_that_was_not_declared_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"there is no queue 'mial'; did you mean 'mail'\?"):
        JobQueue("memory://", queues=["mail"], max_ready={"mial": 9})
    assert JobQueue("memory://", queues=["mail"], max_ready={"mail": 9, "high": 2}).max_ready == {"mail": 9, "high": 2}


def test_a_bound_whose_name_resembles_a_queue_that_is_used_is_told_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bounds = {"mial": 9, "mail": 9, "elsewhere": 9}
    with JobQueue(server.url, namespace="test", max_ready=bounds) as jobs:

        @jobs.job(name="work", queue="mail")
        def work() -> None: ...

        work.enqueue()
        work.enqueue()
    assert caplog.messages == ["max_ready bounds queue mial, which no kind here uses; did you mean 'mail'?"]


def test_bounds_that_were_given_stay_what_they_were() -> None:
    bounds = {"low": 1}
    jobs = JobQueue("memory://", max_ready=bounds)
    bounds["low"] = 9
    assert isinstance(jobs.max_ready, Mapping)
    assert jobs.max_ready["low"] == 1
