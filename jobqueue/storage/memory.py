"""The storage in this process's memory: for tests, simulations and ``memory://``; what it does is the specification.

It keeps nothing beyond the process and is not shared with forked children.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from jobqueue.storage.bell import Bell
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.queries import answer
from jobqueue.storage.shape import check_shape

__all__ = ["MemoryStorage"]

T = TypeVar("T")


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

        def work() -> None:
            for batch in batches:
                outcome, ring = shared.apply(batch)
                outcomes.append(outcome)
                if ring:
                    rung.add(batch.scope)

        shared.bell.alone(work)
        if rung:
            shared.bell.ring(rung)
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """Answer all queries from one snapshot; see `Storage.read`.

        Raises:
            StorageRefused: A key exists as another kind.
        """
        return self._shared.look(lambda contents: [answer(contents, query) for query in queries])

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
        return self._shared.look(lambda contents: contents.dump())

    def copy(self) -> MemoryStorage:
        """An independent storage with the same contents; wake-ups that nobody waited for are not copied."""
        other = MemoryStorage()
        other._shared.version = Version(self._shared.look(lambda contents: contents.copy()))
        return other

    def restore(self, saved: MemoryStorage) -> None:
        """Make the contents equal to those of ``saved``, for all who share this storage."""
        version = Version(saved._shared.look(lambda contents: contents.copy()))

        def work() -> None:
            self._shared.version = version

        self._shared.bell.alone(work)


class Version:
    """Contents, and what they were made of.

    Attributes:
        contents: The contents, half changed while somebody changes them.
        before: What they were once; None if that was not kept.
        journal: What was applied since, in order.
        most: How long the journal may get.
        state: What somebody is doing.
        taken: How much of the journal of the version before this one was made of.
        next: The version that came in the place of this one.
    """

    __slots__ = ("before", "contents", "journal", "most", "next", "state", "taken")

    def __init__(self, contents: Interpreter, before: Interpreter | None = None, taken: int = 0) -> None:
        self.contents = contents
        self.before = before
        self.journal: list[Batch] = []
        # A copy is made when it is full: that should cost little of what was applied.
        keys = len(contents.hashes) + len(contents.lists) + len(contents.sets)
        self.most = 64 + 2 * keys + sum(map(len, contents.hashes.values())) // 4
        self.state: Literal["quiet", "read", "changed"] = "quiet"
        self.taken = taken
        self.next: Version | None = None


class _Shared:
    """What storages over the same contents have in common.

    A call can be interrupted at any line by another one of its thread (in a signal handler, in a finalizer), which passes
    the mutex, and by an exception. Then the contents may be half changed. Whoever finds that makes new ones, of what they
    were before and the journal, and leaves the old ones to those who are at them. Who comes back to change them looks
    whether the journal was taken with his batch in it, and else applies it to the new ones.
    """

    __slots__ = ("bell", "version")

    def __init__(self) -> None:
        self.bell = Bell()
        self.version = Version(Interpreter(), Interpreter())

    @property
    def contents(self) -> Interpreter:
        """What is there now."""
        return self.version.contents

    def apply(self, batch: Batch) -> tuple[Outcome, bool]:
        """Apply a batch; see `Interpreter.apply`. Under the mutex."""
        while True:
            version = self._quiet(changing=True)
            version.state = "changed"
            index = len(version.journal)  # nobody else enters anything from here on
            ended = version.contents.apply(batch)
            version.journal.append(batch)  # from here on it counts
            version.state = "quiet"
            if version.next is None or index < version.next.taken:
                return ended

    def look(self, see: Callable[[Interpreter], T]) -> T:
        """Answer what somebody sees of the contents, which nobody changes meanwhile."""

        def work() -> T:
            version = self._quiet()
            version.state = "read"
            try:
                return see(version.contents)
            finally:
                version.state = "quiet"

        return self.bell.alone(work)

    def _quiet(self, *, changing: bool = False) -> Version:
        """A version that nobody is at; one that may be changed has a journal that is not full, and a beginning."""
        while True:
            version = self.version
            full = changing and (version.before is None or len(version.journal) >= version.most)
            if version.state == "quiet" and not full:
                return version
            contents, taken = version.contents, len(version.journal)
            if version.state == "changed":
                assert version.before is not None
                contents = version.before.copy()
                for batch in version.journal[:taken]:
                    contents.apply(batch)
            elif version.state == "read":
                contents = contents.copy()
            else:
                version.state = "read"
            new = Version(contents, contents.copy(), taken)
            # Each in one line, and without a call, so that nothing can come in between.
            version.next = new if version.next is None else version.next
            self.version = self.version.next or self.version
