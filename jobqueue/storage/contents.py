"""What a storage in memory holds: named lists, sorted sets, hashes and locks, and the plain changes to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from jobqueue.errors import StorageRefused
from jobqueue.storage.ops import HashKey, Held, Key, ListKey, LockKey, Score, SetKey
from jobqueue.storage.sortedset import SortedSet

__all__ = ["Contents", "full_name"]


class Contents:
    """Named lists, sorted sets, hashes and locks. Empty ones do not exist.

    A storage that keeps them elsewhere hands in tables of its own, which act as these dicts do.

    Attributes:
        lists: Full name → values.
        sets: Full name → entries.
        hashes: Full name → field → value.
        locks: Full name → lock.
    """

    __slots__ = ("_tables", "hashes", "lists", "locks", "sets")

    def __init__(
        self,
        lists: dict[str, deque[bytes]] | None = None,
        sets: dict[str, SortedSet] | None = None,
        hashes: dict[str, dict[bytes, bytes]] | None = None,
        locks: dict[str, Held] | None = None,
    ) -> None:
        self.lists: dict[str, deque[bytes]] = {} if lists is None else lists
        self.sets: dict[str, SortedSet] = {} if sets is None else sets
        self.hashes: dict[str, dict[bytes, bytes]] = {} if hashes is None else hashes
        self.locks: dict[str, Held] = {} if locks is None else locks
        self._tables: dict[type[Key], Mapping[str, Any]] = {
            ListKey: self.lists,
            SetKey: self.sets,
            HashKey: self.hashes,
            LockKey: self.locks,
        }

    def copy_to(self, other: Contents) -> None:
        """Fill ``other``, which is empty, with an independent copy."""
        other.lists.update((name, values.copy()) for name, values in self.lists.items())
        other.sets.update((name, entries.copy()) for name, entries in self.sets.items())
        other.hashes.update((name, fields.copy()) for name, fields in self.hashes.items())
        other.locks.update(self.locks)

    def dump(self) -> dict[str, object]:
        """Everything as plain values, sorted by full name; see `MemoryStorage.dump`."""
        everything: dict[str, object] = {
            **{name: list(values) for name, values in self.lists.items()},
            **{name: [(member, score) for score, member in entries] for name, entries in self.sets.items()},
            **{name: dict(sorted(fields.items())) for name, fields in self.hashes.items()},
            **{name: (lock.token, lock.until, lock.fence) for name, lock in self.locks.items()},
        }
        return dict(sorted(everything.items()))

    def check_kinds(self, keys: Iterable[Key]) -> None:
        """Raise `StorageRefused` if a key exists as another kind, or is used here as two."""
        seen: dict[str, type[Key]] = {}
        for key in keys:
            kind, name = type(key), key.full
            if name in self._tables[kind]:
                continue  # and so in no other table, because all that is written was checked here
            if seen.setdefault(name, kind) is not kind:
                raise _clash(key, seen[name])
            if name in self.sets or name in self.lists or name in self.hashes or name in self.locks:
                raise _clash(key, next(other for other, table in self._tables.items() if name in table))

    def size(self, key: Key) -> int:
        """How many entries a list, sorted set or hash has. Raises `StorageRefused` if it exists as another kind."""
        entries = self._tables[type(key)].get(key.full)
        if entries is None:
            self.check_kinds((key,))
            return 0
        return len(entries)

    def set_add(self, name: str, members: Mapping[bytes, Score]) -> None:
        """Add members to a sorted set, or give them another score."""
        if members:
            self.sets.setdefault(name, SortedSet()).add(members)

    def set_remove(self, name: str, members: Iterable[bytes]) -> None:
        """Remove the members that are there."""
        entries = self.sets.get(name)
        if entries is not None:
            entries.remove(members)
            if not entries:
                del self.sets[name]

    def hash_set(self, name: str, fields: Mapping[bytes, bytes]) -> None:
        """Write fields."""
        if fields:
            self.hashes.setdefault(name, {}).update(fields)

    def hash_add(self, name: str, field: bytes, amount: int) -> int:
        """Add to an integer field; answers the total."""
        fields = self.hashes.setdefault(name, {})
        total = int(fields.get(field, b"0")) + amount
        fields[field] = b"%d" % total
        return total

    def hash_delete(self, name: str, deleted: Iterable[bytes]) -> None:
        """Delete the fields that are there."""
        fields = self.hashes.get(name)
        if fields is not None:
            for field in deleted:
                fields.pop(field, None)
            if not fields:
                del self.hashes[name]


def _clash(key: Key, other: type[Key]) -> StorageRefused:
    return StorageRefused(
        f"{key.full} is a {other.__name__}, not a {type(key).__name__}: something else uses this name; "
        "use another namespace or remove the foreign key"
    )


@lru_cache(maxsize=1024)
def full_name(scope: str, name: str) -> str:
    """The full name of a key, without making a `Key`."""
    return f"{{{scope}}}:{name}"
