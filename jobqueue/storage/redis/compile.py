"""Batches and queries as arguments of the scripts, and the scripts' replies as outcomes and answers. Pure.

`interpret/words.lua`, `put.lua` and `read.lua` say how the arguments are read. This runs with every call, so there is no
work per id where a list can be extended as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jobqueue.errors import StorageRefused
from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    RECORDS,
    REQUESTS,
    Absent,
    Applied,
    Batch,
    Due,
    Empty,
    Expect,
    FieldIs,
    Guard,
    HashAdd,
    HashDelete,
    HashSet,
    Head,
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
    Op,
    Placed,
    Put,
    Refused,
    Ring,
    Score,
    SetAdd,
    SetKey,
    SetRemove,
    Stamp,
    These,
    Unlocked,
    Unread,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis.rights import forbidden

__all__ = [
    "WAKE",
    "Call",
    "Keys",
    "compile_batches",
    "compile_put",
    "grows",
    "header_names",
    "score_bytes",
    "sole_put",
    "wake_key",
]

WAKE: Final = "wake"
"""Name of the list that holds a token while the scope is rung."""

_STORED: Final[tuple[Literal["stored"]]] = ("stored",)
_STATES: Final[dict[int, Literal["stored", "same", "different"]]] = {
    ord("n"): "stored",
    ord("s"): "same",
    ord("d"): "different",
}
_REGISTERED: Final = ord("r")
_HEADER: Final = (RECORDS, CLAIMS, REQUESTS, COUNTERS, WAKE)
DENIED: Final = 3
"""The script's answer for a batch that it did not begin because the user lacks rights."""

Decode: TypeAlias = Callable[[Any], Any]
"""Makes an answer of what the script answered to one operation or query."""


class Call(msgspec.Struct, frozen=True):
    """One run of a script.

    Attributes:
        scope: Whose keys it touches.
        keys: Their names, in the order in which the arguments name them.
        args: The arguments.
        decode: Makes outcomes (one per batch) or answers (one per query) of the reply.
    """

    scope: str
    keys: tuple[bytes, ...]
    args: list[bytes]
    decode: Callable[[Any], list[Any]]


class Keys:
    """The keys of one call, and what each of them is called in the arguments."""

    def __init__(self, scope: str, header: tuple[str, ...]) -> None:
        self._indexes = dict(_numbered(scope, header))

    def index(self, key: Key) -> bytes:
        """The number of the key, as an argument."""
        found = self._indexes.get(key.full)
        if found is None:
            found = self._indexes[key.full] = b"%d" % (len(self._indexes) + 1)
        return found

    def names(self) -> tuple[bytes, ...]:
        """All keys, in order."""
        return tuple([name.encode() for name in self._indexes])


@lru_cache(maxsize=1024)
def _numbered(scope: str, header: tuple[str, ...]) -> dict[str, bytes]:
    return {f"{{{scope}}}:{name}": b"%d" % (index + 1) for index, name in enumerate(header)}


def wake_key(scope: str) -> bytes:
    """The list that `wait` waits for."""
    return f"{{{scope}}}:{WAKE}".encode()


def score_bytes(score: Score) -> bytes:
    """A score that was read, as an argument; the server reads ``inf`` and ``1.5`` as well."""
    return b"%d" % score if isinstance(score, int) else repr(score).encode()


def header_names(scope: str) -> dict[bytes, None]:
    """The keys of a scope that every call names, whatever it does."""
    return {name.encode(): None for name in _numbered(scope, _HEADER)}


def grows(batch: Batch) -> bool:
    """Whether the batch stores something new, so that a full server should refuse it.

    Everything else stays allowed: what moves or ends jobs, and what runners need for that (locks of duties, closing of
    requests, beats), which is bounded by the number of runners.
    """
    return any(isinstance(op, Put | ListPush) for op in batch.ops)


def compile_batches(scope: str, batches: Sequence[Batch]) -> Call:
    """One call that applies the batches, which are all of the scope and passed `check_shape`, in order."""
    keys = Keys(scope, _HEADER)
    args = [b"%d" % len(batches)]
    decoders = []
    for batch in batches:
        args.append(b"%d" % len(batch.guards))
        for guard in batch.guards:
            _guard(guard, keys, args)
        args.append(b"%d" % len(batch.ops))
        decoders.append([_op(op, keys, args) for op in batch.ops])

    def decode(reply: Any) -> list[Any]:
        return [_outcome(part, of_ops) for part, of_ops in zip(reply, decoders, strict=True)]

    return Call(scope, keys.names(), args, decode)


def sole_put(batches: Sequence[Batch]) -> Put | None:
    """The `Put` that these batches are, if they are nothing else: what a producer sends has a script of its own."""
    if len(batches) == 1:
        [batch] = batches
        if len(batch.ops) == 1 and not batch.guards and isinstance(batch.ops[0], Put):
            return batch.ops[0]
    return None


def compile_put(put: Put) -> Call:
    """One call that applies a batch of this `Put` alone, which passed `check_shape`."""
    scope = put.target.scope
    args: list[bytes] = []
    placed = _put(put, b"4", args)

    def decode(reply: Any) -> list[Any]:
        return [_outcome(reply, []) if isinstance(reply, list) else Applied((placed(reply),))]

    return Call(scope, (*_keys_of_put(scope), put.target.full.encode()), args, decode)


@lru_cache(maxsize=1024)
def _keys_of_put(scope: str) -> tuple[bytes, ...]:
    return tuple([name.encode() for name in _numbered(scope, (RECORDS, WAKE, COUNTERS))])


def _outcome(reply: list[Any], decoders: list[Decode]) -> Outcome:
    status, value, *skipped = reply
    match status:
        case 0:
            return Applied(tuple([decode(answer) for decode, answer in zip(decoders, value, strict=True)]))
        case 1:
            return Refused(tuple(value), tuple(*skipped))
        case _:
            return _not_begun(status, value)


def _not_begun(status: int, why: Any) -> StorageRefused:
    """The batch was looked at and not begun: the user lacks rights, or a key holds something else."""
    if status == DENIED:
        return forbidden([right.decode(errors="backslashreplace") for right in why])
    return StorageRefused(
        f"{why.decode(errors='backslashreplace')}; nothing was changed. Something other than jobqueue writes to these "
        "keys: look at the key, and rename it or delete it"
    )


def _guard(guard: Guard, keys: Keys, args: list[bytes]) -> None:
    match guard:
        case Absent(key, field):
            args += (b"A", keys.index(key), field)
        case FieldIs(key, field, value):
            args += (b"F", keys.index(key), field, value)
        case Member(key, member):
            args += (b"M", keys.index(key), member)
        case Empty(key):
            args += (b"E", keys.index(key))
        case Unlocked(key, token, now, fence):
            args += (b"U", keys.index(key), token, b"%d" % now, b"%d" % fence)
        case Locked(key, token, now):
            args += (b"L", keys.index(key), token, b"%d" % now)


def _op(op: Op, keys: Keys, args: list[bytes]) -> Decode:
    match op:
        case Move():
            return _move(op, keys, args)
        case Put():
            return _put(op, keys.index(op.target), args)
        case LockTake(key, token, now, until):
            args += (b"T", keys.index(key), token, b"%d" % now, b"%d" % until)
            return _itself
        case LockDrop(key, token):
            args += (b"D", keys.index(key), token)
        case HashSet(key, fields):
            args += (b"H", keys.index(key), b"%d" % len(fields))
            args += _interleaved(fields.items())
        case HashAdd(key, field, amount):
            args += (b"+", keys.index(key), field, b"%d" % amount)
        case HashDelete(key, deleted):
            args += (b"h", keys.index(key), b"%d" % len(deleted), *deleted)
        case SetAdd(key, members):
            args += (b"Z", keys.index(key), b"%d" % len(members))
            args += _interleaved([(b"%d" % score, member) for member, score in members.items()])
        case SetRemove(key, removed):
            args += (b"z", keys.index(key), b"%d" % len(removed), *removed)
        case ListPush(key, values):
            args += (b"P", keys.index(key), b"%d" % len(values), *values)
        case Ring():
            args.append(b"R")
        case Mend(target, id_, seen, record, score):
            args += (b"E", keys.index(target), keys.index(ListKey(target.scope, "ready")))
            args += [keys.index(SetKey(target.scope, place)) for place in ("waiting", "working", "dead")]
            if isinstance(seen, Unread):
                args += (id_, b"2", b"%d" % seen.size, b"", b"%d" % score)
            else:
                args += (id_, b"0" if seen is None else b"1", seen or b"", record, b"%d" % score)
            return _itself
    return _nothing


def _interleaved(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for pair in pairs for value in pair]


def _itself(answer: Any) -> Any:
    return answer


def _nothing(_: Any) -> None:
    return None


def _put(op: Put, target: bytes, args: list[bytes]) -> Decode:
    count = len(op.records)
    to_list = isinstance(op.target, ListKey)
    score = None if to_list else op.score
    each = None if score is None or isinstance(score, int) else score  # asking for a `Mapping` takes longer
    bounded = b"" if op.most is None else b"m"
    args += (b"S", (b"l" if to_list else b"") + (b"w" if op.wake else b"") + bounded, target)
    args += (b"%d" % score if isinstance(score, int) else b"" if each is None else b"*", b"%d" % count)
    args += op.records
    args += op.records.values()
    if each is not None:
        args += [b"%d" % each[id_] for id_ in op.records]
    if op.most is not None:
        args.append(b"%d" % op.most)

    def decode(answer: Any) -> Placed:
        if isinstance(answer, int):
            return Placed(_STORED * count, answer == 1)
        *states, mark = answer
        return Placed(tuple([_STATES[state] for state in states]), mark == _REGISTERED)

    return decode


def _flags(op: Move) -> bytes:
    flags = b"l" if isinstance(op.source, ListKey) else b""
    if isinstance(op.target, ListKey):
        flags += b"t"
    if op.wake:
        flags += b"w"
    if op.front:
        flags += b"f"
    if op.give:
        flags += b"g"
    if op.whole:
        flags += b"a"
    return flags


def _move(op: Move, keys: Keys, args: list[bytes]) -> Decode:
    args += (b"V", _flags(op), keys.index(op.source), keys.index(op.target) if op.target is not None else b"0")
    args += (keys.index(op.count[0]), op.count[1]) if op.count is not None else (b"0", b"")
    ids: Sequence[bytes] = ()
    match op.pick:
        case Head(limit, max_bytes):
            args += (b"H", b"%d" % limit, b"%d" % max_bytes)
            _expect_some(op.expect, args)
        case Due(before, limit):
            args += (b"D", b"%d" % before, b"%d" % limit)
            _expect_some(op.expect, args)
        case These():
            ids = _expect_each(op.pick.ids, op.expect, args)
    score = op.score if op.target is not None and not isinstance(op.target, ListKey) else None
    if score is None:
        args.append(b"-")
    elif isinstance(score, Mapping):
        args.append(b"*")
        args += [b"%d" % score[id_] for id_ in ids]
    else:
        args += (b"=", b"%d" % score)
    stamp, once = op.stamp, op.once
    if stamp is None:
        args.append(b"-")
    elif isinstance(stamp, Stamp):
        args += (b"s", stamp.incarnation, b"%d" % stamp.beat, b"%d" % stamp.now)
    else:
        args.append(b"x")
    args += (b"o", once.incarnation, b"%d" % once.number) if once is not None else (b"-",)
    if op.records:
        args.append(b"%d" % len(op.records))
        args += op.records
        args += op.records.values()
    else:
        args.append(b"0")

    records_of = _measured if isinstance(op.pick, Head) else tuple

    def decode(answer: Any) -> Moved:
        moved, records, missing, fence, left, lowest = answer
        return Moved(tuple(ids if moved == 1 else moved), records_of(records), tuple(missing), fence, left, lowest)

    return decode


def _measured(records: list[bytes | int]) -> tuple[bytes | Unread, ...]:
    """The records; a number is the size of one that was not read."""
    return tuple([Unread(record) if isinstance(record, int) else record for record in records])


def _expect_each(ids: Sequence[bytes], expect: Expect | None, args: list[bytes]) -> Sequence[bytes]:
    """Writes the pick of These with what is expected of each; answers the ids that stand in the arguments.

    Ids of which nothing is expected cannot be as expected: they do not travel at all.
    """
    if len(set(ids)) != len(ids):
        ids = tuple(dict.fromkeys(ids))
    if expect is None or isinstance(expect, NoClaim):
        args += (b"T", b"%d" % len(ids), *ids, b"-" if expect is None else b"n")
        return ids
    expected: list[Any] = [expect.get(id_) for id_ in ids]
    if None in expected:
        ids = [id_ for id_ in ids if id_ in expect]
        expected = [value for value in expected if value is not None]
    args += (b"T", b"%d" % len(ids), *ids)
    if not ids:
        args.append(b"-")
    elif isinstance(expected[0], bytes) and len(set(expected)) == 1:
        args += (b"1", expected[0])
    else:
        _expected(expected, b"cbs", (), args)
    return ids


def _expect_some(expect: Expect | None, args: list[bytes]) -> None:
    """Writes what is expected of ids that the server is going to pick."""
    if expect is None or isinstance(expect, NoClaim):
        args.append(b"-" if expect is None else b"n")
    else:
        _expected([*expect.values()], b"CBS", (b"%d" % len(expect), *expect), args)


def _expected(values: list[Any], codes: bytes, ids: tuple[bytes, ...], args: list[bytes]) -> None:
    first = values[0] if values else b""
    if isinstance(first, bytes):
        args += (codes[:1], *ids, *values)
    elif isinstance(first, int | float):
        args += (codes[2:], *ids)
        args += map(score_bytes, values)
    else:
        args += (codes[1:2], *ids)
        args += [claim for claim, _ in values]
        args += [score_bytes(score) for _, score in values]
