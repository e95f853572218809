"""The connections of one pool: which there are, which are idle, and who waits for one.

Nothing here takes a lock for longer than one operation of a list, because a call can be interrupted at any line by another
of the same thread: in a signal handler, or in a finalizer that the garbage collector runs. And by an exception that is
thrown into it, so nothing is counted either: a connection takes a place in the pool for as long as its `Link` lives, and
the interpreter ends that with the last reference to it.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from typing import Generic, TypeVar

from jobqueue.clock import monotonic_s
from jobqueue.storage.redis.link import AsyncConnection, Connection, left

__all__ = ["IDLE_SECONDS", "Link", "Links", "Waiter"]

IDLE_SECONDS: float = 60.0
"""A connection that nobody has used for so long is given back to the server, all but the last one."""

C = TypeVar("C", Connection, AsyncConnection)
W = TypeVar("W")


class Link(Generic[C]):
    """A place in a pool, and its connection.

    Attributes:
        connection: The connection, once there is one.
        number: Grows from one to the next of those that came when there was hardly a place; before that 0.
        since: When it was given back last.
        extra: Whether it is one more than there may be.
    """

    __slots__ = ("__weakref__", "connection", "extra", "number", "since")

    def __init__(self, *, extra: bool = False) -> None:
        self.connection: C | None = None
        self.number = 0
        self.since = 0.0
        self.extra = extra


class Links(Generic[C, W]):
    """The links of one process.

    Attributes:
        idle: Those that nobody uses, the longest unused first.
        waiters: Who waits for one, in order.
        watched: Whether somebody looks for those that are idle for too long.
    """

    def __init__(self, most: int) -> None:
        self.pid = os.getpid()
        self.idle: deque[Link[C]] = deque()
        self.waiters: deque[W] = deque()
        self.watched = False
        self._most = most
        self._numbers = itertools.count(1)
        # Each leaves by itself when it dies, by one call that nothing can interrupt.
        self._all: set[weakref.ref[Link[C]]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def _alive(self) -> list[Link[C]]:
        return [link for here in list(self._all) if (link := here()) is not None]

    def _entered(self, link: Link[C]) -> Link[C]:
        self._all.add(weakref.ref(link, self._all.discard))
        return link

    def pop(self) -> Link[C] | None:
        """An idle one, the latest used first."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def add(self) -> Link[C] | None:
        """A new one, if there is a place."""
        while True:
            # Entered first, numbered then, and looked at last: so whoever has a smaller number, or none yet, is seen and
            # counts as earlier. Of several that come at once too few may find a place, never too many.
            link = self._entered(Link[C]())
            if len(self._all) <= self._most:
                return link
            link.number = next(self._numbers)
            if sum(other.number < link.number for other in self._alive()) < self._most:
                return link
            self.remove(link)
            if len(self._all) >= self._most:
                return None

    def add_extra(self) -> Link[C]:
        """One more than there may be."""
        return self._entered(Link[C](extra=True))

    def remove(self, link: Link[C]) -> None:
        """Give its place back."""
        self._all.discard(weakref.ref(link))  # equal to the one that was entered, as long as the link lives

    def overdue(self) -> Link[C] | None:
        """One that was idle for too long; never the last one."""
        if len(self.idle) > 1 and (link := self._oldest()) is not None:
            if link.since + IDLE_SECONDS <= monotonic_s():
                return link
            self.idle.appendleft(link)
        return None

    def _oldest(self) -> Link[C] | None:
        try:
            return self.idle.popleft()
        except IndexError:
            return None

    def next_look(self) -> float | None:
        """In how many seconds the next one is overdue; None if there is at most one."""
        try:
            return left(self.idle[0].since + IDLE_SECONDS) if len(self.idle) > 1 else None
        except IndexError:
            return None


class Waiter:
    """A thread that waits for a link."""

    __slots__ = ("link", "woken")

    def __init__(self) -> None:
        self.link: Link[Connection] | None = None
        self.woken = threading.Lock()
        self.woken.acquire()
