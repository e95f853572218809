"""What a Redis storage sends and how it reads the answers, as generators: they yield commands and are sent replies.

The sync and the async storage drive the same generators, so no rule stands here twice. A command is a scope, by which a
cluster finds the node, and its words.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Any, Final, TypeAlias

from redis import exceptions

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageError
from jobqueue.storage.ops import Answer, Batch, Move, Put, Query, Scopes, Sizes
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis.compile import Call, compile_batches, compile_put, grows, sole_put
from jobqueue.storage.redis.faults import broke_off, broken, refused
from jobqueue.storage.redis.guarded import ABOUT, Guarded, facts_of
from jobqueue.storage.redis.queries import compile_queries, scopes_of, search, searched
from jobqueue.storage.redis.scripts import DRAIN, GROW, PUT, READ, Script
from jobqueue.storage.shape import check_shape

__all__ = ["Flow", "Request", "apply_flow", "facts_flow", "read_flow"]

Request: TypeAlias = list[tuple[str, tuple[bytes, ...]]]
Flow: TypeAlias = Generator[Request, list[Any], Any]

CALL_BYTES: Final = 1024 * 1024
"""Bytes of records in one call of several batches; a single batch is not parted."""


def _send(calls: Sequence[tuple[Script, Call]], ordered: Collection[int] = ()) -> Flow:
    """Send the calls; answers one reply or error for each. Those ``ordered`` travel with their source at once.

    A server that does not know a script has certainly not run it, so it is sent again with its source: that both runs it
    and makes it known. (SCRIPT LOAD would be one more trip, and a flush could come in between.)
    """
    # One that was sent again would come behind those that followed it.
    replies: list[Any] = [None] * len(calls)
    left: Collection[int] = range(len(calls))
    known = True
    while left:
        request: Request = []
        for index in left:
            script, call = calls[index]
            head = (b"EVALSHA", script.sha) if known and index not in ordered else (b"EVAL", script.source)
            request.append((call.scope, (*head, b"%d" % len(call.keys), *call.keys, *call.args)))
        for index, reply in zip(left, (yield request), strict=True):
            replies[index] = reply
        left = [index for index in left if known and isinstance(replies[index], exceptions.NoScriptError)]
        known = False
    return replies


def apply_flow(server: Guarded, batches: Sequence[Batch]) -> Generator[Request, list[Any], list[Outcome]]:
    """Apply the batches: one call per scope, or several where their records are large, all calls in one trip.

    A server without memory refuses the call of a scope when one batch of it stores something new; the others of that
    scope then go once more without it, because a full server has to drain.
    """
    for batch in batches:
        check_shape(batch)
    scopes: dict[str, list[int]] = {}
    for index, batch in enumerate(batches):
        scopes.setdefault(batch.scope, []).append(index)
    outcomes: dict[int, Outcome] = {}
    groups: list[list[int]] = []
    ordered: set[int] = set()  # the calls of a scope that has several
    for indexes in scopes.values():
        if len(indexes) == 1:
            groups.append(indexes)
            continue
        parts = _parts(indexes, batches)
        if len(parts) > 1:
            ordered.update(range(len(groups), len(groups) + len(parts)))
        groups += parts
    while groups:
        calls: list[tuple[Script, Call]] = []
        for indexes in groups:
            together = [*map(batches.__getitem__, indexes)]
            put = sole_put(together)
            if put is not None:
                calls.append((PUT, compile_put(put)))
            else:
                script = GROW if any(map(grows, together)) else DRAIN
                calls.append((script, compile_batches(together[0].scope, together)))
        replies = yield from _send(calls, ordered)
        ordered = set()
        rest: list[list[int]] = []
        for indexes, (_, call), reply in zip(groups, calls, replies, strict=True):
            if isinstance(reply, exceptions.OutOfMemoryError):
                draining = [index for index in indexes if not grows(batches[index])]
                if draining and len(draining) < len(indexes):
                    rest.append(draining)
            ended = _ending(server.label, call.scope, reply)
            ends = call.decode(reply) if ended is None else [ended] * len(indexes)
            outcomes.update(zip(indexes, ends, strict=True))
        groups = rest
    return [outcomes[index] for index in range(len(batches))]


def _parts(indexes: list[int], batches: Sequence[Batch]) -> list[list[int]]:
    """The batches of a scope by calls: the server does nothing else while it carries out one of them."""
    parts: list[list[int]] = [[]]
    total = 0
    for index in indexes:
        size = sum([
            sum(map(len, op.records.values()))
            for op in batches[index].ops if isinstance(op, Put | Move) and op.records
        ])  # fmt: skip
        if total and total + size > CALL_BYTES:
            parts.append([])
            total = 0
        parts[-1].append(index)
        total += size
    return parts


def _ending(label: str, scope: str, reply: Any) -> NotApplied | OutcomeUnknown | None:
    """How the call ended if it did not end with a reply of the script."""
    if isinstance(reply, StorageError):
        assert isinstance(reply, NotApplied | OutcomeUnknown)
        return reply
    if isinstance(reply, exceptions.RedisError):
        return broken(label, reply) if broke_off(reply) else refused(label, reply, [scope])
    return None


def read_flow(server: Guarded, queries: Sequence[Query]) -> Generator[Request, list[Any], list[Answer]]:
    """Answer the queries: one call per scope, all calls in one trip. Raises `NotApplied`."""
    scopes: dict[str, list[tuple[int, Query]]] = {}
    for index, query in enumerate(queries):
        for scope in scopes_of(query):
            part = query
            if isinstance(query, Sizes):
                part = Sizes(tuple([key for key in query.keys if key.scope == scope]))
            scopes.setdefault(scope, []).append((index, part))
    calls = [compile_queries(scope, [query for _, query in parts]) for scope, parts in scopes.items()]
    replies = (yield from _send([(READ, call) for call in calls])) if calls else []
    answers: list[Any] = [()] * len(queries)
    sizes: dict[tuple[int, str], int] = {}
    for parts, call, reply in zip(scopes.values(), calls, replies, strict=True):
        for (index, query), answer in zip(parts, call.decode(_read(server, reply, [call.scope])), strict=True):
            answers[index] = answer
            if isinstance(query, Sizes):
                sizes.update({(index, key.full): size for key, size in zip(query.keys, answer, strict=True)})
    for index, query in enumerate(queries):
        if isinstance(query, Sizes):
            answers[index] = tuple([sizes[index, key.full] for key in query.keys])
        elif isinstance(query, Scopes):
            [reply] = yield [("", search(query))]
            answers[index] = searched(_read(server, reply, []))
    return answers


def _read(server: Guarded, reply: Any, scopes: Sequence[str]) -> Any:
    """The reply to what only reads. Raises `NotApplied`."""
    if isinstance(reply, OutcomeUnknown):
        raise NotApplied(f"{reply}") from reply
    if isinstance(reply, NotApplied):
        raise reply
    if isinstance(reply, exceptions.RedisError):
        raise refused(server.label, reply, scopes)
    return reply


def facts_flow() -> Generator[Request, list[Any], dict[str, str]]:
    """What the server says of itself; less where something is forbidden. Raises `NotApplied`."""
    replies = yield [("", question) for question in ABOUT]
    problem = next((reply for reply in replies if isinstance(reply, StorageError)), None)
    if problem is not None:
        raise problem
    return facts_of(replies)
