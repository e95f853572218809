"""What each move must look like: checked against the books, then entered there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from jobqueue.errors import PayloadError
from jobqueue.judge import PARK_FIRST, PARK_LONGEST, SUSPECT, TOO_OFTEN
from jobqueue.lifecycle import MOVES
from jobqueue.record import Stored, decode
from jobqueue.storage.ops import FENCE, Due, Head, Move, Moved, These, claim_mark
from jobqueue.testing.simulation.books import Books, InvariantBroken, Life, Run, Touch, split_claim
from jobqueue.testing.simulation.runner import SimRunner
from jobqueue.testing.simulation.scripts import BACKOFF_MS
from jobqueue.testing.simulation.world import Process, World
from jobqueue.transitions import LIMIT

__all__ = ["Rules"]

MINUTES: Final = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024)
"""The published schedule of retries, typed out and not computed."""


class Rules:
    """The rules of moves.

    Attributes:
        seen: Invariant → how often it was not vacuous.
        queues: Scope → its books.
        lives: Id → job.
        runs: (id, fence) → run.
        deaths: Incarnation → when it crashed or left (virtual ms).
        departures: Identity of a batch → when it first left (virtual ms), and by how much its sender's clock was behind.
        deadlines: (claim, id) → until when its runner may believe in its lease (virtual ms).
        runners: Incarnation → runner.
        calm: Since when no fault has had any effect (virtual ms); None before.
    """

    def __init__(self, world: World, lease: int, call: float) -> None:
        self.world = world
        self.seen: Counter[str] = Counter()
        self.queues: dict[str, Books] = {}
        self.lives: dict[bytes, Life] = {}
        self.runs: dict[tuple[bytes, int], Run] = {}
        self.deaths: dict[bytes, float] = {}
        self.forgotten: set[tuple[str, bytes]] = set()
        self.runners: dict[bytes, SimRunner] = {}
        self.departures: dict[int, tuple[float, int]] = {}
        self.deadlines: dict[tuple[bytes, bytes], float] = {}
        self._sent, self._behind = 0.0, 0
        self.calm: float | None = None
        self.lease = lease
        self._call = call
        self._checks: dict[str, Callable[[Process, Books, Move, Moved], None]] = {
            "promote": self._promoted,
            "hurry": self._hurried,
            "claim": self._claimed,
            "extend": self._extended,
            "note": self._extended,
            "finish": self._finished,
            "discard": self._finished,
            "retry": self._put_off,
            "snooze": self._put_off,
            "park": self._parked,
            "bury": partial(self._died, condemned=False),
            "condemn": partial(self._died, condemned=True),
            "release": partial(self._came_back, rescued=False),
            "rescue": partial(self._came_back, rescued=True),
            "requeue": self._requeued,
            "delete": self._deleted,
            "prune": self._deleted,
        }

    def moved(self, process: Process, step: str, op: Move, moved: Moved, left: tuple[float, int]) -> None:
        """Check a move that was applied and enter it; ``left`` is its departure."""
        self._sent, self._behind = left
        books = self.queues[op.source.scope]
        if moved.missing:
            raise InvariantBroken("I2", "ids without a record", moved.missing)
        places: Any = (op.source.name, op.target.name if op.target else None)
        if places not in MOVES[step]:  # type: ignore[index] # it is one of them, or there is no check for it
            raise InvariantBroken("I22", f"{step} moved from {places[0]} to {places[1]}", moved.ids)
        self._checks[step](process, books, op, moved)
        if op.count is not None and moved.ids:
            field = op.count[1]
            books.counters[field] = books.counters.get(field, 0) + len(moved.ids)

    # ------------------------------------------------------------------------------------------ from waiting and ready

    def _promoted(self, _: Process, books: Books, op: Move, moved: Moved) -> None:
        assert isinstance(op.pick, Due)
        before = op.pick.before
        due = sorted((score, id) for id, score in books.waiting.items() if score <= before)[:LIMIT]
        if tuple(id for _, id in due) != moved.ids:
            raise InvariantBroken("I9", f"due at {before}: {due}, promoted: {moved.ids}", moved.ids)
        highest = self.world.latest()
        for score, id in due:
            if score > highest:
                raise InvariantBroken("I9", f"promoted {score - highest} ms before its time", (id,))
            self.seen["I9"] += 1
        self._to_the_tail(books, moved)

    def _hurried(self, process: Process, books: Books, _: Move, moved: Moved) -> None:
        self._by_operator(process, moved, "hurried")
        for id in moved.ids:
            self.lives[id].hurried = True
        self._to_the_tail(books, moved)

    def _to_the_tail(self, books: Books, moved: Moved) -> None:
        for id in moved.ids:
            del books.waiting[id]
        books.ready.extend(moved.ids)

    def _claimed(self, _: Process, books: Books, op: Move, moved: Moved) -> None:
        assert op.stamp is not None
        assert isinstance(op.pick, Head)
        incarnation: bytes = op.stamp.incarnation  # type: ignore[union-attr]
        beat: int = op.stamp.beat  # type: ignore[union-attr]
        mark = claim_mark(incarnation, moved.fence, beat)
        if self._asked_again(books, op, moved, mark):
            return
        if len(moved.ids) != min(op.pick.limit, len(books.ready)):
            reason = f"asked for {op.pick.limit} of {len(books.ready)}, took {len(moved.ids)}"
            raise InvariantBroken("I14", reason, moved.ids)
        self.seen["I14"] += bool(moved.ids)
        if moved.ids and (books.keys.scope, incarnation) in self.forgotten:
            raise InvariantBroken("I18", "a claim of a runner that had stopped arrived late and took jobs", moved.ids)
        if moved.ids and moved.fence <= books.fence:
            raise InvariantBroken("I4", f"fence {moved.fence} after {books.fence}", moved.ids)
        if moved.ids:
            books.counters[FENCE] = moved.fence
        assert isinstance(op.score, int)
        for id, record in zip(moved.ids, moved.records, strict=True):
            if (first := books.ready.popleft()) != id:
                raise InvariantBroken("I12", f"{first!r} was before it", (id, first))
            life = self.lives[id]
            if moved.fence <= life.fence:
                raise InvariantBroken("I4", f"claimed with {moved.fence} after {life.fence}", (id,))
            self.seen["I4"] += life.fence > 0
            self.seen["I12"] += bool(books.ready)
            life.fence = moved.fence
            if record != books.records[id]:
                raise InvariantBroken("I2", "the claim brought another record", (id,))
            books.working[id] = op.score
            books.claims[id] = mark
            books.touched[id] = Touch(self._sent, self.world.now, self._behind)
            self.deadlines[mark, id] = self._sent + self.lease
        if op.once is not None:
            books.requests[incarnation] = (op.once.number, moved.fence, moved.ids)

    def _asked_again(self, books: Books, op: Move, moved: Moved, mark: bytes) -> bool:
        last = books.requests.get(op.once.incarnation, (0, 0, ())) if op.once else (0, 0, ())
        if last is None or (op.once and op.once.number < last[0]):
            raise InvariantBroken("I18", "a claim that is behind, or of a closed incarnation, was answered", moved.ids)
        if op.once is None or op.once.number != last[0]:
            return False
        still = tuple(id for id in last[2] if books.claims.get(id) == mark)
        if moved.ids != still:
            raise InvariantBroken("I18", f"asked again it took {moved.ids}, not {still}", moved.ids)
        self.seen["I18"] += 1
        return True

    # -------------------------------------------------------------------------------------------------- while it works

    def _extended(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        entries = self.world.contents.sets[books.keys.working.full].scores if moved.ids else {}
        for id in moved.ids:
            self._holder(process, books, id)
            old, new = books.working[id], op.score
            assert isinstance(new, int)
            if entries[id] < old:
                raise InvariantBroken("extend", f"the lease ended at {old}, now at {entries[id]}", (id,))
            books.working[id] = max(old, new)
            # What left before something that has arrived already says nothing new of its sender: the network kept it back.
            if self._sent >= books.touched[id].sent:
                books.touched[id] = Touch(self._sent, self.world.now, self._behind)
            self.seen["extend"] += 1
            if op.records:
                self._rewritten(books, op, id, started=self.lives[id].fence)
                self.lives[id].noted = self.lives[id].fence
        self._left_alone(op, moved)

    def _holder(self, process: Process, books: Books, id: bytes) -> tuple[bytes, int]:
        """Only the holder of the claim may do this."""
        if id not in books.claims:
            raise InvariantBroken("I5", f"{process.name} ended a claim that had ended", (id,))
        incarnation, fence, _ = split_claim(books.claims[id])
        actor = process.actor
        if not isinstance(actor, SimRunner) or actor.incarnation != incarnation:
            raise InvariantBroken("I5", f"{process.name} touched it while another incarnation held it", (id,))
        return incarnation, fence

    def _left_alone(self, op: Move, moved: Moved) -> None:
        """Count what a late writer did not change."""
        if isinstance(op.pick, These) and len(op.pick.ids) > len(moved.ids):
            self.seen["I17"] += 1

    def _finished(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        for id in moved.ids:
            run = self._ended(process, books, id)
            if run is None or not run.returned or run.handed_back or run.what not in ("succeed", "discard"):
                raise InvariantBroken("I5", f"finished without a run that ended so under this claim: {run}", (id,))
            self.seen["I5"] += 1
            self.seen["I8"] += 1
            life = self.lives[id]
            life.gone = "finished"
            life.proven = 0
            del books.records[id]
            self._out(books, id)
        self._left_alone(op, moved)

    def _ended(self, process: Process, books: Books, id: bytes) -> Run | None:
        _, fence = self._holder(process, books, id)
        return self.runs.get((id, fence))

    def _out(self, books: Books, id: bytes) -> None:
        del books.working[id], books.claims[id], books.touched[id]

    def _put_off(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        """A retry or a snooze."""
        assert isinstance(op.score, Mapping)
        for id in moved.ids:
            run = self._ended(process, books, id)
            old, score, life = decode(books.records[id]), op.score[id], self.lives[id]
            orderly = {"recoveries": 0, "started": 0, "parked": 0, "parked_since": 0, "due": score}
            if run is None or not run.returned or run.handed_back:
                raise InvariantBroken("I5", f"put off without a run that ended: {run}", (id,))
            if run.what == "snooze":
                self._on_time(id, run, score, round(run.act.after))
                self._rewritten(books, op, id, **orderly)
                life.excuses += 1
            else:
                attempt = old.attempt + 1
                if run.what not in ("raise", "retry") or attempt > old.retry >= 0:
                    raise InvariantBroken("I10", f"retried after {run.what}, attempt {attempt} of {old.retry}", (id,))
                delay = round(run.act.after) if run.what == "retry" else _schedule(life.script.kind, attempt)
                self._on_time(id, run, score, delay)
                self._rewritten(books, op, id, attempt=attempt, error=None, **orderly)
                life.excuses += 1
            life.proven = 0
            self._waits(books, id, score)
        self._left_alone(op, moved)

    def _waits(self, books: Books, id: bytes, score: int) -> None:
        self.seen["I5"] += 1
        self._out(books, id)
        books.waiting[id] = score

    def _on_time(self, id: bytes, run: Run, score: int, delay: int) -> None:
        if score != run.now + delay:
            raise InvariantBroken("I10", f"due {score - run.now} ms after its run, not {delay}", (id,))
        self.seen["I10"] += 1

    def _parked(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        """A kind that is unknown here."""
        actor = process.actor
        assert isinstance(actor, SimRunner)
        assert isinstance(op.score, Mapping)
        for id in moved.ids:
            run = self._ended(process, books, id)
            old, due = decode(books.records[id]), op.score[id]
            if run is not None or old.name in actor.knows:
                raise InvariantBroken("I8", f"parked by a runner that knows {old.name!r}", (id,))
            since = old.parked_since or due - min(PARK_FIRST << old.parked, PARK_LONGEST)
            self._rewritten(books, op, id, parked=old.parked + 1, parked_since=since, due=due)
            self._waits(books, id, due)
        self._left_alone(op, moved)

    def _rewritten(self, books: Books, op: Move, id: bytes, **changes: Any) -> None:
        """The record changed in these fields only (``error`` to any text) and is entered."""
        assert op.records is not None
        old, record = books.records[id], op.records[id]
        before, after = decode(old), decode(record)
        for name in Stored.__struct_fields__:
            value = getattr(after, name)
            expected = changes.get(name, getattr(before, name))
            wrong = not value if name == "error" and name in changes else value != expected
            if wrong:
                rule = "I2" if name in ("payload", "name") else "I11" if name in ("attempt", "recoveries") else "I10"
                raise InvariantBroken(rule, f"{name} became {value!r}, not {expected!r}", (id,))
        self.seen["I11"] += 1
        books.records[id] = record

    # --------------------------------------------------------------------------------------------------- dead and back

    def _died(self, process: Process, books: Books, op: Move, moved: Moved, *, condemned: bool) -> None:
        assert op.records is not None
        for id in moved.ids:
            life = self.lives[id]
            score = op.score if isinstance(op.score, int) else op.score[id] if op.score is not None else 0
            if condemned:
                self._taken(process, books, id)
            else:
                self._given_up(process, books, id)
            try:
                old = decode(books.records[id])
            except PayloadError:
                if decode(op.records[id]).payload != books.records[id]:
                    raise InvariantBroken("I2", "the unreadable bytes were not kept", (id,)) from None
                books.records[id] = op.records[id]
            else:
                self._judge_death(books, op, id, old, condemned=condemned)
            if score <= life.died:
                raise InvariantBroken("I22", f"died at {score}, and before that at {life.died}", (id,))
            life.proven, life.died = 0, score
            self._out(books, id)
            books.dead[id] = score
        self._left_alone(op, moved)

    def _judge_death(self, books: Books, op: Move, id: bytes, old: Stored, *, condemned: bool) -> None:
        life = self.lives[id]
        if condemned:
            guilty = life.proven + (life.noted == life.fence)
            if guilty < TOO_OFTEN - SUSPECT:
                raise InvariantBroken("I10b", f"condemned after {guilty} proven crashes", (id,))
            self.seen["I10b"] += 1
            self._rewritten(books, op, id, recoveries=TOO_OFTEN, error=None)
            return
        run = self.runs.get((id, life.fence))
        assert run is not None
        orderly = {"recoveries": 0, "started": 0, "parked": 0, "parked_since": 0}
        if run.unfit:
            self._rewritten(books, op, id, recoveries=0, error=None)
        else:
            attempt = old.attempt + 1
            if run.what not in ("raise", "retry") or not attempt > old.retry >= 0:
                raise InvariantBroken("I10", f"dead after {run.what}, attempt {attempt} of {old.retry}", (id,))
            self.seen["I10"] += 1
            self._rewritten(books, op, id, attempt=attempt, error=None, **orderly)

    def _given_up(self, process: Process, books: Books, id: bytes) -> None:
        run = self._ended(process, books, id)
        if self.lives[id].script.foreign != "record" and (run is None or not run.returned or run.handed_back):
            raise InvariantBroken("I5", f"buried without a run that ended: {run}", (id,))
        self.seen["I5"] += 1

    def _came_back(self, process: Process, books: Books, op: Move, moved: Moved, *, rescued: bool) -> None:
        for id in moved.ids:
            if id not in books.claims:
                raise InvariantBroken("I5", f"{process.name} ended a claim that had ended", (id,))
        order = sorted(moved.ids, key=lambda one: (split_claim(books.claims[one])[1], self._position(books, one)))
        if rescued:
            order.sort(key=lambda one: (split_claim(books.claims[one])[1], one))
        if tuple(order) != moved.ids:
            raise InvariantBroken("I12", f"came back as {moved.ids}, not in the order of their claims", moved.ids)
        for id in moved.ids:
            life = self.lives[id]
            if rescued:
                self._taken(process, books, id)
                old = decode(books.records[id])
                proven = life.noted == life.fence
                blamed = old.recoveries < SUSPECT or proven
                self._rewritten(books, op, id, recoveries=old.recoveries + blamed, started=0)
                life.proven += proven
                # A living owner that hears of its claim late may start it all the same: its deadline is not over.
                owner = self.runners[split_claim(books.claims[id])[0]]
                life.excuses += (id, life.fence) in self.runs or owner.alive
            else:
                run = self._ended(process, books, id)
                if run is not None:
                    if run.returned and not run.handed_back and not getattr(process.actor, "stopped", False):
                        raise InvariantBroken("I5", "handed back although its run had ended", (id,))
                    life.excuses += 1
                if op.records and id in op.records:
                    self._rewritten(books, op, id, started=0)  # it was started alone, and takes nobody down now
            self._out(books, id)
        books.ready.extendleft(reversed(moved.ids))
        self._left_alone(op, moved)

    def _position(self, books: Books, id: bytes) -> int:
        """Where it stood in its claim."""
        request = books.requests.get(split_claim(books.claims[id])[0])
        return request[2].index(id) if request is not None and id in request[2] else 0

    def _taken(self, process: Process, books: Books, id: bytes) -> None:
        """A rescue must be no theft, and in time."""
        world, now = self.world, self.world.now
        incarnation, _, beat = split_claim(books.claims[id])
        owner, touch = self.runners[incarnation], books.touched[id]
        died = self.deaths.get(incarnation)
        if died is None:
            if self.calm is not None and now - self.calm > 2 * self.lease:
                raise InvariantBroken("I6", f"{process.name} took it from {owner.column} in calm weather", (id,))
            if now - touch.arrived < 2 * beat:
                reason = f"its holder gave a sign of life {now - touch.arrived:.0f} ms ago"
                raise InvariantBroken("I6", f"{process.name} took it from {owner.column}: {reason}", (id,))
            ahead = process.actor.clock.now() - world.server_now()
            length = self.lease - self._call
            # An end from before a jump back is further away than any lease: two beats without a sign are enough.
            sane = books.working[id] <= process.actor.clock.now() + length
            sane = sane and abs(touch.behind) < self._call  # else its holder had not heard of a jump
            if sane and world.jumped < touch.sent and ahead <= 0 and now - touch.sent < length:
                reason = f"its lease was sent {now - touch.sent:.0f} ms ago"
                raise InvariantBroken("I6", f"{process.name} took it from {owner.column}: {reason}", (id,))
        self.seen["I6"] += 1
        if died is not None and self.calm is not None and world.jumped < touch.sent - 10 * self.lease:
            expired = max(died, self.calm, touch.arrived) + self.lease
            watched = min([runner.born for runner in self.runners.values() if runner.alive], default=now)
            late = now - max(expired + beat, watched) - 2 * beat - 3 * self._call
            if late > 0:
                raise InvariantBroken("rescue in time", f"{late:.0f} ms too late", (id,))
            self.seen["rescue in time"] += 1

    # ------------------------------------------------------------------------------------------------------ operators

    def _by_operator(self, process: Process, moved: Moved, what: str) -> None:
        if moved.ids and not process.name.endswith(".operate"):
            raise InvariantBroken("I22", f"{what} by {process.name}", moved.ids)

    def _requeued(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        self._by_operator(process, moved, "requeued")
        for id in moved.ids:
            self._rewritten(books, op, id, recoveries=0, started=0, parked=0, parked_since=0, died=books.dead[id])
            del books.dead[id]
            self.lives[id].excuses += 1
            self.seen["I22"] += 1
        books.ready.extend(moved.ids)

    def _deleted(self, process: Process, books: Books, op: Move, moved: Moved) -> None:
        self._by_operator(process, moved, "deleted")
        for id in moved.ids:
            if op.source.name == "ready":
                books.ready.remove(id)
            else:
                place = books.dead if op.source.name == "dead" else books.waiting
                del place[id]
                self.seen["I22"] += op.source.name == "dead"
            del books.records[id]
            self.lives[id].gone = "deleted"


def _schedule(kind: str, attempt: int) -> int:
    """Milliseconds before a retry."""
    if kind == "steady":
        return 60_000 * MINUTES[min(attempt, len(MINUTES)) - 1]
    return BACKOFF_MS[min(attempt, len(BACKOFF_MS)) - 1]
