"""What every operation means: the specification of a storage, as a plain interpreter.

Pure: no lock, clock, chance or thread. `jobqueue.storage.memory` makes a `Storage` of it. Where the docstrings of
`jobqueue.storage.ops` are silent, this is what holds:

* A batch is checked whole before anything is written: guards, numbers of requests (`Once`), the room for a `Put`, moves that
  are ``whole``, kinds of keys, integers. Each `Put` of a batch is compared with what was there before the batch.
* A key that exists as another kind, or that one batch uses as two kinds, refuses the batch (`StorageRefused`); so does an
  addition to a field that holds no integer, or past what a score holds exactly. What a `Move` counts starts anew there.
* `Move` picks first, then skips what is not as expected, then takes away what has no record. So a limit counts skipped
  and missing ids too, and the bytes of `Head` are those of the records stored for what it picked. Ids picked twice
  count once.
* The score of an id in a list is 0.
* Records are looked at only when a job goes to another place: one that stays or leaves needs none (``give`` answers
  empty bytes for it then). A record that leaves is answered as it would have been stored.
* A request that took nothing is remembered as well: its first sending, should it arrive later, must not take anything.
  Asked again, it answers what is still in the target under the very claim it stamped.
* Nothing moved: no fence is used up, nothing is counted.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

from jobqueue.errors import StorageRefused
from jobqueue.storage.contents import full_name
from jobqueue.storage.mending import keys_of_mend, mend
from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    FENCE,
    RECORDS,
    REQUESTS,
    Absent,
    Applied,
    Batch,
    Clear,
    Due,
    Empty,
    Expect,
    FieldIs,
    Guard,
    HashAdd,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    Held,
    Key,
    ListKey,
    ListPush,
    LockDrop,
    Locked,
    LockTake,
    Member,
    Mend,
    Move,
    Moved,
    NoClaim,
    Once,
    Op,
    Placed,
    PlaceKey,
    Put,
    Refused,
    Ring,
    SetAdd,
    SetKey,
    SetRemove,
    Stamp,
    These,
    Unlocked,
    Unread,
    claim_mark,
)
from jobqueue.storage.placing import Placing
from jobqueue.storage.sortedset import SortedSet
from jobqueue.storage.within import read, within

__all__ = ["Interpreter"]

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,15}")
_LIMIT: Final = 2**53


class Interpreter(Placing):
    """Contents of a storage and what batches do to them. Not safe for threads."""

    __slots__ = ()

    def copy(self) -> Interpreter:
        """An independent copy of the contents."""
        other = Interpreter()
        self.copy_to(other)
        return other

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        """Apply one batch, which passed `check_shape`, whole or not at all.

        Returns:
            The outcome, and whether the scope is to be rung.
        """
        try:
            self.check_kinds(_keys_of(batch))
            self._check_integers(batch)
        except StorageRefused as error:
            return error, False
        failed = [index for index, guard in enumerate(batch.guards) if not self._holds(guard)] if batch.guards else []
        skipped: list[bytes] = []
        again: dict[int, Sequence[bytes]] = {}
        for index, op in enumerate(batch.ops):
            if isinstance(op, Move) and op.once is not None:
                known = self._known(batch.scope, op.once)
                if known is None:
                    failed.append(len(batch.guards) + index)
                elif known:
                    again[index] = known[: 2 + _most(op)]
            elif isinstance(op, Move) and op.whole and (lacking := self._lacking(op)):
                failed.append(len(batch.guards) + index)
                skipped += lacking
            elif isinstance(op, Put) and self._is_full(op):
                failed.append(len(batch.guards) + index)
        if failed:
            return Refused(tuple(failed), tuple(skipped)), False
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
                ring |= isinstance(op, Ring)
        return Applied(tuple(answers)), ring

    def _check_integers(self, batch: Batch) -> None:
        """Raise `StorageRefused` if something is added to what is no integer, or the sum would not be exact."""
        written: dict[tuple[str, bytes], bytes | None] = {}
        for op in batch.ops:
            match op:
                case Move():
                    if op.count is not None:
                        name, field = op.count[0].full, op.count[1]
                        before = written.get((name, field), self.hashes.get(name, {}).get(field))
                        if _can_grow(before, _most(op)):  # else it stays, or starts anew
                            written[name, field] = b"%d" % (int(before or b"0") + _most(op))
                    if isinstance(op.stamp, Stamp):
                        counters = full_name(batch.scope, COUNTERS)
                        self._check_sum(written, counters, FENCE, 1, op.stamp.now)
                    if op.once is not None:  # its value is no number
                        written[full_name(batch.scope, REQUESTS), op.once.incarnation] = b""
                case HashAdd():
                    self._check_sum(written, op.hash.full, op.field, op.amount)
                case HashSet():
                    written.update({(op.hash.full, field): value for field, value in op.fields.items()})
                case HashDelete():
                    written.update({(op.hash.full, field): None for field in op.fields})
                case _:
                    pass

    def _check_sum(
        self,
        written: dict[tuple[str, bytes], bytes | None],
        name: str,
        field: bytes,
        amount: int = 0,
        least: int = -_LIMIT,
    ) -> None:
        value = written.get((name, field), self.hashes.get(name, {}).get(field))
        now = 0 if value is None else _integer(value)
        if now is None or max(abs(now), abs(total := max(now + amount, least))) >= _LIMIT:
            raise StorageRefused(f"{name}: the field {field!r} holds {value!r:.40}, to which nothing can be added")
        written[name, field] = b"%d" % total

    def _holds(self, guard: Guard) -> bool:
        match guard:
            case Absent(key, field):
                return field not in self.hashes.get(key.full, {})
            case FieldIs(key, field, value):
                return self.hashes.get(key.full, {}).get(field) == value
            case Member(key, member):
                return key.full in self.sets and member in self.sets[key.full].scores
            case Empty(key):
                return not self.sets.get(key.full)
            case Unlocked(key, token, now, fence):
                lock = self.locks.get(key.full)
                if lock is None:
                    return True
                return lock.until != 0 if lock.token == token else lock.until <= now and lock.fence <= fence
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
                self.set_add(key.full, members)
            case SetRemove(key, removed):
                self.set_remove(key.full, removed)
            case HashSet(key, fields):
                self.hash_set(key.full, fields)
            case HashAdd(key, field, amount):
                self.hash_add(key.full, field, amount)
            case HashDelete(key, deleted):
                self.hash_delete(key.full, deleted)
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
            case Mend():
                return mend(self, op)
            case Ring():
                pass
            case _:
                raise TypeError(f"{op!r} is no operation")
        return None

    # ------------------------------------------------------------------------------------------------ where jobs are

    def _move(self, op: Move) -> tuple[Moved, bool]:
        scope = op.source.scope
        records = self.hashes.get(full_name(scope, RECORDS), {})
        moved = self._pick(op, records)
        if op.expect is not None and moved:
            moved = self._as_expected(op, op.expect, moved)
        missing: list[bytes] = []
        if op.target not in (None, op.source) and not all(map(records.__contains__, moved)):
            missing = [id_ for id_ in moved if id_ not in records]
            moved = [id_ for id_ in moved if id_ in records]
        given: tuple[bytes | Unread, ...] = ()
        if op.give:
            new, most = op.records or {}, _most_bytes(op)
            given = tuple([new[id_] if id_ in new else read(records.get(id_, b""), most) for id_ in moved])
        self._leave(op, moved, missing)
        fence = self._stamp(op, moved)
        if moved:
            if op.target is None:
                self.hash_delete(full_name(scope, RECORDS), moved)
            elif op.records:
                self.hash_set(full_name(scope, RECORDS), {id_: op.records[id_] for id_ in moved if id_ in op.records})
            if op.count is not None:
                name, field = op.count[0].full, op.count[1]
                before = self.hashes.get(name, {}).get(field)
                total = (int(before or b"0") if _can_grow(before, _most(op)) else 0) + len(moved)
                self.hash_set(name, {field: b"%d" % total})
        if op.once is not None:
            self.hash_set(
                full_name(scope, REQUESTS),
                {op.once.incarnation: _netstrings((b"%d" % op.once.number, b"%d" % fence, *moved))},
            )
        left, lowest = self._left(op.source)
        return Moved(tuple(moved), given, tuple(missing), fence, left, lowest), op.wake and self._rings(op, moved, left)

    def _lacking(self, op: Move) -> list[bytes]:
        """The ids that would be skipped, or have no record."""
        assert isinstance(op.pick, These)  # check_shape saw to it
        records = self.hashes.get(full_name(op.source.scope, RECORDS), {})
        moved = self._pick(op, records)
        if op.expect is not None and moved:
            moved = self._as_expected(op, op.expect, moved)
        able = {id_ for id_ in moved if id_ in records}
        return [id_ for id_ in dict.fromkeys(op.pick.ids) if id_ not in able]

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
            return [*within([*islice(values, op.pick.limit)], op.pick.max_bytes, records)]
        assert not isinstance(op.pick, Due)
        return [id_ for id_ in dict.fromkeys(op.pick.ids) if id_ in values]

    def _as_expected(self, op: Move, expect: Expect, ids: list[bytes]) -> list[bytes]:
        claims = self.hashes.get(full_name(op.source.scope, CLAIMS), {})
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
                self.set_add(op.source.full, {id_: max(scores[id_], each[id_]) for id_ in moved})
            return
        else:
            self.set_remove(op.source.full, moved)
            self.set_remove(op.source.full, missing)
        if missing:
            self.hash_delete(full_name(op.source.scope, CLAIMS), missing)
        if moved and op.target is not None:
            self._place(op.target, moved, op.score, front=op.front)

    def _stamp(self, op: Move, moved: list[bytes]) -> int:
        if not moved:
            return 0
        name = full_name(op.source.scope, CLAIMS)
        if op.target is None or isinstance(op.stamp, Clear):
            self.hash_delete(name, moved)
        elif op.stamp is not None:
            counters = full_name(op.source.scope, COUNTERS)
            fence = max(int(self.hashes.get(counters, {}).get(FENCE, b"0")) + 1, op.stamp.now)
            self.hash_set(counters, {FENCE: b"%d" % fence})
            self.hash_set(name, dict.fromkeys(moved, claim_mark(op.stamp.incarnation, fence, op.stamp.beat)))
            return fence
        return 0

    def _rings(self, op: Move, moved: list[bytes], left: int) -> bool:
        if isinstance(op.source, ListKey):
            return left > 0
        if not moved or op.target is None:
            return False
        return isinstance(op.target, ListKey) or (op.target != op.source and self._heads(op.target, moved))

    def _left(self, source: PlaceKey) -> tuple[int, int | None]:
        if isinstance(source, ListKey):
            return len(self.lists.get(source.full, ())), None
        entries = self.sets.get(source.full)
        return (len(entries), entries.lowest()) if entries else (0, None)

    # ----------------------------------------------------------------------------------------------- numbered claims

    def _known(self, scope: str, once: Once) -> Sequence[bytes] | None:
        """What is known of the request: empty if it is new, (number, fence, ids …) if it was answered, None to refuse."""
        value = self.hashes.get(full_name(scope, REQUESTS), {}).get(once.incarnation)
        if value is None:
            return ()
        last = _parse_netstrings(value)
        number = _integer(last[0]) if last else None
        if number is None or number > once.number:
            return None
        return last if number == once.number else ()

    def _answer_again(self, op: Move, known: Sequence[bytes]) -> tuple[Moved, bool]:
        assert isinstance(op.stamp, Stamp)
        assert isinstance(op.target, SetKey)
        fence = (_integer(known[1]) if len(known) > 1 else None) or 0
        records = self.hashes.get(full_name(op.source.scope, RECORDS), {})
        claims = self.hashes.get(full_name(op.source.scope, CLAIMS), {})
        entries = self.sets.get(op.target.full) or SortedSet()
        claim = claim_mark(op.stamp.incarnation, fence, op.stamp.beat)
        ids = [id_ for id_ in known[2:] if id_ in entries.scores and claims.get(id_) == claim and id_ in records]
        most = _most_bytes(op)
        ids = ids if most is None else [*within(ids, most, records)]
        left, lowest = self._left(op.source)
        given = tuple([read(records[id_], most) for id_ in ids]) if op.give else ()
        return Moved(tuple(ids), given, (), fence, left, lowest), False


_hash: Final = lru_cache(maxsize=1024)(HashKey)


def _key_of(guard: Guard) -> Key:
    match guard:
        case Absent() | FieldIs():
            return guard.hash
        case Member() | Empty():
            return guard.set
        case _:
            return guard.lock


def _keys_of(batch: Batch) -> list[Key]:
    """Every key that the batch looks at or changes."""
    keys = [_key_of(guard) for guard in batch.guards]
    for op in batch.ops:
        match op:
            case Move():
                keys += (op.source, _hash(batch.scope, RECORDS), _hash(batch.scope, CLAIMS))
                if op.target is not None:
                    keys.append(op.target)
                if op.count is not None:
                    keys.append(op.count[0])
                if isinstance(op.stamp, Stamp):
                    keys.append(_hash(batch.scope, COUNTERS))
                if op.once is not None:
                    keys.append(_hash(batch.scope, REQUESTS))
            case Put():
                keys += (op.target, _hash(batch.scope, RECORDS), _hash(batch.scope, COUNTERS))
            case ListPush():
                keys.append(op.list)
            case SetAdd() | SetRemove():
                keys.append(op.set)
            case HashSet() | HashAdd() | HashDelete():
                keys.append(op.hash)
            case Mend():
                keys += keys_of_mend(op)
            case Ring():
                pass
            case _:
                keys.append(op.lock)
    return keys


def _integer(value: bytes) -> int | None:
    """The integer that the value spells out in its one canonical way, else None."""
    return int(value) if _INTEGER.fullmatch(value) else None


def _most(op: Move) -> int:
    """How many can move at most, whatever is stored."""
    if not isinstance(op.pick, These):
        return op.pick.limit
    ids = {*op.pick.ids}
    return len(ids & op.expect.keys() if isinstance(op.expect, Mapping) else ids)


def _can_grow(count: bytes | None, most: int) -> bool:
    """Whether so many can be added to what is there."""
    now = 0 if count is None else _integer(count)
    return now is not None and max(abs(now), abs(now + most)) < _LIMIT


def _most_bytes(op: Move) -> int | None:
    """How long a record may be that is answered."""
    return op.pick.max_bytes if isinstance(op.pick, Head) else None


def _netstrings(values: Iterable[bytes]) -> bytes:
    return b"".join([b"%d:%b," % (len(value), value) for value in values])


def _parse_netstrings(value: bytes) -> list[bytes]:
    """The values; what is not a netstring ends them."""
    values = []
    at = 0
    while (colon := value.find(b":", at, at + 9)) > at and value[at:colon].isdigit():
        end = colon + 1 + int(value[at:colon])
        if value[end : end + 1] != b",":
            break
        values.append(value[colon + 1 : end])
        at = end + 1
    return values
