"""Storages made of other storages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import Outcome, Overlapping, Storage

__all__ = ["AsyncFromSync", "Over", "overlapped"]


def overlapped(storage: Storage) -> Callable[[Sequence[Batch], Callable[[], None]], list[Outcome]]:
    """Answer the storage's `Overlapping.apply_while`, or one that works before it applies."""
    if isinstance(storage, Overlapping):
        return storage.apply_while

    def apply_after(batches: Sequence[Batch], work: Callable[[], None]) -> list[Outcome]:
        work()
        return storage.apply(batches)

    return apply_after


class Over:
    """A storage that hands everything to the one below, for others to change a part of it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `Storage.apply`."""
        return self._storage.apply(batches)

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        return self._storage.read(queries)

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """See `Storage.wait`."""
        return self._storage.wait(channels, timeout)

    def interrupt(self) -> None:
        """See `Storage.interrupt`."""
        self._storage.interrupt()

    def close(self) -> None:
        """See `Storage.close`."""
        self._storage.close()


class AsyncFromSync:
    """An `AsyncStorage` over a storage whose `apply` and `read` do not block: one in memory.

    Every call gives the event loop a turn before and after, as a call over a network would, so that what goes wrong
    between two calls can go wrong here too. Only `wait` takes a thread. Rejected: a thread for each call, which takes
    several times as long as the call itself.

    Closing it does not close the storage below, which others may use.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._waiters: ThreadPoolExecutor | None = None

    async def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `Storage.apply`. Cancelled before the loop's next turn, nothing was done; later, everything was."""
        await asyncio.sleep(0)
        outcomes = self._storage.apply(batches)
        await asyncio.sleep(0)
        return outcomes

    async def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        await asyncio.sleep(0)
        answers = self._storage.read(queries)
        await asyncio.sleep(0)
        return answers

    async def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `Storage.wait`; at most 8 tasks at a time. Cancelled, it ends the wait below as well."""
        if self._waiters is None:
            self._waiters = ThreadPoolExecutor(8, "jobqueue-wait")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._waiters, self._storage.wait, channels, timeout
            )
        except asyncio.CancelledError:
            self._storage.interrupt()
            raise

    async def interrupt(self) -> None:
        """See `Storage.interrupt`."""
        self._storage.interrupt()

    async def close(self) -> None:
        """End a wait under way and give its thread back. A call after it opens another."""
        if self._waiters is not None:
            self._storage.interrupt()
            self._waiters.shutdown(wait=False)
            self._waiters = None
