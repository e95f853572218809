"""The Redis storage where it is more than the rules of a storage: what went wrong is told truly, nothing is sent twice."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from jobqueue import JobQueue
from jobqueue.errors import DeclarationError, NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.storage.ops import (
    Applied,
    Batch,
    Fields,
    HashAdd,
    HashKey,
    Head,
    ListKey,
    Move,
    Moved,
    Peek,
    Placed,
    Put,
    SetKey,
    Stamp,
    These,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis import RedisServer, RedisStorage, faults, open_redis
from jobqueue.storage.redis.guarded import QUESTIONS, Guarded, described, facts_of
from tests.conftest import MakeServer
from tests.faults.proxy import Cut, Proxy, Rule
from tests.servers import Server, kinds

SCOPE = "n:q"
READY, WORKING = ListKey(SCOPE, "ready"), SetKey(SCOPE, "working")
COUNT = HashKey(SCOPE, "count")
ADD = Batch(SCOPE, (HashAdd(COUNT, b"n", 1),))  # shows how often it was carried out, because nothing guards it
RECORD = b"nonce---payload"


def put(*ids: bytes, record: bytes = RECORD) -> Batch:
    return Batch(SCOPE, (Put(READY, dict.fromkeys(ids, record)),))


def take(limit: int) -> Batch:
    return Batch(SCOPE, (Move(READY, WORKING, Head(limit, 1 << 20), score=9, stamp=Stamp(b"i", 1, 1)),))


def moved(outcome: Outcome) -> tuple[bytes, ...]:
    assert isinstance(outcome, Applied), outcome
    assert isinstance(outcome.answers[0], Moved)
    return outcome.answers[0].ids


@pytest.fixture
def storage(server: Server) -> Iterator[RedisStorage]:
    made = open_redis(server.url).storage()
    yield made
    made.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.socket) as made:
        yield made


def count(server: Server) -> int:
    with server.client() as client:
        stored: Any = client.hget(COUNT.full, "n")
        return int(stored or 0)


def until(true: Callable[[], object]) -> None:
    """Look until it is true; the time limit of the test ends it otherwise."""
    pause = threading.Event()
    while not true():
        pause.wait(0.002)  # others want the processor too


def blocked(server: Server) -> bool:
    """Whether somebody waits."""
    with server.client() as client:
        clients: Any = client.client_list()
        return any(one["cmd"] == "blpop" for one in clients)


# --------------------------------------------------------------------------------------- nothing is ever sent twice


def address(proxy: Proxy) -> dict[str, Any]:
    host, _, port = proxy.url.removeprefix("redis://").partition(":")
    return {"host": host, "port": int(port)}


def cut(proxy: Proxy, how: Cut, times: int = 1) -> Rule:
    """Do this to the next scripts that are run."""
    return proxy.rule(lambda words: words[0] == b"EVALSHA", how, times=times)


BLOCKING_POOL: Any = redis.BlockingConnectionPool
EAGER = Retry(ConstantBackoff(0), 5, (redis.ConnectionError, redis.TimeoutError))
WAYS: dict[str, Callable[[Proxy], RedisServer]] = {
    "url": lambda proxy: open_redis(proxy.url),
    "client": lambda proxy: RedisServer.of(redis.Redis(**address(proxy), retry=EAGER)),
    "pool": lambda proxy: RedisServer.of(
        redis.Redis(connection_pool=redis.ConnectionPool(**address(proxy), retry=EAGER, retry_on_timeout=True))
    ),
    "blocking pool": lambda proxy: RedisServer.of(
        redis.Redis(connection_pool=BLOCKING_POOL(**address(proxy), retry=EAGER))
    ),
    "asyncio client": lambda proxy: RedisServer.of(redis.asyncio.Redis(**address(proxy))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_reply_is_told_and_nothing_is_repeated(server: Server, proxy: Proxy, way: str) -> None:
    storage = WAYS[way](proxy).storage()
    assert storage.apply([ADD]) == [Applied((None,))]

    rule = cut(proxy, Cut.LOSE_REPLY, times=3)
    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, OutcomeUnknown)
    assert (count(server), rule.hit) == (2, 1)  # carried out, and not repeated
    storage.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_lost_reply_is_told_and_nothing_is_repeated_async(server: Server, proxy: Proxy, way: str) -> None:
    storage = WAYS[way](proxy).async_storage()
    assert await storage.apply([ADD]) == [Applied((None,))]

    rule = cut(proxy, Cut.LOSE_REPLY, times=3)
    (outcome,) = await storage.apply([ADD])

    assert isinstance(outcome, OutcomeUnknown)
    assert (count(server), rule.hit) == (2, 1)
    await storage.close()


def test_a_lost_request_is_unknown_too(server: Server, proxy: Proxy) -> None:
    storage = open_redis(proxy.url).storage()
    storage.apply([ADD])

    rule = cut(proxy, Cut.LOSE_REQUEST, times=3)
    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, OutcomeUnknown)
    assert proxy.url in str(outcome)
    assert (count(server), rule.hit) == (1, 1)
    storage.close()


def test_a_lost_reply_loses_the_other_scopes_of_the_trip_only_where_it_came_late(server: Server, proxy: Proxy) -> None:
    other = Batch("n:other", (HashAdd(HashKey("n:other", "count"), b"n", 1),))
    storage = open_redis(proxy.url).storage()
    storage.apply([ADD])

    cut(proxy, Cut.LOSE_REPLY)
    outcomes = storage.apply([ADD, other])

    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]
    assert count(server) == 2
    storage.close()


def test_reading_raises_that_nothing_was_changed(proxy: Proxy) -> None:
    storage = open_redis(proxy.url).storage()
    storage.read([Peek(READY, 0, 1)])

    cut(proxy, Cut.LOSE_REPLY)
    with pytest.raises(NotApplied):
        storage.read([Peek(READY, 0, 1)])

    assert storage.read([Peek(READY, 0, 1)]) == [()]
    storage.close()


def test_no_answer_in_time_is_unknown_and_the_next_call_reads_its_own(server: Server, proxy: Proxy) -> None:
    storage = open_redis(f"{proxy.url}?socket_timeout=0.2").storage()
    storage.apply([ADD])

    rule = cut(proxy, Cut.HOLE)
    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, OutcomeUnknown)
    assert storage.read([Fields(COUNT), Peek(READY, 0, 1)]) == [{b"n": b"1"}, ()]
    proxy.lift()
    until(lambda: count(server) == 2)  # it arrives late
    assert storage.read([Fields(COUNT)]) == [{b"n": b"2"}]
    assert rule.hit == 1
    storage.close()


async def test_no_answer_in_time_is_unknown_async(server: Server, proxy: Proxy) -> None:
    storage = open_redis(f"{proxy.url}?socket_timeout=0.2").async_storage()
    await storage.apply([ADD])

    rule = cut(proxy, Cut.HOLE)
    (outcome,) = await storage.apply([ADD])

    assert isinstance(outcome, OutcomeUnknown)
    assert await storage.read([Fields(COUNT), Peek(READY, 0, 1)]) == [{b"n": b"1"}, ()]
    assert rule.hit == 1
    await storage.close()


async def test_a_cancelled_call_takes_its_connection_with_it(server: Server, proxy: Proxy) -> None:
    storage = open_redis(proxy.url).async_storage()
    await storage.apply([put(b"a"), ADD])

    rule = cut(proxy, Cut.HOLE)
    call = asyncio.create_task(storage.apply([ADD]))
    await asyncio.to_thread(until, lambda: rule.hit)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert await storage.read([Peek(READY, 0, 9)]) == [(b"a",)]
    assert count(server) == 1
    proxy.lift()
    await asyncio.to_thread(until, lambda: count(server) == 2)  # a cancelled call may have been carried out
    await storage.close()


def test_a_forgotten_script_is_sent_again(server: Server, storage: RedisStorage) -> None:
    with server.client() as client:
        for _ in range(3):
            client.script_flush()
            assert storage.apply([ADD]) == [Applied((None,))]
            assert storage.read([Fields(COUNT)]) != [{}]
    assert count(server) == 3


def test_a_connection_closed_while_idle_is_noticed_before_anything_is_sent(
    server: Server, storage: RedisStorage
) -> None:
    storage.apply([ADD])
    with server.client() as client:
        client.client_kill_filter(skipme=True, _type="normal")

    assert storage.apply([ADD]) == [Applied((None,))]


# ------------------------------------------------------------------------------------------------ what the server is


def test_a_server_that_is_not_there() -> None:
    storage = open_redis("redis://user:secret@127.0.0.1:1/0").storage()

    (outcome,) = storage.apply([ADD])

    assert type(outcome) is NotApplied
    assert "127.0.0.1:1" in str(outcome)
    assert "secret" not in str(outcome)
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:1"):
        storage.read([Peek(READY, 0, 1)])
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:1.* cannot be reached"):
        storage.wait([SCOPE], 5)
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:1.* cannot be reached"):
        storage.time_ms(SCOPE)


async def test_a_server_that_is_not_there_async() -> None:
    storage = open_redis("redis://127.0.0.1:1").async_storage()

    (outcome,) = await storage.apply([ADD])

    assert type(outcome) is NotApplied
    with pytest.raises(NotApplied, match="cannot be reached"):
        await storage.wait([SCOPE], 5)


def test_an_unknown_host_is_not_applied() -> None:
    (outcome,) = open_redis("redis://no-such-host.invalid").storage().apply([ADD])
    assert type(outcome) is NotApplied


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(own_server: MakeServer, policy: str) -> None:
    server = own_server(args=["--maxmemory-policy", policy])
    storage = open_redis(server.url).storage()

    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, StorageRefused)
    assert policy in str(outcome)
    assert "allow_eviction=True" in str(outcome)
    with pytest.raises(StorageRefused):
        storage.read([Fields(COUNT)])
    assert count(server) == 0
    assert open_redis(server.url, allow_eviction=True).storage().apply([ADD]) == [Applied((None,))]

    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
    assert storage.apply([ADD]) == [Applied((None,))]  # what was found wrong is looked at again


def test_a_full_server_refuses_new_jobs_and_drains(own_server: MakeServer) -> None:
    server = own_server()
    storage = open_redis(server.url).storage()
    storage.apply([put(b"a", b"b", b"c")])
    with server.client() as client:
        client.config_set("maxmemory", "1mb")

    (refused,) = storage.apply([put(b"d")])
    assert isinstance(refused, StorageRefused)
    assert "maxmemory" in str(refused)

    first, new, second = storage.apply([take(1), put(b"d"), take(2)])
    assert (moved(first), moved(second)) == ((b"a",), (b"b", b"c"))
    assert isinstance(new, StorageRefused)
    (finished,) = storage.apply([Batch(SCOPE, (Move(WORKING, None, These((b"a", b"b", b"c"))),))])
    assert len(moved(finished)) == 3


def test_a_replica_refuses(own_server: MakeServer) -> None:
    primary, replica = own_server(port=True), own_server()
    storage = open_redis(replica.url).storage()
    storage.apply([ADD])
    with replica.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))

    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, StorageRefused)
    assert outcome.passes
    assert "replica" in str(outcome)


async def test_after_readonly_the_next_call_opens_a_new_connection(own_server: MakeServer) -> None:
    """Behind the same address there may be another primary by then."""
    server = own_server()
    opened = open_redis(server.url)
    storage, awaited = opened.storage(), opened.async_storage()
    assert storage.apply([ADD]) == await awaited.apply([ADD]) == [Applied((None,))]
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")

        def ids() -> set[str]:
            clients: Any = client.client_list()
            return {one["id"] for one in clients if one["name"] == "jobqueue"}

        before = ids()
        assert len(before) == 2
        for (outcome,) in (storage.apply([ADD]), await awaited.apply([ADD])):
            assert isinstance(outcome, StorageRefused)
            assert outcome.passes
        client.replicaof("NO", "ONE")
        assert storage.apply([ADD]) == await awaited.apply([ADD]) == [Applied((None,))]
        await asyncio.to_thread(until, lambda: len(ids()) == 2)
        assert not ids() & before
    storage.close()
    await awaited.close()


def test_a_missing_permission_is_named(own_server: MakeServer) -> None:
    server = own_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-evalsha")
    storage = open_redis(f"unix://weak:pw@{server.socket}").storage()

    (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, StorageRefused)
    assert "evalsha" in str(outcome)
    assert "ACL" in str(outcome)


def test_a_permission_missing_inside_the_script_is_a_refusal_of_the_whole_batch(own_server: MakeServer) -> None:
    server = own_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-hincrby")
    storage = open_redis(f"unix://weak:pw@{server.socket}").storage()

    (outcome,) = storage.apply([Batch(SCOPE, (*put(b"a").ops, *ADD.ops))])

    assert isinstance(outcome, StorageRefused)
    assert storage.read([Peek(READY, 0, 1)]) == [()]


def test_a_user_that_may_not_ask_about_the_server_is_warned(
    own_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-info", "-config")
    storage = open_redis(f"unix://weak:pw@{server.socket}").storage()

    assert storage.apply([ADD, ADD]) == [Applied((None,)), Applied((None,))]
    with server.client() as client:
        client.client_kill_filter(skipme=True, _type="normal")
    assert storage.apply([ADD]) == [Applied((None,))]

    [warning] = caplog.records  # HELLO, which no user can be forbidden, told the version
    assert "maxmemory-policy" in warning.getMessage()


def test_a_server_that_tells_nothing_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    nothing = [redis.ResponseError("unknown command")] * len(QUESTIONS)
    server = Guarded("redis://h:1")

    assert server.problem("redis://h:1", nothing) is server.problem("redis://h:1", nothing) is None

    assert len(caplog.records) == 2
    assert "its version could not be checked" in caplog.text
    assert described(facts_of(nothing))["version"] == "unknown"


def test_a_server_that_is_busy_is_asked_again() -> None:
    """It says nothing of itself now, which is no reason to believe that it is fit."""
    problem = Guarded("redis://h:1").problem("redis://h:1", [redis.ResponseError("BUSY a script runs")])
    assert problem is not None
    assert problem.passes


@pytest.mark.parametrize("forbidden", ["-config", "-info"])
def test_a_server_that_evicts_is_found_by_either_source(own_server: MakeServer, forbidden: str) -> None:
    server = own_server(args=["--maxmemory-policy", "allkeys-lru"])
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", forbidden)

    (outcome,) = open_redis(f"unix://weak:pw@{server.socket}").storage().apply([ADD])

    assert isinstance(outcome, StorageRefused)
    assert "allkeys-lru" in str(outcome)
    assert not outcome.passes


@pytest.mark.parametrize("command", ["CONFIG", "INFO"])
def test_a_renamed_command_hides_nothing(own_server: MakeServer, command: str) -> None:
    server = own_server(args=["--maxmemory-policy", "allkeys-lru", "--rename-command", command, ""])

    (outcome,) = open_redis(server.url).storage().apply([ADD])

    assert isinstance(outcome, StorageRefused)
    assert "allkeys-lru" in str(outcome)


def test_a_renamed_command_of_the_script_is_a_refusal(own_server: MakeServer) -> None:
    server = own_server(args=["--rename-command", "ZADD", ""])
    storage = open_redis(server.url).storage()

    outcomes = storage.apply([ADD, Batch(SCOPE, (Put(WORKING, {b"a": RECORD}, score=1),))])

    assert outcomes[0] == Applied((None,))
    assert isinstance(outcomes[1], StorageRefused)
    assert "ZADD on {n:q}:" in str(outcomes[1])
    assert count(server) == 1


async def test_a_policy_that_is_changed_later_is_found_on_the_next_connection(own_server: MakeServer) -> None:
    server = own_server()
    opened = open_redis(server.url)
    storage, awaited = opened.storage(), opened.async_storage()
    assert storage.apply([ADD]) == [Applied((None,))]

    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert storage.apply([ADD]) == [Applied((None,))]
        client.client_kill_filter(skipme=True, _type="normal")

    for (outcome,) in (storage.apply([ADD]), await awaited.apply([ADD])):
        assert isinstance(outcome, StorageRefused)
    with pytest.raises(StorageRefused, match="allkeys-lru"):
        storage.wait([SCOPE], 5)
    assert count(server) == 2
    await awaited.close()


def test_a_job_queue_by_its_defaults_refuses_a_server_that_evicts(own_server: MakeServer) -> None:
    server = own_server(args=["--maxmemory-policy", "allkeys-lru"])
    jobs = JobQueue(server.url)

    @jobs.job(name="work")
    def work() -> None: ...

    with pytest.raises(StorageRefused, match="allkeys-lru") as caught:
        work.enqueue()

    assert [record.id for record in caught.value.records] != []
    with server.client() as client:
        assert client.dbsize() == 0
    jobs.close()
    jobs = JobQueue(server.url, allow_eviction=True)
    assert jobs.counts() == {}
    jobs.close()


def test_what_a_script_breaks_off_with_is_unknown() -> None:
    """No script should: each looks at everything before it writes."""
    error = redis.ResponseError("ERR something new script: f00, on @user_script:7.")
    assert faults.broke_off(error)
    unknown = faults.broken("redis://h:1", error)
    assert isinstance(unknown, OutcomeUnknown)
    assert "something new" in str(unknown)


def test_an_outage_of_all_sentinels_is_one_sentence() -> None:
    storage = open_redis("redis+sentinel://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/shop/0").storage()

    (outcome,) = storage.apply([ADD])

    assert type(outcome) is NotApplied
    assert outcome.passes
    assert "no sentinel of redis+sentinel://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3/shop names a primary" in str(outcome)
    assert len(str(outcome)) < 200


def test_a_wrong_password_is_refused_and_not_printed(own_server: MakeServer) -> None:
    server = own_server()
    with server.client() as client:
        client.config_set("requirepass", "right")

    for url in (f"unix://:wrong-one@{server.socket}", f"unix://{server.socket}"):
        (outcome,) = open_redis(url).storage().apply([ADD])
        assert isinstance(outcome, StorageRefused), outcome
        assert "password" in str(outcome)
        assert "wrong-one" not in str(outcome)


def test_too_many_clients_is_certainly_not_applied(own_server: MakeServer) -> None:
    server = own_server()
    with server.client() as client:
        client.config_set("maxclients", 1)
        storage = open_redis(server.url).storage()
        (outcome,) = storage.apply([ADD])

    assert isinstance(outcome, NotApplied)
    assert "maxclients" in str(outcome)


def test_a_busy_server_is_certainly_not_applied(own_server: MakeServer) -> None:
    server = own_server(args=["--busy-reply-threshold", "1"])
    storage = open_redis(server.url).storage()
    storage.apply([ADD])

    def spin() -> None:
        with server.client() as client, pytest.raises(redis.ResponseError):
            client.eval("while true do end", 0)

    spinner = threading.Thread(target=spin)
    spinner.start()
    with server.client() as client:
        while True:
            try:
                client.ping()
            except redis.ResponseError:
                break
        (outcome,) = storage.apply([ADD])
        client.script_kill()
    spinner.join()

    assert isinstance(outcome, StorageRefused)
    assert count(server) == 1


@pytest.mark.parametrize(
    "op", [Put(READY, {b"a": RECORD}), Put(READY, {b"a": RECORD}, wake=True)], ids=["plain", "usual"]
)
def test_a_foreign_key_is_named(server: Server, storage: RedisStorage, op: Put) -> None:
    with server.client() as client:
        client.set(READY.full, "mine")

        (outcome,) = storage.apply([Batch(SCOPE, (op,))])
        with pytest.raises(StorageRefused, match=re.escape(READY.full)):
            storage.read([Peek(READY, 0, 1)])

        assert isinstance(outcome, StorageRefused)
        assert READY.full in str(outcome)
        assert "string" in str(outcome)
        assert client.keys() == [READY.full.encode()]


def test_description_and_time(server: Server, storage: RedisStorage) -> None:
    told = storage.describe()

    assert told["server"] == server.kind
    assert told["maxmemory-policy"] == "noeviction"
    assert {"version", "run_id", "appendonly", "appendfsync", "save"} <= told.keys()
    with server.client() as client:
        now: Any = client.time()
    assert 0 <= storage.time_ms(SCOPE) - now[0] * 1000 < 60_000


# ----------------------------------------------------------------------------------------------------- ways to connect


@pytest.mark.parametrize(
    "make",
    [
        lambda: open_redis("redis://localhost?decode_responses=True"),
        lambda: RedisServer.of(redis.Redis(decode_responses=True)),
        lambda: RedisServer.of(redis.asyncio.Redis(decode_responses=True)),
    ],
    ids=["url", "client", "asyncio client"],
)
def test_decoded_responses_are_refused(make: Callable[[], RedisServer]) -> None:
    with pytest.raises(DeclarationError, match="decode_responses"):
        make()


def test_a_single_connection_is_refused(server: Server) -> None:
    client = redis.Redis(unix_socket_path=server.socket, single_connection_client=True)
    with client, pytest.raises(DeclarationError, match="single_connection_client"):
        RedisServer.of(client)


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost", "localhost:6379", "redis+sentinel://host:26379", "redis://u:secret@h:port/x", "redis"),
        *("redis://:secret@h?foo=1", "rediss://h?foo=1", "unix:///s?foo=1", "redis+cluster://h?foo=1"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        open_redis(url)
    assert "secret" not in str(caught.value)


def test_a_given_client_is_neither_used_nor_changed(server: Server) -> None:
    client = redis.Redis(unix_socket_path=server.socket, retry=EAGER)
    before = dict(client.connection_pool.connection_kwargs)
    storage = RedisServer.of(client).storage()

    assert storage.apply([ADD]) == [Applied((None,))]

    assert client.connection_pool.connection_kwargs == before
    assert client.connection_pool._created_connections == 0
    storage.close()


async def test_one_client_serves_both_flavours(server: Server) -> None:
    for client in (redis.Redis(unix_socket_path=server.socket), redis.asyncio.Redis(unix_socket_path=server.socket)):
        of = RedisServer.of(client)
        sync, awaited = of.storage(), of.async_storage()
        assert sync.apply([put(b"a")]) == [Applied((Placed(("stored",)),))]
        assert await awaited.apply([put(b"a")]) == [Applied((Placed(("same",)),))]
        sync.close()
        await awaited.close()
        server.flush()


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("redis://u:secret@h:1/2", "redis://h:1/2"),
        ("rediss://:secret@h:1", "rediss://h:1"),
        ("unix://u:secret@/tmp/s?db=1", "unix:///tmp/s"),
        ("redis+sentinel://u:secret@a:1,b:2/shop/3", "redis+sentinel://a:1,b:2/shop/3"),
        ("redis://u:secret@[::1]:7/2", "redis://[::1]:7/2"),
        ("redis+cluster://u:secret@[::1]:7,b", "redis+cluster://[::1]:7,b:6379"),
    ],
)
def test_the_label_of_a_server_has_no_password(url: str, label: str) -> None:
    assert open_redis(url).label == label


# ------------------------------------------------------------------------------------------------------------- waiting


@pytest.mark.parametrize("kind", kinds())
def test_an_interrupt_ends_a_wait_and_the_connection_is_kept(kind: str, own_server: MakeServer) -> None:
    server = own_server(kind)  # where nobody else is connected
    storage = open_redis(server.url).storage()
    with server.client() as client:
        for _ in range(3):
            waiter = threading.Thread(target=storage.wait, args=([SCOPE], 60))
            waiter.start()
            until(lambda: blocked(server))
            storage.interrupt()
            waiter.join(30)
            assert not waiter.is_alive()
        clients = client.client_list()
    assert isinstance(clients, list)
    assert len([one for one in clients if one["name"] == "jobqueue"]) == 2  # one that waited, one that ended it
    storage.close()


@pytest.mark.parametrize("forbidden", ["-client|unblock", "-client|id"])
async def test_a_wait_can_be_interrupted_without_the_right_to_unblock(own_server: MakeServer, forbidden: str) -> None:
    server = own_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", forbidden)
    storage = open_redis(f"unix://weak:pw@{server.socket}").storage()
    for _ in range(2):
        waiter = threading.Thread(target=storage.wait, args=([SCOPE], 60))
        waiter.start()
        await asyncio.to_thread(until, lambda: blocked(server))
        storage.interrupt()
        waiter.join(30)
        assert not waiter.is_alive()
    storage.close()

    awaited = open_redis(f"unix://weak:pw@{server.socket}").async_storage()
    for _ in range(2):
        task = asyncio.create_task(awaited.wait([SCOPE], 60))
        await asyncio.to_thread(until, lambda: blocked(server))
        await awaited.interrupt()
        await asyncio.wait_for(task, 30)
    await awaited.close()


def test_the_end_of_the_server_ends_a_wait(own_server: MakeServer) -> None:
    server = own_server()
    storage = open_redis(server.url).storage()
    ended: list[Exception] = []

    def wait() -> None:
        try:
            storage.wait([SCOPE], 60)
        except NotApplied as error:
            ended.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    until(lambda: blocked(server))
    server.kill()
    waiter.join(30)
    assert len(ended) == 1


WITHOUT_HIREDIS = """
import sys
sys.modules["hiredis"] = None  # as where it is not installed
from jobqueue.storage.redis import open_redis
from jobqueue.testing import check_async_storage, check_storage
server = open_redis(sys.argv[1])
check_storage(server.storage)
check_async_storage(server.async_storage)
"""


def test_the_rules_are_kept_without_hiredis(server: Server) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_HIREDIS, server.url], check=True, timeout=60)


def test_a_wake_up_of_any_scope_ends_a_wait(storage: RedisStorage) -> None:
    other = "n:other"
    ring = Batch(other, (Put(ListKey(other, "ready"), {b"a": RECORD}, wake=True),))
    answers: list[str | None] = []
    waiter = threading.Thread(target=lambda: answers.append(storage.wait([SCOPE, other], 60)))
    waiter.start()
    storage.apply([ring])
    waiter.join(30)
    assert answers == [other]


async def test_a_cancelled_wait_leaves_nothing_behind(server: Server) -> None:
    storage = open_redis(server.url).async_storage()
    waiter = asyncio.create_task(storage.wait([SCOPE], 60))
    await asyncio.to_thread(until, lambda: blocked(server))
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await asyncio.to_thread(until, lambda: not blocked(server))
    await storage.apply([Batch(SCOPE, (Put(READY, {b"a": RECORD}, wake=True),))])
    await asyncio.wait_for(storage.wait([SCOPE], 60), 30)
    await storage.close()


# --------------------------------------------------------------------------------------------------------------- forks


def test_a_storage_works_in_a_forked_child(server: Server, storage: RedisStorage) -> None:
    storage.apply([put(b"a")])
    storage.interrupt()
    storage.wait([SCOPE], 60)
    (connection,) = storage._nodes.exchange([(SCOPE, (b"CLIENT", b"ID"))])

    pid = os.fork()
    if pid == 0:
        try:
            (mine,) = storage._nodes.exchange([(SCOPE, (b"CLIENT", b"ID"))])
            right = mine != connection and all(storage.apply([ADD]) == [Applied((None,))] for _ in range(50))
            storage.interrupt()
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    for _ in range(50):
        assert storage.read([Peek(READY, 0, 1)]) == [(b"a",)]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert count(server) == 50
    assert storage._nodes.exchange([(SCOPE, (b"CLIENT", b"ID"))]) == [connection]
    rings: Any = storage._bell
    assert not rings._interrupts.heard()  # the child's interrupt was its own
