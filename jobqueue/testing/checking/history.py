"""One history: a job on the production rules in memory, a new world, and one thing that goes wrong.

What a fault does to the job is what the queue does: leases end, jobs are rescued at the head of their queue, fences grow,
late results are refused. Only the moment at which a runner dies or pauses is chosen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import attrs

from jobqueue.context import current_context
from jobqueue.endings import asks
from jobqueue.job import Call
from jobqueue.keys import queue_keys
from jobqueue.queue import JobQueue
from jobqueue.record import JobRecord, decode
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Batch, Put
from jobqueue.storage.protocol import Storage
from jobqueue.testing.backend import CountingChance, KitBackend
from jobqueue.testing.checking.differences import difference
from jobqueue.testing.checking.effects import watch_effects
from jobqueue.testing.checking.lane import Lane
from jobqueue.testing.checking.schedules import Clean, Crash, Doubled, LostReply, Overlap, Redelivery, Schedule, Stop
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.faulty import Fault, FaultyStorage, Plan
from jobqueue.testing.inline import BEAT_MS, LEASE_MS, InlineRunner, RunnerDied, keep_house
from jobqueue.texts import class_name, said

__all__ = ["Event", "Experiment", "Played", "Unrepeatable", "play"]

AWAY_MS: Final = LEASE_MS + 2 * BEAT_MS
"""Behind so long a silence others take the job."""
MORE_RUNS: Final = 30
"""So many runs more than the clean history had, and the job is said not to end."""
_UNREAD: Final = object()
"""Equal to no state."""


class Unrepeatable(Exception):
    """The job or its world did something else than before, under the same schedule."""


@attrs.frozen
class Experiment:
    """What is played again and again; see `check_job` for the fields.

    Attributes:
        strays: What was called from threads that belong to no run. Of all histories, because such a thread may be late.
    """

    jobs: JobQueue
    call: Call[Any]
    world: Callable[[], Any]
    use: Callable[[Any], AbstractContextManager[Any]]
    effects: Sequence[str]
    state: Callable[[Any], Any]
    patience: float
    strays: list[str] = attrs.field(factory=list, init=False)

    def refuse_strays(self) -> None:
        """Raise `Unrepeatable` if there are any."""
        if self.strays:
            raise Unrepeatable(
                f"{self.strays[0]!r} was called from a thread that the job started by itself, which cannot be stopped here: "
                "call effects, and enqueue, from the job, from its coroutines, or through asyncio.to_thread"
            )


@attrs.frozen
class Event:
    """Something that a reader of the history wants to know; ``runner`` counts from 0."""

    runner: int
    text: str


@attrs.define
class Played:
    """What became of a history.

    Attributes:
        schedule: What went wrong in it.
        events: What happened, in order.
        calls: How often each effect was carried out, by the text of the call.
        passed: The points that each run of the job came to.
        enqueued: How often each other job was enqueued.
        raised: What runs of the job raised, as text.
        end: ``ended``, ``dead``, or ``endless`` after too many runs.
        state: What `Experiment.state` read at the end, copied; of the first history only, with which others are compared.
        is_changed: Whether it differs from what was read before the job.
        difference: Lines that tell how the state differs from that of the clean history; none if it does not.
        further: For an `Overlap`, the points that the runner whose turn it was came to behind the last stop.
    """

    schedule: Schedule
    events: list[Event] = attrs.field(factory=list)
    calls: Counter[str] = attrs.field(factory=Counter)
    passed: list[list[str]] = attrs.field(factory=list)
    enqueued: Counter[str] = attrs.field(factory=Counter)
    raised: list[str] = attrs.field(factory=list)
    end: str = "ended"
    state: Any = None
    is_changed: bool = True
    difference: list[str] = attrs.field(factory=list)
    further: range = range(0)


@attrs.frozen
class _Held:
    """A job in the hands of a runner."""

    runner: InlineRunner
    work: Generator[Task, None, None]
    lane: Lane
    column: int


def play(experiment: Experiment, schedule: Schedule, clean: Played | None = None) -> Played:
    """Let a history happen.

    Args:
        experiment: What to play.
        schedule: What goes wrong.
        clean: The clean history, to compare the state with.

    Raises:
        NoSuchEffect: The world has no such method.
        TestingError: The job hangs, or the world is not new.
        Unrepeatable: The job did not come to a point to which it came before.
    """
    jobs, clock = experiment.jobs, FakeClock()
    history = _History(experiment, clock, schedule, clean)
    restore = jobs.access.replace(history.backend, chance=history.chance, pauses=False)
    try:
        world = experiment.world()
        watch_effects(world, experiment.effects, history.effect)
        used = experiment.use(world)
        if not isinstance(used, AbstractContextManager):
            raise TypeError(f"use answers a context manager, such as mock.patch.object(…), not {used!r}")
        with used:
            try:
                history.read_before(world)
                history.happen()
                history.read(world)
            finally:
                history.unwind()
    finally:
        restore()
    experiment.refuse_strays()
    return history.played


def _copy(state: Any) -> Any:
    """A copy that later histories cannot change; `_UNREAD` if there is no equal one."""
    with contextlib.suppress(Exception):
        copied = copy.deepcopy(state)
        if copied == state:
            return copied
    return _UNREAD


def _kept(state: Any) -> Any:
    """A copy of all parts of which there are equal ones: a mock's calls are not equal to their copy."""
    if type(state) is tuple:
        return tuple(map(_kept, state))
    copied = _copy(state)
    return state if copied is _UNREAD else copied


def _is_shared(state: Any, kept: Any) -> bool:
    """Whether a part that could not be copied is the same object as in the first history."""
    if type(state) is tuple and type(kept) is tuple:
        return any(map(_is_shared, state, kept))
    return state is kept and _copy(state) is _UNREAD


class _Backend(KitBackend):
    """Memory, and somebody who is told of what is sent to it."""

    def __init__(self, clock: FakeClock, told: Plan) -> None:
        super().__init__(clock)
        self._told = told

    def storage(self) -> Storage:
        return FaultyStorage(super().storage(), self._told)


class _History:
    def __init__(self, experiment: Experiment, clock: FakeClock, schedule: Schedule, clean: Played | None) -> None:
        self.played = Played(schedule)
        self.backend = _Backend(clock, self._sent)
        self.chance = CountingChance(f"check_job {experiment.jobs.access.depth}")
        self._experiment = experiment
        self._clock = clock
        self._clean = clean
        self._job: JobRecord[Any] | None = None
        self._lanes: dict[Task, tuple[Lane, int]] = {}
        self._thread = threading.get_ident()
        self._column = 0
        self._enqueued: dict[bytes, str] = {}
        self._is_over = False
        self._before: Any = _UNREAD

    # --------------------------------------------------------------------------------------------------- what happens

    def happen(self) -> None:
        """Enqueue the job and let everything happen."""
        self._job = self._experiment.jobs.enqueue(self._experiment.call)
        schedule = self.played.schedule
        if not isinstance(schedule, Clean | Doubled):
            for _ in range(schedule.run):
                self._finish(self._claim())
            self._go_wrong(schedule, self._claim())
        while (record := self._look()) is not None:
            if record.place == "dead":
                self.played.end = "dead"
                return
            if len(self.played.passed) > MORE_RUNS + (len(self._clean.passed) if self._clean else 0):
                self.played.end = "endless"
                return
            self._finish(self._claim())

    def _go_wrong(self, schedule: Crash | Stop | Redelivery | LostReply | Overlap, held: _Held) -> None:
        match schedule:
            case Crash(point=point):
                self._go(held, point)
                self._die(held, held.lane.passed[-1])
            case Stop(point=point):
                self._go(held, point)
                self._note(held.column, f"■ is told to stop {held.lane.passed[-1]}")
                held.lane.tell_to_stop()
                self._finish(held)
                self._column += 1
            case Redelivery():
                self._go(held)
                self._die(held, "before its end is stored")
            case LostReply():
                self._go(held)
                self.backend.lose(1)
                self._note(held.column, "(the reply to its end is lost)")
                self._store(held)
            case Overlap(stops=stops):
                self._overlap(stops, held)

    def _die(self, held: _Held, where: str) -> None:
        self._note(held.column, f"✗ dies {where}")
        held.work.close()
        self._column += 1

    def _overlap(self, stops: Sequence[int], first: _Held) -> None:
        self._go(first, stops[0])
        self._note(first.column, f"‖ pauses {first.lane.passed[-1]}, for longer than its lease")
        self._column += 1
        pair = (first, self._claim())
        for number, stop in enumerate(stops[1:], 1):
            held = pair[number % 2]
            self._go(held, stop)
            self._note(held.column, f"‖ pauses {held.lane.passed[-1]}")
        last, other = pair[len(stops) % 2], pair[1 - len(stops) % 2]
        begin = len(last.lane.passed)
        self._finish(last)
        self.played.further = range(begin, len(last.lane.passed))
        self._finish(other)

    def _look(self) -> JobRecord[Any] | None:
        assert self._job is not None
        return self._experiment.jobs.get(self._job.id, queue=self._job.queue)

    # -------------------------------------------------------------------------------------------------------- runners

    def _claim(self) -> _Held:
        """A new runner takes the job as soon as it can; the run has not begun."""
        job = self._look()
        if job is None:
            raise self._unrepeatable()
        if job.place == "working":
            self._clock.advance(milliseconds=AWAY_MS)
        elif job.place == "waiting":
            self._clock.advance(job.due - self._clock.datetime)
        jobs, queue = self._experiment.jobs, job.queue
        keys = jobs.access.keys
        keep_house(keys, [queue_keys(jobs.namespace, queue)], self.backend.direct, self._clock)
        incarnation = self.chance.entropy(16).hex().encode()
        runner = InlineRunner(
            jobs.registry, keys, lambda: [queue], self.backend.storage(), self._clock, incarnation,
            jitter=self.chance.jitter, changes=lambda: self.backend.history.calls,
        )  # fmt: skip
        work = runner.work()
        for task in work:
            if task.id == job.id.encode():
                name = f"run {len(self._lanes) + 1} of job {self._experiment.call.kind.name!r}"
                lane = Lane(task, name, self._clock.monotonic, self._experiment.patience)
                self._lanes[task] = lane, self._column
                self.played.passed.append(lane.passed)
                self._note(self._column, f"takes the job (attempt {task.stored.attempt + 1}, fence {task.fence})")
                return _Held(runner, work, lane, self._column)
            # Another job, in front of it, which is not run: for this runner it has ended.
        raise AssertionError("the job is due, and nobody holds it")

    def _go(self, held: _Held, until: int | None = None) -> None:
        """Let a run go on to a point, or to its end."""
        if held.lane.go(until):
            return
        task = held.lane.task
        error = task.outcome
        if error is not None and not isinstance(error, Exception | SystemExit | asyncio.CancelledError):
            raise error  # an interrupt of the whole test run, or the verdict of a test framework
        if until is not None:
            raise self._unrepeatable()
        if error is None:
            self._note(held.column, "returns")
            return
        self._note(held.column, f"raises {_in_a_line(error)}")
        if not asks(error):
            self.played.raised.append(task.text)

    def _unrepeatable(self) -> Unrepeatable:
        return Unrepeatable(
            f"{self._experiment.call.kind.name} did not come to the same effects as before, although nothing had gone wrong "
            "yet: let it depend on its arguments and its world alone"
        )

    def _finish(self, held: _Held) -> None:
        self._go(held)
        self._store(held)

    def _store(self, held: _Held) -> None:
        """Let the runner store what became of the job, and leave."""
        held.runner.stop()
        for _ in held.work:
            raise AssertionError("a runner that stops starts nothing")
        [*_, ended] = held.runner.runs
        if ended.outcome == "released":
            self._note(held.column, "(it saw that it should stop, and is handed back)")
        elif ended.outcome == "late":
            self._note(held.column, "(its result is refused: the job was taken away)")
        elif ended.outcome != "done":
            self._note(held.column, f"({ended.outcome})")
        held.runner.runs.clear()  # an error holds the frames of its job

    # -------------------------------------------------------------------------------------------------------- effects

    @contextmanager
    def effect(self, name: str, call: str) -> Iterator[bool]:
        """What is entered around an effect: the two points, and the note of it. See `effects.Around`."""
        going = self._caller(name)
        if going is None:
            yield False
            return
        lane, column = going
        lane.point(f"before {name}")
        doubled = isinstance(self.played.schedule, Doubled) and self.played.schedule.call == call
        try:
            yield doubled and not self.played.calls[call]
        except RunnerDied:
            raise
        except BaseException as error:
            self._note(column, f"{call} raises {_in_a_line(error)}")
            lane.point(f"after {name}")
            raise
        self.played.calls[call] += 1
        self._note(column, call)
        lane.point(f"after {name}")

    def _caller(self, what: str) -> tuple[Lane, int] | None:
        """The run that calls, and its column; None if the world is being made or read, or for a stray, which is noted.

        By the context of the job and not by whose turn it is: what a dead run left behind must not pass for another's.
        """
        try:
            task = current_context()._flags  # noqa: SLF001 - the other half of a context
        except LookupError:
            task = None
        going = self._lanes.get(task) if isinstance(task, Task) else None
        if going is not None and not going[0].ended:
            return going
        if threading.get_ident() != self._thread:
            self._experiment.strays.append(what)
        return None

    def _sent(self, scope: str, batches: Sequence[Batch]) -> Fault:
        """A `Plan` that lets everything pass, and takes note of what the job enqueues."""
        puts = [op for batch in batches for op in batch.ops if isinstance(op, Put)]
        new = [entry for put in puts for entry in put.records.items() if entry[0] not in self._enqueued]
        if new and (going := self._caller("enqueue")) is not None:
            lane, column = going
            lane.point("before it enqueues")
            for id, record in new:
                stored = decode(record)
                text = f"{stored.name}({stored.payload.decode()}) in {scope.partition(':')[2]}"
                self._enqueued[id] = text
                self._note(column, f"enqueues {text}")
        return Fault.OK

    def _note(self, column: int, text: str) -> None:
        if not self._is_over:
            self.played.events.append(Event(column, text))

    # ----------------------------------------------------------------------------------------------------- at the end

    def read_before(self, world: Any) -> None:
        """Read the state of a world in which nothing has happened; what it looks for may be missing."""
        if self._clean is None:
            with contextlib.suppress(Exception):
                self._before = _copy(self._experiment.state(world))

    def read(self, world: Any) -> None:
        """Read and compare the state, while what is left of dead runs stands still."""
        try:
            state = self._experiment.state(world)
        except Exception as error:
            error.add_note(f"raised by state(…) of check_job, after the history {self.played.schedule}")
            raise
        if self._clean is None:
            self.played.state = _kept(state)
            self.played.is_changed = state != self._before
        elif _is_shared(state, self._clean.state):
            raise Unrepeatable(
                "state= answers the same object after every history, and it cannot be copied: let it answer a "
                "value, such as a list or a tuple made there"
            )
        elif state != self._clean.state:
            self.played.difference = difference(state, self._clean.state)
        self.played.enqueued = Counter(self._enqueued.values())

    def unwind(self) -> None:
        """End all runs that still stand somewhere. Nothing that they do now counts."""
        self._is_over = True
        for lane, _ in self._lanes.values():
            lane.end()


def _in_a_line(error: BaseException) -> str:
    return f"{class_name(type(error))}: {said(error).strip()}".split("\n")[0].removesuffix(": ")
