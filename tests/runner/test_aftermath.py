"""What a parent does for a runner whose process has ended: pure rules on the memory storage, late messages included."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jobqueue import transitions as t
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.flows import Apply, Read
from jobqueue.keys import QueueKeys, namespace_keys, queue_keys
from jobqueue.record import Stored, decode, encode, parse_claim, rewrite
from jobqueue.runner.aftermath import settle
from jobqueue.runner.rescue import Rescued
from jobqueue.runner_info import Beat, live_runners
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Batch, Fields, HashSet, Kept, Moved, Page, Query, Records, Refused, claim_mark
from jobqueue.testing import FakeClock

SPACE = namespace_keys("test")
LOW, HIGH = queue_keys("test", "low"), queue_keys("test", "high")
LEASE, BEAT = 30_000, 5_000
EPOCH = b"first"


class World:
    """A storage with two runners, ``a`` and ``b``."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.clock = FakeClock()
        self.apply(t.create_meta(SPACE, EPOCH))
        for name in (b"a", b"b"):
            self.apply(self.registration(name))

    @property
    def now(self) -> int:
        return self.clock.now()

    def apply(self, batch: Batch) -> Applied | Refused:
        [outcome] = self.memory.apply([batch])
        assert isinstance(outcome, Applied | Refused)
        return outcome

    def moved(self, batch: Batch) -> Moved:
        outcome = self.apply(batch)
        assert isinstance(outcome, Applied)
        [moved] = outcome.answers
        assert isinstance(moved, Moved)
        return moved

    def registration(self, name: bytes, queues: tuple[str, ...] = ("low", "high")) -> Batch:
        beat = Beat(
            host="h", pid=1, started=self.now, seen=self.now, lease=LEASE, queues=dict.fromkeys(queues, 1), threads=1,
            coroutines=1, version="0",
        )  # fmt: skip
        return t.register_runner(SPACE, name, msgspec.json.encode(beat), EPOCH, seen=beat.seen, lease=beat.lease)

    def put(self, queue: QueueKeys, *ids: bytes, recoveries: int = 0) -> None:
        stored = Stored("kind", b"{}", 13, 0, recoveries, self.now, self.now)
        self.apply(t.put(queue, {id: encode(id.ljust(8), stored) for id in ids}, {}, {}))

    def claim(self, queue: QueueKeys, name: bytes, limit: int, number: int = 1) -> Batch:
        return t.claim(queue, name, number, limit=limit, now=self.now, lease=LEASE, beat=BEAT)

    def settle(self, name: bytes) -> list[Rescued]:
        return run(settle(SPACE, name, lambda: Moment(self.now, 0.0)), self.memory, self.clock)

    def working(self, queue: QueueKeys) -> list[bytes]:
        return [id for id, _ in self.ask(Page(queue.working, 1000))]

    def stored(self, queue: QueueKeys, id: bytes) -> tuple[str, Stored]:
        kept = self.kept(queue, id)
        return kept.place, decode(kept.record)

    def kept(self, queue: QueueKeys, id: bytes) -> Kept:
        [kept] = self.ask(Records(queue.scope, (id,)))
        assert isinstance(kept, Kept)
        return kept

    def ask(self, query: Query) -> Any:
        [answer] = self.memory.read([query])
        return answer


@pytest.fixture
def world() -> World:
    return World()


def test_all_that_it_held_is_at_the_head_again_and_nothing_of_others(world: World) -> None:
    world.put(LOW, b"1", b"2", b"3", b"4")
    world.put(HIGH, b"5")
    world.moved(world.claim(LOW, b"a", 1))
    world.moved(world.claim(LOW, b"b", 1))
    world.moved(world.claim(LOW, b"a", 1, number=2))
    world.moved(world.claim(HIGH, b"a", 1))

    rescued = world.settle(b"a")

    assert [(job.id, job.queue, job.dead) for job in rescued] == [
        (b"5", "high", False),
        (b"1", "low", False),
        (b"3", "low", False),
    ]
    assert (world.working(LOW), world.working(HIGH)) == ([b"2"], [])
    assert world.moved(world.claim(LOW, b"b", 9, number=2)).ids == (b"1", b"3", b"4"), "in the order of their fences"
    assert world.stored(LOW, b"1")[1].recoveries == 1, "a crash counts as one"
    assert world.settle(b"a") == [], "asked again, there is nothing left"
    assert [runner.id for runner in run(live_runners(SPACE, world.clock), world.memory, world.clock)] == ["b"]


def test_more_jobs_than_one_step_takes_keep_their_order(world: World) -> None:
    ids = [b"%03d" % number for number in range(250)]
    world.put(LOW, *ids)
    for number in range(1, 6):
        world.moved(world.claim(LOW, b"a", 50, number=number))
    assert len(world.settle(b"a")) == 250
    assert list(world.moved(world.claim(LOW, b"b", 300)).ids) == ids


def test_a_claim_that_was_under_way_is_refused(world: World) -> None:
    world.put(LOW, b"1")
    late = world.claim(LOW, b"a", 1)
    world.settle(b"a")
    assert isinstance(world.apply(late), Refused)
    assert world.working(LOW) == [], "nobody would run it before its lease has ended"


def test_an_extension_that_comes_between_costs_another_pass(world: World) -> None:
    world.put(LOW, b"1", b"2")
    [one, two] = [world.moved(world.claim(LOW, b"a", 1, number=number)) for number in (1, 2)]
    claims = {id: claim_mark(b"a", moved.fence, BEAT) for moved in (one, two) for id in moved.ids}
    flow = settle(SPACE, b"a", lambda: Moment(world.now, 0.0))
    rescued: list[Rescued] = []
    answer: Any = None
    is_late = True
    try:
        while True:
            request = flow.send(answer)
            answer = None
            if isinstance(request, Read):
                answer = world.memory.read(request.queries)
                if is_late and isinstance(request.queries[0], Records):
                    is_late = False
                    world.moved(t.extend(LOW, claims, world.now + LEASE + 1))
            elif isinstance(request, Apply):
                answer = world.memory.apply(request.batches)
    except StopIteration as end:
        rescued = end.value

    assert not is_late
    assert [job.id for job in rescued] == [b"1", b"2"]
    assert world.moved(t.extend(LOW, claims, world.now + 2 * LEASE)).ids == (), "those that come later change nothing"


@pytest.mark.parametrize(
    ("recoveries", "noted", "place", "after"),
    [
        (0, False, "ready", 1),
        (1, False, "ready", 2),
        (2, False, "ready", 2),
        (2, True, "ready", 3),
        (4, True, "dead", 5),
    ],
)
def test_it_is_judged_like_any_crash(world: World, recoveries: int, noted: bool, place: str, after: int) -> None:
    world.put(LOW, b"1", recoveries=recoveries)
    moved = world.moved(world.claim(LOW, b"a", 1))
    if noted:
        record = rewrite(moved.records[0], started=moved.fence)
        world.moved(t.note(LOW, b"1", claim_mark(b"a", moved.fence, BEAT), record, world.now + LEASE))

    [job] = world.settle(b"a")

    assert job.dead is (place == "dead")
    where, stored = world.stored(LOW, b"1")
    assert (where, stored.recoveries) == (place, after)


def test_queues_that_only_the_runner_knew_and_names_that_nobody_could_give(world: World) -> None:
    world.apply(world.registration(b"a", ("secret",)))
    world.apply(Batch(SPACE.scope, (HashSet(SPACE.queues, {b"no:queue": b"1", b"\xff": b"1"}),)))
    secret = queue_keys("test", "secret")
    world.put(secret, b"1")
    world.moved(world.claim(secret, b"a", 1))
    assert [job.queue for job in world.settle(b"a")] == ["secret"]
    assert world.ask(Fields(queue_keys("test", "no:queue").requests)) == {}


def test_a_runner_that_never_said_a_word_is_no_trouble(world: World) -> None:
    world.put(LOW, b"1")
    world.moved(world.claim(LOW, b"b", 1))
    assert world.settle(b"nobody") == []
    claim = world.kept(LOW, b"1").claim
    assert claim is not None
    assert parse_claim(claim)[0] == b"b"


def test_a_runner_of_very_many_queues_is_known_like_any_other(world: World) -> None:
    """Its beat is longer than what else is kept in a hash."""
    world.apply(world.registration(b"a", ("low", *(f"{number:064}" for number in range(10_000)))))
    assert {runner.id for runner in run(live_runners(SPACE, world.clock), world.memory, world.clock)} == {"a", "b"}
    world.put(LOW, b"1")
    world.moved(world.claim(LOW, b"a", 1))
    assert [job.id for job in world.settle(b"a")] == [b"1"]
