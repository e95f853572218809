"""What something else wrote into the storage stops no duty, keeps no runner busy, and is told once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from jobqueue import JobQueue, lookup, transitions
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.errors import StorageRefused
from jobqueue.record import parse_claim
from jobqueue.runner import rescue
from jobqueue.runner.aftermath import settle
from jobqueue.runner.duties import PRUNE_EVERY_MS
from jobqueue.runner.events import JobsRescued, RequestsSpoiled
from jobqueue.runner.journal import NAMED, Journal, RunnerStatus
from jobqueue.runner.patrol import APART
from jobqueue.runner.report import Reporter
from jobqueue.runner.rescue import Rescued
from jobqueue.runner_info import live_runners, read_beats
from jobqueue.storage.ops import (
    CLAIMS,
    RECORDS,
    Answer,
    Batch,
    Fields,
    HashKey,
    HashSet,
    Ids,
    Page,
    Put,
    Query,
    SetAdd,
    Sizes,
    claim_mark,
)
from jobqueue.storage.protocol import Storage
from jobqueue.storage.wrappers import Over
from tests.runner.sim import BEAT, LEASE, Sim, World
from tests.runner.test_duties import SPACE, Keeper, leave, register
from tests.servers import Server

DIGITS = b"9" * 5_000
"""More than Python makes an integer of."""


@pytest.fixture
def world() -> World:
    return World()


def ripen(keeper: Keeper) -> None:
    """Two looks, far enough apart to take what a dead runner held."""
    keeper.world.clock.advance(milliseconds=LEASE)
    keeper.round()
    keeper.world.clock.advance(milliseconds=2 * BEAT)
    keeper.round()


# ------------------------------------------------------------------------------------------------------- single values


@pytest.mark.parametrize("lease", [b"0", b"1", b"-5", b"x", b"\xb2", DIGITS])
def test_a_lease_that_no_runner_can_have_is_passed_over(world: World, lease: bytes) -> None:
    world.memory.apply([Batch("test", (SetAdd(SPACE.leases, {lease: 1, b"%d" % LEASE: 2}),))])
    leave(world)
    keeper = Keeper(world)
    ripen(keeper)
    assert len(keeper.rescued) == 1
    register(world, b"alive")
    assert [one.id for one in run(live_runners(SPACE, world.clock), world.memory, world.clock)] == ["alive"]


@pytest.mark.parametrize(
    "mark", [b"done:" + DIGITS, b"done:", b"done:x", DIGITS, b"\xff\xfe", b"", b"-1", b"99999999999999999999", b"a b c"]
)
def test_a_mark_of_the_search_that_cannot_be_read_begins_it_anew(world: World, mark: bytes) -> None:
    leave(world)
    world.memory.apply([Batch("test", (HashSet(SPACE.queues, {transitions.SEARCHED: mark}),))])
    ripen(Keeper(world))
    [fields] = world.memory.read([Fields(SPACE.queues)])
    assert isinstance(fields, dict)
    assert lookup.MARK.fullmatch(fields[transitions.SEARCHED]), "noted again as a search that ended"
    assert fields[transitions.SEARCHED].startswith(lookup.DONE)


@pytest.mark.parametrize(
    "beat", [b'{"host": "\xff"}', b"[" * 100_000, b'{"pid": %b}' % DIGITS, b"", b"null", b'{"host": "\\ud800"}']
)
def test_a_beat_that_cannot_be_read_is_passed_over(beat: bytes) -> None:
    assert read_beats({b"a": beat}) == {}


@pytest.mark.parametrize(
    "claim", [b":" * 1_000_000, b"0" * 1_000_000, b"a:" + b"0" * 1_000_000 + b":1:1", b"a:" + DIGITS + b":1", b"\xff"]
)
def test_a_claim_is_read_in_no_time_however_long(claim: bytes) -> None:
    owner, fence, beat = parse_claim(claim)
    assert claim.startswith(owner)
    assert len(owner) <= 200
    assert (fence, beat) == (0, 0)


def test_the_claims_of_runners_are_read() -> None:
    assert parse_claim(claim_mark(b"owner", 10**14, 5_000)) == (b"owner", 10**14, 5_000)


# ---------------------------------------------------------------------------------------------- a queue that is spoiled


class Odd(Over):
    """Queues of which nothing can be read, one way or the other; counts the requests about them."""

    def __init__(self, below: Storage, scopes: set[str], error: Exception) -> None:
        super().__init__(below)
        self.scopes = scopes
        self.error = error
        self.asked = 0

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        keys = [key for query in queries for key in getattr(query, "keys", (getattr(query, "set", SPACE.seen),))]
        if any(key.scope in self.scopes for key in keys):
            self.asked += 1
            raise self.error
        return super().read(queries)


@pytest.mark.parametrize("error", [StorageRefused("WRONGTYPE"), OverflowError("cannot convert"), UnicodeError("odd")])
def test_a_queue_that_cannot_be_read_stops_no_duty_of_others(world: World, error: Exception) -> None:
    """Whatever it is that reading it raises."""
    leave(world)
    keeper = Keeper(world)
    keeper.served = ["bad", "low"]
    register(world, b"silent")
    world.memory.apply([Batch("test", (SetAdd(SPACE.seen, {b"silent": 1}),))])
    odd = Odd(world.memory, {world.keys("bad").scope}, error)
    for _ in range(3):
        world.clock.advance(milliseconds=PRUNE_EVERY_MS)
        with pytest.raises(type(error)):
            run(keeper.duties.round(), odd, world.clock)
    assert len(keeper.rescued) == 1
    [runners] = world.memory.read([Fields(SPACE.runners)])
    assert runners == {}, "and those that are gone are forgotten"
    odd.scopes = set()
    run(keeper.duties.round(), odd, world.clock)


def test_queues_that_cannot_be_read_cost_one_request_each_and_only_some_of_them_a_round(world: World) -> None:
    keeper = Keeper(world, discover=False)
    keeper.served = [f"bad{number:03}" for number in range(50)] + ["low"]
    odd = Odd(world.memory, {world.keys(name).scope for name in keeper.served[:50]}, StorageRefused("WRONGTYPE"))
    asked = []
    for _ in range(6):
        odd.asked = 0
        with pytest.raises(StorageRefused):
            run(keeper.duties.round(), odd, world.clock)
        asked.append(odd.asked)
        world.clock.advance(milliseconds=BEAT)
    assert asked == [51, APART, APART, APART, APART, APART]
    odd.scopes = set()
    for _ in range(5):  # each in its turn
        run(keeper.duties.round(), odd, world.clock)
    assert not keeper.duties._patrol._apart


@pytest.mark.parametrize("name", ["queues", "leases"])
def test_what_is_asked_seldom_and_refused_fails_in_every_round_until_it_works(name: str, server: Server) -> None:
    """Not in turns, which would be two lines of the log each time."""
    world = World()
    key = f"{{test}}:{name}"
    with JobQueue(server.url, namespace="test") as jobs, server.client() as client:
        keeper = Keeper(world)
        storage = jobs.access.opened().storage()
        client.set(key, "x")
        world.clock.advance(milliseconds=PRUNE_EVERY_MS)
        for _ in range(6):
            with pytest.raises(StorageRefused, match=f"{name} holds a string") as caught:
                run(keeper.duties.round(), storage, world.clock)
            assert len(caught.traceback) < 20
            world.clock.advance(milliseconds=BEAT)
        client.delete(key)
        world.clock.advance(milliseconds=BEAT)
        run(keeper.duties.round(), storage, world.clock)


def test_a_lease_that_cannot_be_taken_makes_no_round_follow_the_other(world: World) -> None:
    """It stays ripe: the next round comes a beat later and not at once."""
    leave(world)
    keeper = Keeper(world)
    world.clock.advance(milliseconds=LEASE)
    keeper.round()
    world.clock.advance(milliseconds=2 * BEAT)
    started = world.clock.monotonic()
    odd = Odd(world.memory, set(), StorageRefused("WRONGTYPE"))
    odd.apply = lambda batches, /: [StorageRefused("WRONGTYPE") for _ in batches]  # type: ignore[method-assign]
    with pytest.raises(StorageRefused):
        run(keeper.duties.round(), odd, world.clock)
    assert keeper.duties.next_due(started) == started + BEAT


@pytest.mark.parametrize(
    "name", ["records", "claims", "requests", "counters", "wake", "ready", "waiting", "working", "dead"]
)
def test_a_key_of_another_kind_in_one_queue(server: Server, name: str) -> None:
    _check_spoiled(server, f"{{test:bad}}:{name}")


@pytest.mark.parametrize("name", ["queues", "runners", "seen", "leases"])
def test_a_key_of_another_kind_in_the_namespace(server: Server, name: str) -> None:
    _check_spoiled(server, f"{{test}}:{name}")


def _check_spoiled(server: Server, key: str) -> None:
    """All duties are tried with this key spoiled, on a server; the job of a dead runner in another queue comes back."""
    world = World()
    with JobQueue(server.url, namespace="test") as jobs, server.client() as client:
        storage = jobs.access.opened().backend.storage()
        keys = world.keys("low")
        now = world.clock.now()
        storage.apply(
            [
                transitions.put(keys, {b"1": b"x" * 20}, {}, {}),
                transitions.claim(keys, b"gone", 1, limit=1, now=now, lease=LEASE, beat=BEAT),
            ]
        )
        client.delete(key)
        client.set(key, "spoiled")
        keeper = Keeper(world)
        keeper.served = ["bad", "low"]
        for _ in range(3):
            world.clock.advance(milliseconds=PRUNE_EVERY_MS)
            with contextlib.suppress(StorageRefused):
                run(keeper.duties.round(), storage, world.clock)
        assert [job.id for job in keeper.rescued] == [b"1"]
        storage.close()


# --------------------------------------------------------------------------------------------------------------- floods


class Counting(Over):
    """Counts the requests, and looks how much each asks for."""

    def __init__(self, below: Storage) -> None:
        super().__init__(below)
        self.reads = 0

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        self.reads += 1
        for query in queries:
            assert not (isinstance(query, Fields) and query.fields is None), "all of a hash that anybody may fill"
            assert not isinstance(query, Page | Ids) or query.limit <= 1_000
            assert not isinstance(query, Sizes) or len(query.keys) <= 3
        assert len(queries) <= 401
        return super().read(queries)


def test_of_a_registry_with_very_many_names_so_many_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MOST_QUEUES", 2_000)
    names = {b"junk%05d" % number: b"0" for number in range(3_000)}
    world.memory.apply([Batch("test", (HashSet(SPACE.queues, names),))])
    leave(world)
    keeper, counting = Keeper(world), Counting(world.memory)
    world.clock.advance(milliseconds=PRUNE_EVERY_MS)
    started = world.clock.monotonic()
    run(keeper.duties.round(), counting, world.clock)
    assert len(keeper.served) == 2_001
    assert counting.reads < 60
    assert keeper.duties.next_due(started) >= started + 2_000, "it rests for what it has looked at"
    world.clock.advance(milliseconds=2 * BEAT)
    run(keeper.duties.round(), counting, world.clock)
    assert len(keeper.rescued) == 1


def test_of_very_many_expired_leases_so_many_are_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "MOST", 500)
    keys = world.keys()
    records = {b"%04d" % number: b"x" * 20 for number in range(1_200)}
    world.memory.apply([Batch(keys.scope, (Put(keys.working, records, score=1),))])
    world.enqueue(1, queue="other")
    Sim(world, "gone", weights={"other": 1}).settle()
    keeper, counting = Keeper(world), Counting(world.memory)
    keeper.served = ["low", "other"]
    counts = []
    world.clock.advance(milliseconds=LEASE)
    for _ in range(8):
        run(keeper.duties.round(), counting, world.clock)
        counts.append(len(keeper.rescued))
        world.clock.advance(milliseconds=2 * BEAT)
    assert counts[1] == 501, "those of other queues as well"
    assert counts[-1] == 1_201, "all in the end"


def test_leases_of_what_has_no_record_are_not_watched(world: World) -> None:
    """A million of them are gone through without keeping one in mind."""
    keys = world.keys()
    junk = {b"%04d" % number: b"x" * 20 for number in range(700)}
    world.memory.apply(
        [
            Batch(keys.scope, (Put(keys.working, junk, score=1),)),
            Batch(keys.scope, (Put(keys.dead, {b"kept": b"x" * 20}, score=world.clock.now()),)),
        ]
    )
    del world.memory._shared.contents.hashes[HashKey(keys.scope, RECORDS).full]
    keeper = Keeper(world)
    keeper.round()
    [size] = world.memory.read([Sizes((keys.working,))])
    assert (size, keeper.rescued) == ((0,), [])


def test_claims_of_a_dead_process_are_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "CLAIMS_PAGE", 2)
    world.enqueue(*range(5))
    Sim(world, "gone", threads=5).settle()
    Sim(world, "other", threads=5).settle()
    flow = rescue.hand_back(world.keys(), b"gone", lambda: Moment(world.clock.now(), world.clock.monotonic()))
    assert len(run(flow, Counting(world.memory), world.clock)) == 5
    assert world.numbers("ready") == [0, 1, 2, 3, 4]
    [claims] = world.memory.read([Fields(HashKey(world.keys().scope, CLAIMS))])
    assert claims == {}


def test_a_spoiled_queue_keeps_no_other_of_a_dead_process_waiting(world: World) -> None:
    world.enqueue(1, queue="low")
    Sim(world, "gone").settle()
    register(world, b"gone", queues={"bad": 1, "low": 1})

    class Refusing(Over):
        def apply(self, batches: Sequence[Batch], /) -> list[Any]:
            if any(batch.scope == world.keys("bad").scope for batch in batches):
                return [StorageRefused("WRONGTYPE") for _ in batches]
            return super().apply(batches)

    flow = settle(SPACE, b"gone", lambda: Moment(world.clock.now(), world.clock.monotonic()))
    assert len(run(flow, Refusing(world.memory), world.clock)) == 1


def test_wake_up_tokens_that_nobody_needs_are_taken_away(server: Server) -> None:
    """Each would wake a runner up for nothing."""
    world = World()
    with JobQueue(server.url, namespace="test") as jobs, server.client() as client:
        storage = jobs.access.opened().backend.storage()
        client.rpush("{test:low}:wake", *["1"] * 5_000)
        storage.apply([transitions.claim(world.keys(), b"a", 1, limit=1, now=5, lease=LEASE, beat=BEAT)])
        assert client.llen("{test:low}:wake") <= 1
        storage.close()


# -------------------------------------------------------------------------------------------------------- claim requests


def spoil(world: World, value: bytes, requester: bytes = b"a") -> None:
    keys = world.keys()
    world.memory.apply([Batch(keys.scope, (HashSet(keys.requests, {requester: value}),))])


@pytest.mark.parametrize("value", [transitions.CLOSED, b"10:9999999999,1:0,", b"400:" + DIGITS, b"", b"\xff", b"1:x,"])
def test_a_runner_goes_on_where_its_claim_requests_were_spoiled(world: World, value: bytes) -> None:
    runner = Sim(world, threads=1)
    world.enqueue(1)
    runner.work()
    spoil(world, value)
    world.enqueue(2, 3)
    runner.work()
    runner.wait(3)
    assert world.runs == {1: 1, 2: 1, 3: 1}
    assert [event.queue for event in runner.events if isinstance(event, RequestsSpoiled)] == ["low"]

    spoil(world, transitions.CLOSED, b"a.1")
    world.enqueue(4)
    runner.wait(3)
    assert world.runs[4] == 1, "again and again"


def test_requests_that_are_spoiled_all_the_time_are_begun_anew_less_and_less(world: World) -> None:
    runner = Sim(world, threads=1)
    world.enqueue(1)
    for renewals in range(20):
        spoil(world, transitions.CLOSED, transitions.requester_of(b"a", renewals))
    runner.wait(60)
    assert world.runs == {1: 1}
    assert 20 < world.sent.count("claim") < 30


def test_what_was_sent_before_takes_nothing_under_the_new_name(world: World) -> None:
    """A claim is carried out once at the most, also where its number was spoiled."""
    runner = Sim(world, threads=1)
    world.enqueue(1)
    runner.work()
    old = transitions.claim(world.keys(), b"a", 9, limit=5, now=world.clock.now(), lease=LEASE, beat=BEAT)
    spoil(world, transitions.CLOSED)
    world.enqueue(2)
    runner.wait(3)
    world.enqueue(3)
    [outcome] = world.memory.apply([old])
    assert getattr(outcome, "failed", None) == (1,)


def test_a_stop_refuses_the_claims_under_the_new_name(world: World) -> None:
    runner = Sim(world, threads=1)
    runner.work()
    spoil(world, transitions.CLOSED)
    world.enqueue(1)
    runner.wait(3)
    runner.core.unsure = True
    runner.core.stop(runner.at)
    runner.settle()
    [fields] = world.memory.read([Fields(world.keys().requests)])
    assert isinstance(fields, dict)
    assert fields[b"a.1"] == transitions.CLOSED


def test_the_new_requests_of_a_living_runner_are_kept_and_those_of_a_dead_one_forgotten(world: World) -> None:
    register(world, b"a")
    world.enqueue(1)
    junk = {b"x%d" % number: b"1" for number in range(700)}
    keys = world.keys()
    world.memory.apply(
        [Batch(keys.scope, (HashSet(keys.requests, {b"a.1": b"1:5,1:0,", b"b.1": b"1:5,1:0,", **junk}),))]
    )
    keeper = Keeper(world)
    keeper.prune()
    [fields] = world.memory.read([Fields(keys.requests)])
    assert isinstance(fields, dict)
    assert set(fields) == {b"a.1"}


def test_the_requests_of_a_runner_of_very_many_queues_are_kept(world: World) -> None:
    register(world, b"a", queues={f"{number:064}": 1 for number in range(10_000)})
    world.enqueue(1)
    keys = world.keys()
    world.memory.apply([Batch(keys.scope, (HashSet(keys.requests, {b"a": b"1:5,1:0,", b"b": b"1:5,1:0,"}),))])
    keeper = Keeper(world)
    keeper.prune()
    [fields] = world.memory.read([Fields(keys.requests)])
    assert isinstance(fields, dict)
    assert set(fields) == {b"a"}


def test_a_request_sent_again_answers_no_more_than_it_asked_for(server: Server) -> None:
    """Its ids were added by something else, with claims that say that it took them. In memory as on a server."""
    world = World()
    keys = world.keys()
    with JobQueue(server.url, namespace="test") as jobs:
        for storage in (world.memory, jobs.access.opened().backend.storage()):
            ids = [b"%d" % number for number in range(9)]
            storage.apply(
                [
                    transitions.put(keys, dict.fromkeys(ids, b"x" * 20), {}, {}),
                    transitions.claim(keys, b"a", 1, limit=9, now=5, lease=LEASE, beat=BEAT),
                ]
            )
            again = transitions.claim(keys, b"a", 1, limit=4, now=5, lease=LEASE, beat=BEAT)
            [outcome] = storage.apply([again])
            assert list(outcome.moved.ids) == ids[:4]  # type: ignore[union-attr]
            storage.apply([Batch(keys.scope, (HashSet(keys.requests, {b"a": b"0000000000001:1,"}),))])
            [outcome] = storage.apply([again])
            assert getattr(outcome, "failed", None) == (1,), "no runner writes so many digits"


# ------------------------------------------------------------------------------------------------------------ what is told


def test_what_is_spoiled_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(RunnerStatus(), Reporter(logging.getLogger("spoiled")))
    with caplog.at_level(logging.INFO, "spoiled"):
        for queue in ("low", "low", "high", "low"):
            journal.observe(RequestsSpoiled(queue))
    assert len(caplog.messages) == 2


def test_a_flood_of_rescues_is_no_flood_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(RunnerStatus(), Reporter(logging.getLogger("spoiled")))
    rescued = [Rescued(b"%d" % number, "low", f"r{number}", number % 2 == 0, 0) for number in range(1_000)]
    with caplog.at_level(logging.INFO, "spoiled"):
        journal.observe(JobsRescued(rescued))
    assert len(caplog.messages) == 2 * (NAMED + 1)
    assert "400 runners more" in caplog.messages[NAMED]
