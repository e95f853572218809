"""The duties that ask what the namespace has: how long its runners' leases are, and which queues there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.flows import Flow, Read, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys, queue_keys
from jobqueue.lookup import queue_names, registry, search
from jobqueue.runner_info import read_leases
from jobqueue.storage.ops import Page

__all__ = ["Discovery"]

FOREVER_MS: Final = 2**52
SEARCH_PAGES: Final = 4
"""Of a search for lost registrations per round: a server with ten million keys is gone through in about an hour."""


class Discovery:
    """What one runner knows of its namespace.

    Args:
        keys: The namespace.
        queues: Answers the queues that the runner serves.
        lease: Its own lease in ms.
        moment: Reads the clocks.
        tell: Called with the name of each queue, once.
    """

    def __init__(
        self,
        keys: NamespaceKeys,
        queues: Callable[[], list[QueueKeys]],
        *,
        lease: int,
        moment: Callable[[], Moment],
        tell: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._queues = queues
        self._lease = lease
        self._moment = moment
        self._tell = tell
        self._leases: list[int] | None = None
        self._names: list[str] = []
        self._fields = frozenset[bytes]()
        self._told: set[str] = set()

    def leases(self) -> tuple[int, int]:
        """The shortest and the longest lease in use, in ms."""
        leases = [self._lease, *(self._leases or ())]
        # Nobody has said yet how long leases are: none is too long to be true.
        return min(leases), max(leases) if self._leases is not None else FOREVER_MS

    def all_queues(self) -> list[QueueKeys]:
        """All queues of the namespace, as far as is known."""
        return [queue_keys(self._keys.scope, name) for name in self._names]

    def ask_leases(self) -> Flow[None]:
        """Ask how long the leases of the namespace's runners are."""
        [leases] = yield Read((Page(self._keys.leases, transitions.LIMIT),))
        self._leases = read_leases(leases)

    def ask_queues(self) -> Flow[None]:
        """Ask which queues the namespace has, and enter those served that are missing there."""
        known = yield from registry(self._keys)
        found = yield from search(self._keys, known, self._moment().now, pages=SEARCH_PAGES)
        if not known.fields | found <= self._fields:
            self._names = queue_names(known.fields | found)
        self._fields = known.fields | found
        for name in self._names:
            if name not in self._told:
                self._told.add(name)
                self._tell(name)
        missing = [queue.queue for queue in self._queues() if queue.queue.encode() not in known.fields]
        for name in missing if known.whole else ():
            yield from send_one(transitions.register_queue(self._keys, name, self._moment().now))
