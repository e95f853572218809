"""Torn and sloppy variants of the storage in docs/how-to/sqlite_storage.py; the suite must catch each, by its rule."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import sqlite_storage
from sqlite_storage import SqliteStorage

from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Answer, Applied, Batch, Guard, Locked, Move, Moved, Once, Put, Query, Unlocked
from jobqueue.storage.protocol import Outcome


class CommitsAfterGuards(SqliteStorage):
    """Guards are looked at in a transaction of their own."""

    def apply_together(self, scope: str, batches: Sequence[Batch]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for batch in batches:
            [looked] = super().apply_together(scope, [msgspec.structs.replace(batch, ops=())])
            if batch.guards and isinstance(looked, Applied):
                time.sleep(0.002)  # the time that a round trip to a server takes
                outcomes += super().apply_together(scope, [msgspec.structs.replace(batch, guards=())])
            else:
                outcomes += [looked] if batch.guards else super().apply_together(scope, [batch])
        return outcomes


class CommitsLater(SqliteStorage):
    """It answers first and commits when somebody reads: nothing that was answered since is there after a crash."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._lock = threading.RLock()

    def db(self) -> sqlite3.Connection:
        with self._lock:  # one for all threads, so that they do not meet its open transaction
            if not self._opened:
                self._opened.append(self.connect())
                self._opened[0].execute("PRAGMA busy_timeout=50")  # but other handles do
            return self._opened[0]

    def apply_together(self, scope: str, batches: Sequence[Batch]) -> Sequence[Outcome]:
        with self._lock:
            db = self.db()
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            done = [self.contents(db).apply(batch) for batch in batches]
            if any(rings for _, rings in done):
                db.execute("INSERT OR IGNORE INTO bells VALUES (?)", (scope,))
            return [outcome for outcome, _ in done]

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        with self._lock:
            self.db().commit()
            return super().read(queries)

    def is_rung(self, channels: Sequence[str]) -> bool:
        with self._lock:
            return super().is_rung(channels)


class Retries(SqliteStorage):
    """A commit whose answer was slow is sent again."""

    def apply_together(self, scope: str, batches: Sequence[Batch]) -> Sequence[Outcome]:
        super().apply_together(scope, batches)
        return super().apply_together(scope, batches)


class RingsInMemory(SqliteStorage):
    """Wake-ups stay in a table that nobody looks at."""

    def is_rung(self, channels: Sequence[str]) -> bool:
        return False


class TextColumns(sqlite_storage.Fields):
    """Values are kept as text."""

    def __setitem__(self, field: bytes, value: Any) -> None:
        super().__setitem__(field, value.decode("utf-8", "replace").encode() if isinstance(value, bytes) else value)


class Text(SqliteStorage):
    """Fields of hashes are kept as text."""

    def contents(self, db: sqlite3.Connection) -> Interpreter:
        contents = super().contents(db)
        hashes: Any = sqlite_storage.Named(db, "hashes", partial(TextColumns, db, "hashes"))
        return self.interpreter(contents.lists, contents.sets, hashes, contents.locks)


class Unordered(sqlite_storage.Sorted):
    """Equal scores come in the order in which they were added, here: the other way round."""

    def after(self, cursor: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
        return iter(sorted(super().after(cursor), key=lambda entry: (entry[0], [-byte for byte in entry[1]])))

    def due(self, before: int, limit: int) -> list[bytes]:
        return [member for score, member in self if score <= before][:limit]


class RowOrder(SqliteStorage):
    """Sorted sets are ordered by score alone."""

    def contents(self, db: sqlite3.Connection) -> Interpreter:
        contents = super().contents(db)
        sets: Any = sqlite_storage.Named(db, "sets", partial(Unordered, db))
        return self.interpreter(contents.lists, sets, contents.hashes, contents.locks)


class _WallClock(Interpreter):
    def _holds(self, guard: Guard) -> bool:
        if isinstance(guard, Locked | Unlocked):
            guard = msgspec.structs.replace(guard, now=time.time_ns() // 1_000_000)
        return super()._holds(guard)


class _LastIn(Interpreter):
    def _place(self, target: Any, ids: Iterable[bytes], score: Any, *, front: bool = False) -> None:
        super()._place(target, ids, score, front=not front)


class _OnceIgnored(Interpreter):
    def _known(self, scope: str, once: Once) -> Sequence[bytes] | None:
        return ()


class _Shortens(Interpreter):
    def _leave(self, op: Move, moved: list[bytes], missing: list[bytes]) -> None:
        super()._leave(op, moved, missing)
        if op.source == op.target and isinstance(op.score, int):
            self.set_add(op.source.full, dict.fromkeys(moved, op.score))


class _ExpectIgnored(Interpreter):
    def _move(self, op: Move) -> tuple[Moved, bool]:
        return super()._move(msgspec.structs.replace(op, expect=None))


class _ForgetsRecords(Interpreter):
    def _put(self, op: Put) -> Any:
        placed = super()._put(op)
        if len(op.records) > 100:
            self.hash_delete(f"{{{op.target.scope}}}:records", list(op.records)[100:])
        return placed


class _RemembersRecords(Interpreter):
    def _move(self, op: Move) -> tuple[Moved, bool]:
        records = f"{{{op.source.scope}}}:records"
        kept = dict(self.hashes.get(records, {})) if op.target is None else {}
        moved = super()._move(op)
        self.hash_set(records, {id_: kept[id_] for id_ in moved[0].ids if id_ in kept})
        return moved


class _ForgetsRequests(Interpreter):
    def _move(self, op: Move) -> tuple[Moved, bool]:
        moved = super()._move(op)
        if op.once is not None:
            name = f"{{{op.source.scope}}}:requests"
            others = [by for by in self.hashes.get(name, {}) if by != op.once.incarnation]
            self.hash_delete(name, sorted(others)[:-16])
        return moved


class CachedFence(SqliteStorage):
    """Each handle counts its fences by itself."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        own: dict[str, int] = {}

        class Counting(Interpreter):
            def _stamp(self, op: Move, moved: list[bytes]) -> int:
                counters = f"{{{op.source.scope}}}:counters"
                if moved and counters in own:
                    self.hash_set(counters, {b"fence": b"%d" % own[counters]})
                fence = super()._stamp(op, moved)
                own[counters] = fence or own.get(counters, 0)
                return fence

        self.interpreter = Counting


def _with(interpreter: type[Interpreter]) -> type[SqliteStorage]:
    return type(interpreter.__name__.strip("_"), (SqliteStorage,), {"interpreter": interpreter})


VARIANTS: Final[tuple[tuple[int, type[SqliteStorage], str], ...]] = (
    (8, CachedFence, "fences grow from handle to handle"),
    (8, _with(_ForgetsRequests), "a claim is known behind many others"),
    (1, CommitsAfterGuards, "nothing comes between a guard and its batch"),
    (1, Text, "every byte is kept everywhere"),
    (3, _with(_WallClock), "times are what the caller says"),
    (4, _with(_LastIn), "a list is first in first out"),
    (4, RowOrder, "a sorted set is ordered by score and member bytes"),
    (6, _with(_ExpectIgnored), "expect skips what is otherwise"),
    (6, _with(_ForgetsRecords), "thousands of jobs move at once"),
    (6, _with(_RemembersRecords), "leaving forgets record and claim"),
    (7, CommitsLater, "what was answered survives a crash"),
    (7, Retries, "an answered batch was applied once"),
    (8, _with(_OnceIgnored), "a numbered claim sent again answers the same"),
    (8, _with(_Shortens), "an extension only raises"),
    (9, RingsInMemory, "a wake up is kept for the next wait"),
)
"""(rule, the class, the case that must catch it)."""
