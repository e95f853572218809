"""What those who watch from outside remember, and what it forbids.

Only what the invariants need, so that states which differ in nothing else meet. A history is a tuple with an entry per
job, or per lock user; it is replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import attrs

from jobqueue.clock import Moment
from jobqueue.record import parse_claim
from jobqueue.testing.explore.programs import Told
from jobqueue.testing.explore.stores import Effect, Spot

__all__ = ["Broken", "Entry", "JobHistory", "LockHistory", "Past"]


class Broken(AssertionError):
    """An invariant does not hold."""


class Past(Protocol):
    """What a scenario remembers and checks. Each method answers the new history, or raises `Broken`."""

    def first(self, spots: dict[bytes, Spot], /) -> Any:
        """The history at the start."""
        ...

    def effect(self, past: Any, effect: Effect, at: Moment, memories: Sequence[tuple[str, Any]], /) -> Any:
        """A part took effect; ``memories`` are (state of the process, memory) by process."""
        ...

    def told(self, past: Any, process: int, told: Told, at: Moment, spots: dict[bytes, Spot], /) -> Any:
        """A process told something."""
        ...

    def end(self, past: Any, spots: dict[bytes, Spot], states: Sequence[str], /, *, ended: bool) -> None:
        """Nothing more will happen; ``ended``: every actor of a living process is through or rests."""
        ...


@attrs.frozen
class Entry:
    """What is remembered of a job.

    Attributes:
        known: Its producer was told that it is stored, or (-1) that it is not.
        runs: How often it was started.
        excuses: How often there was a reason to run it again.
        gone: Whether it was finished or deleted.
        started: The fence under which it was last started.
        fence: The fence of its last claim.
        broken: The fence under which its last run was broken off, since its runner told it to stop.
        taken: The fence of the claim that its living holder lost while it stood still under a clock that was set ahead.
    """

    known: int = 0
    runs: int = 0
    excuses: int = 0
    gone: bool = False
    started: int = 0
    fence: int = 0
    taken: int = 0
    broken: int = 0


class JobHistory:
    """The rules of jobs: the past is an `Entry` per job, and per runner how the two queues' shares stand.

    Args:
        ids: All jobs.
        runners: The names of the runners, which are the first of the processes.
        start: What the server's clock shows at the start, in ms.
        rescued: Whether somebody brings back the jobs of dead runners, so that at the end none is left.
        back: How far (ms) the server's clock may be set back at a time.
        lease: Length of a lease in ms.
    """

    CHECKS: ClassVar[dict[str, str]] = {
        "runs": "every run is justified (I8)",
        "theft": "nobody takes a job from a runner that may believe in its lease (I6)",
        "start": "a job starts only under the claim that the storage knows (I16)",
        "early": "no job leaves waiting by itself before its due time (I9)",
        "registered": "a job is acknowledged only when its queue is in the registry",
        "stop": "a run that was broken off by a stop does not count as done",
        "kept": "what was accepted ends finished, deleted or dead (liveness)",
    }

    def __init__(
        self, ids: Sequence[bytes], runners: Sequence[bytes], start: int, *, rescued: bool, back: int = 0,
        lease: int = 0,
    ) -> None:  # fmt: skip
        self._index = {id: index for index, id in enumerate(ids)}
        self._runners = runners
        self._start = start
        self._rescued = rescued
        self._back = back
        self._lease = lease

    def first(self, spots: dict[bytes, Spot], /) -> tuple[tuple[Entry, ...], tuple[tuple[int, int], ...]]:
        """See `Past`."""
        return tuple(Entry(known=int(id in spots)) for id in self._index), ((0, 0),) * len(self._runners)

    def effect(self, past: Any, effect: Effect, at: Moment, memories: Sequence[tuple[str, Any]], /) -> Any:
        """See `Past`."""
        entries = list(past[0])
        for change in effect.changes:
            index = self._index[change.id]
            entry = entries[index]
            before = change.before
            if change.step == "enqueue":
                if entry.known == -1:
                    raise Broken(f"job {change.id.decode()} was stored after its producer was told that it was not")
                # A request that went without an answer, sent again after the job ended, stores it again.
                entries[index] = attrs.evolve(entry, gone=False, excuses=entry.excuses + entry.gone)
            elif change.step == "claim":
                assert change.after is not None
                if change.after.fence <= entry.fence:
                    raise Broken(
                        f"job {change.id.decode()} got the fence {change.after.fence} after {entry.fence} (I4)"
                    )
                entries[index] = attrs.evolve(entry, fence=change.after.fence)
            elif change.after is None:
                if before is not None and entry.broken == before.fence > 0:
                    raise Broken(f"job {change.id.decode()} counts as done, but its run was broken off by a stop")
                entries[index] = attrs.evolve(entry, gone=True)
            elif change.step == "promote":
                assert before is not None
                # Whoever sent it may have read the clock before it was set back, and that clock may have been ahead.
                usual = self._start + at.local
                if before.score > (max(usual, at.now + self._back) if at.now < usual else at.now):
                    raise Broken(f"job {change.id.decode()} was promoted before it was due (I9)")
            elif change.step in ("retry", "snooze", "park", "requeue"):
                entries[index] = attrs.evolve(entry, excuses=entry.excuses + 1)
            elif change.step in ("rescue", "condemn", "release"):
                assert before is not None
                taken = change.step != "release" and self._takes_from_living(change.id, before, at, memories)
                # Without a start under this claim there is nothing to run again.
                excuses = entry.excuses + (taken or entry.started == before.fence)
                entries[index] = attrs.evolve(entry, excuses=excuses, taken=before.fence if taken else entry.taken)
        return tuple(entries), past[1]

    def _takes_from_living(
        self, id: bytes, before: Spot, at: Moment, memories: Sequence[tuple[str, Any]]
    ) -> bool:  # fmt: skip
        """Whether it is taken from a runner that lives and may believe in its lease: only one such case is allowed.

        See docs/decisions/0009: silent for two of its beats while the clock was set ahead, it looks like a dead one.
        """
        owner, _, beat = parse_claim(before.claim or b"")
        if owner not in self._runners:
            return False
        state, memory = memories[self._runners.index(owner)]
        if state == "dead":
            return False
        ahead = at.now > self._start + at.local
        for held in memory:
            if held.id == id and held.claim == before.claim:
                if held.lost or held.deadline <= at.local:
                    return False
                if ahead and at.local - (held.deadline - self._lease) >= 2 * beat:
                    return True
                raise Broken(f"job {id.decode()} was taken from a runner whose lease was certain until later (I6)")
        return ahead  # it may not have heard of its claim yet

    def told(self, past: Any, process: int, told: Told, _at: Moment, spots: dict[bytes, Spot], /) -> Any:
        """See `Past`."""
        entries, shares = past
        if told.what == "split":
            share = _share(shares[process], *told.args)
            return entries, (*shares[:process], share, *shares[process + 1 :])
        index = self._index[told.args[0]]
        id = told.args[0].decode()
        entry = entries[index]
        if told.what == "start":
            claim = told.args[1]
            spot = spots.get(told.args[0])
            if (spot is None or spot.claim != claim) and entry.taken != parse_claim(claim)[1]:
                raise Broken(f"job {id} was started under a claim that the storage does not know (any more) (I16)")
            entry = attrs.evolve(entry, runs=entry.runs + 1, started=int(claim.split(b":")[1]))
            if entry.runs - 1 > entry.excuses:
                raise Broken(f"job {id} runs for the {entry.runs}. time, with {entry.excuses} reasons for it (I8)")
        elif told.what == "broken off":
            entry = attrs.evolve(entry, broken=parse_claim(told.args[1])[1])
        elif told.what == "stored":
            entry = attrs.evolve(entry, known=1)
            if told.args[0] not in spots and not entry.gone:
                raise Broken(f"job {id} is not there although its producer was told that it is stored (I1)")
        elif told.what == "unknown":
            raise Broken(f"job {id} was acknowledged in a queue that is not in the registry")
        elif told.what == "not stored":
            if told.args[0] in spots:
                raise Broken(f"job {id} is there although its producer was told that it is not stored (I1)")
            entry = attrs.evolve(entry, known=-1)
        return (*entries[:index], entry, *entries[index + 1 :]), shares

    def end(self, _past: Any, spots: dict[bytes, Spot], states: Sequence[str], /, *, ended: bool) -> None:
        """See `Past`."""
        if not ended:
            raise Broken("somebody waits for an answer that never comes")
        for id in self._index:
            spot = spots.get(id)
            if spot is None or spot.place == "dead" or "runs" not in states[: len(self._runners)]:
                continue  # in the last case nobody is left to run it
            if spot.place == "working" and not self._rescued:
                owner = self._runners.index(spot.claim.split(b":")[0])
                if states[owner] == "dead":
                    continue
            raise Broken(f"job {id.decode()} stays in {spot.place} for ever")


def _share(before: tuple[int, int], units: tuple[int, ...], weights: tuple[int, int]) -> tuple[int, int]:
    """How far the first queue is ahead of the moment when it was furthest behind, and behind the one furthest ahead.

    In turns times both weights. Over any stretch that is no more than one turn of each queue (I13).
    """
    if not units:
        return 0, 0  # one of them had no work: another stretch begins
    step = units[0] * weights[1] - units[1] * weights[0]
    ahead, behind = max(before[0] + step, 0), max(before[1] - step, 0)
    if max(ahead, behind) > sum(weights):
        raise Broken(f"shares of weights {weights} differ by {max(ahead, behind)} of {sum(weights)} parts (I13)")
    return ahead, behind


@attrs.frozen
class Holding:
    """What a user of a lock believes: the fence, and the local time until which it holds the lock; or nothing."""

    fence: int = 0
    until: float = 0.0
    rounds: int = 0


class LockHistory:
    """The rules of locks: the past is the highest fence that wrote, and what each user believes.

    Once the server's clock has jumped, two may believe that they hold the lock: it ends by that clock, and they count the
    time on their own. What the fences say of them holds all the same.

    Args:
        users: How many use the lock.
        start: What the server's clock shows at the start, in ms.
    """

    CHECKS: ClassVar[dict[str, str]] = {
        "one": "one holder at a time (I15)",
        "grow": "fences grow from holder to holder (I4)",
        "write": "what a late holder writes is refused by its fence, and a holder's never (I15)",
        "drop": "nobody ends another's hold",
        "ends": "every lock ends: all who want it get it (liveness)",
    }

    def __init__(self, users: int, start: int) -> None:
        self._users = users
        self._start = start

    def _jumped(self, at: Moment) -> bool:
        return at.now - at.local != self._start

    def first(self, _spots: dict[bytes, Spot], /) -> tuple[int, tuple[Holding, ...]]:
        """See `Past`."""
        return 0, (Holding(),) * self._users

    def effect(self, past: Any, effect: Effect, at: Moment, memories: Sequence[tuple[str, Any]], /) -> Any:
        """See `Past`."""
        for before, after in effect.locks:
            if before is None or after is None:
                continue
            if after.token != before.token and after.fence <= before.fence:
                raise Broken(f"a new holder got the fence {after.fence} after {before.fence} (I4)")
            for user, holding in enumerate(past[1]):
                believes = holding.fence == before.fence and holding.until > at.local and memories[user][0] != "dead"
                if believes and not self._jumped(at) and after.token != before.token:
                    raise Broken(f"the lock was taken from user {user + 1}, who still holds it (I15)")
        return past

    def told(self, past: Any, process: int, told: Told, at: Moment, _spots: dict[bytes, Spot], /) -> Any:
        """See `Past`."""
        written, holdings = past
        mine = holdings[process]
        if told.what == "take":
            fence, until = told.args
            for user, other in enumerate(holdings):
                if user != process and other.until > at.local and until > at.local and not self._jumped(at):
                    raise Broken(f"users {user + 1} and {process + 1} both hold the lock (I15)")
            mine = attrs.evolve(mine, fence=fence, until=until)
        elif told.what == "extend":
            mine = attrs.evolve(mine, until=told.args[0])
        elif told.what == "write":
            [fence] = told.args
            if mine.until > at.local and fence < written and not self._jumped(at):
                raise Broken(f"user {process + 1} holds the lock, but somebody with a higher fence wrote (I15)")
            written = max(written, fence)
        elif told.what == "leave":
            mine = Holding(rounds=mine.rounds + 1)
        return written, (*holdings[:process], mine, *holdings[process + 1 :])

    def end(self, _past: Any, _spots: dict[bytes, Spot], _states: Sequence[str], /, *, ended: bool) -> None:
        """See `Past`."""
        if not ended:
            raise Broken("somebody never gets the lock")
