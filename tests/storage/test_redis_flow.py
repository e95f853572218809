"""What the flows of the Redis storage make of what a server says of itself; servers of other versions are not installed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from redis import exceptions

from jobqueue.errors import NotApplied, StorageRefused
from jobqueue.storage.ops import Batch, HashAdd, HashKey
from jobqueue.storage.redis import open_redis
from jobqueue.storage.redis.faults import broken, lost, refused, unreachable
from jobqueue.storage.redis.guarded import Guarded, described, facts_of
from tests.servers import Server

POLICY = [b"maxmemory-policy", b"noeviction"]
ADD = Batch("n:q", (HashAdd(HashKey("n:q", "count"), b"n", 1),))


def asked(info: Any, policy: Any = POLICY, *, allow_eviction: bool = False) -> NotApplied | None:
    """What the look at a server ends with that answers so."""
    forbidden = exceptions.NoPermissionError("NOPERM")
    return Guarded("here", allow_eviction=allow_eviction).problem("here", [info, forbidden, policy, forbidden])


@pytest.mark.parametrize(
    ("info", "refusal"),
    [
        (b"redis_version:7.0.0\r\n", ""),
        (b"redis_version:8.2.1\r\n", ""),
        (b"redis_version:6.2.14\r\n", "redis 6.2.14 is too old"),
        (b"redis_version:5.0.0\r\n", "redis 5.0.0 is too old"),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.0\r\n", ""),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:10.0.0\r\n", ""),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.9\r\n", "valkey 7.2.9 is too old"),
    ],
)
def test_the_oldest_versions(info: bytes, refusal: str) -> None:
    problem = asked(info)

    if refusal:
        assert isinstance(problem, StorageRefused)
        assert str(problem).startswith(f"here: {refusal}: jobqueue needs Redis 7.0 or Valkey 8.0")
    else:
        assert problem is None


@pytest.mark.parametrize("policy", ["volatile-lru", "volatile-ttl", "allkeys-lfu", "allkeys-random", "something-new"])
def test_every_policy_but_one_is_refused_unless_it_is_allowed(policy: str) -> None:
    reply = [b"maxmemory-policy", policy.encode()]

    problem = asked(b"redis_version:7.0.0\r\n", reply)

    assert isinstance(problem, StorageRefused)
    assert f"maxmemory-policy is {policy}" in str(problem)
    assert asked(b"redis_version:7.0.0\r\n", reply, allow_eviction=True) is None


def test_a_version_that_is_not_told_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert asked(exceptions.NoPermissionError("NOPERM")) is None

    assert [record.getMessage() for record in caplog.records] == [
        "here does not let this user ask INFO or HELLO: its version could not be checked"
    ]


def test_a_server_is_asked_once(server: Server) -> None:
    storage = open_redis(server.url).storage()
    with server.client() as client:
        calls: list[int] = []
        for _ in range(3):
            storage.apply([ADD])
            told: Any = client.info("commandstats")
            calls.append(told["cmdstat_config|get"]["calls"])
    storage.close()

    assert calls[0] == calls[1] == calls[2]


def info_of(facts: dict[str, str]) -> bytes:
    return "".join([f"{name}:{value}\r\n" for name, value in facts.items()]).encode()


@pytest.mark.parametrize(("enabled", "told"), [("1", "yes"), ("0", "no")])
def test_what_is_told_of_a_server(enabled: str, told: str) -> None:
    facts = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "aof_enabled": enabled, "save": "", "other": "x"}

    assert described(facts_of([info_of(facts)])) == {
        "server": "valkey",
        "version": "9.1.2",
        "save": "",
        "appendonly": told,
    }
    assert described({}) == {"server": "redis", "version": "unknown"}


def test_a_server_without_a_free_connection_is_told_from_one_that_is_away() -> None:
    """Of a real server it is a matter of luck whether its last words are read before it hangs up."""
    full = unreachable("here", exceptions.ConnectionError("max number of clients reached"))
    away = unreachable("here", exceptions.ConnectionError("Error 111 connecting"))

    assert isinstance(full, StorageRefused)
    assert str(full).startswith("here refused (MAXCLIENTS max number of clients reached); nothing was changed")
    assert full.passes
    assert type(away) is NotApplied
    assert str(away).startswith("here cannot be reached (Error 111 connecting); nothing was changed.")


@pytest.mark.parametrize("tell", [unreachable, refused, lost, broken])
def test_what_a_server_says_is_one_short_printable_line(tell: Any) -> None:
    """Whoever is at the other end may send anything, to a terminal too."""
    text = str(tell("here", exceptions.ResponseError(f"ERR \x1b]0;x\x07\nforged: {'a' * 1_000_000}")))

    assert text.isprintable()
    assert r"\x1b]0;x\x07\nforged: aaa" in text
    assert len(text) < 2_000
