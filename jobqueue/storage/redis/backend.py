"""The storage on Redis 7 or Valkey 8: `RedisStorage` and `AsyncRedisStorage`, two drivers over the flows of `flow.py`."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageError
from jobqueue.storage.ops import Answer, Batch, Key, Query
from jobqueue.storage.protocol import Answering, AsyncAnswering, Outcome
from jobqueue.storage.redis.compile import header_names
from jobqueue.storage.redis.faults import refused
from jobqueue.storage.redis.flow import Request, apply_flow, facts_flow, read_flow
from jobqueue.storage.redis.guarded import Guarded, described
from jobqueue.storage.redis.link import Work, nothing

__all__ = ["AsyncNodes", "AsyncRedisStorage", "Nodes", "RedisStorage"]

T = TypeVar("T")


class Rings(Protocol):
    """Waits for scopes to be rung; see `Bell`."""

    def wait(self, scopes: Sequence[str], timeout: float, /) -> str | None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class AsyncRings(Protocol):
    """The same for one event loop."""

    async def wait(self, scopes: Sequence[str], timeout: float, /) -> str | None: ...  # noqa: ASYNC109
    def interrupt(self) -> None: ...
    async def close(self) -> None: ...


class Nodes(Protocol):
    """The servers behind a storage: one, or the nodes of a cluster."""

    def exchange(self, request: Request, work: Work = nothing, end: float | None = None, /) -> list[Any]:
        """Send each command to the node of its scope; see `Pool.exchange`."""
        ...

    def bell(self) -> Rings:
        """What waits for their scopes."""
        ...

    def close(self) -> None:
        """Close the connections that lie idle."""
        ...


class AsyncNodes(Protocol):
    """The same for one event loop."""

    async def exchange(self, request: Request, end: float | None = None, /) -> list[Any]:
        """See `Nodes.exchange`."""
        ...

    def bell(self) -> AsyncRings:
        """What waits for their scopes."""
        ...

    async def close(self) -> None:
        """See `Nodes.close`."""
        ...


class RedisStorage:
    """A `Storage` on a Redis or Valkey server, safe to use from many threads and in forked children.

    Made by `RedisServer.storage`. The server is looked at on every new connection: one that may evict jobs, or is
    too old, is refused.
    """

    def __init__(self, server: Guarded, nodes: Nodes) -> None:
        self._server = server
        self._nodes = nodes
        self._bell = nodes.bell()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `Storage.apply`."""
        return self._drive(apply_flow(self._server, batches))

    def apply_while(self, batches: Sequence[Batch], work: Work, /) -> list[Outcome]:
        """See `Overlapping.apply_while`."""
        return self._drive(apply_flow(self._server, batches), work)

    def until(self, end: float, /) -> Answering:
        """See `Bounded.until`."""
        return _Until(self._server, self._nodes, end)

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        return self._drive(read_flow(self._server, queries))

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """See `Storage.wait`."""
        return self._bell.wait(channels, timeout)

    def interrupt(self) -> None:
        """See `Storage.interrupt`; may be called in a signal handler."""
        self._bell.interrupt()

    def time_ms(self, scope: str, end: float | None = None) -> int:
        """The time of the scope's own node, in milliseconds since 1970; asked until ``end``. Raises `NotApplied`."""
        (reply,) = self._nodes.exchange([(scope, (b"TIME",))], nothing, end)
        if isinstance(reply, OutcomeUnknown):
            raise NotApplied(str(reply)) from reply  # nothing can have been done by asking
        seconds, micros = _answered(self._server, reply)
        return int(seconds) * 1000 + int(micros) // 1000

    def describe(self) -> dict[str, str]:
        """What the server says of itself: version, run_id, persistence. Raises `NotApplied`."""
        facts = self._drive(facts_flow())
        if isinstance(facts, StorageError):
            raise facts
        return described(facts)

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove these keys, with what this storage keeps beside them in their scopes. Raises `NotApplied`."""
        names: dict[str, dict[bytes, None]] = {}
        for key in keys:
            names.setdefault(key.scope, header_names(key.scope))[key.full.encode()] = None
        for reply in self._nodes.exchange([(scope, (b"UNLINK", *found)) for scope, found in names.items()]):
            _answered(self._server, reply)

    def close(self) -> None:
        """See `Storage.close`."""
        self._bell.close()
        self._nodes.close()

    def _drive(self, flow: Generator[Request, list[Any], T], work: Work = nothing) -> T:
        return _driven(self._nodes, flow, work, None)


class _Until:
    """A `RedisStorage` for one call, which ends at ``end``."""

    __slots__ = ("_end", "_nodes", "_server")

    def __init__(self, server: Guarded, nodes: Nodes, end: float) -> None:
        self._server = server
        self._nodes = nodes
        self._end = end

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return _driven(self._nodes, apply_flow(self._server, batches), nothing, self._end)

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return _driven(self._nodes, read_flow(self._server, queries), nothing, self._end)


def _driven(nodes: Nodes, flow: Generator[Request, list[Any], T], work: Work, end: float | None) -> T:
    try:
        request = next(flow)
        while True:
            request = flow.send(nodes.exchange(request, work, end))
    except StopIteration as ended:
        result: T = ended.value
        return result


class AsyncRedisStorage:
    """The same as an `AsyncStorage`, for one event loop."""

    def __init__(self, server: Guarded, nodes: AsyncNodes) -> None:
        self._server = server
        self._nodes = nodes
        self._bell = nodes.bell()

    async def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `AsyncStorage.apply`."""
        return await self._drive(apply_flow(self._server, batches))

    async def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `AsyncStorage.read`."""
        return await self._drive(read_flow(self._server, queries))

    async def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `RedisStorage.wait`."""
        return await self._bell.wait(channels, timeout)

    async def interrupt(self) -> None:
        """See `AsyncStorage.interrupt`."""
        self._bell.interrupt()

    async def describe(self) -> dict[str, str]:
        """See `RedisStorage.describe`."""
        facts = await self._drive(facts_flow())
        if isinstance(facts, StorageError):
            raise facts
        return described(facts)

    async def close(self) -> None:
        """See `AsyncStorage.close`."""
        await self._bell.close()
        await self._nodes.close()

    def until(self, end: float, /) -> AsyncAnswering:
        """See `AsyncBounded.until`."""
        return _AsyncUntil(self._server, self._nodes, end)

    async def _drive(self, flow: Generator[Request, list[Any], T]) -> T:
        return await _awaited(self._nodes, flow, None)


class _AsyncUntil:
    """An `AsyncRedisStorage` for one call, which ends at ``end``."""

    __slots__ = ("_end", "_nodes", "_server")

    def __init__(self, server: Guarded, nodes: AsyncNodes, end: float) -> None:
        self._server = server
        self._nodes = nodes
        self._end = end

    async def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return await _awaited(self._nodes, apply_flow(self._server, batches), self._end)

    async def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return await _awaited(self._nodes, read_flow(self._server, queries), self._end)


async def _awaited(nodes: AsyncNodes, flow: Generator[Request, list[Any], T], end: float | None) -> T:
    try:
        request = next(flow)
        while True:
            request = flow.send(await nodes.exchange(request, end))
    except StopIteration as ended:
        result: T = ended.value
        return result


def _answered(server: Guarded, reply: Any) -> Any:
    if isinstance(reply, StorageError):
        raise reply
    if isinstance(reply, Exception):
        raise refused(server.label, reply)
    return reply
