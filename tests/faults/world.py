"""A world in memory with one virtual clock: the rules of the runner as they are in production, and faults at any step.

`Engine`, `Heart`, `Duties`, `Lock`, the flows of `JobQueue` and `ServerClock` are the library's own; threads, sockets and
time are replaced. What takes time (a call that stalls, a pause of a process) lets everybody else go on meanwhile.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec
import pytest

import jobqueue.clock
from jobqueue import JobQueue, RetryPolicy, meta, transitions
from jobqueue.clock import Moment, ServerClock
from jobqueue.declaring import JobFunction
from jobqueue.drive import run
from jobqueue.errors import NotApplied, StorageError
from jobqueue.job import Lane
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.runner.beat import Heart
from jobqueue.runner.decisions import Config, Leave, Rest
from jobqueue.runner.duties import Duties, Reports
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event, JobsEnded
from jobqueue.runner.task import End, Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Applied, Batch, Moved, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.wrappers import overlapped
from jobqueue.testing import Fault, FaultyStorage
from tests.faults.steps import step_of

__all__ = ["BEAT", "LEASE", "QUEUE", "Actor", "Crashed", "Spec", "Trip", "Wire", "World", "orphan"]

LEASE: Final = 3_000
BEAT: Final = LEASE // 6
LANES: Final[tuple[Lane, ...]] = ("thread",)
TICK: Final = 25
QUEUE: Final = queue_keys("world", "q")
NAMES: Final = namespace_keys("world")


class Crashed(BaseException):
    """The process is gone: nothing in it may catch this."""


@attrs.define
class Spec:
    """What a job does.

    Attributes:
        takes: Milliseconds it runs.
        fails: So many attempts raise.
        gated: It goes on until `World.gate_open`.
    """

    takes: int = 0
    fails: int = 0
    gated: bool = False


@attrs.define(eq=False)
class Trip:
    """What happens when a batch with the step is sent.

    Attributes:
        step: The step.
        before: Called before the batches arrive; answers what becomes of them.
        after: Called when they have been applied and the sender knows nothing yet.
        times: How often in a row.
        hit: How often it happened.
        repeated: A batch with the step was answered afterwards.
    """

    step: str
    before: Callable[[Wire], Fault] = lambda _: Fault.OK
    after: Callable[[Wire], None] = lambda _: None
    times: int = 1
    hit: int = 0
    repeated: Callable[[Wire], None] = lambda _: None


class _Below:
    """The server's side of a wire: what was applied may be followed by something."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.afterwards: Callable[[], None] | None = None

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes = self._world.memory.apply(batches)
        self._world.check()
        afterwards, self.afterwards = self.afterwards, None
        if afterwards is not None:
            afterwards()
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return self._world.memory.read(queries)

    def wait(self, channels: Sequence[str], timeout: float, /) -> None:
        """Nobody waits here: actors look with every tick."""

    def interrupt(self) -> None:
        """There is nothing to interrupt."""

    def close(self) -> None:
        """There is nothing to close."""


class Wire(FaultyStorage):
    """One process's way to the storage.

    Attributes:
        dark: Nothing arrives, and nobody is told.
    """

    def __init__(self, world: World, actor: Actor | None = None) -> None:
        self._below = _Below(world)
        super().__init__(self._below, self._meet)
        self.world = world
        self.actor = actor
        self.dark = False
        self.trip: Trip | None = None

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        self.world.stall()
        if self.dark or self.world.refuses(None):
            raise NotApplied("planned fault: no answer to a question")
        return super().read(queries)

    def sample(self) -> int:
        """The server's time."""
        self.world.stall()
        if self.dark or self.world.refuses(None):
            raise NotApplied("planned fault: the server does not tell its time")
        return self.world.now

    def _meet(self, _: str, batches: Sequence[Batch]) -> Fault:
        self.world.stall()
        if self.dark:
            return Fault.REQUEST_LOST
        if any(self.world.refuses(batch) for batch in batches):
            return Fault.REFUSED
        trip = self.trip
        if trip is None or trip.step not in {step_of(batch) for batch in batches}:
            return Fault.OK
        if trip.hit >= trip.times:
            self._below.afterwards = lambda: trip.repeated(self)
            return Fault.OK
        trip.hit += 1
        fate = trip.before(self)
        self._below.afterwards = lambda: trip.after(self)
        return fate


class World:
    """Everything there is.

    Attributes:
        now: The server's clock, ms since 1970.
        local: The monotonic clock of all machines, ms.
        memory: What is stored.
        specs: Job → what it does.
        ledger: What happened, written by the jobs.
        gate_open: Whether gated jobs may end.
        lawless: A foreign writer is at work, so that the invariants cannot be looked at.
        stalled_until: The server does nothing before this local time.
        skew: How wrong the wall clocks of the processes are, in ms.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1_900_000_000_000
        self.local = 1_000_000.0
        self.memory = MemoryStorage()
        self.specs: dict[str, Spec] = {}
        self.ledger: list[tuple[str, str, int, int]] = []
        self.gate_open = False
        self._refusal: tuple[float, Callable[[Batch | None], bool]] = (0.0, lambda _: False)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.stalled_until = 0.0
        self.skew = 0
        self.lawless = False
        self.actors: list[Actor] = []
        patch.setattr(jobqueue.clock, "monotonic_ms", lambda: self.local)
        patch.setattr(jobqueue.clock, "wall_ms", lambda: self.now + self.skew)
        patch.setattr("jobqueue.drive.time.sleep", lambda seconds: self.spend(seconds * 1000))

    def process(self, actor: Actor | None = None) -> tuple[JobQueue, Wire, JobFunction[..., None, ..., None]]:
        """A queue object of a process of its own, its wire, and the kind of all jobs."""
        wire = Wire(self, actor)
        jobs = JobQueue(storage=wire, clock=ServerClock(lambda _: wire.sample()), namespace="world")

        @jobs.job(name="deed", queue="q", retry=RetryPolicy(limit=3, backoff=lambda _: 0.2))
        def deed(key: str) -> None: ...

        return jobs, wire, deed

    def refuse(self, ms: float, which: Callable[[Batch | None], bool] = lambda _: True) -> None:
        """From now on for some time the server refuses these batches; None stands for a question."""
        self._refusal = (self.local + ms, which)

    def refuses(self, batch: Batch | None) -> bool:
        """Whether the server refuses this now."""
        until, which = self._refusal
        return self.local < until and which(batch)

    def later(self, ms: float, act: Callable[[], None]) -> None:
        """Do something after some time."""
        self._later.append((self.local + ms, act))

    def stall(self) -> None:
        """Wait as long as the server does nothing."""
        if self.local < self.stalled_until:
            self.spend(self.stalled_until - self.local)

    def spend(self, ms: float) -> None:
        """Let time pass; everybody who is not waiting for something goes on."""
        end = self.local + ms
        while self.local < end:
            self.local += TICK
            self.now += TICK
            due = [entry for entry in self._later if entry[0] <= self.local]
            for entry in due:
                self._later.remove(entry)
                entry[1]()
            for actor in list(self.actors):
                actor.tick()

    def until(self, condition: Callable[[], object], what: str, *, seconds: float = 120) -> None:
        """Let time pass until something holds."""
        end = self.local + seconds * 1000
        while not condition():
            assert self.local < end, (
                f"not within {seconds} s: {what}\nledger: {self.ledger}\nstored: {self.memory.dump()}"
            )
            self.spend(TICK)

    def runs(self, event: str = "start") -> Counter[str]:
        return Counter(key for what, key, _, _ in self.ledger if what == event)

    def places(self) -> dict[bytes, str]:
        """Where each job is; I1 and I3."""
        dump: dict[str, Any] = self.memory.dump()
        found: dict[bytes, str] = {}
        for place in ("ready", "waiting", "working", "dead"):
            for entry in dump.get(f"{{world:q}}:{place}", ()):
                id = entry if place == "ready" else entry[0]
                assert id not in found, f"{id!r} is in {found[id]} and in {place}"
                found[id] = place
        return found

    def check(self) -> None:
        """I1 to I4, after every step."""
        if self.lawless:
            return
        places = self.places()
        dump: dict[str, Any] = self.memory.dump()
        records = dump.get("{world:q}:records", {})
        claims = dump.get("{world:q}:claims", {})
        assert set(records) == set(places), f"records {set(records)} and places {places} do not agree"
        assert set(claims) == {id for id, place in places.items() if place == "working"}
        fence = int(dump.get("{world:q}:counters", {}).get(b"fence", 0))
        assert all(int(claim.split(b":")[1]) <= fence for claim in claims.values())

    def count(self, name: bytes) -> int:
        dump: dict[str, Any] = self.memory.dump()
        return int(dump.get("{world:q}:counters", {}).get(name, 0))

    def settled(self, dead: int = 0) -> bool:
        """Whether nothing is left but so many dead jobs."""
        return sorted(self.places().values()) == ["dead"] * dead


class Actor:
    """A runner's process: its core, its beat and its duties, each of which may be waiting for the storage.

    Attributes:
        gone: It crashed, or has left.
        paused: It is stopped, all of it.
        blocked_until: Its interpreter is held by a job until then (local ms).
        notices: What its core noticed.
    """

    def __init__(self, world: World, name: str, *, grace: float = 60_000) -> None:
        self.world = world
        self.gone = False
        self.paused = False
        self.blocked_until = 0.0
        self.notices: Counter[str] = Counter()
        self.jobs, self.wire, _ = world.process(self)
        self._name = name.encode()
        self._clock = self.jobs.access.clock()
        self._waiting: set[str] = set()
        self._due = {"beat": 0.0, "duty": 0.0, "pump": 0.0}
        self._running: dict[Task, float] = {}
        self._epoch: bytes | None = None
        self._heart: Heart | None = None
        self._back: list[Task] = []
        self._engine = Engine(
            Config(self._name, LEASE, BEAT, grace, threads=4, coroutines=1), "world", {"q": 1}, self.jobs.registry.get,
            moment=self.moment, start=self._start, observe=self._observe, lanes=lambda: LANES,
        )  # fmt: skip
        self.core = self._engine.core
        self._duties = Duties(
            NAMES, lambda: [QUEUE], lease=LEASE, beat=BEAT, keep_dead=10**10, moment=self.moment,
            reports=Reports(lambda _: self.core.woken(self.moment()), lambda _: None, lambda _: None), discover=False,
        )  # fmt: skip
        world.actors.append(self)

    def moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic())

    def stop(self) -> None:
        """What SIGTERM does."""
        self.core.stop(self.moment())

    def crash(self) -> None:
        """What SIGKILL does."""
        self.gone = True
        raise Crashed

    def pause(self, ms: float) -> None:
        """What SIGSTOP and SIGCONT do, in the middle of whatever it does."""
        self.paused = True
        try:
            self.world.spend(ms)
        finally:
            self.paused = False

    def tick(self) -> None:
        """Go on with whatever is due."""
        if self.world.local < self.blocked_until:
            return
        for part, act in (("beat", self._beat), ("duty", self._duty), ("pump", self._pump)):
            if self.gone or self.paused or part in self._waiting or self._due[part] > self.world.local:
                continue
            self._waiting.add(part)
            try:
                act()
            except Crashed:
                self.gone = True
            finally:
                self._waiting.discard(part)

    def _observe(self, event: Event) -> None:
        self.notices[event.ending if isinstance(event, JobsEnded) else type(event).__name__] += 1

    def _beat(self) -> None:
        if self._heart is None:
            try:
                self._clock.refresh(0)
                self._epoch = run(meta.prepare(NAMES, self.jobs.access.chance), self.wire, self._clock)
            except StorageError:
                self._due["beat"] = self.world.local + 100
                return
            self._heart = Heart(
                self.wire, self._clock, NAMES, self.core.leases, threading.Lock(), every=BEAT,
                incarnation=self._name, info=self._info, epoch=self._epoch, data_lost=self._data_lost,
                observe=lambda _: None,
            )  # fmt: skip
        self._due["beat"] = self.world.local + (BEAT if self._heart.beat() else BEAT / 4)

    def _info(self, now: int) -> bytes:
        return msgspec.json.encode(
            {
                "host": "h", "pid": 1, "started": now, "seen": now, "lease": LEASE, "queues": {"q": 1}, "threads": 4,
                "coroutines": 1, "version": "0",
            }
        )  # fmt: skip

    def _data_lost(self) -> tuple[bytes, bytes] | None:
        try:
            epoch = run(meta.prepare(NAMES, self.jobs.access.chance), self.wire, self._clock)
        except StorageError:
            return None
        self.notices["data lost"] += 1
        self._name += b"x"
        self.core.renew(self._name)
        return epoch, self._name

    def _duty(self) -> None:
        if self._heart is None:
            return
        started = self.world.local
        due = started + BEAT
        try:
            run(self._duties.round(), self.wire, self._clock)
            due = self._duties.next_due(started)
        except StorageError:
            pass
        self._due["duty"] = max(due, self.world.local + 10)

    def _pump(self) -> None:
        if self._heart is None:
            return
        ended = [task for task, end in self._running.items() if self._over(task, end)]
        if ended:
            self.core.returned([self._end(task) for task in ended], self.moment())
        for _ in range(100):
            then = self._engine.take_turn(overlapped(self.wire)).then
            if self._back:
                back, self._back = self._back, []
                self.core.returned(back, self.moment())
            match then:
                case Rest(until, listen):
                    # Nobody rings here; a runner that listens looks with every tick instead.
                    if listen:
                        self.core.woken(self.moment())
                    self._due["pump"] = self.world.local if self._running else min(until, self.world.local + TICK)
                    return
                case Leave():
                    self.gone = True
                    return
        raise AssertionError("a hundred calls without a rest")

    def _start(self, tasks: Sequence[Task]) -> None:
        self._back += [task for task in tasks if not self._begin(task)]

    def _begin(self, task: Task) -> bool:
        assert task.take()
        if task.lease_lost or task.deadline <= self.world.local:
            task.end = End.HANDED_BACK
            return False
        key = msgspec.json.decode(task.stored.payload)["key"]
        self.world.ledger.append(("start", key, task.fence, task.stored.attempt + 1))
        self._running[task] = self.world.local + self.world.specs[key].takes
        return True

    def _over(self, task: Task, end: float) -> bool:
        spec = self.world.specs[msgspec.json.decode(task.stored.payload)["key"]]
        return self.world.local >= end and (self.world.gate_open or not spec.gated)

    def _end(self, task: Task) -> Task:
        del self._running[task]
        key = msgspec.json.decode(task.stored.payload)["key"]
        attempt = task.stored.attempt + 1
        if attempt <= self.world.specs[key].fails:
            task.outcome = RuntimeError("as it was told to")
            task.text = "RuntimeError: as it was told to"
        else:
            self.world.ledger.append(("end", key, task.fence, attempt))
        return task


def orphan(world: World, count: int) -> None:
    """Take jobs as a runner would that is gone right afterwards; its lease has ended already."""
    claim = transitions.claim(QUEUE, b"gone", 1, limit=count, now=world.now - LEASE, lease=LEASE - 1, beat=BEAT)
    [outcome] = world.memory.apply([claim])
    assert isinstance(outcome, Applied)
    [moved] = outcome.answers
    assert isinstance(moved, Moved)
    assert len(moved.ids) == count
