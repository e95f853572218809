"""Any order of events, faults and crashes: no job is lost, no lease robbed, no core spins, everything comes to its end."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.retry import Discard, Retry, Snooze
from jobqueue.runner.decisions import Leave, Rest
from jobqueue.runner.task import Task
from jobqueue.testing import Fault
from tests.runner.sim import LEASE, Sim, World

QUEUES = ("high", "low")
STEPS = ("any", "claim", "finish", "retry", "bury", "release", "promote", "note", "close")
WAITS = (1, 2, 19, 50, 51, 700, 5_000, LEASE, 2 * LEASE)


def ending(number: int) -> Any:
    """What a job with this argument does."""
    match number % 7:
        case 0:
            raise ValueError("always")
        case 1:
            return Snooze(1)
        case 2:
            return Discard()
        case 3:
            raise Retry(after=0)
        case _:
            return None


class Runners(RuleBasedStateMachine):
    """Two runners, whatever happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.act = self.act
        self.accepted: dict[str, str] = {}  # id → queue
        self.last = 0
        self.named = 0
        self.running: list[tuple[Sim, Task]] = []
        self.gone: set[Sim] = set()
        self.snoozed: set[int] = set()

    def act(self, number: int) -> Any:
        if number % 7 == 1 and number in self.snoozed:
            return None
        self.snoozed.add(number)
        return ending(number)

    @initialize(threads=st.integers(1, 3))
    def start(self, threads: int) -> None:
        self.threads = threads
        self.sims = [self.fresh(), self.fresh()]
        for queue in QUEUES:
            self.enqueue(7, queue, 0)

    def fresh(self) -> Sim:
        self.named += 1
        return Sim(self.world, f"r{self.named}", threads=self.threads, weights={"high": 2, "low": 1}, grace=3_000)

    @rule(count=st.integers(1, 6), queue=st.sampled_from(QUEUES), delay=st.sampled_from([0, 0, 0.01, 3]))
    def enqueue(self, count: int, queue: str, delay: float) -> None:
        numbers = range(self.last, self.last + count)
        self.last += count
        self.accepted.update(dict.fromkeys(self.world.enqueue(*numbers, queue=queue, delay=delay, retry=1), queue))

    @rule(which=st.integers(0, 1), times=st.integers(1, 4))
    def step(self, which: int, times: int) -> None:
        sim = self.sims[which]
        for _ in range(times):
            then = sim.step().then
            if isinstance(then, Rest):
                assert then.until > sim.at.local, "a rest that is over at once"
            if isinstance(then, Leave):
                self.leave(sim)
                return

    @rule(which=st.integers(0, 1), turns=st.integers(1, 5), started=st.integers(0, 3), ended=st.integers(0, 3))
    def work(self, which: int, turns: int, started: int, ended: int) -> None:
        """Some turns of a runner; in each, some jobs are begun and go on, and some are begun and end."""
        sim = self.sims[which]
        for _ in range(turns):
            if isinstance(sim.settle(), Leave):
                self.leave(sim)
                return
            for task in sim.given[:ended]:
                sim.run(task)
            for task in sim.given[:started]:
                self.begin(sim, task)
            self.world.clock.advance(milliseconds=2)
            if queue := sim.rung():
                sim.core.woken(sim.at, self.world.keys(queue).scope)

    def begin(self, sim: Sim, task: Task) -> None:
        sim.given.remove(task)
        # A thread would not begin it without a lease; `Sim.run` covers that.
        if not task.lease_lost and task.deadline > sim.at.local and task.take():
            self.running.append((sim, task))

    def leave(self, sim: Sim) -> None:
        self.gone.add(sim)
        self.sims[self.sims.index(sim)] = self.fresh()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A job that was running ends."""
        sim, task = data.draw(st.sampled_from(self.running))
        self.running.remove((sim, task))
        number = int(task.stored.payload[10:-1])
        self.world.runs[number] += 1
        try:
            outcome = self.act(number)
        except (ValueError, Retry) as error:
            outcome = error
        task.outcome = outcome
        task.text = str(outcome)
        if sim not in self.gone:
            sim.core.returned([task], sim.at)

    @rule(ms=st.sampled_from(WAITS))
    def wait(self, ms: int) -> None:
        self.world.clock.advance(milliseconds=ms)

    @rule(which=st.integers(0, 1), beats=st.booleans(), looks=st.booleans())
    def beat(self, which: int, beats: bool, looks: bool) -> None:
        sim = self.sims[which]
        if beats:
            sim.beat()
        if looks:
            sim.look()

    @rule(which=st.integers(0, 1), waits=st.sampled_from([1, 2, 3]))
    def out_of_touch(self, which: int, waits: int) -> None:
        """A runner does not beat for longer than a lease, and the other looks."""
        for _ in range(waits):
            self.world.clock.advance(milliseconds=LEASE // 2 + 1)
            self.sims[1 - which].beat()
            self.sims[1 - which].look()

    @rule(which=st.integers(0, 1), rare=st.integers(0, 4), what=st.sampled_from(["crash", "stop", "stop", "renew"]))
    def happen(self, which: int, rare: int, what: str) -> None:
        sim = self.sims[which]
        if rare:
            sim.core.woken(sim.at)
        elif what == "crash":
            self.leave(sim)
        elif what == "stop":
            sim.core.stop(sim.at)
        else:
            self.named += 1
            sim.core.renew(b"n%d" % self.named)

    @rule(step=st.sampled_from(STEPS), fault=st.sampled_from(Fault))
    def fault(self, step: str, fault: Fault) -> None:
        self.world.fail(step, fault)

    @rule(turns=st.integers(1, 4), which=st.integers(0, 1))
    def storage_away(self, turns: int, which: int) -> None:
        self.world.away = True
        for _ in range(turns):
            self.sims[which].step()
            self.world.clock.advance(milliseconds=300)
        self.world.away = False

    @precondition(lambda self: self.world.storage.stalled)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        self.world.storage.deliver(data.draw(st.integers(0, len(self.world.storage.stalled) - 1)))

    # ------------------------------------------------------------------------------------------------------- always

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        dump: dict[str, Any] = self.world.memory.dump()
        for queue in QUEUES:
            prefix = f"{{test:{queue}}}:"
            places = [*dump.get(prefix + "ready", [])]
            for place in ("waiting", "working", "dead"):
                places += [id for id, _ in dump.get(prefix + place, [])]
            assert len(places) == len(set(places)), "a job is in two places"
            assert set(places) == set(dump.get(prefix + "records", {})), "a place without a record, or the other way"
            working = {id for id, _ in dump.get(prefix + "working", [])}
            assert working == set(dump.get(prefix + "claims", {})), "a claim outside of working"

    @invariant()
    def what_ended_was_counted_once(self) -> None:
        if not self.accepted:
            return
        for queue in QUEUES:
            ids = [id for id, where in self.accepted.items() if where == queue]
            stored = sum(self.world.jobs.get(id, queue=queue) is not None for id in ids)
            ended = self.world.counter("done", queue) + self.world.counter("discarded", queue)
            assert len(ids) == stored + ended

    @invariant()
    def no_job_is_held_twice_with_certainty(self) -> None:
        held = [
            task.id
            for sim in getattr(self, "sims", ())
            for task in sim.core.leases.held.values()
            if not task.lease_lost and task.deadline > sim.at.local and not task.returned
        ]
        assert len(held) == len(set(held)), "two runners believe in their leases of one job"

    # ------------------------------------------------------------------------------------------------------- the end

    def teardown(self) -> None:
        """Once faults stop, everything comes to its end."""
        if not hasattr(self, "sims"):
            return
        self.world.faults.clear()
        self.world.away = False
        while self.running:
            sim, task = self.running.pop()
            if sim not in self.gone:
                sim.core.returned([task], sim.at)
        for _ in range(30):
            for sim in tuple(self.sims):
                if isinstance(sim.work(), Leave):
                    self.leave(sim)
                sim.beat()
                sim.look()
            self.each_job_is_in_one_place()
            counts = self.world.jobs.counts().values()
            if not any(count.ready + count.waiting + count.working for count in counts):
                break
            self.world.clock.advance(milliseconds=LEASE // 3)
        else:
            raise AssertionError(f"jobs are left for ever: {self.world.jobs.counts()}")
        self.what_ended_was_counted_once()


Runners.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRunners = Runners.TestCase
