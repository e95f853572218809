"""Looks at every step of a history and raises `InvariantBroken` at the first that breaks a promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jobqueue.clock import Moment
from jobqueue.context import Context
from jobqueue.judge import SUSPECT
from jobqueue.keys import QueueKeys, namespace_keys
from jobqueue.lock import Lease
from jobqueue.record import JobRecord
from jobqueue.runner.shares import Shares
from jobqueue.runner.task import End, Task
from jobqueue.storage.ops import (
    Applied,
    Batch,
    Due,
    HashDelete,
    HashSet,
    LockDrop,
    LockTake,
    Move,
    Moved,
    Op,
    Placed,
    Put,
    Refused,
    Unlocked,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.testing.simulation.books import Books, InvariantBroken, Life, Run, split_claim
from jobqueue.testing.simulation.diagram import Trace
from jobqueue.testing.simulation.replay import Replays
from jobqueue.testing.simulation.rules import Rules
from jobqueue.testing.simulation.runner import SimRunner
from jobqueue.testing.simulation.scripts import Act, Script
from jobqueue.testing.simulation.world import Process, World

__all__ = ["Referee"]


class Referee(Rules):
    """Knows everything: what was accepted, what the storage must hold, who is alive, who runs what.

    Args:
        world: The world.
        queues: The queues.
        lease: Length of a lease in ms.
        ttl: Time to live of the lock in ms.
        call: The longest call without a fault, in ms.
        trace: Keeps what a reader of the history wants to see; None to keep nothing.
    """

    def __init__(
        self, world: World, queues: Sequence[QueueKeys], lease: int, ttl: float, call: float, trace: Trace | None
    ) -> None:
        super().__init__(world, lease, call)
        self.trace = trace
        self.queues = {keys.scope: Books(keys) for keys in queues}
        self._ttl = ttl
        self._batches: list[Batch] = []  # keeps them alive, so that an identity names one of them for ever
        self._arrived: set[int] = set()
        self._alone: dict[SimRunner, Task] = {}
        self._started: dict[tuple[bytes, bool], int] = {}
        self._orphans: dict[tuple[bytes, bytes], float] = {}
        self._believers: dict[str, tuple[float, int]] = {}
        self._lock_taken = 0.0
        self._lock: tuple[bytes, int, int] | None = None
        self._look = 0
        self._moved: dict[bytes, float] = {}  # id → when it came to its place
        self._registry = namespace_keys(queues[0].scope.removesuffix(f":{queues[0].queue}")).queues
        self._replays = Replays(world.seed, self.seen)

    # -------------------------------------------------------------------------------------------------- the storage

    def told(self, who: str, what: str, ids: Sequence[bytes] = ()) -> None:
        """See `Observer.told`."""
        if self.trace is not None:
            self.trace.add(self.world.now, who, what, ids)

    def applied(self, process: Process, batch: Batch, outcome: Outcome) -> None:
        """See `Observer.applied`."""
        again = id(batch) in self._arrived
        if not again:
            self._arrived.add(id(batch))
            self._batches.append(batch)
        if self.trace is not None:
            self.trace.storage(self.world.now, process.name, batch, outcome, again)
        if isinstance(outcome, Applied):
            for op, answer in zip(batch.ops, outcome.answers, strict=True):
                if isinstance(op, Move):
                    assert isinstance(answer, Moved)
                    if again:
                        self._nothing_new(op, answer)
                    if op.source != op.target:
                        self._moved.update(dict.fromkeys(answer.ids, self.world.now))
                    self.moved(process, batch.step, op, answer, self.departures.get(id(batch), (self.world.now, 0)))
                elif isinstance(op, Put):
                    assert isinstance(answer, Placed)
                    self._put(op, answer)
                    self._moved.update(dict.fromkeys(op.records, self.world.now))
                else:
                    self._plain(batch, op, answer)
        elif isinstance(outcome, Refused):
            self._refused(batch)
            self.look()
        else:
            raise InvariantBroken("I19", f"{process.name}: the storage refused {outcome!r}")
        self._replays.note(batch, outcome)
        self._look -= 1
        if self._look <= 0:
            self.look()
            self._replays.check(self.world.contents)

    def _nothing_new(self, op: Move, moved: Moved) -> None:
        """The same request arrived before: nothing may move, but what has become due or was enqueued since."""
        if op.once is None and not isinstance(op.pick, Due) and op.source != op.target:
            if moved.ids:
                raise InvariantBroken("I18", "a request moved jobs again when it arrived again", moved.ids)
            self.seen["I18"] += 1

    def look(self) -> None:
        """Compare all contents with the books."""
        size = 0
        for books in self.queues.values():
            wrong = books.compare(self.world.contents)
            size += books.size
            if wrong:
                rule = "I11" if wrong.startswith("counters") else "I2" if wrong.startswith("records") else "I1"
                raise InvariantBroken(rule, f"queue {books.keys.queue}: {wrong}")
        for rule in ("I1", "I2", "I3"):
            self.seen[rule] += size > 0
        self._agree()
        self._look = 1 + size // 100  # so that comparing costs about as much for each step, however many jobs there are

    def _refused(self, batch: Batch) -> None:
        self.seen["I19"] += 1
        for op in batch.ops:
            if isinstance(op, Move) and op.once is not None:
                last = self.queues[batch.scope].requests.get(op.once.incarnation, (0, 0, ()))
                if last is not None and last[0] <= op.once.number:
                    raise InvariantBroken("I18", f"claim {op.once.number} was refused, {last[0]} was the last")
                self.seen["I18"] += 1
                self.seen["I17"] += last is None

    def _put(self, op: Put, placed: Placed) -> None:
        books = self.queues[op.target.scope]
        scores = op.score
        for (job, record), state in zip(op.records.items(), placed.states, strict=True):
            if job not in self.lives:
                raise InvariantBroken("I1", "an id that nobody made was stored", (job,))
            life = self.lives[job]
            if state == "different" or (state == "same") is not (job in books.records):
                raise InvariantBroken("I1", f"storing it was answered {state!r}", (job,))
            if state == "same":
                self.seen["I18"] += 1
                continue
            if life.told == "refused":
                raise InvariantBroken("I19", "it was stored although the producer had been told it was not", (job,))
            life.sendings += 1
            life.gone = ""
            life.proven = 0
            books.records[job] = record
            if op.target.name == "ready":
                books.ready.append(job)
            else:
                assert scores is not None
                books.waiting[job] = scores if isinstance(scores, int) else scores[job]

    def _plain(self, batch: Batch, op: Op, answer: object) -> None:
        books = self.queues.get(batch.scope)
        if isinstance(op, LockTake):
            assert isinstance(answer, int)
            self._taken_lock(batch, op, answer)
        elif isinstance(op, LockDrop):
            if self._lock is not None and self._lock[0] == op.token:
                self._lock = (op.token, 0, self._lock[2])
        elif books is not None and isinstance(op, HashSet) and op.hash.name == "requests":
            books.requests.update(dict.fromkeys(op.fields))
        elif books is not None and isinstance(op, HashDelete) and op.hash.name == "requests":
            for incarnation in op.fields:
                runner = self.runners.get(incarnation)
                if incarnation not in self.deaths and runner is not None and not runner.core.stopping:
                    raise InvariantBroken("I18", f"the requests of {incarnation!r} were forgotten while it lives")
                books.requests.pop(incarnation, None)
                self.forgotten.add((batch.scope, incarnation))

    # ---------------------------------------------------------------------------------------------------------- locks

    def _taken_lock(self, batch: Batch, op: LockTake, fence: int) -> None:
        before = self._lock
        takes = isinstance(batch.guards[0], Unlocked) if batch.guards else True
        if before is not None and before[0] != op.token:
            if not takes or before[1] > op.now:
                raise InvariantBroken("I15", f"taken {before[1] - op.now} ms before its end")
            if fence <= before[2]:
                raise InvariantBroken("I15", f"fence {fence} after {before[2]}")
            self.seen["I15"] += 1
        elif before is not None and before[1] == 0:
            raise InvariantBroken("I15", "taken with the token that had dropped it")
        until = op.until if before is None or before[0] != op.token else max(op.until, before[1])
        self._lock = (op.token, until, fence)
        self._lock_taken = self.world.now

    def believes(self, holder: str, lease: Lease, until: float) -> None:
        """See `Register.believes`."""
        now = self.world.now
        for other, (end, fence) in self._believers.items():
            # A clock that jumped misleads whoever sampled it before; leases survive that by the second look, locks do not.
            if other != holder and end - 2 * self._call > now and self.world.jumped < -1e17:
                raise InvariantBroken("I15", f"{holder} (fence {lease.fence}) and {other} (fence {fence}) both hold it")
        self.seen["lock in time"] += self.calm is not None
        self._believers[holder] = (until, lease.fence)
        self.told(holder, f"holds the lock, fence {lease.fence}")

    def lock_in_time(self, bound: float) -> None:
        """In calm weather somebody takes the lock every so often (``bound`` in ms): it is never held for nobody."""
        since = self.world.now - max(self._lock_taken, self.calm or 0.0)
        if since > bound:
            raise InvariantBroken("lock in time", f"nobody could take it for {since:.0f} ms")

    def gave_back(self, holder: str) -> None:
        """See `Register.gave_back`."""
        self._believers.pop(holder, None)

    # ------------------------------------------------------------------------------------------------------ producers

    def intended(self, scripts: Sequence[Script], records: Sequence[JobRecord[Any]]) -> None:
        """See `Register.intended`."""
        for script, record in zip(scripts, records, strict=True):
            self._new(record.id.encode(), script, record.payload)

    def foreign(self, script: Script, id: bytes, record: bytes) -> None:
        """See `Register.foreign`."""
        self._new(id, script, record)

    def _new(self, job: bytes, script: Script, payload: bytes) -> None:
        if job in self.lives:
            raise InvariantBroken("I1", "an id was made twice", (job,))
        self.lives[job] = Life(f"j{script.number}", script, payload)
        if self.trace is not None:
            self.trace.names[job] = f"j{script.number}"

    def answered(self, stored: Sequence[str], unsure: Sequence[str], refused: Sequence[str]) -> None:
        """See `Register.answered`."""
        for ids, told in ((stored, "stored"), (unsure, "unsure"), (refused, "refused")):
            for one in ids:
                job = one.encode()
                life = self.lives[job]
                if told == "stored" and not life.sendings:
                    raise InvariantBroken("I1", "its producer was told that it is stored, and it is not", (job,))
                if told == "stored" and life.script.foreign != "record":
                    known = self.world.contents.hashes.get(self._registry.full, {})
                    if life.script.queue.encode() not in known:
                        raise InvariantBroken("registered", f"nobody knows of its queue {life.script.queue!r}", (job,))
                    self.seen["registered"] += 1
                if told == "refused" and life.sendings and not life.unsure:
                    raise InvariantBroken("I19", "its producer was told that it is not stored, and it is", (job,))
                # What was sent once without an answer may still arrive, whatever became of its repetition.
                if not (told == "refused" and life.unsure):
                    life.told = told
                life.unsure = life.unsure or told == "unsure"
        if refused or unsure:
            self.told("producers", "told: unsure", [one.encode() for one in unsure])

    def again(self, ids: Sequence[str]) -> None:
        """See `Register.again`."""
        for one in ids:
            self.lives[one.encode()].told = "unsure"

    # -------------------------------------------------------------------------------------------------------- runners

    def joined(self, runner: SimRunner) -> None:
        """See `Watcher.joined`."""
        if runner.incarnation in self.runners:
            raise InvariantBroken("I17", f"incarnation {runner.incarnation!r} was used before")
        self.runners[runner.incarnation] = runner
        runner.core._shares = _Shares(runner.core.weights, self.seen)  # noqa: SLF001 - the same rule, looked at
        self.told(runner.column, "starts")

    def gone(self, runner: SimRunner) -> None:
        """A runner crashed or ended."""
        self.deaths[runner.incarnation] = self.world.now
        self._alone.pop(runner, None)

    def found_empty(self, runner: SimRunner, since: float, now: int) -> None:
        """See `Watcher.found_empty`."""
        for books in self.queues.values():
            due = [job for job, score in books.waiting.items() if score <= now]
            left = tuple(job for job in (*books.ready, *due) if self._moved[job] < since)
            if left:
                raise InvariantBroken("empty", f"{runner.column} leaves, and {books.keys.queue} is not empty", left)
        self.seen["empty"] += 1

    def left(self, runner: SimRunner, gave_up: bool) -> None:
        """See `Watcher.left`."""
        if gave_up:
            return
        for books in self.queues.values():
            held = [job for job, claim in books.claims.items() if claim.startswith(runner.incarnation)]
            held = [job for job in held if not self._lost(runner, books.claims[job], job)]
            if held:
                raise InvariantBroken("clean stop", f"{runner.column} stopped and still holds jobs", tuple(held))
        self.seen["clean stop"] += 1

    def _lost(self, runner: SimRunner, claim: bytes, job: bytes) -> bool:
        """Whether the runner has to believe that this claim was taken away: nothing it says of it counts."""
        task = runner.core.leases.held.get(job)
        late = self.world.now >= self.deadlines.get((claim, job), 0.0)
        return late or (task is not None and task.claim == claim and task.lease_lost)

    def sent(self, actor: SimRunner, batches: Sequence[Batch]) -> None:
        """See `Watcher.sent`."""
        behind = self.world.server_now() - actor.clock.now()
        for batch in batches:
            if id(batch) not in self.departures:
                self.departures[id(batch)] = (self.world.now, behind)
                self._batches.append(batch)

    def beat_answered(self, outcomes: Sequence[tuple[Batch, Outcome]]) -> None:
        """See `Watcher.beat_answered`."""
        for batch, outcome in outcomes:
            if isinstance(outcome, Applied):
                [op], [moved] = batch.ops, outcome.answers
                assert isinstance(op, Move)
                assert isinstance(op.expect, Mapping)
                assert isinstance(moved, Moved)
                until = self.departures[id(batch)][0] + self.lease
                for job in moved.ids:
                    claim = op.expect[job]
                    assert isinstance(claim, bytes)
                    self.deadlines[claim, job] = max(self.deadlines[claim, job], until)

    def beaten(self, runner: SimRunner) -> None:
        """See `Watcher.beaten`."""
        for job, task in runner.core.leases.held.items():
            too_long = runner.clock.virtual(task.deadline) - self.deadlines[task.claim, job]
            if too_long > 1:
                raise InvariantBroken(
                    "I16", f"{runner.column} believes in a lease for {too_long:.0f} ms too long", (job,)
                )

    def act(self, runner: SimRunner, task: Task) -> Act:
        """See `Watcher.act`."""
        job, now = task.id, self.world.now
        life = self.lives[job]
        if (job, task.fence) in self.runs:
            raise InvariantBroken("I8", f"started twice under fence {task.fence}", (job,))
        if life.runs > life.excuses + max(0, life.sendings - 1):
            raise InvariantBroken("I8", f"run {life.runs + 1} has no reason ({life.excuses} excuses)", (job,))
        if now >= self.deadlines[task.claim, job]:
            raise InvariantBroken("I16", f"started {now - self.deadlines[task.claim, job]:.0f} ms too late", (job,))
        self.seen["I16"] += 1
        books = self.queues[task.queue.scope]
        if books.claims.get(job) != task.claim and self.world.jumped < now - 3 * self.lease:
            raise InvariantBroken("I16", f"started by {runner.column}, which does not hold it", (job,))
        early = task.stored.due - self.world.latest()
        if early > 0 and not life.hurried:
            raise InvariantBroken("I9", f"started {early} ms before its time", (job,))
        self._in_order(runner, task)
        self._suspicion(runner, task)
        act = life.script.act(life.runs)
        life.runs += 1
        self.runs[job, task.fence] = Run(act)
        if self.trace is not None:
            self.trace.add(now, runner.column, f"starts {life.label}, which will {act.what} in {act.ms:.1f} ms", (job,))
        return act

    def _in_order(self, runner: SimRunner, task: Task) -> None:
        """What was claimed together is started in its order."""
        assert task.kind is not None
        if task.stored.recoveries >= SUSPECT:
            return
        request = self.queues[task.queue.scope].requests.get(runner.incarnation)
        if request is None or request[1] != task.fence:
            return
        key = (task.claim + task.queue.scope.encode(), task.kind.is_coroutine)
        place = request[2].index(task.id)
        if place <= self._started.get(key, -1):
            raise InvariantBroken("I12", "started after one that was claimed behind it", (task.id,))
        self._started[key] = place

    def _suspicion(self, runner: SimRunner, task: Task) -> None:
        alone = self._alone.get(runner)
        if alone is not None:
            raise InvariantBroken("I10b", "started while a suspect was to run alone", (alone.id, task.id))
        if task.stored.recoveries >= SUSPECT:
            if runner.tasks or self.lives[task.id].noted != task.fence:
                raise InvariantBroken("I10b", "a suspect was started with others, or without a note", (task.id,))
            self._alone[runner] = task

    def saw(self, context: Context) -> None:
        """See `Watcher.saw`."""
        job = context.record.id.encode()
        self.runs[job, context.fence].saw = True
        if self.trace is not None:
            self.trace.add(self.world.now, "world", f"{self.lives[job].label} sees that it should stop", (job,))

    def returned(self, runner: SimRunner, task: Task, at: Moment) -> None:
        """See `Watcher.returned`."""
        if self._alone.get(runner) is task:
            del self._alone[runner]
        run = self.runs.get((task.id, task.fence))
        if run is not None:
            is_back, is_unfit = task.end is End.HANDED_BACK, task.end is End.UNFIT
            if not is_unfit and is_back is not (run.what == "broken off"):
                raise InvariantBroken("told to stop", f"{run} was handed back: {is_back}", (task.id,))
            self.seen["told to stop"] += run.saw
            run.returned, run.handed_back, run.unfit, run.now = True, is_back, is_unfit, at.now

    def finish(self) -> None:
        """The last look."""
        self.look()
        for job, life in self.lives.items():
            if life.told == "stored" and not life.sendings:
                raise InvariantBroken("I1", "it was lost", (job,))
            if life.sendings:
                self.seen["progress"] += 1

    def _agree(self) -> None:
        """Compare what the storage says living runners hold with what they hold."""
        now = self.world.now
        orphans: dict[tuple[bytes, bytes], float] = {}
        for books in self.queues.values():
            for job, claim in books.claims.items():
                runner = self.runners[split_claim(claim)[0]]
                if not runner.alive:
                    continue
                task = runner.core.leases.held.get(job)
                if task is not None and task.claim == claim:
                    self.seen["I7"] += 1
                    continue
                since = orphans[claim, job] = self._orphans.get((claim, job), now)
                if self.calm is not None and now - max(since, self.calm) > 2 * self.lease + 3 * self._call:
                    raise InvariantBroken("I7", f"the storage says {runner.column} holds it, which does not", (job,))
        self._orphans = orphans


class _Shares(Shares):
    """The shares of one runner, with the bound that their module states."""

    def __init__(self, weights: Mapping[str, int], seen: Counter[str]) -> None:
        super().__init__(weights)
        self._seen = seen
        self._taking: list[str] = []
        self._totals: Counter[str] = Counter()

    def split(self, units: int, queues: Collection[str]) -> dict[str, int]:
        """See `Shares.split`."""
        parts = super().split(units, queues)
        taking = [queue for queue in self.weights if queue in queues]
        if taking != self._taking:
            self._taking, self._totals = taking, Counter()
        self._totals.update(parts)
        total, weight = self._totals.total(), sum(self.weights[queue] for queue in taking)
        if sum(parts.values()) != (units if taking and units > 0 else 0):
            raise InvariantBroken("I13", f"{units} units were split as {parts}")
        for queue in taking:
            if abs(self._totals[queue] - total * self.weights[queue] / weight) >= 2:
                raise InvariantBroken(
                    "I13", f"of {total} units {queue} got {self._totals[queue]}: {dict(self._totals)}"
                )
        self._seen["I13"] += len(taking) > 1
        return parts
