"""Several servers: clusters, and a primary that Sentinels know."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot
from redis.sentinel import Sentinel

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.storage.ops import (
    Applied,
    Batch,
    HashAdd,
    HashKey,
    Head,
    ListKey,
    Move,
    Once,
    Peek,
    Put,
    SetKey,
    Sizes,
    Stamp,
    These,
)
from jobqueue.storage.redis import RedisServer, RedisStorage, open_redis
from jobqueue.testing import check_async_storage, check_storage
from jobqueue.testing.cases.bench import NOW, Bench
from tests.conftest import MakeServer
from tests.servers import Server, _free_port, binary_of, kinds, start_server

MIDDLE = 8192


def slot_of(scope: str) -> int:
    return key_slot(f"{{{scope}}}".encode())


def scopes(first_half: bool) -> list[str]:
    """Scopes whose slots lie in the first or second half."""
    return [name for name in [f"n:q{index}" for index in range(40)] if (slot_of(name) < MIDDLE) is first_half]


LOW, HIGH = scopes(True), scopes(False)


def add(scope: str) -> Batch:
    """Shows how often it was carried out, because nothing guards it."""
    return Batch(scope, (HashAdd(HashKey(scope, "count"), b"n", 1),))


def run(server: Server, *words: object) -> Any:
    with server.client() as client:
        command: Any = client.execute_command
        return command(*words)


def until(true: Callable[[], object]) -> None:
    """Look until it is true; the time limit of the test ends it otherwise."""
    pause = threading.Event()
    while not true():
        pause.wait(0.002)  # others want the processor too


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def _serves(node: Server) -> bool:
    """Whether the node knows of the other and takes commands."""
    with node.client() as client:
        info: Any = client.execute_command("CLUSTER INFO")
        slots: Any = client.execute_command("CLUSTER SLOTS")
        return info["cluster_state"] == "ok" and len(slots) == 2


@pytest.fixture(scope="module", params=kinds())
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[Server, Server]]:
    """Two nodes, each with half of the slots."""
    buses = [_free_port(), _free_port()]
    made = [
        start_server(request.param, port=True, args=["--cluster-enabled", "yes", "--cluster-port", str(bus)])
        for bus in buses
    ]
    first, second = made
    try:
        run(first, "CLUSTER", "ADDSLOTSRANGE", 0, MIDDLE - 1)
        run(second, "CLUSTER", "ADDSLOTSRANGE", MIDDLE, 16383)
        run(second, "CLUSTER", "SET-CONFIG-EPOCH", 2)
        run(first, "CLUSTER", "MEET", "127.0.0.1", second.port, buses[1])
        until(lambda: all(map(_serves, made)))
        yield first, second
    finally:
        for node in made:
            node.stop()


@pytest.fixture
def cluster(nodes: tuple[Server, Server]) -> RedisServer:
    for node in nodes:
        node.flush()
    return open_redis(f"redis+cluster://{address(nodes[0])}")


@pytest.fixture
def storage(cluster: RedisServer) -> Iterator[RedisStorage]:
    made = cluster.storage()
    yield made
    made.close()


def test_a_cluster_keeps_the_rules(cluster: RedisServer) -> None:
    made: list[RedisStorage] = []

    def make() -> RedisStorage:
        made.append(cluster.storage())
        return made[-1]

    check_storage(make)
    for storage in made:
        storage.close()


def test_a_cluster_keeps_the_rules_awaited(cluster: RedisServer) -> None:
    check_async_storage(cluster.async_storage)


def test_each_scope_goes_to_its_node(nodes: tuple[Server, Server], storage: RedisStorage) -> None:
    outcomes = storage.apply([add(LOW[0]), add(HIGH[0]), add(LOW[1]), add(LOW[0])])

    assert outcomes == [Applied((None,))] * 4
    assert run(nodes[0], "HGET", f"{{{LOW[0]}}}:count", "n") == b"2"
    assert run(nodes[1], "HGET", f"{{{HIGH[0]}}}:count", "n") == b"1"
    keys = (HashKey(HIGH[0], "count"), HashKey(LOW[0], "count"), HashKey(HIGH[0], "other"))
    assert storage.read([Sizes(keys)]) == [(1, 1, 0)]


@pytest.mark.parametrize("make", [redis.RedisCluster, redis.asyncio.RedisCluster], ids=["sync", "asyncio"])
async def test_a_given_cluster_client(nodes: tuple[Server, Server], cluster: RedisServer, make: Any) -> None:
    client = make(host="127.0.0.1", port=nodes[0].port)
    given = RedisServer.of(client)
    sync, awaited = given.storage(), given.async_storage()

    assert sync.apply([add(LOW[0]), add(HIGH[0])]) == [Applied((None,))] * 2
    assert await awaited.apply([add(LOW[0]), add(HIGH[0])]) == [Applied((None,))] * 2

    sync.close()
    await awaited.close()
    if isinstance(client, redis.asyncio.RedisCluster):
        await getattr(client, "aclose", client.close)()  # redis-py 5.0 has only the second
    else:
        client.close()


def test_a_slot_that_moved_is_found_and_nothing_is_sent_twice(
    nodes: tuple[Server, Server], storage: RedisStorage
) -> None:
    here, there = nodes
    scope = LOW[2]
    assert storage.apply([add(LOW[0])]) == [Applied((None,))]  # the topology is known
    ids = [run(node, "CLUSTER", "MYID").decode() for node in nodes]

    try:
        for node in (there, here):
            run(node, "CLUSTER", "SETSLOT", slot_of(scope), "NODE", ids[1])
        outcomes = storage.apply([add(scope), add(LOW[0]), add(HIGH[0])])

        assert outcomes == [Applied((None,))] * 3
        assert run(there, "HGET", f"{{{scope}}}:count", "n") == b"1"
        assert run(here, "HGET", f"{{{LOW[0]}}}:count", "n") == b"2"
        assert storage.read([Peek(ListKey(scope, "ready"), 0, 1)]) == [()]
    finally:
        run(there, "FLUSHALL")
        for node in (here, there):
            run(node, "CLUSTER", "SETSLOT", slot_of(scope), "NODE", ids[0])


@contextlib.contextmanager
def moving(scope: str, here: Server, there: Server) -> Iterator[None]:
    """The slot is on its way, and none of its keys have gone yet."""
    run(there, "CLUSTER", "SETSLOT", slot_of(scope), "IMPORTING", run(here, "CLUSTER", "MYID").decode())
    run(here, "CLUSTER", "SETSLOT", slot_of(scope), "MIGRATING", run(there, "CLUSTER", "MYID").decode())
    try:
        yield
    finally:
        for node in (here, there):
            run(node, "CLUSTER", "SETSLOT", slot_of(scope), "STABLE")


def test_a_slot_that_is_moving_is_certainly_not_applied(nodes: tuple[Server, Server], storage: RedisStorage) -> None:
    here, there = nodes
    scope = LOW[3]
    with moving(scope, here, there):
        (outcome,) = storage.apply([add(scope)])
        assert isinstance(outcome, NotApplied)
        assert "moving" in str(outcome)
    assert storage.apply([add(scope)]) == [Applied((None,))]
    assert run(here, "HGET", f"{{{scope}}}:count", "n") == b"1"


def test_no_script_breaks_off_in_a_slot_that_is_moving(nodes: tuple[Server, Server], storage: RedisStorage) -> None:
    """All keys are there when it begins, and the first move empties one: a node refuses to touch that one again."""
    here, there = nodes
    t = Bench(storage, 1.0, scope=LOW[4])

    def claim(number: int) -> Move:
        stamp, once = Stamp(b"runner", 5000, NOW), Once(b"runner", number)
        return Move(t.ready, t.working, Head(1, 1000), NOW, stamp=stamp, once=once, wake=True)

    t.fill(b"a", b"b", b"c")
    assert t.move(claim(1)).ids == (b"a",)
    before = t.state()
    batches = [t.batch(Move(t.working, None, These((b"a",)))), t.batch(claim(2))]

    with moving(t.scope, here, there):
        outcomes = storage.apply(batches)

    assert t.state() == before
    assert all(isinstance(outcome, NotApplied) for outcome in outcomes)
    assert all(isinstance(outcome, Applied) for outcome in storage.apply(batches))
    assert t.places() == {"ready": [b"c"], "working": [(b"b", NOW)]}


def test_waiting_in_a_cluster(storage: RedisStorage) -> None:
    scope = HIGH[0]
    waiter = threading.Thread(target=storage.wait, args=([scope], 60))
    waiter.start()
    assert storage.apply([Batch(scope, (Put(ListKey(scope, "ready"), {b"a": b"12345678"}, wake=True),))])
    waiter.join(30)
    assert not waiter.is_alive()

    waiter = threading.Thread(target=storage.wait, args=([LOW[0]], 60))
    waiter.start()
    storage.interrupt()
    waiter.join(30)
    assert not waiter.is_alive()

    storage.wait([LOW[0], HIGH[0]], 60)  # ends by itself: one connection cannot wait for two slots


async def test_waiting_in_a_cluster_awaited(cluster: RedisServer) -> None:
    storage = cluster.async_storage()
    scope = HIGH[0]
    waiter = asyncio.create_task(storage.wait([scope], 60))
    await storage.apply([Batch(scope, (Put(ListKey(scope, "ready"), {b"a": b"12345678"}, wake=True),))])
    await asyncio.wait_for(waiter, 30)

    await storage.interrupt()
    await asyncio.wait_for(storage.wait([LOW[0]], 60), 30)
    await storage.close()


def test_no_node_of_a_cluster_answers() -> None:
    storage = open_redis("redis+cluster://127.0.0.1:1,127.0.0.1:2").storage()

    (outcome,) = storage.apply([add(LOW[0])])

    assert type(outcome) is NotApplied
    assert "127.0.0.1:2" in str(outcome)
    with pytest.raises(NotApplied, match=r"127\.0\.0\.1:2 cannot be reached"):
        storage.wait([LOW[0]], 5)


def test_a_single_server_is_no_cluster(own_server: MakeServer) -> None:
    server = own_server(port=True)
    (outcome,) = open_redis(f"redis+cluster://{address(server)}").storage().apply([add(LOW[0])])
    assert isinstance(outcome, NotApplied)
    assert "redis://" in str(outcome)


# ------------------------------------------------------------------------------------------- rights, and what a node is


def test_a_right_that_one_node_denies_is_named_and_the_other_works_on(
    nodes: tuple[Server, Server], cluster: RedisServer
) -> None:
    storage = cluster.storage()
    take = [
        Batch(scope, (Move(ListKey(scope, "ready"), SetKey(scope, "working"), Head(9, 1 << 20), score=NOW),))
        for scope in (LOW[0], HIGH[0])
    ]
    put = [
        Batch(scope, (Put(ListKey(scope, "ready"), {b"a": b"nonce---x"}, wake=True),)) for scope in (LOW[0], HIGH[0])
    ]
    assert all(isinstance(outcome, Applied) for outcome in storage.apply(put))
    run(nodes[1], "ACL", "SETUSER", "default", "-zadd")
    try:
        mine, other = storage.apply(take)
    finally:
        run(nodes[1], "ACL", "SETUSER", "default", "+@all")

    assert isinstance(mine, Applied)
    assert isinstance(other, StorageRefused)
    assert f"ZADD on {{{HIGH[0]}}}:" in str(other)
    assert storage.read([Peek(ListKey(HIGH[0], "ready"), 0, 9)]) == [(b"a",)]
    storage.close()


async def test_each_node_is_looked_at(nodes: tuple[Server, Server], cluster: RedisServer) -> None:
    run(nodes[1], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        storage, awaited = cluster.storage(), cluster.async_storage()
        for mine, other in (
            storage.apply([add(LOW[0]), add(HIGH[0])]),
            await awaited.apply([add(LOW[0]), add(HIGH[0])]),
        ):
            assert isinstance(mine, Applied)
            assert isinstance(other, StorageRefused)
            assert address(nodes[1]) in str(other)
    finally:
        run(nodes[1], "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert storage.apply([add(HIGH[0])]) == [Applied((None,))]
    storage.close()
    await awaited.close()


# ----------------------------------------------------------------------------------------------------------- sentinels


@pytest.fixture
def sentinel(own_server: MakeServer, tmp_path: Path) -> Iterator[tuple[Server, Server, int]]:
    """A primary, its replica, and the port of a sentinel that watches them."""
    primary, replica = own_server(port=True, args=["--repl-diskless-sync-delay", "0"]), own_server(port=True)
    run(replica, "REPLICAOF", "127.0.0.1", primary.port)
    port = _free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor shop 127.0.0.1 {primary.port} 1\n"
    )
    binary = binary_of("valkey")
    assert binary is not None
    process = subprocess.Popen([str(binary), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _primary_known(port))
        yield primary, replica, port
    finally:
        process.kill()
        process.wait()


def _primary_known(port: int) -> bool:
    client = redis.Redis(port=port)
    try:
        masters: Any = client.sentinel_masters()
        return bool(masters["shop"]["num-slaves"])
    except redis.ConnectionError:
        return False
    finally:
        client.close()


def _fails_over(port: int) -> bool:
    client: Any = redis.Redis(port=port)
    try:
        client.execute_command("SENTINEL", "FAILOVER", "shop")
    except redis.ResponseError:  # the replica has not told enough of itself yet
        return False
    finally:
        client.close()
    return True


async def test_a_right_that_is_missing_behind_sentinels_is_named(sentinel: tuple[Server, Server, int]) -> None:
    primary, _, port = sentinel
    storage = open_redis(f"redis+sentinel://127.0.0.1:{port}/shop/0").storage()
    assert storage.apply([add("n")]) == [Applied((None,))]
    run(primary, "ACL", "SETUSER", "default", "-hincrby")

    (outcome,) = storage.apply([add("n")])

    assert isinstance(outcome, StorageRefused)
    assert "HINCRBY on {n}:" in str(outcome)
    storage.close()


def _role(server: Server) -> object:
    try:
        return run(server, "ROLE")[0]
    except redis.ConnectionError:  # a server that changes its role closes all connections
        return None


async def test_the_primary_is_found_through_sentinels_also_after_a_failover(
    sentinel: tuple[Server, Server, int],
) -> None:
    primary, replica, port = sentinel
    make: Any = Sentinel
    client = make([("127.0.0.1", port)]).master_for("shop")
    servers = [open_redis(f"redis+sentinel://127.0.0.1:{port}/shop/0"), RedisServer.of(client)]
    client.close()
    for server in servers:
        storage, awaited = server.storage(), server.async_storage()
        assert storage.apply([add("n")]) == [Applied((None,))]
        assert await awaited.apply([add("n")]) == [Applied((None,))]
        storage.close()
        await awaited.close()
    assert run(primary, "HGET", "{n}:count", "n") == b"4"

    storage = servers[0].storage()
    storage.apply([add("n")])
    until(lambda: run(replica, "HGET", "{n}:count", "n") == b"5")  # what is not replicated is lost in a failover
    until(lambda: _fails_over(port))
    until(lambda: (_role(primary), _role(replica)) == (b"slave", b"master"))
    outcomes = [storage.apply([add("n")])[0] for _ in range(3)]

    assert outcomes[-1] == Applied((None,))
    assert not any(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert run(replica, "HGET", "{n}:count", "n") == b"%d" % (5 + outcomes.count(Applied((None,))))
    storage.close()
