"""Everything the queue does to its storage, as frozen values.

A `Batch` is a scope, some guards and some operations. It is applied whole or not at all. Two operations alone, `Put` and
`Move`, touch *where a job is*, so a job is in exactly one place by construction: `Put` needs an absent record, `Move` takes
out before it puts in, and no plain operation may name a key that holds a place. A third, `Mend`, restores this where
something other than a batch broke it, and changes nothing where it holds.

Rejected: one storage method per job transition. Every backend would hold the job rules again, and a wrapper (faults,
tracing) would need one method each.

Ids, members, fields and values are bytes. Scores and times are integers in milliseconds, below 2**53, which both a Lua
number and a sorted set's score hold exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from jobqueue.storage.answers import (
    Answer,
    Applied,
    Fields,
    Found,
    Held,
    Holder,
    IdPage,
    Ids,
    Kept,
    Match,
    Matched,
    Moved,
    Page,
    Peek,
    Place,
    Placed,
    Query,
    Records,
    Refused,
    ScopePage,
    Scopes,
    Score,
    Sizes,
    Unread,
    Where,
)
from jobqueue.storage.guards import Absent, Empty, FieldIs, Guard, Locked, Member, Unlocked
from jobqueue.storage.key import HashKey, Key, ListKey, LockKey, SetKey

__all__ = [
    "CLAIMS",
    "CLEAR",
    "COUNTERS",
    "FENCE",
    "LONGEST_CLAIM",
    "NO_CLAIM",
    "PLACES",
    "RECORDS",
    "REGISTERED",
    "REQUESTS",
    "Absent",
    "Answer",
    "Applied",
    "Batch",
    "Clear",
    "Due",
    "Empty",
    "FieldIs",
    "Fields",
    "Found",
    "Guard",
    "HashAdd",
    "HashDelete",
    "HashKey",
    "HashSet",
    "Head",
    "Held",
    "Holder",
    "IdPage",
    "Ids",
    "Kept",
    "Key",
    "ListKey",
    "ListPush",
    "LockDrop",
    "LockKey",
    "LockTake",
    "Locked",
    "Match",
    "Matched",
    "Member",
    "Mend",
    "Move",
    "Moved",
    "NoClaim",
    "Once",
    "Op",
    "Page",
    "Peek",
    "Pick",
    "Place",
    "PlaceKey",
    "Placed",
    "Put",
    "Query",
    "Records",
    "Refused",
    "Ring",
    "ScopePage",
    "Scopes",
    "Score",
    "SetAdd",
    "SetKey",
    "SetRemove",
    "Sizes",
    "Stamp",
    "These",
    "Unlocked",
    "Unread",
    "Where",
    "claim_mark",
]

PLACES: Final = frozenset({"waiting", "ready", "working", "dead"})
"""Names of the keys that hold a place. ``ready`` is a list, the others are sorted sets."""
RECORDS: Final = "records"
"""Name of the hash id → record, of which a scope has one."""
CLAIMS: Final = "claims"
"""Name of the hash id → claim (see `claim_mark`), of which a scope has one."""
REQUESTS: Final = "requests"
"""Name of the hash incarnation → its last claim request and what was answered, or ``closed``."""
COUNTERS: Final = "counters"
"""Name of the hash of counters; its field ``fence`` belongs to the storage."""
FENCE: Final = b"fence"
LONGEST_CLAIM: Final = 1024
"""Bytes of a claim that is answered; no runner writes a longer one."""
REGISTERED: Final = b"registered"
"""Field of the counters that says that the registry of the namespace has the queue. A `Put` answers whether it is there."""


def claim_mark(incarnation: bytes, fence: int, beat: int) -> bytes:
    """The mark ``incarnation:fence:beat`` that a claim leaves on its jobs.

    The fence has thirty digits, which makes the mark of a runner longer than 64 bytes. A Redis server keeps a hash of up to
    512 shorter values as a list, and searches it from the start for every id: with some hundred jobs under way that was a
    quarter of all its work.
    """
    return b"%b:%030d:%d" % (incarnation, fence, beat)


PlaceKey: TypeAlias = ListKey | SetKey


def _check_place(what: str, key: Key) -> None:
    if key.name not in PLACES or isinstance(key, ListKey) is not (key.name == "ready"):
        raise ValueError(f"{what}: {key.full} is no place of a job; places are {', '.join(sorted(PLACES))}")


def _check_plain(what: str, key: Key) -> None:
    if key.name in PLACES or key.name in {RECORDS, CLAIMS}:
        raise ValueError(f"{what}: {key.full} says where jobs are; only Put, Move and Mend may change it")


# ---------------------------------------------------------------------------------------------------- plain operations


class ListPush(msgspec.Struct, frozen=True):
    """Appends the values to the tail of the list."""

    list: ListKey
    values: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_plain("list", self.list)


class SetAdd(msgspec.Struct, frozen=True):
    """Puts members into the sorted set, or changes their scores."""

    set: SetKey
    members: Mapping[bytes, int]

    def __post_init__(self) -> None:
        _check_plain("set", self.set)


class SetRemove(msgspec.Struct, frozen=True):
    """Removes members from the sorted set."""

    set: SetKey
    members: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_plain("set", self.set)


class HashSet(msgspec.Struct, frozen=True):
    """Writes fields of the hash."""

    hash: HashKey
    fields: Mapping[bytes, bytes]

    def __post_init__(self) -> None:
        _check_plain("hash", self.hash)


class HashAdd(msgspec.Struct, frozen=True):
    """Adds ``amount`` to the integer in the field (absent counts as 0). Not safe to send twice by itself: guard it."""

    hash: HashKey
    field: bytes
    amount: int

    def __post_init__(self) -> None:
        _check_plain("hash", self.hash)


class HashDelete(msgspec.Struct, frozen=True):
    """Deletes fields of the hash."""

    hash: HashKey
    fields: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_plain("hash", self.hash)


class Ring(msgspec.Struct, frozen=True):
    """Rings the scope of the batch."""


class LockTake(msgspec.Struct, frozen=True):
    """Makes ``token`` the holder of the lock until ``until`` (ms); answers the fence.

    The holder keeps its fence, and its end only ever rises; a new holder gets ``max(last fence + 1, now)``. It takes the
    lock whoever holds it: guard it with `Unlocked` (to take) or `Locked` (to extend).
    """

    lock: LockKey
    token: bytes
    now: int
    until: int


class LockDrop(msgspec.Struct, frozen=True):
    """Ends the lock if ``token`` holds it, and remembers the token; otherwise does nothing."""

    lock: LockKey
    token: bytes


# ----------------------------------------------------------------------------------------------------- where jobs are


class Put(msgspec.Struct, frozen=True):
    """Stores each record and places its id in ``target``, iff the id has no record in the scope.

    Answers a `Placed`, which says as well whether the scope is marked as `REGISTERED`. The first 8 bytes of a record are the
    nonce of its enqueue: an id whose stored record starts with the same nonce is ``same`` (this very job, sent before), any
    other is ``different``; both are left as they are.

    Attributes:
        target: The place.
        records: id → record, in the order in which they join a list.
        score: For a sorted set, the score of all of them or of each (ms).
        wake: Ring the scope if a list got something, or if one of these became the head of a sorted set.
        most: How many the list, which the target then is, may hold with those of these that are new. Where they were more,
            the batch is refused. None without a bound.
    """

    target: PlaceKey
    records: Mapping[bytes, bytes]
    score: int | Mapping[bytes, int] | None = None
    wake: bool = False
    most: int | None = None

    def __post_init__(self) -> None:
        _check_place("target", self.target)


class Head(msgspec.Struct, frozen=True):
    """Picks from the head of a list, at most ``limit`` ids and ``max_bytes`` bytes of records.

    A record that is longer by itself is neither counted nor read: its id is picked, and ``give`` answers `Unread` for it. So
    no more than ``max_bytes`` is ever answered. A limit of 0 picks nothing.
    """

    limit: int
    max_bytes: int


class Due(msgspec.Struct, frozen=True):
    """Picks from a sorted set what has a score of at most ``before`` (ms), lowest first, at most ``limit`` ids."""

    before: int
    limit: int


class These(msgspec.Struct, frozen=True):
    """Picks these ids, in this order. In a list each is searched (O(n)): at most 10."""

    ids: tuple[bytes, ...]


Pick: TypeAlias = Head | Due | These


class NoClaim(msgspec.Struct, frozen=True):
    """Expects that the id has no claim."""


class Clear(msgspec.Struct, frozen=True):
    """Takes the claim away."""


NO_CLAIM: Final = NoClaim()
CLEAR: Final = Clear()


class Stamp(msgspec.Struct, frozen=True):
    """Writes a claim (`claim_mark`) on all that moved, with one new fence = max(last fence + 1, now).

    A batch whose stamps could come to 2**53 is refused (`StorageRefused`), whether they find something to move or not.

    Attributes:
        incarnation: Whose claim.
        beat: The owner's beat in ms, for those who watch its lease.
        now: The time in ms, so that fences do not run backwards when the server lost its last writes.
    """

    incarnation: bytes
    beat: int
    now: int


class Once(msgspec.Struct, frozen=True):
    """Numbers a claim, so that it can be sent again.

    The same number again answers what the first answered (less what has left since) and takes nothing; a number below
    the last one, or any number after the incarnation was closed (``closed`` in the requests), refuses the batch.
    """

    incarnation: bytes
    number: int


Expect: TypeAlias = Mapping[bytes, bytes] | Mapping[bytes, tuple[bytes, Score]] | Mapping[bytes, Score] | NoClaim


class Move(msgspec.Struct, frozen=True):
    """Takes ids out of ``source`` and puts them into ``target``; with ``target=None`` they leave and are forgotten.

    Ids that are not there, or not as expected, are skipped. When a job changes place, an id without a record is removed
    from the source and answered as missing. Answers a `Moved`.

    Attributes:
        source: Where they are. With ``source == target`` scores only rise: an old extension that arrives late does not
            shorten a lease.
        target: Where they go.
        pick: Which.
        score: For a sorted set, the new score of all or of each (ms).
        expect: id → claim, id → (claim, score in the source) or id → score in the source, or `NO_CLAIM`.
        stamp: Write or clear the claim of what moved; None leaves it.
        once: Number of the request.
        records: New records of those that move.
        count: A hash and a field to which the number of ids that moved is added. Where it holds no integer, or all that may
            be picked could bring it to 2**53, it starts anew: what is counted must not keep jobs from moving.
        front: Put at the head of a list, in the order picked, instead of the tail.
        wake: Ring the scope if a list that is the source still holds something; with a sorted set as the source, if
            something joined a list, or one of these became the head of another sorted set.
        give: Answer the records too; of a pick of `Head`, only those that are not too long for it.
        whole: All of `These` move, or the batch is refused: where one would be skipped or has no record, as things are
            before the batch, `Refused` names it. So what a batch does besides is done only if its jobs were as expected.
    """

    source: PlaceKey
    target: PlaceKey | None
    pick: Pick
    score: int | Mapping[bytes, int] | None = None
    expect: Expect | None = None
    stamp: Stamp | Clear | None = None
    once: Once | None = None
    records: Mapping[bytes, bytes] | None = None
    count: tuple[HashKey, bytes] | None = None
    front: bool = False
    wake: bool = False
    give: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        _check_place("source", self.source)
        if self.target is not None:
            _check_place("target", self.target)


class Mend(msgspec.Struct, frozen=True):
    """Makes one id whole again, if it is broken and its record is as it was seen. Answers 1 if it changed something, else 0.

    An id with a record is whole if it is in exactly one place, once; an id without one, if it is in none. A claim belongs to
    an id in ``working`` alone.

    * With a record, but in no place or in several (twice in ``ready`` is several): it is taken out of all, gets the new
      record, goes to the target, and loses its claim.
    * Without a record: it is taken out of every place and loses its claim.
    * In one place, which is not ``working``, with a claim: it loses the claim.

    The id is searched in ``ready`` (O(n)). Sent twice, or late, it finds the id whole, or another record, and does nothing.

    Attributes:
        target: Where it goes.
        id: Which.
        seen: Its record as it was seen, None if it had none. `Unread` is any record of that length.
        record: Its new record; one that was not read stays as it is.
        score: Its score in the target (ms).
    """

    target: SetKey
    id: bytes
    seen: bytes | Unread | None
    record: bytes = b""
    score: int = 0

    def __post_init__(self) -> None:
        _check_place("target", self.target)


Op: TypeAlias = (
    ListPush | SetAdd | SetRemove | HashSet | HashAdd | HashDelete | Ring | LockTake | LockDrop | Put | Move | Mend
)  # fmt: skip


class Batch(msgspec.Struct, frozen=True):
    """Guards and operations on the keys of one scope, applied whole or not at all.

    Attributes:
        scope: The scope.
        ops: The operations, in their order.
        guards: What has to hold, or nothing is applied.
        step: What the batch does, for people: traces, logs and histories name it. No storage looks at it.
    """

    scope: str
    ops: tuple[Op, ...]
    guards: tuple[Guard, ...] = ()
    step: str = ""
