"""What every operation means: the specification of a storage, as a plain interpreter.

Pure: no lock, clock, chance or thread. `jobqueue.storage.memory` makes a `Storage` of it. Where the docstrings of
`jobqueue.storage.ops` are silent, this is what holds:

* A batch is checked whole before anything is written: guards, numbers of requests (`Once`), kinds of keys, integers.
* A key that exists as another kind, or that one batch uses as two kinds, refuses the batch (`StorageRefused`); so does an
  addition to a field that is no integer of at most 15 digits.
* `Move` picks first, then skips what is not as expected, then takes away what has no record. So a limit counts skipped
  and missing ids too, and the bytes of `Head` are those of the records stored for what it picked.
* The score of an id in a list is 0. With ``source == target`` records are not looked at.
* A request that took nothing is remembered as well: its first sending, should it arrive later, must not take anything.
  Asked again, it answers what is still in the target under the very claim it stamped.
* Nothing moved: no fence is used up, nothing is counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

from jobqueue.errors import StorageRefused
from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    FENCE,
    RECORDS,
    REQUESTS,
    Absent,
    Answer,
    Applied,
    Batch,
    Clear,
    Due,
    Expect,
    FieldIs,
    Fields,
    Guard,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    Held,
    Holder,
    Kept,
    Key,
    ListKey,
    ListPush,
    LockDrop,
    Locked,
    LockKey,
    LockTake,
    Member,
    Move,
    Moved,
    NoClaim,
    Once,
    Op,
    Page,
    Peek,
    Place,
    Placed,
    PlaceKey,
    Put,
    Query,
    Records,
    Refused,
    SetAdd,
    SetKey,
    SetRemove,
    Sizes,
    Stamp,
    Unlocked,
)
from jobqueue.storage.sortedset import SortedSet

__all__ = ["Interpreter"]

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,14}")
_NONCE: Final = 8  # bytes in front of a record that name its enqueue
_SET_PLACES: Final[tuple[Place, ...]] = ("waiting", "working", "dead")


class Interpreter:
    """Contents of a storage and what operations do to them. Not safe for threads.

    Attributes:
        lists: Full name → values.
        sets: Full name → entries.
        hashes: Full name → field → value.
        locks: Full name → lock.
    """

    __slots__ = ("_tables", "hashes", "lists", "locks", "sets")

    def __init__(self) -> None:
        self.lists: dict[str, deque[bytes]] = {}
        self.sets: dict[str, SortedSet] = {}
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.locks: dict[str, Held] = {}
        self._tables: dict[type[Key], Mapping[str, object]] = {
            ListKey: self.lists,
            SetKey: self.sets,
            HashKey: self.hashes,
            LockKey: self.locks,
        }

    def copy(self) -> Interpreter:
        """An independent copy of the contents."""
        other = Interpreter()
        other.lists.update((name, values.copy()) for name, values in self.lists.items())
        other.sets.update((name, entries.copy()) for name, entries in self.sets.items())
        other.hashes.update((name, fields.copy()) for name, fields in self.hashes.items())
        other.locks.update(self.locks)
        return other

    def dump(self) -> dict[str, object]:
        """Everything as plain values, sorted by full name; see `MemoryStorage.dump`."""
        everything: dict[str, object] = {
            **{name: list(values) for name, values in self.lists.items()},
            **{name: [(member, score) for score, member in entries] for name, entries in self.sets.items()},
            **{name: dict(sorted(fields.items())) for name, fields in self.hashes.items()},
            **{name: (lock.token, lock.until, lock.fence) for name, lock in self.locks.items()},
        }
        return dict(sorted(everything.items()))

    # ------------------------------------------------------------------------------------------------------- batches

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        """Apply one batch, which passed `check_shape`, whole or not at all.

        Returns:
            The outcome, and whether the scope is to be rung.
        """
        try:
            self._check_kinds(_keys_of(batch))
            self._check_integers(batch)
        except StorageRefused as error:
            return error, False
        failed = [index for index, guard in enumerate(batch.guards) if not self._holds(guard)]
        again: dict[int, Sequence[bytes]] = {}
        for index, op in enumerate(batch.ops):
            if isinstance(op, Move) and op.once is not None:
                known = self._known(batch.scope, op.once)
                if known is None:
                    failed.append(len(batch.guards) + index)
                elif known:
                    again[index] = known
        if failed:
            return Refused(tuple(failed)), False
        answers: list[Placed | Moved | int | None] = []
        ring = False
        for index, op in enumerate(batch.ops):
            if isinstance(op, Move):
                answer, rings = self._answer_again(op, again[index]) if index in again else self._move(op)
                answers.append(answer)
                ring |= rings
            elif isinstance(op, Put):
                placed, rings = self._put(op)
                answers.append(placed)
                ring |= rings
            else:
                answers.append(self._plain(op))
        return Applied(tuple(answers)), ring

    def _check_kinds(self, keys: Iterable[Key]) -> None:
        seen: dict[str, type[Key]] = {}
        for key in keys:
            kind = type(key)
            if seen.setdefault(key.full, kind) is not kind:
                raise _clash(key, seen[key.full])
            for other, table in self._tables.items():
                if other is not kind and key.full in table:
                    raise _clash(key, other)

    def _check_integers(self, batch: Batch) -> None:
        for op in batch.ops:
            if isinstance(op, HashAdd):
                self._check_integer(op.hash.full, op.field)
            elif isinstance(op, Move):
                if op.count is not None:
                    self._check_integer(op.count[0].full, op.count[1])
                if isinstance(op.stamp, Stamp):
                    self._check_integer(_full(batch.scope, COUNTERS), FENCE)

    def _check_integer(self, name: str, field: bytes) -> None:
        value = self.hashes.get(name, {}).get(field, b"0")
        if not _INTEGER.fullmatch(value):
            raise StorageRefused(f"{name}: the field {field!r} holds {value[:40]!r}, which is no integer to add to")

    def _holds(self, guard: Guard) -> bool:
        match guard:
            case Absent(key, field):
                return field not in self.hashes.get(key.full, {})
            case FieldIs(key, field, value):
                return self.hashes.get(key.full, {}).get(field) == value
            case Member(key, member):
                return key.full in self.sets and member in self.sets[key.full].scores
            case Unlocked(key, token, now):
                lock = self.locks.get(key.full)
                if lock is None:
                    return True
                return lock.until != 0 if lock.token == token else lock.until <= now
            case Locked(key, token, now):
                lock = self.locks.get(key.full)
                return lock is not None and lock.token == token and lock.until > now

    # ---------------------------------------------------------------------------------------------- plain operations

    def _plain(self, op: Op) -> int | None:
        match op:
            case ListPush(key, values):
                if values:
                    self.lists.setdefault(key.full, deque()).extend(values)
            case SetAdd(key, members):
                self._set_add(key.full, members)
            case SetRemove(key, removed):
                self._set_remove(key.full, removed)
            case HashSet(key, fields):
                self._hash_set(key.full, fields)
            case HashAdd(key, field, amount):
                self._hash_add(key.full, field, amount)
            case HashDelete(key, deleted):
                self._hash_delete(key.full, deleted)
            case LockTake(key, token, now, until):
                lock = self.locks.get(key.full)
                if lock is not None and lock.token == token:
                    lock = Held(token, max(lock.until, until), lock.fence)
                else:
                    lock = Held(token, until, max((lock.fence if lock else 0) + 1, now))
                self.locks[key.full] = lock
                return lock.fence
            case LockDrop(key, token):
                lock = self.locks.get(key.full)
                if lock is not None and lock.token == token:
                    self.locks[key.full] = Held(token, 0, lock.fence)
            case _:
                raise TypeError(f"{op!r} is no operation")
        return None

    def _set_add(self, name: str, members: Mapping[bytes, int]) -> None:
        if members:
            self.sets.setdefault(name, SortedSet()).add(members)

    def _set_remove(self, name: str, members: Iterable[bytes]) -> None:
        entries = self.sets.get(name)
        if entries is not None:
            entries.remove(members)
            if not entries:
                del self.sets[name]

    def _hash_set(self, name: str, fields: Mapping[bytes, bytes]) -> None:
        if fields:
            self.hashes.setdefault(name, {}).update(fields)

    def _hash_add(self, name: str, field: bytes, amount: int) -> int:
        fields = self.hashes.setdefault(name, {})
        total = int(fields.get(field, b"0")) + amount
        fields[field] = b"%d" % total
        return total

    def _hash_delete(self, name: str, deleted: Iterable[bytes]) -> None:
        fields = self.hashes.get(name)
        if fields is not None:
            for field in deleted:
                fields.pop(field, None)
            if not fields:
                del self.hashes[name]

    # ------------------------------------------------------------------------------------------------ where jobs are

    def _put(self, op: Put) -> tuple[Placed, bool]:
        records = self.hashes.get(_full(op.target.scope, RECORDS), {})
        known = records.keys() & op.records.keys()
        if known:
            new = {id_: record for id_, record in op.records.items() if id_ not in known}
            placed = Placed(
                tuple(
                    "stored" if id_ in new else "same" if records[id_][:_NONCE] == record[:_NONCE] else "different"
                    for id_, record in op.records.items()
                )
            )
        else:
            new = dict(op.records)
            placed = Placed(("stored",) * len(new))
        if not new:
            return placed, False
        self._hash_set(_full(op.target.scope, RECORDS), new)
        self._place(op.target, new, op.score)
        return placed, op.wake and self._heads(op.target, new)

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        if isinstance(target, ListKey):
            values = self.lists.setdefault(target.full, deque())
            if front:
                values.extendleft(reversed(list(ids)))
            else:
                values.extend(ids)
        else:
            assert score is not None  # check_shape saw to it
            scores = {id_: score[id_] for id_ in ids} if isinstance(score, Mapping) else dict.fromkeys(ids, score)
            self._set_add(target.full, scores)

    def _heads(self, target: PlaceKey, ids: Iterable[bytes]) -> bool:
        """Whether a list got something, or one of the ids is now the head of the sorted set."""
        return isinstance(target, ListKey) or self.sets[target.full].first()[1] in ids

    def _move(self, op: Move) -> tuple[Moved, bool]:
        scope = op.source.scope
        records = self.hashes.get(_full(scope, RECORDS), {})
        moved = self._pick(op, records)
        if op.expect is not None and moved:
            moved = self._as_expected(op, op.expect, moved)
        missing: list[bytes] = []
        if op.source != op.target and not all(map(records.__contains__, moved)):
            missing = [id_ for id_ in moved if id_ not in records]
            moved = [id_ for id_ in moved if id_ in records]
        given: tuple[bytes, ...] = ()
        if op.give:
            new = op.records or {}
            given = tuple([new[id_] if id_ in new else records.get(id_, b"") for id_ in moved])
        self._leave(op, moved, missing)
        fence = self._stamp(op, moved)
        if moved:
            if op.target is None:
                self._hash_delete(_full(scope, RECORDS), moved)
            elif op.records:
                self._hash_set(_full(scope, RECORDS), {id_: op.records[id_] for id_ in moved if id_ in op.records})
            if op.count is not None:
                self._hash_add(op.count[0].full, op.count[1], len(moved))
        if op.once is not None:
            self._hash_set(
                _full(scope, REQUESTS),
                {op.once.incarnation: _netstrings((b"%d" % op.once.number, b"%d" % fence, *moved))},
            )
        left, lowest = self._left(op.source)
        return Moved(tuple(moved), given, tuple(missing), fence, left, lowest), op.wake and self._rings(op, moved, left)

    def _pick(self, op: Move, records: Mapping[bytes, bytes]) -> list[bytes]:
        if isinstance(op.source, SetKey):
            entries = self.sets.get(op.source.full)
            if entries is None:
                return []
            if isinstance(op.pick, Due):
                return entries.due(op.pick.before, op.pick.limit)
            assert not isinstance(op.pick, Head)  # check_shape saw to it
            return [id_ for id_ in dict.fromkeys(op.pick.ids) if id_ in entries.scores]
        values = self.lists.get(op.source.full)
        if values is None:
            return []
        if isinstance(op.pick, Head):
            return _within([*islice(values, op.pick.limit)], op.pick.max_bytes, records)
        assert not isinstance(op.pick, Due)
        return [id_ for id_ in dict.fromkeys(op.pick.ids) if id_ in values]

    def _as_expected(self, op: Move, expect: Expect, ids: list[bytes]) -> list[bytes]:
        claims = self.hashes.get(_full(op.source.scope, CLAIMS), {})
        if isinstance(expect, NoClaim):
            return [id_ for id_ in ids if id_ not in claims]
        scores = self.sets[op.source.full].scores if isinstance(op.source, SetKey) else dict.fromkeys(ids, 0)

        def as_expected(id_: bytes) -> bool:
            match expect.get(id_):
                case bytes() as claim:
                    return claims.get(id_) == claim
                case (claim, score):
                    return claims.get(id_) == claim and scores[id_] == score
                case score:
                    return score is not None and scores[id_] == score

        return [id_ for id_ in ids if as_expected(id_)]

    def _leave(self, op: Move, moved: list[bytes], missing: list[bytes]) -> None:
        """Take the ids out of the source and put those that move into the target."""
        if not moved and not missing:
            return
        if isinstance(op.source, ListKey):
            values = self.lists[op.source.full]
            for id_ in (*moved, *missing):
                if values[0] == id_:
                    values.popleft()
                else:
                    values.remove(id_)
            if not values:
                del self.lists[op.source.full]
        elif op.source == op.target:
            scores = self.sets[op.source.full].scores
            score = op.score
            if score is not None:
                each = score if isinstance(score, Mapping) else dict.fromkeys(moved, score)
                self._set_add(op.source.full, {id_: max(scores[id_], each[id_]) for id_ in moved})
            return
        else:
            self._set_remove(op.source.full, moved)
            self._set_remove(op.source.full, missing)
        if missing:
            self._hash_delete(_full(op.source.scope, CLAIMS), missing)
        if moved and op.target is not None:
            self._place(op.target, moved, op.score, front=op.front)

    def _stamp(self, op: Move, moved: list[bytes]) -> int:
        if not moved:
            return 0
        name = _full(op.source.scope, CLAIMS)
        if op.target is None or isinstance(op.stamp, Clear):
            self._hash_delete(name, moved)
        elif op.stamp is not None:
            counters = _full(op.source.scope, COUNTERS)
            fence = max(int(self.hashes.get(counters, {}).get(FENCE, b"0")) + 1, op.stamp.now)
            self._hash_set(counters, {FENCE: b"%d" % fence})
            self._hash_set(name, dict.fromkeys(moved, _claim(op.stamp, fence)))
            return fence
        return 0

    def _rings(self, op: Move, moved: list[bytes], left: int) -> bool:
        if isinstance(op.source, ListKey) and left:
            return True
        if not moved or op.target is None:
            return False
        return isinstance(op.target, ListKey) or (op.target != op.source and self._heads(op.target, moved))

    def _left(self, source: PlaceKey) -> tuple[int, int | None]:
        if isinstance(source, ListKey):
            return len(self.lists.get(source.full, ())), None
        entries = self.sets.get(source.full)
        return (len(entries), entries.first()[0]) if entries else (0, None)

    # ----------------------------------------------------------------------------------------------- numbered claims

    def _known(self, scope: str, once: Once) -> Sequence[bytes] | None:
        """What is known of the request: empty if it is new, (number, fence, ids …) if it was answered, None to refuse."""
        value = self.hashes.get(_full(scope, REQUESTS), {}).get(once.incarnation)
        if value is None:
            return ()
        last = _parse_netstrings(value)
        if len(last) < 2 or not last[0].isdigit() or int(last[0]) > once.number:
            return None
        return last if int(last[0]) == once.number else ()

    def _answer_again(self, op: Move, known: Sequence[bytes]) -> tuple[Moved, bool]:
        assert isinstance(op.stamp, Stamp)
        assert isinstance(op.target, SetKey)
        fence = int(known[1])
        records = self.hashes.get(_full(op.source.scope, RECORDS), {})
        claims = self.hashes.get(_full(op.source.scope, CLAIMS), {})
        entries = self.sets.get(op.target.full) or SortedSet()
        claim = _claim(op.stamp, fence)
        ids = tuple([id_ for id_ in known[2:] if id_ in entries.scores and claims.get(id_) == claim and id_ in records])
        left, lowest = self._left(op.source)
        given = tuple([records[id_] for id_ in ids]) if op.give else ()
        return Moved(ids, given, (), fence, left, lowest), False

    # ------------------------------------------------------------------------------------------------------- queries

    def read(self, query: Query) -> Answer:
        """Answer one query.

        Raises:
            StorageRefused: A key exists as another kind.
        """
        match query:
            case Peek(key, start, limit):
                self._check_kinds((key,))
                return tuple(islice(self.lists.get(key.full, ()), start, start + limit))
            case Page():
                return self._page(query)
            case Records(scope, ids):
                return self._kept(scope, ids)
            case Sizes(keys):
                self._check_kinds(keys)
                return tuple([self._size(key) for key in keys])
            case Fields(key, fields):
                self._check_kinds((key,))
                stored = self.hashes.get(key.full, {})
                return {
                    field: stored[field] for field in sorted(stored if fields is None else fields) if field in stored
                }
            case Holder(key):
                self._check_kinds((key,))
                return self.locks.get(key.full)

    def _size(self, key: ListKey | SetKey | HashKey) -> int:
        match key:
            case ListKey():
                return len(self.lists.get(key.full, ()))
            case SetKey():
                return len(self.sets.get(key.full, ()))
            case _:
                return len(self.hashes.get(key.full, ()))

    def _page(self, query: Page) -> Answer:
        self._check_kinds((query.set,))
        entries = self.sets.get(query.set.full, SortedSet())
        page = islice(entries if query.after is None else entries.after(query.after), query.limit)
        return tuple([(member, score) for score, member in page if query.before is None or score <= query.before])

    def _kept(self, scope: str, ids: Iterable[bytes]) -> Answer:
        sets = [SetKey(scope, place) for place in _SET_PLACES]
        self._check_kinds((HashKey(scope, RECORDS), HashKey(scope, CLAIMS), *sets))
        records = self.hashes.get(_full(scope, RECORDS), {})
        claims = self.hashes.get(_full(scope, CLAIMS), {})
        places = [
            (place, self.sets[key.full].scores)
            for place, key in zip(_SET_PLACES, sets, strict=True)
            if key.full in self.sets
        ]
        kept: list[Kept | None] = []
        for id_ in ids:
            record = records.get(id_)
            if record is None:
                kept.append(None)
                continue
            place: Place = "ready"
            score = 0
            for name, scores in places:
                if id_ in scores:
                    place, score = name, scores[id_]
                    break
            kept.append(Kept(record, place, score, claims.get(id_)))
        return tuple(kept)


def _keys_of(batch: Batch) -> Iterable[Key]:
    """Every key that the batch looks at or changes."""
    for guard in batch.guards:
        match guard:
            case Absent() | FieldIs():
                yield guard.hash
            case Member():
                yield guard.set
            case _:
                yield guard.lock
    for op in batch.ops:
        match op:
            case Move():
                yield op.source
                yield HashKey(batch.scope, RECORDS)
                yield HashKey(batch.scope, CLAIMS)
                if op.target is not None:
                    yield op.target
                if op.count is not None:
                    yield op.count[0]
                if isinstance(op.stamp, Stamp):
                    yield HashKey(batch.scope, COUNTERS)
                if op.once is not None:
                    yield HashKey(batch.scope, REQUESTS)
            case Put():
                yield op.target
                yield HashKey(batch.scope, RECORDS)
            case ListPush():
                yield op.list
            case SetAdd() | SetRemove():
                yield op.set
            case HashSet() | HashAdd() | HashDelete():
                yield op.hash
            case _:
                yield op.lock


def _within(ids: list[bytes], max_bytes: int, records: Mapping[bytes, bytes]) -> list[bytes]:
    """As many ids from the first as their records fit into ``max_bytes``, but at least one that has a record."""
    total = taken = 0
    for index, id_ in enumerate(ids):
        record = records.get(id_)
        if record is not None:
            total += len(record)
            if taken and total > max_bytes:
                return ids[:index]
            taken += 1
    return ids


def _clash(key: Key, other: type[Key]) -> StorageRefused:
    return StorageRefused(
        f"{key.full} is a {other.__name__}, not a {type(key).__name__}: something else uses this name; "
        "use another namespace or remove the foreign key"
    )


def _claim(stamp: Stamp, fence: int) -> bytes:
    return b"%b:%d:%d" % (stamp.incarnation, fence, stamp.beat)


def _netstrings(values: Iterable[bytes]) -> bytes:
    return b"".join([b"%d:%b," % (len(value), value) for value in values])


def _parse_netstrings(value: bytes) -> list[bytes]:
    """The values; what is not a netstring ends them."""
    values = []
    at = 0
    while (colon := value.find(b":", at)) > at and value[at:colon].isdigit():
        end = colon + 1 + int(value[at:colon])
        values.append(value[colon + 1 : end])
        at = end + 1
    return values


def _full(scope: str, name: str) -> str:
    return f"{{{scope}}}:{name}"
