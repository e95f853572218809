"""A simulated runner: the production core, leases and duties; only threads, sockets and sleep are replaced.

What stands here follows the drivers of `jobqueue.runner` step by step: `_pump` is `Runner._turn`, `_beats` is `Heart`,
`_duties` is `Runner._do_duties`, the slots are `Pool` and `Loop`, and the listener is `Listener`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import msgspec

from jobqueue import flows, meta
from jobqueue.clock import Moment
from jobqueue.context import Context
from jobqueue.errors import StorageError
from jobqueue.job import Kind, Lane
from jobqueue.keys import QueueKeys, namespace_keys, queue_keys
from jobqueue.loops import within
from jobqueue.runner.beat import Beats
from jobqueue.runner.decisions import Config, LookAround, Rest, Then
from jobqueue.runner.duties import Duties, Reports
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event, JobsEnded, StorageTroubled
from jobqueue.runner.execute import begin, cancel, go, run_coroutine
from jobqueue.runner.queue_state import behind
from jobqueue.runner.task import Task
from jobqueue.runner_info import Beat
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome
from jobqueue.testing.simulation.scripts import Act, bound
from jobqueue.testing.simulation.world import Actor, Idle, Process, Sleep, Steps, World

__all__ = ["Settings", "SimRunner", "Watcher"]

TURN_MS: Final = 0.02
"""How long a runner takes to notice that a job came back."""
LISTEN_MS: Final = 30_000.0
LOOKS_MS: Final = 1_500.0
"""How long functions take at the most to see that they should stop."""
DAY_MS: Final = 24 * 3_600_000


@attrs.frozen
class Settings:
    """What all runners of a simulation are told. Durations in ms."""

    namespace: str
    weights: Mapping[str, int]
    threads: int
    coroutines: int
    lease: int
    grace: float
    until_empty: bool = False

    @property
    def beat(self) -> int:
        """Time between two beats."""
        return self.lease // 6


class Watcher(Protocol):
    """Whoever looks at what runners do; answers what a job does."""

    def act(self, runner: SimRunner, task: Task) -> Act:
        """A job is about to be started: what it does."""
        ...

    def saw(self, context: Context) -> None:
        """A run has seen that it should stop."""
        ...

    def returned(self, runner: SimRunner, task: Task, at: Moment) -> None:
        """A job came back to the core."""
        ...

    def sent(self, actor: SimRunner, batches: Sequence[Batch]) -> None:
        """Batches leave a runner's pump or beat."""
        ...

    def beat_answered(self, outcomes: Sequence[tuple[Batch, Outcome]]) -> None:
        """The extensions of a beat were answered."""
        ...

    def beaten(self, runner: SimRunner) -> None:
        """A runner has made of the answers to its beat what it makes of them."""
        ...

    def joined(self, runner: SimRunner) -> None:
        """A runner starts."""
        ...

    def found_empty(self, runner: SimRunner, since: float, now: int) -> None:
        """A runner leaves, for it looked everywhere once more, from this virtual time on (``now`` by its clock)."""
        ...

    def left(self, runner: SimRunner, gave_up: bool) -> None:
        """A runner ended in order, or because the storage did not answer its last words."""
        ...


class _Coroutine:
    """A coroutine job that has begun, in place of an `asyncio.Task`."""

    def __init__(self, steps: Coroutine[Any, Any, None]) -> None:
        self._steps = steps
        self._context = contextvars.Context()  # as an asyncio task has: what it sets stays with it
        self._is_cancelled = False
        self()

    def __call__(self) -> None:
        """Let it go on, to where it waits or to its end; one that does not fit has ended already."""
        if self._has_ended():
            return
        with contextlib.suppress(StopIteration):
            if self._is_cancelled:
                self._context.run(self._steps.throw, asyncio.CancelledError())
            else:
                self._context.run(self._steps.send, None)

    def cancel(self) -> bool:
        """See `asyncio.Task.cancel`; it hears of it when it goes on."""
        self._is_cancelled = not self._has_ended()
        return self._is_cancelled

    def _has_ended(self) -> bool:
        return inspect.getcoroutinestate(self._steps) == inspect.CORO_CLOSED


@attrs.frozen
class _Function:
    """A function job that has begun; what it does comes all at its end.

    Attributes:
        looks: Whether it looks if it should stop.
    """

    task: Task
    context: contextvars.Context
    call: Callable[[], Any]
    looks: bool

    def __call__(self) -> None:
        """Let it go on to its end."""
        self.context.run(go, self.task, self.call)


class SimRunner(Actor):
    """One runner, from its start to its crash or end."""

    def __init__(
        self,
        world: World,
        column: str,
        number: int,
        settings: Settings,
        kinds: Mapping[str, Kind[Any]],
        watcher: Watcher,
        gone: Callable[[SimRunner], None],
    ) -> None:
        super().__init__(world, column, f"{world.seed}:{column}:{number}")
        self.settings = settings
        self.incarnation = self.chance.entropy(16).hex().encode()
        self.stopped = False
        self.born = world.now
        self._watcher = watcher
        self._gone = gone
        self._act: Act | None = None
        self.knows = frozenset(kinds)
        known = {name: bound(kind, self._acts, watcher.saw) for name, kind in kinds.items()}
        lanes: set[Lane] = {"thread", *(kind.lane for kind in known.values())}
        config = Config(
            self.incarnation, settings.lease, settings.beat, settings.grace, settings.threads, settings.coroutines,
            until_empty=settings.until_empty,
        )  # fmt: skip
        self._engine = Engine(
            config, settings.namespace, settings.weights, known.get, moment=self.moment, start=self._start,
            interrupt=self._interrupt, observe=self._observe, lanes=lambda: lanes, jitter=self.chance.jitter,
        )  # fmt: skip
        self.core = self._engine.core
        self._free = {False: settings.threads, True: settings.coroutines}
        self._todo: dict[bool, deque[Task]] = {False: deque(), True: deque()}
        self._running: dict[Task, Callable[[], None]] = {}
        self._inbox: list[Task] = []
        self._words: dict[str, None] = {}
        self._listening = False
        self._heard: str | None = None
        self._keys_of_all = namespace_keys(settings.namespace)
        self._epoch = b""
        self._since = self.clock.now()
        self._pump = Process(self, "pump")
        watcher.joined(self)
        self._pump.start(self._life())

    def _keys(self, queue: str) -> QueueKeys:
        return queue_keys(self.settings.namespace, queue)

    def _observe(self, event: Event) -> None:
        match event:
            case JobsEnded("late", tasks):
                self.world.tell(self.column, "late", tuple(task.id for task in tasks))
            case StorageTroubled():
                self.world.tell(self.column, "trouble", ())
            case _:
                pass

    def died(self) -> None:
        """See `Actor.died`."""
        self._gone(self)

    @property
    def tasks(self) -> Collection[Task]:
        """The jobs that run right now."""
        return self._running

    # ---------------------------------------------------------------------------------------------------------- pump

    def _life(self) -> Steps:
        wait = 100.0
        while True:
            try:
                yield from self._pump.refresh(0)
                self._epoch = yield from self._pump.drive(meta.prepare(self._keys_of_all, self.chance))
                break
            except StorageError:
                yield Sleep(wait)
                wait = min(2 * wait, 2000.0)
        self._heart = Beats(
            self._keys_of_all, self.core.leases, contextlib.nullcontext(), self.moment, every=self.settings.beat,
            incarnation=self.incarnation, info=self._info, epoch=self._epoch, data_lost=lambda: None, observe=lambda _: None,
        )  # fmt: skip
        beat = Process(self, "beat")
        yield from self._beat(self._pump)
        beat.start(self._beats(beat), self.settings.beat)
        duty = Process(self, "duty")
        duty.start(self._duties(duty))
        yield from self._turn()
        self.stopped = True
        yield from self._beat(self._pump)  # the last one says that the runner has ended
        core = self.core
        gave_up = bool(core._judged or any(q.claim for q in core._queues.values()))  # noqa: SLF001
        self._watcher.left(self, gave_up)
        self.world.tell(self.column, "leaves" + (" without an answer to its last words" if gave_up else ""))
        self.alive = False
        self._gone(self)

    def _turn(self) -> Steps:
        core = self.core
        looked = (0.0, 0)
        then: Then | None = None
        while True:
            was_stopping = core.stopping
            turn = self._engine.turn()
            try:
                request = next(turn)
            except StopIteration as end:
                request, then = None, end.value.then
            if core.stopping and not was_stopping:
                self._watcher.found_empty(self, *looked)
            if isinstance(request, flows.Apply):
                self._watcher.sent(self, request.batches)
                outcomes = yield request
                with contextlib.suppress(StopIteration):
                    turn.send(outcomes)
                self._collect()
            elif isinstance(then, Rest):
                if then.listen:
                    self._listen()
                elif self._listening and self.world.hush(self):
                    self._rung(None)
                if not self._inbox and not self._words:
                    yield Idle(self.clock.virtual(then.until))
                self._collect()
            elif isinstance(then, LookAround):
                looked = self.world.now, self.clock.now()
                core.looked_around()
            else:
                return

    def _collect(self) -> None:
        if not self._inbox and not self._words:
            return
        tasks, self._inbox = self._inbox, []
        words, self._words = self._words, {}
        at = self.moment()
        if tasks:
            for task in tasks:
                self._watcher.returned(self, task, at)
            self.core.returned(tasks, at)
        if "rung" in words:
            self._listening = False
            self.core.woken(at, self._heard)
        for scope in words.keys() - {"rung", "stop"}:
            self.core.woken(at, scope)
        if "stop" in words and not self.core.stopping:
            self.core.stop(at)

    def stop(self) -> None:
        """Ask it to end."""
        self._words["stop"] = None
        self._pump.wake(TURN_MS)

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            scopes = behind(self._heard, [self._keys(queue).scope for queue in self.core.weights])
            self.world.listen(self, self, scopes, self._rung)
            self.world.at(self.world.now + LISTEN_MS, self._enough)

    def _enough(self, _: None) -> None:
        if self.world.hush(self):
            self._rung(None)

    def _rung(self, scope: str | None) -> None:
        self._heard = scope
        self._words["rung"] = None
        self._pump.wake(self.world.latency())

    def _look(self, queue: QueueKeys) -> None:
        self._words[queue.scope] = None
        self._pump.wake(self.world.latency())

    # ---------------------------------------------------------------------------------------------------------- jobs

    def _start(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            assert task.kind is not None
            self._todo[task.kind.is_coroutine].append(task)
        for pool in (False, True):
            if self._todo[pool]:
                self._fill(pool)

    def _fill(self, pool: bool) -> None:
        todo = self._todo[pool]
        while todo and self._free[pool] and self.alive:
            task = todo.popleft()
            if task.take():
                self._free[pool] -= 1
                self._begin(task, pool)

    def _acts(self) -> Act:
        assert self._act is not None
        return self._act

    def _begin(self, task: Task, pool: bool) -> None:
        world = self.world
        if task.lease_lost or task.deadline <= self.clock.monotonic():
            act = None  # `execute` hands it back: nothing starts under a lease that is not certain
        else:
            act = self._act = self._watcher.act(self, task)
            if act.what == "die":
                self._running[task] = _nothing
                world.at(world.now + act.ms, self._die, task)
                return
        if pool:
            self._running[task] = _Coroutine(run_coroutine(task, self.clock.monotonic))
        else:
            context = contextvars.Context()
            call = context.run(begin, task, self.clock.monotonic)
            looks = act is not None and act.heeds != "ignores"
            self._running[task] = _Function(task, context, call, looks) if call else _nothing
        world.at(world.now + (0.0 if act is None else act.ms), self._end, (task, pool))

    def _end(self, what: tuple[Task, bool]) -> None:
        task, pool = what
        if not self.alive or task not in self._running:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._end, what)
            return
        self._running.pop(task)()
        self._free[pool] += 1
        self._inbox.append(task)
        self._pump.wake(TURN_MS)
        if self._todo[pool]:
            self._fill(pool)

    def _die(self, task: Task) -> None:
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._die, task)
        elif task in self._running:
            self.crash()

    def _interrupt(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            running = self._running.get(task)
            if isinstance(running, _Coroutine):
                cancel(task, running)
                self._end((task, True))
            elif isinstance(running, _Function) and running.looks:
                # It looks soon, or too late for the runner, which has left by then.
                self.world.at(self.world.now + LOOKS_MS * self.chance.jitter(), self._end, (task, False))

    # ---------------------------------------------------------------------------------------------------------- beats

    def _beats(self, process: Process) -> Steps:
        every = float(self.settings.beat)
        while not self.stopped:
            started = self.clock.monotonic()
            answered = yield from self._beat(process)
            due = started + (every if answered else every / 4)
            yield Sleep(max(0.0, due - self.clock.monotonic()))

    def _beat(self, process: Process) -> Steps:
        answered = yield from process.drive(self._watched(self._heart.once()))
        self._watcher.beaten(self)
        return answered

    def _watched(self, flow: flows.Flow[bool]) -> flows.Flow[bool]:
        """A beat, of which the watcher sees what it extends."""

        def ask(request: flows.Request) -> flows.Flow[Any]:
            extensions = request.batches[:-1] if isinstance(request, flows.Apply) else ()
            self._watcher.sent(self, extensions)
            answer = yield request
            if extensions:
                self._watcher.beat_answered(list(zip(extensions, answer, strict=False)))
            return answer

        return within(flow, ask)

    def _info(self, now: int) -> bytes:
        settings = self.settings
        return msgspec.json.encode(
            Beat(
                host=self.column, pid=1, started=self._since, seen=now, lease=settings.lease, queues=dict(self.core.weights),
                threads=settings.threads, coroutines=settings.coroutines, version="simulated",
                stopped=self.core.stopping,
            )
        )  # fmt: skip

    # --------------------------------------------------------------------------------------------------------- duties

    def _duties(self, process: Process) -> Steps:
        settings = self.settings
        duties = Duties(
            self._keys_of_all,
            lambda: [self._keys(queue) for queue in self.core.weights],
            lease=settings.lease,
            beat=settings.beat,
            keep_dead=180 * DAY_MS,
            moment=self.moment,
            reports=Reports(lambda _: None, lambda _: None, self._look),
            discover=False,
        )
        while not self.stopped:
            started = self.clock.monotonic()
            due = started + settings.beat
            try:
                yield from process.drive(duties.round())
                due = duties.next_due(started)
            except StorageError:
                pass
            yield Sleep(max(10.0, due - self.clock.monotonic()))


def _nothing() -> None:
    """What a job does at its end that has not begun, or takes its runner down."""
