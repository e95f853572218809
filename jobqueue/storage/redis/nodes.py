"""Which server a command goes to: the one there is, or the node of a cluster that owns the scope."""

from __future__ import annotations

import asyncio
from typing import Any

from jobqueue.storage.limits import Limits
from jobqueue.storage.redis.bell import AsyncBell, Bell, Interrupts
from jobqueue.storage.redis.flow import Request
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.storage.redis.link import AsyncConnect, Connect, Work, nothing
from jobqueue.storage.redis.pool import AsyncPool, Pool

__all__ = ["AsyncOne", "One"]


class One:
    """A single server: everything in one trip."""

    def __init__(self, server: Guarded, label: str, connect: Connect, limits: Limits) -> None:
        self._server = server
        self._label = label
        self._connect = connect
        self._patience = limits.patience
        self._pool = Pool(server, label, connect, limits)

    def exchange(self, request: Request, work: Work = nothing, end: float | None = None) -> list[Any]:
        """See `Nodes.exchange`."""
        return self._pool.exchange([words for _, words in request], work, end)

    def bell(self, interrupts: Interrupts | None = None) -> Bell:
        """See `Nodes.bell`; with ``interrupts`` one of several that are interrupted together."""
        return Bell(
            self._server, self._label, self._connect, lambda command: self._pool.exchange([command]), self._patience,
            interrupts,
        )  # fmt: skip

    def close(self) -> None:
        """See `Nodes.close`."""
        self._pool.close()


class AsyncOne:
    """The same for one event loop."""

    def __init__(self, server: Guarded, label: str, connect: AsyncConnect, limits: Limits) -> None:
        self._server = server
        self._label = label
        self._connect = connect
        self._patience = limits.patience
        self._pool = AsyncPool(server, label, connect, limits)

    async def exchange(self, request: Request, end: float | None = None) -> list[Any]:
        """See `Nodes.exchange`."""
        return await self._pool.exchange([words for _, words in request], end)

    def bell(self, rung: asyncio.Event | None = None) -> AsyncBell:
        """See `One.bell`."""
        return AsyncBell(
            self._server, self._label, self._connect, lambda command: self._pool.exchange([command]), self._patience,
            rung,
        )  # fmt: skip

    async def close(self) -> None:
        """See `Nodes.close`."""
        await self._pool.close()
