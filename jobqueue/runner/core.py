"""The rules of a runner: a state machine without a thread, a socket or a clock.

Whoever has it tells it what happened (`returned`, `answered`, `woken`, `stop`) and asks it what to do (`decide`). The answer
is a `Decision`: jobs to start, jobs to interrupt, and then one thing: send batches, rest, look around, or leave. At most one
send is under way at a time; it carries all that is due: results, promotions, releases and claims. What an answer brought is
looked at `meanwhile`, after the next send has left, so that runner and server work at the same time. `Engine` asks it in
this order, for the production runner as for the testing kit, the simulation and the tests.

Rejected: a future per job and a task per duty. They cost ten times as much, and no test can choose their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.job import Kind, Lane
from jobqueue.judge import is_suspect, released
from jobqueue.keys import QueueKeys
from jobqueue.lifecycle import COUNTED, Ending
from jobqueue.record import rewrite
from jobqueue.runner.admit import admitted
from jobqueue.runner.ahead import ClaimAhead
from jobqueue.runner.decisions import Config, Decision, Leave, LookAround, Rest, Send
from jobqueue.runner.events import JobsEnded, Observer, RequestsSpoiled, StorageAnswered, StorageTroubled
from jobqueue.runner.leases import Leases
from jobqueue.runner.outstanding import Outstanding
from jobqueue.runner.packing import Landed, Sent, pack, parted
from jobqueue.runner.queue_state import NEVER, Queues
from jobqueue.runner.shares import Shares
from jobqueue.runner.stop import Stop
from jobqueue.runner.task import End, Phase, Task, advance
from jobqueue.storage.ops import Applied, claim_mark
from jobqueue.storage.protocol import Outcome

__all__ = ["Core"]

LINGER_MS: Final = 2.0
"""How long a result may wait for others to travel with, while the runner has work."""
ENOUGH: Final = 200
"""So many results do not wait."""
PROBE_MS: Final = 20.0
"""How often a busy runner asks some of the queues that were empty: nobody notifies it."""
PROBES: Final = 16
"""How many of them it asks at a time, in turn."""
FIRST_ASKED: Final = 100
"""How many queues of which nothing is known are asked in one request: each costs the server a call."""
POLL_MS: Final = 30_000.0
"""How often an idle runner asks up to `FIRST_ASKED` queues: the last resort. Its duties find work sooner."""


class Core:
    """One runner.

    Args:
        config: What it was told.
        weights: Queue → weight of the queues it serves.
        keys: Answers the keys of a queue.
        kind: Answers the kind of a name, None if unknown.
        lanes: Answers where its kinds run; one at the least.
        jitter: A number from 0 up to 1.
        observe: Told what happens.
    """

    def __init__(
        self,
        config: Config,
        weights: Mapping[str, int],
        keys: Callable[[str], QueueKeys],
        kind: Callable[[str], Kind[Any] | None],
        lanes: Callable[[], Collection[Lane]],
        jitter: Callable[[], float],
        observe: Observer,
    ) -> None:
        self.config = config
        self.leases = Leases(config.lease)
        self._kind = kind
        self._lanes = lanes
        self._jitter = jitter
        self._observe = observe
        self._shares = Shares(weights, strict=config.strict)
        self._queues = Queues(weights, keys)
        self._sent: list[Sent] = []
        self._landed: list[Landed] = []
        self._fresh: list[Task] = []
        self._judged: list[Task] = []
        self._flush_at = 0.0
        self._suspects: list[Task] = []
        self._alone: Task | None = None
        self._outstanding = Outstanding(
            {"thread": config.threads, "loop": config.coroutines, "process": config.processes}
        )
        self._claim_from = 0.0
        self._ahead = ClaimAhead()
        self._called_at = 0.0
        self._probe_at = self._promote_from = self._poll_at = 0.0
        self._ring: set[str] = set()
        self._troubled = False
        self._stop = Stop()
        self._has_looked = False
        self.unsure = False  # a claim was once sent without an answer: a copy of it may still arrive

    # ------------------------------------------------------------------------------------------------ what happened

    def returned(self, tasks: Iterable[Task], at: Moment, idle_since: float | None = None) -> None:
        """The driver is done with jobs: they ended, or it did not start them.

        ``idle_since`` is when (local ms) the driver had nothing left to run, if it knows. While it waited for an answer of
        the storage that may have been long ago.
        """
        count = 0
        held = self.leases.held
        judged: list[Task] = []
        outstanding, sent, handed_back = Phase.OUTSTANDING, Phase.SENT, End.HANDED_BACK
        for task in tasks:
            if not self._outstanding.end(task):
                continue  # it is back already: the thread that ran it broke off while it gave it back
            if held.get(task.id) is not task or task.phase is sent:
                # Its lease was lost and the job claimed anew while it ran, or it was released at the end of the stop.
                if task.phase is outstanding:
                    self._drop([task])
                if task.end is not handed_back or task.seen:
                    self._observe(JobsEnded("late", [task]))
                continue
            if task.end is not handed_back:
                count += 1
                if self._outstanding.trust(task):
                    self._claim_from = 0.0
            task.judge(at.now)
            if task.phase is outstanding:
                judged.append(task)
            # Else it is to be released at the end of the stop: now it has another verdict.
        if judged:
            self._store(judged, at.local + LINGER_MS)
        if count:
            self._promote_from = min(self._promote_from, at.local)  # it travels with the results
            idle = not self._outstanding.tasks
            ended = at.local if not idle or idle_since is None else min(at.local, idle_since)
            self._ahead.ended(count, ended, idle=idle)

    def woken(self, at: Moment, scope: str | None = None) -> None:
        """Somebody rang: there may be work in the queue of this scope, or in any."""
        if not any(queue.next_due is None for queue in self._queues.active.values()):
            self._promote_from = at.local + LINGER_MS  # ready jobs come first
        self._probe_at = at.local + LINGER_MS  # should there be more than one claim's worth, others come in as well
        name = self._queues.of_scope(scope)
        rung = [] if name is None else [name]
        if not rung or self.config.strict:  # one of a larger weight comes first, whichever was heard
            rung = [*self._queues]
            self._probe_at = at.local + PROBE_MS
            self._poll_at = at.local + 1.1 * POLL_MS  # all are asked now, and the wait of an idle runner ends before
        self._queues.forget(rung)
        if self._room() <= 0:
            self._ring.update(rung)  # pass it on: another runner may have room

    def stop(self, at: Moment) -> None:
        """Claim no more, let jobs end within the grace time, hand the rest back, leave."""
        if not self._stop.asked:
            self._stop.begin(at.local, self.config.grace)
            self._queues.activate_all()  # each is to refuse what this runner still asks

    def serve(self, queue: str, weight: int) -> None:
        """Serve one more queue."""
        if queue not in self._queues:
            self._shares.add(queue, weight)
            self._queues.serve(queue)

    def looked_around(self) -> None:
        """All queues that there are were named after a `LookAround`: ask each of them once more.

        What was seen of them may be older than the end of the last job, and that one may have enqueued others.
        """
        self._has_looked = True
        self._queues.forget(self._queues)

    def renew(self, incarnation: bytes) -> None:
        """Go on under another name: the storage lost what it knew of this one."""
        self.config = msgspec.structs.replace(self.config, incarnation=incarnation)
        for queue in self._queues.values():
            queue.begin_requests()

    def answered(self, outcomes: Sequence[Outcome], at: Moment) -> None:
        """The batches of the last `Send` ended so."""
        sent, self._sent = self._sent, []
        failed: NotApplied | OutcomeUnknown | None = None
        failing: set[str] = set()
        for entry, outcome in zip(sent, outcomes, strict=True):
            if isinstance(outcome, NotApplied | OutcomeUnknown):
                failed = outcome
                failing.add(entry.queue.queue)
                self._unanswered(entry, isinstance(outcome, OutcomeUnknown))
            elif entry.step == "claim":
                if not self._claimed(entry, outcome):
                    failing.add(entry.queue.queue)  # asked again after a pause, should this go on
            elif entry.step == "promote":
                if isinstance(outcome, Applied):
                    moved = outcome.moved
                    queue = self._queues[entry.queue.queue]
                    queue.next_due = NEVER if moved.next is None else moved.next
                    if moved.ids:
                        queue.left = None
            elif entry.step in ("close requests", "forget requests"):
                self._queues[entry.queue.queue].closed = True
            elif entry.step == "note":
                self._noted(entry.tasks[0], outcome)
            else:
                self._landed.append(Landed(entry, outcome))
        if not failing:
            self._ahead.called(at.local - self._called_at)
        asked = {entry.queue.queue for entry in sent}
        self._queues.answered(asked, failing, at.local, self._jitter() if failing else 0.0)
        if not self._stop.asked:
            self._queues.settle(asked)
        if failed is not None:
            self._troubled = True
            self._observe(StorageTroubled(failed))
        elif self._troubled and not self._queues.failing:
            self._troubled = False
            self._observe(StorageAnswered())

    def _unanswered(self, entry: Sent, unknown: bool) -> None:
        for task in entry.tasks:
            task.unsure = task.unsure or unknown
        if entry.step == "claim":
            queue = self._queues[entry.queue.queue]
            if queue.claim is not None:
                queue.claim.unsure = queue.claim.unsure or unknown
                self.unsure = self.unsure or unknown
                # Only a request that never left is forgotten. One that went without an answer is asked again under its
                # number, however often it is refused meanwhile: it may have taken jobs that nobody else will run.
                if not queue.claim.unsure:
                    queue.claim = None
        elif entry.step != "note":
            self._store(entry.tasks, 0.0)

    def _noted(self, task: Task, outcome: Outcome) -> None:
        self._suspects.remove(task)
        if isinstance(outcome, Applied) and task.id in outcome.moved.ids:
            self._alone = task
            advance((task,), Phase.CLAIMED)
            self._fresh.append(task)
        else:
            self._drop([task])
            self._observe(JobsEnded("late", [task]))

    def _settle(self, entry: Sent, outcome: Outcome) -> None:
        """Verdicts are stored."""
        moved = set(outcome.moved.ids) if isinstance(outcome, Applied) else set()
        told: dict[Ending, list[Task]] = {}
        is_release = entry.step == "release"
        self._drop(entry.tasks)
        for task in entry.tasks:
            verdict = task.verdict
            assert verdict is not None
            if task.id in moved or task.unsure:
                ending = verdict.ending if is_release else COUNTED[verdict.step]
                if verdict.score is not None and verdict.step != "bury":
                    queue = self._queues.activate(task.queue.queue)
                    if queue.next_due is not None:
                        queue.next_due = min(queue.next_due, verdict.score)
            elif is_release and not task.seen:
                continue  # it did not begin
            else:
                ending = "late"
            told.setdefault(ending, []).append(task)
        for ending, tasks in told.items():
            self._observe(JobsEnded(ending, tasks))

    def _drop(self, tasks: Sequence[Task]) -> None:
        advance(tasks, Phase.GONE)
        for task in tasks:
            self.leases.drop(task)
            if self._alone is task:
                self._alone = None

    def _claimed(self, entry: Sent, outcome: Outcome) -> bool:
        """Whether the claim was applied, or does not matter any more."""
        queue = self._queues[entry.queue.queue]
        claim, queue.claim = queue.claim, None
        if claim is None or queue.refused_by_pause(claim, outcome):
            return True  # if renewed meanwhile: what was claimed under the old name comes back when its lease ends
        if not isinstance(outcome, Applied):
            # A number behind the last one, or closed: nothing was claimed. It numbers its requests upwards and closes none
            # before it stops, so something else wrote there.
            queue.left = 0
            if not self._stop.asked:
                queue.begin_requests(renewed=True)
                self._observe(RequestsSpoiled(queue.keys.queue))
            return self._stop.asked
        moved = outcome.moved
        queue.left = moved.left
        if moved.ids:
            mark = claim_mark(self.config.incarnation, moved.fence, self.config.beat)
            self._landed.append(Landed(entry, outcome, mark, claim.sent + self.config.lease))
        return True

    def _admit(self, task: Task) -> None:
        self._has_looked = False
        self.leases.hold(task)
        if task.kind is None:
            self._store([task], 0.0)
        elif is_suspect(task.stored, isolated=task.kind.lane == "process"):
            advance((task,), Phase.SUSPECT)
            self._suspects.append(task)
        else:
            self._fresh.append(task)

    # --------------------------------------------------------------------------------------------------- what to do

    def decide(self, at: Moment) -> Decision:
        """What to do now. Not to be asked while a send is under way.

        After a `Send` ask `meanwhile` before its answer: that is the time for it.
        """
        assert not self._sent, "the last send has not been answered"
        if at.local >= self._poll_at:
            many = max(1.0, len(self._queues) / FIRST_ASKED)
            self._poll_at = at.local + many * POLL_MS * (0.75 + self._jitter() / 4)
            self._queues.forget(self._queues)
        self._take_back(at)
        interrupt = self._interrupt(at)
        start: Sequence[Task] = ()
        # A job that there is a place for is started first; what was claimed ahead waits until the next request has left.
        if self._landed and self._to_admit() <= self._outstanding.room(self._lanes(), 0):
            start = self.meanwhile(at)
        room = self._gather(at)
        if not self._sent and (self._landed or self._fresh):
            start = self.meanwhile(at)
            room = self._gather(at)
        if self._sent:
            self._called_at = at.local
            return Decision(Send(tuple([entry.batch for entry in self._sent])), start, interrupt)
        if self._stop.asked and self._over(at):
            return Decision(Leave(bool(self._outstanding.tasks)), start, interrupt)
        if self.config.until_empty and not self._stop.asked and self._is_empty(at.now):
            if not self._has_looked:
                return Decision(LookAround(), start, interrupt)
            self.stop(at)
            return self.decide(at)
        return Decision(self._rest(at, room), start, interrupt)

    def meanwhile(self, at: Moment) -> Sequence[Task]:
        """Look at what the last answers brought, while the next is under way; answers jobs to start."""
        landed, self._landed = self._landed, []
        for one in landed:
            if one.entry.step != "claim":
                self._settle(one.entry, one.outcome)
            elif isinstance(one.outcome, Applied):
                for task in admitted(one, one.outcome.moved, self._kind, at.now):
                    self._admit(task)
        return self._startable(at)

    @property
    def weights(self) -> Mapping[str, int]:
        """The queues it serves, with their weights."""
        return self._shares.weights

    @property
    def served(self) -> list[QueueKeys]:
        """The keys of the queues it serves."""
        return [queue.keys for queue in self._queues.values()]

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.asked

    @property
    def outstanding(self) -> int:
        """Jobs that the driver has."""
        return len(self._outstanding.tasks)

    def _startable(self, at: Moment) -> Sequence[Task]:
        if not self._fresh:
            return ()
        fresh, self._fresh = self._fresh, []
        if self._stop.asked or self._suspects or self._alone:
            # Also what a claim brings that was asked again while a suspect runs: its queue had not answered before.
            only = None if self._stop.asked else self._alone
            self._release([task for task in fresh if task is not only])
            fresh = [task for task in fresh if task is only]
        start = []
        for task in fresh:
            # Nothing starts under a lease that is not certain.
            if task.deadline <= at.local or task.lease_lost:
                self._release([task])
                continue
            start.append(task)
        if start:
            advance(start, Phase.OUTSTANDING)
            if not self._outstanding.tasks:
                self._ahead.began(at.local)
            self._outstanding.start(start, at.local + self._ahead.patience)
        return start

    def _release(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            task.verdict = released(task.stored, task.fence)
        self._store(tasks, 0.0)

    def _store(self, tasks: Sequence[Task], at: float) -> None:
        """Store the verdicts of these, at this time (local ms) unless those of others are to be stored sooner."""
        advance(tasks, Phase.JUDGED)
        self._flush_at = min(self._flush_at, at) if self._judged else at
        self._judged += tasks

    def _take_back(self, at: Moment) -> None:
        """Take back from the driver what it has not started in time, or should not start any more."""
        everything = self._stop.asked or (bool(self._suspects) and self._alone is None)
        if back := self._outstanding.take_back(at.local, everything=everything):
            self._ahead.forget()  # jobs take longer than they did: claim no more ahead
            if not everything:
                self._claim_from = at.local + self._ahead.patience  # somebody else's turn
            self._release(back)
        # A suspect whose lease was lost is not started either; handing it back is fenced, so it cannot harm its new holder.
        going = [task for task in self._suspects if self._stop.asked or task.lease_lost]
        if going:
            self._suspects = [task for task in self._suspects if task not in going]
            self._release(going)

    def _interrupt(self, at: Moment) -> Sequence[Task]:
        if not self._stop.interrupts(at.local):
            return ()
        running = list(self._outstanding.tasks)
        for task in running:
            task.cancelled = True
        return running

    def _over(self, at: Moment) -> bool:
        """Whether the runner may leave."""
        if self._stop.gives_up(at.local):
            return True
        if self._judged or any(queue.claim for queue in self._queues.active.values()):
            held = self._judged or self._outstanding.tasks or self._suspects
            # A claim that may have been carried out is asked for again, but not for the whole grace time.
            return not held and self._stop.leaves_claims(at.local)
        if self._stop.has_released:
            return True
        # A queue that does not answer keeps nobody who holds nothing: no claim that could be refused is under way to it.
        return not (self._outstanding.tasks or self._suspects) and all(
            queue.closed or name in self._queues.failing for name, queue in self._queues.items()
        )

    def _is_empty(self, now: int) -> bool:
        """Whether it holds nothing, and no queue had anything ready or due when it was last asked."""
        held = self._outstanding.tasks or self._fresh or self._suspects or self._judged or self._landed
        return not held and all(queue.is_empty(now) for queue in self._queues.values())

    def _rest(self, at: Moment, room: int) -> Rest:
        until = min(self._poll_at, self._outstanding.look_at)
        if self._stop.asked:
            until = min(until, self._stop.next_step(at.local))
        quiet = self._queues.quiet(at.local)
        for name in quiet:
            until = min(until, self._queues[name].quiet_until)
        if parted(self._judged, quiet)[0]:
            until = min(until, self._flush_at)
        if self._stop.asked or room <= 0 or (quiet and len(quiet) == len(self._queues)):
            return Rest(until, listen=False)
        if self._claim_from > at.local:
            return Rest(min(until, self._claim_from), listen=False)
        asked = [queue for name, queue in self._queues.active.items() if name not in quiet]
        until = min([until, *[queue.promote_at(at, self._promote_from) for queue in asked]])
        return Rest(until, listen=not any(self._queues.open(at)) and all(queue.next_due is not None for queue in asked))

    # ------------------------------------------------------------------------------------------------- what to send

    def _gather(self, at: Moment) -> int:
        """Put together what is to be sent; answers the room there is."""
        room = self._room()
        claims = self._claims(at, room)
        if self._stop.releases(at.local):
            # Threads cannot be ended. Their jobs go back in the very last call, and the process is left after it.
            self._release([task for task in self._outstanding.tasks if task.phase is Phase.OUTSTANDING])
        quiet = self._queues.quiet(at.local)
        judged, later = parted(self._judged, quiet)
        if judged and (
            claims
            or len(judged) >= ENOUGH
            or not (self._outstanding.tasks or self._landed)
            or at.local >= self._flush_at
        ):
            self._sent += pack(judged)
            self._judged = later
            advance(judged, Phase.SENT)
        if self._suspects and self._alone is None and not self._stop.asked:
            self._gather_note(at)
        promotes: list[str] = []
        for name, queue in self._queues.active.items():
            if name in quiet:
                continue
            if self._stop.asked:
                if not queue.closed and queue.claim is None:
                    self._sent.append(Sent(queue.keys, queue.close(self.config, unsure=self.unsure)))
            elif room > 0 and len(promotes) < FIRST_ASKED and queue.promote_at(at, self._promote_from) <= at.local:
                promotes.append(name)
                self._sent.append(Sent(queue.keys, transitions.promote(queue.keys, at.now)))
        self._queues.put_last(promotes)
        self._sent.extend(claims)
        # Claims before results: then working never empties under load, and the server need not make it anew.
        self._sent.sort(key=lambda entry: entry.step not in ("promote", "claim"))
        return room

    def _gather_note(self, at: Moment) -> None:
        """Start the next suspect alone, once nothing else is running and every result is stored."""
        if self._outstanding.tasks or self._judged or self._sent or self._landed:
            return
        quiet = self._queues.quiet(at.local)
        task = next((task for task in self._suspects if task.queue.queue not in quiet), None)
        if task is None or any(queue.claim and name not in quiet for name, queue in self._queues.active.items()):
            return
        task.record = rewrite(task.record, started=task.fence)
        task.stored = msgspec.structs.replace(task.stored, started=task.fence)
        batch = transitions.note(task.queue, task.id, task.claim, task.record, self.leases.ask(at))
        self._sent.append(Sent(task.queue, batch, [task]))

    def _room(self) -> int:
        """How many more jobs can be taken without knowing of which kind they are."""
        if self._stop.asked or self._suspects or self._alone or self._fresh:
            return 0
        return self._outstanding.room(self._lanes(), self._ahead.jobs() - self._to_admit())

    def _to_admit(self) -> int:
        return sum([landed.claimed for landed in self._landed]) if self._landed else 0

    def _claims(self, at: Moment, full: int) -> list[Sent]:
        """The claims to send: those that are not settled, again, or new ones; ``full`` is the room there is."""
        sent = []
        room = full
        for queue in self._queues.active.values():
            # No room is kept for the claim of a queue that does not answer, or all others would stand still with it. Should
            # it have taken something after all, what is too much goes back.
            if queue.claim is not None and queue.quiet_until <= at.local:
                sent.append(Sent(queue.keys, queue.claim.batch))
                room -= queue.claim.limit
        if self._ring:
            ring, self._ring = self._ring, set()
            if full <= 0 and not self._stop.asked:
                return [*sent, *(self._claim(name, 0, at) for name in ring if self._queues.is_able(name, at.local))]
        if room <= 0 or at.local < self._claim_from:
            return sent
        # While there is work in hand, a claim waits until it is worth its round trip.
        half = self._ahead.jobs() // 2
        if room < half and (self._outstanding.tasks or self._landed):
            return sent
        # It leaves room for the next claim, which is to be under way while what this one brings is run.
        room = min(transitions.LIMIT, room, max(half, room - half))
        known, unknown = self._queues.open(at)
        if not (known or unknown):
            return sent
        unknown = unknown[:FIRST_ASKED]
        self._queues.put_last(unknown)
        parts = self._shares.split(room, known + unknown)
        # A claim of nothing asks as well: its answer says what the queue holds.
        if at.local >= self._probe_at:
            self._probe_at = at.local + PROBE_MS
            unknown += self._queues.some_empty(PROBES, at.local)
        return [*sent, *(self._claim(name, parts.get(name, 0), at) for name in dict.fromkeys([*parts, *unknown]))]

    def _claim(self, name: str, limit: int, at: Moment) -> Sent:
        queue = self._queues.activate(name)
        self.leases.ask(at)
        return Sent(queue.keys, queue.ask(self.config, limit, at))
