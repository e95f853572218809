"""Connections: taken from a pool, used for one exchange, given back; thrown away when anything went wrong.

The pools are our own, over the client library's `Connection`. Its clients and pools send again by themselves on many
paths (ten times by default, on timeouts too), which would carry out a batch more than once; a `Connection` never does.
And only here is it known whether an error came before or after the first byte was sent.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis import exceptions

from jobqueue.errors import NotApplied
from jobqueue.storage.redis.faults import REFUSALS, lost, unreachable
from jobqueue.storage.redis.guarded import QUESTIONS, Guarded

__all__ = [
    "CONNECT_SECONDS",
    "AsyncConnect",
    "AsyncConnection",
    "AsyncPool",
    "Command",
    "Connect",
    "Connection",
    "Pool",
    "Work",
    "aconnected",
    "ausable",
    "connected",
    "nothing",
    "pack",
    "usable",
]


def _pack_plain(command: tuple[bytes, ...]) -> bytes:
    return b"*%d\r\n%b" % (len(command), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in command]))


def _packer() -> Callable[[tuple[bytes, ...]], bytes]:
    try:
        from hiredis import pack_command
    except ImportError:
        return _pack_plain
    packer: Any = pack_command
    return packer  # type: ignore[no-any-return]


_pack_one: Final = _packer()


class Connection(Protocol):
    """What is used of a connection of redis-py (whose own has no types)."""

    _sock: Any

    def connect(self) -> None: ...  # noqa: D102
    def disconnect(self) -> None: ...  # noqa: D102
    def can_read(self) -> bool: ...  # noqa: D102
    def send_packed_command(self, command: list[bytes], check_health: bool) -> None: ...  # noqa: D102
    def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...  # noqa: D102


class AsyncConnection(Protocol):
    """The same of the asyncio flavour."""

    _reader: asyncio.StreamReader | None

    async def connect(self) -> None: ...  # noqa: D102
    async def disconnect(self, nowait: bool = False) -> None: ...  # noqa: D102
    async def can_read_destructive(self) -> bool: ...  # noqa: D102
    async def send_packed_command(self, command: list[bytes], check_health: bool) -> None: ...  # noqa: D102
    async def read_response(  # noqa: D102
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109
        *,
        disconnect_on_error: bool = True,
    ) -> Any: ...


Command: TypeAlias = tuple[bytes, ...]
Connect: TypeAlias = Callable[[], Connection]
AsyncConnect: TypeAlias = Callable[[], Awaitable[AsyncConnection]]
Work: TypeAlias = Callable[[], None]
"""What to do while an answer is awaited. May be called several times, and after the first it should have little to do."""
CONNECT_SECONDS: Final = 5.0


def nothing() -> None:
    """No `Work`."""


def pack(commands: Sequence[Command]) -> bytes:
    """The commands as they travel."""
    return b"".join([_pack_one(command) for command in commands])


def connected(server: Guarded, label: str, connect: Connect) -> Connection:
    """A new connection, to a server that may be used. Raises `NotApplied`."""
    connection = None
    replies: list[Any] = []
    try:
        connection = connect()
        connection.connect()
        failed = _send(connection, pack(QUESTIONS)) or _receive(connection, len(QUESTIONS), replies)
        if failed is not None:
            raise failed
        problem = server.problem(label, replies)
        if problem is not None:
            raise problem
    except BaseException as error:
        if connection is not None:
            connection.disconnect()
        if isinstance(error, exceptions.RedisError | OSError):
            raise unreachable(label, error) from error
        raise
    return connection


def _is_silent(connection: Connection) -> bool:
    """Whether there is nothing to read, by one call of the system; the library's own look takes three."""
    if not hasattr(select, "poll"):
        return False  # Windows
    poll = select.poll()
    poll.register(connection._sock, select.POLLIN)  # noqa: SLF001 - the library gives it no other name
    return not poll.poll(0)


def usable(connection: Connection) -> bool:
    """Whether an idle connection still is one: the server may have closed it, which shows as something to read."""
    try:
        # The library is asked where there is something to read, for that need not be meant for us: TLS sends messages of its
        # own.
        if _is_silent(connection) or not connection.can_read():
            return True
    except (exceptions.RedisError, OSError):
        pass
    connection.disconnect()
    return False


async def aconnected(server: Guarded, label: str, connect: AsyncConnect) -> AsyncConnection:
    """See `connected`."""
    connection = None
    try:
        connection = await connect()  # has bounds of its own: it may find the primary first, or start a server
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()
            await connection.send_packed_command([pack(QUESTIONS)], check_health=False)
            problem = server.problem(label, await _areceive(connection, len(QUESTIONS)))
        if problem is not None:
            raise problem
    except BaseException as error:
        if connection is not None:
            await connection.disconnect(nowait=True)
        if isinstance(error, exceptions.RedisError | OSError):
            raise unreachable(label, error) from error
        raise
    return connection


async def _hears(connection: AsyncConnection) -> bool:
    """Whether there is something to read. The library's look has another name before its release 8, and misses an end."""
    reader = connection._reader  # noqa: SLF001 - the library gives it no other name
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    return reader is None or reader.at_eof() or bool(await look())


async def ausable(connection: AsyncConnection) -> bool:
    """See `usable`."""
    try:
        if not await _hears(connection):
            return True
    except (exceptions.RedisError, OSError):
        pass
    await connection.disconnect(nowait=True)
    return False


def stale(replies: Sequence[Any]) -> bool:
    """Whether the server turned out not to be the primary any more: the next connection may find the new one."""
    return any(isinstance(reply, exceptions.ReadOnlyError) for reply in replies)


def _send(connection: Connection, packed: bytes) -> Exception | None:
    """Send it; answers what the connection broke off with."""
    try:
        connection.send_packed_command([packed], check_health=False)
    except (exceptions.RedisError, OSError) as error:
        return error
    return None


def _receive(connection: Connection, count: int, replies: list[Any]) -> Exception | None:
    """Read so many answers into ``replies``; answers what the connection broke off with."""
    try:
        for _ in range(count):
            try:
                replies.append(connection.read_response(disconnect_on_error=False))
            except REFUSALS as error:
                replies.append(error)
    except (exceptions.RedisError, OSError) as error:
        return error
    return None


async def _areceive(connection: AsyncConnection, count: int) -> list[Any]:
    """Read so many answers; raises what the connection broke off with."""
    replies: list[Any] = []
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disconnect_on_error=False))
        except REFUSALS as error:
            replies.append(error)
    return replies


class Pool:
    """Connections to one server. Safe to use from many threads, and in a forked child.

    Args:
        server: What the server has to be.
        label: What it is called in messages.
        connect: Makes a connection, not yet connected; called anew after every loss, since the primary may be another.
    """

    def __init__(self, server: Guarded, label: str, connect: Connect) -> None:
        self._server = server
        self.label = label
        self._new = connect
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Connection] = []

    def take(self) -> Connection:
        """A connection that is connected. Raises `NotApplied`."""
        return self._take_idle() or connected(self._server, self.label, self._new)

    def _take_idle(self) -> Connection | None:
        if self._pid != os.getpid():
            # The parent's sockets are dropped unused: both of us writing to one would mix our requests.
            self._reset()
        while self._idle:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is not None and usable(connection):
                return connection
        return None

    def give(self, connection: Connection) -> None:
        """Take the connection back, all of whose answers were read."""
        with self._lock:
            self._idle.append(connection)

    def exchange(self, commands: Sequence[Command], work: Work = nothing) -> list[Any]:
        """Send the commands in one piece, do ``work``, and read as many answers; errors are answers too.

        Returns:
            For each command what the server answered, an error of the client library if it answered one,
            `NotApplied` if there is no connection, or `OutcomeUnknown`.
        """
        packed = pack(commands)
        connection = self._take_idle()
        if connection is None:
            work()  # to connect can take seconds, and the work should not wait for that
            try:
                connection = connected(self._server, self.label, self._new)
            except NotApplied as error:
                return [error] * len(commands)
        replies: list[Any] = []
        try:
            failed = _send(connection, packed)
            work()  # not where its errors would pass for those of the connection
            failed = failed or _receive(connection, len(commands), replies)
        except BaseException:
            connection.disconnect()  # or the next one would read the answer to this
            raise
        if failed is not None:
            replies += [lost(self.label, failed)] * (len(commands) - len(replies))
        if failed is not None or stale(replies):
            connection.disconnect()
        else:
            self.give(connection)
        return replies

    def close(self) -> None:
        """Close the connections that lie idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()


class AsyncPool:
    """The same for one event loop.

    Args:
        server: What the server has to be.
        label: What it is called in messages.
        connect: Makes a connection, not yet connected.
        timeout: Seconds that one exchange may take.
    """

    def __init__(self, server: Guarded, label: str, connect: AsyncConnect, timeout: float) -> None:
        self._server = server
        self.label = label
        self._new = connect
        self._timeout = timeout
        self._idle: list[AsyncConnection] = []

    async def take(self) -> AsyncConnection:
        """See `Pool.take`."""
        while self._idle:
            connection = self._idle.pop()
            if await ausable(connection):
                return connection
        return await aconnected(self._server, self.label, self._new)

    def give(self, connection: AsyncConnection) -> None:
        """See `Pool.give`."""
        self._idle.append(connection)

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """See `Pool.exchange`. A call that is cancelled drops its connection."""
        packed = pack(commands)
        try:
            connection = await self.take()
        except NotApplied as error:
            return [error] * len(commands)
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                await connection.send_packed_command([packed], check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response(disconnect_on_error=False))
                    except REFUSALS as error:
                        replies.append(error)
        except (exceptions.RedisError, OSError) as error:
            await connection.disconnect(nowait=True)
            return [*replies, *[lost(self.label, error)] * (len(commands) - len(replies))]
        except BaseException:
            await connection.disconnect(nowait=True)  # or the next one would read the answer to this
            raise
        if stale(replies):
            await connection.disconnect(nowait=True)
        else:
            self.give(connection)
        return replies

    async def close(self) -> None:
        """See `Pool.close`."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect()
