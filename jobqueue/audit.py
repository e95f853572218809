"""Finds what is broken in the stored jobs of a queue, whatever broke it, and mends it.

A job is in exactly one place by construction, as long as nobody but jobqueue writes to its keys and every script runs to
its end. A deleted key, a list that somebody edited, or a script that a missing right ended half-way breaks that: then a job
can have a record and no place, so that nobody runs it and nothing lists it.

Three walks find what may be broken: over all ids that have a record, over all entries of the four places, and over all
claims. They are cheap, and a job that moves meanwhile can look broken to them. So each suspect is then looked at alone, in
one snapshot, in which a whole job cannot look broken. What is mended is compared once more, in the step that mends it.

The cost: each id is read twice. Those that seem to be ready are kept until the list ``ready`` was walked, which happens once
for each 100,000 of them. Each suspect costs one search of that list, and another when it is mended: about 7 ms of the
server in a list of a million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal, TypeAlias

import attrs

from jobqueue import transitions
from jobqueue.clock import Clock
from jobqueue.errors import PayloadError, StorageRefused
from jobqueue.flows import Flow, Read, Refresh, send
from jobqueue.judge import death
from jobqueue.keys import QueueKeys
from jobqueue.record import clean, decode, parse_claim, rewrite, wrap_raw
from jobqueue.safe_text import id_text, printable
from jobqueue.storage.ops import (
    CLAIMS,
    RECORDS,
    Applied,
    Batch,
    Found,
    HashKey,
    Ids,
    Kept,
    Page,
    Peek,
    Place,
    Records,
    Score,
    Sizes,
    Unread,
    Where,
)

__all__ = ["Audit", "BrokenAs", "Finding", "Watch", "audit"]

PAGE: Final = 1000
OVERLAP: Final = transitions.LIMIT
"""Entries of ``ready`` that are read again with the next page: a claim that comes in between takes so many from its head."""
PORTION: Final = 100_000
"""Ids that are kept in memory at most."""
LOOKS: Final = 3
FEW: Final = 10
LONG: Final = 100_000
"""Above this length of ``ready`` one call searches it for one id only, so that it does not hold up the server."""
SHOWN: Final = 1000

BrokenAs: TypeAlias = Literal["no place", "several places", "no record", "stale claim"]
Watch: TypeAlias = Callable[[int], object]


@attrs.frozen
class Finding:
    """One id that is broken.

    Attributes:
        id: Which.
        queue: Its queue.
        name: The kind of its job; empty without a record, or if the record cannot be read.
        broken: ``no place`` and ``several places``: a job that nobody runs, or that may run twice. ``no record``: entries or
            a claim of which no job is left. ``stale claim``: a job in one place, whose claim belongs to no run.
        places: Where the id is.
        mended: Whether it is whole again. A job that was in no place or in several is dead then, with the reason as its
            error; entries and claims without a record are removed, as is a stale claim of a job that stays where it is.
    """

    id: str
    queue: str
    name: str
    broken: BrokenAs
    places: tuple[Place, ...]
    mended: bool = False


@attrs.frozen
class Audit:
    """What an audit found.

    Attributes:
        looked: How many ids of jobs were looked at.
        broken: How many ids are, or were, broken.
        mended: How many of them are whole again.
        findings: The first 1,000 of them.
    """

    looked: int
    broken: int
    mended: int
    findings: tuple[Finding, ...]


def audit(
    queues: Sequence[QueueKeys],
    mend: bool,
    clock: Clock,
    watch: Watch | None,
    max_bytes: int = transitions.BYTES,
    refused: dict[str, StorageRefused] | None = None,
) -> Flow[Audit]:
    """Look at every job of these queues; with ``mend``, make whole what is broken.

    Args:
        queues: Which.
        mend: Whether to mend.
        clock: The time of death of what goes to dead.
        watch: Called now and then with the number of ids looked at so far.
        max_bytes: Of records that are read at once; a longer one is mended unread.
        refused: Takes how each queue is refused whose keys something else has spoiled; None: that is raised.

    Raises:
        StorageRefused: All of the queues are refused.
    """
    if mend:
        yield Refresh(60_000)
    report = _Report(mend, clock, watch, max_bytes)
    for queue in queues:
        report.of_queue.clear()
        try:
            yield from _look_at_records(queue, report)
            yield from _look_at_entries(queue, report)
            yield from _look_at_claims(queue, report)
        except StorageRefused as error:
            if refused is None or error.passes:
                raise
            refused[queue.queue] = error
    if refused and len(refused) == len(queues):
        raise next(iter(refused.values()))
    return Audit(report.looked, report.broken, report.mended, tuple(report.findings))


def _broken(found: Found) -> BrokenAs | None:
    """What is wrong with an id, all of whose places are known."""
    if not found.stored:
        return "no record" if found.places or found.claim else None
    if not found.places:
        return "no place"
    if len(found.places) > 1:
        return "several places"
    return "stale claim" if found.claim and found.places != ("working",) else None


# ---------------------------------------------------------------------------------------------------------- three walks


def _look_at_records(queue: QueueKeys, report: _Report) -> Flow[None]:
    """Find jobs in no place. Those in no sorted set are collected, and crossed off where ``ready`` has them."""
    loose: dict[bytes, None] = {}
    after: bytes | None = None
    while True:
        [page] = yield Read((Ids(HashKey(queue.scope, RECORDS), PAGE, after),))
        [found] = yield Read((Where(queue.scope, page.ids),))
        loose.update({id: None for id, each in zip(page.ids, found, strict=True) if each.stored and not each.places})
        report.look(len(page.ids))
        after = page.next
        if loose and (after is None or len(loose) >= PORTION):
            yield from _settle(queue, loose, report)
            loose = {}
        if after is None:
            return


def _settle(queue: QueueKeys, loose: dict[bytes, None], report: _Report) -> Flow[None]:
    for _ in range(LOOKS):
        start: int | None = 0
        end: int | None = None
        while loose and start is not None:
            ids, start, end = yield from _listed(queue, start, end)
            for id in ids:
                loose.pop(id, None)
        for part in _parts(loose, PAGE):
            [found] = yield Read((Where(queue.scope, part),))
            for id, each in zip(part, found, strict=True):
                if each.places or not each.stored:
                    del loose[id]
        if len(loose) <= FEW:
            break
    yield from _examine(queue, loose, report)


def _listed(queue: QueueKeys, start: int, end: int | None) -> Flow[tuple[tuple[bytes, ...], int | None, int]]:
    """A page of ``ready``, where the next one starts (None behind the last), and where the list ended at first.

    What joins the list during a walk is not waited for: it would never end while a producer is faster.
    """
    ids, [size] = yield Read((Peek(queue.ready, start, PAGE), Sizes((queue.ready,))))
    last: int = size if end is None else end
    start += PAGE - OVERLAP
    return ids, start if len(ids) == PAGE and start < last else None, last


def _look_at_entries(queue: QueueKeys, report: _Report) -> Flow[None]:
    """Find entries without a record, jobs in several places and claims of jobs that no runner holds."""
    for key in (queue.waiting, queue.working, queue.dead):
        after: tuple[Score, bytes] | None = None
        while True:
            [entries] = yield Read((Page(key, PAGE, after=after),))
            ids = tuple([member for member, _ in entries])
            [found] = yield Read((Where(queue.scope, ids),))
            # Whether it is in ready as well is seen there.
            odd = [id for id, each in zip(ids, found, strict=True) if each.places and _broken(each)]
            yield from _examine(queue, odd, report)
            if len(entries) < PAGE:
                break
            after = (entries[-1][1], entries[-1][0])
    seen: dict[bytes, int] = {}
    here: int | None = 0
    end: int | None = None
    while here is not None:
        start = here
        ids, here, end = yield from _listed(queue, start, end)
        page = start // (PAGE - OVERLAP)
        odd = [id for id in ids if page - seen.get(id, page) > 1]  # at first sight it overlaps with the page before
        odd += _repeated(ids)
        if len(seen) < PORTION:
            seen = dict.fromkeys(ids, page) | seen
        [found] = yield Read((Where(queue.scope, ids),))
        odd += [id for id, each in zip(ids, found, strict=True) if each.places or each.claim or not each.stored]
        if odd:
            # Most of them were claimed since the page was read.
            again = yield Read((Peek(queue.ready, max(0, start - OVERLAP), PAGE + OVERLAP),))
            still = {*again[0]}
            yield from _examine(queue, [id for id in dict.fromkeys(odd) if id in still], report)


def _repeated(ids: Iterable[bytes]) -> list[bytes]:
    once: set[bytes] = set()
    return [id for id in ids if id in once or once.add(id)]  # type: ignore[func-returns-value]


def _look_at_claims(queue: QueueKeys, report: _Report) -> Flow[None]:
    """Find claims without a record; those of jobs were seen where the job is."""
    after: bytes | None = None
    while True:
        [page] = yield Read((Ids(HashKey(queue.scope, CLAIMS), PAGE, after),))
        [found] = yield Read((Where(queue.scope, page.ids),))
        odd = [id for id, each in zip(page.ids, found, strict=True) if each.claim and not each.stored]
        yield from _examine(queue, odd, report)
        after = page.next
        if after is None:
            return


# --------------------------------------------------------------------------------------------------------- one by one


@attrs.define
class _Report:
    """What was found so far."""

    mend: bool
    clock: Clock
    watch: Watch | None
    max_bytes: int
    looked: int = 0
    broken: int = 0
    mended: int = 0
    findings: list[Finding] = attrs.field(factory=list)
    of_queue: set[bytes] = attrs.field(factory=set)

    def look(self, ids: int) -> None:
        self.looked += ids
        if self.watch is not None:
            self.watch(self.looked)

    def add(self, id: bytes, finding: Finding) -> None:
        self.of_queue.add(id)
        self.broken += 1
        self.mended += finding.mended
        if len(self.findings) < SHOWN:
            self.findings.append(finding)


def _examine(queue: QueueKeys, suspects: Iterable[bytes], report: _Report) -> Flow[None]:
    """Look at each suspect in a snapshot of all its places; report, and mend, those that are broken."""
    ids = [id for id in suspects if id not in report.of_queue]
    if not ids:
        return
    [[length]] = yield Read((Sizes((queue.ready,)),))
    few = 1 if length > LONG else FEW
    while ids:
        part = tuple(ids[:few])
        found, kept = yield Read((Where(queue.scope, part, search=True), Records(queue.scope, part, report.max_bytes)))
        del ids[: len(kept)]  # the others would make the answer too long
        broken: dict[bytes, tuple[Found, Kept | None, BrokenAs]] = {}
        for id, each, one in zip(part, found, kept, strict=False):
            how = _broken(each)
            if how is not None:
                broken[id] = each, one, how
        whole: set[bytes] = set()
        if report.mend:
            batches = {
                id: _mending(queue, id, each, one, how, report.clock.now()) for id, (each, one, how) in broken.items()
            }
            whole = yield from _mended(queue, batches)
        for id, (each, one, how) in broken.items():
            report.add(id, Finding(id_text(id), queue.queue, _kind(one), how, each.places, id in whole))


def _kind(kept: Kept | None) -> str:
    try:
        return "" if kept is None else decode(kept.record).name
    except PayloadError:
        return ""


def _mending(queue: QueueKeys, id: bytes, found: Found, kept: Kept | None, how: BrokenAs, now: int) -> Batch:
    if kept is None:
        return transitions.mend(queue, id, None)
    if isinstance(kept.record, Unread):
        return transitions.mend(queue, id, kept.record, died=now)
    why = _reason(found, kept, how)
    try:
        stored = decode(kept.record)
    except PayloadError as error:
        return transitions.mend(queue, id, kept.record, wrap_raw(kept.record, f"{why}\n{error}", now), now)
    text = clean(f"{why}\nIts last error before that: {stored.error}" if stored.error else why)
    return transitions.mend(queue, id, kept.record, rewrite(kept.record, error=text), death(stored, now))


def _reason(found: Found, kept: Kept, how: BrokenAs) -> str:
    where = "in no place" if how == "no place" else f"in several places at once ({', '.join(found.places)})"
    held = ""
    if kept.claim is not None:
        incarnation, fence, _ = parse_claim(kept.claim)
        held = f" Runner {printable(incarnation)} had claimed it (fence {fence})."
    return (
        f"an audit found this job {where}. Something other than jobqueue changed the keys of its queue, or a script of the "
        f"server broke off half-way.{held} It may have run, or still be running; requeue it to run it again"
    )


def _mended(queue: QueueKeys, batches: dict[bytes, Batch]) -> Flow[set[bytes]]:
    """Apply them, and answer which ids are whole now."""
    whole: set[bytes] = set()
    unsure: list[bytes] = []
    for (
        id,
        batch,
    ) in batches.items():  # each in a call of its own: two records travel with it, of a megabyte each perhaps
        [outcome] = yield from send([batch])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, Applied), "a mending has no guard"
        if outcome.answers == (1,):
            whole.add(id)
        else:  # the first sending did it, or it moved on
            unsure.append(id)
    if unsure:
        [found] = yield Read((Where(queue.scope, tuple(unsure), search=True),))
        whole.update([id for id, each in zip(unsure, found, strict=True) if _broken(each) is None])
    return whole


def _parts(ids: Iterable[bytes], size: int) -> Iterator[tuple[bytes, ...]]:
    rest = iter(tuple(ids))
    while part := tuple(islice(rest, size)):
        yield part
