"""Bringing back the jobs of runners that are gone.

A lease that has ended is no proof: the server's clock may have jumped, or the server may have been away, longer than every
lease. So a job is taken only after the same claim with the same end was seen expired, unchanged, for twice its owner's
beat on the observer's own monotonic clock. A living owner changes it in between.

A server's clock that is set back leaves ends behind that are further away than any lease. Nobody lives to wait for them, so
they count as expired. A living owner goes on raising them, by little (`Leases.extend`).

Whoever has seen a runner's process end need not watch anything: `hand_back` takes what it held at once.

Pure: the flow yields what to ask and apply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import PayloadError
from jobqueue.flows import Flow, Read, read_on, read_some, send_one
from jobqueue.judge import after_crash
from jobqueue.keys import QueueKeys
from jobqueue.record import decode, parse_claim, rewrite, whole, wrap_raw
from jobqueue.safe_text import printable
from jobqueue.storage.ops import (
    CLAIMS,
    LONGEST_CLAIM,
    Fields,
    HashKey,
    Ids,
    Kept,
    Page,
    Query,
    Records,
    Score,
    Sizes,
    Unread,
)

__all__ = ["Look", "Rescued", "Watch", "follow", "hand_back", "look_at", "patrol"]

PAGE: Final = 500
PART: Final = 100
"""Jobs taken in one step."""
MOST: Final = 5_000
"""So many expired leases of a queue are looked at in one round, each way; those behind them when these have been taken."""
CLAIMS_PAGE: Final = 1_000
PASSES: Final = 3
FOREIGN_BEAT: Final = 5_000
"""What is believed of the owner of a claim that no runner wrote, in ms."""
_LAST: Final = b"\xff" * 64


@attrs.frozen
class Rescued:
    """A job that came back.

    Attributes:
        id: Its id.
        queue: Its queue.
        incarnation: The runner that had it.
        dead: It took its runner down too often and went to dead.
        idle: Milliseconds since its lease ended.
        fence: The fence of its claim.
        record: What is stored of it now, if it is dead; empty if that is too long to be read.
    """

    id: bytes
    queue: str
    incarnation: str
    dead: bool
    idle: int
    fence: int = 0
    record: bytes = b""

    @property
    def log_fields(self) -> dict[str, object]:
        """What log records say of a dead one; see `jobqueue.logs.FIELDS`."""
        stored = decode(self.record) if self.record else None
        return {
            "job_id": printable(self.id), "kind": printable(stored.name) if stored else "",
            "queue": self.queue, "attempt": stored.attempt + 1 if stored else 1, "runner": self.incarnation,
            "fence": self.fence,
        }  # fmt: skip


@attrs.frozen
class _Seen:
    claim: bytes
    end: Score
    since: float
    incarnation: str
    fence: int
    patience: float


def _first_sight(claim: bytes | None, end: Score, at: Moment) -> _Seen:
    if claim is None:  # there is no record, and so no job that somebody could be running
        return _Seen(b"", end, at.local, "", -1, 0.0)
    owner, fence, beat = parse_claim(claim)
    incarnation = printable(owner)
    # No fence is -1: 0 is what a record says that was never started alone.
    return _Seen(claim, end, at.local, incarnation, fence or -1, 2.0 * (beat or FOREIGN_BEAT))


class Watch:
    """What one observer has seen of expired leases.

    Attributes:
        seen: Scope → the expired leases that were seen at the last look.
    """

    def __init__(self) -> None:
        self.seen: dict[str, dict[bytes, _Seen]] = {}

    def next_look(self, after: float = -math.inf) -> float | None:
        """When (local ms), later than ``after``, a lease under watch may be taken."""
        ripe = (seen.since + seen.patience for queue in self.seen.values() for seen in queue.values())
        return min((at for at in ripe if at > after), default=None)


@attrs.frozen
class Look:
    """What one request found in a queue.

    Attributes:
        queue: The queue.
        at: When it was asked.
        questions: The first pages of expired leases that were asked for.
        pages: Their entries.
        has_work: Jobs are ready, or due soon; if that was asked.
        is_empty: No job is waiting, ready or working; if that was asked.
    """

    queue: QueueKeys
    at: Moment
    questions: tuple[Page, Page]
    pages: tuple[Sequence[tuple[bytes, Score]], Sequence[tuple[bytes, Score]]]
    has_work: bool = False
    is_empty: bool = False


def look_at(
    queues: Sequence[QueueKeys], longest: int, moment: Callable[[], Moment], work_within: int | None = None
) -> Flow[list[Look]]:
    """Ask some queues for their expired leases, all in one request.

    Args:
        queues: The queues.
        longest: The longest lease in use, in ms: an end further away than that is a jump of the server's clock.
        moment: Reads the clocks.
        work_within: Ask also for jobs that are ready, or due within so many ms, and whether there are any jobs.
    """
    at = moment()
    asked: list[tuple[Page, Page]] = []
    queries: list[Query] = []
    for queue in queues:
        questions = (
            Page(queue.working, PAGE, before=at.now),
            Page(queue.working, PAGE, after=(at.now + longest, _LAST)),
        )
        asked.append(questions)
        queries += questions
        if work_within is not None:
            queries.append(Page(queue.waiting, 1, before=at.now + work_within))
            queries.append(Sizes((queue.ready, queue.working, queue.waiting)))
    answers = iter((yield Read(tuple(queries))))
    looks = []
    for queue, questions in zip(queues, asked, strict=True):
        pages = (next(answers), next(answers))
        if work_within is None:
            looks.append(Look(queue, at, questions, pages))
        else:
            soon, (ready, working, waiting) = next(answers), next(answers)
            looks.append(
                Look(queue, at, questions, pages, bool(soon or ready), not (ready or working or waiting))
            )  # fmt: skip
    return looks


def patrol(
    queue: QueueKeys, watch: Watch, longest: int, moment: Callable[[], Moment], max_bytes: int = transitions.BYTES
) -> Flow[list[Rescued]]:
    """Look at all expired leases of a queue and take those that are ripe: `look_at`, then `follow`."""
    [look] = yield from look_at((queue,), longest, moment)
    return (yield from follow(look, watch, moment, max_bytes))


def follow(
    look: Look, watch: Watch, moment: Callable[[], Moment], max_bytes: int = transitions.BYTES
) -> Flow[list[Rescued]]:
    """Take the expired leases that are ripe, and watch the others.

    Args:
        look: What was found in the queue.
        watch: What this observer saw before; changed.
        moment: Reads the clocks.
        max_bytes: Of records that one step reads; a longer one goes to dead unread.
    """
    queue, at = look.queue, look.at
    expired = yield from _all_pages(look)
    # Counted from the answer. A server that stood still answers seconds later, and from the question it would seem that
    # its owners, whom it has not answered either, had all this time to extend what they hold.
    sight = Moment(at.now, moment().local)
    before = watch.seen.get(queue.scope, {})
    watch.seen[queue.scope] = seen = yield from _sighted(queue, expired, before, sight)
    return (yield from _take_ripe(queue, seen, at, max_bytes))


def _all_pages(look: Look) -> Flow[list[tuple[bytes, Score]]]:
    found: list[tuple[bytes, Score]] = []
    for question, first in zip(look.questions, look.pages, strict=True):
        found += yield from read_on(question, first, MOST)
    return found


def _sighted(
    queue: QueueKeys, expired: Sequence[tuple[bytes, Score]], before: Mapping[bytes, _Seen], sight: Moment
) -> Flow[dict[bytes, _Seen]]:
    """What is seen of these leases now, those that are as they were with the time of their first sight."""
    seen: dict[bytes, _Seen] = {}
    for start in range(0, len(expired), PAGE):
        part = expired[start : start + PAGE]
        fresh = {id: None for id, end in part if id not in before or before[id].end != end}
        claims: dict[bytes, bytes | None] = {}
        if fresh:
            [kept] = yield Read((Records(queue.scope, tuple(fresh), 0),))  # without the records themselves
            # What has left meanwhile has not been seen: its next claim may happen to end at the same time.
            claims = {
                id: (one.claim or b"") if one else None
                for id, one in zip(fresh, kept, strict=True)
                if one is None or one.place == "working"
            }
        for id, end in part:
            if id in claims:
                seen[id] = _first_sight(claims[id], end, sight)
            elif id not in fresh:
                seen[id] = before[id]
    return seen


def _take_ripe(queue: QueueKeys, seen: dict[bytes, _Seen], at: Moment, max_bytes: int) -> Flow[list[Rescued]]:
    """Take the leases that were watched for long enough; they are not watched any more."""
    ripe = sorted(((one.fence, id) for id, one in seen.items() if at.local - one.since >= one.patience))
    rescued: list[Rescued] = []
    left = [id for _, id in ripe]
    while left:
        last = yield from _last(queue, left, max_bytes)
        del left[-len(last) :]
        rescued += yield from _take(queue, last, seen, at.now)
        for id in last:
            del seen[id]
    return rescued


def _last(queue: QueueKeys, ids: list[bytes], max_bytes: int) -> Flow[dict[bytes, Kept | None]]:
    """What is kept of the last of these, in order: as many as one step may take.

    Each step puts its jobs before those of the step before, so the last of them go first.
    """
    found = yield from read_some(queue.scope, ids[: -PART - 1 : -1], max_bytes)
    return dict(reversed(found))


def hand_back(
    queue: QueueKeys, incarnation: bytes, moment: Callable[[], Moment], max_bytes: int = transitions.BYTES
) -> Flow[list[Rescued]]:
    """Take all that a runner holds in a queue, without waiting for its leases to end.

    To be asked only by a parent that has reaped the runner's process: of anybody else this would be robbery. What the
    runner sent last may still be on its way to the storage, so its claims are refused from here on.

    Args:
        queue: The queue.
        incarnation: The runner.
        moment: Reads the clocks.
        max_bytes: Of records that one step reads; a longer one goes to dead unread.
    """
    yield from send_one(transitions.close_requests(queue, incarnation))
    rescued: list[Rescued] = []
    # An extension on its way changes the end of a lease between two steps, and then its jobs are not taken. There is one
    # under way at most, so a second pass finds what the first had to leave.
    for _ in range(PASSES):
        claims = yield from _claims_of(queue, incarnation)
        held = sorted((parse_claim(claim)[1], id) for id, claim in claims.items())
        if not held:
            break
        left = [id for _, id in held]
        while left:
            last = yield from _last(queue, left, max_bytes)
            del left[-len(last) :]
            at = moment()
            kept: dict[bytes, Kept | None] = {}
            seen: dict[bytes, _Seen] = {}
            for id, one in last.items():
                if one is not None and one.place == "working" and one.claim == claims[id]:
                    kept[id] = one
                    seen[id] = _first_sight(claims[id], one.score, at)
            rescued += yield from _take(queue, kept, seen, at.now)
    return rescued


def _claims_of(queue: QueueKeys, incarnation: bytes) -> Flow[dict[bytes, bytes]]:
    """The claims of a runner in a queue.

    Of the claims of all: they are small. Pages of `working` would need the records of all to tell whose they are, with the
    arguments in them.
    """
    key, found, cursor = HashKey(queue.scope, CLAIMS), {}, None
    while True:
        [page] = yield Read((Ids(key, CLAIMS_PAGE, cursor),))
        if page.ids:
            [claims] = yield Read((Fields(key, page.ids, LONGEST_CLAIM),))
            found.update({id: claim for id, claim in claims.items() if parse_claim(claim)[0] == incarnation})
        cursor = page.next
        if cursor is None:
            return found


def _take(
    queue: QueueKeys, kept: Mapping[bytes, Kept | None], seen: Mapping[bytes, _Seen], now: int
) -> Flow[list[Rescued]]:
    groups: dict[tuple[bool, bool], dict[bytes, bytes | None]] = {}
    died: dict[bytes, int] = {}
    for id, one in kept.items():
        # What has no record goes along: the move removes it, and it is never looked at again.
        record, death = _judged(one.record, seen[id].fence, now) if one is not None else (None, None)
        if death is not None:
            died[id] = death
        groups.setdefault((death is not None, bool(seen[id].claim)), {})[id] = record
    rescued = []
    for (is_dead, is_claimed), members in groups.items():
        records = {id: record for id, record in members.items() if record is not None}
        ends = {id: seen[id].end for id in members}
        # Without a claim (somebody removed the key) nobody can extend or end it: the end of its lease is proof enough.
        leases = {id: (seen[id].claim, end) for id, end in ends.items()} if is_claimed else ends
        batch = (
            transitions.condemn(queue, leases, records, {id: died[id] for id in members})
            if is_dead
            else transitions.rescue(queue, leases, records)
        )
        applied = yield from send_one(batch)
        assert applied is not None, "a rescue has no guard"
        for id in applied.moved.ids:
            sight, kept_as = seen[id], (records.get(id, b"") if is_dead else b"")
            idle = max(0, now - whole(sight.end))
            rescued.append(Rescued(id, queue.queue, sight.incarnation, is_dead, idle, max(0, sight.fence), kept_as))
    return rescued


def _judged(record: bytes | Unread, fence: int, now: int) -> tuple[bytes | None, int | None]:
    """The record as it is to be kept, if it changes, and when the job died; None if it goes back to ready."""
    if isinstance(record, Unread):
        return None, after_crash(None, fence, now).score
    try:
        stored = decode(record)
    except PayloadError as error:
        # With the words with which whoever claims it would bury it.
        return wrap_raw(record, str(error), now), after_crash(None, fence, now).score
    verdict = after_crash(stored, fence, now)
    return rewrite(record, **verdict.changes), verdict.score
