"""A storage in one SQLite file: durable, for any number of threads and processes of one machine.

What operations mean is not written again: `Interpreter`, the specification, works on tables of this file instead of dicts.
What is left for a storage to do is here: transactions, durability, wake-ups, and how a call ended.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Answer, Batch, Held, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.queries import answer
from jobqueue.storage.shape import check_shape

SCHEMA = """
CREATE TABLE IF NOT EXISTS lists (name TEXT, at INTEGER, value BLOB, PRIMARY KEY (name, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hashes (name TEXT, field BLOB, value BLOB, PRIMARY KEY (name, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sets (name TEXT, field BLOB, value INTEGER, PRIMARY KEY (name, field)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS in_order ON sets (name, value, field);
CREATE TABLE IF NOT EXISTS locks (name TEXT PRIMARY KEY, token BLOB, until INTEGER, fence INTEGER);
CREATE TABLE IF NOT EXISTS bells (name TEXT PRIMARY KEY);
"""
POLL = 0.02  # seconds between two looks for a wake-up: another process cannot ring here, only leave a token


class Fields(MutableMapping[bytes, Any]):
    """The fields of one hash, or the scores of one sorted set."""

    def __init__(self, db: sqlite3.Connection, table: str, name: str) -> None:
        self.db, self.table, self.name = db, table, name

    def __getitem__(self, field: bytes) -> Any:
        row = self.db.execute(f"SELECT value FROM {self.table} WHERE name=? AND field=?", (self.name, field)).fetchone()
        if row is None:
            raise KeyError(field)
        return row[0]

    def __setitem__(self, field: bytes, value: Any) -> None:
        self.db.execute(f"INSERT OR REPLACE INTO {self.table} VALUES (?, ?, ?)", (self.name, field, value))

    def __delitem__(self, field: bytes) -> None:
        if not self.db.execute(f"DELETE FROM {self.table} WHERE name=? AND field=?", (self.name, field)).rowcount:
            raise KeyError(field)

    def __iter__(self) -> Iterator[bytes]:
        return (row[0] for row in self.db.execute(f"SELECT field FROM {self.table} WHERE name=?", (self.name,)))

    def __len__(self) -> int:
        return int(self.db.execute(f"SELECT count(*) FROM {self.table} WHERE name=?", (self.name,)).fetchone()[0])


class Sorted:
    """One sorted set. SQLite compares blobs byte by byte, which is the order of rule 4."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self.db, self.name, self.scores = db, name, Fields(db, "sets", name)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return self.after((-(2**63), b""))

    def after(self, cursor: tuple[int, bytes]) -> Iterator[tuple[int, bytes]]:
        query = "SELECT value, field FROM sets WHERE name=? AND (value, field) > (?, ?) ORDER BY value, field"
        return iter(self.db.execute(query, (self.name, *cursor)))

    def first(self) -> tuple[int, bytes]:
        return next(iter(self))

    def lowest(self) -> int:
        return self.first()[0]

    def due(self, before: int, limit: int) -> list[bytes]:
        query = "SELECT field FROM sets WHERE name=? AND value<=? ORDER BY value, field LIMIT ?"
        return [row[0] for row in self.db.execute(query, (self.name, before, limit))]

    def add(self, members: Mapping[bytes, int]) -> None:
        self.scores.update(members)

    def remove(self, members: Iterable[bytes]) -> None:
        for member in members:
            self.scores.pop(member, None)


class Queue:
    """One list: values with ascending numbers, which may be negative at the head."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self.db, self.name = db, name

    def __len__(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM lists WHERE name=?", (self.name,)).fetchone()[0])

    def __iter__(self) -> Iterator[bytes]:
        return (row[0] for row in self.db.execute("SELECT value FROM lists WHERE name=? ORDER BY at", (self.name,)))

    def __getitem__(self, _first: int) -> bytes:
        return next(iter(self))

    def extend(self, values: Iterable[bytes]) -> None:
        self._add(values, "max(at)", 1)

    def extendleft(self, values: Iterable[bytes]) -> None:
        self._add(values, "min(at)", -1)

    def _add(self, values: Iterable[bytes], end: str, step: int) -> None:
        at = self.db.execute(f"SELECT {end} FROM lists WHERE name=?", (self.name,)).fetchone()[0] or 0
        rows = ((self.name, at + step * number, value) for number, value in enumerate(values, 1))
        self.db.executemany("INSERT INTO lists VALUES (?, ?, ?)", rows)

    def popleft(self) -> None:
        self.db.execute("DELETE FROM lists WHERE (name,at)=(SELECT name,min(at) FROM lists WHERE name=?)", (self.name,))

    def remove(self, value: bytes) -> None:
        first = "SELECT min(at) FROM lists WHERE name=? AND value=?"
        self.db.execute(f"DELETE FROM lists WHERE name=? AND at=({first})", (self.name, self.name, value))


class Named(dict[str, Any]):
    """Full name → list, sorted set or hash. One without rows does not exist, so there is nothing to add or delete."""

    def __init__(self, db: sqlite3.Connection, table: str, view: Callable[[str], Any]) -> None:
        self.db, self.table, self.view = db, table, view
        self.exists = f"SELECT 1 FROM {table} WHERE name=? LIMIT 1"

    def __contains__(self, name: object) -> bool:
        return self.db.execute(self.exists, (name,)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        return (row[0] for row in self.db.execute(f"SELECT DISTINCT name FROM {self.table}"))

    def __getitem__(self, name: str) -> Any:
        return self.view(name)

    def __delitem__(self, name: str) -> None: ...

    def get(self, name: str, default: Any = None) -> Any:
        return self.view(name) if name in self else default

    def setdefault(self, name: str, _default: Any = None) -> Any:
        return self.view(name)


class Locks(Named):
    """Full name → lock."""

    def __init__(self, db: sqlite3.Connection) -> None:
        rows = "SELECT token, until, fence FROM locks WHERE name=?"
        super().__init__(db, "locks", lambda name: Held(*db.execute(rows, (name,)).fetchone()))

    def __setitem__(self, name: str, lock: Held) -> None:
        self.db.execute("INSERT OR REPLACE INTO locks VALUES (?, ?, ?, ?)", (name, lock.token, lock.until, lock.fence))


class SqliteStorage:
    """A `Storage` in the file ``path``, which is made if it is not there."""

    interpreter: type[Interpreter] = Interpreter

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._interrupted = threading.Event()
        self._local, self._opened = threading.local(), list[sqlite3.Connection]()

    def connect(self) -> sqlite3.Connection:
        """A new connection."""
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")  # a commit returns when the disk has it, not only the kernel
        db.executescript(SCHEMA)
        return db

    def db(self) -> sqlite3.Connection:
        """The connection of this thread in this process: SQLite does not allow to use one after a fork."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.db, self._local.pid = self.connect(), os.getpid()
            self._opened.append(self._local.db)
        db: sqlite3.Connection = self._local.db
        return db

    def contents(self, db: sqlite3.Connection) -> Interpreter:
        """The tables of the file, as the interpreter wants them."""
        lists, sets = Named(db, "lists", lambda name: Queue(db, name)), Named(db, "sets", lambda name: Sorted(db, name))
        return self.interpreter(lists, sets, Named(db, "hashes", lambda name: Fields(db, "hashes", name)), Locks(db))

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        for batch in batches:
            check_shape(batch)
        outcomes: dict[int, Outcome] = {}
        for scope in dict.fromkeys(batch.scope for batch in batches):
            of_scope = {index: batch for index, batch in enumerate(batches) if batch.scope == scope}
            outcomes.update(zip(of_scope, self.apply_together(scope, list(of_scope.values())), strict=True))
        return [outcomes[index] for index in range(len(batches))]

    def apply_together(self, scope: str, batches: Sequence[Batch]) -> Sequence[Outcome]:
        """The batches of one scope, in one transaction. The interpreter checks each whole before it writes."""
        db = None
        try:
            db = self.db()
            db.execute("BEGIN IMMEDIATE")  # not BEGIN: guards have to see what no other process changes any more
            done = [self.contents(db).apply(batch) for batch in batches]
            if any(rings for _, rings in done):
                db.execute("INSERT OR IGNORE INTO bells VALUES (?)", (scope,))
        except BaseException as error:
            if db is not None and db.in_transaction:
                db.rollback()
            if not isinstance(error, sqlite3.Error):
                raise
            return [NotApplied(f"{self.path}: {error}; nothing was written") for _ in batches]
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.rollback()
            return [OutcomeUnknown(f"{self.path}: {error} at the commit") for _ in batches]
        return [outcome for outcome, _ in done]

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        db = self.db()
        try:
            db.execute("BEGIN")  # one snapshot for all of them
            return [answer(self.contents(db), query) for query in queries]
        except sqlite3.Error as error:
            raise NotApplied(f"{self.path}: {error}") from error
        finally:
            if db.in_transaction:
                db.rollback()

    def wait(self, channels: Sequence[str], timeout: float, /) -> None:
        deadline = time.monotonic() + timeout
        while not self.is_rung(channels):
            rest = deadline - time.monotonic()
            if rest <= 0 or self._interrupted.wait(min(POLL, rest)):
                break
        self._interrupted.clear()

    def is_rung(self, channels: Sequence[str]) -> bool:
        """Take the token of one of the scopes, if there is one."""
        db, marks = self.db(), ", ".join("?" * len(channels))
        try:
            row = db.execute(f"SELECT name FROM bells WHERE name IN ({marks})", channels).fetchone()
            return row is not None and db.execute("DELETE FROM bells WHERE name=?", row).rowcount > 0
        except sqlite3.Error as error:
            raise NotApplied(f"{self.path}: {error}") from error

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()
        self._local = threading.local()
