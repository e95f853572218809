"""A queue whose storage does not answer holds up no other: a node of a cluster that is away, a key that somebody spoilt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.runner.decisions import Rest
from jobqueue.runner.events import JobsEnded
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome
from tests.runner.sim import Sim, World


class Torn(Sim):
    """A runner that reaches the queue ``low`` alone while ``away`` holds what happens to calls of ``high``."""

    away: list[NotApplied | OutcomeUnknown]  # of each call; the last one goes on
    asked: int = 0
    is_delivered = False

    def send(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Apply batches, unless their queue is away."""
        good = [batch for batch in batches if not self.away or "high" not in batch.scope]
        outcomes = iter(super().send(good))
        if len(good) == len(batches):
            return list(outcomes)
        self.asked += 1
        if self.is_delivered and self.asked == 1:
            super().send([batch for batch in batches if batch not in good])
        lost = self.away[0] if len(self.away) == 1 else self.away.pop(0)
        return [next(outcomes) if batch in good else lost for batch in batches]


@pytest.fixture
def world() -> World:
    return World()


def torn(world: World, *away: NotApplied | OutcomeUnknown, threads: int = 4) -> Torn:
    runner = Torn(world, threads=threads, weights={"high": 1, "low": 1})
    runner.away = list(away)
    return runner


@pytest.mark.parametrize(
    "away",
    [
        (OutcomeUnknown("the node died"), NotApplied("connection refused")),
        (OutcomeUnknown("no answer"),),
        (StorageRefused("the key holds a string where a list belongs"),),
    ],
)
def test_the_other_queue_goes_on(world: World, away: tuple[NotApplied | OutcomeUnknown, ...]) -> None:
    world.enqueue(*range(100, 140), queue="high")
    world.enqueue(*range(40), queue="low")
    runner = torn(world, *away)
    began = runner.at.local
    runner.work()
    assert world.counter("done", "low") == 40
    assert runner.at.local - began < 100, "it waited for the other"
    assert runner.asked > 0


def test_a_queue_that_is_away_is_asked_less_and_less_and_found_again(world: World) -> None:
    world.enqueue(*range(100, 140), queue="high")
    runner = torn(world, NotApplied("connection refused"))
    runner.wait(60)
    assert 20 <= runner.asked <= 60, "every 1 to 2 s in the end"
    assert (runner.told("StorageAnswered"), runner.told("done")) == (0, 0)
    runner.away = []
    runner.wait(3)
    assert world.counter("done", "high") == 40
    assert runner.told("StorageAnswered") == 1


def test_what_an_unanswered_claim_took_is_run_once_its_queue_is_back(world: World) -> None:
    """Its room was given to others meanwhile: what is too much goes back, and nothing is lost or run twice."""
    world.enqueue(*range(100, 104), queue="high")
    runner = torn(world, OutcomeUnknown("the reply was lost"), NotApplied("connection refused"))
    runner.is_delivered = True
    runner.settle()
    assert world.jobs.counts()["high"].working == 2, "half of the room"
    world.enqueue(*range(4), queue="low")
    runner.core.woken(runner.at)
    runner.settle()
    assert len(runner.given) == 4, "no room was kept"
    for task in runner.given:
        task.take()  # they are long, and under way
    runner.away = []
    world.clock.advance(seconds=3)
    runner.settle()
    assert len(runner.given) == 6
    world.clock.advance(milliseconds=51)
    runner.settle()
    assert world.jobs.counts()["high"].ready == 4, "nobody waits for a thread that is not free"


def test_a_result_waits_for_its_own_queue_alone(world: World) -> None:
    world.enqueue(100, queue="high")
    world.enqueue(1, 2, queue="low")
    runner = torn(world)
    runner.settle()
    runner.away = [NotApplied("connection refused")]
    runner.work()
    assert world.counter("done", "low") == 2
    assert world.jobs.counts()["high"].working == 1
    runner.away = []
    runner.wait(3)
    assert world.counter("done", "high") == 1
    assert world.runs == {100: 1, 1: 1, 2: 1}


def test_strictly_the_queue_of_the_larger_weight_comes_first_whenever_it_has_work(world: World) -> None:
    world.enqueue(*range(4), queue="low")
    world.enqueue(*range(100, 104), queue="high")
    runner = Sim(world, weights={"low": 1, "high": 2}, strict=True)
    runner.work()
    done = [
        task.queue.queue
        for event in runner.events
        if isinstance(event, JobsEnded) and event.ending == "done"
        for task in event.tasks
    ]
    assert done == ["high"] * 4 + ["low"] * 4


def test_what_a_late_answer_brings_is_not_started_beside_a_suspect(world: World) -> None:
    [suspect] = world.enqueue(0)
    for name in ("b", "c"):
        dying = Sim(world, name)
        dying.settle()
        dying.rescue()
    world.enqueue(*range(100, 102), queue="high")
    runner = torn(world, OutcomeUnknown("the reply was lost"), NotApplied("connection refused"))
    runner.is_delivered = True
    runner.settle()
    [running] = runner.given
    assert (running.id, running.take()) == (suspect.encode(), True)

    runner.away = []
    world.clock.advance(seconds=3)
    runner.settle()

    assert runner.given == [running]
    assert world.jobs.counts()["high"].ready == 2


# ----------------------------------------------------------------------------------------------------- after a ring


def test_a_ring_brings_ready_jobs_first_and_waiting_ones_with_the_results(world: World) -> None:
    runner = Sim(world)
    runner.work()
    world.enqueue(1)
    world.enqueue(2, delay=60)
    world.sent.clear()

    runner.core.woken(runner.at)
    runner.settle()
    assert (len(runner.given), set(world.sent)) == (1, {"claim"})
    world.sent.clear()
    runner.run()
    runner.settle()
    assert {"finish", "promote"} <= set(world.sent)


def test_a_ring_of_one_queue_asks_that_queue_alone(world: World) -> None:
    runner = Sim(world, threads=4, weights={"high": 1, "low": 1})
    runner.work()
    world.enqueue(1)
    world.enqueue(2, queue="high")
    world.sent.clear()

    runner.core.woken(runner.at, world.keys("low").scope)
    runner.settle()
    assert (world.sent, len(runner.given), world.numbers("ready", "high")) == (["claim"], 1, [2])
    assert [*runner.core.weights] == ["high", "low"], "in this order they are shown, whichever was rung"
    runner.core.woken(runner.at, "a scope of which it knows nothing")
    runner.settle()
    assert len(runner.given) == 2


def test_a_runner_with_nothing_left_does_not_wake_up_to_take_jobs_back(world: World) -> None:
    runner = Sim(world)
    world.enqueue(1)
    then = runner.work()
    assert isinstance(then, Rest)
    assert (then.listen, then.until - runner.at.local > 1_000) == (True, True)


def test_a_queue_that_is_rung_all_the_time_does_not_drown_the_others(world: World) -> None:
    runner = Sim(world, threads=4, weights={"high": 1, "low": 1})
    runner.settle()
    waited = []
    for number in range(20):
        asked = len(world.runs)
        world.enqueue(number)
        for turn in range(1, 5):
            world.enqueue(1000 + 10 * number + turn, queue="high")  # a token of this one is there at every wait
            queue = runner.rung()
            assert queue is not None
            runner.core.woken(runner.at, world.keys(queue).scope)
            runner.settle()
            runner.run()
            if number in world.runs:
                waited.append(turn)
                break
        assert len(world.runs) > asked
    assert (len(waited), max(waited)) == (20, 2)


def test_with_more_than_one_claim_can_take_the_others_come_in_soon(world: World) -> None:
    runner = Sim(world, threads=1, weights={"high": 5, "low": 1})
    runner.work()
    world.enqueue(*range(50))
    world.enqueue(100, queue="high")
    runner.core.woken(runner.at, world.keys("low").scope)
    for _ in range(5):
        runner.settle()
        runner.run()
        world.clock.advance(milliseconds=1)
    assert 100 in list(world.runs)[:4]


def test_a_strict_runner_asks_all_of_its_queues_whichever_was_rung(world: World) -> None:
    runner = Sim(world, weights={"high": 2, "low": 1}, strict=True)
    runner.work()
    world.enqueue(1)
    world.enqueue(2, queue="high")
    runner.core.woken(runner.at, world.keys("low").scope)
    runner.settle()
    runner.run()
    assert list(world.runs) == [2]


def test_a_full_runner_that_is_rung_for_one_queue_passes_its_token_on_alone(world: World) -> None:
    runner = Sim(world, threads=1, weights={"high": 1, "low": 1})
    world.enqueue(1, 2)
    world.enqueue(3, queue="high")
    runner.settle()
    while runner.rung():
        pass  # what the enqueues and the claims rang

    runner.core.woken(runner.at, world.keys("low").scope)
    runner.settle()
    assert (world.rung("low"), world.rung("high")) == (True, False)


def test_a_runner_that_is_rung_all_the_time_still_takes_what_is_due(world: World) -> None:
    runner = Sim(world)
    runner.work()
    world.enqueue(1, delay=0.02)

    for _ in range(40):
        runner.core.woken(runner.at)
        runner.settle()
        world.clock.advance(milliseconds=1)

    assert len(runner.given) == 1


def test_a_job_with_a_free_place_starts_before_the_next_request(world: World) -> None:
    runner = Sim(world, threads=2)
    world.enqueue(1, 2)
    runner.step()

    assert len(runner.core.decide(runner.at).start) == 2


def test_what_was_claimed_ahead_is_looked_at_while_the_next_request_is_under_way(world: World) -> None:
    runner = Sim(world, threads=2)
    world.enqueue(*range(400))
    meanwhile = 0
    while len(world.runs) < 400:
        before = len(runner.given)
        decision = runner.step()
        meanwhile += len(runner.given) - before - len(decision.start)
        world.clock.advance(milliseconds=1)
        runner.run(*runner.given[:10])

    assert meanwhile > 0
    assert set(world.runs.values()) == {1}


def test_a_busy_runner_soon_finds_a_job_in_a_queue_that_was_empty(world: World) -> None:
    """Nobody rings it: it asks again every 20 ms, with the next claim that is worth a round trip."""
    world.enqueue(*range(900), queue="high")
    runner = Sim(world, threads=4, weights={"high": 1, "low": 1})
    runner.settle()
    waits = []
    asked: float | None = None
    for turn in range(220):
        if turn % 50 == 30:
            world.enqueue(1000 + turn)
            asked = runner.at.local
        runner.run(*runner.given[:4])
        world.clock.advance(milliseconds=1)
        runner.step()
        if asked is not None and not world.numbers("ready", "low"):
            waits.append(runner.at.local - asked)
            asked = None
    assert len(waits) == 4
    assert max(waits) < 50
