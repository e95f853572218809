"""Flows of those who look at jobs and operate on them: list, find, requeue, delete."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from jobqueue import transitions
from jobqueue.doors import refuse_beyond
from jobqueue.errors import DeclarationError, JobNotFound, NotApplied, OutcomeUnknown, PayloadError, StorageRefused
from jobqueue.flows import Apply, Flow, Read, read_some, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.lifecycle import COUNTED
from jobqueue.names import check_queue_name
from jobqueue.record import JobRecord, decode, record_of, rewrite, whole
from jobqueue.safe_text import id_bytes, printable
from jobqueue.storage.ops import (
    Applied,
    Batch,
    Fields,
    Ids,
    Kept,
    Page,
    Peek,
    Place,
    PlaceKey,
    Query,
    Records,
    Scopes,
    Score,
    Sizes,
    Unread,
)
from jobqueue.transitions import SEARCHED

__all__ = [
    "Registry",
    "delete",
    "find",
    "locate",
    "queue_names",
    "queues",
    "registry",
    "requeue",
    "search",
    "sizes",
    "sizes_apart",
    "totals",
]

PAGE: Final = 200
CURSOR: Final = re.compile(rf"([^/]+)/({'|'.join(get_args(Place))})/([0-9.einf+-]{{1,30}})/(.*)", re.DOTALL)
"""`JobRecord.cursor`; no id that jobqueue makes looks like that."""
STRIDE: Final = 5_000
"""Ids of a list that one call looks at where only a position is sought."""
SEARCH_KEYS: Final = 5_000
"""Keys that one call of the search looks at, which takes a server about a millisecond."""
SEARCH_PAGES: Final = 20
"""Calls that somebody who looks at the queues waits for at most."""
SEARCH_AGAIN_MS: Final = 24 * 3_600_000
DONE: Final = b"done:"
MARK: Final = re.compile(rb"done:([0-9]{1,16})|((?:[!-~]{1,300} )?[0-9]{1,20})")
"""What is noted of the search: when it ended, or a cursor; that of a cluster names a node as well."""
REGISTRY_PAGE: Final = 1_000
MOST_QUEUES: Final = 10_000
"""Names of queues that are read: a registry with more of them was not filled by jobqueue."""
_TOTALS: Final = tuple(sorted({name.encode() for name in COUNTED.values()}))
_COUNT: Final = re.compile(rb"[0-9]{1,16}")
TRIES: Final = 10
"""How often a job that moves on between a look and a move is looked at again."""


class Registry(msgspec.Struct, frozen=True):
    """What the registry of queues holds.

    Attributes:
        fields: The names in it, as bytes; also what something else left there and is not a valid name.
        mark: How far the search for lost registrations has come, None if there was none.
        whole: Whether these are all: it is read up to about `MOST_QUEUES` names.
    """

    fields: frozenset[bytes]
    mark: bytes | None
    whole: bool


def registry(keys: NamespaceKeys) -> Flow[Registry]:
    """Read the registry of queues, page by page."""
    fields: set[bytes] = set()
    mark: bytes | None = None
    cursor: bytes | None = None
    while True:
        page, marks = yield Read((Ids(keys.queues, REGISTRY_PAGE, cursor), Fields(keys.queues, (SEARCHED,))))
        fields.update(page.ids)
        mark, cursor = marks.get(SEARCHED), page.next
        if cursor is None or len(fields) >= MOST_QUEUES:
            return Registry(frozenset(fields), mark, cursor is None)


def queues(keys: NamespaceKeys, now: int) -> Flow[list[str]]:
    """The names of the queues that were ever used in the namespace, sorted."""
    known = yield from registry(keys)
    if (ended := MARK.fullmatch(known.mark or b"")) and ended[1]:
        return queue_names(known.fields)  # the duties of runners look again and again
    found = yield from search(keys, known, now, pages=SEARCH_PAGES)
    return queue_names({*known.fields, *found})


def search(keys: NamespaceKeys, known: Registry, now: int, *, pages: int) -> Flow[set[bytes]]:
    """Go on with the search for queues that hold jobs and are not in the registry; answers those found.

    A registry that is new, or was removed by somebody, says nothing of a search: then all keys of the storage are gone
    through, once, and again a day later. How far it has come is noted in the registry: all who search share the work.

    Args:
        keys: The namespace.
        known: The registry as it was read just now.
        now: The time in ms.
        pages: How many pages of `SEARCH_KEYS` keys to look at.
    """
    mark = known.mark
    ended = MARK.fullmatch(mark or b"")
    if ended and ended[1] and 0 <= now - int(ended[1]) < SEARCH_AGAIN_MS:
        return set()
    # A mark that cannot be one of ours begins the search anew.
    cursor = ended[2] or b"" if ended else b""
    found: set[bytes] = set()
    try:
        for _ in range(pages):
            [answer] = yield Read((Scopes(keys.scope, cursor, SEARCH_KEYS),))
            found.update([scope.removeprefix(f"{keys.scope}:").encode() for scope in answer.scopes])
            cursor = answer.cursor
            if not cursor:
                break
        missing = {name.encode() for name in queue_names(found)} - known.fields if known.whole else ()
        yield from send_one(transitions.note_search(keys, mark, cursor or DONE + b"%d" % now, missing))
    except (NotApplied, OutcomeUnknown):
        pass  # not everybody may do this, or write, and a node may be away: who cannot looks at what there is
    return found


def queue_names(fields: Iterable[bytes]) -> list[str]:
    """The names in the registry of queues, sorted; what a foreign writer left there and is no name is passed over."""
    names = []
    for field in fields:
        try:
            names.append(check_queue_name(field.decode()))
        except (UnicodeDecodeError, DeclarationError):
            continue
    return sorted(names)


def sizes(keys: Sequence[QueueKeys]) -> Flow[list[tuple[int, int, int, int]]]:
    """Waiting, ready, working and dead of each queue."""
    if not keys:
        return []
    answers = yield Read(tuple(map(_sizes, keys)))
    return [tuple(answer) for answer in answers]


def sizes_apart(keys: Sequence[QueueKeys]) -> Flow[list[tuple[int, int, int, int] | StorageRefused]]:
    """The same, with the refusal of each queue whose keys something else has spoiled.

    Raises:
        StorageRefused: All of them are refused.
    """
    answers = yield from _apart(keys, _sizes)
    return [answer if isinstance(answer, StorageRefused) else tuple(answer) for answer in answers]


def totals(keys: Sequence[QueueKeys]) -> Flow[list[dict[str, int]]]:
    """How many jobs of each queue ever went each way that is counted; what is spoiled counts as nothing."""
    answers = yield from _each(keys, lambda queue: Fields(queue.counters, _TOTALS))
    read = [{} if isinstance(answer, StorageRefused) else answer for answer in answers]
    return [{name.decode(): int(value) for name, value in each.items() if _COUNT.fullmatch(value)} for each in read]


def _sizes(queue: QueueKeys) -> Sizes:
    return Sizes((queue.waiting, queue.ready, queue.working, queue.dead))


def _apart(keys: Sequence[QueueKeys], query: Callable[[QueueKeys], Query]) -> Flow[list[Any]]:
    """What each queue answers to a query, or how it is refused: a key of one that is spoiled does not hide the others.

    Raises:
        StorageRefused: All of them are refused.
    """
    answers = yield from _each(keys, query)
    if answers and all(isinstance(answer, StorageRefused) for answer in answers):
        raise answers[0]
    return answers


def _each(keys: Sequence[QueueKeys], query: Callable[[QueueKeys], Query]) -> Flow[list[Any]]:
    if not keys:
        return []
    try:
        return list((yield Read(tuple(map(query, keys)))))
    except StorageRefused as error:
        if error.passes:
            raise
        if len(keys) == 1:
            return [error]
    half = len(keys) // 2
    return [*(yield from _each(keys[:half], query)), *(yield from _each(keys[half:], query))]


def locate(keys: Sequence[QueueKeys], id: bytes, max_bytes: int = 0) -> Flow[tuple[QueueKeys, Kept] | None]:
    """Where a job is, and what is kept of it; its record if that takes ``max_bytes`` at most.

    Raises:
        StorageRefused: It is in none of the queues that can be read, and one cannot.
    """
    if len(keys) > 1:  # where it is comes first: all queues may have an id of this name, each with a record
        answers = yield from _apart(keys, lambda queue: Records(queue.scope, (id,), 0))
        refusal = next((answer for answer in answers if isinstance(answer, StorageRefused)), None)
        keys = [queue for queue, answer in zip(keys, answers, strict=True) if _has_one(answer)][:1]
        if refusal is not None and not keys:
            raise refusal
    for queue in keys:
        [[kept]] = yield Read((Records(queue.scope, (id,), max_bytes),))
        if kept is not None:
            return queue, kept
    return None


def _has_one(answer: Sequence[Kept | None] | StorageRefused) -> bool:
    return not isinstance(answer, StorageRefused) and answer[0] is not None


def _page(
    queue: QueueKeys, place: Place, after: tuple[Score, bytes] | None
) -> Flow[tuple[tuple[bytes, ...], tuple[Score, bytes] | None]]:
    """One page of a place: the ids and the cursor of the next page, None at the end."""
    ids: tuple[bytes, ...]
    cursor: tuple[Score, bytes] | None
    if place == "ready":
        start = int(after[0]) if after else 0
        [ids] = yield Read((Peek(queue.ready, start, PAGE),))
        cursor = (start + len(ids), b"")
    else:
        key = {"waiting": queue.waiting, "working": queue.working, "dead": queue.dead}[place]
        [entries] = yield Read((Page(key, PAGE, after=after),))
        ids = tuple(member for member, _ in entries)
        cursor = (entries[-1][1], entries[-1][0]) if entries else None
    return ids, cursor if len(ids) == PAGE else None


PLACES_IN_ORDER: Final[tuple[Place, ...]] = ("working", "ready", "waiting", "dead")


def find(
    keys: Sequence[QueueKeys],
    places: Sequence[Place],
    name: str | None,
    limit: int,
    after: str | None,
    max_bytes: int = transitions.BYTES,
    refused: dict[str, StorageRefused] | None = None,
) -> Flow[list[JobRecord[Any]]]:
    """Jobs of these queues and places, by queue, then place, then order in it; from behind the job ``after``.

    Args:
        keys: The queues.
        places: The places.
        name: Only of this kind.
        limit: How many at most.
        after: Its id, or the cursor of its record.
        max_bytes: Of records that are read at once, and of the longest that is read.
        refused: Takes how each queue is refused whose keys something else has spoiled; None: that is raised.

    Raises:
        StorageRefused: All of the queues are refused.
        JobNotFound: Where the job ``after`` stood cannot be told any more, or is not searched.
    """
    found: list[JobRecord[Any]] = []
    spots: list[tuple[QueueKeys, Place]] = [(queue, place) for queue in keys for place in places]
    cursor: tuple[Score, bytes] | None = None
    if after is not None:
        stood, place_then, score, id = yield from _stood(keys, after)
        while spots and (spots[0][0].queue, spots[0][1]) != (stood, place_then):
            del spots[0]
        if not spots:
            raise _no_anchor(id, f"it stands in {place_then} of queue {stood!r}, where this search does not look")
        # A list has no cursor by member: it is walked until the job is met.
        cursor = (yield from _behind(spots[0][0], id)) if place_then == "ready" else (score, id)
    for queue, place in spots:
        try:
            yield from _look_for(queue, place, cursor, name, limit, max_bytes, found)
        except StorageRefused as error:
            if refused is None or error.passes:
                raise
            refused.setdefault(queue.queue, error)
        cursor = None
        if len(found) == limit:
            return found
    if refused and not found and len(refused) == len({queue.queue for queue, _ in spots}):
        raise next(iter(refused.values()))
    return found


def _look_for(
    queue: QueueKeys,
    place: Place,
    cursor: tuple[Score, bytes] | None,
    name: str | None,
    limit: int,
    max_bytes: int,
    found: list[JobRecord[Any]],
) -> Flow[None]:
    """Add the jobs of one place to those that were found, up to the limit."""
    while True:
        ids, cursor = yield from _page(queue, place, cursor)
        while ids:
            entries = yield from read_some(queue.scope, ids, max_bytes)
            ids = ids[len(entries) :]
            for member, kept in entries:
                if kept is not None and kept.place == place:
                    record = record_of(member, queue.queue, kept)
                    if name is None or record.name == name:
                        found.append(record)
                        if len(found) == limit:
                            return
        if cursor is None:
            return


def _stood(keys: Sequence[QueueKeys], after: str) -> Flow[tuple[str, str, Score, bytes]]:
    """Queue and place where a job stands, or stood when its cursor was made, its score there, and its id."""
    if cursor := CURSOR.fullmatch(after):
        queue, place, score, id = cursor.groups()
        with contextlib.suppress(ValueError):  # then it is an id
            return queue, place, _parsed(score), id_bytes(id)
    where = yield from locate(keys, id_bytes(after))
    if where is None:
        raise _no_anchor(
            id_bytes(after),
            "it is not here any more; its record, or its cursor, knows where it stood; or use scan()",
        )
    return where[0].queue, where[1].place, where[1].score, id_bytes(after)


def _parsed(score: str) -> Score:
    return int(score) if score.isdigit() else float(score)


def _behind(queue: QueueKeys, anchor: bytes) -> Flow[tuple[int, bytes] | None]:
    """The cursor behind this job in ``ready``: a walk along the list, by its ids alone.

    None, the head of the list, if it has left: claims take jobs from there, so that those before it have left as well, and
    so have those of a page that was deleted. What was left standing before it comes again.
    """
    for _ in range(TRIES):
        start = 0
        while True:
            [ids] = yield Read((Peek(queue.ready, start, STRIDE),))
            if anchor in ids:
                return start + ids.index(anchor) + 1, b""
            if len(ids) < STRIDE:
                break
            start += STRIDE - transitions.LIMIT  # a claim that came in between took so many from the head
        where = yield from locate([queue], anchor)
        if where is None or where[1].place != "ready":
            break
    return None


def _no_anchor(id: bytes, instead: str) -> JobNotFound:
    return JobNotFound(f"no job {printable(id)} to continue behind: {instead}")


# ----------------------------------------------------------------------------------------------------------- operators


def requeue(keys: Sequence[QueueKeys], id: bytes, max_bytes: int = transitions.BYTES) -> Flow[JobRecord[Any]]:
    """Make a dead or waiting job ready now. One whose record is longer than ``max_bytes`` is moved as it is, unread.

    Raises:
        JobNotFound: There is none.
        StorageRefused: It is being run, or only a later version of the library can do this.
    """
    perhaps: JobRecord[Any] | None = None  # what it is if a request that went without an answer moved it
    for _ in range(TRIES):
        where = yield from locate(keys, id, max_bytes)
        if where is None or where[1].place == "working":
            if perhaps is not None:
                return perhaps
            raise _not_found(id) if where is None else _running(id, "it is requeued by itself if its runner dies")
        queue, kept = where
        if kept.place == "ready":
            return record_of(id, queue.queue, kept)
        record = kept.record
        if kept.place == "waiting":
            batch = transitions.hurry(queue, id, kept.score)
        else:
            record = record if isinstance(record, Unread) else _revived(id, record, kept.score)
            batch = transitions.requeue(queue, id, kept.score, record)
        requeued = record_of(id, queue.queue, Kept(record, "ready", 0, None))
        moved, sure = yield from _move(batch)
        if moved:
            return requeued
        perhaps = None if sure else requeued
    raise _elusive(id)


def _revived(id: bytes, record: bytes, died: Score) -> bytes:
    try:
        stored = decode(record)
        if not stored.name:
            raise PayloadError("the stored bytes were no job record")  # a runner put them here, as the payload of one
        refuse_beyond(printable(id), stored)
        # The count of attempts stays: a requeued job that fails again is dead again. The crashes are forgiven.
        return rewrite(record, recoveries=0, started=0, parked=0, parked_since=0, died=whole(died))
    except PayloadError as error:
        raise StorageRefused(f"{error}; this job can only be deleted") from error


def delete(keys: Sequence[QueueKeys], id: bytes, max_bytes: int = transitions.BYTES) -> Flow[JobRecord[Any]]:
    """Forget a job that is waiting, ready or dead; answers what it was.

    Raises:
        JobNotFound: There is none.
        StorageRefused: It is being run, or only a later version of the library can do this.
    """
    perhaps: JobRecord[Any] | None = None
    for _ in range(TRIES):
        where = yield from locate(keys, id, max_bytes)
        if where is None:
            if perhaps is not None:
                return perhaps
            raise _not_found(id)
        queue, kept = where
        if kept.place == "working":
            raise _running(id, "a job that a runner holds cannot be deleted")
        with contextlib.suppress(PayloadError):
            refuse_beyond(printable(id), decode(kept.record))
        place: PlaceKey = {"ready": queue.ready, "waiting": queue.waiting, "dead": queue.dead}[kept.place]  # type: ignore[assignment]
        scores: Mapping[bytes, Score] | None = None if kept.place == "ready" else {id: kept.score}
        moved, sure = yield from _move(transitions.delete(place, [id], scores))
        was = record_of(id, queue.queue, kept)
        if moved:
            return was
        perhaps = None if sure else was
    raise _elusive(id)


def _move(batch: Batch) -> Flow[tuple[bool, bool]]:
    """Apply the move of one job: whether it moved now, and whether that is certain.

    What moved is believed and not looked at again: a runner may have claimed, or ended, the job by then.
    """
    [outcome] = yield Apply((batch,))
    sure = not isinstance(outcome, OutcomeUnknown)
    if isinstance(outcome, NotApplied):
        raise outcome
    applied = outcome if sure else (yield from send_one(batch))
    assert isinstance(applied, Applied), "a move of an operator has no guard"
    return bool(applied.moved.ids), sure


def _running(id: bytes, why: str) -> StorageRefused:
    return StorageRefused(f"job {printable(id)} is being run right now: {why}")


def _elusive(id: bytes) -> StorageRefused:
    return StorageRefused(
        f"job {printable(id)} was not found in its place {TRIES} times: either it moves all the time, and trying again "
        "helps, or something other than jobqueue removed a key of its queue and left the record"
    )


def _not_found(id: bytes) -> JobNotFound:
    return JobNotFound(
        f"no job with the id {printable(id)} is stored: it has ended, was deleted, or is in another namespace"
    )
