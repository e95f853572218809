"""What the storage must hold, kept by another hand: every answer is entered here, and the contents are compared with it."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Literal

import attrs

from jobqueue.keys import QueueKeys
from jobqueue.storage.contents import full_name
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import CLAIMS, FENCE, RECORDS, REGISTERED
from jobqueue.testing.simulation.scripts import Act, Script, What

__all__ = ["MEANINGS", "Books", "InvariantBroken", "Life", "Run", "split_claim"]

MEANINGS: Final = {
    "I1": "every accepted job is in exactly one place or has ended; no other exists",
    "I2": "a job in a place has one record with the payload that was accepted",
    "I3": "no list holds an id twice",
    "I4": "the fence of a job grows with each claim",
    "I5": "for each claim at most one ending is applied, by its holder",
    "I6": "a job is rescued only from a runner that is dead or was out of touch past its lease",
    "I7": "what the storage says a runner holds and what it holds agree",
    "I8": "every run is justified",
    "I9": "never early, never forgotten",
    "I10": "retries follow the schedule",
    "I10b": "a job that kills its runner ends dead, its neighbours do not; a suspect runs alone",
    "I11": "attempt changes only by a failure, recoveries only by a rescue; counters count moves",
    "I12": "first in first out; what comes back goes to the head in the order of its claims",
    "I13": "queues share by weight within a constant",
    "I14": "a claim takes all it asked for, if there is so much",
    "I15": "a lock has one holder, its fences grow",
    "I16": "nothing starts after the runner's own deadline",
    "I17": "an incarnation is never reused; what it writes after its leases were taken changes nothing",
    "I18": "a request that arrives again, or late, changes nothing",
    "I19": "a refused call changes nothing",
    "I22": "dead jobs leave by requeue or delete only",
    "extend": "an extension never shortens a lease and never revives one",
    "rescue in time": "the jobs of a dead runner are back within the lease, three beats and one call",
    "lock in time": "a free lock can be taken within its time to live",
    "told to stop": "a run that saw that it should stop counts only if it said that it is complete, all others do",
    "registered": "the queue of a job whose producer was told that it is stored is in the registry",
    "clean stop": "a runner that stopped holds nothing",
    "empty": "a runner that leaves since nothing is left has left no job that was ready or due before its last look",
    "no surprise": "no rule meets anything that it does not expect",
    "progress": "once faults stop, everything accepted ends finished or dead",
}


class InvariantBroken(AssertionError):
    """Something that must hold did not.

    Attributes:
        invariant: Its name in `MEANINGS`.
        reason: What was found.
        ids: The jobs concerned.
        seed: The seed of the history, once it is known.
    """

    def __init__(self, invariant: str, reason: str, ids: tuple[bytes, ...] = ()) -> None:
        super().__init__(f"{invariant} ({MEANINGS[invariant]}): {reason}")
        self.invariant = invariant
        self.reason = reason
        self.ids = ids
        self.seed: int | None = None


@attrs.define
class Run:
    """One run of a job, under one claim."""

    act: Act
    saw: bool = False
    returned: bool = False
    handed_back: bool = False
    unfit: bool = False
    now: int = 0

    @property
    def what(self) -> What | Literal["broken off"]:
        """What it came to."""
        heeds = self.act.heeds
        if not self.saw or heeds == "completes":
            return self.act.what
        return "snooze" if heeds == "snoozes" else "discard" if heeds == "discards" else "broken off"


@attrs.define(eq=False)
class Life:
    """One job, from its first enqueue to its end.

    Attributes:
        label: Its short name in diagrams.
        script: What it does.
        payload: What was accepted (the whole record, for foreign bytes).
        told: What its producer knows: ``""``, ``stored``, ``unsure``, ``refused``.
        unsure: Whether one of its sendings went without an answer.
        sendings: How often its `Put` arrived and stored it.
        runs: How often it was started.
        excuses: How many of its runs justify another.
        fence: The greatest one it had.
        proven: Rescues from a runner that had started it alone, since its last orderly end.
        died: The score of its last death.
        hurried: An operator did not wait for its time.
        gone: How it ended: ``finished``, ``deleted``, or ``""``.
    """

    label: str
    script: Script
    payload: bytes
    told: str = ""
    unsure: bool = False
    sendings: int = 0
    runs: int = 0
    excuses: int = 0
    fence: int = 0
    noted: int = 0
    proven: int = 0
    died: int = -1
    hurried: bool = False
    gone: str = ""


@attrs.define
class Touch:
    """When a lease was last written by its holder: it left and arrived then (virtual ms).

    Attributes:
        behind: How far the holder's clock was behind the server's when it left, in ms.
    """

    sent: float
    arrived: float
    behind: int


@attrs.define
class Books:
    """One queue as it must be.

    Attributes:
        requests: Incarnation → (number, fence, ids) of its last claim request, or None once closed.
        touched: Id → when its holder last wrote its lease.
    """

    keys: QueueKeys
    ready: deque[bytes] = attrs.field(factory=deque)
    waiting: dict[bytes, int] = attrs.field(factory=dict)
    working: dict[bytes, int] = attrs.field(factory=dict)
    dead: dict[bytes, int] = attrs.field(factory=dict)
    records: dict[bytes, bytes] = attrs.field(factory=dict)
    claims: dict[bytes, bytes] = attrs.field(factory=dict)
    counters: dict[bytes, int] = attrs.field(factory=dict)
    requests: dict[bytes, tuple[int, int, tuple[bytes, ...]] | None] = attrs.field(factory=dict)
    touched: dict[bytes, Touch] = attrs.field(factory=dict)

    @property
    def fence(self) -> int:
        """The last fence given out."""
        return self.counters.get(FENCE, 0)

    @property
    def size(self) -> int:
        """How many jobs there are."""
        return len(self.records)

    def compare(self, contents: Interpreter) -> str:
        """What the contents have otherwise; empty if all is as it must be."""
        keys, scope = self.keys, self.keys.scope
        if contents.lists.get(keys.ready.full, deque()) != self.ready:
            return f"ready holds {list(contents.lists.get(keys.ready.full, ()))}, not {list(self.ready)}"
        for key, expected in ((keys.waiting, self.waiting), (keys.working, self.working), (keys.dead, self.dead)):
            entries = contents.sets.get(key.full)
            found = entries.scores if entries is not None else {}
            if found != expected:
                return f"{key.name}: {_difference(found, expected)}"
        for name, fields in ((RECORDS, self.records), (CLAIMS, self.claims)):
            stored = contents.hashes.get(full_name(scope, name), {})
            if stored != fields:
                return f"{name}: {_difference(stored, fields)}"
        counted = {k: n for k, n in contents.hashes.get(keys.counters.full, {}).items() if k != REGISTERED}
        if len(counted) != len(self.counters) or any(counted.get(k) != b"%d" % n for k, n in self.counters.items()):
            return f"counters: {counted}, not {self.counters}"
        places = len(self.ready) + len(self.waiting) + len(self.working) + len(self.dead)
        if places != len(self.records) or self.claims.keys() != self.working.keys():
            return f"{places} ids in places, {len(self.records)} records, {len(self.claims)} claims"
        return ""


def _difference(found: Any, expected: Any) -> str:
    wrong = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    return ", ".join(f"{key!r} is {found.get(key)!r}, not {expected.get(key)!r}" for key in wrong[:3])


def split_claim(claim: bytes) -> tuple[bytes, int, int]:
    """Incarnation, fence and beat (ms) of a claim."""
    incarnation, fence, beat = claim.rsplit(b":", 2)
    return incarnation, int(fence), int(beat)
