"""Queries as arguments of ``read.lua``, and its replies as answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    RECORDS,
    Answer,
    Fields,
    Found,
    HashKey,
    Held,
    Holder,
    IdPage,
    Ids,
    Kept,
    ListKey,
    Match,
    Matched,
    Page,
    Peek,
    Place,
    Query,
    Records,
    ScopePage,
    Scopes,
    Score,
    SetKey,
    Sizes,
    Unread,
    Where,
)
from jobqueue.storage.redis.compile import Call, Decode, Keys, score_bytes

__all__ = ["compile_queries", "scopes_of", "search", "searched"]

_MARKS: Final = (RECORDS.encode(), COUNTERS.encode())
_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,15}")
_HEADER: Final = (RECORDS, CLAIMS, "waiting", "working", "dead")


def scopes_of(query: Query) -> tuple[str, ...]:
    """The scopes that the query asks about; one, but for `Sizes` and `Scopes`."""
    match query:
        case Peek(key):
            return (key.scope,)
        case Page(key) | Fields(key) | Ids(key):
            return (key.scope,)
        case Match(place):
            return (place.scope,)
        case Holder(key):
            return (key.scope,)
        case Records(scope) | Where(scope):
            return (scope,)
        case Scopes():
            return ()
        case Sizes(keys):
            return tuple(dict.fromkeys([key.scope for key in keys]))


def compile_queries(scope: str, queries: Sequence[Query]) -> Call:
    """One call that answers the queries, which are all of the scope, in order."""
    keys = Keys(scope, _HEADER)
    args = [b"%d" % len(queries)]
    decoders = [_query(query, keys, args) for query in queries]

    def decode(reply: Any) -> list[Answer]:
        return [of_query(part) for of_query, part in zip(decoders, reply, strict=True)]

    return Call(scope, keys.names(), args, decode)


def _query(query: Query, keys: Keys, args: list[bytes]) -> Decode:
    match query:
        case Peek(key, start, limit):
            # An end before the start is an empty range; -1 would be the end of the list.
            last = start + limit - 1 if limit > 0 else start - 1
            args += (b"P", keys.index(key), *((b"%d" % start, b"%d" % last) if last >= start else (b"1", b"0")))
            return tuple
        case Page(key, limit, before, after):
            args += (b"G", keys.index(key), b"%d" % limit, b"" if before is None else b"%d" % before)
            args += (b"", b"") if after is None else (score_bytes(after[0]), after[1])
            return lambda reply: tuple(zip(reply[::2], map(_score, reply[1::2]), strict=True))
        case Records(_, ids, max_bytes):
            args += (b"R", b"%d" % len(ids), b"" if max_bytes is None else b"%d" % max_bytes, *ids)
            return lambda reply: tuple(map(_kept, *reply))
        case Sizes(of):
            args += (b"S", b"%d" % len(of), *chain.from_iterable([(keys.index(key), _kind(key)) for key in of]))
            return tuple
        case Fields(key, None, most):
            args += (b"F", keys.index(key), b"-1", b"" if most is None else b"%d" % most)
            return lambda reply: dict(sorted(zip(reply[::2], reply[1::2], strict=True)))
        case Fields(key, fields, most):
            wanted = sorted(set(fields or ()))
            args += (b"F", keys.index(key), b"%d" % len(wanted), b"" if most is None else b"%d" % most, *wanted)
            return lambda reply: {field: value for field, value in zip(wanted, reply, strict=True) if value is not None}
        case Holder(key):
            args += (b"H", keys.index(key))
            return _held
        case Ids(key, limit, cursor):
            args += (b"I", keys.index(key), b"%d" % limit, b"0" if cursor is None else cursor)
            return lambda reply: IdPage(tuple(reply[1]), reply[0])
        case Where(scope, ids, search):
            args += (b"W", keys.index(ListKey(scope, "ready")) if search else b"0", b"%d" % len(ids), *ids)
            return lambda reply: tuple(map(_found, reply))
        case Match(place, needles, limit, max_bytes, after):
            listed = isinstance(place, ListKey)
            args += (b"N", b"l" if listed else b"s", keys.index(place), b"%d" % limit, b"%d" % max_bytes)
            args += (b"", b"") if after is None else (score_bytes(after[0]), after[1])
            args += (b"%d" % len(needles), *needles)
            return _matched
        case Scopes():
            raise AssertionError("no scope answers it: see `search`")


def search(query: Scopes) -> tuple[bytes, ...]:
    """The command that answers the query. It is no script: those are run for keys that are known."""
    pattern = f"{{{query.namespace}:*}}:[rc]*".encode()
    return (b"SCAN", query.cursor or b"0", b"MATCH", pattern, b"COUNT", b"%d" % max(1, query.limit))


def searched(reply: Any) -> ScopePage:
    """What the server answered to `search`."""
    cursor, names = reply
    found = [name.rpartition(b"}:") for name in names]
    scopes = {scope[1:].decode(errors="replace") for scope, _, key in found if key in _MARKS}
    return ScopePage(tuple(sorted(scopes)), b"" if cursor == b"0" else cursor)


def _kind(key: ListKey | SetKey | HashKey) -> bytes:
    return b"list" if isinstance(key, ListKey) else b"zset" if isinstance(key, SetKey) else b"hash"


def _score(text: bytes) -> Score:
    """What the server says of a score; all that jobqueue writes are digits."""
    if text.isdigit():
        return int(text)
    score = float(text)
    return int(score) if score.is_integer() and abs(score) < 2**53 else score


def _kept(
    stored: bytes | int | None, claim: bytes | None, waiting: bytes | None, working: bytes | None, dead: bytes | None
) -> Kept | None:  # fmt: skip
    if stored is None:
        return None
    record = Unread(stored) if isinstance(stored, int) else stored
    if waiting is not None:
        return Kept(record, "waiting", _score(waiting), claim)
    if working is not None:
        return Kept(record, "working", _score(working), claim)
    if dead is not None:
        return Kept(record, "dead", _score(dead), claim)
    return Kept(record, "ready", 0, claim)


def _held(reply: list[bytes | None]) -> Held | None:
    token, until, fence = reply
    return None if token is None else Held(token, _number(until), _number(fence))


def _matched(reply: Any) -> Matched:
    found, looked, last, score = reply
    entries = tuple(zip(found[::2], map(_score, found[1::2]), strict=True))
    if last is None:
        return Matched(entries, looked, None)
    return Matched(entries, looked, (_score(score), last))


def _number(text: bytes | None) -> int:
    """A number in a lock. What is none counts as 0, as in the scripts: every lock ends, a broken one at once."""
    return int(text) if text is not None and _INTEGER.fullmatch(text) else 0


def _found(bits: int) -> Found:
    times: dict[Place, int] = {
        "waiting": bits >> 1 & 1,
        "ready": bits >> 5,
        "working": bits >> 2 & 1,
        "dead": bits >> 3 & 1,
    }
    places: tuple[Place, ...] = tuple([place for place, count in times.items() for _ in range(count)])
    return Found(bool(bits & 1), places, bool(bits >> 4 & 1))
