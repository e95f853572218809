"""No single call makes a server write or read more than a megabyte of records, unless one record is larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import Call, JobQueue, NotApplied, OutcomeUnknown, transitions
from jobqueue.backend import GivenBackend
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.keys import queue_keys
from jobqueue.record import NONCE_SIZE, decode, encode
from jobqueue.runner.packing import pack
from jobqueue.runner.rescue import Watch, hand_back, patrol
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Batch, Kept, Move, Put, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis.flow import CALL_BYTES, apply_flow
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.testing import FakeClock, Fault
from tests.runner.sim import LEASE, Sim, World
from tests.unit.queue_bench import Bench

LARGE = 300_000
MIB = 1024 * 1024


class Measured(MemoryStorage):
    """Notes how many bytes of records each batch carries and each read answers."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, int]] = []
        self.answered: list[int] = []

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        for batch in batches:
            records = [op.records or {} for op in batch.ops if isinstance(op, Put | Move)]
            if any(records):
                self.written.append((batch.scope, sum(len(each) for part in records for each in part.values())))
        return super().apply(batches)

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        entries: list[object] = [one for answer in answers if isinstance(answer, tuple) for one in answer]
        records = [one.record for one in entries if isinstance(one, Kept)]
        self.answered.append(sum(len(record) for record in records if isinstance(record, bytes)))
        return answers


@pytest.fixture
def storage() -> Measured:
    return Measured()


@pytest.fixture
def jobs(storage: Measured) -> JobQueue:
    return queue_on(storage)


def queue_on(storage: Measured, **options: Any) -> JobQueue:
    jobs = JobQueue("memory://", namespace="test", **options)
    jobs.access.replace(GivenBackend(storage, FakeClock()), pauses=False)
    jobs.job(name="work")(_text)
    return jobs


def _text(text: str) -> None: ...


def calls(jobs: JobQueue, count: int, size: int = LARGE, **options: Any) -> list[Any]:
    kind = jobs.registry.get("work")
    assert kind is not None
    made = [Call(kind, {"text": f"{number:03}" + "x" * size}) for number in range(count)]
    return [call.opts(**options) for call in made] if options else made


def test_many_large_jobs_are_stored_in_parts_and_in_order(jobs: JobQueue, storage: Measured) -> None:
    records = jobs.enqueue_many(calls(jobs, 8))
    assert [size // LARGE for _, size in storage.written] == [3, 3, 2]
    assert [record.id for record in jobs.find()] == [record.id for record in records]


def test_small_jobs_travel_by_the_five_hundred(jobs: JobQueue, storage: Measured) -> None:
    jobs.enqueue_many(calls(jobs, 1_001, 1))
    assert len(storage.written) == 3


def test_a_job_that_is_larger_than_a_part_goes_alone(storage: Measured) -> None:
    jobs = queue_on(storage, max_payload=4 * MIB)
    jobs.enqueue_many(calls(jobs, 2, 3 * MIB))
    assert [size // MIB for _, size in storage.written] == [3, 3]
    assert len(jobs.find()) == 2


def test_parts_of_several_queues_share_a_call_only_while_they_are_small() -> None:
    bench = Bench()
    text = bench.jobs.job(name="text")(_text)
    bench.jobs.counts()
    bench.calls.clear()
    bench.jobs.enqueue_many([text.opts(queue=f"q{number % 4}").call("x" * LARGE) for number in range(8)])
    puts = [(scope, len(op.records)) for scope, batches in bench.calls for op in batches[0].ops if isinstance(op, Put)]
    assert puts == [("test:q0", 2), ("test:q1", 2), ("test:q2", 2), ("test:q3", 2)]
    assert bench.calls[1][0] == "test", "the first queue's jobs are acknowledged before the next ones are sent"


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.REPLY_LOST])
def test_what_follows_a_part_that_failed_is_not_sent(fault: Fault) -> None:
    bench = Bench()
    text = bench.jobs.job(name="text")(_text)
    bench.work.enqueue(1)
    bench.calls.clear()
    bench.fail(Fault.OK, *[fault] * 3)
    with pytest.raises(NotApplied if fault is Fault.REFUSED else OutcomeUnknown) as caught:
        bench.jobs.enqueue_many([text.call("x" * LARGE) for _ in range(9)])
    assert (len(caught.value.stored), len(caught.value.records)) == (3, 6)
    bench.faults.clear()
    bench.jobs.enqueue_records(caught.value.records)
    assert bench.jobs.counts()["low"].ready == 10


def test_pages_of_large_jobs_are_read_in_parts(jobs: JobQueue, storage: Measured) -> None:
    records = jobs.enqueue_many(calls(jobs, 7)) + jobs.enqueue_many(calls(jobs, 5, delay=60))
    storage.answered.clear()
    assert [record.id for record in jobs.find()] == [record.id for record in records]
    assert [record.id for record in jobs.find(after=records[4].id)] == [record.id for record in records[5:]]
    assert max(storage.answered) <= MIB


@pytest.mark.parametrize("way", ["patrol", "hand back"])
def test_large_jobs_of_a_dead_runner_come_back_in_parts_and_in_order(
    jobs: JobQueue, storage: Measured, way: str
) -> None:
    records = jobs.enqueue_many(calls(jobs, 8))
    keys, clock = queue_keys("test", "low"), jobs.access.clock()
    assert isinstance(clock, FakeClock)
    for number in (1, 2, 3):
        now = clock.now()
        storage.apply([transitions.claim(keys, b"gone", number, limit=9, now=now, lease=LEASE, beat=LEASE // 6)])
    assert jobs.counts()["low"].working == 8
    storage.written.clear()
    storage.answered.clear()

    def moment() -> Moment:
        return Moment(clock.now(), clock.monotonic())

    watch = Watch()
    for _ in range(2 if way == "patrol" else 1):
        clock.advance(milliseconds=LEASE + 1)
        flow = patrol(keys, watch, LEASE, moment) if way == "patrol" else hand_back(keys, b"gone", moment)
        run(flow, storage, clock)
    assert [record.id for record in jobs.find(place="ready")] == [record.id for record in records]
    assert [size // LARGE for _, size in storage.written] == [3, 3, 2]
    assert max(storage.answered) <= MIB


def test_records_of_jobs_that_failed_travel_in_parts(world: World) -> None:
    def fail(number: int) -> None:
        raise ValueError("x" * 10)

    world.act = fail
    world.enqueue(*range(9))
    runner = Sim(world, threads=9)
    runner.settle()
    tasks = [*runner.given]
    runner.run()
    for task in tasks:
        nonce, stored = task.record[:NONCE_SIZE], decode(task.record)
        task.record = encode(nonce, msgspec.structs.replace(stored, payload=b" " * LARGE))
    moved = pack(tasks)
    assert [len(sent.tasks) for sent in moved] == [3, 3, 3]
    assert [task for sent in moved for task in sent.tasks] == tasks
    for task in tasks:
        assert task.verdict is not None
        task.verdict = attrs.evolve(task.verdict, step="release")
    assert [len(sent.tasks) for sent in pack(tasks)] == [3, 3, 3]


@pytest.fixture
def world() -> World:
    return World()


def test_large_batches_of_one_scope_are_calls_of_their_own_on_a_server() -> None:
    def batch(number: int, size: int) -> Batch:
        return transitions.put(queue_keys("test", "low"), {b"%d" % number: b"n" * size}, {}, {})

    server = Guarded("redis://x")
    sizes = [10, CALL_BYTES, 10, 10, CALL_BYTES + 5, CALL_BYTES // 2, CALL_BYTES // 2, 1]
    flow = apply_flow(server, [batch(number, size) for number, size in enumerate(sizes)])
    request = next(flow)
    largest = [sum(len(word) for word in words if word[:1] == b"n") for _, words in request]
    assert largest == [10, CALL_BYTES, 20, CALL_BYTES + 5, CALL_BYTES, 1]
