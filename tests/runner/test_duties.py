"""What every runner does besides running jobs: rescue, prune, register, discover; also when others are at it just then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.drive import Blocking, run
from jobqueue.errors import StorageRefused
from jobqueue.flows import Apply, Flow, Read, Request
from jobqueue.keys import QueueKeys, namespace_keys, queue_keys
from jobqueue.looking import Counts
from jobqueue.loops import drive
from jobqueue.record import rewrite
from jobqueue.runner.duties import PRUNE_EVERY_MS, Duties, Duty, Reports
from jobqueue.runner.prune import LATE_MS
from jobqueue.runner.rescue import Rescued, Watch, patrol
from jobqueue.runner_info import Beat
from jobqueue.storage.ops import Answer, Batch, Fields, HashSet, Move, Page, Query
from jobqueue.storage.protocol import Storage
from jobqueue.storage.wrappers import Over
from tests.runner.sim import BEAT, LEASE, Sim, World

SPACE = namespace_keys("test")


@pytest.fixture
def world() -> World:
    return World()


class Keeper:
    """The duties of one runner."""

    def __init__(self, world: World, *, keep_dead: int = 1_000, discover: bool = True) -> None:
        self.world = world
        self.rescued: list[Rescued] = []
        self.served = ["low"]
        self.seen_work = 0
        self.duties = Duties(
            SPACE, lambda: [world.keys(name) for name in self.served], lease=LEASE, beat=BEAT, keep_dead=keep_dead,
            moment=lambda: Moment(world.clock.now(), world.clock.monotonic()),
            reports=Reports(self.rescued.extend, self.serve, self.work),
            discover=discover,
        )  # fmt: skip

    def serve(self, name: str) -> None:
        if name not in self.served:
            self.served.append(name)

    def work(self, _: QueueKeys) -> None:
        self.seen_work += 1

    def round(self) -> None:
        run(self.duties.round(), self.world.memory, self.world.clock)

    def prune(self) -> None:
        """A round after so long that it prunes."""
        self.world.clock.advance(milliseconds=PRUNE_EVERY_MS)
        self.round()


def register(world: World, name: bytes, *, seen: int | None = None, **fields: Any) -> None:
    """A runner says that it is alive."""
    now = world.clock.now() if seen is None else seen
    plain = {
        "host": "h", "pid": 1, "started": 0, "seen": now, "lease": LEASE, "queues": {}, "threads": 1, "coroutines": 1,
        "version": "",
    }  # fmt: skip
    beat = Beat(**{**plain, **fields})
    world.jobs.length("low")  # the namespace has an epoch
    [meta] = world.memory.read([Fields(SPACE.meta)])
    assert isinstance(meta, dict)
    batch = transitions.register_runner(
        SPACE, name, msgspec.json.encode(beat), meta[b"epoch"], seen=beat.seen, lease=beat.lease
    )
    world.memory.apply([batch])


def claim(world: World, name: bytes, number: int, *, queue: str = "low") -> None:
    """A runner asks for jobs, and gets none or some."""
    now = world.clock.now()
    world.memory.apply([transitions.claim(world.keys(queue), name, number, limit=9, now=now, lease=LEASE, beat=BEAT)])


def requests(world: World, queue: str = "low") -> set[bytes]:
    [fields] = world.memory.read([Fields(world.keys(queue).requests)])
    assert isinstance(fields, dict)
    return set(fields)


def stepping(flow: Flow[Any], world: World, before: Callable[[Any], None]) -> Any:
    """Drive a flow; ``before`` is called with every request before it is carried out."""
    ask = Blocking(world.memory, world.clock)

    def noted(request: Request) -> Any:
        before(request)
        return ask(request)

    return drive(flow, noted)


# --------------------------------------------------------------------------------------------------------------- rescue


def leave(world: World, count: int = 1) -> None:
    """A runner claims jobs and is never seen again."""
    world.enqueue(*range(count))
    Sim(world, "gone", threads=count).settle()


def test_the_next_look_is_when_it_is_ripe(world: World) -> None:
    keeper = Keeper(world)
    leave(world)
    world.clock.advance(milliseconds=LEASE - 1)
    keeper.round()
    now = world.clock.monotonic()
    assert keeper.duties.next_due(now) == now + BEAT
    world.clock.advance(milliseconds=1)
    keeper.round()
    seen = world.clock.monotonic()
    world.clock.advance(milliseconds=BEAT + BEAT // 2)
    keeper.round()
    assert keeper.duties.next_due(world.clock.monotonic()) == seen + 2 * BEAT, "sooner than a whole beat"
    world.clock.advance(milliseconds=BEAT // 2)
    keeper.round()
    assert [job.incarnation for job in keeper.rescued] == ["gone"]
    assert keeper.rescued[0].idle == 2 * BEAT
    assert world.numbers("ready") == [0]


def test_a_lease_longer_than_its_own_is_respected(world: World) -> None:
    """Another runner was told to take longer leases. To take them for a jump of the clock would rob it while it is away."""
    keeper, longer = Keeper(world), 4 * LEASE
    world.enqueue(0)
    patient = Sim(world, "patient", lease=longer)
    patient.settle()
    register(world, b"patient", lease=longer)
    for _ in range(longer // BEAT - 1):
        world.clock.advance(milliseconds=BEAT)
        keeper.round()
    assert keeper.rescued == []
    assert world.numbers("working") == [0]
    for _ in range(1 + 2 * longer // LEASE):
        world.clock.advance(milliseconds=BEAT)
        keeper.round()
    assert [job.incarnation for job in keeper.rescued] == ["patient"], "two of its own beats after its end"


def test_two_observers_rescue_each_job_once(world: World) -> None:
    leave(world, 5)
    first, second = Watch(), Watch()
    world.clock.advance(milliseconds=LEASE)
    moment = lambda: Moment(world.clock.now(), world.clock.monotonic())  # noqa: E731
    for watch in (first, second):
        assert run(patrol(world.keys(), watch, LEASE, moment), world.memory, world.clock) == []
    world.clock.advance(milliseconds=2 * BEAT)
    others: list[Rescued] = []

    def before(request: Any) -> None:
        if isinstance(request, Apply) and not others:
            others.extend(run(patrol(world.keys(), second, LEASE, moment), world.memory, world.clock))

    mine = stepping(patrol(world.keys(), first, LEASE, moment), world, before)

    assert (len(mine), len(others)) == (0, 5)
    assert world.numbers("ready") == [0, 1, 2, 3, 4]
    assert world.counter("rescued") == 5
    assert {record.recoveries for record in world.jobs.find()} == {1}


@pytest.mark.parametrize("recoveries", [0, 4], ids=["", "a suspect that would be given up"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_an_owner_that_comes_back_just_then_keeps_its_job(world: World, which: int, recoveries: int) -> None:
    """Between any two steps of the second look."""
    [id] = world.enqueue(1)
    records = world.memory._shared.contents.hashes[f"{{{world.keys().scope}}}:records"]
    records[id.encode()] = rewrite(world.kept(id).record, recoveries=recoveries)
    owner = Sim(world, "owner")
    owner.settle()
    assert len(owner.given) == 1
    watch = Watch()
    world.clock.advance(milliseconds=LEASE)
    assert owner.look() == []
    moment = lambda: owner.at  # noqa: E731
    run(patrol(world.keys(), watch, LEASE, moment), world.memory, world.clock)
    world.clock.advance(milliseconds=2 * BEAT)
    steps = 0

    def before(_: Any) -> None:
        nonlocal steps
        if steps == which:
            owner.send([batch for batch, _ in owner.core.leases.extend(owner.at)])
        steps += 1

    rescued = stepping(patrol(world.keys(), watch, LEASE, moment), world, before)
    assert steps > which, "the look has so many steps"
    assert rescued == []
    assert world.numbers("working") == [1]
    assert world.stored(id).recoveries == recoveries
    world.clock.advance(milliseconds=LEASE)
    run(patrol(world.keys(), watch, LEASE, moment), world.memory, world.clock)
    world.clock.advance(milliseconds=2 * BEAT)
    [taken] = run(patrol(world.keys(), watch, LEASE, moment), world.memory, world.clock)
    assert taken.dead is (recoveries == 4), "it would have been taken otherwise"


def test_all_expired_leases_are_looked_at_however_many(world: World) -> None:
    leave(world, 1_203)
    while world.jobs.counts()["low"].ready:
        claim(world, b"gone", world.clock.now())
        world.clock.advance(milliseconds=1)
    keeper = Keeper(world)
    world.clock.advance(milliseconds=LEASE)
    keeper.round()
    world.clock.advance(milliseconds=2 * BEAT)
    keeper.round()
    assert len(keeper.rescued) == 1_203
    assert world.jobs.counts()["low"] == Counts(waiting=0, ready=1_203, working=0, dead=0)


def test_a_lease_longer_than_ours_is_no_jump_of_the_clock(world: World) -> None:
    """As long as its owner says how long its leases are."""
    world.enqueue(1)
    owner = Sim(world, "owner", lease=20 * LEASE)
    register(world, b"owner", lease=20 * LEASE)
    owner.settle()
    keeper = Keeper(world)
    for _ in range(5):
        keeper.round()
        world.clock.advance(milliseconds=LEASE)
    assert keeper.rescued == []


# --------------------------------------------------------------------------------------------------------------- prune


def test_old_dead_jobs_are_forgotten_and_others_kept(world: World) -> None:
    def fail(number: int) -> None:
        raise ValueError

    world.act = fail
    world.enqueue(*range(1_100), retry=0)
    Sim(world, threads=100).work()
    keeper = Keeper(world, keep_dead=11 * 60_000)
    world.clock.advance(minutes=4)
    world.enqueue(7_000, retry=0)
    Sim(world, "b").work()
    keeper.prune()
    assert world.jobs.counts()["low"].dead == 1_101, "not old enough"
    keeper.prune()
    assert world.numbers("dead") == [7_000]


def test_it_prunes_every_five_minutes(world: World) -> None:
    keeper = Keeper(world)
    pruned = 0

    def before(request: Any) -> None:
        nonlocal pruned
        if isinstance(request, Apply):
            moves = [op for batch in request.batches for op in batch.ops if isinstance(op, Move)]
            pruned += any(move.source == world.keys().dead for move in moves)

    for _ in range(119 * 5_000 // BEAT):
        stepping(keeper.duties.round(), world, before)
        world.clock.advance(milliseconds=BEAT)
    assert pruned == 1


def registered(world: World) -> set[bytes]:
    fields, seen = world.memory.read([Fields(SPACE.runners), Page(SPACE.seen, 99)])
    assert isinstance(fields, dict)
    assert isinstance(seen, tuple)
    assert set(fields) == {entry[0] for entry in seen}  # type: ignore[index]
    return set(fields)


def test_runners_that_ended_long_ago_are_forgotten_with_their_requests(world: World) -> None:
    """In all queues, also in those that the one who forgets them does not serve."""
    world.enqueue(1, queue="other")
    register(world, b"old")
    claim(world, b"old", 1)
    claim(world, b"old", 1, queue="other")
    world.clock.advance(milliseconds=LATE_MS)
    keeper = Keeper(world, discover=False)
    register(world, b"new")
    claim(world, b"new", 1)
    claim(world, b"unknown", 1)
    keeper.prune()
    assert registered(world) == {b"old", b"new"}, "one look is no proof"
    register(world, b"new")
    keeper.prune()
    assert registered(world) == {b"new"}
    assert requests(world) == {b"new"}
    assert requests(world, "other") == set()


def test_a_clock_that_jumps_makes_nobody_a_stranger(world: World) -> None:
    register(world, b"alive")
    claim(world, b"alive", 1)
    keeper = Keeper(world)
    world.clock.advance(milliseconds=2 * LATE_MS)  # in one step, before anybody could beat
    keeper.prune()
    register(world, b"alive")
    keeper.prune()
    assert registered(world) == {b"alive"}
    assert requests(world) == {b"alive"}


def test_what_a_round_reads_of_other_runners_does_not_grow_with_them(world: World) -> None:
    for number in range(1_200):
        register(world, b"%d" % number, lease=LEASE + number % 3)
    keeper, asked = Keeper(world), list[Query]()

    def before(request: Any) -> None:
        if isinstance(request, Read):
            asked.extend(request.queries)

    stepping(keeper.duties.round(), world, before)
    of_runners = [query for query in asked if "runners" in repr(query) or "seen" in repr(query)]
    assert of_runners == []
    [leases] = world.memory.read([Page(SPACE.leases, 99)])
    assert isinstance(leases, tuple)
    assert len(leases) == 3
    assert len(world.jobs.runners()) == 1_200

    world.clock.advance(days=1)
    world.clock.advance(milliseconds=1)
    keeper.prune()
    keeper.prune()
    assert registered(world) == set()
    assert world.memory.read([Page(SPACE.leases, 99)]) == [()]


def test_a_runner_that_starts_just_then_keeps_its_requests(world: World) -> None:
    """It registers and claims between any two steps; without its number a lost answer would be lost for good."""
    for which in range(12):
        keeper = Keeper(world)
        world.clock.advance(milliseconds=PRUNE_EVERY_MS)
        name = b"starting%d" % which
        steps = 0

        def before(_: Any, which: int = which, name: bytes = name) -> None:
            nonlocal steps
            if steps == which:
                register(world, name)
                claim(world, name, 1)
            steps += 1

        stepping(keeper.duties.round(), world, before)
        if steps > which:
            assert name in requests(world), f"forgotten when it started before step {which}"


# ------------------------------------------------------------------------------------------------------------ registry


@pytest.mark.parametrize(("ago", "listed"), [(0, ["a"]), (LEASE, ["a"]), (LEASE + 1, [])])
def test_a_runner_is_listed_for_a_lease(world: World, ago: int, listed: list[str]) -> None:
    register(world, b"a")
    world.clock.advance(milliseconds=ago)
    assert [runner.id for runner in world.jobs.runners()] == listed


def test_queues_are_discovered_and_served_ones_registered(world: World) -> None:
    world.enqueue(1, queue="other")
    keeper = Keeper(world)
    keeper.round()
    assert keeper.served == ["low", "other"]
    assert list(world.jobs.counts()) == ["low", "other"]
    quiet = Keeper(world, discover=False)
    quiet.round()
    assert quiet.served == ["low"]


def test_a_queue_whose_registration_was_removed_is_found_and_registered(world: World) -> None:
    """Also by a runner that does not serve it, for those who do."""
    world.enqueue(1, queue="other")
    for discover in (True, False):
        del world.memory._shared.contents.hashes[SPACE.queues.full]
        keeper = Keeper(world, discover=discover)
        keeper.round()
        assert keeper.served == (["low", "other"] if discover else ["low"])
        [fields] = world.memory.read([Fields(SPACE.queues)])
        assert b"other" in fields  # type: ignore[operator]


def test_a_search_is_made_again_after_a_day(world: World) -> None:
    """Somebody may have removed the entry of a single queue."""
    world.enqueue(1, queue="other")
    keeper = Keeper(world)
    keeper.round()
    del world.memory._shared.contents.hashes[SPACE.queues.full][b"other"]
    later = Keeper(world)
    later.round()
    assert later.served == ["low"]
    world.clock.advance(days=1)
    later.round()
    assert later.served == ["low", "other"]


@pytest.mark.parametrize(("due_in", "seen"), [(0, 1), (BEAT, 1), (BEAT + 1, 0)])
def test_work_is_told_of_if_nobody_rang(world: World, due_in: int, seen: int) -> None:
    """A job that is ready, or due before the next round."""
    keeper = Keeper(world)
    keeper.round()
    assert keeper.seen_work == 0

    world.enqueue(1, delay=due_in / 1000)
    keeper.round()

    assert keeper.seen_work == seen


def test_a_long_beat_does_not_make_looks_rare(world: World) -> None:
    duties = Duties(
        SPACE, lambda: [world.keys("low")], lease=60 * LEASE, beat=60 * BEAT, keep_dead=1_000,
        moment=lambda: Moment(world.clock.now(), world.clock.monotonic()),
        reports=Reports(lambda _: None, lambda _: None, lambda _: None), discover=False,
    )  # fmt: skip

    assert duties.next_due(1_000.0) == 6_000.0


def test_what_a_foreign_writer_left_in_the_registries_stops_nothing(world: World) -> None:
    junk = {b"\xff": b"", b"a:b": b"", b"{x}": b"", b"": b"", b"x" * 65: b""}
    world.memory.apply([
        Batch("test", (HashSet(SPACE.queues, junk), HashSet(SPACE.runners, {b"\xff": b"{", b"x": b"[]"}))),
    ])  # fmt: skip
    leave(world)
    keeper = Keeper(world)
    world.clock.advance(milliseconds=LEASE)
    keeper.round()
    world.clock.advance(milliseconds=2 * BEAT)
    keeper.round()
    assert keeper.served == ["low"]
    assert len(keeper.rescued) == 1
    assert list(world.jobs.counts()) == ["low"]
    assert len(world.jobs.find()) == 1


# --------------------------------------------------------------------------------------------------- what is out of order


class Spoiled(Over):
    """A storage in which a queue cannot be read, as if somebody had put a string where a sorted set belongs."""

    def __init__(self, below: Storage, queue: str) -> None:
        super().__init__(below)
        self._scope = queue_keys("test", queue).scope

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        if any(getattr(query, "set", SPACE.queues).scope == self._scope for query in queries):
            raise StorageRefused("WRONGTYPE")
        return super().read(queries)


def test_a_queue_that_cannot_be_read_keeps_no_other_from_being_rescued(world: World) -> None:
    keeper = Keeper(world)
    keeper.served = ["bad", "low", "worse"]
    leave(world)
    spoiled = Spoiled(Spoiled(world.memory, "bad"), "worse")
    for _ in range(4):
        world.clock.advance(milliseconds=LEASE)
        with pytest.raises(StorageRefused, match="WRONGTYPE"):
            run(keeper.duties.round(), spoiled, world.clock)

    assert [job.incarnation for job in keeper.rescued] == ["gone"]


def test_no_lease_is_too_long_to_be_true_before_somebody_said_how_long_they_are(world: World) -> None:
    """The node of the namespace is away from the start; the observer's own leases are short."""

    class Away(Over):
        def read(self, queries: Sequence[Query], /) -> list[Answer]:
            if any(
                getattr(query, "hash", getattr(query, "set", None)) in (SPACE.queues, SPACE.leases) for query in queries
            ):
                raise StorageRefused("the node of the namespace is away")
            return super().read(queries)

    keeper = Keeper(world)
    keeper.duties = Duties(
        SPACE, lambda: [world.keys()], lease=5_000, beat=833, keep_dead=1_000,
        moment=lambda: Moment(world.clock.now(), world.clock.monotonic()),
        reports=Reports(keeper.rescued.extend, lambda _: None, lambda _: None), discover=False,
    )  # fmt: skip
    leave(world)
    for _ in range(LEASE // 833):
        with pytest.raises(StorageRefused):
            run(keeper.duties.round(), Away(world.memory), world.clock)
        world.clock.advance(milliseconds=833)
    assert keeper.rescued == [], "its owner has until the end of its lease"


# ---------------------------------------------------------------------------------------------------------------- table


class Tabled:
    """Duties of a runner with another table, and what each round did."""

    def __init__(self, world: World, *table: tuple[str, float, bool]) -> None:
        self.world = world
        self.done: list[str] = []
        self.fails: set[str] = set()
        self.duties = Keeper(world).duties
        self.duties.table = tuple(Duty(name, every, self._flow(name), urgent) for name, every, urgent in table)
        self.start = world.clock.monotonic()
        self.duties._due = {name: self.start + (0 if urgent else every) for name, every, urgent in table}

    def _flow(self, name: str) -> Callable[[], Flow[None]]:
        def flow() -> Flow[None]:
            self.done.append(name)
            if name in self.fails:
                raise StorageRefused(name)
            yield from ()

        return flow

    def round(self, after: float = 0) -> list[str]:
        """What the round does that comes so many ms later."""
        self.world.clock.advance(milliseconds=after)
        self.done = []
        with contextlib.suppress(StorageRefused):
            run(self.duties.round(), self.world.memory, self.world.clock)
        return self.done


def test_a_duty_is_done_in_its_time_in_the_order_of_the_table(world: World) -> None:
    keeper = Tabled(world, ("urgent", 100, True), ("always", 0, False), ("seldom", 250, False))
    assert [keeper.round(after) for after in (0, 50, 50, 100, 49, 1)] == [
        ["urgent", "always"], ["always"], ["urgent", "always"], ["urgent", "always"], ["always"], ["always", "seldom"],
    ]  # fmt: skip


def test_a_duty_that_failed_keeps_no_other_waiting_and_comes_again_soon_if_it_is_urgent(world: World) -> None:
    keeper = Tabled(world, ("urgent", 100, True), ("seldom", 100, False))
    keeper.fails = {"urgent", "seldom"}
    assert [keeper.round(after) for after in (0, 100, 1, 1)] == [
        ["urgent"],
        ["urgent", "seldom"],
        ["urgent"],
        ["urgent"],
    ]


def test_a_round_raises_the_first_error(world: World) -> None:
    keeper = Tabled(world, ("one", 0, False), ("two", 0, False), ("three", 0, False))
    keeper.fails = {"two", "three"}
    with pytest.raises(StorageRefused, match="two"):
        run(keeper.duties.round(), world.memory, world.clock)
    assert keeper.done == ["one", "two", "three"]


def test_a_poked_duty_is_done_once_in_a_round_that_comes_as_soon_as_the_runner_has_rested(world: World) -> None:
    keeper = Tabled(world, ("always", 0, False), ("seldom", 1_000_000, False))
    keeper.round()
    now = world.clock.monotonic()
    assert keeper.duties.next_due(now) == now + BEAT
    keeper.duties.poke("seldom")
    assert keeper.duties.next_due(now) == now
    keeper.duties._rested = now + 7
    assert keeper.duties.next_due(now) == now + 7
    assert [keeper.round(), keeper.round()] == [["always", "seldom"], ["always"]]


def test_a_poke_while_the_duty_is_done_lets_it_be_done_again(world: World) -> None:
    """It may have looked before that of which it is told."""
    keeper = Tabled(world, ("seldom", 1_000_000, False))

    def poked_meanwhile() -> Flow[None]:
        keeper.done.append("seldom")
        if len(keeper.done) == 1:
            keeper.duties.poke("seldom")
        yield from ()

    keeper.duties.table = (Duty("seldom", 1_000_000, poked_meanwhile),)
    keeper.duties.poke("seldom")
    run(keeper.duties.round(), world.memory, world.clock)
    run(keeper.duties.round(), world.memory, world.clock)
    run(keeper.duties.round(), world.memory, world.clock)
    assert keeper.done == ["seldom", "seldom"]


def test_a_runner_whose_storage_lost_its_data_registers_its_queues_at_once(world: World) -> None:
    keeper = Keeper(world)
    keeper.round()
    del world.memory._shared.contents.hashes[SPACE.queues.full]
    keeper.round()
    assert world.memory.read([Fields(SPACE.queues)]) == [{}]
    keeper.duties.poke("ask queues")
    keeper.round()
    [fields] = world.memory.read([Fields(SPACE.queues)])
    assert b"low" in fields  # type: ignore[operator]
