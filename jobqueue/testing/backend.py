"""The storage under a testing block: memory whose replies can be lost, with ids in the order of enqueueing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobqueue.clock import Clock
from jobqueue.ids import SeededChance
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import AsyncStorage, Outcome, Storage
from jobqueue.storage.wrappers import AsyncFromSync
from jobqueue.testing.faulty import Fault, FaultyStorage

__all__ = ["CountingChance", "KitBackend"]


class CountingChance:
    """Repeatable chance whose ids, made within one millisecond, sort in the order in which they were made."""

    def __init__(self, seed: str) -> None:
        self._seeded = SeededChance(seed)
        self._count = itertools.count()

    def entropy(self, size: int) -> bytes:
        """See `Chance.entropy`; the first of the bits that an id uses are a count."""
        head = next(self._count).to_bytes(4, "big")
        return (head + self._seeded.entropy(max(0, size - len(head))))[:size]

    def jitter(self) -> float:
        """See `Chance.jitter`."""
        return self._seeded.jitter()


class KitBackend:
    """A `Backend` in memory, empty at first.

    Args:
        clock: The clock of all its users.

    Attributes:
        memory: What is stored; nothing gets lost on this way to it.
    """

    url = "memory:// (testing)"

    def __init__(self, clock: Clock) -> None:
        self.memory = MemoryStorage()
        self.clock: Clock = clock
        self._losses = 0
        self._lock = threading.Lock()

    def lose(self, replies: int) -> None:
        """Lose so many more replies of `Storage.apply`."""
        with self._lock:
            self._losses += replies

    def _is_lost(self) -> bool:
        with self._lock:
            if not self._losses:
                return False
            self._losses -= 1
            return True

    def storage(self) -> Storage:
        """See `Backend.storage`; all of them share their contents."""
        return _Lossy(self.memory.share(), self._is_lost)

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return AsyncFromSync(self.storage())

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return {"server": "memory"}

    def close(self) -> None:
        """See `Backend.close`; the contents stay."""


class _Lossy(FaultyStorage):
    """Loses the reply of a whole call, whatever scopes it went to."""

    def __init__(self, storage: Storage, is_lost: Callable[[], bool]) -> None:
        super().__init__(storage, lambda scope, batches: Fault.REPLY_LOST)  # noqa: ARG005 - the signature of a plan
        self._below = storage
        self._is_lost = is_lost

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return super().apply(batches) if self._is_lost() else self._below.apply(batches)
