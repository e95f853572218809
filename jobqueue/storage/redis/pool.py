"""Connections to one server: taken for one exchange, given back; thrown away when anything went wrong.

At most so many are open at a time. Who finds none waits for one of the own process, in order, as long as its call may take.
Calls may be interrupted anywhere, also by other calls of the same thread: see `Links`.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import operator
import os
import sys
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from redis import exceptions

from jobqueue.clock import monotonic_s
from jobqueue.errors import NotApplied
from jobqueue.storage.limits import Limits
from jobqueue.storage.redis.faults import exhausted, lost
from jobqueue.storage.redis.flow import Request
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.storage.redis.link import (
    AsyncConnect,
    AsyncConnection,
    Connect,
    Connection,
    Work,
    aconnected,
    areceive,
    ausable,
    connected,
    left,
    nothing,
    pack_one,
    raise_thrown,
    receive,
    send,
    stale,
    usable,
)
from jobqueue.storage.redis.links import Link, Links, Waiter

__all__ = ["AsyncPool", "Pool"]

_WORDS: Final = operator.itemgetter(1)
LOOK_SECONDS: Final = 0.1
"""How often one who waits looks again: what was thrown away by an exception tells nobody."""


class Pool:
    """Connections to one server. Safe to use from many threads, in a forked child, in signal handlers and finalizers.

    Args:
        server: What the server has to be.
        label: What it is called in messages.
        connect: Makes a connection, not yet connected; called anew after every loss, since the primary may be another.
        limits: How many there are at most, and how long an answer is waited for.
    """

    def __init__(self, server: Guarded, label: str, connect: Connect, limits: Limits) -> None:
        self.server = server
        self.label = label
        self.connect = connect
        self.limits = limits
        self._patience = limits.patience
        self._links: Links[Connection, Waiter] = Links(limits.max_connections)

    def _mine(self) -> Links[Connection, Waiter]:
        links = self._links
        if links.pid != os.getpid():
            # The parent's sockets are dropped unused: both of us writing to one would mix our requests.
            links = self._links = Links(self.limits.max_connections)
        return links

    def exchange(self, request: Request, work: Work = nothing, end: float | None = None) -> list[Any]:
        """Send the commands in one piece, do ``work``, and read as many answers; errors are answers too.

        Args:
            request: The commands; for which scope does not matter to a single server.
            work: What to do meanwhile.
            end: When to give up waiting for a connection, connecting, and waiting for the answer; without it each of them
                has a time of its own.

        Returns:
            For each command what the server answered, an error of the client library if it answered one,
            `NotApplied` if there is no connection, or `OutcomeUnknown`.
        """
        packed = b"".join(map(pack_one, map(_WORDS, request)))
        links = self._mine()
        link = self._idle(links)
        if link is None:
            work()  # to connect can take seconds, and the work should not wait for that
            try:
                link = self._take(links, monotonic_s() + self._patience if end is None else end)
            except NotApplied as error:
                return [error] * len(request)
        connection = link.connection
        assert connection is not None
        replies: list[Any] = []
        try:
            answered = monotonic_s() + self._patience
            failed = send(connection, packed, answered if end is None or answered < end else end)
            work()  # not where its errors would pass for those of the connection
            failed = failed or receive(connection, len(request), replies)
            if failed is not None:
                raise_thrown(failed)
        except BaseException:
            self._drop(links, link)  # or the next one would read the answer to this
            raise
        if failed is not None:
            replies += [lost(self.label, failed)] * (len(request) - len(replies))
        if failed is not None or stale(replies):
            self._drop(links, link)
            self._close(links)  # the others may have broken in the same way, and the next try should not meet them
        else:
            self._give(links, link)
        return replies

    def _idle(self, links: Links[Connection, Waiter]) -> Link[Connection] | None:
        while (link := links.pop()) is not None:
            if link.connection is not None and usable(link.connection):
                return link
            self._drop(links, link)
        return None

    def _take(self, links: Links[Connection, Waiter], end: float) -> Link[Connection]:
        """A link that is connected. Raises `NotApplied`."""
        began = monotonic_s()
        while True:
            link = self._idle(links) or links.add()
            failed: NotApplied | None = None
            if link is None and self._interrupts():
                link = links.add_extra()  # what it would wait for is held by what waits for it
            if link is not None and link.connection is None:
                try:
                    if left(end) <= 0:
                        raise exhausted(self.label, monotonic_s() - began)
                    link.connection = connected(self, end)
                except NotApplied as error:
                    self._drop(links, link)
                    link = None
                    if not error.passes or not len(links):
                        raise
                    failed = error  # the server may have no connection left, but one of our own may be given back
                except BaseException:
                    self._drop(links, link)
                    raise
            if link is None:
                link = self._wait(links, end)
            if link is not None:
                return link
            if left(end) <= 0:
                raise failed or exhausted(self.label, monotonic_s() - began, self.limits.max_connections)

    def _interrupts(self) -> bool:
        """Whether this thread is in another exchange of this pool, which a signal or a finalizer has interrupted.

        Seen on its stack, when there is nothing left to take: a note of who uses what could be interrupted, too.
        """
        exchanges = 0
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the name it has
        while frame is not None:
            if frame.f_code is _EXCHANGE and frame.f_locals.get("self") is self:
                exchanges += 1
            frame = frame.f_back
        return exchanges > 1

    def _wait(self, links: Links[Connection, Waiter], end: float) -> Link[Connection] | None:
        """Wait until somebody gives one back; None if somebody threw one away, or to look again."""
        waiter = Waiter()
        links.waiters.append(waiter)
        try:
            # What was given back before it was seen that somebody waits.
            if (link := self._idle(links)) is not None:
                return link
            waiter.woken.acquire(timeout=min(left(end), LOOK_SECONDS))
        finally:
            with contextlib.suppress(ValueError):
                links.waiters.remove(waiter)
        # What comes after this dies with the waiter, and its place is free again.
        link, waiter.link = waiter.link, None
        if link is None or (link.connection is not None and usable(link.connection)):
            return link
        self._drop(links, link)
        return None

    def _give(self, links: Links[Connection, Waiter], link: Link[Connection]) -> None:
        """Take a link back, all of whose answers were read."""
        if link.extra:
            self._drop(links, link)
            return
        link.since = monotonic_s()
        if links.waiters and self._hand(links, link):
            return
        links.idle.append(link)
        if len(links.idle) > 1 and not links.watched:
            links.watched = True
            try:
                # Not a `threading.Thread`, whose start takes a lock: this may be a signal handler that interrupted one.
                _thread.start_new_thread(_watch, (weakref.ref(self),))
            except RuntimeError:  # at the end of the interpreter, or there are too many threads just now
                links.watched = False

    def _hand(self, links: Links[Connection, Waiter], link: Link[Connection] | None) -> bool:
        try:
            waiter = links.waiters.popleft()
        except IndexError:
            return False
        waiter.link = link
        waiter.woken.release()
        return True

    def _drop(self, links: Links[Connection, Waiter], link: Link[Connection]) -> None:
        if link.connection is not None:
            link.connection.disconnect()
        links.remove(link)
        self._hand(links, None)

    def close(self) -> None:
        """Close the connections that lie idle."""
        self._close(self._mine())

    def _close(self, links: Links[Connection, Waiter]) -> None:
        while (link := links.pop()) is not None:
            self._drop(links, link)

    def give_back(self) -> float | None:
        """Close what was idle for too long; answers in how many seconds to look again, if at all."""
        links = self._mine()
        while (link := links.overdue()) is not None:
            self._drop(links, link)
        pause = links.next_look()
        if pause is None:
            links.watched = False
            pause = links.next_look()  # given back before that was seen
            links.watched = pause is not None
        return pause


_EXCHANGE: Final = Pool.exchange.__code__


def _watch(pool: weakref.ref[Pool]) -> None:
    """Give idle connections back, on a thread that there is only while there are several."""
    while (alive := pool()) is not None:
        pause = alive.give_back()
        del alive
        if pause is None:
            return
        time.sleep(max(pause, 0.001))


class AsyncPool:
    """The same for one event loop.

    Args:
        server: What the server has to be.
        label: What it is called in messages.
        connect: Makes a connection, not yet connected.
        limits: See `Pool`.
    """

    def __init__(self, server: Guarded, label: str, connect: AsyncConnect, limits: Limits) -> None:
        self.server = server
        self.label = label
        self.connect = connect
        self.limits = limits
        self._patience = limits.patience
        self._links: Links[AsyncConnection, asyncio.Future[Link[AsyncConnection] | None]] = Links(
            limits.max_connections
        )
        self._giving_back: asyncio.Task[None] | None = None

    async def exchange(self, request: Request, end: float | None = None) -> list[Any]:
        """See `Pool.exchange`. A call that is cancelled drops its connection."""
        packed = b"".join(map(pack_one, map(_WORDS, request)))
        try:
            link = await self._take(monotonic_s() + self._patience if end is None else end)
        except NotApplied as error:
            return [error] * len(request)
        connection = link.connection
        assert connection is not None
        replies: list[Any] = []
        patience = self._patience
        try:
            async with asyncio.timeout(patience if end is None else min(patience, left(end))):
                await connection.send_packed_command([packed], check_health=False)
                await areceive(connection, len(request), replies)
        except (exceptions.RedisError, OSError) as error:
            await self._drop(link)
            await self.close()
            return [*replies, *[lost(self.label, error)] * (len(request) - len(replies))]
        except BaseException:
            await self._drop(link)  # or the next one would read the answer to this
            raise
        if stale(replies):
            await self._drop(link)
            await self.close()
        else:
            self._give(link)
        return replies

    async def _take(self, end: float) -> Link[AsyncConnection]:
        """See `Pool._take`."""
        links = self._links
        began = monotonic_s()
        while True:
            while (link := links.pop()) is not None:
                if await self._is_usable(link):
                    return link
            link = links.add()
            failed: NotApplied | None = None
            if link is not None:
                try:
                    if left(end) <= 0:
                        raise exhausted(self.label, monotonic_s() - began)
                    link.connection = await aconnected(self, end)
                except NotApplied as error:
                    await self._drop(link)
                    if not error.passes or not len(links):
                        raise
                    failed = error
                except BaseException:
                    await self._drop(link)
                    raise
                else:
                    return link
            if (link := await self._wait(end)) is not None:
                return link
            if left(end) <= 0:
                raise failed or exhausted(self.label, monotonic_s() - began, self.limits.max_connections)

    async def _wait(self, end: float) -> Link[AsyncConnection] | None:
        """See `Pool._wait`."""
        waiter: asyncio.Future[Link[AsyncConnection] | None] = asyncio.get_running_loop().create_future()
        self._links.waiters.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=min(left(end), LOOK_SECONDS))
        except asyncio.CancelledError:
            if waiter.done() and (link := waiter.result()) is not None:
                self._give(link)
            raise
        finally:
            waiter.cancel()
            with contextlib.suppress(ValueError):
                self._links.waiters.remove(waiter)
        link = None if waiter.cancelled() else waiter.result()
        return link if link is not None and await self._is_usable(link) else None

    async def _is_usable(self, link: Link[AsyncConnection]) -> bool:
        """Whether its connection still is one; else it is dropped, as it is if the call is cancelled meanwhile."""
        is_usable = False
        try:
            is_usable = link.connection is not None and await ausable(link.connection)
        finally:
            if not is_usable:
                await self._drop(link)
        return is_usable

    def _give(self, link: Link[AsyncConnection]) -> None:
        """See `Pool._give`."""
        link.since = monotonic_s()
        if self._hand(link):
            return
        self._links.idle.append(link)
        if not self._links.watched and (pause := self._links.next_look()) is not None:
            self._look_later(pause)

    def _hand(self, link: Link[AsyncConnection] | None) -> bool:
        while self._links.waiters:
            waiter = self._links.waiters.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return True
        return False

    async def _drop(self, link: Link[AsyncConnection]) -> None:
        self._links.remove(link)
        self._hand(None)
        if link.connection is not None:
            await link.connection.disconnect(nowait=True)

    def _look_later(self, seconds: float) -> None:
        self._links.watched = True
        asyncio.get_running_loop().call_later(seconds, _call, weakref.WeakMethod(self._look))

    def _look(self) -> None:
        self._giving_back = asyncio.ensure_future(self._give_back())

    async def _give_back(self) -> None:
        while (link := self._links.overdue()) is not None:
            await self._drop(link)
        self._links.watched = False
        if (pause := self._links.next_look()) is not None:
            self._look_later(pause)

    async def close(self) -> None:
        """See `Pool.close`."""
        while (link := self._links.pop()) is not None:
            await self._drop(link)


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if (alive := method()) is not None:
        alive()
