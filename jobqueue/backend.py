"""From a URL to a storage and its clock. The client libraries are imported here, when one is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit

from jobqueue.clock import Clock, ServerClock, SystemClock
from jobqueue.errors import DeclarationError, NotApplied, StorageError
from jobqueue.storage.key import Key
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.protocol import AsyncStorage, Storage
from jobqueue.storage.wrappers import AsyncFromSync

if TYPE_CHECKING:
    from jobqueue.embedded import EmbeddedServer
    from jobqueue.storage.redis import RedisServer

__all__ = [
    "Backend", "GivenBackend", "MemoryBackend", "RedisBackend", "check_url", "embedded_folder", "named_url", "open_backend",
]  # fmt: skip

REDIS_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
ENVIRONMENT: Final = "JOBQUEUE_URL"


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

    def __init__(self, server: RedisServer, embedded: EmbeddedServer | None = None) -> None:
        self._server = server
        self._embedded = embedded
        self.url = server.label if embedded is None else f"embedded://{embedded.directory}"
        # Of its own, so that asking for the time does not wait behind what others send.
        self._asking = server.storage()
        self.clock: Clock = ServerClock(lambda: self._asking.time_ms("time"))

    def storage(self) -> Storage:
        """See `Backend.storage`."""
        return self._server.storage()

    def async_storage(self) -> AsyncStorage:
        """See `Backend.async_storage`."""
        return self._server.async_storage()

    def describe(self) -> Mapping[str, Any]:
        """See `Backend.describe`."""
        return self._asking.describe()

    def forget(self, keys: Iterable[Key]) -> None:
        """Remove these keys: how a test cleans up. Raises `NotApplied`."""
        self._asking.forget(keys)

    def close(self) -> None:
        """See `Backend.close`."""
        self._asking.close()
        if self._embedded is not None:
            self._embedded.close()


def check_url(url: str) -> str:
    """Answer the URL unchanged if something here can open it.

    Raises:
        DeclarationError: Nothing can.
    """
    if not isinstance(url, str):
        raise DeclarationError(f"a URL is a string, such as redis://localhost:6379/0, not {url!r}")
    parts = urlsplit(url)
    scheme = parts.scheme
    if scheme in ("redis", "rediss"):
        try:
            _ = parts.port
        except ValueError as error:
            raise DeclarationError(f"the port in the {scheme}:// URL is no number from 0 to 65535") from error
        if not parts.path.removeprefix("/").isdigit() and parts.path not in ("", "/"):
            raise DeclarationError(
                f"the path of a {scheme}:// URL is the number of a database, as in /0, not {parts.path!r}"
            )
    if scheme == "embedded" and (parts.netloc or len(parts.path) < 2):
        # embedded://data would be a host, and silently the wrong directory.
        raise DeclarationError(f"{url!r} names no directory: write its absolute path, as in embedded:///var/lib/shop")
    if scheme in ("memory", "embedded") or scheme in REDIS_SCHEMES:
        return url
    known = ", ".join(f"{name}://" for name in (*REDIS_SCHEMES, "memory", "embedded"))
    raise DeclarationError(
        f"no storage is known for a URL that begins with {scheme!r}: it must begin with one of {known}"
    )


def named_url(url: str | None) -> str:
    """Answer the URL, or else the environment's JOBQUEUE_URL. Raises `DeclarationError` where there is none."""
    if url is not None:
        return url
    found = os.environ.get(ENVIRONMENT)
    if not found:
        raise DeclarationError(
            f"this JobQueue has no URL: pass one to JobQueue(…), or set the environment's {ENVIRONMENT}, "
            "for example redis://localhost:6379/0 or embedded:///var/lib/shop"
        )
    return found


def embedded_folder(url: str) -> Path | None:
    """The folder of the server that an ``embedded://`` URL names; None for any other URL."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "embedded" else None


def open_backend(url: str | None, client: Any = None, *, allow_eviction: bool = False) -> Backend:
    """Open the storage that a client, a URL, or else the environment's JOBQUEUE_URL, names. Nothing is connected yet.

    Raises:
        DeclarationError: There is no URL, or nothing can open it.
    """
    if client is not None:
        from jobqueue.storage.redis import RedisServer

        return RedisBackend(RedisServer.of(client, allow_eviction=allow_eviction))
    url = named_url(url)
    if urlsplit(check_url(url)).scheme == "memory":
        return MemoryBackend()
    from jobqueue.storage.redis import open_redis

    if (folder := embedded_folder(url)) is not None:
        from jobqueue.embedded import EmbeddedServer

        try:
            embedded = EmbeddedServer.open(folder)
        except StorageError as error:
            raise NotApplied(str(error)) from error
        return RedisBackend(open_redis(f"unix://{quote(embedded.socket)}", located=embedded.located), embedded)
    return RedisBackend(open_redis(url, allow_eviction=allow_eviction))
