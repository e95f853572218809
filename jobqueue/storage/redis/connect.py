"""From a URL, or from a client of redis-py, to storages.

``redis://`` ``rediss://`` ``unix://`` ``redis+sentinel://host:port,host:port/service/db`` ``redis+cluster://host:port``

However a server is named, the storages open connections of their own that never send anything twice. A client that is
given is only read for its address and settings, never used or changed.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import redis
import redis.asyncio
from redis.asyncio import connection as aio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from jobqueue.errors import DeclarationError, NotApplied, StorageError
from jobqueue.storage.limits import Limits, limits_in
from jobqueue.storage.redis.backend import AsyncRedisStorage, RedisStorage
from jobqueue.storage.redis.cluster import Address, AsyncClusterNodes, ClusterNodes
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.storage.redis.link import AsyncConnect, AsyncConnection, Connect, Connection, left
from jobqueue.storage.redis.nodes import AsyncOne, One
from jobqueue.storage.redis.timed import TIMED
from jobqueue.storage.url import check_url, similar_setting

__all__ = ["Client", "RedisServer", "open_redis"]

Located: TypeAlias = Callable[[float], str]
Client: TypeAlias = "redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster"

# redis-py has no types for what is used of these.
_CONNECTIONS: Final[dict[str, Any]] = {
    **TIMED,
    "async tcp": aio.Connection, "async tls": aio.SSLConnection, "async unix": aio.UnixDomainSocketConnection,
}  # fmt: skip
_KNOWS_DRIVERS: Final = "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
_SENTINEL: Final[Any] = Sentinel
_ASYNC_SENTINEL: Final[Any] = AsyncSentinel
_parse_url: Final[Callable[[str], dict[str, Any]]] = parse_url

_SEVERAL: Final = {"redis+sentinel": 26379, "rediss+sentinel": 26379, "redis+cluster": 6379, "rediss+cluster": 6379}
"""Schemes with several addresses, and their usual ports."""
_DECODING: Final = "has decode_responses=True, which cannot carry the bytes of a job: make the client without it"
_KEPT: Final = (
    "host", "port", "path", "db", "username", "password", "credential_provider", "client_name",
    "socket_keepalive", "socket_keepalive_options", "socket_type",
)  # fmt: skip


@attrs.frozen
class Place:
    """Where a server is.

    Attributes:
        by: ``tcp``, ``tls`` or ``unix``.
        settings: Arguments for its connections.
        nodes: Addresses of sentinels, or of nodes of a cluster to begin with.
        service: The name that the sentinels know the primary by; empty for a cluster.
    """

    by: str
    settings: Mapping[str, Any] = attrs.field(repr=False)
    nodes: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @property
    def label(self) -> str:
        """What to call it in messages; never contains a password."""
        settings = self.settings
        scheme = "rediss" if self.by == "tls" else "redis"
        database = f"/{settings['db']}" if settings.get("db") else ""
        if self.by == "unix":
            return f"unix://{settings.get('path', '')}"
        if self.nodes:
            nodes = ",".join(_shown(host, port) for host, port in self.nodes)
            return (
                f"{scheme}+sentinel://{nodes}/{self.service}{database}"
                if self.service
                else f"{scheme}+cluster://{nodes}"
            )
        return f"{scheme}://{_shown(settings.get('host', 'localhost'), settings.get('port', 6379))}{database}"


def _shown(host: str, port: int) -> str:
    """An address as a URL has it: one of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class RedisServer:
    """A server and how to reach it; makes storages. Nothing connects before the first use of a storage.

    Attributes:
        label: Its address in messages, without a password.
        limits: What a call may take.
    """

    def __init__(
        self, place: Place, limits: Limits, *, allow_eviction: bool = False, located: Located | None = None
    ) -> None:
        self.limits = limits
        self._place = place
        self._located = located
        self._guarded = Guarded(place.label, allow_eviction=allow_eviction)
        self.label = place.label

    @classmethod
    def of(cls, client: Client, limits: Limits | None = None, *, allow_eviction: bool = False) -> RedisServer:
        """The server that a client of redis-py is connected to.

        Args:
            client: Sync or async; from a URL, a pool or a Sentinel. Its address, user, TLS and keepalive are used; not its
                timeouts, of which one would not bound the call.
            limits: What a call may take; the default if None.
            allow_eviction: See `open_redis`.

        Raises:
            DeclarationError: The client decodes responses, or is bound to a single connection.
        """
        return cls(_place_of(client), Limits() if limits is None else limits, allow_eviction=allow_eviction)

    def storage(self) -> RedisStorage:
        """A new storage, with connections of its own."""
        place = self._place
        if place.nodes and not place.service:
            return RedisStorage(self._guarded, ClusterNodes(self._guarded, place.nodes, self._to, self.limits))
        return RedisStorage(self._guarded, One(self._guarded, self.label, self._connect, self.limits))

    def async_storage(self) -> AsyncRedisStorage:
        """A new storage for the running event loop, with connections of its own."""
        place = self._place
        limits = self.limits
        if place.nodes and not place.service:
            return AsyncRedisStorage(self._guarded, AsyncClusterNodes(self._guarded, place.nodes, self._ato, limits))
        return AsyncRedisStorage(self._guarded, AsyncOne(self._guarded, self.label, self._aconnect, limits))

    def _to(self, address: Address) -> Connect:
        return functools.partial(self._connect, address=address)

    def _ato(self, address: Address) -> AsyncConnect:
        return functools.partial(self._aconnect, address=address)

    def _connect(self, end: float, address: Address | None = None) -> Connection:
        place = self._place
        settings = {**place.settings, "end": end}
        if self._located is not None:
            settings["path"] = _found(self._located, end)
        if address is not None:
            settings["host"], settings["port"] = address
        elif place.nodes:
            sentinel = _SENTINEL(place.nodes, sentinel_kwargs=_sentinel_settings(place, end))
            try:
                settings["host"], settings["port"] = sentinel.discover_master(place.service)
            finally:
                for client in sentinel.sentinels:
                    client.connection_pool.disconnect()
        made: Connection = _made(_CONNECTIONS[place.by], settings)
        return made

    async def _aconnect(self, end: float, address: Address | None = None) -> AsyncConnection:
        place = self._place
        # The exchange as a whole is timed: the library's own timeout would cost a task for each write.
        settings = {**place.settings, "socket_timeout": None, "socket_connect_timeout": None}
        if self._located is not None:
            settings["path"] = await asyncio.to_thread(_found, self._located, end)
        if address is not None:
            settings["host"], settings["port"] = address
        elif place.nodes:
            sentinel = _ASYNC_SENTINEL(list(place.nodes), sentinel_kwargs=_sentinel_settings(place, end))
            try:
                settings["host"], settings["port"] = await sentinel.discover_master(place.service)
            finally:
                for client in sentinel.sentinels:
                    await client.connection_pool.disconnect()
        if place.by == "tls":
            known = inspect.signature(aio.SSLConnection).parameters  # it lacks some of the sync one's
            settings = {name: value for name, value in settings.items() if not name.startswith("ssl_") or name in known}
        made: AsyncConnection = _made(_CONNECTIONS[f"async {place.by}"], settings)
        return made


def _found(located: Located, end: float) -> str:
    """Where the server is. Raises `NotApplied`."""
    try:
        return located(left(end))
    except NotApplied:
        raise
    except StorageError as error:
        raise NotApplied(str(error)) from error


def open_redis(
    url: str, limits: Limits | None = None, *, allow_eviction: bool = False, located: Located | None = None
) -> RedisServer:
    """The server at a URL; nothing connects yet.

    Args:
        url: See above; ``timeout``, ``max_connections`` and settings of redis-py's connections can follow as a query.
        limits: What a call may take, where the URL does not say it; the default if None.
        allow_eviction: Accept a server whose maxmemory-policy lets it throw jobs away when it is full.
        located: Called before each new connection with the seconds it may take; answers the path of the Unix socket.

    Raises:
        DeclarationError: The URL is none of these, or asks for decoded responses.
    """
    url, limits = limits_in(check_url(url), limits)
    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    rest = url.partition("://")[2]
    nodes: tuple[tuple[str, int], ...] = ()
    service = ""
    if kind:
        login, at, hosts = parts.netloc.rpartition("@")
        nodes = tuple([_address(host, _SEVERAL[parts.scheme]) for host in hosts.split(",")])
        service, _, database = parts.path.strip("/").partition("/")
        service = service if kind == "sentinel" else ""
        query = f"?{parts.query}" if parts.query else ""
        rest = f"{login}{at}any/{database or 0}{query}"
    place = _place_at(f"{base}://{rest}", nodes, unquote(service))
    if isinstance(place, str):
        # Not where the library's error is being handled: it may hold a secret.
        raise DeclarationError(f"a setting in the {parts.scheme}:// URL {place}")
    return RedisServer(place, limits, allow_eviction=allow_eviction, located=located)


def _place_at(url: str, nodes: tuple[tuple[str, int], ...], service: str) -> Place | str:
    """The place, or what is wrong with a setting."""
    try:
        settings = _parse_url(url)
    except ValueError:
        return "has a value that cannot be"
    # Earlier releases decode twice.
    settings.update(
        {name: value for name, value in parse_qsl(urlsplit(url).query) if isinstance(settings.get(name), str)}
    )
    settings.pop("connection_class", None)
    if settings.get("decode_responses"):
        return _DECODING
    by = {"redis": "tcp", "rediss": "tls", "unix": "unix"}[urlsplit(url).scheme]
    place = Place(by, _lasting(settings, by), nodes, service)
    for name in settings:
        try:
            _made(_CONNECTIONS[by], {"end": 0.0, name: settings[name]})  # it connects with its first use
        except TypeError:
            return f"is none of redis-py {redis.__version__}{similar_setting(name)}"
        except (ValueError, redis.RedisError):
            return f"has a value that cannot be{similar_setting(name)}"
    return place


def _address(text: str, port: int) -> Address:
    host, colon, given = text.rpartition(":")
    return (host.strip("[]"), int(given)) if colon and not given.endswith("]") else (text.strip("[]"), port)


def _decoding() -> DeclarationError:
    return DeclarationError(f"this client {_DECODING}")


def _place_of(client: Client) -> Place:
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return _cluster_of(client)
    pool = client.connection_pool
    settings: dict[str, Any] = pool.connection_kwargs
    if settings.get("decode_responses"):
        raise _decoding()
    if getattr(client, "connection", None) is not None or getattr(client, "single_connection_client", False):
        raise DeclarationError(
            "this client is bound to a single connection, which threads and forked children would share: make it "
            "without single_connection_client=True"
        )
    kept = {name: value for name, value in settings.items() if name in _KEPT or name.startswith("ssl_")}
    kind: type = pool.connection_class
    by = "tls" if issubclass(kind, SSLConnection | aio.SSLConnection) else "tcp"
    if issubclass(kind, UnixDomainSocketConnection | aio.UnixDomainSocketConnection):
        by = "unix"
    if isinstance(pool, SentinelConnectionPool | AsyncSentinelPool):
        addresses = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        nodes = tuple([(address["host"], int(address["port"])) for address in addresses])
        return Place(by, _lasting(kept, by), nodes, pool.service_name)
    return Place(by, _lasting(kept, by))


def _cluster_of(client: redis.RedisCluster | redis.asyncio.RedisCluster) -> Place:
    holder: Any = client if isinstance(client, redis.asyncio.RedisCluster) else client.nodes_manager
    settings: dict[str, Any] = holder.connection_kwargs
    if settings.get("decode_responses"):
        raise _decoding()
    kept = {name: value for name, value in settings.items() if name in _KEPT or name.startswith("ssl_")}
    started: list[Any] = [*client.nodes_manager.startup_nodes.values()]
    nodes = tuple([(str(node.host), int(node.port)) for node in started])
    by = (
        "tls"
        if settings.get("ssl") or issubclass(settings.get("connection_class", object), aio.SSLConnection)
        else "tcp"
    )
    return Place(by, _lasting(kept, by), nodes)


def _lasting(settings: Mapping[str, Any], by: str) -> dict[str, Any]:
    found = {name: value for name, value in settings.items() if value is not None}
    if by != "unix":
        found.setdefault("socket_keepalive", True)
    return found


def _made(kind: Any, settings: Mapping[str, Any]) -> Any:
    """A connection that never sends anything twice, not yet connected.

    Its name makes the server answer once before the first batch is sent: a server that is loading, full of clients or
    wants a password shows then, when certainly nothing has happened. RESP2 because the third adds a handshake and
    notifications that are of no use here. Nor is the library's own name, which is a request more: releases of 7 and later
    leave it out for one word, earlier ones for others.
    """
    unnamed = {"driver_info": None} if _KNOWS_DRIVERS else {"lib_name": None, "lib_version": None}
    return kind(**{"client_name": "jobqueue", **settings, "retry": Retry(NoBackoff(), 0), "protocol": 2, **unnamed})


def _sentinel_settings(place: Place, end: float) -> dict[str, Any]:
    # They are asked one after the other, and any of them may hang: to connect, and to answer.
    share = max(left(end) / (2 * len(place.nodes)), 0.001)
    return {"socket_timeout": share, "socket_connect_timeout": share, "retry": Retry(NoBackoff(), 0)}
