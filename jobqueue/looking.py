"""`Looking`: what a `JobQueue` offers to those who look at the jobs that are stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import attrs

from jobqueue import lookup
from jobqueue.access import Access
from jobqueue.asked import named, shown
from jobqueue.errors import DeclarationError, StorageRefused, UnknownJob
from jobqueue.flows import Flow, in_parts
from jobqueue.job import Call
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.options import check_known_queue
from jobqueue.record import JobRecord, R, record_of
from jobqueue.registry import Registry
from jobqueue.runner_info import RunnerInfo, live_runners
from jobqueue.safe_text import printable, quoted
from jobqueue.scan import Scan
from jobqueue.storage.ops import Place
from jobqueue.transitions import longest_record
from jobqueue.words import belongs_to

__all__ = ["Counts", "Looking", "Totals", "counts_apart", "find_apart"]


@attrs.frozen
class Counts:
    """How many jobs of a queue are in each place."""

    waiting: int
    ready: int
    working: int
    dead: int


@attrs.frozen
class Totals:
    """How many jobs of a queue went which way since it was first used; see `JobQueue.totals`.

    Attributes:
        done: Ended well.
        retried: Failed, and run again later.
        dead: Given up.
        discarded: Ended since they asked for it.
        snoozed: Asked to be run later.
        parked: Put back, because a runner did not know their kind.
        released: Handed back by a runner that stopped.
        rescued: Brought back from a runner that was gone.
        deleted: Deleted by an operator.
        pruned: Forgotten, because they were dead for long enough.
    """

    done: int = 0
    retried: int = 0
    dead: int = 0
    discarded: int = 0
    snoozed: int = 0
    parked: int = 0
    released: int = 0
    rescued: int = 0
    deleted: int = 0
    pruned: int = 0


@belongs_to("JobQueue")
class Looking:
    """Looks at the jobs that are stored."""

    access: Access
    registry: Registry
    max_payload: int
    _queue_names: frozenset[str] | None

    def length(self, queue: str) -> int:
        """How many jobs of a queue are ready to be run now."""
        return self.access.run(self._counts([check_known_queue(queue, self._queue_names)]))[queue].ready

    async def alength(self, queue: str) -> int:
        """See `length`."""
        return (await self.access.arun(self._counts([check_known_queue(queue, self._queue_names)])))[queue].ready

    def counts(self) -> dict[str, Counts]:
        """How many jobs are in each place, of every queue that was ever used; ``high`` and ``low`` are no exception."""
        return self.access.run(self._counts(None))

    async def acounts(self) -> dict[str, Counts]:
        """See `counts`."""
        return await self.access.arun(self._counts(None))

    def totals(self) -> dict[str, Totals]:
        """How many jobs went which way since their queue was first used, of every queue.

        Counted by the very step that moves the job, so exact: a job that is retried twice and then done counts three times.
        """
        return self.access.run(self._totals())

    async def atotals(self) -> dict[str, Totals]:
        """See `totals`."""
        return await self.access.arun(self._totals())

    def get(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any] | None:
        """What is stored of a job now, or None.

        Args:
            id: Its id, or a record of it.
            queue: Its queue, which spares looking into all of them; a record tells it.

        Raises:
            DeclarationError: It is neither an id nor a record.
        """
        return self.access.run(self._get(*named("get", id, queue)))

    async def aget(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any] | None:
        """See `get`."""
        return await self.access.arun(self._get(*named("aget", id, queue)))

    def find(
        self,
        *,
        queue: str | None = None,
        place: Place | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | JobRecord[Any] | None = None,
    ) -> list[JobRecord[Any]]:
        """Jobs by queue, place and kind, at most ``limit``, in the order in which they stand there.

        Args:
            queue: Only of this queue.
            place: Only in this place.
            name: Only of this kind.
            limit: How many at most.
            after: Go on behind this job, the last one of the page before. Its record, or its `JobRecord.cursor`, leads on
                even when the job has left since; its id only while it is there. Behind a ready job that has left comes the
                head of its list, from which claims take jobs: what was left standing before it comes again.

        Raises:
            JobNotFound: The id ``after`` is not there any more, or the job is in none of these queues and places.
            DeclarationError: ``after`` is neither an id nor a record.
            ValueError: There is no such place, or ``limit`` is below 1.
        """
        return self.access.run(in_parts(self._find(queue, place, name, limit, after)))

    async def afind(
        self,
        *,
        queue: str | None = None,
        place: Place | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | JobRecord[Any] | None = None,
    ) -> list[JobRecord[Any]]:
        """See `find`."""
        return await self.access.arun(in_parts(self._find(queue, place, name, limit, after)))

    def scan(
        self, *, queue: str | None = None, place: Place | None = None, name: str | None = None
    ) -> Iterator[JobRecord[Any]]:
        """All jobs, one after the other and in no order, while runners and people move them.

        A job that is there all the time, from the first step to the last, comes exactly once, and none comes twice. With
        ``place`` that is: in that place all the time. One that comes or leaves meanwhile may come or not. Each is as it was
        when it was read, up to 500 jobs ahead; what has been done with those before it does not matter.

        It takes as long as there are jobs: of that place in ``waiting``, ``working`` and ``dead``, of the whole queue in
        ``ready`` and without ``place``. It remembers the ids that it has answered of one queue.

        Args:
            queue: Only of this queue.
            place: Only in this place.
            name: Only of this kind.

        Returns:
            An iterator; each step asks the storage when it needs to.

        Raises:
            DeclarationError: There is no such queue.
            ValueError: There is no such place.
            NotApplied: In a step: the storage cannot be reached, begin again.
        """
        self._check(queue, place, name)
        return self._scanned(queue, place, name)

    def _scanned(self, queue: str | None, place: Place | None, name: str | None) -> Iterator[JobRecord[Any]]:
        walk = Scan(self.access.run(self._queues(queue)), place, name, longest_record(self.max_payload))
        while page := self.access.run(in_parts(walk.page())):
            yield from page

    def ascan(
        self, *, queue: str | None = None, place: Place | None = None, name: str | None = None
    ) -> AsyncIterator[JobRecord[Any]]:
        """See `scan`; to be gone through by ``async for``."""
        self._check(queue, place, name)
        return self._ascanned(queue, place, name)

    async def _ascanned(
        self, queue: str | None, place: Place | None, name: str | None
    ) -> AsyncIterator[JobRecord[Any]]:  # fmt: skip
        walk = Scan(await self.access.arun(self._queues(queue)), place, name, longest_record(self.max_payload))
        while page := await self.access.arun(in_parts(walk.page())):
            for record in page:
                yield record

    def dead(
        self, *, queue: str | None = None, limit: int = 100, after: str | JobRecord[Any] | None = None
    ) -> list[JobRecord[Any]]:  # fmt: skip
        """Jobs that were given up, those longest dead first."""
        return self.find(queue=queue, place="dead", limit=limit, after=after)

    async def adead(
        self, *, queue: str | None = None, limit: int = 100, after: str | JobRecord[Any] | None = None
    ) -> list[JobRecord[Any]]:  # fmt: skip
        """See `dead`."""
        return await self.afind(queue=queue, place="dead", limit=limit, after=after)

    def runners(self) -> list[RunnerInfo]:
        """The runners that gave a sign of life within their lease."""
        return self.access.run(live_runners(self.access.keys, self.access.clock()))

    async def arunners(self) -> list[RunnerInfo]:
        """See `runners`."""
        return await self.access.arun(live_runners(self.access.keys, self.access.clock()))

    def decode(self, record: JobRecord[R]) -> Call[R]:
        """The call in a record.

        Raises:
            UnknownJob: Its kind is not declared here.
            PayloadError: Its arguments do not fit the kind.
            DeclarationError: It is no record.
        """
        if not isinstance(record, JobRecord):
            raise DeclarationError(f"decode() takes a record, as get() answers it for an id, not {shown(record)}")
        kind = self.registry.get(record.name)
        if kind is None:
            raise UnknownJob(
                f"job {printable(record.id)} is of the kind {quoted(record.name)}, which is not declared here; see imports="
            )
        return kind.decode(record.payload)

    # --------------------------------------------------------------------------------------------------------- flows

    def _queues(self, queue: str | None) -> Flow[list[QueueKeys]]:
        names = (
            [check_known_queue(queue, self._queue_names)]
            if queue is not None
            else (yield from lookup.queues(self.access.keys, self.access.clock().now()))
        )
        return [queue_keys(self.access.keys.scope, name) for name in names]

    def _check(self, queue: str | None, place: object, name: object) -> None:
        if queue is not None:
            check_known_queue(queue, self._queue_names)
        if place is not None and place not in get_args(Place):
            raise ValueError(f"there is no place {place!r}: it is one of {', '.join(get_args(Place))}")
        if name is not None and not isinstance(name, str):
            raise DeclarationError(f"name= is the name of a kind, such as 'shop.mail.send', not {shown(name)}")

    def _counts(self, queues: list[str] | None) -> Flow[dict[str, Counts]]:
        names = (yield from lookup.queues(self.access.keys, self.access.clock().now())) if queues is None else queues
        sizes = yield from lookup.sizes([queue_keys(self.access.keys.scope, name) for name in names])
        return {name: Counts(*size) for name, size in zip(names, sizes, strict=True)}

    def _totals(self) -> Flow[dict[str, Totals]]:
        queues = yield from self._queues(None)
        counted = yield from lookup.totals(queues)
        return {queue.queue: Totals(**each) for queue, each in zip(queues, counted, strict=True)}

    def _get(self, id: bytes, queue: str | None) -> Flow[JobRecord[Any] | None]:
        where = yield from lookup.locate((yield from self._queues(queue)), id, longest_record(self.max_payload))
        return None if where is None else record_of(id, where[0].queue, where[1])

    def _find(
        self,
        queue: str | None,
        place: Place | None,
        name: str | None,
        limit: int,
        after: str | JobRecord[Any] | None,
        refused: dict[str, StorageRefused] | None = None,
    ) -> Flow[list[JobRecord[Any]]]:
        self._check(queue, place, name)
        if isinstance(after, JobRecord):
            after = after.cursor
        elif after is not None:
            named("find", after, None, what="after=")
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit!r}")
        keys = yield from self._queues(queue)
        places = lookup.PLACES_IN_ORDER if place is None else (place,)
        max_bytes = longest_record(self.max_payload)
        return (yield from lookup.find(keys, places, name, limit, after, max_bytes, refused))


def counts_apart(access: Access) -> Flow[tuple[dict[str, Counts], dict[str, StorageRefused]]]:
    """What `Looking.counts` answers, of the queues that can be read; and how each other one is refused.

    Raises:
        StorageRefused: All of them are refused.
    """
    names = yield from lookup.queues(access.keys, access.clock().now())
    sizes = yield from lookup.sizes_apart([queue_keys(access.keys.scope, name) for name in names])
    found = [*zip(names, sizes, strict=True)]
    counts = {name: Counts(*size) for name, size in found if not isinstance(size, StorageRefused)}
    return counts, {name: size for name, size in found if isinstance(size, StorageRefused)}


def find_apart(
    jobs: Looking, queue: str | None, place: Place | None, name: str | None, limit: int, after: str | None
) -> tuple[list[JobRecord[Any]], dict[str, StorageRefused]]:
    """What `Looking.find` answers of the queues that can be read; and how each other one is refused.

    Raises:
        StorageRefused: All of them are refused.
    """
    refused: dict[str, StorageRefused] = {}
    flow = jobs._find(queue, place, name, limit, after, refused)  # noqa: SLF001 - its other half
    return jobs.access.run(in_parts(flow)), refused
