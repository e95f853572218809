"""The storage under a testing block: in memory or on a server, with faults that a test asks for."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobqueue.clock import Clock
from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.ids import SeededChance
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import AsyncStorage, Outcome, Storage
from jobqueue.storage.wrappers import AsyncFromSync, Over
from jobqueue.testing.history import History

__all__ = ["FOREVER", "CountingChance", "KitBackend", "Lent"]

FOREVER: Final = -1


class CountingChance:
    """Repeatable chance whose ids, made within one millisecond, sort in the order in which they were made."""

    def __init__(self, seed: str) -> None:
        self._seeded = SeededChance(seed)
        self._count = itertools.count()

    def entropy(self, size: int) -> bytes:
        """See `Chance.entropy`; the first of the bits that an id uses are a count."""
        head = next(self._count).to_bytes(4, "big")
        return (head + self._seeded.entropy(max(0, size - len(head))))[:size]

    def entropies(self, count: int, size: int) -> list[bytes]:
        """See `Chance.entropies`."""
        return [self.entropy(size) for _ in range(count)]

    def jitter(self) -> float:
        """See `Chance.jitter`."""
        return self._seeded.jitter()


class KitBackend:
    """A `Backend` over one storage.

    Coroutines use that storage as well, between two turns of their loop. Rejected: the storage for coroutines, whose
    connections belong to a loop, so that the end of a plain ``with`` block could not close them.

    Args:
        clock: The clock of all its users.
        storage: Where jobs are stored; it is not closed here. An empty one in memory if None.
        url: What to call it in messages.

    Attributes:
        history: All that was applied.
        direct: The storage without faults: how the kit itself looks and puts right.
    """

    is_shared = False
    timeout = None

    def __init__(self, clock: Clock, storage: Storage | None = None, url: str = "memory") -> None:
        self.url = url
        self.clock: Clock = clock
        self.history = History(clock)
        self._storage = MemoryStorage() if storage is None else storage
        self.direct: Storage = _Written(self._storage, self.history)
        self._lent: weakref.WeakSet[Storage] = weakref.WeakSet()
        self._losses = 0
        self._cuts = 0
        self._lock = threading.RLock()

    def lose(self, replies: int) -> None:
        """Lose so many more replies of `Storage.apply`."""
        with self._lock:
            self._losses += replies

    def cut(self, calls: int) -> int:
        """Let so many more calls fail before they reach the storage, or all with `FOREVER`; 0 ends that.

        Answers how many there would have been otherwise.
        """
        with self._lock:
            before, self._cuts = self._cuts, calls
        return before

    def is_lost(self) -> bool:
        """Whether the reply of the call at hand gets lost."""
        if not self._losses:
            return False
        with self._lock:
            self._losses -= 1
            return self._losses >= 0

    def is_cut(self) -> bool:
        """Whether the call at hand does not get through."""
        if not self._cuts:
            return False
        with self._lock:
            if self._cuts > 0:
                self._cuts -= 1
            return True

    def storage(self) -> Storage:
        """See `Backend.storage`; all of them share their contents."""
        below = self._storage
        if isinstance(below, MemoryStorage):
            below = below.share()  # with a `wait` of its own
        storage = _Faulty(_Written(below, self.history), self)
        with self._lock:
            self._lent.add(storage)
        return storage

    def wake(self) -> None:
        """End every `wait` under way: who slept looks at the clock."""
        with self._lock:
            lent = list(self._lent)
        for storage in lent:
            storage.interrupt()

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return AsyncFromSync(self.storage())

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return {"server": self.url}

    def close(self) -> None:
        """See `Backend.close`; the contents stay."""


class Lent(Over):
    """One that is not closed by those who use it: many share what is below."""

    def close(self) -> None:
        """Nothing."""


class _Written(Lent):
    """Writes down what was applied."""

    def __init__(self, below: Storage, history: History) -> None:
        super().__init__(below)
        self._history = history

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return self._history.apply(self._storage.apply, batches)


class _Faulty(Lent):
    """Loses replies, and is out of reach, whatever scopes a call goes to.

    Not a `FaultyStorage`: its plan decides for each scope, and reads always succeed there.
    """

    def __init__(self, below: Storage, backend: KitBackend) -> None:
        super().__init__(below)
        self._backend = backend

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        if self._backend.is_cut():
            return [self._refusal() for _ in batches]
        outcomes = self._storage.apply(batches)
        if self._backend.is_lost():
            self._backend.history.lost(batches, outcomes)
            return [OutcomeUnknown(f"{self._backend.url}: the reply was lost (lose_reply)") for _ in batches]
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        if self._backend.is_cut():
            raise self._refusal()
        return self._storage.read(queries)

    def _refusal(self) -> NotApplied:
        return NotApplied(f"{self._backend.url} cannot be reached (cut_server); nothing was changed")
