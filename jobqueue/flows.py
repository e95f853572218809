"""Calls of several steps, as generators that yield what to do and are sent the answer.

A flow does no IO and never waits: `drive` says what each request asks of a storage, and the loops of `loops` carry the
answers. So every rule exists once for threads and for event loops.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from jobqueue import transitions
from jobqueue.clock import Clock
from jobqueue.doors import let_go
from jobqueue.errors import NotApplied, OutcomeUnknown, QueueFull, StorageRefused
from jobqueue.ids import Chance, uuid7s
from jobqueue.keys import NamespaceKeys, QueueKeys, namespace_keys, queue_keys
from jobqueue.loops import within
from jobqueue.record import NONCE_SIZE, JobRecord, Stored, encode
from jobqueue.safe_text import id_bytes
from jobqueue.storage.ops import (
    Applied,
    Batch,
    Found,
    Ids,
    Kept,
    Page,
    Peek,
    Placed,
    Put,
    Query,
    Records,
    Refused,
    Score,
    Sizes,
    Where,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.shape import LIST_SEARCH_MAX

__all__ = ["Apply", "Flow", "Pause", "Read", "Refresh"]

T = TypeVar("T")

PATIENCE: Final = (0.05, 0.2)
"""Seconds before each repetition of a request whose outcome is unknown. Every batch is safe to send again."""


class Apply(msgspec.Struct, frozen=True):
    """Apply batches; answered with their outcomes.

    With ``anew`` it is the beginning of a part of a long call, which may take as long as a call may.
    """

    batches: tuple[Batch, ...]
    anew: bool = False


class Read(msgspec.Struct, frozen=True):
    """Ask queries; answered with their answers. See `Apply` for ``anew``."""

    queries: tuple[Query, ...]
    anew: bool = False


class Refresh(msgspec.Struct, frozen=True):
    """Ask the server for its time if the clock's offset is older than ``max_age_ms`` ms. See `Apply` for ``anew``."""

    max_age_ms: float
    anew: bool = False


class Pause(msgspec.Struct, frozen=True):
    """Wait for some seconds. See `Apply` for ``anew``."""

    seconds: float
    anew: bool = False


Request: TypeAlias = Apply | Read | Refresh | Pause
Flow: TypeAlias = Generator[Request, Any, T]


# --------------------------------------------------------------------------------------------------------------- basics


def in_parts(flow: Flow[T]) -> Flow[T]:
    """A walk through any number of jobs: each request of it may take as long as a call may."""

    def ask(request: Request) -> Flow[Any]:
        return (yield msgspec.structs.replace(request, anew=True))

    return within(flow, ask)


def send(batches: Sequence[Batch], *, anew: bool = False) -> Flow[list[Outcome]]:
    """Apply batches, and again those whose outcome stays unknown, a few times.

    A batch that was once unknown and is then certainly not applied stays unknown: the first sending may still arrive, and
    may find the room that a `Put` does not find now.
    """
    outcomes: list[Outcome] = yield Apply(tuple(batches), anew)
    if OutcomeUnknown not in map(type, outcomes):
        return outcomes
    ended = list(outcomes)
    for pause in PATIENCE:
        unknown = [index for index, outcome in enumerate(ended) if isinstance(outcome, OutcomeUnknown)]
        if not unknown:
            break
        yield Pause(pause)
        again: list[Outcome] = yield Apply(tuple(batches[index] for index in unknown))
        for index, outcome in zip(unknown, again, strict=True):
            if not (isinstance(outcome, NotApplied) or _found_no_room(batches[index], outcome)):
                ended[index] = outcome
    return ended


def _found_no_room(batch: Batch, outcome: Outcome) -> bool:
    if not isinstance(outcome, Refused):
        return False
    guards = len(batch.guards)
    return any(at >= guards and isinstance(batch.ops[at - guards], Put) for at in outcome.failed)


def send_one(batch: Batch) -> Flow[Applied | None]:
    """Apply one batch; None if it was refused. Raises `NotApplied` or `OutcomeUnknown`."""
    [outcome] = yield from send([batch])
    if isinstance(outcome, NotApplied | OutcomeUnknown):
        raise outcome
    return outcome if isinstance(outcome, Applied) else None


def read_some(scope: str, ids: Sequence[bytes], max_bytes: int) -> Flow[list[tuple[bytes, Kept | None]]]:
    """What is kept of the first of these ids: of as many, and at least one, as have records of so many bytes in all."""
    if not ids:
        return []
    [kept] = yield Read((Records(scope, tuple(ids), max_bytes),))
    return list(zip(ids, kept, strict=False))


def read_on(
    page: Page, entries: Sequence[tuple[bytes, Score]], most: float = math.inf
) -> Flow[list[tuple[bytes, Score]]]:  # fmt: skip
    """The entries of a page that was read, and those behind it, up to about ``most``."""
    found = list(entries)
    while len(entries) == page.limit and len(found) < most:
        [entries] = yield Read((msgspec.structs.replace(page, after=(entries[-1][1], entries[-1][0])),))
        found.extend(entries)
    return found


def rehearse(keys: NamespaceKeys, queues: Sequence[QueueKeys]) -> Flow[dict[str, NotApplied | OutcomeUnknown]]:
    """Do once what a runner does, with no job: a user who lacks a right for it is refused before the first claim.

    Returns:
        The queues in which it cannot be done, with the reason: their keys are spoiled, or not for this user, or their node
        of a cluster is away.

    Raises:
        NotApplied: It cannot be done in any queue, or not in the namespace.
        OutcomeUnknown: No answer came.
    """
    yield from send_one(transitions.unregister_runners(keys, ()))
    failed: dict[str, NotApplied | OutcomeUnknown] = {}
    outcomes: list[Outcome] = yield Apply(tuple([transitions.release(queue, {}) for queue in queues]))
    for queue, outcome in zip(queues, outcomes, strict=True):
        if isinstance(outcome, NotApplied | OutcomeUnknown):
            failed[queue.queue] = outcome
    able = [queue for queue in queues if queue.queue not in failed]
    try:
        if able:
            yield Read(tuple([query for queue in able for query in _looks(queue)]))
    except NotApplied:
        for queue in able:
            try:
                yield Read(_looks(queue))
            except NotApplied as error:
                failed[queue.queue] = error
    if len(failed) == len(queues):
        raise max(failed.values(), key=lambda error: error.passes)  # where waiting may help, it is waited
    return failed


def _looks(queue: QueueKeys) -> tuple[Query, ...]:
    sizes = Sizes((queue.ready, queue.waiting, queue.working, queue.dead))
    return sizes, Page(queue.working, 1), Records(queue.scope, (b"",), 0), Ids(queue.requests, 1)


# ------------------------------------------------------------------------------------------------------------- enqueue


def time_to_keep(clock: Clock) -> Flow[int]:
    """What time it is, for a time that is to be kept: the server is asked if that was long ago."""
    # Where it cannot be asked, storing will fail as well, and then there are records to send again.
    with contextlib.suppress(NotApplied):
        yield Refresh(60_000)
    return clock.now()


def new_records(jobs: Sequence[tuple[str, Stored]], now: int, chance: Chance) -> list[JobRecord[Any]]:
    """The records of new jobs, each given as its queue and its fields: with an id and a nonce, and the place it goes to."""
    entropies = chance.entropies(len(jobs), 10 + NONCE_SIZE)
    # Sorted, so that the order of ids is the order of the jobs: what a dead runner held comes back in the order of ids.
    ids = sorted(uuid7s(now, entropies))
    records: list[JobRecord[Any]] = []
    for (queue, stored), id, entropy in zip(jobs, ids, entropies, strict=True):
        nonce = entropy[10:]
        place, score = let_go(stored.due, now)
        records.append(JobRecord(id, queue, stored, place, nonce, score))
    return records


def _put(keys: QueueKeys, records: Iterable[JobRecord[Any]], max_ready: int | None) -> Batch:
    ready: dict[bytes, bytes] = {}
    waiting: dict[bytes, bytes] = {}
    dues: dict[bytes, int] = {}
    for record in records:
        id = record.id.encode() if record.id.isalnum() else id_bytes(record.id)
        if record.place == "waiting":
            waiting[id] = encode(record.nonce, record.stored)
            dues[id] = record.stored.due
        else:
            ready[id] = encode(record.nonce, record.stored)
    return transitions.put(keys, ready, waiting, dues, max_ready)


def store(
    namespace: str,
    records: Sequence[JobRecord[Any]],
    clock: Clock,
    max_ready: dict[str, int] | int | None = None,
    *,
    again: bool = False,
) -> Flow[list[JobRecord[Any]]]:
    """Store records, each once, in queues that are in the registry.

    They go in parts of one queue each, and each part is stored whole or not at all: where its ready jobs find no room, the
    delayed ones that travel with them are not stored either.

    Args:
        namespace: Where.
        records: Which.
        clock: What time it is.
        max_ready: How many jobs may be ready in each queue, or in those that are named; None without a bound.
        again: Whether they may have been sent before, by another call: then those that are stored need no room.

    Raises:
        QueueFull: There was no room for some, the others were stored.
        NotApplied: Some were certainly not stored, and none is unknown.
        OutcomeUnknown: Some may have been stored, or are stored in a queue that no runner may know of.
    """
    failed: NotApplied | OutcomeUnknown | None = None
    missing: set[str] = set()
    for number, trip in enumerate([[(records[0].queue, records)]] if len(records) == 1 else _trips(records)):
        if failed is not None:  # what follows a part that failed is not sent, so that order holds
            missing.update([record.id for _, part in trip for record in part])
            continue
        bounds: list[int | None] = []
        batches: list[Batch] = []
        for queue, part in trip:
            bounds.append(max_ready.get(queue) if isinstance(max_ready, dict) else max_ready)
            batches.append(_put(queue_keys(namespace, queue), part, bounds[-1]))
        outcomes = yield from send(batches, anew=number > 0)
        ended: list[tuple[str, Sequence[JobRecord[Any]], int | None, Outcome]] = []
        for (queue, part), bound, outcome in zip(trip, bounds, outcomes, strict=True):
            if again and isinstance(outcome, Refused):
                apart = yield from _apart(queue_keys(namespace, queue), part, bound)
                ended += [(queue, some, bound, its) for some, its in apart]
            else:
                ended.append((queue, part, bound, outcome))
        # The registry is not asked each time: the queue's own scope says whether somebody entered it, and forgets that if
        # the server loses its data. What a process remembered, it would remember wrongly then.
        new = [queue for queue, _, _, outcome in ended if isinstance(outcome, Applied) and not _registered(outcome)]
        unknown = (yield from register(namespace, new, clock)) if new else {}
        for queue, part, bound, outcome in ended:
            why: NotApplied | OutcomeUnknown | None = None
            lost = part
            if isinstance(outcome, Refused):
                why = _full(queue, part, bound)
            elif not isinstance(outcome, Applied):
                why = outcome
            elif queue in unknown:
                why = unknown[queue]
            else:
                lost, why = yield from _unsettled(queue_keys(namespace, queue), part, outcome)
            if why is not None:
                missing.update([record.id for record in lost])
                if failed is None or isinstance(why, OutcomeUnknown):
                    failed = why
    if failed is not None:
        left = [record for record in records if record.id in missing]
        stored = [record for record in records if record.id not in missing]
        raise retold(failed, left, stored) from failed
    return list(records)


def _apart(
    keys: QueueKeys, part: Sequence[JobRecord[Any]], max_ready: int | None
) -> Flow[list[tuple[Sequence[JobRecord[Any]], Outcome]]]:
    """A part that found no room, in two: what is stored since it was sent before needs none, and is sent alone."""
    try:
        [found] = yield Read((Where(keys.scope, tuple([id_bytes(record.id) for record in part])),))
    except NotApplied as error:
        return [(part, OutcomeUnknown(f"it is full, and whether they were stored before could not be seen: {error}"))]
    known = [record for record, where in zip(part, found, strict=True) if where.stored]
    others = [record for record, where in zip(part, found, strict=True) if not where.stored]
    apart: list[tuple[Sequence[JobRecord[Any]], Outcome]] = [(others, Refused(()))] if others else []
    if known:
        [outcome] = yield from send([_put(keys, known, max_ready)])
        if isinstance(outcome, Refused):
            outcome = OutcomeUnknown("some of these were stored before, and have ended just now")
        apart.append((known, outcome))
    return apart


def _full(queue: str, part: Sequence[JobRecord[Any]], max_ready: int | None) -> QueueFull:
    assert max_ready is not None, "a Put without a bound has room"
    new = sum(record.place != "waiting" for record in part)
    if new > max_ready:
        never = QueueFull(
            f"queue {queue!r} cannot have {new} jobs more at once, since max_ready={max_ready}; nothing was changed: raise "
            "max_ready, or enqueue fewer together"
        )
        never.passes = False
        return never
    full = (
        f"is full: {max_ready} jobs or more are ready"
        if new == 1
        else f"has no room for {new} jobs: more than {max_ready - new} are ready"
    )
    return QueueFull(
        f"queue {queue!r} {full}, and max_ready={max_ready}; nothing was changed: start more runners or wait for those "
        "there are, then send err.records again with enqueue_records(); or raise max_ready"
    )


def _trips(records: Sequence[JobRecord[Any]]) -> Iterator[list[tuple[str, Sequence[JobRecord[Any]]]]]:
    """The records in parts of one queue each; those that travel in one call, which has one part of a queue at most."""
    queues: dict[str, list[JobRecord[Any]]] = {}
    for record in records:
        queues.setdefault(record.queue, []).append(record)
    waves = [[(queue, part) for part in transitions.parts(jobs, _size)] for queue, jobs in queues.items()]
    for wave in itertools.zip_longest(*waves):
        trip: list[tuple[str, Sequence[JobRecord[Any]]]] = []
        total = 0
        for queue, part in filter(None, wave):
            size = sum(map(_size, part))
            if trip and total + size > transitions.BYTES:
                yield trip
                trip, total = [], 0
            trip.append((queue, part))
            total += size
        yield trip


def _size(record: JobRecord[Any]) -> int:
    return len(record.payload) + len(record.error or "")


def _registered(outcome: Applied) -> bool:
    return any(isinstance(answer, Placed) and answer.registered for answer in outcome.answers)


def register(namespace: str, queues: Sequence[str], clock: Clock) -> Flow[dict[str, OutcomeUnknown]]:
    """Enter queues, in which jobs were stored, into the registry; answers those that may not be there."""
    keys = namespace_keys(namespace)
    outcomes = yield from send([transitions.register_queue(keys, queue, clock.now()) for queue in queues])
    unknown = {
        queue: OutcomeUnknown(f"queue {queue!r} may not be in the registry, where runners look for queues: {outcome}")
        for queue, outcome in zip(queues, outcomes, strict=True)
        if isinstance(outcome, NotApplied | OutcomeUnknown)
    }
    entered = [queue for queue in queues if queue not in unknown]
    if entered:
        # After the registration, never before it. Without an answer it is asked for again by the next job of the queue.
        yield Apply(tuple([transitions.mark_registered(queue_keys(namespace, queue)) for queue in entered]))
    return unknown


def _unsettled(
    keys: QueueKeys, part: Sequence[JobRecord[Any]], outcome: Applied
) -> Flow[tuple[Sequence[JobRecord[Any]], NotApplied | OutcomeUnknown | None]]:
    """The records that do not count as stored although their `Put` was applied, and why."""
    if all(set(answer.states) == {"stored"} for answer in outcome.answers if isinstance(answer, Placed)):
        return (), None
    states: dict[bytes, str] = {}
    answers = iter(outcome.answers)
    for place in ("ready", "waiting"):
        ids = dict.fromkeys(
            id_bytes(record.id) for record in part if (record.place == "waiting") is (place == "waiting")
        )
        if ids:
            placed = next(answers)
            assert isinstance(placed, Placed)
            states.update(zip(ids, placed.states, strict=True))
    foreign = [record for record in part if states[id_bytes(record.id)] == "different"]
    same = [record for record in part if states[id_bytes(record.id)] == "same"]
    try:
        nowhere = yield from without_place(keys, [id_bytes(record.id) for record in same])
    except NotApplied as error:
        return foreign + same, OutcomeUnknown(f"sent before, and whether it is in a place could not be seen: {error}")
    if nowhere:
        broken = [record for record in same if id_bytes(record.id) in nowhere]
        return foreign + broken, OutcomeUnknown(
            f"its record is in queue {keys.queue!r} since it was sent before, but in none of the places from which jobs are "
            "run: `jobqueue audit --mend` takes it to dead, and `jobqueue requeue` from there to ready"
        )
    why = StorageRefused(f"queue {keys.queue!r} holds another job with this id, which was not changed")
    return foreign, why if foreign else None


def without_place(keys: QueueKeys, ids: Sequence[bytes]) -> Flow[set[bytes]]:
    """Those of the ids that have a record but are in no place, so that nothing will ever run them."""
    if not ids:
        return set()
    found, [length] = yield Read((Where(keys.scope, tuple(ids)), Sizes((keys.ready,))))
    left = _nowhere(ids, found)
    if left:  # what was stored just now is at the tail: a search of a long list costs the server much more than this
        [tail] = yield Read((Peek(keys.ready, max(length - transitions.LIMIT, 0), 2 * transitions.LIMIT),))
        left = sorted({*left} - {*tail})
    nowhere: set[bytes] = set()
    for start in range(0, len(left), LIST_SEARCH_MAX):
        some = tuple(left[start : start + LIST_SEARCH_MAX])
        [found] = yield Read((Where(keys.scope, some, search=True),))
        nowhere.update(_nowhere(some, found))
    return nowhere


def _nowhere(ids: Sequence[bytes], found: Sequence[Found]) -> list[bytes]:
    return [id for id, where in zip(ids, found, strict=True) if where.stored and not where.places]


def retold(
    failed: NotApplied | OutcomeUnknown, left: Sequence[JobRecord[Any]], stored: Sequence[JobRecord[Any]] = ()
) -> NotApplied | OutcomeUnknown:
    """The same error, about these records."""
    error = type(failed)(explain(failed, left), stored=stored, records=left)
    error.passes = failed.passes
    return error


def explain(failed: NotApplied | OutcomeUnknown, left: Sequence[JobRecord[Any]]) -> str:
    """What to say of records that were not stored, or may not have been."""
    if not left:
        return str(failed)
    jobs = f"{left[0].name} {left[0].id}" + (f" and {len(left) - 1} more" if len(left) > 1 else "")
    if isinstance(failed, OutcomeUnknown):
        return f"{jobs}: may or may not have been stored: {failed}; send err.records again with enqueue_records()"
    return f"{jobs}: not stored: {failed}"
