"""`Looking`: what a `JobQueue` offers to those who look at jobs and operate on them."""

from __future__ import annotations

from typing import Any, get_args

import attrs

from jobqueue import lookup
from jobqueue.access import Access
from jobqueue.audit import Audit, Watch, audit
from jobqueue.errors import UnknownJob
from jobqueue.flows import Flow
from jobqueue.job import Call
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.options import check_known_queue
from jobqueue.record import JobRecord, R, record_of
from jobqueue.registry import Registry
from jobqueue.runner_info import RunnerInfo, live_runners
from jobqueue.storage.ops import Place

__all__ = ["Counts", "Looking"]


@attrs.frozen
class Counts:
    """How many jobs of a queue are in each place."""

    waiting: int
    ready: int
    working: int
    dead: int


class Looking:
    """Looks at the jobs that are stored and operates on them."""

    access: Access
    registry: Registry
    _queue_names: frozenset[str] | None

    def length(self, queue: str) -> int:
        """How many jobs of a queue are ready to be run now."""
        return self.access.run(self._counts([check_known_queue(queue, self._queue_names)]))[queue].ready

    async def alength(self, queue: str) -> int:
        """See `length`."""
        return (await self.access.arun(self._counts([check_known_queue(queue, self._queue_names)])))[queue].ready

    def counts(self) -> dict[str, Counts]:
        """How many jobs are in each place, of every queue that was ever used."""
        return self.access.run(self._counts(None))

    async def acounts(self) -> dict[str, Counts]:
        """See `counts`."""
        return await self.access.arun(self._counts(None))

    def get(self, id: str, *, queue: str | None = None) -> JobRecord[Any] | None:
        """What is stored of a job, or None; ``queue`` spares looking into all of them."""
        return self.access.run(self._get(id, queue))

    async def aget(self, id: str, *, queue: str | None = None) -> JobRecord[Any] | None:
        """See `get`."""
        return await self.access.arun(self._get(id, queue))

    def find(
        self,
        *,
        queue: str | None = None,
        place: Place | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobRecord[Any]]:
        """Jobs by queue, place and kind, at most ``limit``, in the order in which they stand there.

        Args:
            queue: Only of this queue.
            place: Only in this place.
            name: Only of this kind.
            limit: How many at most.
            after: Go on behind the job with this id, the last one of the page before.

        Raises:
            JobNotFound: The job ``after`` is not there any more.
        """
        return self.access.run(self._find(queue, place, name, limit, after))

    async def afind(
        self,
        *,
        queue: str | None = None,
        place: Place | None = None,
        name: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[JobRecord[Any]]:
        """See `find`."""
        return await self.access.arun(self._find(queue, place, name, limit, after))

    def dead(self, *, queue: str | None = None, limit: int = 100, after: str | None = None) -> list[JobRecord[Any]]:
        """Jobs that were given up, those longest dead first."""
        return self.find(queue=queue, place="dead", limit=limit, after=after)

    async def adead(
        self, *, queue: str | None = None, limit: int = 100, after: str | None = None
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
        """
        kind = self.registry.get(record.name)
        if kind is None:
            raise UnknownJob(
                f"job {record.id} is of the kind {record.name!r}, which is not declared here; see imports="
            )
        return kind.decode(record.payload)

    # ------------------------------------------------------------------------------------------------------ operating

    def requeue(self, id: str, *, queue: str | None = None) -> JobRecord[Any]:
        """Make a dead or waiting job ready now; its count of attempts stays, so it gets one more run.

        Raises:
            JobNotFound: There is none with this id.
            StorageRefused: It is being run.
        """
        return self.access.run(self._operate(lookup.requeue, id, queue))

    async def arequeue(self, id: str, *, queue: str | None = None) -> JobRecord[Any]:
        """See `requeue`."""
        return await self.access.arun(self._operate(lookup.requeue, id, queue))

    def delete(self, id: str, *, queue: str | None = None) -> JobRecord[Any]:
        """Forget a job that is waiting, ready or dead; answers what it was.

        A ready job is searched in its list, which takes the server about 7 ms in a queue of a million.

        Raises:
            JobNotFound: There is none with this id.
            StorageRefused: It is being run.
        """
        return self.access.run(self._operate(lookup.delete, id, queue))

    async def adelete(self, id: str, *, queue: str | None = None) -> JobRecord[Any]:
        """See `delete`."""
        return await self.access.arun(self._operate(lookup.delete, id, queue))

    def audit(self, *, mend: bool = False, queue: str | None = None, watch: Watch | None = None) -> Audit:
        """Find jobs that something other than jobqueue left in no place, which no other call shows, or in several.

        With ``mend`` they go to dead with the reason, and entries and claims of which no job is left are removed. Runners
        may be at work meanwhile. ``watch`` is called now and then with the number of ids looked at so far.
        """
        return self.access.run(self._audit(mend, queue, watch))

    async def aaudit(self, *, mend: bool = False, queue: str | None = None, watch: Watch | None = None) -> Audit:
        """See `audit`."""
        return await self.access.arun(self._audit(mend, queue, watch))

    # --------------------------------------------------------------------------------------------------------- flows

    def _queues(self, queue: str | None) -> Flow[list[QueueKeys]]:
        names = (
            [check_known_queue(queue, self._queue_names)]
            if queue is not None
            else (yield from lookup.queues(self.access.keys, self.access.clock().now()))
        )
        return [queue_keys(self.access.keys.scope, name) for name in names]

    def _counts(self, queues: list[str] | None) -> Flow[dict[str, Counts]]:
        names = (yield from lookup.queues(self.access.keys, self.access.clock().now())) if queues is None else queues
        sizes = yield from lookup.sizes([queue_keys(self.access.keys.scope, name) for name in names])
        return {name: Counts(*size) for name, size in zip(names, sizes, strict=True)}

    def _get(self, id: str, queue: str | None) -> Flow[JobRecord[Any] | None]:
        where = yield from lookup.locate((yield from self._queues(queue)), id)
        return None if where is None else record_of(id.encode(), where[0].queue, where[1])

    def _find(
        self, queue: str | None, place: Place | None, name: str | None, limit: int, after: str | None
    ) -> Flow[list[JobRecord[Any]]]:
        if place is not None and place not in get_args(Place):
            raise ValueError(f"there is no place {place!r}: it is one of {', '.join(get_args(Place))}")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        keys = yield from self._queues(queue)
        places = lookup.PLACES_IN_ORDER if place is None else (place,)
        return (yield from lookup.find(keys, places, name, limit, after))

    def _operate(self, operation: Any, id: str, queue: str | None) -> Flow[JobRecord[Any]]:
        keys = yield from self._queues(queue)
        record: JobRecord[Any] = yield from operation(keys, id)
        return record

    def _audit(self, mend: bool, queue: str | None, watch: Watch | None) -> Flow[Audit]:
        return (yield from audit((yield from self._queues(queue)), mend, self.access.clock(), watch))
