"""The runner's core: retries, parking, unreadable records, poison, hand-backs and the stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import lookup, transitions
from jobqueue.flows import Apply, Flow, Read
from jobqueue.judge import is_suspect
from jobqueue.looking import Counts
from jobqueue.record import NONCE_SIZE
from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.decisions import Rest
from jobqueue.runner.execute import run_function
from jobqueue.runner.task import End
from jobqueue.storage.ops import Batch, Move, Put, These
from jobqueue.storage.protocol import Outcome
from jobqueue.testing import Fault
from tests.runner.sim import BEAT, LEASE, Sim, World

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.fixture
def world() -> World:
    return World()


def fail(number: int) -> None:
    raise ValueError(f"no {number}")


# ------------------------------------------------------------------------------------------------------------ retries


def test_the_retry_schedule(world: World) -> None:
    """2, 4, 8 … 1024, 1024, 1024 minutes: fourteen runs, then dead with its last error."""
    starts: list[int] = []

    def act(number: int) -> None:
        starts.append(world.clock.now())
        fail(number)

    world.act = act
    [id] = world.enqueue(1)
    runner = Sim(world)
    for _ in range(14):
        runner.work()
        world.clock.advance(milliseconds=max(0, world.stored(id).due - world.clock.now()))

    assert [(b - a) // MINUTE for a, b in itertools.pairwise(starts)] == [
        2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024,
    ]  # fmt: skip
    assert world.numbers("dead") == [1]
    stored = world.stored(id)
    assert stored.attempt == 14
    assert stored.error is not None
    assert stored.error.startswith("ValueError: no 1\n")
    assert world.counter("retried") == 13
    assert world.counter("dead") == 1


def test_never_early_never_forgotten(world: World) -> None:
    world.enqueue(1, delay=60)
    runner = Sim(world)
    runner.settle()
    world.clock.advance(milliseconds=59_999)
    runner.settle()
    assert not runner.given
    world.clock.advance(milliseconds=1)
    runner.settle()
    assert len(runner.given) == 1


def test_more_jobs_become_due_than_one_promotion_takes(world: World) -> None:
    world.enqueue(*range(transitions.LIMIT + 3), delay=1)
    runner = Sim(world, threads=50)
    world.clock.advance(seconds=1)
    runner.work()
    assert world.counter("done") == transitions.LIMIT + 3


@pytest.mark.parametrize(
    ("asks", "place", "attempt", "due"),
    [
        (Snooze(90), "waiting", 0, 90_000),
        (Retry(after=5), "waiting", 1, 5_000),
        (Retry(), "waiting", 1, 2 * MINUTE),
        (Discard("no use"), None, 0, 0),
    ],
    ids=["snooze", "retry after", "retry", "discard"],
)
@pytest.mark.parametrize("raised", [True, False], ids=["raised", "returned"])
def test_what_a_job_asks_for(
    world: World, asks: Exception, place: str | None, attempt: int, due: int, raised: bool
) -> None:
    def act(number: int) -> Any:
        if raised:
            raise asks
        return asks

    world.act = act
    [id] = world.enqueue(1)
    Sim(world).work()

    if place is None:
        assert world.jobs.get(id) is None
        assert world.counter("discarded") == 1
        return
    kept, stored = world.kept(id), world.stored(id)
    assert (kept.place, stored.attempt) == (place, attempt)
    assert kept.score == stored.due
    assert world.clock.now() - 5 <= kept.score - due <= world.clock.now()


def test_a_retry_that_is_asked_for_uses_one(world: World) -> None:
    world.act = lambda number: Retry(after=0)
    world.enqueue(1, retry=2)
    Sim(world).work()
    assert world.runs == {1: 3}
    assert world.numbers("dead") == [1]


def test_a_retry_is_one_request(world: World) -> None:
    """Record, place, due time and count change in one step, and jobs that fail together travel together."""
    world.act = fail
    ids = {id.encode() for id in world.enqueue(1, 2, 3)}
    runner = Sim(world, threads=3)
    runner.settle()
    requests: list[list[Batch]] = []
    send = runner.send

    def recorded(batches: Sequence[Batch]) -> list[Outcome]:
        requests.append(list(batches))
        return send(batches)

    runner.send = recorded  # type: ignore[method-assign]
    runner.run()
    runner.work()

    touching = [batch for batches in requests for batch in batches if ids & named(batch)]
    assert [(batch.step, named(batch)) for batch in touching] == [("retry", ids)]
    assert {world.kept(id.decode()).place for id in ids} == {"waiting"}
    assert {world.stored(id.decode()).attempt for id in ids} == {1}
    assert world.counter("retried") == 3


def named(batch: Batch) -> set[bytes]:
    """The jobs that a batch names."""
    return {id for op in batch.ops if isinstance(op, Move) and isinstance(op.pick, These) for id in op.pick.ids}


# ----------------------------------------------------------------------------------------------------- late operators


@pytest.mark.parametrize("operation", [lookup.delete, lookup.requeue], ids=["delete", "requeue"])
def test_what_was_asked_of_a_dead_job_and_arrives_after_its_next_death_changes_nothing(
    world: World, operation: Callable[..., Flow[Any]]
) -> None:
    """Both deaths are in one millisecond."""
    world.act = fail
    [id] = world.enqueue(1, retry=0)
    runner = Sim(world)
    runner.work()
    flow = operation([world.keys()], id.encode())
    request = next(flow)
    while isinstance(request, Read):
        request = flow.send(world.memory.read(request.queries))
    assert isinstance(request, Apply)
    world.jobs.requeue(id)
    at = world.clock.now()
    runner.core.woken(runner.at)
    while world.kept(id).place != "dead":
        runner.step()
        runner.run()
    assert world.clock.now() == at
    assert world.runs == {1: 2}

    world.memory.apply(request.batches)

    assert world.kept(id).place == "dead"
    flow.close()


# ------------------------------------------------------------------------------------------------------- unknown kinds


def other_kind(world: World) -> str:
    """A job of a kind that is declared elsewhere."""
    [id] = world.enqueue(1)
    kept = world.kept(id)
    world.jobs.delete(id)
    assert isinstance(kept.record, bytes)
    record = kept.record.replace(b"\xa4work", b"\xa4nope")
    assert record != kept.record
    world.memory.apply([Batch("test:low", (Put(world.keys().ready, {id.encode(): record}),))])
    return id


def test_an_unknown_kind_waits_for_a_runner_that_knows_it(world: World) -> None:
    id = other_kind(world)
    runner = Sim(world)
    start = world.clock.now()
    pauses = []
    while (kept := world.kept(id)).place != "dead":
        runner.work()
        kept, before = world.kept(id), world.clock.now()
        assert world.stored(id).attempt == 0
        if kept.place == "waiting":
            pauses.append(kept.score - before)
            world.clock.advance(milliseconds=kept.score - before)

    assert [round(pause / MINUTE) for pause in pauses[:8]] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert DAY <= world.clock.now() - start <= DAY + HOUR
    assert "nope" in (world.stored(id).error or "")


def test_a_runner_that_knows_the_kind_takes_it_up(world: World) -> None:
    id = other_kind(world)
    Sim(world, "old").work()
    assert world.kept(id).place == "waiting"
    done: list[int] = []

    @world.jobs.job(name="nope")
    def nope(number: int) -> None:
        done.append(number)

    world.clock.advance(minutes=1)
    Sim(world, "new").work()
    assert done == [1]


# ------------------------------------------------------------------------------------------------- unreadable records


@pytest.mark.parametrize(
    "record", [b"", b"\xff" * 3, b"noncenon", b"noncenon\xff\xfe", b"noncenon\x93\x01\x02\x03", b"x" * 5_000],
    ids=["empty", "short", "no fields", "no MessagePack", "wrong fields", "text"],
)  # fmt: skip
def test_an_unreadable_record_is_dead_with_bytes_and_reason_and_its_batch_goes_on(world: World, record: bytes) -> None:
    world.enqueue(1)
    world.memory.apply([Batch("test:low", (Put(world.keys().ready, {b"bad": record}),))])
    world.enqueue(2)

    Sim(world, threads=3).work()

    assert world.runs == {1: 1, 2: 1}
    [dead] = world.jobs.dead()
    assert dead.id == "bad"
    assert dead.payload == record
    assert dead.error
    assert dead.nonce == record[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0")


@pytest.mark.parametrize("field", [2, 3, 4, 6, 9], ids=["retry", "attempt", "recoveries", "due", "parked"])
@pytest.mark.parametrize("value", [-(2**60), 2**63 - 1])
def test_numbers_that_no_storage_can_keep_are_dead_and_harm_nobody(world: World, field: int, value: int) -> None:
    fields: list[Any] = ["work", b'{"number":1}', 13, 0, 0, 0, 0, None, 0, 0, 0]
    fields[field] = value
    record = b"noncenon" + msgspec.msgpack.encode(fields)
    world.act = fail
    world.memory.apply([Batch("test:low", (Put(world.keys().ready, {b"bad": record}),))])
    world.enqueue(2)

    Sim(world, threads=2).work()

    assert world.runs == {2: 1}
    assert [dead.id for dead in world.jobs.dead()] == ["bad"]


def test_arguments_that_do_not_fit_are_dead_at_once(world: World) -> None:
    [id] = world.enqueue(1)
    whole = world.kept(id).record
    assert isinstance(whole, bytes)
    record = whole.replace(b'{"number":1}', b'{"numbar":1}')
    world.jobs.delete(id)
    world.memory.apply([Batch("test:low", (Put(world.keys().ready, {b"unfit": record}),))])
    world.enqueue(2)

    Sim(world).work()

    assert world.runs == {2: 1}
    [dead] = world.jobs.dead()
    assert dead.payload == b'{"numbar":1}'
    assert dead.attempt == 0
    assert "PayloadError" in (dead.error or "")


@pytest.mark.parametrize("text", ["\udcff", "\ud800 and more", "\0\x1b[2J"])
def test_an_error_of_any_text_can_be_kept(world: World, text: str) -> None:
    def act(number: int) -> None:
        raise ValueError(text)

    world.act = act
    [id] = world.enqueue(1, retry=0)
    Sim(world).work()
    error = world.stored(id).error
    assert error is not None
    assert error.startswith("ValueError: ")


# -------------------------------------------------------------------------------------------------------------- poison


def live(world: World, name: str, *, poison: int, threads: int = 4) -> bool:
    """A runner's life: works until the poison is started, which ends it at once. Whether it was killed."""
    runner = Sim(world, name, threads=threads)
    for _ in range(1_000):
        then = runner.settle()
        for task in tuple(runner.given):
            if task.stored.payload == b'{"number":%d}' % poison:
                return True
            runner.run(task)
        if isinstance(then, Rest) and not runner.given and then.listen and not world.rung():
            return False
        world.clock.advance(milliseconds=5)
    raise AssertionError("it neither ends nor dies")


def test_a_job_that_kills_its_runners_is_dead_after_five_and_its_neighbours_are_not(world: World) -> None:
    ids = world.enqueue(*range(8))
    rescuer = Sim(world, "rescuer")
    deaths = 0
    while live(world, f"runner{deaths}", poison=5):
        deaths += 1
        assert rescuer.rescue(), "somebody died with it"
        assert deaths <= 5, "it kills on and on"

    assert deaths == 5
    assert world.numbers("dead") == [5]
    assert set(world.runs) == set(range(8)) - {5}
    assert world.counter("done") == 7
    stored = world.stored(ids[5])
    assert (stored.recoveries, stored.attempt) == (5, 0)
    assert "5 runners" in (stored.error or "")


def test_a_suspect_runs_alone(world: World) -> None:
    [first, *_] = world.enqueue(*range(4))
    for name in ("a", "b"):
        dying = Sim(world, name, threads=1)
        dying.settle()
        assert [task.id for task in dying.given] == [first.encode()]
        dying.rescue()
    assert world.stored(first).recoveries == 2
    runner = Sim(world, "c", threads=4)

    runner.settle()

    [task] = runner.given
    assert task.id == first.encode()
    assert world.stored(first).started == task.fence, "written before it starts"
    assert world.numbers("working") == [0]
    assert world.numbers("ready") == [1, 2, 3], "the others are back, in their order"
    runner.run()
    runner.wait(1)
    assert world.runs == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_suspect_waits_until_nothing_else_runs(world: World) -> None:
    runner = Sim(world, "c", threads=2)
    world.enqueue(9)
    runner.settle()
    [running] = runner.given
    assert running.take()
    [suspect] = world.enqueue(0)
    for name in ("a", "b"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue(runner)
    runner.core.woken(runner.at)
    runner.settle()
    assert runner.given == [running], "claimed, and not started beside another"
    assert world.stored(suspect).started == 0

    runner.given.clear()
    runner.core.returned([running], runner.at)
    runner.settle()

    assert [task.id for task in runner.given] == [suspect.encode()]
    assert world.counter("done") == 1, "the result of the other was stored first"


def test_an_orderly_end_forgives_crashes(world: World) -> None:
    world.act = fail
    [id] = world.enqueue(1)
    dying = Sim(world)
    dying.settle()
    dying.rescue()
    assert world.stored(id).recoveries == 1

    Sim(world, "b").work()

    stored = world.stored(id)
    assert (stored.recoveries, stored.attempt) == (0, 1)


def test_a_suspect_that_was_only_claimed_is_not_blamed(world: World) -> None:
    """Its runner dies of something else before it has started the suspect."""
    [id] = world.enqueue(0)
    for name in ("a", "b"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue()
    for name in ("c", "d", "e", "f"):
        world.fail("note", Fault.REQUEST_LOST)
        dying = Sim(world, name)
        dying.settle()
        assert not dying.given
        dying.rescue()
    assert world.stored(id).recoveries == 2
    assert world.jobs.counts()["low"] == Counts(waiting=0, ready=1, working=0, dead=0)


def test_a_lost_answer_to_the_note_is_asked_again(world: World) -> None:
    [id] = world.enqueue(0)
    for name in ("a", "b"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue()
    world.fail("note", Fault.REPLY_LOST)
    runner = Sim(world, "c")
    runner.wait(1)
    assert world.runs == {0: 1}
    assert world.jobs.get(id) is None


# -------------------------------------------------------------------------------------------------------------- rescue


def test_a_lease_is_taken_only_after_two_looks_and_two_beats_of_its_owner(world: World) -> None:
    world.enqueue(1)
    owner, observer = Sim(world, "a"), Sim(world, "b")
    owner.settle()
    world.clock.advance(milliseconds=LEASE)
    assert observer.look() == []
    assert observer.watch.next_look() == observer.at.local + 2 * BEAT
    world.clock.advance(milliseconds=2 * BEAT - 1)
    assert observer.look() == []
    owner.core.leases.held.clear()
    world.clock.advance(milliseconds=1)
    assert len(observer.look()) == 1


def test_a_living_owner_is_never_robbed(world: World) -> None:
    """However late its beats are: one of them changes the lease between two looks."""
    world.enqueue(1)
    owner, observer = Sim(world, "a"), Sim(world, "b")
    owner.settle()
    for _ in range(20):
        world.clock.advance(milliseconds=LEASE + 1)
        assert observer.look() == []
        owner.send([batch for batch, _ in owner.core.leases.extend(owner.at)])
        world.clock.advance(milliseconds=2 * BEAT)
        assert observer.look() == []


@pytest.mark.parametrize("ahead", [0, 2 * BEAT + 1, 365 * DAY])
def test_an_end_beyond_every_lease_counts_as_expired(world: World, ahead: int) -> None:
    """The server's clock was wrong for a while, and is right again."""
    world.enqueue(1)
    owner = Sim(world, "a")
    world.clock.advance(milliseconds=ahead)
    owner.settle()
    earlier = World()
    earlier.memory.restore(world.memory)
    observer = Sim(earlier, "b")
    assert observer.look() == []
    earlier.clock.advance(milliseconds=2 * BEAT)
    assert len(observer.look()) == (ahead > 0)


@pytest.mark.parametrize("claim", [b"junk", b"a:b:c", b"\xff:1:x"])
def test_a_claim_that_no_runner_wrote_is_rescued_as_well(world: World, claim: bytes) -> None:
    [id] = world.enqueue(1)
    Sim(world).settle()
    world.memory._shared.contents.hashes["{test:low}:claims"][id.encode()] = claim
    [rescued] = Sim(world, "b").rescue()
    assert rescued.id == id.encode()
    assert world.numbers("ready") == [1]


def test_rescued_jobs_return_to_the_head_in_their_order(world: World) -> None:
    world.enqueue(*range(250))
    owner = Sim(world, threads=240)
    owner.settle()
    assert len(owner.given) == 240

    rescued = Sim(world, "b").rescue()

    assert len(rescued) == 240
    assert world.numbers("ready") == list(range(250))
    assert world.counter("rescued") == 240


# ------------------------------------------------------------------------------------------------------- own processes


def test_a_job_whose_own_process_dies_again_and_again(world: World) -> None:
    """It goes back with the crash counted and is dead after five; what runs beside it does not have to end for that."""
    world.jobs.registry.add(attrs.evolve(world.work.kind, lane="process"))
    bad, good = world.enqueue(1, 2)
    runner = Sim(world, threads=4)
    for crashes in range(1, 6):
        runner.settle()
        tasks = {task.id.decode(): task for task in runner.given}
        assert set(tasks) == {bad, good}, "started beside its neighbour every time"
        if crashes == 1:
            assert tasks[good].take()
        died = tasks[bad]
        runner.given.remove(died)
        assert died.take()
        died.end, died.text = End.CRASHED, "its process died"
        runner.core.returned([died], runner.at)
        world.clock.advance(milliseconds=5)  # what it ends with may wait for others to travel with
        runner.step()
        if queue := runner.rung():
            runner.core.woken(runner.at, world.keys(queue).scope)
        stored = world.stored(bad)
        assert (stored.recoveries, stored.attempt) == (crashes, 0)
        assert stored.error is not None

    runner.settle()  # what an answer says is looked at with the next step
    assert world.numbers("dead") == [1]
    assert (runner.told("crashed"), runner.told("dead")) == (4, 1)
    [neighbour] = runner.given
    run_function(neighbour, world.clock.monotonic)
    runner.core.returned([neighbour], runner.at)
    runner.settle()
    assert world.counter("done") == 1


def test_a_job_in_a_process_that_runners_die_with_is_run_alone(world: World) -> None:
    """The system may kill a runner for the memory that its job's process uses."""
    world.jobs.registry.add(attrs.evolve(world.work.kind, lane="process"))
    first, *_ = world.enqueue(1, 2)
    for name in ("a", "b"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue()
    runner = Sim(world, "c", threads=4)
    runner.settle()
    assert [task.id.decode() for task in runner.given] == [first]


def test_a_suspect_that_its_runner_hands_back_is_a_suspect_still(world: World) -> None:
    """Its record said that it was started alone. It ended nobody, so the next to die with it is not its process."""
    world.jobs.registry.add(attrs.evolve(world.work.kind, lane="process"))
    [id] = world.enqueue(1)
    for name in ("a", "b"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue()
    runner = Sim(world, "c")
    runner.settle()
    [task] = runner.given
    assert world.stored(id).started == task.fence
    assert task.take()
    task.end, task.seen = End.HANDED_BACK, True
    runner.core.stop(runner.at)
    runner.core.returned([task], runner.at)
    runner.settle()

    assert world.numbers("ready") == [1]
    assert (world.stored(id).recoveries, world.stored(id).started) == (2, 0)
    assert is_suspect(world.stored(id), isolated=True)
