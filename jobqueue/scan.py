"""A walk over stored jobs that runners and people move meanwhile: what was there from begin to end comes once.

Two ways lead through a queue, neither by position. A sorted set is read by its own order, behind the (score, member) of the
last entry, whether that is still there or not. The hash of records is read by the cursor of the storage, which leads to
every job wherever it is at that moment: for all places at once, where a job may go from one that is still to be read to one
that was read already; and for ``ready``, a list, in which positions shift with every claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from jobqueue.flows import Flow, Read, read_some
from jobqueue.keys import QueueKeys
from jobqueue.record import JobRecord, record_of
from jobqueue.storage.ops import RECORDS, HashKey, Ids, Page, Place, SetKey

__all__ = ["Scan"]

PAGE: Final = 500


class Scan:
    """One walk.

    Args:
        queues: The queues to walk through.
        place: Only jobs in this place; None: wherever they are.
        name: Only jobs of this kind.
        max_bytes: Of records that are read at once, and of the longest that is read.
    """

    def __init__(self, queues: Iterable[QueueKeys], place: Place | None, name: str | None, max_bytes: int) -> None:
        self._queues = list(queues)
        self._max_bytes = max_bytes
        self._unread: list[bytes] = []  # of the ids of the page that was read last
        self._place = place
        self._name = name
        self._after: Any = None
        self._yielded: set[bytes] = set()

    def page(self) -> Flow[list[JobRecord[Any]]]:
        """Some jobs that did not come before; none at the end."""
        found: list[JobRecord[Any]] = []
        while self._queues and not found:
            queue = self._queues[0]
            if not self._unread:
                ids = yield from self._next_ids(queue)
                self._unread = [id for id in dict.fromkeys(ids) if id not in self._yielded]
            kept = yield from read_some(queue.scope, self._unread, self._max_bytes)
            del self._unread[: len(kept)]
            for id, one in kept:
                if one is None or self._place not in (None, one.place):
                    continue  # it has left since its id was read
                record = record_of(id, queue.queue, one)
                if self._name in (None, record.name):
                    found.append(record)
                    self._yielded.add(id)
            if self._after is None and not self._unread:
                del self._queues[0]
                self._yielded.clear()
        return found

    def _next_ids(self, queue: QueueKeys) -> Flow[Iterable[bytes]]:
        key: SetKey
        match self._place:
            case "waiting":
                key = queue.waiting
            case "working":
                key = queue.working
            case "dead":
                key = queue.dead
            case _:
                [page] = yield Read((Ids(HashKey(queue.scope, RECORDS), PAGE, self._after),))
                self._after = page.next
                return page.ids  # type: ignore[no-any-return]
        [entries] = yield Read((Page(key, PAGE, after=self._after),))
        self._after = (entries[-1][1], entries[-1][0]) if len(entries) == PAGE else None
        return [member for member, _ in entries]
