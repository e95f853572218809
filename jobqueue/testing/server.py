"""A real server under testing blocks: each works in a namespace of its own, which is removed at its end."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import msgspec

from jobqueue.backend import MemoryBackend, RedisBackend, open_backend
from jobqueue.errors import DeclarationError
from jobqueue.storage.key import Key
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.url import redacted
from jobqueue.testing.backend import Lent

__all__ = ["Server"]

TEMPORARY: Final = "embedded://"
LONGEST: Final = 64


class Server:
    """Connections that any number of testing blocks use, one after the other or at once.

    Args:
        url: ``redis://…`` and its like, ``embedded:///directory``, or ``embedded://``: a server with a folder of its own
            that ends, and whose folder goes, with `close`. Nothing connects before the first use.

    Raises:
        DeclarationError: Nothing can open the URL, or it is ``memory://``.
        NotApplied: The embedded server does not start.

    Attributes:
        url: What to call it in messages; without password.
    """

    __test__ = False  # it is often imported under a name that begins with "Test"

    def __init__(self, url: str) -> None:
        self._folder: Path | None = None
        if url == TEMPORARY:
            self._folder = Path(tempfile.mkdtemp(prefix="jobqueue-test-"))
            url = f"{TEMPORARY}{self._folder}"
        try:
            backend = open_backend(url)
            if isinstance(backend, MemoryBackend):
                raise DeclarationError(f"{redacted(url)} is no server: without a URL a testing block is in memory")
            assert isinstance(backend, RedisBackend)
        except BaseException:
            self._remove_folder()
            raise
        self._backend = backend
        self._storage = backend.storage()
        self.url = backend.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def lend(self, namespace: str) -> Iterator[tuple[Storage, str]]:
        """A storage, and the name of a namespace there that nobody else uses; what was written there is removed.

        Only keys that were named are removed, so a server full of other things is neither searched nor touched.

        Args:
            namespace: What the name ends with, for those who watch the server.
        """
        used = _Remembering(self._storage)
        try:
            # Chance that no seed repeats: other runs, and other workers of this one, are on the same server.
            yield used, f"test-{secrets.token_hex(8)}-{namespace}"[:LONGEST]
        finally:
            if used.keys:
                self._backend.forget(used.keys)

    def close(self) -> None:
        """Give back the connections; a server with a folder of its own ends."""
        self._storage.close()
        self._backend.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Remembering(Lent):
    """A storage that remembers the keys that were written, or may have been."""

    def __init__(self, below: Storage) -> None:
        super().__init__(below)
        self.keys: set[Key] = set()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        for batch in batches:
            for op in batch.ops:
                for value in msgspec.structs.astuple(op):
                    found = value[0] if isinstance(value, tuple) and value else value  # `Move.count` has a key in it
                    if isinstance(found, Key):
                        self.keys.add(found)
        return super().apply(batches)
