"""A runner of many queues: what a turn and a look cost grows with the queues that have work."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.errors import NotApplied
from jobqueue.keys import QueueKeys, namespace_keys
from jobqueue.runner.attempts import GROUP
from jobqueue.runner.core import FIRST_ASKED
from jobqueue.runner.decisions import Send
from jobqueue.runner.duties import Duties, Reports
from jobqueue.runner.greeting import doubtful
from jobqueue.runner.rescue import Rescued
from jobqueue.storage.ops import Answer, Page, Query
from jobqueue.storage.wrappers import Over
from tests.runner.sim import BEAT, LEASE, Sim, World

MANY = 400
NAMES = [f"q{number:03}" for number in range(MANY)]


@pytest.fixture
def world() -> World:
    return World()


def serving(world: World, *, threads: int = 8) -> Sim:
    return Sim(world, threads=threads, weights=dict.fromkeys(NAMES, 1))


@pytest.mark.parametrize("threads", [1, 8])
def test_jobs_spread_over_many_queues_cost_a_few_calls_each(world: World, threads: int) -> None:
    for number, name in enumerate(NAMES):
        world.enqueue(number, queue=name)
    runner = serving(world, threads=threads)

    runner.work()

    assert len(world.runs) == MANY
    assert len(world.sent) <= 6 * MANY, (
        "taken what is due, asked, claimed, ended; and asked twice more for the notification"
    )


def test_a_turn_of_a_busy_runner_does_not_ask_what_has_no_work(world: World) -> None:
    runner = serving(world)
    runner.work()
    world.enqueue(*range(200), queue=NAMES[7])
    runner.core.woken(runner.at, world.keys(NAMES[7]).scope)
    world.sent.clear()

    while len(world.runs) < 200:
        runner.settle()
        runner.run(*runner.given[:8])

    assert len(world.sent) <= 120


def test_a_busy_runner_of_many_queues_finds_work_in_an_empty_one_in_its_turn(world: World) -> None:
    """16 queues each 20 ms: the bound that the page of queues states."""
    runner = serving(world, threads=1)
    runner.work()
    world.enqueue(*range(2_000), queue=NAMES[7])
    runner.core.woken(runner.at, world.keys(NAMES[7]).scope)
    runner.settle()
    world.enqueue(5_000, queue=NAMES[300])

    began = runner.at.local
    while 5_000 not in world.runs:
        runner.run(*runner.given[:1])
        world.clock.advance(milliseconds=1)
        runner.settle()

    assert runner.at.local - began <= 20 * (MANY / 16 + 2)


class Counted(Over):
    """Counts the requests and the queues that they ask for expired leases; ``away`` queues fail."""

    def __init__(self, world: World) -> None:
        super().__init__(world.memory)
        self.requests = 0
        self.looked: list[str] = []
        self.away = ""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        self.requests += 1
        scopes = [query.set.scope for query in queries if isinstance(query, Page) and query.set.name == "working"]
        if self.away in scopes:
            raise NotApplied("its node is away")
        self.looked += scopes[::2]
        return super().read(queries)


class Keeper:
    """The duties of a runner that serves all of the queues."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.storage = Counted(world)
        self.rescued: list[Rescued] = []
        self.work: list[str] = []
        self.duties = Duties(
            namespace_keys("test"), lambda: [world.keys(name) for name in NAMES], lease=LEASE, beat=BEAT, keep_dead=1_000,
            moment=lambda: Moment(world.clock.now(), world.clock.monotonic()),
            reports=Reports(self.rescued.extend, lambda _: None, self.has_work), discover=False,
        )  # fmt: skip

    def has_work(self, queue: QueueKeys) -> None:
        self.work.append(queue.queue)

    def round(self) -> None:
        self.storage.looked.clear()
        self.storage.requests = 0
        self.work.clear()
        run(self.duties.round(), self.storage, self.world.clock)

    def later(self, milliseconds: float = BEAT) -> None:
        """The next round."""
        self.world.clock.advance(milliseconds=milliseconds)
        self.round()


def test_one_request_asks_a_hundred_queues(world: World) -> None:
    keeper = Keeper(world)
    keeper.round()
    keeper.later()
    assert keeper.storage.requests <= MANY / GROUP + 2


def test_empty_queues_are_looked_at_in_turn_and_those_with_jobs_every_time(world: World) -> None:
    world.enqueue(1, queue=NAMES[3])
    world.enqueue(2, queue=NAMES[9], delay=3_600)
    keeper = Keeper(world)
    keeper.round()

    rounds = []
    for _ in range(LEASE // BEAT):
        keeper.later()
        rounds.append(set(keeper.storage.looked))

    scopes = {world.keys(name).scope for name in NAMES}
    assert set.union(*rounds) == scopes, "each within a lease"
    assert max(map(len, rounds)) <= GROUP + 2
    assert all({world.keys(NAMES[3]).scope, world.keys(NAMES[9]).scope} <= looked for looked in rounds)
    assert keeper.work == [NAMES[3]]


@pytest.mark.parametrize("since_look", [0, 1, BEAT - 1])
@pytest.mark.parametrize("name", [NAMES[0], NAMES[150], NAMES[-1]])
def test_a_dead_runners_job_in_a_queue_that_was_empty_comes_back_in_time(
    world: World, name: str, since_look: int
) -> None:
    """Claimed right after the look: the queue is seen again before that lease can end."""
    keeper = Keeper(world)
    keeper.round()
    keeper.later()
    world.clock.advance(milliseconds=since_look)
    world.enqueue(1, queue=name)
    Sim(world, "gone", weights={name: 1}).settle()
    died = world.clock.monotonic()
    keeper.later(BEAT - since_look)

    while not keeper.rescued:
        wait = keeper.duties.next_due(world.clock.monotonic()) - world.clock.monotonic()
        keeper.later(max(1, wait))

    assert world.clock.monotonic() - died <= LEASE + 3 * BEAT
    assert world.numbers("ready", name) == [1]


def test_a_queue_that_is_away_keeps_none_of_its_request_from_being_looked_at(world: World) -> None:
    world.enqueue(1, queue=NAMES[4])
    keeper = Keeper(world)
    keeper.storage.away = world.keys(NAMES[3]).scope

    with pytest.raises(NotApplied, match="node is away"):
        keeper.round()

    assert len(keeper.storage.looked) == MANY - 1
    assert keeper.work == [NAMES[4]]


@pytest.mark.parametrize(("count", "warned"), [(1_000, 0), (1_001, 1)])
def test_a_runner_of_very_many_queues_says_what_that_means(world: World, count: int, warned: int) -> None:
    serving = {f"q{number}" for number in range(count)}
    lines = [line for line in doubtful(world.jobs, (), serving) if "queues" in line]
    assert len(lines) == warned
    assert all("serves 1,001 queues" in line and "--queues" in line for line in lines)


def test_rescues_are_in_time_while_queues_come_and_go(world: World) -> None:
    """What makes other queues empty or full must not make one of them wait for its turn again and again."""
    keeper = Keeper(world)
    keeper.round()
    chance = random.Random(7)
    died: dict[str, float] = {}
    worst = 0.0
    busy: set[str] = set()
    for turn in range(120):
        keeper.later()
        for job in keeper.rescued:
            worst = max(worst, world.clock.monotonic() - died.pop(job.queue))
        keeper.rescued.clear()
        for name in busy:
            world.jobs.delete(world.jobs.find(queue=name, limit=1)[0].id)
        busy = {*chance.sample(NAMES[::2], 60)} - died.keys() if turn % 2 else set()
        for name in busy:
            world.enqueue(turn, queue=name)
        seen = [name for name in NAMES[1::2] if world.keys(name).scope in keeper.storage.looked and name not in died]
        if turn % 5 == 0:
            [name] = chance.sample(seen, 1)
            world.enqueue(turn, queue=name)
            Sim(world, f"gone{turn}", weights={name: 1}).settle()
            died[name] = world.clock.monotonic()
    assert worst > 0
    late = [world.clock.monotonic() - since for since in died.values()]
    assert max([worst, *late]) <= LEASE + 3 * BEAT


def test_more_queues_with_something_due_than_one_request_asks_all_have_their_turn(world: World) -> None:
    names = NAMES[: FIRST_ASKED + 5]
    runner = Sim(world, threads=500, weights=dict.fromkeys(names, 1))
    runner.work()
    promoted: Counter[str] = Counter()
    for turn in range(6):
        for number, name in enumerate(names):
            world.enqueue(1_000 * turn + number, queue=name, delay=0.001)
        runner.core.woken(runner.at)
        world.clock.advance(milliseconds=30)
        then = runner.step().then
        assert isinstance(then, Send)
        promoted.update([batch.scope for batch in then.batches if batch.step == "promote"])
    assert len(promoted) == len(names)
