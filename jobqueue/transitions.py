"""Job rules as batches: each function answers what to apply, none applies it.

The places of a move are those that the table of `lifecycle` has for its step, so that no other can be built. Times are
milliseconds since 1970, durations milliseconds. Ids and claims are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.lifecycle import COUNTED, MOVES, Step, legal
from jobqueue.storage.ops import (
    CLEAR,
    COUNTERS,
    NO_CLAIM,
    REGISTERED,
    Absent,
    Batch,
    Clear,
    Due,
    Empty,
    Expect,
    FieldIs,
    Guard,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    LockDrop,
    Locked,
    LockTake,
    Mend,
    Move,
    Once,
    Op,
    Pick,
    PlaceKey,
    Put,
    Score,
    SetAdd,
    SetRemove,
    Stamp,
    These,
    Unlocked,
    Unread,
)

__all__ = [
    "BYTES",
    "LIMIT",
    "MAX_PAYLOAD",
    "PAUSED",
    "SCHEMA",
    "SEARCHED",
    "claim",
    "claimed_before",
    "close_requests",
    "condemn",
    "delete",
    "drop_lock",
    "extend",
    "extend_lock",
    "finish",
    "forget_leases",
    "hurry",
    "longest_record",
    "mark_registered",
    "mend",
    "move_out",
    "note",
    "note_search",
    "parts",
    "promote",
    "prune",
    "prune_requests",
    "put",
    "register_queue",
    "register_runner",
    "release",
    "renew_epoch",
    "requeue",
    "rescue",
    "take_lock",
    "unregister_runners",
]

T = TypeVar("T")

SCHEMA: Final = 1
"""Version of what is written; a storage with a higher one is refused."""
LIMIT: Final = 500
"""Ids that one operation touches at most: a script's time is paid by everybody on the server."""
BYTES: Final = 1024 * 1024
"""Bytes of records that one operation writes or reads at most, unless `longest_record` is more: the server does nothing else
meanwhile. A megabyte takes it two to ten milliseconds."""
MAX_PAYLOAD: Final = 1_000_000
"""Bytes that the arguments of one job may take by default."""
BESIDES: Final = BYTES - MAX_PAYLOAD
"""Bytes of a record besides its arguments, at most: the error alone may take 16,000."""
CLOSED: Final = b"closed"
PAUSED: Final = b"paused"
"""Field of the state of a queue while nothing may be claimed there."""
SEARCHED: Final = b":searched"
"""Field of the registry of queues that no queue can be called: how far the search for lost registrations has come."""
_SOURCES: Final = {step: source for step, moves in MOVES.items() if len(moves) == 1 for source, _ in moves if source}
_TARGETS: Final = {step: target for step, moves in MOVES.items() if len(moves) == 1 for _, target in moves if target}
Leases: TypeAlias = Mapping[bytes, tuple[bytes, Score]] | Mapping[bytes, Score]
"""Id → its claim and the end of its lease, as they were seen; the end alone of jobs that have lost their claim."""


def longest_record(max_payload: int) -> int:
    """Bytes of the longest record that is read where the arguments of a job may take ``max_payload``.

    At least what is stored by default, so that no process refuses to read what another may store without being told to.
    """
    return max(MAX_PAYLOAD, max_payload) + BESIDES


def _move(
    step: Step,
    queue: QueueKeys,
    pick: Pick,
    *,
    score: int | Mapping[bytes, int] | None = None,
    expect: Expect | None = None,
    stamp: Stamp | Clear | None = None,
    once: Once | None = None,
    records: Mapping[bytes, bytes] | None = None,
    count: bool = False,
    front: bool = False,
    wake: bool = False,
    give: bool = False,
    guards: tuple[Guard, ...] = (),
) -> Batch:
    """A batch that moves jobs of a queue as the table says of this step."""
    source, target = getattr(queue, _SOURCES[step]), _target(step, queue) if step in _TARGETS else None
    counted = (queue.counters, COUNTED[step].encode()) if count else None
    move = Move(
        source, target, pick, score=score, expect=expect, stamp=stamp, once=once, records=records, count=counted,
        front=front, wake=wake, give=give,
    )  # fmt: skip
    return Batch(queue.scope, (move,), guards, step)


def _target(step: Step, queue: QueueKeys) -> Any:
    """The place to which the table says that this step takes jobs."""
    return getattr(queue, _TARGETS[step])


# ------------------------------------------------------------------------------------------------------------ producers


def put(
    queue: QueueKeys,
    ready: Mapping[bytes, bytes],
    waiting: Mapping[bytes, bytes],
    due: Mapping[bytes, int],
    max_ready: int | None = None,
) -> Batch:
    """Store new jobs: ``ready`` and ``waiting`` map id → record, ``due`` has the times of the waiting ones.

    Refused if there are then more than ``max_ready`` in ready.
    Answers a `Placed` for each of the two that is not empty, ready first.
    """
    ops: list[Op] = []
    if ready:
        ops.append(Put(_target("enqueue", queue), ready, wake=True, most=max_ready))
    if waiting:
        ops.append(Put(_target("schedule", queue), waiting, score=due, wake=True))
    return Batch(queue.scope, tuple(ops), step="enqueue")


def parts(items: list[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """What may travel in one operation each, in order: `LIMIT` and `BYTES` at most, but at least one."""
    start = total = 0
    for index, item in enumerate(items):
        total += size(item)
        if index > start and (total > BYTES or index - start == LIMIT):
            yield items[start:index]
            start, total = index, size(item)
    if items:
        yield items[start:]


def register_queue(keys: NamespaceKeys, queue: str, now: int) -> Batch:
    """Make the queue known to runners and to those who look; refused if it is known already."""
    field = queue.encode()
    return Batch(
        keys.scope, (HashSet(keys.queues, {field: b"%d" % now}),), (Absent(keys.queues, field),), "register queue"
    )


def mark_registered(queue: QueueKeys) -> Batch:
    """Write in the queue's own scope that the registry has it: every `Put` there is answered so from now on."""
    return Batch(queue.scope, (HashSet(queue.counters, {REGISTERED: b"1"}),), step="mark registered")


def note_search(keys: NamespaceKeys, seen: bytes | None, now: bytes, found: Collection[bytes]) -> Batch:
    """Note how far the search for queues has come, with those it found; refused if somebody else went on with it."""
    guard = Absent(keys.queues, SEARCHED) if seen is None else FieldIs(keys.queues, SEARCHED, seen)
    return Batch(
        keys.scope, (HashSet(keys.queues, {**dict.fromkeys(found, b"0"), SEARCHED: now}),), (guard,), "note search"
    )


# -------------------------------------------------------------------------------------------------------------- runners


def promote(queue: QueueKeys, now: int) -> Batch:
    """Take what is due to the tail of ready."""
    return _move("promote", queue, Due(now, LIMIT), wake=True)


def claim(
    queue: QueueKeys, incarnation: bytes, number: int, *, limit: int, now: int, lease: int, beat: int,
    max_bytes: int = BYTES, requester: bytes = b"",
) -> Batch:  # fmt: skip
    """Take up to ``limit`` jobs from the head of ready under a lease; the wake-up is passed on if some are left.

    Their records are answered, ``max_bytes`` of them at most; of one that is longer by itself, its size. Claims are numbered
    under the name ``requester``, see `requester_of`; by default under the incarnation. Refused while the queue is paused.
    """
    return _move(
        "claim", queue, Head(limit, max_bytes), score=now + lease,
        stamp=Stamp(incarnation, beat, now), once=Once(requester or incarnation, number), give=True, wake=True,
        guards=(Absent(queue.state, PAUSED),),
    )  # fmt: skip


def claimed_before(claim: Batch) -> Batch:
    """The same request without taking anything: its answer is what its first sending took, if that was carried out.

    For one that went without an answer and was then refused because the queue is paused.
    """
    [move] = claim.ops
    assert isinstance(move, Move)
    return msgspec.structs.replace(claim, ops=(msgspec.structs.replace(move, expect={}),), guards=())


def extend(queue: QueueKeys, claims: Mapping[bytes, bytes], until: int) -> Batch:
    """Raise the leases of those that are still held under their claims."""
    return _move("extend", queue, These(tuple(claims)), score=until, expect=claims)


def note(queue: QueueKeys, id: bytes, claimed: bytes, record: bytes, until: int) -> Batch:
    """Write into the record of a suspect that it is about to be started alone."""
    return _move("note", queue, These((id,)), score=until, expect={id: claimed}, records={id: record})


def finish(queue: QueueKeys, claims: Mapping[bytes, bytes], step: Step = "finish") -> Batch:
    """Forget jobs that ended well (finish), or asked for it (discard)."""
    if ("working", None) not in MOVES[step]:
        raise ValueError(f"{step} forgets no job of a runner")
    return _move(step, queue, These(tuple(claims)), expect=claims, count=True)


def move_out(
    step: Step,
    queue: QueueKeys,
    claims: Mapping[bytes, bytes],
    records: Mapping[bytes, bytes],
    scores: Mapping[bytes, int],
) -> Batch:
    """Take jobs that did not end well to waiting (retry, snooze, park) or dead (bury), with new records and scores."""
    if _TARGETS.get(step) not in ("waiting", "dead"):
        raise ValueError(f"{step} takes no job to waiting or dead")
    return _move(
        step, queue, These(tuple(claims)), score=scores, expect=claims, stamp=CLEAR, records=records, count=True,
        wake=True,
    )  # fmt: skip


def release(queue: QueueKeys, claims: Mapping[bytes, bytes], records: Mapping[bytes, bytes] | None = None) -> Batch:
    """Hand jobs back to the head of ready, in the given order, as if they had not been claimed."""
    return _move(
        "release", queue, These(tuple(claims)), expect=claims, stamp=CLEAR, records=records, count=True,
        front=True, wake=True,
    )  # fmt: skip


def requester_of(incarnation: bytes, renewals: int) -> bytes:
    """The name under which a runner numbers its claims in a queue, after it had to begin anew there so many times."""
    return b"%b.%d" % (incarnation, renewals) if renewals else incarnation


def incarnation_of(requester: bytes) -> bytes:
    """The runner that numbers its claims under this name."""
    return requester.partition(b".")[0]


def close_requests(queue: QueueKeys, incarnation: bytes, *, unsure: bool = True) -> Batch:
    """Refuse every claim of this incarnation from now on, also those still under way.

    A runner that had an answer to each sending of each claim is not ``unsure``: nothing is under way, and nothing is left.
    """
    if not unsure:
        return prune_requests(queue, (incarnation,))
    return Batch(queue.scope, (HashSet(queue.requests, {incarnation: CLOSED}),), step="close requests")


# --------------------------------------------------------------------------------------------------------------- duties


def rescue(queue: QueueKeys, leases: Leases, records: Mapping[bytes, bytes]) -> Batch:
    """Take jobs from runners that are gone to the head of ready, if claim and lease are as they were seen."""
    return _move(
        "rescue", queue, These(tuple(leases)), expect=leases, stamp=CLEAR, records=records, count=True,
        front=True, wake=True,
    )  # fmt: skip


def condemn(
    queue: QueueKeys, leases: Leases, records: Mapping[bytes, bytes], died: Mapping[bytes, int]
) -> Batch:  # fmt: skip
    """Take jobs that took their runners down too often to dead; ``died`` has their scores there."""
    return _move(
        "condemn", queue, These(tuple(leases)), score=died, expect=leases, stamp=CLEAR, records=records, count=True
    )


def prune(queue: QueueKeys, before: int) -> Batch:
    """Forget jobs that have been dead since ``before``; refused where dead jobs hold something, which stays theirs."""
    return _move("prune", queue, Due(before, LIMIT), count=True, guards=(Empty(queue.dead_holds),))


def register_runner(
    keys: NamespaceKeys, incarnation: bytes, info: bytes, epoch: bytes, *, seen: int, lease: int
) -> Batch:  # fmt: skip
    """Say that a runner is alive; refused if the storage's epoch is not the one it knows (its data was lost)."""
    ops = (
        HashSet(keys.runners, {incarnation: info}),
        SetAdd(keys.seen, {incarnation: seen}),
        SetAdd(keys.leases, {b"%d" % lease: seen}),
    )
    return Batch(keys.scope, ops, (FieldIs(keys.meta, b"epoch", epoch),), "register runner")


def unregister_runners(keys: NamespaceKeys, incarnations: Collection[bytes]) -> Batch:
    """Forget runners."""
    gone = tuple(incarnations)
    return Batch(keys.scope, (HashDelete(keys.runners, gone), SetRemove(keys.seen, gone)), step="forget runners")


def forget_leases(keys: NamespaceKeys, leases: Collection[bytes]) -> Batch:
    """Forget lengths of leases that no runner has any more."""
    return Batch(keys.scope, (SetRemove(keys.leases, tuple(leases)),), step="forget leases")


def prune_requests(queue: QueueKeys, incarnations: Collection[bytes]) -> Batch:
    """Forget the claim requests of runners none of whose requests can still arrive."""
    return Batch(queue.scope, (HashDelete(queue.requests, tuple(incarnations)),), step="forget requests")


# ------------------------------------------------------------------------------------------------------------ operators


def requeue(queue: QueueKeys, id: bytes, died: Score, record: bytes | Unread) -> Batch:
    """Take a dead job to the tail of ready, if it is the one that was seen there; with this record, or, unread, as it is."""
    records = None if isinstance(record, Unread) else {id: record}
    return _move("requeue", queue, These((id,)), expect={id: died}, records=records, wake=True)


def hurry(queue: QueueKeys, id: bytes, due: Score) -> Batch:
    """Take a waiting job to the tail of ready before its time, if it is the one that was seen there."""
    return _move("hurry", queue, These((id,)), expect={id: due}, wake=True)


def delete(source: PlaceKey, ids: Sequence[bytes], scores: Mapping[bytes, Score] | None) -> Batch:
    """Forget jobs from waiting or dead, if seen there with these scores, or from ready (10 at most: it is searched)."""
    if not legal("delete", source.name, None):  # type: ignore[arg-type] # a key can have any name
        raise ValueError(f"nothing is deleted from {source.name}")
    counted = HashKey(source.scope, COUNTERS), COUNTED["delete"].encode()
    move = Move(source, None, These(tuple(ids)), expect=NO_CLAIM if scores is None else scores, count=counted)
    return Batch(source.scope, (move,), step="delete")


def mend(queue: QueueKeys, id: bytes, seen: bytes | Unread | None, record: bytes = b"", died: int = 0) -> Batch:
    """Take a job that is in no place, or in several, to dead, if its record is as it was seen; see `Mend`."""
    return Batch(queue.scope, (Mend(_target("mend", queue), id, seen, record, died),), step="mend")


# ---------------------------------------------------------------------------------------------------------------- locks


def take_lock(keys: NamespaceKeys, name: str, token: bytes, now: int, until: int, fence: int) -> Batch:
    """Take a user's lock, seen with this fence, with a fresh token; refused while, or if meanwhile, another holds it."""
    lock = keys.lock(name)
    return Batch(keys.scope, (LockTake(lock, token, now, until),), (Unlocked(lock, token, now, fence),), "take lock")


def extend_lock(keys: NamespaceKeys, name: str, token: bytes, now: int, until: int) -> Batch:
    """Hold a user's lock for longer; refused if it is not held any more."""
    lock = keys.lock(name)
    return Batch(keys.scope, (LockTake(lock, token, now, until),), (Locked(lock, token, now),), "extend lock")


def drop_lock(keys: NamespaceKeys, name: str, token: bytes) -> Batch:
    """Give a user's lock back; somebody else's stays."""
    return Batch(keys.scope, (LockDrop(keys.lock(name), token),), step="drop lock")


def renew_epoch(keys: NamespaceKeys, epoch: bytes) -> Batch:
    """Write an epoch where something other than jobqueue removed it; refused where there is one."""
    return Batch(keys.scope, (HashSet(keys.meta, {b"epoch": epoch}),), (Absent(keys.meta, b"epoch"),), "renew epoch")


def create_meta(keys: NamespaceKeys, epoch: bytes) -> Batch:
    """Write schema and epoch where there are none; refused where there are."""
    return Batch(
        keys.scope,
        (HashSet(keys.meta, {b"schema": b"%d" % SCHEMA, b"epoch": epoch}),),
        (Absent(keys.meta, b"schema"),),
        "create meta",
    )
