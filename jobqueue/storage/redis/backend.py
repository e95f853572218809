"""The storage on Redis 7 or Valkey 8: `RedisStorage` and `AsyncRedisStorage`, two drivers over the flows of `flow.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageError
from jobqueue.loops import adrive, drive
from jobqueue.storage.ops import Answer, Batch, Key, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis.compile import header_names
from jobqueue.storage.redis.faults import refused
from jobqueue.storage.redis.flow import Request, apply_flow, facts_flow, read_flow
from jobqueue.storage.redis.guarded import Guarded, described
from jobqueue.storage.redis.link import Work, nothing

__all__ = ["AsyncNodes", "AsyncRedisStorage", "Nodes", "RedisStorage"]


class Bells(Protocol):
    """Waits for scopes to be rung; see `Bell`."""

    def wait(self, scopes: Sequence[str], timeout: float, /) -> str | None: ...
    def interrupt(self) -> None: ...
    def close(self) -> None: ...


class AsyncBells(Protocol):
    """The same for one event loop."""

    async def wait(self, scopes: Sequence[str], timeout: float, /) -> str | None: ...  # noqa: ASYNC109
    def interrupt(self) -> None: ...
    async def close(self) -> None: ...


class Nodes(Protocol):
    """The servers behind a storage: a `Pool` for one, or the nodes of a cluster."""

    def exchange(self, request: Request, work: Work = nothing, end: float | None = None) -> list[Any]:
        """Send each command to the node of its scope; see `Pool.exchange`."""
        ...

    def close(self) -> None:
        """Close the connections that lie idle."""
        ...


class AsyncNodes(Protocol):
    """The same for one event loop."""

    async def exchange(self, request: Request, end: float | None = None) -> list[Any]:
        """See `Nodes.exchange`."""
        ...

    async def close(self) -> None:
        """See `Nodes.close`."""
        ...


class RedisStorage:
    """A `Storage` on a Redis or Valkey server, safe to use from many threads and in forked children.

    Made by `RedisServer.storage`. The server is looked at on every new connection: one that may evict jobs, or is
    too old, is refused.
    """

    def __init__(self, server: Guarded, nodes: Nodes, bell: Bells) -> None:
        self._server = server
        self._nodes = nodes
        self._bell = bell

    def apply(self, batches: Sequence[Batch], end_s: float | None = None, /) -> list[Outcome]:
        """See `Storage.apply` and `Bounded`."""
        return drive(apply_flow(self._server, batches), partial(self._nodes.exchange, end=end_s))

    def apply_while(self, batches: Sequence[Batch], work: Work, /) -> list[Outcome]:
        """See `Overlapping.apply_while`."""
        return drive(apply_flow(self._server, batches), partial(self._nodes.exchange, work=work))

    def read(self, queries: Sequence[Query], end_s: float | None = None, /) -> list[Answer]:
        """See `Storage.read` and `Bounded`."""
        return drive(read_flow(self._server, queries), partial(self._nodes.exchange, end=end_s))

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """See `Storage.wait`."""
        return self._bell.wait(channels, timeout)

    def interrupt(self) -> None:
        """See `Storage.interrupt`; may be called in a signal handler."""
        self._bell.interrupt()

    def time_ms(self, scope: str, end_s: float | None = None) -> int:
        """The time of the scope's own node, in milliseconds since 1970; asked until ``end_s``. Raises `NotApplied`."""
        (reply,) = self._nodes.exchange([(scope, (b"TIME",))], end=end_s)
        if isinstance(reply, OutcomeUnknown):
            raise NotApplied(str(reply)) from reply  # nothing can have been done by asking
        seconds, micros = _answered(self._server, reply)
        return int(seconds) * 1000 + int(micros) // 1000

    def describe(self) -> dict[str, str]:
        """What the server says of itself: version, run_id, persistence. Raises `NotApplied`."""
        return described(drive(facts_flow(), self._nodes.exchange))

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


class AsyncRedisStorage:
    """The same as an `AsyncStorage`, for one event loop."""

    def __init__(self, server: Guarded, nodes: AsyncNodes, bell: AsyncBells) -> None:
        self._server = server
        self._nodes = nodes
        self._bell = bell

    async def apply(self, batches: Sequence[Batch], end_s: float | None = None, /) -> list[Outcome]:
        """See `AsyncStorage.apply` and `AsyncBounded`."""
        return await adrive(apply_flow(self._server, batches), partial(self._nodes.exchange, end=end_s))

    async def read(self, queries: Sequence[Query], end_s: float | None = None, /) -> list[Answer]:
        """See `AsyncStorage.read` and `AsyncBounded`."""
        return await adrive(read_flow(self._server, queries), partial(self._nodes.exchange, end=end_s))

    async def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `RedisStorage.wait`."""
        return await self._bell.wait(channels, timeout)

    async def interrupt(self) -> None:
        """See `AsyncStorage.interrupt`."""
        self._bell.interrupt()

    async def describe(self) -> dict[str, str]:
        """See `RedisStorage.describe`."""
        return described(await adrive(facts_flow(), self._nodes.exchange))

    async def close(self) -> None:
        """See `AsyncStorage.close`."""
        await self._bell.close()
        await self._nodes.close()


def _answered(server: Guarded, reply: Any) -> Any:
    if isinstance(reply, StorageError):
        raise reply
    if isinstance(reply, Exception):
        raise refused(server.label, reply)
    return reply
