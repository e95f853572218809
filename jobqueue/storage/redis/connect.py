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
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from jobqueue.errors import DeclarationError, NotApplied, StorageError
from jobqueue.storage.limits import Limits, limits_in
from jobqueue.storage.redis.backend import AsyncRedisStorage, RedisStorage
from jobqueue.storage.redis.bell import AsyncBell, Bell
from jobqueue.storage.redis.cluster import AsyncClusterBell, AsyncClusterNodes, ClusterBell, ClusterNodes
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.storage.redis.link import AsyncConnect, AsyncConnection, Connect, Connection, left
from jobqueue.storage.redis.pool import AsyncPool, Pool
from jobqueue.storage.redis.secured import AsyncSecured, unusable
from jobqueue.storage.redis.sentinels import afind_primary, find_primary
from jobqueue.storage.redis.timed import TIMED
from jobqueue.storage.tls import ALLOWED, Tls, tls_of
from jobqueue.storage.url import Address, Url, addresses, check_url, labelled, similar_setting, tls_in

__all__ = ["Client", "RedisServer", "open_redis"]

Located: TypeAlias = Callable[[float], str]
Client: TypeAlias = "redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster"

# redis-py has no types for what is used of these.
_CONNECTIONS: Final[dict[str, Any]] = {
    **TIMED,
    "async tcp": aio.Connection, "async tls": AsyncSecured, "async unix": aio.UnixDomainSocketConnection,
}  # fmt: skip
_KNOWS_DRIVERS: Final = "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
_parse_url: Final[Callable[[str], dict[str, Any]]] = parse_url

_UNTIMED: Final = {"socket_timeout": None, "socket_connect_timeout": None}
"""The exchange as a whole is timed: the library's own timeout would cost a task for each write."""
_CHECKS_HOSTS: Final = inspect.signature(SSLConnection).parameters["ssl_check_hostname"].default is True
"""Whether a client of redis-py looks at the name of the host by default: from its release 6 on."""
_DECODING: Final = "has decode_responses=True, which cannot carry the bytes of a job: make the client without it"
_CONNECTING: Final = frozenset({"connect", "connect_check_health", "_connect", "_connection_arguments"})
"""Methods of redis-py's connections that say how they connect."""
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
        asked_by: ``tcp`` or ``tls``: how sentinels are asked.
        asked_with: Arguments for connections to sentinels.
    """

    by: str
    settings: Mapping[str, Any] = attrs.field(repr=False)
    nodes: tuple[Address, ...] = ()
    service: str = ""
    asked_by: str = "tcp"
    asked_with: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def label(self) -> str:
        """What to call it in messages; never contains a password."""
        settings = self.settings
        scheme = "rediss" if self.by == "tls" else "redis"
        if self.by == "unix":
            return f"unix://{settings.get('path', '')}"
        if self.nodes:
            kind = "sentinel" if self.service else "cluster"
            return labelled(f"{scheme}+{kind}", self.nodes, self.service, settings.get("db", 0))
        node = settings.get("host", "localhost"), settings.get("port", 6379)
        return labelled(scheme, [node], "", settings.get("db", 0))

    @property
    def warning(self) -> str | None:
        """What is to be said once of a server that is not verified."""
        for settings in (self.settings, self.asked_with):
            tls: Tls | None = settings.get("tls")
            if tls is not None and tls.unverified:
                return f"{self.label} is not verified ({tls.unverified}): {ALLOWED} lets anybody pass for this server"
        return None


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
        self._guarded = Guarded(place.label, allow_eviction=allow_eviction, warning=place.warning)
        self.label = place.label

    @classmethod
    def of(
        cls,
        client: Client,
        limits: Limits | None = None,
        *,
        allow_eviction: bool = False,
        allow_unverified_tls: bool = False,
    ) -> RedisServer:
        """The server that a client of redis-py is connected to.

        Args:
            client: Sync or async; from a URL, a pool or a Sentinel. Its address, user, TLS and keepalive are used; not its
                timeouts, of which one would not bound the call.
            limits: What a call may take; the default if None.
            allow_eviction: See `open_redis`.
            allow_unverified_tls: See `open_redis`.

        Raises:
            DeclarationError: The client decodes responses, is bound to a single connection, or leaves its server unverified.
        """
        place = _place_of(client, allow_unverified_tls)
        return cls(place, Limits() if limits is None else limits, allow_eviction=allow_eviction)

    def storage(self) -> RedisStorage:
        """A new storage, with connections of its own."""
        place, server = self._place, self._guarded
        if place.nodes and not place.service:
            nodes = ClusterNodes(server, place.nodes, self._to, self.limits)
            return RedisStorage(server, nodes, ClusterBell(nodes))
        pool = Pool(server, self.label, self._connect, self.limits)
        return RedisStorage(server, pool, Bell(pool))

    def async_storage(self) -> AsyncRedisStorage:
        """A new storage for the running event loop, with connections of its own."""
        place, server = self._place, self._guarded
        if place.nodes and not place.service:
            nodes = AsyncClusterNodes(server, place.nodes, self._ato, self.limits)
            return AsyncRedisStorage(server, nodes, AsyncClusterBell(nodes))
        pool = AsyncPool(server, self.label, self._aconnect, self.limits)
        return AsyncRedisStorage(server, pool, AsyncBell(pool))

    def _to(self, address: Address) -> Connect:
        return functools.partial(self._connect, address=address)

    def _ato(self, address: Address) -> AsyncConnect:
        return functools.partial(self._aconnect, address=address)

    def _connect(self, end: float, address: Address | None = None) -> Connection:
        place = self._place
        path = None if self._located is None else _found(self._located, end)
        if address is None and place.nodes:
            address = find_primary(self.label, place.nodes, place.service, self._to_sentinel, end)
        settings = {**place.settings, **_at(path, address), "end": end}
        made: Connection = _made(_CONNECTIONS[place.by], settings)
        return made

    async def _aconnect(self, end: float, address: Address | None = None) -> AsyncConnection:
        place = self._place
        path = None if self._located is None else await asyncio.to_thread(_found, self._located, end)
        if address is None and place.nodes:
            address = await afind_primary(self.label, place.nodes, place.service, self._ato_sentinel, end)
        settings = {**place.settings, **_at(path, address), **_UNTIMED}
        made: AsyncConnection = _made(_CONNECTIONS[f"async {place.by}"], settings)
        return made

    def _to_sentinel(self, node: Address, end: float) -> Connection:
        place = self._place
        settings = {**place.asked_with, "host": node[0], "port": node[1], "client_name": None, "end": end}
        made: Connection = _made(_CONNECTIONS[place.asked_by], settings)
        return made

    def _ato_sentinel(self, node: Address) -> AsyncConnection:
        place = self._place
        settings = {**place.asked_with, "host": node[0], "port": node[1], "client_name": None, **_UNTIMED}
        made: AsyncConnection = _made(_CONNECTIONS[f"async {place.asked_by}"], settings)
        return made


def _at(path: str | None, address: Address | None) -> dict[str, Any]:
    """Where to connect to, if not to where the URL says."""
    if path is not None:
        return {"path": path}
    return {} if address is None else {"host": address[0], "port": address[1]}


def _found(located: Located, end: float) -> str:
    """Where the server is. Raises `NotApplied`."""
    try:
        return located(left(end))
    except NotApplied:
        raise
    except StorageError as error:
        raise NotApplied(str(error)) from error


def open_redis(
    url: str,
    limits: Limits | None = None,
    *,
    allow_eviction: bool = False,
    allow_unverified_tls: bool = False,
    located: Located | None = None,
) -> RedisServer:
    """The server at a URL; nothing connects yet.

    Args:
        url: See above; ``timeout``, ``max_connections`` and settings of redis-py's connections can follow as a query.
        limits: What a call may take, where the URL does not say it; the default if None.
        allow_eviction: Accept a server whose maxmemory-policy lets it throw jobs away when it is full.
        allow_unverified_tls: Accept settings with which another server could pass for this one.
        located: Called before each new connection with the seconds it may take; answers the path of the Unix socket.

    Raises:
        DeclarationError: The URL is none of these, or asks for decoded responses.
    """
    url = Url(url)
    check_url(url, allow_unverified_tls=allow_unverified_tls)
    try:
        place, limits = _read(url, limits, allow_unverified_tls)
    except DeclarationError as error:
        refusal = error.with_traceback(None)
    else:
        return RedisServer(place, limits, allow_eviction=allow_eviction, located=located)
    raise refusal  # without frames whose variables hold parts of the URL


def _read(url: str, limits: Limits | None, allow_unverified_tls: bool) -> tuple[Place, Limits]:
    url, limits = limits_in(url, limits)
    parts = urlsplit(url)
    base, _, kind = parts.scheme.partition("+")
    rest = url.partition("://")[2]
    nodes: tuple[Address, ...] = ()
    service = ""
    if kind:
        login, at, _ = parts.netloc.rpartition("@")
        nodes = addresses(parts)
        service, _, database = parts.path.strip("/").partition("/")
        service = service if kind == "sentinel" else ""
        query = f"?{parts.query}" if parts.query else ""
        rest = f"{login}{at}any/{database or 0}{query}"
    tls = tls_in(parts, allow_unverified_tls=allow_unverified_tls)
    if tls is not None:
        _check_usable(tls, f"of the {parts.scheme}:// URL")
    place = _place_at(f"{base}://{rest}", nodes, unquote(service), tls)
    if isinstance(place, str):
        # Not where the library's error is being handled: it may hold a secret.
        raise DeclarationError(f"a setting in the {parts.scheme}:// URL {place}")
    return place, limits


def _check_usable(tls: Tls, where: str) -> None:
    if (problem := unusable(tls)) is not None:
        raise DeclarationError(f"the certificates or other ssl_ settings {where} cannot be used ({problem})")


def _place_at(url: str, nodes: tuple[Address, ...], service: str, tls: Tls | None) -> Place | str:
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
    login = {name: settings.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    settings = {name: value for name, value in settings.items() if not name.startswith("ssl_") and name != ALLOWED}
    by = {"redis": "tcp", "rediss": "tls", "unix": "unix"}[urlsplit(url).scheme]
    kind = _CONNECTIONS["unix" if by == "unix" else "tcp"]
    for name in settings:
        try:
            _made(kind, {"end": 0.0, name: settings[name]})  # it connects with its first use
        except TypeError:
            return f"is none of redis-py {redis.__version__}{similar_setting(name)}"
        except (ValueError, redis.RedisError):
            return f"has a value that cannot be{similar_setting(name)}"
    asked_by, secured = ("tcp", {}) if tls is None else ("tls", {"tls": tls})
    return Place(by, _lasting(settings, by) | secured, nodes, service, asked_by, _lasting(login, asked_by) | secured)


def _decoding() -> DeclarationError:
    return DeclarationError(f"this client {_DECODING}")


def _place_of(client: Client, allow_unverified_tls: bool) -> Place:
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return _cluster_of(client, allow_unverified_tls)
    pool = client.connection_pool
    if pool.connection_kwargs.get("decode_responses"):
        raise _decoding()
    if getattr(client, "connection", None) is not None or getattr(client, "single_connection_client", False):
        raise DeclarationError(
            "this client is bound to a single connection, which threads and forked children would share: make it "
            "without single_connection_client=True"
        )
    by, settings = _way_of(pool, "of this client", allow_unverified_tls)
    if not isinstance(pool, SentinelConnectionPool | AsyncSentinelPool):
        return Place(by, settings)
    asked = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    nodes = tuple([(one.connection_kwargs["host"], int(one.connection_kwargs["port"])) for one in asked])
    asked_by, asked_with = _way_of(asked[0], "of this client's sentinels", allow_unverified_tls)
    if by == "tls" and asked_by != "tls" and not allow_unverified_tls:
        raise DeclarationError(
            "this client speaks TLS to its servers and not to the sentinels that name them: make it with "
            f"sentinel_kwargs={{'ssl': True, …}}, or, if that is meant, write {ALLOWED}=True"
        )
    return Place(by, settings, nodes, pool.service_name, asked_by, asked_with)


def _way_of(pool: Any, where: str, allow_unverified_tls: bool) -> tuple[str, dict[str, Any]]:
    """How a pool connects, and the arguments for connections that do the same."""
    settings: dict[str, Any] = pool.connection_kwargs
    kind: type = pool.connection_class
    _check_class(kind, where)
    if issubclass(kind, UnixDomainSocketConnection | aio.UnixDomainSocketConnection):
        return "unix", _kept(settings, "unix")
    if issubclass(kind, SSLConnection | aio.SSLConnection):
        return "tls", _kept(settings, "tls") | _secured(settings, where, allow_unverified_tls)
    return "tcp", _kept(settings, "tcp")


def _check_class(kind: type, where: str) -> None:
    """Refuse connections that connect in a way of the application's own, through TLS or a tunnel: ours would not."""
    for one in kind.__mro__:
        if not _CONNECTING.isdisjoint(vars(one)) and one.__module__.partition(".")[0] != "redis":
            raise DeclarationError(
                f"the connections {where} are of a class that connects in its own way, {one.__name__}, which is not done "
                "here: what is sent might go in plain text. Write a URL with rediss:// and its ssl_ settings"
            )


def _secured(settings: Mapping[str, Any], where: str, allow_unverified_tls: bool) -> dict[str, Any]:
    if not _CHECKS_HOSTS and settings.get("ssl_check_hostname") is False and not allow_unverified_tls:
        settings = {**settings, "ssl_check_hostname": None}  # the default of those releases, and ours is to check it
    tls = tls_of(settings, where, allow_unverified_tls=allow_unverified_tls)
    _check_usable(tls, where)
    return {"tls": tls}


def _cluster_of(client: redis.RedisCluster | redis.asyncio.RedisCluster, allow_unverified_tls: bool) -> Place:
    holder: Any = client if isinstance(client, redis.asyncio.RedisCluster) else client.nodes_manager
    settings: dict[str, Any] = holder.connection_kwargs
    if settings.get("decode_responses"):
        raise _decoding()
    _check_class(settings.get("connection_class", object), "of this client")
    started: list[Any] = [*client.nodes_manager.startup_nodes.values()]
    nodes = tuple([(str(node.host), int(node.port)) for node in started])
    if settings.get("ssl") or issubclass(settings.get("connection_class", object), aio.SSLConnection):
        secured = _secured(settings, "of this client", allow_unverified_tls)
        return Place("tls", _kept(settings, "tls") | secured, nodes)
    return Place("tcp", _kept(settings, "tcp"), nodes)


def _kept(settings: Mapping[str, Any], by: str) -> dict[str, Any]:
    return _lasting({name: value for name, value in settings.items() if name in _KEPT}, by)


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
