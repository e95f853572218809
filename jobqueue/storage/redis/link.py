"""One connection: opened to a server that may be used, looked at before each use, and what an exchange on it needs.

It is the client library's `Connection`. Its clients and pools send again by themselves on many paths (ten times by default,
on timeouts too), which would carry out a batch more than once; a `Connection` never does. And only here is it known whether
an error came before or after the first byte was sent.

Everything has an end, in seconds of `clock.monotonic_s`.
"""

from __future__ import annotations

import asyncio
import functools
import select
import signal
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from redis import exceptions

from jobqueue.clock import monotonic_s
from jobqueue.storage.redis.faults import REFUSALS, harmless, unreachable
from jobqueue.storage.redis.guarded import QUESTIONS, Guarded

__all__ = [
    "AsyncConnect",
    "AsyncConnection",
    "Command",
    "Connect",
    "Connection",
    "Work",
    "aconnected",
    "areceive",
    "ausable",
    "connected",
    "left",
    "nothing",
    "pack",
    "pack_one",
    "raise_thrown",
    "receive",
    "send",
    "stale",
    "usable",
]


C_co = TypeVar("C_co", covariant=True)


def _pack_plain(command: tuple[bytes, ...]) -> bytes:
    return b"*%d\r\n%b" % (len(command), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in command]))


def _packer() -> Callable[[tuple[bytes, ...]], bytes]:
    try:
        from hiredis import pack_command
    except ImportError:
        return _pack_plain
    packer: Any = pack_command
    return packer  # type: ignore[no-any-return]


pack_one: Final = _packer()
"""One command as it travels."""


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
Connect: TypeAlias = Callable[[float], Connection]
"""Makes a connection, not yet connected, which has to be connected until then."""
AsyncConnect: TypeAlias = Callable[[float], Awaitable[AsyncConnection]]
Work: TypeAlias = Callable[[], None]
"""What to do while an answer is awaited. May be called several times, and after the first it should have little to do."""


class Target(Protocol[C_co]):
    """What a connection is made to: a pool.

    Attributes:
        server: What the server has to be.
        label: What it is called in messages.
        connect: Makes a connection, not yet connected; called anew after every loss, since the primary may be another.
    """

    @property
    def server(self) -> Guarded: ...
    @property
    def label(self) -> str: ...
    @property
    def connect(self) -> C_co: ...


def nothing() -> None:
    """No `Work`."""


def pack(commands: Sequence[Command]) -> bytes:
    """The commands as they travel."""
    return b"".join([pack_one(command) for command in commands])


def left(end: float) -> float:
    """How many seconds are left."""
    return max(end - monotonic_s(), 0.0)


def connected(to: Target[Connect], end: float) -> Connection:
    """A new connection, to a server that may be used. Raises `NotApplied`."""
    connection = None
    replies: list[Any] = []
    began = monotonic_s()
    try:
        connection = to.connect(end)
        connection.connect()
        failed = send(connection, pack(QUESTIONS), end) or receive(connection, len(QUESTIONS), replies)
        if failed is not None:
            raise failed
        problem = to.server.problem(to.label, replies)
        if problem is not None:
            raise problem
    except BaseException as error:
        if connection is not None:
            connection.disconnect()
        if isinstance(error, exceptions.RedisError | OSError):
            raise_thrown(error)
            raise unreachable(to.label, error, waited=monotonic_s() - began) from harmless(error)
        raise
    return connection


def usable(connection: Connection) -> bool:
    """Whether an idle connection still is one: the server may have closed it, which shows as something to read."""
    try:
        if hasattr(select, "poll"):  # one call of the system; the library's own look takes three
            poll = select.poll()
            poll.register(connection._sock, select.POLLIN)  # noqa: SLF001 - the library gives it no other name
            if not poll.poll(0):
                return True
        # The library is asked where there is something to read, for that need not be meant for us: TLS sends messages of its
        # own.
        if not connection.can_read():
            return True
    except (exceptions.RedisError, OSError):
        pass
    connection.disconnect()
    return False


async def aconnected(to: Target[AsyncConnect], end: float) -> AsyncConnection:
    """See `connected`."""
    connection = None
    began = monotonic_s()
    try:
        async with asyncio.timeout(left(end)):
            connection = await to.connect(end)
            await connection.connect()
            await connection.send_packed_command([pack(QUESTIONS)], check_health=False)
            problem = to.server.problem(to.label, await areceive(connection, len(QUESTIONS)))
        if problem is not None:
            raise problem
    except BaseException as error:
        if connection is not None:
            await connection.disconnect(nowait=True)
        if isinstance(error, exceptions.RedisError | OSError):
            raise unreachable(to.label, error, waited=monotonic_s() - began) from harmless(error)
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


def send(connection: Connection, packed: bytes, end: float) -> Exception | None:
    """Send it, and let nothing that follows take longer than until ``end``; answers what the connection broke off with."""
    try:
        connection._sock.send_until(end, packed)  # noqa: SLF001 - ours; see `TimedSocket`
    except (exceptions.RedisError, OSError) as error:
        return error
    return None


def raise_thrown(failed: BaseException) -> None:
    """Raise what a handler of a signal has thrown into an exchange, if the connection broke off with that.

    Many handlers throw a `TimeoutError`, to bound what they interrupt. It is an `OSError`, like those of a socket, and the
    library takes it for one; it is known by the handler among its frames.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # handlers run there alone
    codes = {_code_of(handler) for handler in map(signal.getsignal, signal.valid_signals()) if callable(handler)}
    error: BaseException | None = failed
    for _ in range(10):  # of a longer chain the rest is no business of ours
        if error is None:
            return
        if any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise error
        error = error.__context__


def _code_of(handler: Any) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def receive(connection: Connection, count: int, replies: list[Any]) -> Exception | None:
    """Read so many answers into ``replies``; answers what the connection broke off with."""
    try:
        for _ in range(count):
            try:
                replies.append(connection.read_response(disconnect_on_error=False))
            except REFUSALS as error:
                replies.append(error.with_traceback(None))  # its frames hold these replies, and the connection
    except (exceptions.RedisError, OSError) as error:
        return error
    return None


async def areceive(connection: AsyncConnection, count: int, replies: list[Any] | None = None) -> list[Any]:
    """Read so many answers, into ``replies`` where that is given; raises what the connection broke off with."""
    replies = [] if replies is None else replies
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disconnect_on_error=False))
        except REFUSALS as error:
            replies.append(error.with_traceback(None))
    return replies
