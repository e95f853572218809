"""Where a history is played: makes the actors, brings back those that crash, and sees that everything ends."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from jobqueue.clock import Moment
from jobqueue.context import Context
from jobqueue.keys import queue_keys
from jobqueue.lock import Lease
from jobqueue.record import JobRecord
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome
from jobqueue.testing.simulation.books import InvariantBroken
from jobqueue.testing.simulation.diagram import Trace
from jobqueue.testing.simulation.people import Deployer, LockUser, Operator, Producer
from jobqueue.testing.simulation.referee import Referee
from jobqueue.testing.simulation.runner import Settings, SimRunner
from jobqueue.testing.simulation.scripts import KINDS, Act, Script, draw_scripts
from jobqueue.testing.simulation.simulation import History, Simulation
from jobqueue.testing.simulation.world import World

__all__ = ["Stage"]

NAMESPACE: Final = "sim"
AFTERMATH: Final = 2.7
"""For how many leases a fault can have an effect."""
LATENCY_MS: Final = (0.2, 4.0)
CALL_MS: Final = 150.0
"""The longest call without a fault, with the sample of the clock before it."""


class Bystander:
    """Knows what jobs do, and checks nothing."""

    def __init__(self) -> None:
        self._scripts: dict[bytes, Script] = {}
        self._runs: Counter[bytes] = Counter()
        self.jobs = 0
        self.runs = 0

    def act(self, runner: SimRunner, task: Task) -> Act:  # noqa: ARG002 - a protocol names them
        """See `Watcher.act`."""
        number = self._runs[task.id]
        self._runs[task.id] += 1
        self.runs += 1
        return self._scripts[task.id].act(number)

    def intended(self, scripts: Sequence[Script], records: Sequence[JobRecord[Any]]) -> None:
        """See `Register.intended`."""
        self._scripts.update((record.id.encode(), script) for script, record in zip(scripts, records, strict=True))
        self.jobs += len(scripts)

    def foreign(self, script: Script, id: bytes, record: bytes) -> None:  # noqa: ARG002 - as above
        """See `Register.foreign`."""
        self._scripts[id] = script
        self.jobs += 1

    def answered(self, stored: Sequence[str], unsure: Sequence[str], refused: Sequence[str]) -> None:
        """See `Register.answered`."""

    def again(self, ids: Sequence[str]) -> None:
        """See `Register.again`."""

    def believes(self, holder: str, lease: Lease, until: float) -> None:
        """See `Register.believes`."""

    def gave_back(self, holder: str) -> None:
        """See `Register.gave_back`."""

    def sent(self, actor: SimRunner, batches: Sequence[Batch]) -> None:
        """See `Watcher.sent`."""

    def beat_answered(self, outcomes: Sequence[tuple[Batch, Outcome]]) -> None:
        """See `Watcher.beat_answered`."""

    def beaten(self, runner: SimRunner) -> None:
        """See `Watcher.beaten`."""

    def saw(self, context: Context) -> None:
        """See `Watcher.saw`."""

    def returned(self, runner: SimRunner, task: Task, at: Moment) -> None:
        """See `Watcher.returned`."""

    def joined(self, runner: SimRunner) -> None:
        """See `Watcher.joined`."""

    def found_empty(self, runner: SimRunner, since: float, now: int) -> None:
        """See `Watcher.found_empty`."""

    def left(self, runner: SimRunner, gave_up: bool) -> None:
        """See `Watcher.left`."""


class Stage:
    """One history under way."""

    def __init__(self, plan: Simulation, trace: Trace | None) -> None:
        self.plan = plan
        self.lease = round(1000 * plan.lease)
        self.world = world = World(plan.seed, plan.faults, plan.only, self.lease, LATENCY_MS)
        self.keys = [queue_keys(NAMESPACE, queue) for queue in plan.queues]
        self._ttl = 0.4 * self.lease
        self._referee = Referee(world, self.keys, self.lease, self._ttl, CALL_MS, trace) if plan.check else None
        self._book: Referee | Bystander = self._referee or Bystander()
        if plan.check:
            world.observer = self._referee
        self._settings = Settings(
            NAMESPACE, dict(plan.queues), plan.threads, plan.coroutines, self.lease,
            (0.1 if plan.deployers else 0.4) * self.lease,
        )  # fmt: skip
        self._scripts = draw_scripts(
            plan.seed, plan.jobs, list(plan.queues), self.lease, plain=plan.plain, heeding=plan.deployers > 0
        )
        self._stopping = False
        self._deployed = not world.stormy
        self._over = False
        self._starts = 0
        self._bursts = {f"runner{number}" for number in range(plan.runners, max(0, plan.runners - plan.bursts), -1)}
        self._runners: dict[str, SimRunner | None] = {}
        self._producers: dict[str, Producer] = {}
        storm = 1000 * plan.storm if world.stormy else 0.0
        self._calm = storm + AFTERMATH * self.lease if world.stormy else 0.0
        self._deadline = self._calm + self._patience()
        for number in range(plan.runners):
            self._start_runner(f"runner{number + 1}")
        spread = max(storm * 0.6, 1.0)
        for number in range(plan.producers):
            share = self._scripts[number :: plan.producers]
            pause = 0.0 if plan.plain else spread * plan.burst / (2 * max(1, len(share)))
            self._start_producer(f"producer{number + 1}", share, pause)
        for number in range(plan.operators if not plan.plain else 0):
            Operator(
                world, f"operator{number + 1}", NAMESPACE, list(plan.queues), pause=self.lease / 3,
                until=max(storm, 2.0 * self.lease),
            )  # fmt: skip
        for number in range(plan.lock_users if not plan.plain else 0):
            self._start_lock_user(f"locker{number + 1}")
        if world.stormy:
            world.at(storm, self._calm_down)
            for number in range(plan.runners):
                if world.rng.random() < 0.4:
                    world.at(storm * world.rng.random(), self._deploy, f"runner{number + 1}")
        for number in range(plan.deployers if not plan.plain else 0):
            Deployer(
                world, f"deployer{number + 1}", self._deploy_busy, pause=0.6 * self.lease,
                until=max(storm, 2.0 * self.lease),
            )  # fmt: skip
        world.at(self._calm, self._settle)

    def _patience(self) -> float:
        """How long everything may take to end in calm weather (ms)."""
        deaths = sum(1 for script in self._scripts for act in script.acts if act.what == "die")
        slow = sum(1 for script in self._scripts if script.kind in ("steady", "rare"))
        return 60_000 + 20.0 * self.lease * (1 + deaths) + 3_600_000.0 * bool(slow) + 10.0 * self.plan.jobs

    # --------------------------------------------------------------------------------------------------------- actors

    def _start_runner(self, column: str) -> None:
        if self._stopping:
            return
        self._starts += 1
        # During the storm a deploy is under way: one runner knows a kind that the others do not know yet.
        kinds = {name: kind for name, kind in KINDS.items() if name != "rare" or column == "runner1" or self._deployed}
        settings = attrs.evolve(self._settings, until_empty=column in self._bursts)
        self._runners[column] = SimRunner(
            self.world, column, self._starts, settings, kinds, self._book, self._runner_gone
        )  # fmt: skip

    def _runner_gone(self, runner: SimRunner) -> None:
        self._runners[runner.column] = None
        if self._referee is not None:
            self._referee.gone(runner)
            if runner.stopped:
                self._idle(runner)
        pause = self.lease * (0.05 + 0.6 * self.world.rng.random())
        if runner.stopped and runner.column in self._bursts and self.world.now > self._calm:
            pause *= 8  # for hours it may have nothing to do
        self.world.at(self.world.now + pause, self._start_runner, runner.column)

    def _deploy(self, column: str) -> None:
        runner = self._runners.get(column)
        if runner is not None:
            runner.stop()

    def _deploy_busy(self) -> bool:
        """Stop a runner that has work; answers whether there is one."""
        busy = [column for column, runner in self._runners.items() if runner is not None and runner.tasks]
        if busy:
            self._deploy(busy[self._starts % len(busy)])
        return bool(busy)

    def _start_producer(self, column: str, scripts: list[Script], pause: float) -> None:
        def gone(producer: Producer) -> None:
            self.world.at(self.world.now + self.lease / 4, again, producer.scripts)

        def again(left: list[Script]) -> None:
            self._start_producer(column, left, pause)

        self._producers[column] = Producer(
            self.world, column, NAMESPACE, scripts, self._book, burst=self.plan.burst, pause=pause, gone=gone
        )  # fmt: skip

    def _start_lock_user(self, column: str) -> None:
        if self._stopping:
            return
        self._starts += 1
        gone: Callable[[LockUser], None] = lambda user: self.world.at(  # noqa: E731 - shorter than a method
            self.world.now + self.lease / 4, self._start_lock_user, user.column
        )
        LockUser(
            self.world, column, NAMESPACE, self._book, ttl=self._ttl, until=self._no_more_locks, gone=gone,
            number=self._starts,
        )  # fmt: skip

    def _no_more_locks(self) -> bool:
        """Whether enough was seen of the lock in calm weather."""
        return self._stopping or self.world.now > self._calm + self.world.back + 12 * self._ttl

    # ------------------------------------------------------------------------------------------------------ the course

    def _calm_down(self, _: None) -> None:
        self.world.stormy = False
        self._deployed = True
        for column, runner in self._runners.items():
            if runner is not None and "rare" not in runner.knows:
                self._deploy(column)
        self.world.tell("world", "the storm is over")

    def _settle(self, _: None) -> None:
        """In calm weather: has everything ended?"""
        world = self.world
        if self._referee is not None and self._referee.calm is None:
            self._referee.calm = world.now
        busy = any(producer.busy for producer in self._producers.values())
        if not busy and self._pending() == 0 and (self.plan.plain or world.now > self._calm + 3 * self._ttl):
            self._stopping = True
            for runner in self._runners.values():
                if runner is not None:
                    runner.stop()
            world.at(world.now + self.lease, self._end)
            return
        if world.now > self._deadline + world.back:
            self._stuck()
        if self._referee is not None and self.plan.lock_users and not self.plan.plain and not self._no_more_locks():
            self._referee.lock_in_time(6 * self._ttl + world.back)
        world.at(world.now + (5.0 if self.plan.plain else self.lease / 10), self._settle)

    def _pending(self) -> int:
        contents = self.world.contents
        total = 0
        for keys in self.keys:
            total += len(contents.lists.get(keys.ready.full, ()))
            total += len(contents.sets.get(keys.waiting.full, ())) + len(contents.sets.get(keys.working.full, ()))
        return total

    def _stuck(self) -> None:
        ids: list[bytes] = []
        for keys in self.keys:
            contents = self.world.contents
            ids += contents.lists.get(keys.ready.full, ())
            for key in (keys.waiting, keys.working):
                ids += contents.sets[key.full].scores if key.full in contents.sets else ()
        raise InvariantBroken("progress", f"{len(ids)} jobs did not end", tuple(ids))

    def _end(self, _: None) -> None:
        self._over = True

    def _idle(self, runner: SimRunner) -> None:
        """What a runner without work must have given up: a slot that leaks is a slot less for ever."""
        core = runner.core
        believed = core._outstanding.running  # noqa: SLF001 - its own count of the slots in use
        if core.outstanding == 0 and not runner.tasks and any(believed.values()):
            raise InvariantBroken("I7", f"{runner.column} believes in running jobs that it does not run: {believed}")

    def play(self) -> History:
        """Let it happen.

        Raises:
            InvariantBroken: Something that must hold did not.
        """
        world, book = self.world, self._book
        world.run(float("inf"), lambda: self._over)
        alive = [column for column, runner in self._runners.items() if runner is not None]
        if alive:
            raise InvariantBroken("clean stop", f"{', '.join(alive)} did not end within a lease of being asked to")
        if isinstance(book, Referee):
            book.finish()
            ended = Counter(life.gone or "dead" for life in book.lives.values() if life.sendings)
            jobs, runs, seen = sum(ended.values()), len(book.runs), dict(sorted(book.seen.items()))
        else:
            jobs, runs, seen = book.jobs, book.runs, {}
            dead = sum(len(world.contents.sets.get(keys.dead.full, ())) for keys in self.keys)
            ended = Counter(finished=jobs - dead, dead=dead)
        facts = (world.steps, jobs, runs, sorted(ended.items()), world.now, world.fates.fired, seen)
        return History(
            seed=self.plan.seed, steps=world.steps, jobs=jobs, runs=runs, ended=dict(ended), ms=world.now,
            faults=dict(sorted(world.fates.counts.items())), fired=tuple(world.fates.fired), seen=seen,
            digest=zlib.crc32(repr((facts, world.contents.dump())).encode()),
        )  # fmt: skip
