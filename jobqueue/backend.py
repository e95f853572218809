"""From a URL to a storage and its clock. The client libraries are imported here, when one is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote_to_bytes

from jobqueue.clock import Clock, ServerClock, SystemClock
from jobqueue.errors import DeclarationError, NotApplied, StorageError
from jobqueue.names import is_namespace
from jobqueue.storage.key import Key
from jobqueue.storage.limits import Limits, limits_in
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import ScopePage, Scopes
from jobqueue.storage.protocol import AsyncStorage, Storage
from jobqueue.storage.url import Url, check_url
from jobqueue.storage.wrappers import AsyncFromSync
from jobqueue.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from jobqueue.embedded import EmbeddedServer
    from jobqueue.storage.redis import RedisServer

__all__ = ["Backend", "GivenBackend", "MemoryBackend", "RedisBackend", "embedded_folder", "named_url", "open_backend"]

ENVIRONMENT: Final = "JOBQUEUE_URL"
SEARCH_KEYS: Final = 5_000
SEARCH_PAGES: Final = 20
"""Keys that a call looks at in search of namespaces, and calls at most."""


class Backend(Protocol):
    """A place where jobs are kept: it makes storages, each with connections of its own, and has a clock."""

    @property
    def url(self) -> str:
        """What to call it in messages; without password."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock its users agree on."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes may run the jobs in there."""
        ...

    @property
    def timeout(self) -> float | None:
        """How many seconds a call may take in all; None where none has to wait."""
        ...

    def storage(self) -> Storage:
        """A new storage with connections of its own."""
        ...

    def async_storage(self) -> AsyncStorage:
        """A new storage for the running event loop."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What is known of the server; asks it."""
        ...

    def close(self) -> None:
        """Give back what was opened besides the storages."""
        ...


class MemoryBackend:
    """Everything in this process."""

    url = "memory://"
    is_shared = False
    timeout = None

    def __init__(self, storage: MemoryStorage | None = None, clock: Clock | None = None) -> None:
        self.memory = MemoryStorage() if storage is None else storage
        self.clock: Clock = SystemClock() if clock is None else clock

    def storage(self) -> Storage:
        """See `Backend.storage`; all of them share their contents."""
        return self.memory.share()

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return AsyncFromSync(self.memory.share())

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return {"server": "memory"}

    def close(self) -> None:
        """See `Backend.close`; the contents stay."""


class GivenBackend:
    """A storage that the user made: one object for all, which must be safe to use from many threads."""

    is_shared = True
    timeout = None

    def __init__(self, storage: Storage, clock: Clock | None) -> None:
        self._storage = storage
        self.url = type(storage).__name__
        self.clock: Clock = SystemClock() if clock is None else clock

    def storage(self) -> Storage:
        """See `Backend.storage`."""
        return self._storage

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return AsyncFromSync(self._storage)

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return {"server": self.url}

    def close(self) -> None:
        """See `Backend.close`; who made the storage closes it."""


class RedisBackend:
    """A Redis or Valkey server, perhaps one that this process keeps running."""

    is_shared = True

    def __init__(self, server: RedisServer, embedded: EmbeddedServer | None = None) -> None:
        self._server = server
        self._embedded = embedded
        self.url = server.label if embedded is None else f"embedded://{embedded.directory}"
        self.timeout: float | None = server.limits.timeout
        # Of its own, so that asking for the time does not wait behind what others send.
        self._asking = server.storage()
        self.clock: Clock = ServerClock(lambda end: self._asking.time_ms("time", end))

    def storage(self) -> Storage:
        """See `Backend.storage`."""
        return self._server.storage()

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return self._server.async_storage()

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return self._asking.describe()

    def namespaces(self) -> list[str]:
        """The namespaces with queues that are found among the first 100,000 keys, sorted. Raises `NotApplied`."""
        found: set[str] = set()
        cursor = b""
        for _ in range(SEARCH_PAGES):
            [page] = self._asking.read([Scopes("*", cursor, SEARCH_KEYS)])  # the server takes it for a pattern
            assert isinstance(page, ScopePage)
            found.update([scope.partition(":")[0] for scope in page.scopes])
            cursor = page.cursor
            if not cursor:
                break
        return sorted(filter(is_namespace, found))

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove these keys: how a test cleans up. Raises `NotApplied`."""
        self._asking.forget(keys)

    def close(self) -> None:
        """See `Backend.close`."""
        self._asking.close()
        if self._embedded is not None:
            self._embedded.close()


def named_url(url: str | None, *, allow_unverified_tls: bool = False) -> str:
    """Answer the URL, or else the environment's JOBQUEUE_URL. Raises `DeclarationError`: none can be opened."""
    if url is not None:
        url = Url(url)
        return check_url(url, allow_unverified_tls=allow_unverified_tls)
    if not os.environ.get(ENVIRONMENT):
        raise DeclarationError(
            f"this JobQueue has no URL: pass one to JobQueue(…), or set the environment's {ENVIRONMENT}, "
            "for example redis://localhost:6379/0 or embedded:///var/lib/shop"
        )
    try:
        return check_url(os.environ[ENVIRONMENT], allow_unverified_tls=allow_unverified_tls)
    except DeclarationError as error:
        problem = str(error)
    raise DeclarationError(f"the environment's {ENVIRONMENT}: {problem}")


def embedded_folder(url: str) -> Path | None:
    """The folder of the server that an ``embedded://`` URL names; None for any other URL."""
    scheme, _, path = limits_in(url)[0].partition("://")
    return Path(os.fsdecode(unquote_to_bytes(path))) if scheme == "embedded" else None


def open_backend(
    url: str | None,
    client: Any = None,
    limits: Limits | None = None,
    *,
    allow_eviction: bool = False,
    allow_unverified_tls: bool = False,
) -> Backend:
    """Open the storage that a client, a URL, or else the environment's JOBQUEUE_URL, names. Nothing is connected yet.

    Raises:
        DeclarationError: There is no URL, or nothing can open it.
    """
    url = None if url is None else Url(url)
    if client is not None:
        from jobqueue.storage.redis import RedisServer

        return RedisBackend(
            RedisServer.of(client, limits, allow_eviction=allow_eviction, allow_unverified_tls=allow_unverified_tls)
        )
    bare, found = limits_in(named_url(url, allow_unverified_tls=allow_unverified_tls), limits)
    if bare == "memory://":
        return MemoryBackend()
    opened = Url(bare)
    del bare
    allowed = allow_eviction, allow_unverified_tls
    return uninterrupted(lambda: _open_server(opened, found, *allowed), "opening the storage")


def _open_server(url: str, limits: Limits, allow_eviction: bool, allow_unverified_tls: bool) -> Backend:
    from jobqueue.storage.redis import open_redis

    if (folder := embedded_folder(url)) is not None:
        from jobqueue.embedded import EmbeddedServer

        try:
            embedded = EmbeddedServer.open(folder)
        except NotApplied:
            raise
        except StorageError as error:
            raise NotApplied(str(error)) from error
        return RedisBackend(open_redis(f"unix://{quote(embedded.socket)}", limits, located=embedded.located), embedded)
    return RedisBackend(
        open_redis(url, limits, allow_eviction=allow_eviction, allow_unverified_tls=allow_unverified_tls)
    )
