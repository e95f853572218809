"""Which server a command goes to: the one there is, or the node of a cluster that owns the scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobqueue.storage.redis.bell import AsyncBell, Bell
from jobqueue.storage.redis.flow import Request
from jobqueue.storage.redis.link import AsyncConnect, AsyncPool, Connect, Pool

__all__ = ["AsyncOne", "One"]


class One:
    """A single server: everything in one trip."""

    def __init__(self, label: str, connect: Connect) -> None:
        self._label = label
        self._connect = connect
        self._pool = Pool(label, connect)

    def exchange(self, request: Request) -> list[Any]:
        """See `Nodes.exchange`."""
        return self._pool.exchange([words for _, words in request])

    def bell(self) -> Bell:
        """See `Nodes.bell`."""
        return Bell(self._label, self._connect, lambda command: self._pool.exchange([command]))

    def together(self, scopes: Sequence[str]) -> Sequence[str]:
        """See `Nodes.together`."""
        return scopes

    def close(self) -> None:
        """See `Nodes.close`."""
        self._pool.close()


class AsyncOne:
    """The same for one event loop."""

    def __init__(self, label: str, connect: AsyncConnect, timeout: float) -> None:
        self._label = label
        self._connect = connect
        self._pool = AsyncPool(label, connect, timeout)

    async def exchange(self, request: Request) -> list[Any]:
        """See `Nodes.exchange`."""
        return await self._pool.exchange([words for _, words in request])

    def bell(self) -> AsyncBell:
        """See `Nodes.bell`."""
        return AsyncBell(self._label, self._connect, lambda command: self._pool.exchange([command]))

    def together(self, scopes: Sequence[str]) -> Sequence[str]:
        """See `Nodes.together`."""
        return scopes

    async def close(self) -> None:
        """See `Nodes.close`."""
        await self._pool.close()
