"""The storage in this process's memory: for tests, simulations and ``memory://``; what it does is the specification.

It keeps nothing beyond the process and is not shared with forked children.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobqueue.storage.bell import Bell
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.queries import answer
from jobqueue.storage.shape import check_shape

__all__ = ["MemoryStorage"]


class MemoryStorage:
    """A `Storage` in memory, deterministic and safe to use from many threads."""

    def __init__(self) -> None:
        self._shared = _Shared()

    def share(self) -> MemoryStorage:
        """Another storage over the same contents, with a `wait` and an `interrupt` of its own."""
        other = MemoryStorage()
        other._shared = self._shared
        return other

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """Apply each batch whole or not at all; see `Storage.apply`.

        Raises:
            ValueError: A batch makes no sense on any storage (`jobqueue.storage.shape`); nothing was applied.
        """
        for batch in batches:
            check_shape(batch)
        shared = self._shared
        outcomes: list[Outcome] = []
        rung: set[str] = set()
        with shared.bell.mutex:
            for batch in batches:
                outcome, ring = shared.contents.apply(batch)
                outcomes.append(outcome)
                if ring:
                    rung.add(batch.scope)
        if rung:
            shared.bell.ring(rung)
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """Answer all queries from one snapshot; see `Storage.read`.

        Raises:
            StorageRefused: A key exists as another kind.
        """
        with self._shared.bell.mutex:
            return [answer(self._shared.contents, query) for query in queries]

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """Answer the scope that was rung; None after `interrupt`, or when ``timeout`` seconds are over."""
        return self._shared.bell.wait(self, channels, timeout)

    def interrupt(self) -> None:
        """End the `wait` of this storage that is under way, or the next one."""
        self._shared.bell.interrupt(self)

    def close(self) -> None:
        """There is nothing to give back; the contents stay."""

    def dump(self) -> dict[str, object]:
        """Everything stored, as plain values: full name → value, sorted.

        Lists are lists of bytes, sorted sets lists of (member, score) in order, hashes dicts sorted by field, locks
        (token, until in ms, fence).
        """
        with self._shared.bell.mutex:
            return self._shared.contents.dump()

    def copy(self) -> MemoryStorage:
        """An independent storage with the same contents; wake-ups that nobody waited for are not copied."""
        other = MemoryStorage()
        with self._shared.bell.mutex:
            other._shared.contents = self._shared.contents.copy()
        return other

    def restore(self, saved: MemoryStorage) -> None:
        """Make the contents equal to those of ``saved``, for all who share this storage."""
        with saved._shared.bell.mutex:
            contents = saved._shared.contents.copy()
        with self._shared.bell.mutex:
            self._shared.contents = contents


class _Shared:
    """What storages over the same contents have in common."""

    __slots__ = ("bell", "contents")

    def __init__(self) -> None:
        self.bell = Bell()
        self.contents = Interpreter()
