"""Runners without threads over one storage in memory and one fake clock: the test chooses every step.

`Sim` drives the production `Engine` and `patrol`. What it is told to start it keeps in ``given`` until the test runs it
(`run`), so a test decides how long a job takes and which of two events comes first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobqueue.backend import MemoryBackend
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.ids import SeededChance
from jobqueue.job import Lane
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.queue import JobQueue
from jobqueue.record import Stored, decode
from jobqueue.runner.decisions import Config, Decision, Leave, LookAround, Rest
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event
from jobqueue.runner.execute import run_function
from jobqueue.runner.queue_state import behind
from jobqueue.runner.rescue import Rescued, Watch, patrol
from jobqueue.runner.task import Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch, Kept, Peek, Records
from jobqueue.storage.protocol import Outcome
from jobqueue.testing import FakeClock, Fault, FaultyStorage

__all__ = ["LEASE", "Sim", "World"]

LEASE = 30_000
BEAT = LEASE // 6
LANES: tuple[Lane, ...] = ("thread", "process")


class World:
    """What all runners of a test share.

    Attributes:
        jobs: Where kinds are declared and jobs enqueued; its calls meet no faults.
        faults: What happens to the next calls of runners that carry a batch with this step (``any``: whatever they carry).
        sent: The steps of all batches that runners sent, in order.
        runs: How often each argument was run.
        away: The storage refuses everything that runners ask.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStorage()
        self.jobs = JobQueue(storage=self.memory, clock=self.clock, namespace="test")
        self.jobs.access.replace(MemoryBackend(self.memory, self.clock), chance=SeededChance(1), pauses=False)
        self.faults: dict[str, deque[Fault]] = {}
        self.storage = FaultyStorage(self.memory, self._fault)
        self.sent: list[str] = []
        self.runs: Counter[int] = Counter()
        self.away = False
        self.act: Callable[[int], Any] = lambda number: None

        @self.jobs.job(name="work")
        def work(number: int) -> Any:
            self.runs[number] += 1
            return self.act(number)

        self.work = work

    def _fault(self, scope: str, batches: Sequence[Batch]) -> Fault:
        if self.away:
            return Fault.REFUSED
        for kind in ("any", *(batch.step for batch in batches)):
            if self.faults.get(kind):
                return self.faults[kind].popleft()
        return Fault.OK

    def fail(self, what: str, *faults: Fault) -> None:
        """Plan faults for the next calls that carry such a batch."""
        self.faults.setdefault(what, deque()).extend(faults)

    def enqueue(self, *numbers: int, queue: str = "low", delay: float = 0, retry: int = 13) -> list[str]:
        """Enqueue jobs with these arguments; answers their ids."""
        call = self.work.opts(queue=queue, delay=delay, retry=retry)
        return [record.id for record in self.jobs.enqueue_many([call.call(number) for number in numbers])]

    def keys(self, queue: str = "low") -> QueueKeys:
        """The keys of a queue."""
        return queue_keys("test", queue)

    def numbers(self, place: str, queue: str = "low") -> list[int]:
        """The arguments of the jobs in a place, in order."""
        found = self.jobs.find(queue=queue, place=place, limit=1_000)  # type: ignore[arg-type]
        return [int(self.jobs.decode(record).arguments["number"]) for record in found]  # type: ignore[call-overload]

    def ready_ids(self, queue: str = "low") -> tuple[bytes, ...]:
        """The ids in ready, in order."""
        [ids] = self.memory.read([Peek(self.keys(queue).ready, 0, 10_000)])
        return ids  # type: ignore[return-value]

    def kept(self, id: str, queue: str = "low") -> Kept:
        """What is stored of a job that exists."""
        [[kept]] = self.memory.read([Records(self.keys(queue).scope, (id.encode(),))])  # type: ignore[misc]
        assert isinstance(kept, Kept), f"job {id} is nowhere"
        return kept

    def stored(self, id: str, queue: str = "low") -> Stored:
        """The stored fields of a job that exists."""
        return decode(self.kept(id, queue).record)

    def rung(self, queue: str = "low") -> bool:
        """Whether the queue was rung; takes the token, as one who listens would."""
        bell = self.memory._shared.bell
        return bell._take([self.keys(queue).scope]) is not None

    def counter(self, name: str, queue: str = "low") -> int:
        """A counter of a queue."""
        counters: Any = self.memory.dump().get(self.keys(queue).counters.full, {})
        return int(counters.get(name.encode(), b"0"))


class Sim:
    """One runner.

    Attributes:
        given: What it was told to start and has not run.
        events: What its core told.
        decided: The last decision.
    """

    def __init__(
        self,
        world: World,
        name: str = "a",
        *,
        threads: int = 1,
        weights: Mapping[str, int] | None = None,
        lease: int = LEASE,
        grace: float = 10_000.0,
        strict: bool = False,
        until_empty: bool = False,
        discover: bool = False,
    ) -> None:
        self.world = world
        self.given: list[Task] = []
        self.events: list[Event] = []
        self.decided: Decision | None = None
        self.heard: str | None = None
        self.watch = Watch()
        self.discover = discover
        self.weights = dict(weights or {"low": 1})
        self.engine = Engine(
            Config(name.encode(), lease, lease // 6, grace, threads, threads, threads, strict, until_empty),
            world.jobs.namespace, self.weights, world.jobs.registry.get, moment=lambda: self.at,
            start=self.start, observe=self.events.append, lanes=lambda: LANES,
        )  # fmt: skip
        self.core = self.engine.core

    @property
    def at(self) -> Moment:
        """Now."""
        return Moment(self.world.clock.now(), self.world.clock.monotonic())

    # ----------------------------------------------------------------------------------------------------- the core

    def step(self) -> Decision:
        """Ask the core once and do what it says; what it sends is answered before this returns."""
        self.decided = decision = self.engine.take_turn(self.send_while)
        if isinstance(decision.then, LookAround):
            for queue in self.world.jobs.counts() if self.discover else ():
                self.core.serve(queue, 1)
            self.core.looked_around()
        return decision

    def start(self, tasks: Sequence[Task]) -> None:
        """Take note of what is to be started."""
        self.given.extend(tasks)

    def send_while(self, batches: Sequence[Batch], work: Callable[[], None]) -> list[Outcome]:
        """`send`, after the work for the time of a call is done."""
        work()
        return self.send(batches)

    def send(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Apply batches on the storage as the faults of the world have it."""
        self.world.sent += [batch.step for batch in batches]
        return self.world.storage.apply(batches)

    def settle(self) -> Rest | Leave:
        """Step until the core rests or leaves; that takes no time."""
        for _ in range(200):
            then = self.step().then
            if isinstance(then, Rest | Leave):
                return then
        raise AssertionError("the core sends and sends and never rests")

    def run(self, *tasks: Task) -> None:
        """Run these, or everything it was given, as a thread would; the core hears of it at once."""
        for task in tasks or tuple(self.given):
            self.given.remove(task)
            if task.take():
                run_function(task, self.world.clock.monotonic)
                self.core.returned([task], self.at)

    def work(self) -> Rest | Leave:
        """Settle and run until there is nothing to do without waiting."""
        for _ in range(2_000):
            then = self.settle()
            if not self.given:
                if isinstance(then, Rest) and then.listen and (queue := self.rung()):
                    self.core.woken(self.at, self.world.keys(queue).scope)
                    continue
                if not (isinstance(then, Rest) and then.until - self.at.local < 5):
                    return then
                self.world.clock.advance(milliseconds=max(1, round(then.until - self.at.local)))
            self.run()
        raise AssertionError("the work does not come to an end")

    def rung(self) -> str | None:
        """Which of its queues was rung; takes its token, as one who listens would."""
        order = behind(self.heard, [*self.core.weights])
        self.heard = next((queue for queue in order if self.world.rung(queue)), None)
        return self.heard

    def wait(self, seconds: float) -> None:
        """Let time pass, working and beating as time goes on; every rest ends when it said so."""
        end = self.at.local + seconds * 1000
        beat = self.at.local + BEAT
        while True:
            then = self.work()
            if self.at.local >= beat:
                self.beat()
                beat = self.at.local + BEAT
            if isinstance(then, Leave) or self.at.local >= end:
                return
            step = min(then.until, beat, end) - self.at.local
            self.world.clock.advance(milliseconds=max(1, round(step)))

    # --------------------------------------------------------------------------------------------- its other threads

    def beat(self) -> list[Task]:
        """Extend the leases; answers the jobs that it lost."""
        at = self.at
        lost = self.core.leases.overdue(at)
        batches = self.core.leases.extend(at)
        outcomes = self.send([batch for batch, _ in batches]) if batches else []
        return lost + self.core.leases.extended(batches, outcomes, at.local)

    def look(self) -> list[Rescued]:
        """Look once for the jobs of runners that are gone."""
        found = []
        for queue in self.weights:
            found += run(
                patrol(self.world.keys(queue), self.watch, LEASE, lambda: self.at), self.world.memory, self.world.clock
            )
        return found

    def rescue(self, *living: Sim) -> list[Rescued]:
        """Wait out the lease of somebody who is gone, while others live on, and take what is left."""
        for _ in range(7):
            self.world.clock.advance(milliseconds=BEAT)
            for other in living:
                other.beat()
        assert self.look() == [], "taken at first sight"
        for _ in range(2):
            self.world.clock.advance(milliseconds=BEAT)
            for other in living:
                other.beat()
        return self.look()

    def told(self, what: str) -> int:
        """How many events of this class there were, or how many times jobs ended so."""
        return sum(what in (type(event).__name__, getattr(event, "ending", None)) for event in self.events)
