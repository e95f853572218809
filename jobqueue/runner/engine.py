"""One runner that a caller drives: the same for production, the testing kit, the simulation and the tests.

The caller takes turns and says what happened in between: jobs have returned, somebody rang, the runner is to stop. It runs
the jobs that are started, and rests or leaves as the turn decided. So no caller needs to know in which order the core is to
be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

from jobqueue.clock import Moment
from jobqueue.flows import Apply, Flow
from jobqueue.job import LANES, Kind, Lane
from jobqueue.keys import queue_keys
from jobqueue.runner.core import Core
from jobqueue.runner.decisions import Config, Decision, Send
from jobqueue.runner.events import Observer
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome

__all__ = ["Engine"]

ApplyWhile: TypeAlias = Callable[[Sequence[Batch], Callable[[], None]], Sequence[Outcome]]
"""Applies batches, and calls something while they are under way, or before; see `Overlapping.apply_while`."""


class Engine:
    """One runner without a thread, a socket or a clock.

    Args:
        config: What it was told.
        namespace: Where its queues are.
        weights: Queue → weight of the queues it serves.
        kind: Answers the kind of a name, None if unknown.
        moment: Reads the clocks.
        start: Called with jobs to start.
        interrupt: Called with jobs to interrupt.
        observe: Told what happens.
        lanes: Answers where its kinds run; one at the least.
        jitter: A number from 0 up to 1.
        guard: Held while the core is asked: a thread that beats has the leases too.

    Attributes:
        core: Its rules, to be told what happened.
    """

    def __init__(
        self,
        config: Config,
        namespace: str,
        weights: Mapping[str, int],
        kind: Callable[[str], Kind[Any] | None],
        *,
        moment: Callable[[], Moment],
        start: Callable[[Sequence[Task]], None],
        observe: Observer,
        interrupt: Callable[[Sequence[Task]], None] = lambda _: None,
        lanes: Callable[[], Collection[Lane]] = lambda: LANES,
        jitter: Callable[[], float] = lambda: 0.5,
        guard: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.core = Core(config, weights, partial(queue_keys, namespace), kind, lanes, jitter, observe)
        self._moment = moment
        self._start = start
        self._interrupt = interrupt
        self._guard = nullcontext() if guard is None else guard

    def take_turn(self, apply_while: ApplyWhile) -> Decision:
        """Start and interrupt jobs and send what is to be sent; answers what was decided."""
        decision = self._decide()
        if isinstance(decision.then, Send):
            self._answered(apply_while(decision.then.batches, self._meanwhile))
        return decision

    def turn(self) -> Flow[Decision]:
        """`take_turn` as a flow."""
        decision = self._decide()
        if isinstance(decision.then, Send):
            self._meanwhile()
            self._answered((yield Apply(decision.then.batches)))
        return decision

    def _decide(self) -> Decision:
        at = self._moment()
        with self._guard:
            decision = self.core.decide(at)
        if decision.start:
            self._start(decision.start)
        if decision.interrupt:
            self._interrupt(decision.interrupt)
        return decision

    def _meanwhile(self) -> None:
        at = self._moment()
        with self._guard:
            tasks = self.core.meanwhile(at)
        if tasks:
            self._start(tasks)

    def _answered(self, outcomes: Sequence[Outcome]) -> None:
        at = self._moment()
        with self._guard:
            self.core.answered(outcomes, at)
