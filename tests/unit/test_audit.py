"""An audit finds what something else broke, mends it, and leaves alone what is whole; in memory and on servers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, Protocol

import pytest
import redis

from jobqueue import JobQueue, StorageRefused, audit, transitions
from jobqueue.drive import Blocking
from jobqueue.flows import Request
from jobqueue.keys import queue_keys
from jobqueue.looking import Counts
from jobqueue.loops import drive
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Moved, Page, claim_mark
from jobqueue.storage.sortedset import SortedSet
from jobqueue.testing import FakeClock, Fault
from tests.faults.ledger import await_that
from tests.runner.running import drained, running
from tests.servers import Server, kinds
from tests.storage.test_lockstep import dump_of
from tests.unit.queue_bench import Bench

KEYS: Final = queue_keys("test", "low")
NOW: Final = 1_700_000_000_000


class Wrecker(Protocol):
    """Writes to the keys of the queue as no batch can."""

    def delete(self, key: str) -> None: ...
    def take_out(self, key: str, id: bytes) -> None: ...
    def add(self, key: str, id: bytes, value: bytes | int = 0) -> None: ...
    def dump(self) -> object: ...


class InMemory:
    def __init__(self, storage: MemoryStorage) -> None:
        self.storage = storage
        self.contents = storage._shared.contents

    def delete(self, key: str) -> None:
        for table in (self.contents.lists, self.contents.sets, self.contents.hashes):
            table.pop(f"{{test:low}}:{key}", None)

    def take_out(self, key: str, id: bytes) -> None:
        name = f"{{test:low}}:{key}"
        if key == "ready":
            self.contents.lists[name].remove(id)
        elif key in ("records", "claims"):
            self.contents.hash_delete(name, (id,))
        else:
            self.contents.set_remove(name, (id,))

    def add(self, key: str, id: bytes, value: bytes | int = 0) -> None:
        name = f"{{test:low}}:{key}"
        if key == "ready":
            self.contents.lists.setdefault(name, deque()).append(id)
        elif isinstance(value, bytes):
            self.contents.hash_set(name, {id: value})
        else:
            self.contents.sets.setdefault(name, SortedSet()).add({id: value})

    def dump(self) -> object:
        return self.storage.dump()


class OnServer:
    def __init__(self, server: Server) -> None:
        self.client = server.client()

    def delete(self, key: str) -> None:
        self.client.delete(f"{{test:low}}:{key}")

    def take_out(self, key: str, id: bytes) -> None:
        name = f"{{test:low}}:{key}"
        if key == "ready":
            self.client.lrem(name, 1, id)  # type: ignore[arg-type]
        elif key in ("records", "claims"):
            self.client.hdel(name, id)
        else:
            self.client.zrem(name, id)

    def add(self, key: str, id: bytes, value: bytes | int = 0) -> None:
        name = f"{{test:low}}:{key}"
        if key == "ready":
            self.client.rpush(name, id)
        elif isinstance(value, bytes):
            self.client.hset(name, id, value)
        else:
            self.client.zadd(name, {id: value})

    def dump(self) -> object:
        return dump_of(self.client)


class Stage:
    """Jobs in every place, and who breaks them."""

    def __init__(self, jobs: JobQueue, wrecker: Wrecker) -> None:
        self.jobs, self.wrecker = jobs, wrecker
        self.storage = jobs.access.opened().backend.storage()
        self.claims: dict[bytes, bytes] = {}

        @jobs.job(name="work", retry=3)
        def work(number: int) -> None: ...

        self.work = work

    def put(self, place: str, number: int = 7) -> bytes:
        record = self.work.opts(delay=60 if place == "waiting" else 0).enqueue(number)
        id = record.id.encode()
        self.jobs.counts()  # the first look at a namespace notes that it has searched for lost registrations
        if place in ("working", "dead"):
            now = self.jobs.access.clock().now()
            batch = transitions.claim(KEYS, b"runner", now, limit=1, now=now, lease=30_000, beat=5_000)
            moved = self.apply(batch)
            assert moved.ids == (id,)
            self.claims[id] = claim_mark(b"runner", moved.fence, 5_000)
            if place == "dead":
                self.apply(transitions.move_out("bury", KEYS, {id: self.claims[id]}, {}, {id: now}))
        return id

    def apply(self, batch: Any) -> Moved:
        [outcome] = self.storage.apply([batch])
        assert isinstance(outcome, Applied)
        return outcome.moved


@pytest.fixture(params=["memory", *kinds()])
def stage(request: pytest.FixtureRequest, running_servers: Callable[[str], Server]) -> Iterator[Stage]:
    if request.param == "memory":
        storage = MemoryStorage()
        yield Stage(JobQueue(storage=storage, namespace="test"), InMemory(storage))
        return
    server = running_servers(request.param)
    server.flush()
    with JobQueue(server.url, namespace="test") as jobs:
        wrecker = OnServer(server)
        made = Stage(jobs, wrecker)
        yield made
        made.storage.close()
        wrecker.client.close()


# ----------------------------------------------------------------------------------------------------------- in no place


@pytest.mark.parametrize("place", ["ready", "waiting", "working", "dead"])
def test_a_job_whose_place_was_deleted_is_found_and_mended(stage: Stage, place: str) -> None:
    id = stage.put(place)
    stage.wrecker.delete(place)
    assert stage.jobs.counts()["low"] == Counts(0, 0, 0, 0), "nothing shows it"
    before = stage.wrecker.dump()

    looked = stage.jobs.audit()
    assert stage.wrecker.dump() == before, "a look changes nothing"
    mended = stage.jobs.audit(mend=True)

    assert looked == audit.Audit(1, 1, 0, (audit.Finding(id.decode(), "low", "work", "no place", ()),))
    assert (mended.broken, mended.mended, mended.findings[0].mended) == (1, 1, True)
    [record] = stage.jobs.dead()
    assert (record.id, record.payload, record.fence) == (id.decode(), b'{"number":7}', 0)
    assert record.error is not None
    assert record.error.startswith("an audit found this job in no place.")
    assert ("Runner runner had claimed it" in record.error) is (place == "working")
    assert stage.jobs.audit(mend=True) == audit.Audit(1, 0, 0, ())
    assert stage.jobs.requeue(record.id).place == "ready"
    assert stage.jobs.counts()["low"] == Counts(0, 1, 0, 0)


def test_a_job_that_a_script_dropped_half_way_is_found(server: Server) -> None:
    admin = server.client()
    with JobQueue(server.url, namespace="test") as jobs:
        stage = Stage(jobs, OnServer(server))
        id = stage.put("ready").decode()
        admin.execute_command("ACL", "SETUSER", "torn", "on", ">pw", "~*", "&*", "+@all", "-zadd")  # type: ignore[no-untyped-call]
        torn = redis.Redis(unix_socket_path=server.socket, username="torn", password="pw")
        claim = "local call, id = redis.call, redis.call('LPOP', KEYS[1]) "
        claim += "call('HSET', KEYS[2], id, 'x') call('ZADD', KEYS[3], 1, id)"
        with pytest.raises(redis.ResponseError):
            torn.eval(claim, 3, *[f"{{test:low}}:{name}" for name in ("ready", "claims", "working")])
        torn.close()
        admin.execute_command("ACL", "DELUSER", "torn")  # type: ignore[no-untyped-call]
        assert jobs.counts()["low"] == Counts(0, 0, 0, 0)

        found = jobs.audit(mend=True)

        assert [(each.id, each.broken, each.mended) for each in found.findings] == [(id, "no place", True)]
        [record] = jobs.dead()
        assert record.error is not None
        assert "a script of the server broke off half-way. Runner x had claimed it" in record.error
        stage.storage.close()
    admin.close()


def test_one_of_many_that_was_removed_from_the_list_is_found(stage: Stage) -> None:
    records = stage.jobs.enqueue_many([stage.work.call(number) for number in range(1200)])
    lost = records[700].id
    stage.wrecker.take_out("ready", lost.encode())
    counted: list[int] = []

    found = stage.jobs.audit(mend=True, watch=counted.append)

    assert [(each.id, each.broken, each.mended) for each in found.findings] == [(lost, "no place", True)]
    assert found.looked >= 1200
    assert counted[-1] == found.looked
    assert stage.jobs.counts()["low"] == Counts(0, 1199, 0, 1)


def test_what_cannot_be_read_is_mended_too(stage: Stage) -> None:
    stage.put("dead")  # so that the queue is known
    stage.wrecker.add("records", b"\xff", b"no record of ours")

    found = stage.jobs.audit(mend=True)

    assert [(each.id, each.name, each.mended) for each in found.findings] == [("\\xff", "", True)]
    [record] = [each for each in stage.jobs.dead() if not each.name]
    assert record.payload == b"no record of ours"
    assert record.error is not None
    assert "in no place" in record.error


def test_the_last_error_of_a_job_is_kept(stage: Stage) -> None:
    stage.put("dead")  # so that the queue is known
    stage.wrecker.add(
        "records", b"id", encode(b"nonce678", Stored("work", b"{}", 3, 1, 0, NOW, NOW, "no disk", died=NOW * 2))
    )

    stage.jobs.audit(mend=True)

    record = stage.jobs.get("id")
    assert record is not None
    assert record.error is not None
    assert record.error.endswith("Its last error before that: no disk")
    assert record.attempt == 1
    [page] = stage.storage.read([Page(KEYS.dead, 10)])
    assert (b"id", NOW * 2 + 1) in page, "above the time of its last death"  # type: ignore[operator]


# ------------------------------------------------------------------------------------------------- in several, or nobody's


@pytest.mark.parametrize(
    ("first", "second"),
    [("ready", "ready"), ("ready", "dead"), ("waiting", "ready"), ("working", "waiting"), ("dead", "working")],
)
def test_a_job_in_several_places_is_in_dead_afterwards(stage: Stage, first: str, second: str) -> None:
    id = stage.put(first)
    other = stage.put("waiting", 8)
    stage.wrecker.add(second, id, 5)

    found = stage.jobs.audit(mend=True)

    order = ("waiting", "ready", "working", "dead")
    places = tuple(sorted((first, second), key=order.index))
    assert [(each.broken, each.places, each.mended) for each in found.findings] == [("several places", places, True)]
    assert found.broken == 1
    [record] = stage.jobs.dead()
    assert record.id == id.decode()
    assert record.error is not None
    assert f"in several places at once ({', '.join(places)})" in record.error
    assert stage.jobs.counts()["low"] == Counts(1, 0, 0, 1)
    assert stage.jobs.get(other.decode()) is not None
    assert not stage.jobs.audit().broken


@pytest.mark.parametrize("place", ["ready", "waiting", "working", "dead", "claims"])
def test_an_entry_without_a_record_is_removed(stage: Stage, place: str) -> None:
    stage.put("dead")
    whole = stage.wrecker.dump()
    stage.wrecker.add(place, b"gone", b"x" if place == "claims" else 5)

    looked = stage.jobs.audit()
    found = stage.jobs.audit(mend=True)

    places = () if place == "claims" else (place,)
    assert [(each.id, each.broken, each.places) for each in looked.findings] == [("gone", "no record", places)]
    assert found.mended == 1
    assert stage.wrecker.dump() == whole


def test_a_claim_of_a_job_that_nobody_holds_is_removed(stage: Stage) -> None:
    id = stage.put("ready")
    whole = stage.wrecker.dump()
    stage.wrecker.add("claims", id, b"nobody")
    with pytest.raises(StorageRefused):
        stage.jobs.delete(id.decode())

    found = stage.jobs.audit(mend=True)

    assert [(each.broken, each.places, each.mended) for each in found.findings] == [("stale claim", ("ready",), True)]
    assert stage.wrecker.dump() == whole


# --------------------------------------------------------------------------------------------------------------- races


def test_a_runner_that_ends_the_job_after_it_was_mended_changes_nothing(stage: Stage) -> None:
    id = stage.put("working")
    stage.wrecker.delete("working")
    stage.jobs.audit(mend=True)
    mended = stage.wrecker.dump()

    assert stage.apply(transitions.finish(KEYS, stage.claims)).ids == ()
    assert stage.apply(transitions.extend(KEYS, stage.claims, NOW * 2)).ids == ()
    assert stage.apply(transitions.release(KEYS, stage.claims)).ids == ()

    assert stage.wrecker.dump() == mended
    assert stage.jobs.requeue(id.decode()).place == "ready"


def test_a_claim_that_comes_before_the_mending_wins() -> None:
    bench = Bench()
    id = bench.work.enqueue(1).id.encode()
    bench.jobs.counts()  # the first look notes that it has searched
    wrecker = InMemory(bench.memory)
    wrecker.add("dead", id, 5)

    def take() -> None:
        wrecker.take_out("dead", id)
        bench.claim()

    bench.meddle = take
    found = bench.jobs.audit(mend=True)

    assert (found.broken, found.mended) == (1, 1), "it is whole again, by itself"
    assert bench.jobs.counts()["low"] == Counts(0, 0, 1, 0)


def test_a_mending_whose_answer_is_lost_counts_as_mended() -> None:
    bench = Bench()
    bench.work.enqueue(1)
    bench.jobs.counts()
    InMemory(bench.memory).delete("ready")
    bench.fail(Fault.REPLY_LOST)

    found = bench.jobs.audit(mend=True)

    assert (found.broken, found.mended) == (1, 1)
    assert bench.jobs.counts()["low"] == Counts(0, 0, 0, 1)


async def test_it_is_awaited_as_well() -> None:
    bench = Bench()
    id = bench.work.enqueue(1).id
    InMemory(bench.memory).delete("ready")

    found = await bench.jobs.aaudit(mend=True)

    assert [each.id for each in found.findings] == [id]
    await bench.jobs.aclose()


class Busy:
    """A queue in memory at which something is done between any two steps of an audit."""

    def __init__(self, seed: int) -> None:
        self.random, self.storage, self.clock = Random(seed), MemoryStorage(), FakeClock()
        self.number = 0
        self.held: dict[bytes, bytes] = {}
        for _ in range(40):
            self.step()

    def step(self) -> None:
        """One of the things that producers, runners and operators do."""
        random, now = self.random, self.clock.now() + self.number
        self.number += 1
        some = dict(random.sample(sorted(self.held.items()), min(len(self.held), random.randrange(1, 6))))
        scores = dict.fromkeys(some, now + random.randrange(50))
        what = random.randrange(9)
        if what < 3 and len(self.storage._shared.contents.hashes.get("{test:low}:records", ())) < 100:
            records = {b"%d-%d" % (self.number, each): b"nonce%03dx" % each for each in range(random.randrange(6))}
            waiting = transitions.put(KEYS, {}, records, dict.fromkeys(records, now))
            self.apply(waiting if what else transitions.put(KEYS, records, {}, {}))
        elif what == 3:
            self.apply(transitions.promote(KEYS, now))
        elif what == 4:
            limit = random.randrange(12)
            batch = transitions.claim(KEYS, b"r", self.number, limit=limit, now=now, lease=30, beat=5)
            moved = self.apply(batch)
            self.held |= {id: claim_mark(b"r", moved.fence, 5) for id in moved.ids}
        elif what > 4:
            ends = (
                transitions.finish(KEYS, some),
                transitions.release(KEYS, some),
                transitions.move_out("retry", KEYS, some, {}, scores),
                transitions.move_out("bury", KEYS, some, {}, scores),
            )
            for id in self.apply(ends[what - 5]).ids:
                del self.held[id]

    def apply(self, batch: Any) -> Moved:
        [outcome] = self.storage.apply([batch]) if batch.ops else [Applied((Moved(()),))]
        assert isinstance(outcome, Applied)
        [answer] = outcome.answers
        return answer if isinstance(answer, Moved) else Moved(())

    def audit(self, *, mend: bool) -> audit.Audit:
        """An audit, with some steps before and after each of its own."""
        flow = audit.audit([KEYS], mend, self.clock, None)
        ask = Blocking(self.storage, self.clock, pauses=False)

        def between(request: Request) -> Any:
            if self.random.randrange(2):
                self.step()
            return ask(request)

        return drive(flow, between)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that a hundred jobs take many pages and looks."""
    for name, value in {"PAGE": 8, "OVERLAP": 4, "PORTION": 20, "FEW": 2, "LONG": 15}.items():
        monkeypatch.setattr(audit, name, value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(60))
def test_a_busy_queue_is_whole_and_what_is_broken_in_it_is_found(seed: int) -> None:
    busy = Busy(seed)
    assert busy.audit(mend=True).broken == 0

    wrecker = InMemory(busy.storage)
    busy.apply(
        transitions.put(KEYS, {}, {b"lost": b"nonce lost", b"two": b"nonce two"}, {b"lost": NOW * 2, b"two": NOW * 2})
    )
    wrecker.take_out("waiting", b"lost")
    wrecker.add("dead", b"two", NOW * 2)
    wrecker.add("dead", b"gone", NOW * 2)
    wrecker.add("claims", b"claimed", b"x")
    looked, found = busy.audit(mend=False), busy.audit(mend=True)

    broken = {"lost": "no place", "two": "several places", "gone": "no record", "claimed": "no record"}
    assert {each.id: each.broken for each in looked.findings} == broken
    assert (found.broken, found.mended) == (4, 4)
    assert {b"lost", b"two"} <= {id for _, id in wrecker.contents.sets["{test:low}:dead"]}
    assert busy.audit(mend=True).broken == 0


def test_a_runner_at_work_is_never_taken_for_broken(server: Server) -> None:
    with JobQueue(server.url, namespace="test") as jobs:
        ran: list[int] = []

        @jobs.job(name="work")
        def work(number: int) -> None:
            ran.append(number)

        found: list[audit.Audit] = []
        with running(jobs, threads=4):
            for turn in range(5):
                jobs.enqueue_many([work.call(number) for number in range(600 * turn, 600 * turn + 600)])
                found.append(jobs.audit(mend=True))
            await_that(drained(jobs), "all jobs ended")
        found.append(jobs.audit(mend=True))

    assert [each.findings for each in found] == [()] * len(found)
    assert sorted(ran) == list(range(3000))
