"""`Operating`: what a `JobQueue` offers to those who operate on the jobs that are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobqueue import lookup
from jobqueue.access import Access
from jobqueue.asked import named
from jobqueue.audit import Audit, Watch, audit
from jobqueue.errors import StorageRefused
from jobqueue.flows import Flow, in_parts
from jobqueue.keys import QueueKeys
from jobqueue.record import JobRecord
from jobqueue.transitions import longest_record
from jobqueue.words import belongs_to

__all__ = ["Operating"]


@belongs_to("JobQueue")
class Operating:
    """Moves, removes and mends the jobs that are stored."""

    access: Access
    max_payload: int
    if TYPE_CHECKING:  # it stands in `Looking`

        def _queues(self, queue: str | None) -> Flow[list[QueueKeys]]: ...

    def requeue(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any]:
        """Make a dead or waiting job ready now; its count of attempts stays, so it gets one more run.

        Args:
            id: Its id, or a record of it.
            queue: Its queue, which spares looking into all of them; a record tells it.

        Raises:
            JobNotFound: There is none with this id.
            DeclarationError: It is neither an id nor a record.
            StorageRefused: It is being run.
        """
        return self.access.run(self._operate(lookup.requeue, *named("requeue", id, queue)))

    async def arequeue(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any]:
        """See `requeue`."""
        return await self.access.arun(self._operate(lookup.requeue, *named("arequeue", id, queue)))

    def delete(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any]:
        """Forget a job that is waiting, ready or dead; answers what it was.

        A ready job is searched in its list, which takes the server about 7 ms in a queue of a million.

        Args:
            id: Its id, or a record of it.
            queue: Its queue, which spares looking into all of them; a record tells it.

        Raises:
            JobNotFound: There is none with this id.
            DeclarationError: It is neither an id nor a record.
            StorageRefused: It is being run.
        """
        return self.access.run(self._operate(lookup.delete, *named("delete", id, queue)))

    async def adelete(self, id: str | JobRecord[Any], *, queue: str | None = None) -> JobRecord[Any]:
        """See `delete`."""
        return await self.access.arun(self._operate(lookup.delete, *named("adelete", id, queue)))

    def audit(self, *, mend: bool = False, queue: str | None = None, watch: Watch | None = None) -> Audit:
        """Find jobs that something other than jobqueue left in no place, which no other call shows, or in several.

        With ``mend`` they go to dead with the reason, and entries and claims of which no job is left are removed. Runners
        may be at work meanwhile. ``watch`` is called now and then with the number of ids looked at so far.
        """
        return self.access.run(in_parts(self._audit(mend, queue, watch)))

    async def aaudit(self, *, mend: bool = False, queue: str | None = None, watch: Watch | None = None) -> Audit:
        """See `audit`."""
        return await self.access.arun(in_parts(self._audit(mend, queue, watch)))

    # ----------------------------------------------------------------------------------------------------------- flows

    def _operate(self, operation: Any, id: bytes, queue: str | None) -> Flow[JobRecord[Any]]:
        keys = yield from self._queues(queue)
        record: JobRecord[Any] = yield from operation(keys, id, longest_record(self.max_payload))
        return record

    def _audit(
        self, mend: bool, queue: str | None, watch: Watch | None, refused: dict[str, StorageRefused] | None = None
    ) -> Flow[Audit]:
        queues = yield from self._queues(queue)
        return (yield from audit(queues, mend, self.access.clock(), watch, longest_record(self.max_payload), refused))


def audit_apart(
    jobs: Operating, mend: bool, queue: str | None, watch: Watch
) -> tuple[Audit, dict[str, StorageRefused]]:  # fmt: skip
    """What `Operating.audit` answers of the queues that can be read; and how each other one is refused.

    Raises:
        StorageRefused: All of them are refused.
    """
    refused: dict[str, StorageRefused] = {}
    flow = jobs._audit(mend, queue, watch, refused)  # noqa: SLF001 - its other half
    return jobs.access.run(in_parts(flow)), refused
