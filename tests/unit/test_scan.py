"""Going through stored jobs while they move: what was there from begin to end comes once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue import (
    DeclarationError,
    JobNotFound,
    JobQueue,
    JobRecord,
    NotApplied,
    Place,
    Runner,
    Snooze,
    scan,
    transitions,
)
from jobqueue.storage.ops import Answer, Applied, Query, claim_mark
from tests.servers import kinds
from tests.unit.queue_bench import Bench

PLACES: Final = (None, *get_args(Place))
PATIENCE: Final = 30.0


class Moving:
    """Jobs that are moved at random, and what was in which place after each move."""

    def __init__(self, draw: Callable[[int], int], size: int) -> None:
        self.bench = Bench()
        self.draw = draw
        self.held: dict[bytes, tuple[str, bytes]] = {}
        self.snapshots: list[dict[str, str]] = []
        for _ in range(size):
            self.enqueue()
        for _ in range(size):
            self.move()
        self.snapshots.clear()
        self.look()

    def look(self) -> None:
        found = self.bench.jobs.find(limit=1_000)
        self.snapshots.append({record.id: record.place for record in found})

    def enqueue(self) -> None:
        queue = ("low", "high")[self.draw(2)]
        self.bench.work.opts(queue=queue, delay=self.draw(3) * 10).enqueue(self.draw(9))

    def pick(self, *places: str) -> str | None:
        ids = [record.id for record in self.bench.jobs.find(limit=1_000) if record.place in places]
        return ids[self.draw(len(ids))] if ids else None

    def move(self) -> None:
        """One move that a producer, a runner or a person makes."""
        bench, now = self.bench, self.bench.clock.now()
        queue = ("low", "high")[self.draw(2)]
        keys = bench.keys(queue)
        match self.draw(9):
            case 0:
                self.enqueue()
            case 1 | 2:
                moved = bench.claim(1 + self.draw(3), queue=queue)
                self.held.update({id: (queue, claim_mark(b"runner", moved.fence, 5_000)) for id in moved.ids})
            case 3:
                bench.clock.advance(self.draw(20))
                bench.memory.apply([transitions.promote(keys, bench.clock.now())])
            case 4 if (id := self.pick("dead", "waiting")) is not None:
                bench.jobs.requeue(id)
            case 5 if (id := self.pick("dead", "waiting", "ready")) is not None:
                bench.jobs.delete(id)
            case 6 if (id := self.pick("dead")) is not None:
                bench.jobs.requeue(id)
            case 7:
                of = {id: claim for id, (where, claim) in self.held.items() if where == queue}
                bench.memory.apply([transitions.extend(keys, of, now + 30_000 + self.draw(99))])
            case _ if self.held:
                id_, (where, claim) = list(self.held.items())[self.draw(len(self.held))]
                del self.held[id_]
                keys, claims = bench.keys(where), {id_: claim}
                batch = (
                    transitions.finish(keys, claims),
                    transitions.release(keys, claims),
                    transitions.move_out("retry", keys, claims, {}, {id_: now + self.draw(50)}),
                    transitions.move_out("bury", keys, claims, {}, {id_: now}),
                )[self.draw(4)]
                [outcome] = bench.memory.apply([batch])
                assert isinstance(outcome, Applied)
        self.look()


@settings(deadline=None, max_examples=80)
@given(st.randoms(use_true_random=False), st.sampled_from(PLACES), st.integers(1, 5), st.integers(0, 25))
def test_what_was_there_all_the_time_comes_once(random: Any, place: Place | None, page: int, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "PAGE", page)
        world = Moving(random.randrange, size)
        seen: list[JobRecord[Any]] = []
        for record in world.bench.jobs.scan(place=place):
            seen.append(record)
            for _ in range(random.randrange(3)):
                world.move()

    ids = [record.id for record in seen]
    assert [id for id, count in Counter(ids).items() if count > 1] == []
    matching = [{id for id, where in one.items() if place in (None, where)} for one in world.snapshots]
    assert set.intersection(*matching) <= set(ids) <= set.union(*matching)
    assert {record.place for record in seen} <= {place} or place is None


@pytest.mark.parametrize("act", ["requeue", "delete"])
@pytest.mark.parametrize("place", ["waiting", "ready", "dead"])
def test_each_can_be_moved_away_as_it_comes(place: Place, act: str) -> None:
    bench = Bench()
    records = bench.jobs.enqueue_many(bench.many(1_200, delay=60 if place == "waiting" else 0))
    if place == "dead":
        for record in records:
            bench.bury(record.id)
    for record in bench.jobs.scan(place=place):
        getattr(bench.jobs, act)(record)
    counts = bench.jobs.counts()["low"]
    assert (counts.waiting, counts.dead) == (0, 0)
    assert counts.ready == (1_200 if act == "requeue" else 0)


def test_what_comes_back_further_on_does_not_come_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where each is requeued, and a runner is quick to let it fail again."""
    monkeypatch.setattr(scan, "PAGE", 2)
    before = dead(bench, 7)
    seen = []
    for record in bench.jobs.scan(place="dead"):
        seen.append(record.id)
        bench.clock.advance(1)
        bench.jobs.requeue(record)
        bench.bury(record.id)
    assert seen == [record.id for record in before]


def test_filters() -> None:
    bench = Bench()

    @bench.jobs.job(name="other", queue="high")
    def other() -> None: ...

    work, late = bench.work.enqueue(1), bench.work.opts(delay=5).enqueue(2)
    far = other.enqueue()

    def ids(**filters: Any) -> set[str]:
        return {record.id for record in bench.jobs.scan(**filters)}

    assert ids() == {work.id, late.id, far.id}
    assert ids(queue="high") == ids(name="other") == {far.id}
    assert ids(place="waiting") == {late.id}
    assert ids(place="ready", name="work") == {work.id}
    assert ids(queue="nowhere") == ids(name="wrok") == set()


async def test_the_same_on_a_loop() -> None:
    bench = Bench()
    records = await bench.jobs.aenqueue_many(bench.many(700))
    assert {record.id async for record in bench.jobs.ascan()} == {record.id for record in records}
    assert [record async for record in bench.jobs.ascan(place="dead")] == []


def test_what_cannot_be_is_said_at_the_call() -> None:
    jobs = JobQueue("redis://nowhere.invalid", queues=["mail"])
    for call in (jobs.scan, jobs.ascan):
        with pytest.raises(ValueError, match="there is no place 'deda'"):
            call(place="deda")  # type: ignore[arg-type]
        with pytest.raises(DeclarationError, match="there is no queue 'mial'; did you mean 'mail'"):
            call(queue="mial")
        with pytest.raises(DeclarationError, match=r"name= is the name of a kind, .* not a function"):
            call(name=test_filters)  # type: ignore[arg-type]


def test_a_storage_that_goes_away_is_said_in_the_step() -> None:
    bench = Bench()
    bench.jobs.enqueue_many(bench.many(3))
    with bench.jobs.testing() as t:
        bench.jobs.enqueue_many(bench.many(600))
        steps = bench.jobs.scan()
        next(steps)
        with t.cut_server(), pytest.raises(NotApplied):
            list(steps)
        assert list(steps) == []


# ------------------------------------------------------------------------------------------------- beside a live runner


@pytest.mark.parametrize("kind", ["memory", *kinds()])
def test_beside_a_live_runner(kind: str, request: pytest.FixtureRequest) -> None:
    """Which takes jobs through three places while they are looked for, and others away."""
    jobs = JobQueue(namespace="shop")
    scanned = threading.Event()

    @jobs.job(name="later")
    def later(number: int) -> None:
        raise Snooze(3600)

    @jobs.job(name="gone")
    def gone() -> None: ...

    @jobs.job(name="held")
    async def held() -> None:
        while not scanned.is_set():  # noqa: ASYNC110 - an event of threads
            await asyncio.sleep(0.01)

    url = None if kind == "memory" else request.getfixturevalue("running_servers")(kind).url
    with jobs.testing(url=url):
        holding = jobs.enqueue_many([held.call() for _ in range(3)])
        stay = jobs.enqueue_many([call for number in range(1_500) for call in (later.call(number), gone.call())])[::2]
        runner = Runner(jobs, threads=2)
        thread = threading.Thread(target=runner.run, kwargs={"signals": False})
        thread.start()
        try:
            seen = Counter(record.id for record in jobs.scan())
        finally:
            scanned.set()
            runner.stop()
            thread.join(PATIENCE)
    expected = {record.id for record in (*stay, *holding)}
    assert expected - set(seen) == set()
    assert set(seen.values()) == {1}


# ------------------------------------------------------------------------------------------------------ pages of find


@pytest.fixture
def bench() -> Bench:
    return Bench()


def dead(bench: Bench, count: int) -> list[JobRecord[Any]]:
    for record in bench.jobs.enqueue_many(bench.many(count)):
        bench.clock.advance(1)
        bench.bury(record.id)
    return bench.jobs.dead(limit=count)


@pytest.mark.parametrize("act", ["requeue", "delete"])
@pytest.mark.parametrize("place", ["waiting", "dead"])
def test_a_page_leads_on_though_all_of_it_has_left(bench: Bench, place: Place, act: str) -> None:
    if place == "dead":
        expected = dead(bench, 25)
    else:
        expected = sorted(bench.jobs.enqueue_many(bench.many(25, delay=60)), key=lambda record: record.id)
    seen: list[JobRecord[Any]] = []
    while page := bench.jobs.find(place=place, limit=10, after=seen[-1] if seen else None):
        seen += page
        for record in page:
            getattr(bench.jobs, act)(record)
    assert seen == expected


def test_the_id_of_a_job_that_left_leads_nowhere_and_says_what_does(bench: Bench) -> None:
    first, second = dead(bench, 2)
    bench.jobs.delete(first)
    with pytest.raises(JobNotFound, match=r"its record, or its cursor.* or use scan\(\)"):
        bench.jobs.dead(after=first.id)
    assert bench.jobs.dead(after=first) == bench.jobs.dead(after=first.cursor) == [second]


def test_behind_a_ready_job_that_left_comes_what_is_left(bench: Bench) -> None:
    """It is at the head: those before it have been claimed, or were deleted with it."""
    expected = bench.jobs.enqueue_many(bench.many(25))
    seen: list[JobRecord[Any]] = []
    while page := bench.jobs.find(place="ready", limit=10, after=seen[-1] if seen else None):
        seen += page
        for record in page:
            bench.jobs.delete(record)
    assert [record.id for record in seen] == [record.id for record in expected]


def test_pages_of_all_places_may_be_deleted_too(bench: Bench) -> None:
    expected = {record.id for record in (*dead(bench, 15), *bench.jobs.enqueue_many(bench.many(15)))}
    expected |= {record.id for record in bench.jobs.enqueue_many(bench.many(15, delay=60))}
    seen: list[JobRecord[Any]] = []
    while page := bench.jobs.find(limit=4, after=seen[-1] if seen else None):
        seen += page
        for record in page:
            bench.jobs.delete(record)
    assert len(seen) == 45
    assert {record.id for record in seen} == expected


def test_what_was_left_standing_before_a_ready_job_that_left_comes_again(bench: Bench) -> None:
    first, second, third = bench.jobs.enqueue_many(bench.many(3))
    bench.jobs.delete(second)
    found = bench.jobs.find(place="ready", after=second)
    assert [record.id for record in found] == [first.id, third.id]


def test_a_record_from_elsewhere_is_no_place_to_go_on_from(bench: Bench) -> None:
    [record] = dead(bench, 1)
    with pytest.raises(JobNotFound, match="it stands in dead of queue 'low', where this search does not look"):
        bench.jobs.find(place="ready", after=record)
    with pytest.raises(JobNotFound, match="where this search does not look"):
        bench.jobs.find(queue="high", after=record)


def test_the_position_in_a_long_list_costs_a_few_calls(bench: Bench) -> None:
    records = bench.jobs.enqueue_many(bench.many(12_000))
    reads = 0
    original = bench.storage.read

    def read(queries: Sequence[Query], /) -> list[Answer]:
        nonlocal reads
        reads += 1
        return original(queries)

    bench.storage.read = read  # type: ignore[method-assign]
    assert bench.jobs.find(place="ready", after=records[11_900], limit=50) == records[11_901:11_951]
    assert reads < 8


# ---------------------------------------------------------------------------------------------- an id, or a record of it


CALLS: Final = ["get", "aget", "requeue", "arequeue", "delete", "adelete"]


async def call(bench: Bench, name: str, what: Any) -> Any:
    answer = getattr(bench.jobs, name)(what)
    return await answer if name.startswith("a") else answer


@pytest.mark.parametrize("name", CALLS)
async def test_a_record_is_as_good_as_an_id(bench: Bench, name: str) -> None:
    by_id, by_record = dead(bench, 2)
    assert (await call(bench, name, by_id.id)).id == by_id.id
    assert (await call(bench, name, by_record)).id == by_record.id


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("what", "said"),
    [
        (b"x" * 32, r"not a bytes: an id is a str, write id\.decode\(\)"),
        (uuid4(), r"not a UUID: an id is a str, write id\.hex"),
        (None, "not None: was the job looked for, and not there"),
        (7, "not an int"),
        (["0" * 32], "not a list"),
        ("\ud800", "is no id of a job: it is no text"),
        ("a call", "not a Call: it has no id until it is enqueued"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_neither_is_refused_in_words(bench: Bench, name: str, what: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        await call(bench, name, bench.work.call(1) if what == "a call" else what)


def test_siblings_refuse_in_words(bench: Bench) -> None:
    with pytest.raises(DeclarationError, match=r"find\(after=…\) takes the id of a job or its record, not a bytes"):
        bench.jobs.find(after=b"x")  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match=r"decode\(\) takes a record, .* not '0'"):
        bench.jobs.decode("0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be at least 1, not '5'"):
        bench.jobs.find(limit="5")  # type: ignore[arg-type]
