"""`DeliveryMachine`: a Hypothesis state machine over a whole queue, with everything that goes wrong.

Needs the package ``hypothesis``. Subclass it to test jobs of your own, or a storage of your own::

    class ShopMachine(DeliveryMachine):
        def open_queue(self) -> JobQueue:
            bank.clear()                                   # the world that the jobs act on
            return jobs

        def check_world(self) -> None:
            assert all(count == 1 for count in bank.values())

    TestShop = ShopMachine.TestCase                        # pytest and unittest run it
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobqueue.backend import GivenBackend
from jobqueue.clock import Moment
from jobqueue.context import current_context
from jobqueue.drive import Blocking
from jobqueue.errors import JobNotFound, NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.ids import SeededChance
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.loops import drive
from jobqueue.queue import JobQueue
from jobqueue.record import decode
from jobqueue.retry import Discard, RetryPolicy, Snooze
from jobqueue.runner.decisions import Leave, Send
from jobqueue.runner.execute import run_coroutine, run_function
from jobqueue.runner.rescue import patrol
from jobqueue.runner.task import End, Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import CLAIMS, Batch, Fields, HashKey, Kept, Page, Peek, Records
from jobqueue.storage.protocol import Storage
from jobqueue.testing import strategies
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.faulty import Fault, FaultyStorage
from jobqueue.testing.members import BEAT_MS, LEASE_MS, Member, Seen

__all__ = ["BEAT_MS", "LEASE_MS", "DeliveryMachine"]

PAUSE_MS: Final = 250
"""Before a retry, and of a snooze."""
QUEUES: Final = ("high", "low")
RUNNERS, MOST_JOBS, ROUNDS = 2, 4, 60
THEIR_ROUNDS: Final = 1000  # a user's job may have many retries, but not without end
TOO_MANY: Final = 100
"""So many runs more than a job has retries, or so many other jobs, and it is said not to end."""

_fates = st.sampled_from([Fault.OK] * 3 + [fault for fault in Fault if fault is not Fault.OK])
_runners = st.integers(0, RUNNERS - 1)
_steps = st.sampled_from([1, BEAT_MS, PAUSE_MS - 1, PAUSE_MS, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1, 2 * BEAT_MS])
_ways = st.sampled_from(["ok", "ok", "fail", "once", "snooze"])


class DeliveryMachine(RuleBasedStateMachine):
    """Producers, two runners, operators and a network that loses, repeats and delays, over one storage.

    After every step: each accepted job is in exactly one place with its payload or was run to its end or deleted, fences
    grow, dead jobs stay dead, no job is started twice under one claim, and what runs under a certain lease is held. At
    the end all faults stop, and everything has to be finished or dead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.below = self.open_storage()
        self.fate = Fault.OK
        self.faulty = FaultyStorage(self.below, lambda _scope, _batches: self.fate)
        theirs = self.open_queue()
        if theirs is None and type(self).open_queue is not DeliveryMachine.open_queue:
            raise TypeError(
                f"{type(self).__name__}.open_queue answers None, and not a JobQueue: does it lack its return?"
            )
        self.jobs = theirs or JobQueue(namespace="machine")
        self.is_theirs = theirs is not None
        backend = GivenBackend(self.faulty, self.clock)
        self._restore = self.jobs.access.replace(backend, chance=SeededChance(1), pauses=False)
        self.known: dict[str, Seen] = {}
        self.dead: set[str] = set()
        self.counted: Counter[str] = Counter()
        self.is_broken = False
        self.born = 0
        if not self.is_theirs:
            self._declare()
        self.queues = sorted({kind.queue for kind in self.jobs.registry}) if self.is_theirs else list(QUEUES)
        self._calls = self.calls()
        self.jobs.counts()  # marks the namespace before anything goes wrong
        self.runners = [self._new_runner() for _ in range(RUNNERS)]

    def open_storage(self) -> Storage:
        """An empty storage; override it to test another."""
        return MemoryStorage()

    def open_queue(self) -> JobQueue | None:
        """Your `JobQueue`, with the world that its jobs act on made new; None for jobs of the machine's own.

        Until the machine ends, the `JobQueue` stores in the machine's storage, under its clock.
        """
        return None

    def calls(self) -> st.SearchStrategy[Any]:
        """What is enqueued: calls and instances of your jobs; by default any of them, with any arguments that fit."""
        if self.is_theirs:
            return strategies.jobs(self.jobs)
        numbers = itertools.count()  # they tell payloads apart
        return st.builds(
            lambda queue, how, retry: self.work.opts(queue=queue, retry=retry).call(next(numbers), how),
            st.sampled_from(QUEUES), _ways, st.integers(0, 1),
        )  # fmt: skip

    def check_world(self) -> None:
        """Assert what has to hold of your world after every step, and once more when every job has ended."""

    def keys(self, queue: str) -> QueueKeys:
        """The keys of a queue."""
        return queue_keys(self.jobs.namespace, queue)

    def _declare(self) -> None:
        policy = RetryPolicy(limit=1, backoff=lambda _n: PAUSE_MS / 1000)

        @self.jobs.job(name="work", retry=policy)
        def work(number: int, how: str) -> None:  # noqa: ARG001 - it tells payloads apart
            context = current_context()
            if how == "fail" or (how == "once" and context.attempt == 1):
                raise RuntimeError("planned")
            if how == "snooze" and not self.known[context.record.id].runs:
                raise Snooze(PAUSE_MS / 1000)

        self.work = work

    def _new_runner(self) -> Member:
        self.born += 1
        weights = {queue: 2 if queue == "high" else 1 for queue in self.queues}
        return Member(self.jobs, weights, b"runner%d" % self.born, lambda: self.at)

    @property
    def at(self) -> Moment:
        """Now."""
        return Moment(self.clock.now(), self.clock.monotonic())

    def _apply(self, batches: Sequence[Batch], fate: Fault) -> list[Any]:
        self.fate = fate
        self.counted[fate.value] += 1
        try:
            return self.faulty.apply(batches)
        finally:
            self.fate = Fault.OK

    # ----------------------------------------------------------------------------------------- producers and operators

    @initialize(data=st.data(), count=st.integers(1, 3))
    def begin_with(self, data: st.DataObject, count: int) -> None:
        """A few jobs are there from the start."""
        for _ in range(count):
            self.enqueue(data, 0, Fault.OK)

    @precondition(lambda self: len(self.known) < MOST_JOBS)
    @rule(data=st.data(), delay=st.sampled_from([0, 0, 1, PAUSE_MS]), fate=_fates)
    def enqueue(self, data: st.DataObject, delay: int, fate: Fault) -> None:
        """Enqueue a job."""
        call = self.jobs.call_of(data.draw(self._calls, label="job"))
        self.fate = fate
        try:
            record = self.jobs.enqueue(call.opts(delay=delay / 1000))
        except (NotApplied, OutcomeUnknown) as error:
            if isinstance(error, OutcomeUnknown):
                for record in error.records:
                    self.known[record.id] = Seen(record.payload, known=False)
        else:
            self.known[record.id] = Seen(record.payload, known=True)
        finally:
            self.fate = Fault.OK

    @precondition(lambda self: self.known)
    @rule(data=st.data(), delete=st.booleans(), fate=_fates)
    def operate(self, data: st.DataObject, delete: bool, fate: Fault) -> None:
        """Requeue or delete a job."""
        id = data.draw(st.sampled_from(sorted(self.known)))
        self.known[id].touched = self.known[id].touched or delete
        self.dead.discard(id)
        self.fate = fate
        try:
            (self.jobs.delete if delete else self.jobs.requeue)(id)
        except (JobNotFound, StorageRefused, NotApplied, OutcomeUnknown):
            self.counted["operated in vain"] += 1
        finally:
            self.fate = Fault.OK

    # ------------------------------------------------------------------------------------------------------- runners

    @rule(who=_runners, fate=_fates, dies=st.sampled_from([False] * 9 + [True]))
    def pump(self, who: int, fate: Fault, dies: bool = False) -> None:
        """A runner does what it would do now, and may die after it has sent something."""
        runner = self.runners[who]
        if runner.asleep:
            return

        def apply(batches: Sequence[Batch], work: Callable[[], None]) -> list[Any]:
            work()
            return self._apply(batches, fate)

        then = runner.engine.take_turn(apply).then
        if isinstance(then, Leave) or (dies and isinstance(then, Send)):
            self.runners[who] = self._new_runner()

    @rule(who=_runners)
    def work_on(self, who: int) -> None:
        """A runner claims and starts what it can, without trouble: what mostly happens."""
        for _ in range(3):
            self.pump(who, Fault.OK)
        self.begin(who)

    @precondition(lambda self: any(runner.given for runner in self.runners))
    @rule(who=_runners)
    def begin(self, who: int) -> None:
        """A runner starts one of the jobs it was given."""
        runner = self.runners[who]
        if runner.asleep or not runner.given:
            return
        task = runner.given.pop(0)
        if not task.take():
            return
        certain = not task.lease_lost and task.deadline > self.at.local
        kept = self._kept(task.queue, [task.id])[0]
        self._run(task)
        if certain:
            assert kept is not None, f"{task.id!r} was started and is not stored"
            assert kept.claim == task.claim, (
                f"{task.id!r} was started under {task.claim!r}, its claim is {kept.claim!r}"
            )
        runner.running.append(task)

    def _run(self, task: Task) -> None:
        assert task.kind is not None
        if task.kind.is_coroutine:
            asyncio.run(run_coroutine(task, self.clock.monotonic))
        else:
            run_function(task, self.clock.monotonic)
        if task.end is End.HANDED_BACK:
            return
        job = self.known.get(id := task.id.decode()) or self._adopt(id, task.stored.payload)
        assert task.fence not in job.runs, f"job {id} was started twice under fence {task.fence}"
        self.counted["runs"] += 1
        self.counted["runs again"] += bool(job.runs)
        job.runs.add(task.fence)
        job.succeeded = job.succeeded or task.outcome is None or isinstance(task.outcome, Discard)

    def _adopt(self, id: str, payload: bytes | None) -> Seen:
        """A job that a job enqueued: only those of users do."""
        assert self.is_theirs, f"job {id} was never enqueued"
        return self.known.setdefault(id, Seen(payload, known=True))

    @precondition(lambda self: any(runner.running for runner in self.runners))
    @rule(who=_runners)
    def end(self, who: int) -> None:
        """A running job comes to its end."""
        runner = self.runners[who]
        if not runner.asleep and runner.running:
            runner.core.returned([runner.running.pop(0)], self.at)

    @precondition(lambda self: any(runner.core.leases.held for runner in self.runners))
    @rule(who=_runners, fate=_fates)
    def beat(self, who: int, fate: Fault) -> None:
        """A runner extends its leases."""
        runner = self.runners[who]
        if runner.asleep:
            return
        at = self.at
        runner.core.leases.overdue(at)
        batches = runner.core.leases.extend(at)
        if batches:
            outcomes = self._apply([batch for batch, _ in batches], fate)
            runner.core.leases.extended(batches, outcomes, at.local)

    @precondition(lambda self: self.born > RUNNERS or self.clock.monotonic() >= LEASE_MS)
    @rule(who=_runners, fate=_fates)
    def look(self, who: int, fate: Fault) -> None:
        """A runner looks for the jobs of others that are gone."""
        runner = self.runners[who]
        if runner.asleep:
            return
        self.fate = fate
        try:
            for queue in self.queues:
                flow = patrol(self.keys(queue), runner.watch, LEASE_MS, lambda: self.at)
                self.counted["rescued"] += len(drive(flow, Blocking(self.faulty, self.clock, pauses=False)))
        except (NotApplied, OutcomeUnknown):
            self.counted["looks without an answer"] += 1
        finally:
            self.fate = Fault.OK

    @precondition(lambda self: any(runner.core.leases.held for runner in self.runners))
    @rule(who=_runners, sleeper=_runners)
    def rob(self, who: int, sleeper: int) -> None:
        """A lease's time passes while one runner may be asleep; the other looks twice, as it would, and claims."""
        asleep = self.runners[sleeper].asleep
        self.runners[sleeper].asleep = sleeper != who
        self.advance(LEASE_MS)
        self.look(who, Fault.OK)
        self.advance(2 * BEAT_MS)
        self.look(who, Fault.OK)
        self.runners[who].core.woken(self.at)
        self.work_on(who)
        self.what_runs_is_held()
        self.runners[sleeper].asleep = asleep

    @rule(who=_runners, what=st.sampled_from(["crash", "pause or wake", "pause or wake", "stop", "ring"]))
    def befall(self, who: int, what: str) -> None:
        """A runner dies and another one starts, falls asleep or wakes up, is asked to stop, or is woken by a bell."""
        runner = self.runners[who]
        if what == "crash":
            self.runners[who] = self._new_runner()
        elif what == "pause or wake":
            runner.asleep = not runner.asleep
        elif what == "stop":
            runner.core.stop(self.at)
        else:
            runner.core.woken(self.at)

    # -------------------------------------------------------------------------------------------- network and clock

    @precondition(lambda self: self.faulty.stalled)
    @rule(index=st.integers(0, 3))
    def deliver(self, index: int) -> None:
        """Something that was on its way for a long time arrives."""
        self.counted["delivered late"] += 1
        # What arrives may be an operator's: a dead job that was requeued once may leave dead again.
        self.dead.clear()
        self.faulty.deliver(index % len(self.faulty.stalled))

    @rule(step=_steps)
    def advance(self, step: int) -> None:
        """Time passes; runners that are awake beat in time."""
        while step > 0:
            part = min(step, BEAT_MS)
            self.clock.advance(milliseconds=part)
            step -= part
            for who in range(RUNNERS):
                self.beat(who, Fault.OK)

    @precondition(lambda self: not any(runner.core.leases.held for runner in self.runners))
    @rule()
    def jump(self) -> None:
        """Nobody does anything until the next waiting job is due."""
        dues = [kept.score for place, kept in self._places().values() if place == "waiting"]
        if dues and min(dues) > self.clock.now():
            self.clock.advance(milliseconds=min(dues) - self.clock.now())

    # -------------------------------------------------------------------------------------------------- what must hold

    def _kept(self, queue: QueueKeys, ids: Sequence[bytes]) -> tuple[Kept | None, ...]:
        [kept] = self.below.read([Records(queue.scope, tuple(ids))])
        return kept  # type: ignore[return-value]

    def _places(self) -> dict[str, tuple[str, Kept]]:
        found: dict[str, tuple[str, Kept]] = {}
        for name in self.queues:
            queue = self.keys(name)
            answers: list[Any] = self.below.read([
                Peek(queue.ready, 0, 100), *(Page(key, 100) for key in (queue.waiting, queue.working, queue.dead))
            ])  # fmt: skip
            ready, *sets = answers
            members: list[tuple[bytes, str]] = [(id, "ready") for id in ready]
            for place, entries in zip(("waiting", "working", "dead"), sets, strict=True):
                members += [(id, place) for id, _ in entries]
            stored = self._kept(queue, [id for id, _ in members])
            for (id, place), kept in zip(members, stored, strict=True):
                text = id.decode()
                assert text not in found, f"job {text} is in {place} and in {found[text][0]}"
                assert kept is not None, f"job {text} is in {place} without a record"
                found[text] = (place, kept)
            [held] = self.below.read([Fields(HashKey(queue.scope, CLAIMS))])
            working = {id for id, (place, _) in found.items() if place == "working"}
            assert isinstance(held, dict)
            assert {id.decode() for id in held} <= working, "a claim is left of a job that nobody holds"
        return found

    @invariant()
    def what_must_hold(self) -> None:
        """One invariant, because each has a line in the history after every step."""
        self.everything_is_somewhere()
        self.what_runs_is_held()
        try:
            self.check_world()
        except BaseException:
            self.is_broken = True
            raise

    def everything_is_somewhere(self) -> None:
        """Conservation, payload, growing fences, dead jobs stay dead."""
        places = self._places()
        for id, (place, kept) in places.items():
            stored = decode(kept.record)
            job = self.known.get(id) or self._adopt(id, stored.payload)
            assert stored.payload == job.payload, f"job {id} has another payload than it was enqueued with"
            assert (kept.claim is not None) == (place == "working"), f"job {id} in {place} has the claim {kept.claim!r}"
            if kept.claim is not None:
                fence = int(kept.claim.split(b":")[1])
                assert fence >= job.fence, f"the fence of job {id} fell from {job.fence} to {fence}"
                job.fence = fence
        for id, job in self.known.items():
            if job.known and id not in places:
                assert job.succeeded or job.touched, f"job {id} was accepted and is lost"
        now_dead = {id for id, (place, _) in places.items() if place == "dead"}
        assert self.dead <= now_dead | {id for id, job in self.known.items() if job.touched}, "a dead job came back"
        self.dead = now_dead

    def what_runs_is_held(self) -> None:
        """No job is taken from a runner that is in touch."""
        for runner in self.runners:
            for task in runner.running:
                certain = not task.lease_lost and task.deadline > self.at.local
                # One that has returned was handed back in the last words of its runner.
                if certain and not task.returned and runner.core.leases.holds(task):
                    [kept] = self._kept(task.queue, [task.id])
                    assert kept is not None, f"{task.id!r} is run under a certain lease, and is gone"
                    assert kept.claim == task.claim, f"{task.id!r} is run under a certain lease, and was taken away"

    def teardown(self) -> None:
        """All faults stop: everything has to come to its end."""
        try:
            if not self.is_broken:  # or the same would be found and told a second time
                self._settle()
                self.check_world()
        finally:
            self._restore()
            self.below.close()

    def _settle(self) -> None:
        self.faulty.stalled.clear()
        for runner in self.runners:
            runner.asleep = False
        jobs = len(self.known)
        before = {id: len(job.runs) for id, job in self.known.items()}
        for _ in range(THEIR_ROUNDS if self.is_theirs else ROUNDS):
            for who in range(RUNNERS):
                self.runners[who].core.woken(self.at)
                for _ in range(6):
                    self.pump(who, Fault.OK)
                    self.begin(who)
                    self.end(who)
                self.look(who, Fault.OK)
            self.everything_is_somewhere()
            places = self._places()
            if all(place == "dead" for place, _ in places.values()):
                return
            if len(self.known) > jobs + TOO_MANY * MOST_JOBS or any(
                len(job.runs) - before.get(id, 0) > TOO_MANY + max(0, decode(places[id][1].record).retry)
                for id, job in self.known.items()
                if id in places
            ):
                break
            self.advance(BEAT_MS)
            if self.is_theirs and all(place in ("waiting", "dead") for place, _ in places.values()):
                self.jump()  # their retries may be hours away
        raise AssertionError("\n".join(self._unfinished()))

    def _unfinished(self) -> Iterator[str]:
        left = [(id, place, decode(kept.record)) for id, (place, kept) in self._places().items() if place != "dead"]
        yield f"without any fault {len(left)} jobs do not end:"
        for id, place, stored in left[:MOST_JOBS]:
            job = f"{stored.name}({stored.payload.decode(errors='replace')})"
            yield f"  {job} is {place} after {len(self.known[id].runs)} runs"
        yield "does a job snooze, retry or enqueue itself without end?"
