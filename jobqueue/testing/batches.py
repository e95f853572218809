"""Random batches and queries over a tiny universe, so that ids, keys, times and numbers collide all the time.

They are drawn from a `Random`: strategies that depend on the contents of a storage are built and validated anew for every
draw, which took most of the time.
"""

# ruff: noqa: D102 - each method is named after what it draws, and chance is repeatable on purpose

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from jobqueue.storage.ops import (
    CLEAR,
    NO_CLAIM,
    Absent,
    Batch,
    Clear,
    Due,
    Empty,
    Expect,
    FieldIs,
    Fields,
    Guard,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    Holder,
    Ids,
    ListKey,
    ListPush,
    LockDrop,
    Locked,
    LockKey,
    LockTake,
    Match,
    Member,
    Mend,
    Move,
    Once,
    Op,
    Page,
    Peek,
    Pick,
    PlaceKey,
    Put,
    Query,
    Records,
    Ring,
    SetAdd,
    SetKey,
    SetRemove,
    Sizes,
    Stamp,
    These,
    Unlocked,
    Unread,
    Where,
)

__all__ = ["Draw", "draw_batch", "draw_query"]

IDS = (b"a", b"b", b"c", b"\x00\r\n", b"\xff", b"")
RECORDS = (b"nonce--1", b"nonce--1 and more", b"nonce--2 \x00\r\n\xff", b"nonce--2" * 4, b"short", b"")
INCARNATIONS = (b"x", b"y:1")
FIELDS = (b"f", b"g", b"fence", *INCARNATIONS)
VALUES = (b"7", b"0", b"-3", b"007", b"", b"closed", b"1:1,1:0,", b"1:2,1:1,1:a,", b"9:", b"9007199254740991")
TOKENS = (b"t", b"u")
TIMES = (0, 1, 2, 3, 4, 5, 6, 2**53 - 1)
LIMITS = (0, 1, 2, 3, 100)
BEAT = 5

Dump = Mapping[str, Any]
T = TypeVar("T")


class Draw:
    """Draws operations for one scope from ``random``, with the contents of the storage in view."""

    def __init__(self, random: Random, scope: str, dump: Dump) -> None:
        self.random = random
        self.scope = scope
        self.dump = dump

    def one(self, *of: T) -> T:
        return of[self.random.randrange(len(of))]

    def coin(self) -> bool:
        return self.random.randrange(2) == 1

    def some(self, of: tuple[T, ...], most: int) -> list[T]:
        return [self.one(*of) for _ in range(self.random.randrange(most + 1))]

    def ids(self, most: int = 4) -> tuple[bytes, ...]:
        return tuple(self.some(IDS, most))

    def time(self) -> int:
        # The last one only now and then: once a fence has come to it, nothing is claimed any more.
        return self.random.randrange(7) if self.random.randrange(30) else TIMES[-1]

    def name(self, usual: str) -> str:
        """The usual name of a plain key, now and then that of another kind."""
        return usual if self.random.randrange(12) else self.one("list", "set", "hash")

    def list(self) -> ListKey:
        return ListKey(self.scope, self.name("list"))

    def set(self) -> SetKey:
        return SetKey(self.scope, self.name("set"))

    def hash(self) -> HashKey:
        return HashKey(self.scope, self.one(self.name("hash"), "counters", "requests"))

    def any_hash(self) -> HashKey:
        return HashKey(self.scope, self.one(self.name("hash"), "counters", "requests", "records", "claims"))

    def any_set(self) -> SetKey:
        return SetKey(self.scope, self.one(self.name("set"), "waiting", "working", "dead"))

    def lock(self) -> LockKey:
        return LockKey(self.scope, self.one("lock:l", "lock:m"))

    def place(self) -> PlaceKey:
        name = self.one("ready", "waiting", "working", "dead")
        return ListKey(self.scope, name) if name == "ready" else SetKey(self.scope, name)

    # ------------------------------------------------------------------------------------------------------- guards

    def guard(self) -> Guard:
        key = self.any_hash()
        stored = self.dump.get(key.full)
        held = stored if isinstance(stored, dict) else {}
        field = self.one(*FIELDS, *IDS, *held)
        kinds: tuple[Callable[[], Guard], ...] = (
            lambda: Absent(key, field),
            lambda: FieldIs(key, field, held[field] if field in held and self.coin() else self.one(*VALUES)),
            lambda: Member(self.any_set(), self.one(*IDS)),
            lambda: Empty(self.any_set()),
            lambda: Unlocked(self.lock(), self.one(*TOKENS), self.time(), self.time()),
            lambda: Locked(self.lock(), self.one(*TOKENS), self.time()),
        )
        return self.one(*kinds)()

    # --------------------------------------------------------------------------------------------------- operations

    def plain(self) -> Op:
        kinds: tuple[Callable[[], Op], ...] = (
            lambda: ListPush(self.list(), tuple(self.some(VALUES, 3))),
            lambda: SetAdd(self.set(), {id_: self.time() for id_ in self.ids()}),
            lambda: SetRemove(self.set(), self.ids()),
            lambda: HashSet(self.hash(), {field: self.one(*VALUES) for field in self.some(FIELDS, 2)}),
            lambda: HashAdd(self.hash(), self.one(*FIELDS), self.one(-3, -1, 0, 1, 2, 2**53 - 1)),
            lambda: HashDelete(self.hash(), tuple(self.some(FIELDS, 2))),
            # Not at the last time there is: fences go up from there one by one, and no clock is near it.
            lambda: LockTake(self.lock(), self.one(*TOKENS), self.random.randrange(7), self.time()),
            lambda: LockDrop(self.lock(), self.one(*TOKENS)),
            Ring,
        )
        return self.one(*kinds)()

    def put(self) -> Put:
        target = self.place()
        records = {id_: self.one(*RECORDS) for id_ in self.ids()}
        score: Any = None
        if isinstance(target, SetKey):
            score = {id_: self.time() for id_ in records} if self.coin() else self.time()
        most = self.one(None, None, 0, 1, 2, 3) if isinstance(target, ListKey) else None
        return Put(target, records, score=score, wake=self.coin(), most=most)

    def expect(self, source: PlaceKey) -> Expect | None:
        """Mostly what is true now, else something near it."""
        stored, entries = self.dump.get(f"{{{self.scope}}}:claims"), self.dump.get(source.full)
        claims = stored if isinstance(stored, dict) else {}
        scores = _scores(entries) if isinstance(source, SetKey) else {}
        chosen = tuple(scores) if self.coin() else self.ids(6)

        def claim(id_: bytes) -> bytes:
            return claims[id_] if id_ in claims and self.random.randrange(5) else self.one(b"x:1:5", b"y:1:2:5", b"z")

        def score(id_: bytes) -> int:
            return scores.get(id_, 0) if self.random.randrange(5) else self.time()

        kinds: tuple[Callable[[], Expect | None], ...] = (
            lambda: None,
            lambda: NO_CLAIM,
            lambda: {id_: claim(id_) for id_ in chosen},
            lambda: dict.fromkeys(chosen, claim(chosen[0]) if chosen else b""),
            lambda: {id_: (claim(id_), score(id_)) for id_ in chosen},
            lambda: {id_: score(id_) for id_ in chosen},
        )
        return self.one(*kinds)()

    def move(self) -> Move:
        source, target = self.place(), self.one(None, self.place(), self.place(), self.place())
        pick: Pick = These(self.ids(6))
        if self.coin():
            limit = self.one(*LIMITS)
            pick = Due(self.time(), limit)
            if isinstance(source, ListKey):
                pick = Head(limit, self.one(0, 8, 20, 40, 10_000))
        score: Any = None
        if isinstance(target, SetKey):
            score = self.time()
            if isinstance(pick, These) and self.coin():
                score = {id_: self.time() for id_ in pick.ids}
            elif source == target and self.coin():
                score = None
        stamp: Stamp | Clear | None = self.one(None, CLEAR, Stamp(self.one(*INCARNATIONS), BEAT, self.time()))
        once = None
        if isinstance(stamp, Stamp) and isinstance(target, SetKey) and self.coin():
            once = Once(stamp.incarnation, self.random.randrange(4))
        return Move(
            source,
            target,
            pick,
            score=score,
            expect=self.expect(source),
            stamp=stamp,
            once=once,
            records={id_: self.one(*RECORDS) for id_ in self.ids()} if self.coin() else None,
            count=(self.hash(), self.one(*FIELDS)) if self.coin() else None,
            front=self.coin(),
            wake=self.coin(),
            give=self.coin(),
        )

    def promotion(self) -> Move:
        """Due jobs become ready."""
        pick = Due(self.time(), self.one(*LIMITS))
        return Move(SetKey(self.scope, self.one("waiting", "dead")), ListKey(self.scope, "ready"), pick, wake=True)

    def claim(self) -> Move:
        """What runners do most, which random moves rarely hit."""
        incarnation, now, ready = self.one(*INCARNATIONS), self.random.randrange(7), ListKey(self.scope, "ready")
        return Move(
            ready, SetKey(self.scope, "working"), Head(self.one(1, 2, 3, 100), self.one(0, 16, 30, 1000, 1000)),
            score=now + 3, expect=self.one(None, None, self.expect(ready)), stamp=Stamp(incarnation, BEAT, now),
            once=Once(incarnation, self.random.randrange(6)), give=True, wake=True,
        )  # fmt: skip

    def ending(self) -> Move:
        """What becomes of claimed jobs: they are finished, extended, retried or handed back under their claims."""
        stored = self.dump.get(f"{{{self.scope}}}:claims")
        claims = stored if isinstance(stored, dict) else {}
        ids = tuple(dict.fromkeys([self.one(*claims, *IDS[:2]), *self.ids(), *claims]))
        expect: Mapping[bytes, bytes] = {id_: claims.get(id_, b"x:1:5") for id_ in ids}
        working, these, give = SetKey(self.scope, "working"), These(ids), self.coin()
        count = (HashKey(self.scope, "counters"), b"done")
        scores = {id_: self.time() for id_ in ids}
        picks: list[Pick] = [these, Due(self.time(), 100)]
        entries = self.dump.get(working.full)
        ends = _scores(entries)
        leases: Expect = {id_: (claim, ends.get(id_, 0)) for id_, claim in expect.items()}
        moves = (
            Move(working, None, these, expect=expect, count=count, give=give),
            Move(working, working, these, score=self.time(), expect=expect, give=give),
            Move(
                working, SetKey(self.scope, self.one("waiting", "dead")), these, score=scores, expect=expect,
                stamp=CLEAR, records=dict.fromkeys(ids[:2], self.one(*RECORDS)), count=count, wake=True, give=give,
            ),
            Move(
                working, ListKey(self.scope, "ready"), self.one(*picks),
                expect=self.one(expect, leases), stamp=CLEAR, front=True, wake=True, give=give,
            ),
        )  # fmt: skip
        return self.one(*moves)

    def whole(self) -> tuple[Op, ...]:
        """Moves of all or none, mostly of what is there, and what is done with them."""
        stored = self.dump.get(f"{{{self.scope}}}:claims")
        claims = stored if isinstance(stored, dict) else {}
        free = self.random.sample(IDS, len(IDS))
        moves: list[Op] = []
        for _ in range(self.one(1, 1, 2)):
            source, target = self.place(), self.one(None, self.place(), self.place())
            entries: Any = self.dump.get(source.full)
            scores = _scores(entries)
            there = [id_ for id_ in free if id_ in (scores or entries or ()) or self.random.randrange(12) == 0]
            ids = tuple(there[: self.random.randrange(4)])
            free = [id_ for id_ in free if id_ not in ids]
            kinds: tuple[Expect | None, ...] = (
                None, NO_CLAIM, {id_: claims.get(id_, b"x:1:5") for id_ in ids}, {id_: scores.get(id_, 0) for id_ in ids},
            )  # fmt: skip
            scored: Any = (
                self.one(self.time(), {id_: self.time() for id_ in ids}) if isinstance(target, SetKey) else None
            )
            moves.append(
                Move(
                    source,
                    target,
                    These(ids),
                    score=scored,
                    expect=self.one(*kinds),
                    stamp=self.one(None, CLEAR),
                    records=dict.fromkeys(ids, self.one(*RECORDS)) if self.coin() else None,
                    wake=self.coin(),
                    give=self.coin(),
                    whole=True,
                )
            )
        put = Put(ListKey(self.scope, "ready"), {id_: self.one(*RECORDS) for id_ in free[:1]}, wake=self.coin())
        return (*moves, self.one(self.plain(), put, put))

    def mending(self) -> Mend:
        """Mostly of what is stored, as it is now."""
        stored = self.dump.get(f"{{{self.scope}}}:records")
        records = stored if isinstance(stored, dict) else {}
        id_ = self.one(*records, *IDS)
        seen: bytes | Unread | None = records.get(id_) if self.random.randrange(5) else self.one(None, *RECORDS)
        if isinstance(seen, bytes) and self.random.randrange(4) == 0:
            seen = Unread(len(seen))
        target = SetKey(self.scope, self.one("dead", "dead", "waiting", "working"))
        return Mend(target, id_, seen, self.one(*RECORDS), self.time())

    # ------------------------------------------------------------------------------------------------------ queries

    def key(self) -> ListKey | SetKey | HashKey:
        kinds: tuple[ListKey | SetKey | HashKey, ...] = (
            self.list(), self.any_set(), self.any_hash(), self.place(),
        )  # fmt: skip
        return self.one(*kinds)

    def query(self) -> Query:
        after = (self.time(), self.one(*IDS)) if self.coin() else None
        fields = tuple(self.some((*FIELDS, *IDS), 4)) if self.coin() else None
        kinds: tuple[Callable[[], Query], ...] = (
            lambda: Peek(
                ListKey(self.scope, self.one("plain", "ready", "ready")), self.one(0, 1, 2), self.one(*LIMITS)
            ),
            lambda: Page(self.any_set(), self.one(*LIMITS), self.one(None, self.time()), after),
            lambda: Records(self.scope, self.ids(), self.one(None, 0, 9, 20, 100)),
            lambda: Sizes(tuple(self.key() for _ in range(self.random.randrange(4)))),
            lambda: Fields(self.any_hash(), fields, self.one(None, 0, 2, 100)),
            lambda: Holder(self.lock()),
            lambda: Ids(self.any_hash(), self.one(1, 2, 3, 100)),
            lambda: Where(self.scope, self.ids(), self.coin()),
            lambda: Match(
                self.place(),
                tuple(self.some((b"nonce", b"--2", b"\x00", b"", b"m"), 2)),
                self.one(1, 2, 3, 100),
                self.one(0, 9, 20, 1000),
                after,
            ),
        )
        return self.one(*kinds)()


def _scores(entries: Any) -> dict[bytes, int]:
    """What a dump tells of a sorted set; somebody may have made something else of the key."""
    if isinstance(entries, list) and all(isinstance(entry, tuple) for entry in entries):
        return dict(entries)
    return {}


def draw_batch(random: Random, dump: Dump, scopes: Sequence[str]) -> Batch:
    """A batch for one of the scopes, given what `MemoryStorage.dump` tells of the contents."""
    draw = Draw(random, random.choice(scopes), dump)
    kinds: tuple[Callable[[], Op], ...] = (
        draw.plain, draw.put, draw.move, draw.claim, draw.ending, draw.promotion, draw.mending,
    )  # fmt: skip
    ops = tuple(draw.one(*kinds)() for _ in range(random.randrange(1, 4))) if random.randrange(6) else draw.whole()
    return Batch(
        draw.scope, ops, tuple(draw.guard() for _ in range(random.randrange(3))) if random.randrange(4) == 0 else ()
    )


def draw_query(random: Random, dump: Dump, scopes: Sequence[str]) -> Query:
    """A query about one of the scopes."""
    return Draw(random, random.choice(scopes), dump).query()
