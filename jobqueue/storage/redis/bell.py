"""Waiting for a scope to be rung, on a connection of its own.

The connection blocks in BLPOP on lists that hold at most one token each. The token is a hint: it is lost when the
connection breaks at the wrong moment, which costs latency and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import socket
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from redis import exceptions

from jobqueue.clock import monotonic_s
from jobqueue.storage.redis.compile import wake_key
from jobqueue.storage.redis.faults import harmless, unreachable
from jobqueue.storage.redis.flow import Request
from jobqueue.storage.redis.link import (
    AsyncConnection,
    Connection,
    aconnected,
    ausable,
    connected,
    pack,
    send,
    usable,
)
from jobqueue.storage.redis.pool import AsyncPool, Pool

__all__ = ["AsyncBell", "Bell", "Interrupts"]

PATIENCE: tuple[float, ...] = tuple(0.001 * 2**n for n in range(11))
"""Seconds to wait for the answer to BLPOP before it is asked again to end: the wish to end it may overtake it."""
MARGIN: float = 5.0
"""Seconds that the server may be late with the end of a wait before the connection counts as lost."""


def _blpop(scopes: Sequence[str], timeout: float) -> bytes:
    # A timeout of 0 would block for ever.
    return pack([(b"BLPOP", *map(wake_key, scopes), b"%.3f" % max(timeout, 0.001))])


def _rung(scopes: Sequence[str], answer: Any) -> str | None:
    """Which of the scopes the answer to BLPOP, list and token, is about."""
    return next((scope for scope in scopes if wake_key(scope) == answer[0]), None) if answer else None


def _unblock(connection: bytes) -> Request:
    """Ends the BLPOP of the connection: its answer comes at once then."""
    return [("", (b"CLIENT", b"UNBLOCK", connection))]


class Interrupts:
    """Interrupts of waits, from any thread and from signal handlers: through a pair of sockets, without a lock."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._hear, self._ring = socket.socketpair()
        for end in (self._hear, self._ring):
            end.setblocking(False)
            weakref.finalize(self, end.close)

    def _mine(self) -> None:
        if self._pid != os.getpid():
            self._open()  # a forked child must not interrupt its parent

    def interrupt(self) -> None:
        """End the wait that is under way, or the next one."""
        self._mine()
        with contextlib.suppress(BlockingIOError):  # full of interrupts already
            self._ring.send(b"i")

    def heard(self) -> bool:
        """Whether there were interrupts; forgets them."""
        self._mine()
        try:
            return bool(self._hear.recv(4096))
        except BlockingIOError:
            return False

    def fileno(self) -> int:
        """Readable when there was an interrupt."""
        return self._hear.fileno()


class Bell:
    """Waits for tokens of scopes, one thread at a time.

    Args:
        pool: The connections to the server, on one of which a wait is ended.
        interrupts: What ends a wait early.
    """

    def __init__(self, pool: Pool, interrupts: Interrupts | None = None) -> None:
        self._pool = pool
        self._interrupts = interrupts or Interrupts()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._connection: Connection | None = None
        self._id = b""

    def interrupt(self) -> None:
        """End the wait that is under way, or the next one."""
        self._interrupts.interrupt()

    def wait(self, scopes: Sequence[str], timeout: float) -> str | None:
        """Answer a scope whose token it took, or None after an interrupt, or after ``timeout`` seconds.

        Raises:
            NotApplied: The server cannot be reached.
        """
        if self._pid != os.getpid():
            self._reset()
        if timeout <= 0 or not self._turn.acquire(timeout=timeout):
            return None
        try:
            if self._interrupts.heard():
                return None
            connection = self._connected()
            failed = send(connection, _blpop(scopes, timeout), monotonic_s() + timeout + 2 * MARGIN)
            if failed is not None:
                raise failed
            if self._ended(connection, timeout + MARGIN):
                return _rung(scopes, connection.read_response())
            self._drop()
            return None
        except (exceptions.RedisError, OSError) as error:
            self._drop()
            raise unreachable(self._pool.label, error, scopes) from harmless(error)
        except BaseException:
            self._drop()
            raise
        finally:
            self._turn.release()

    def _ended(self, connection: Connection, seconds: float) -> bool:
        """Wait for the answer to BLPOP, or end it after an interrupt; answers whether there is, or will be, an answer."""
        poll = select.poll()
        poll.register(connection._sock, select.POLLIN)  # noqa: SLF001 - the library gives it no other name
        poll.register(self._interrupts, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(seconds * 1000)]
        if not ready:
            raise TimeoutError("no answer to BLPOP")
        if self._interrupts.fileno() not in ready or not self._interrupts.heard() or len(ready) > 1:
            return True
        poll.unregister(self._interrupts)
        for pause in PATIENCE:
            [ended] = self._pool.exchange(_unblock(self._id))
            if not isinstance(ended, int):
                return False  # forbidden to this user
            if ended or poll.poll(pause * 1000):
                return True
        return False

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or not usable(connection):
            connection = self._connection = connected(self._pool, monotonic_s() + self._pool.limits.patience)
            connection.send_packed_command([pack([(b"CLIENT", b"ID")])], check_health=False)
            with contextlib.suppress(exceptions.ResponseError):  # forbidden: an interrupt then costs the connection
                self._id = b"%d" % connection.read_response()
        return connection

    def _drop(self) -> None:
        connection, self._connection, self._id = self._connection, None, b""
        if connection is not None:
            connection.disconnect()

    def close(self) -> None:
        """Close the connection, unless somebody is waiting on it."""
        if self._turn.acquire(blocking=False):
            self._drop()
            self._turn.release()


class AsyncBell:
    """The same on an event loop."""

    def __init__(self, pool: AsyncPool, rung: asyncio.Event | None = None) -> None:
        self._pool = pool
        self._turn = asyncio.Lock()
        self._rung = rung or asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._id = b""

    def interrupt(self) -> None:
        """See `Bell.interrupt`; on the loop's own thread."""
        self._rung.set()

    async def wait(self, scopes: Sequence[str], timeout: float) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `Bell.wait`."""
        if timeout <= 0:
            return None
        try:
            async with asyncio.timeout(timeout):
                await self._turn.acquire()
        except TimeoutError:
            return None
        try:
            async with asyncio.timeout(timeout + MARGIN):
                return await self._wait(scopes, timeout)
        except (exceptions.RedisError, OSError) as error:
            await self._drop()
            raise unreachable(self._pool.label, error, scopes) from harmless(error)
        except BaseException:
            await self._drop()
            raise
        finally:
            self._turn.release()

    async def _wait(self, scopes: Sequence[str], timeout: float) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        if self._rung.is_set():
            self._rung.clear()
            return None
        connection = await self._connected()
        await connection.send_packed_command([_blpop(scopes, timeout)], check_health=False)
        answer = asyncio.ensure_future(connection.read_response(timeout=math.inf))
        rung = asyncio.ensure_future(self._rung.wait())
        try:
            await asyncio.wait((answer, rung), return_when=asyncio.FIRST_COMPLETED)
            if rung.done():
                self._rung.clear()
                if not await self._end(answer):
                    await self._drop()
                    return None
            return _rung(scopes, await answer)
        finally:
            rung.cancel()
            answer.cancel()

    async def _end(self, answer: asyncio.Future[Any]) -> bool:
        """End the BLPOP under way; answers whether there is, or will be, an answer. See `Bell._ended`."""
        for pause in PATIENCE:
            if answer.done():
                return True
            [ended] = await self._pool.exchange(_unblock(self._id))
            if not isinstance(ended, int):
                return False
            if ended:
                return True
            await asyncio.wait((answer,), timeout=pause)
        return answer.done()

    async def _connected(self) -> AsyncConnection:
        connection = self._connection
        if connection is None or not await ausable(connection):
            connection = self._connection = await aconnected(self._pool, monotonic_s() + self._pool.limits.patience)
            await connection.send_packed_command([pack([(b"CLIENT", b"ID")])], check_health=False)
            with contextlib.suppress(exceptions.ResponseError):
                self._id = b"%d" % await connection.read_response()
        return connection

    async def _drop(self) -> None:
        connection, self._connection, self._id = self._connection, None, b""
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """See `Bell.close`."""
        if not self._turn.locked():
            await self._drop()
