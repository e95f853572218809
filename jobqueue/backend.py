"""From a URL to a storage and its clock. The client libraries are imported here, when one is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from jobqueue.clock import Clock, ServerClock, SystemClock
from jobqueue.errors import DeclarationError, NotApplied, StorageError
from jobqueue.names import is_namespace
from jobqueue.storage.key import Key
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import ScopePage, Scopes
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
_SENT_ONCE: Final = "nothing is ever sent twice by a connection"
_IN_THE_URL: Final = "the URL itself says it"
UNUSED: Final = {
    "host": _IN_THE_URL, "port": _IN_THE_URL, "path": _IN_THE_URL, "connection_class": "the scheme decides that",
    "event_dispatcher": "nothing listens to it", "credential_provider": "a URL holds no object: put user and password in",
    "redis_connect_func": "a URL holds no function",
    "protocol": "RESP2 is spoken", "health_check_interval": "a connection is looked at before each use",
    "retry": _SENT_ONCE, "retry_on_timeout": _SENT_ONCE, "retry_on_error": _SENT_ONCE,
}  # fmt: skip
"""Settings that redis-py has for its connections and that would be dropped silently, with the reason."""
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


def check_url(url: str) -> str:
    """Answer the URL unchanged if something here can open it, and every part of it means something.

    Raises:
        DeclarationError: Nothing can, or a part of it would be dropped silently. Says neither user nor password.
    """
    if not isinstance(url, str):
        raise DeclarationError(f"a URL is a string, such as redis://localhost:6379/0, not {url!r}")
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in (*REDIS_SCHEMES, "memory", "embedded"):
        known = ", ".join(f"{name}://" for name in (*REDIS_SCHEMES, "memory", "embedded"))
        raise DeclarationError(
            f"no storage is known for a URL that begins with {scheme if colon else urlsplit(url).scheme!r}: "
            f"it must begin with one of {known}"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its own words may show the password.
        raise DeclarationError(f"the host in the {scheme}:// URL cannot be read: look at its brackets") from None
    if "#" in url:
        raise DeclarationError(
            f"what follows # in the {scheme}:// URL would be dropped: write a # that belongs to it as %23"
        )
    if scheme == "memory" and url != "memory://":
        raise DeclarationError("memory:// has nothing behind it: what is kept there belongs to one JobQueue")
    if scheme == "embedded":
        _check_folder(parts, url)
    elif scheme != "memory":
        _check_server(parts)
        _check_settings(parts)
    return url


def _check_folder(parts: SplitResult, url: str) -> None:
    if "?" in url:
        raise DeclarationError("an embedded:// URL has no settings: write a ? that belongs to the folder's name as %3F")
    if parts.netloc or len(parts.path) < 2:
        # embedded://data would be a host, and silently the wrong directory.
        where = parts.netloc.rpartition("@")[2] + parts.path
        raise DeclarationError(
            f"'embedded://{where}' names no directory: write its absolute path, as in embedded:///var/lib/shop"
        )


def _check_server(parts: SplitResult) -> None:
    scheme, hosts, path = parts.scheme, parts.netloc.rpartition("@")[2], parts.path.removeprefix("/")
    if scheme == "unix":
        if hosts or not path:
            raise DeclarationError("a unix:// URL has the path of a socket, as in unix:///run/redis.sock")
        return
    several = "+" in scheme
    if "," in hosts and not several:
        raise DeclarationError(
            f"a {scheme}:// URL names one server: for several use {scheme}+sentinel:// or {scheme}+cluster://"
        )
    try:
        for host in hosts.split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError as error:
        raise DeclarationError(f"the port in the {scheme}:// URL is no number from 0 to 65535") from error
    if scheme.endswith("+sentinel"):
        service, _, path = path.partition("/")
        if not service:
            raise DeclarationError(f"the name of the service is missing: {scheme}://host:port/SERVICE/0")
    if scheme.endswith("+cluster") and path not in ("", "0"):
        raise DeclarationError(f"a cluster has only the database 0, not {path!r}")
    if path and not path.isdigit():
        raise DeclarationError(
            f"the path of a {scheme}:// URL ends with the number of a database, as in /0, not {path!r}"
        )


def _check_settings(parts: SplitResult) -> None:
    seen: set[str] = set()
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if not value:
            raise DeclarationError(f"the setting {name!r} in the {parts.scheme}:// URL has no value")
        if name in seen:
            raise DeclarationError(f"the setting {name!r} stands twice in the {parts.scheme}:// URL")
        if name == "db" and parts.scheme != "unix":
            raise DeclarationError(f"the database of a {parts.scheme}:// URL is its path, as in /3, not a setting")
        if name in UNUSED:
            raise DeclarationError(
                f"the setting {name!r} in the {parts.scheme}:// URL is not used here: {UNUSED[name]}"
            )
        seen.add(name)


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
