"""What is stored and longer than any job may be is never read: not by a runner, not by a rescue, not by who looks."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

import jobqueue
from jobqueue import JobQueue, PayloadError, transitions
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.runner.events import JobsEnded, JobsRescued
from jobqueue.runner.journal import Journal, RunnerStatus
from jobqueue.runner.report import Reporter
from jobqueue.runner.rescue import Watch, hand_back, patrol
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Applied, Batch, Kept, Moved, Put, Query, Unread
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis import open_redis
from tests.runner.sim import LEASE, Sim, World
from tests.servers import kinds, start_server

LONG = transitions.BYTES + 1
KEYS = queue_keys("test", "low")
PACKAGE = Path(jobqueue.__file__).parent


class Watched(MemoryStorage):
    """Notes the longest record that was answered, and how many bytes of records the largest answer had, by any handle."""

    longest = largest = 0

    def share(self) -> Watched:
        other = Watched()
        other._shared = self._shared
        return other

    @staticmethod
    def note(records: Sequence[bytes | Unread]) -> None:
        sizes = [len(record) for record in records if isinstance(record, bytes)]
        Watched.longest = max([Watched.longest, *sizes])
        Watched.largest = max(Watched.largest, sum(sizes))

    @staticmethod
    def forget() -> None:
        Watched.longest = Watched.largest = 0

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes = super().apply(batches)
        for outcome in outcomes:
            if isinstance(outcome, Applied):
                self.note([one for each in outcome.answers if isinstance(each, Moved) for one in each.records])
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        entries: list[object] = [one for answer in answers if isinstance(answer, tuple) for one in answer]
        self.note([one.record for one in entries if isinstance(one, Kept)])
        return answers


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("tests.runner.sim.MemoryStorage", Watched)
    Watched.forget()
    return World()


def plant(storage: MemoryStorage, *ids: bytes, size: int = LONG, queue: str = "low") -> bytes:
    """What a foreign writer leaves in ready: a record of so many bytes for each id."""
    keys, record = queue_keys("test", queue), b"nonce-01".ljust(size, b"x")
    storage.apply([Batch(keys.scope, (Put(keys.ready, dict.fromkeys(ids, record)),))])
    storage.apply([transitions.register_queue(namespace_keys("test"), queue, 0)])
    return record


def kept(world: World, id: bytes) -> Kept:
    """What is really stored, which does not count as an answer."""
    before = Watched.longest, Watched.largest
    found = world.kept(id.decode())
    Watched.longest, Watched.largest = before
    return found


def test_a_runner_takes_it_to_dead_unread(world: World) -> None:
    record = plant(world.memory, b"long", b"longer")
    [ordinary] = world.enqueue(1)
    sim = Sim(world)
    sim.work()
    assert Watched.longest < 1_000
    assert [id for id in (b"long", b"longer", ordinary.encode()) if world.jobs.get(id.decode())] == [b"long", b"longer"]
    assert Watched.longest < 1_000, "to look at them reads nothing either"
    assert (kept(world, b"long").record, kept(world, b"long").place) == (record, "dead")
    [ended, *_] = [event for event in sim.events if isinstance(event, JobsEnded) and event.ending == "dead"]
    assert str(LONG) in ended.tasks[0].text
    assert world.counter("dead") == 2


def test_it_is_seen_where_it_is_and_can_be_deleted(world: World) -> None:
    plant(world.memory, b"long")
    Sim(world).work()
    [found] = world.jobs.dead()
    assert (found.id, found.name, found.payload) == ("long", "", b"")
    assert found.error is not None
    assert f"takes {LONG} bytes" in found.error
    assert "max_payload" in found.error
    assert [record.id for record in world.jobs.scan(place="dead")] == ["long"]
    assert world.jobs.delete("long") == found
    assert world.jobs.get("long") is None
    assert Watched.longest == 0


def test_it_is_run_where_max_payload_was_raised(world: World) -> None:
    """A producer may store more than this runner reads: nothing of it is lost."""
    producer = JobQueue(storage=world.memory, clock=world.clock, namespace="test", max_payload=2 * LONG)

    @producer.job(name="work", queue="low")
    def work(number: int, padding: str) -> None: ...

    id = work.enqueue(7, "x" * LONG).id
    before = kept(world, id.encode()).record
    Sim(world).work()
    assert kept(world, id.encode()).record == before
    assert world.jobs.requeue(id).place == "ready", "unread, by one who reads no more than the runner"
    assert kept(world, id.encode()).record == before
    again = producer.get(id)
    assert again is not None
    assert producer.decode(again).arguments["number"] == 7
    larger = Sim(world, "b")
    larger.core.config = msgspec.structs.replace(
        larger.core.config, max_bytes=transitions.longest_record(producer.max_payload)
    )  # fmt: skip
    larger.settle()
    assert [task.id for task in larger.given] == [id.encode()]


def test_a_runner_with_a_small_max_payload_reads_what_is_stored_by_default() -> None:
    assert transitions.longest_record(1) == transitions.longest_record(transitions.MAX_PAYLOAD) == transitions.BYTES
    assert transitions.longest_record(5_000_000) > 5_000_000


@pytest.mark.parametrize("way", ["patrol", "hand_back"])
def test_a_rescue_takes_it_to_dead_unread_and_reads_a_megabyte_at_a_time(
    world: World, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    long = plant(world.memory, *[b"long-%d" % number for number in range(20)])
    plant(world.memory, *[b"large-%02d" % number for number in range(20)], size=400_000)
    claims = [transitions.claim(KEYS, b"gone", number, limit=500, now=0, lease=100, beat=50) for number in range(1, 30)]
    world.memory.apply(claims)
    storage, now = world.memory, [1_000_000]
    Watched.forget()

    def moment() -> Moment:
        now[0] += 1_000
        return Moment(now[0], float(now[0]))

    watch, rescued = Watch(), []
    for _ in range(3):
        flow = patrol(KEYS, watch, LEASE, moment) if way == "patrol" else hand_back(KEYS, b"gone", moment)
        rescued += run(flow, storage, world.clock)
    assert Watched.longest == 400_000
    assert Watched.largest <= transitions.BYTES
    assert len(rescued) == 40
    journal = Journal(RunnerStatus(), Reporter(logging.getLogger("test_long_records")))
    journal.observe(JobsRescued(rescued))
    told = [record.getMessage() for record in caplog.records if "long-7 " in record.getMessage()]
    assert told == [
        "job long-7 of queue low went to dead: its record is longer than max_payload allows and was not read"
    ]
    assert all(job.dead for job in rescued), "the others are no records"
    assert kept(world, b"long-7").record == long


def test_who_looks_reads_a_megabyte_at_a_time(world: World) -> None:
    ids = [b"large-%02d" % number for number in range(20)]
    plant(world.memory, *ids, size=400_000)
    plant(world.memory, b"long", *ids, size=400_000, queue="high")
    world.jobs.find(limit=1)
    assert Watched.largest <= transitions.BYTES, "one job is asked for"
    assert len(world.jobs.find()) == len(list(world.jobs.scan())) == 41
    assert len(list(world.jobs.scan(place="ready", queue="low"))) == 20
    assert Watched.largest <= transitions.BYTES
    Watched.forget()
    world.jobs.get("large-03")
    assert Watched.largest == 400_000, "an id that is in several queues is read from one"


def test_an_audit_mends_it_unread(world: World) -> None:
    record = plant(world.memory, b"long", b"longer")
    contents = world.memory._shared.contents
    del contents.lists["{test:low}:ready"]
    assert world.jobs.audit(mend=True).mended == 2
    assert kept(world, b"long") == Kept(record, "dead", world.clock.now(), None)


def test_records_that_are_sent_again_are_bounded_as_well(world: World) -> None:
    [id] = world.enqueue(1)
    record = world.jobs.get(id)
    assert record is not None
    stored = msgspec.structs.replace(record.stored, payload=b"x" * (world.jobs.max_payload + 1))
    long = msgspec.structs.replace(record, id="other", stored=stored)
    with pytest.raises(PayloadError, match="max_payload"):
        world.jobs.enqueue_records([long])


def test_nothing_asks_for_records_without_a_bound() -> None:
    asked = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("testing", "storage"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Records":
                asked.append((path.name, len(node.args)))
    assert len(asked) > 5
    assert [name for name, arguments in asked if arguments < 3] == []


MEASURED: str = """
import sys, threading
from jobqueue import JobQueue, Runner

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

jobs = JobQueue(sys.argv[1], namespace="test")

@jobs.job(queue="low")
def ok(): pass

ok.enqueue()
runner = Runner(jobs, threads=1)
thread = threading.Thread(target=lambda: runner.run(signals=False))
before = None
while jobs.counts()["low"].dead < int(sys.argv[2]):
    if before is None:
        before = peak()
        thread.start()
    threading.Event().wait(0.02)
print((peak() - before) // 1024)
runner.stop()
thread.join()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_a_runner_stays_small() -> None:
    """30 MB in ready, and 4 times 10 MB under leases of a runner that is gone."""
    server = start_server(kinds()[0])  # what is measured is the runner: one server is enough
    storage = open_redis(server.url).storage()
    try:
        ids = [b"%032d" % number for number in range(5)]
        for id, size in zip(ids, [10, 10, 10, 10, 30], strict=True):
            storage.apply([Batch(KEYS.scope, (Put(KEYS.ready, {id: b"x" * size * 1_000_000}),))])
            if size == 10:
                storage.apply([transitions.claim(KEYS, b"gone", int(id) + 1, limit=1, now=1, lease=1, beat=1)])
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, server.url, str(len(ids))], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 20, f"{done.stdout.strip()} MB more"
    finally:
        storage.close()
        server.stop()
