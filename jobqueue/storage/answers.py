"""What a storage is asked, and what it answers, as frozen values."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from jobqueue.storage.key import HashKey, ListKey, LockKey, SetKey

__all__ = [
    "Answer",
    "Applied",
    "Fields",
    "Found",
    "Held",
    "Holder",
    "IdPage",
    "Ids",
    "Kept",
    "Match",
    "Matched",
    "Moved",
    "Page",
    "Peek",
    "Place",
    "Placed",
    "Query",
    "Records",
    "Refused",
    "ScopePage",
    "Scopes",
    "Score",
    "Sizes",
    "Unread",
    "Where",
]

Place = Literal["waiting", "ready", "working", "dead"]
Score: TypeAlias = int | float
"""Where an entry of a sorted set stands, in ms; a float only where something other than jobqueue wrote no whole number."""


# ------------------------------------------------------------------------------------------------------------- answers


class Placed(msgspec.Struct, frozen=True):
    """What became of each record of a `Put`.

    Attributes:
        states: One per record, in order.
        registered: Whether the counters of the scope have the field ``registered``: somebody wrote there that the queue is
            in the registry of its namespace. A scope that is new, or lost its data, has it not.
    """

    states: tuple[Literal["stored", "same", "different"], ...]
    registered: bool = False


class Unread(msgspec.Struct, frozen=True):
    """Stands for a record that is longer than was asked for, and was not read. ``size`` is its length in bytes."""

    size: int


class Moved(msgspec.Struct, frozen=True):
    """What a `Move` did.

    Attributes:
        ids: What moved, in order.
        records: Their records as they are now, if asked for, else empty; `Unread` for those that are too long for `Head`.
        missing: Ids that had no record and were removed from the source.
        fence: The fence of the stamp, 0 without one or if nothing moved.
        left: How many the source still holds.
        next: The lowest score left in a sorted set that was the source; rounded up, and cut to 53 bits.
    """

    ids: tuple[bytes, ...]
    records: tuple[bytes | Unread, ...] = ()
    missing: tuple[bytes, ...] = ()
    fence: int = 0
    left: int = 0
    next: int | None = None


class Applied(msgspec.Struct, frozen=True):
    """The batch was applied; one answer per operation.

    That is a `Placed`, a `Moved`, a fence (`LockTake`), whether something was mended (`Mend`: 1 or 0), or None.
    """

    answers: tuple[Placed | Moved | int | None, ...]

    @property
    def moved(self) -> Moved:
        """The answer of a batch that is one `Move`."""
        [moved] = self.answers
        assert isinstance(moved, Moved)
        return moved


class Refused(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """The batch changed nothing. ``failed`` holds the index of every guard that failed, in order.

    A `Move` whose `Once` was refused, or that could not move ``whole``, and a `Put` for which there was no room, has the
    index ``len(guards) + its index``. ``skipped`` holds the ids that such moves would have skipped, or that have no record.
    """

    failed: tuple[int, ...]
    skipped: tuple[bytes, ...] = ()


# ------------------------------------------------------------------------------------------------------------- queries


class Peek(msgspec.Struct, frozen=True):
    """Values of a list from position ``start``, at most ``limit``. Answers a tuple of bytes."""

    list: ListKey
    start: int
    limit: int


class Page(msgspec.Struct, frozen=True):
    """Entries of a sorted set in order, at most ``limit``. Answers a tuple of (member, score).

    Attributes:
        set: Which.
        limit: How many at most.
        before: Only scores of at most this (ms); None for all.
        after: Only entries behind this (score, member), the cursor of the page before; None from the start.
    """

    set: SetKey
    limit: int
    before: int | None = None
    after: tuple[Score, bytes] | None = None


class Records(msgspec.Struct, frozen=True):
    """What is kept of each id. Answers a tuple of `Kept` or None, in order.

    Attributes:
        scope: The scope.
        ids: Which.
        max_bytes: The answer ends before the record that would make all of them longer than this. A record that is longer by
            itself is answered as `Unread`, and counts nothing; so 0 answers everything else about all ids. None for all
            records, whatever their length.
    """

    scope: str
    ids: tuple[bytes, ...]
    max_bytes: int | None = None


class Sizes(msgspec.Struct, frozen=True):
    """How many entries each list, sorted set or hash has. Answers a tuple of int."""

    keys: tuple[ListKey | SetKey | HashKey, ...]


class Fields(msgspec.Struct, frozen=True):
    """Fields of a hash, all of them with None. Answers a dict of those present, sorted by field.

    Attributes:
        hash: Which.
        fields: Which of its fields.
        max_bytes: A value that is longer is left out, as if it were not there; None for all values. Nothing that jobqueue
            keeps in a hash, but for records and what runners of very many queues say of themselves, is longer than the
            default.
    """

    hash: HashKey
    fields: tuple[bytes, ...] | None = None
    max_bytes: int | None = 262_144


class Holder(msgspec.Struct, frozen=True):
    """Who holds the lock. Answers a `Held`, or None if nobody ever did. Of a token, the first 1,024 bytes at least."""

    lock: LockKey


class Scopes(msgspec.Struct, frozen=True):
    """The scopes ``namespace:…`` that have records or counters, found by going through all keys. Answers a `ScopePage`.

    Every scope that has some from the first answer to the last is in one of them, whoever wrote it. For what nothing else
    leads to: on a server it costs in proportion to all the keys there, also to those of others. Counters count because a
    queue is marked there as registered (`REGISTERED`).

    Attributes:
        namespace: Whose scopes.
        cursor: Where to go on: what the last answer said; empty to begin.
        limit: About how many keys to look at.
    """

    namespace: str
    cursor: bytes
    limit: int


class ScopePage(msgspec.Struct, frozen=True):
    """Scopes that were found, sorted, and the cursor of the next `Scopes`; empty at the end."""

    scopes: tuple[str, ...]
    cursor: bytes


class Ids(msgspec.Struct, frozen=True):
    """Fields of a hash, without their values: a page of about ``limit``. Answers an `IdPage`.

    Pages that follow each other's cursors from the start to the end hold every field that was there all the time, whatever
    is written in between. A field may come more than once, and one that came or went meanwhile may come or not. On a server
    this ends with a restart or a failover between two pages: start again then.

    Attributes:
        hash: Which.
        limit: How many about, at least 1. A page may hold a few more, or none though there are more pages.
        after: The cursor of the page before; None from the start.
    """

    hash: HashKey
    limit: int
    after: bytes | None = None


class Where(msgspec.Struct, frozen=True):
    """All that says where ids are, without their records. Answers a tuple of `Found`, in order.

    Attributes:
        scope: Which.
        ids: Of which ids.
        search: Search each in ``ready`` too, a walk along the list for each of 10 at most; otherwise nothing is said of it.
    """

    scope: str
    ids: tuple[bytes, ...]
    search: bool = False


class Match(msgspec.Struct, frozen=True):
    """Those of a slice of a place whose records hold each of these bytes somewhere. Answers a `Matched`.

    Attributes:
        place: Which.
        needles: What the records are to hold, as it stands there.
        limit: How many entries the slice has at most, at least 1.
        max_bytes: How many bytes of records are searched at most. A record that is longer by itself is not searched.
        after: Where to go on: the cursor of the slice before; None from the start.
    """

    place: ListKey | SetKey
    needles: tuple[bytes, ...]
    limit: int
    max_bytes: int
    after: tuple[Score, bytes] | None = None


class Matched(msgspec.Struct, frozen=True):
    """What a slice holds.

    Attributes:
        entries: The ids that match, in order, each with its score; in a list, with its position.
        looked: How many entries the slice had.
        next: Where the next slice begins, None at the end: behind this (score, id), or in a list at this position. What
            joins or leaves the head of a list meanwhile shifts it.
    """

    entries: tuple[tuple[bytes, Score], ...]
    looked: int
    next: tuple[Score, bytes] | None


class Found(msgspec.Struct, frozen=True):
    """Where an id was found.

    Attributes:
        stored: Whether it has a record.
        places: Each place that it is in: waiting, ready (twice if it is in the list more than once), working, dead.
        claim: Whether it has a claim.
    """

    stored: bool
    places: tuple[Place, ...]
    claim: bool


class IdPage(msgspec.Struct, frozen=True):
    """Some fields of a hash in no order, and the cursor of the next page, None at the end."""

    ids: tuple[bytes, ...]
    next: bytes | None


class Kept(msgspec.Struct, frozen=True):
    """A record, where its id is, and who holds it.

    Attributes:
        record: The record, or `Unread`.
        place: Where; an id that is in no sorted set is in ``ready``.
        score: Its score there (0 in ``ready``).
        claim: Its claim, if it has one of `LONGEST_CLAIM` bytes at most.
    """

    record: bytes | Unread
    place: Place
    score: Score
    claim: bytes | None


class Held(msgspec.Struct, frozen=True):
    """A lock: its last holder, the end of its time in ms (0: dropped), its fence."""

    token: bytes
    until: int
    fence: int


Query: TypeAlias = Peek | Page | Records | Sizes | Fields | Holder | Scopes | Ids | Where | Match
Answer: TypeAlias = (
    tuple[bytes, ...]
    | tuple[tuple[bytes, Score], ...]
    | tuple[Kept | None, ...]
    | tuple[Found, ...]
    | tuple[int, ...]
    | dict[bytes, bytes]
    | ScopePage
    | Held
    | IdPage
    | Matched
    | None
)
