"""A runner without threads: the production core, driven one job at a time by whoever asks for the next.

It starts and works like a real one: `Core` decides, `Duties` bring back what dead runners left, and everything it does
goes through the storage. Only these things differ: it holds one job at a time, so the order of runs is the order of
claims; the clock stands still while it works; nobody rings, so it looks again when others wrote something; and it ends
when nothing is due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import attrs

from jobqueue.clock import Clock, Moment
from jobqueue.drive import run
from jobqueue.errors import JobQueueError
from jobqueue.flows import Flow
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.record import JobRecord
from jobqueue.registry import Registry
from jobqueue.runner.decisions import Config, Leave, Rest
from jobqueue.runner.duties import PRUNE_EVERY_MS, Duties, Reports
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event, JobsEnded
from jobqueue.runner.settings import default_weight
from jobqueue.runner.task import End, Task
from jobqueue.storage.ops import Applied, Batch, Refused, Sizes
from jobqueue.storage.protocol import Outcome, Storage

__all__ = ["BEAT_MS", "LEASE_MS", "InlineRunner", "Run", "RunnerDied", "TestingError", "keep_house"]

LEASE_MS: Final = 30_000
BEAT_MS: Final = LEASE_MS // 6
KEEP_DEAD_MS: Final = 180 * 24 * 3_600_000
"""How long dead jobs are kept: as a `Runner` does."""
UNANSWERED: Final = 1_000
"""Calls in a row without an answer after which a runner gives up: no test loses so many."""
GRACE_MS: Final = 3_600_000.0


class TestingError(JobQueueError):
    """A testing block was used in a way that cannot work, or left with something undone."""

    __test__ = False  # what begins with "Test" is no test


class RunnerDied(BaseException):
    """Ends a job in the middle, as if its runner had died there; not an `Exception`, so that jobs do not catch it."""


@attrs.frozen
class Run:
    """One run of a job.

    Attributes:
        record: The job as it was claimed.
        outcome: ``done``, ``retried``, ``dead``, ``snoozed``, ``discarded``, ``released`` if it saw that it should stop and
            was handed back, ``crashed`` if its runner died, or ``late`` if its result was refused.
        result: What it returned; None if it did not return.
        error: What it raised, or returned of `Snooze`, `Discard` and `Retry`; None after a plain success.
    """

    record: JobRecord[Any]
    outcome: str
    result: Any = None
    error: BaseException | None = None


class InlineRunner:
    """One runner, from its start to its stop.

    Args:
        registry: The kinds it knows.
        keys: The namespace.
        queues: Answers the queues there are now.
        storage: What it works on.
        clock: The clock, which it only reads.
        incarnation: Its name, never used before.
        jitter: A number from 0 up to 1, for the length of its pauses.
        changes: Counts what was written to the storage, by anybody.

    Attributes:
        counts: How many jobs ended how.
        runs: Every run, in order.
        current: The job that is being run.
        died: The job that it held when it died.
    """

    def __init__(
        self,
        registry: Registry,
        keys: NamespaceKeys,
        queues: Callable[[], Sequence[str]],
        storage: Storage,
        clock: Clock,
        incarnation: bytes,
        *,
        jitter: Callable[[], float],
        changes: Callable[[], int],
    ) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.runs: list[Run] = []
        self.current: Task | None = None
        self.died: Task | None = None
        self._queues = queues
        self._storage = storage
        self._clock = clock
        self._waited = 0.0
        self._unanswered = 0
        self._changes = changes
        self._seen = changes()  # all that was written before it looked, or by itself
        self._errors: dict[bytes, BaseException | None] = {}
        self._born = self._moment()
        self._given: list[Task] = []
        self._engine = Engine(
            Config(incarnation, LEASE_MS, BEAT_MS, GRACE_MS, threads=1, coroutines=1), keys.scope,
            {queue: default_weight(queue) for queue in queues()}, registry.get, moment=self._moment,
            start=self._given.extend, observe=self._observe, jitter=jitter,
        )  # fmt: skip
        self._core = self._engine.core

    def work(self, most: int | None = None) -> Generator[Task, None, None]:
        """Yield each job that is to be run now; at the next step it has been run.

        To close the generator where it stands is the death of this runner: what it holds stays in working.

        Args:
            most: Stop after so many jobs; None: when nothing is due any more.
        """
        while True:
            while self._given:
                task = self._given.pop(0)
                taken = task.take()
                assert taken, "nobody else starts its jobs"
                self.current = task
                yield task
                self.current = None
                if task.end is End.CRASHED:
                    self.died = task
                    self.counts["crashed"] += 1
                    self.runs.append(Run(task.job_record(), "crashed", None, task.outcome))
                    return
                self._errors[task.id] = task.outcome
                if most is not None and (task.seen or task.end is not End.HANDED_BACK):
                    most -= 1
                if most == 0:
                    self.stop()
                # By a clock that stood still since its start, so that it never counts on quick jobs and claims ahead.
                self._core.returned([task], Moment(self._clock.now(), self._born.local))
            then = self._engine.take_turn(self._send).then
            match then:
                case Leave():
                    return
                case Rest(until, listen) if not self._given:
                    if not listen:
                        # It waits before it asks again, after a reply was lost. That takes no time here.
                        self._waited += max(1.0, until - self._moment().local)
                    elif self._seen == self._changes():
                        return  # it holds nothing, and every queue said that it has nothing more
                    else:
                        self._seen = self._changes()
                        for queue in self._queues():
                            self._core.serve(queue, default_weight(queue))
                        self._core.woken(self._moment())

    def stop(self) -> None:
        """Claim no more; `work` ends when everything is stored or handed back."""
        self._core.stop(self._moment())

    def _send(self, batches: Sequence[Batch], meanwhile: Callable[[], None]) -> list[Outcome]:
        meanwhile()
        before = self._changes()
        outcomes = self._storage.apply(batches)
        self._seen += self._changes() - before
        answered = any(isinstance(outcome, Applied | Refused) for outcome in outcomes)
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered > UNANSWERED:
            raise TestingError(
                "the server was cut (cut_server) and did not come back while jobs were run: a runner waits for it, here it "
                "would wait for ever. Run jobs after the cut, or say how many calls it lasts"
            )
        return outcomes

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.monotonic() + self._waited)

    def _observe(self, event: Event) -> None:
        if not isinstance(event, JobsEnded):
            return
        for task in event.tasks:
            if event.ending == "released" and not task.seen:
                continue  # it did not begin
            self.counts[event.ending] += 1
            if task.id in self._errors:
                self.runs.append(Run(task.job_record(), event.ending, task.result, self._errors.pop(task.id)))


def keep_house(keys: NamespaceKeys, queues: Sequence[QueueKeys], storage: Storage, clock: Clock) -> None:
    """What other runners have done until now: taken the jobs of those that died, and forgotten what is too old.

    A lease is taken only after two looks that lie two of its beats apart, and other runners look with every beat. A
    clock that jumps leaves them no time for it. So both looks are made up for: one as of two beats ago, one now.
    """
    [sizes] = storage.read([Sizes(tuple(key for queue in queues for key in (queue.working, queue.dead)))])
    assert isinstance(sizes, tuple)
    if not any(sizes):
        return  # nothing to take, and nothing to forget
    now = Moment(clock.now(), clock.monotonic())
    looking = Moment(now.now, now.local - PRUNE_EVERY_MS)
    duties = Duties(
        keys, lambda: list(queues), lease=LEASE_MS, beat=BEAT_MS, keep_dead=KEEP_DEAD_MS, moment=lambda: looking,
        reports=Reports(rescued=lambda _: None, queue=lambda _: None, work=lambda _: None), discover=False,
    )  # fmt: skip
    for looking in (Moment(now.now - 2 * BEAT_MS, now.local - 2 * BEAT_MS), now):  # noqa: B007 - read by `moment`
        flow: Flow[None] = duties.round()
        run(flow, storage, clock)
