"""Queues whose registration somebody removed are found from their own keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobqueue import JobQueue, NotApplied, lookup, transitions
from jobqueue.flows import Apply, Read
from jobqueue.keys import namespace_keys
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Batch, Fields, HashSet, Query, ScopePage, Scopes
from jobqueue.storage.redis.cluster import Topology, route
from tests.servers import Server
from tests.unit.queue_bench import Bench


def forget_registry(bench: Bench) -> None:
    """What somebody does who deletes the key."""
    del bench.memory._shared.contents.hashes[namespace_keys("test").queues.full]


def test_a_queue_is_found_from_its_own_keys_where_its_registration_was_lost() -> None:
    bench = Bench()
    record = bench.work.opts(queue="tenant7").enqueue(1)
    bench.jobs.counts()
    for look in (
        lambda: bench.jobs.get(record.id),
        lambda: bench.jobs.find()[0],
        lambda: bench.jobs.requeue(record.id),
        lambda: record if bench.jobs.counts()["tenant7"].ready == 1 else None,
    ):
        forget_registry(bench)
        assert look() == record
    assert b"tenant7" in bench.memory._shared.contents.hashes[namespace_keys("test").queues.full]


def test_a_search_that_is_done_is_not_made_by_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.work.enqueue(1)
    bench.jobs.counts()
    reads: list[Query] = []
    read = bench.memory.read

    def noted(queries: Sequence[Query]) -> list[Answer]:
        reads.extend(queries)
        return read(queries)

    monkeypatch.setattr(bench.memory, "read", noted)
    bench.jobs.counts()
    assert not any(isinstance(query, Scopes) for query in reads)
    assert reads


def test_a_search_goes_on_where_it_was_left_and_is_made_again_a_day_later() -> None:
    """Page by page, by whoever comes by; of two at once one is noted."""
    keys, pages = namespace_keys("test"), {b"": ("test:a", b"7"), b"7": ("test:b", b"x 9"), b"x 9": ("test:c", b"")}
    stored: dict[bytes, bytes] = {b"a": b"5"}
    asked: list[bytes] = []

    def go(now: int, pages_at_once: int = 1, *, meanwhile: dict[bytes, bytes] | None = None) -> set[bytes]:
        known = lookup.Registry(frozenset(stored), stored.get(transitions.SEARCHED), True)
        flow = lookup.search(keys, known, now, pages=pages_at_once)
        answer: Any = None
        try:
            while True:
                request = flow.send(answer)
                if isinstance(request, Read):
                    [query] = request.queries
                    assert isinstance(query, Scopes)
                    asked.append(query.cursor)
                    scope, cursor = pages[query.cursor]
                    answer = [ScopePage((scope,), cursor)]
                else:
                    assert isinstance(request, Apply)
                    stored.update(meanwhile or {})
                    storage = MemoryStorage()
                    storage.apply([Batch("test", (HashSet(keys.queues, stored),))])
                    answer = storage.apply(request.batches)
                    [fields] = storage.read([Fields(keys.queues)])
                    assert isinstance(fields, dict)
                    stored.update(fields)
        except StopIteration as end:
            found: set[bytes] = end.value
            return found

    assert go(1000) == {b"a"}
    assert stored[b"a"] == b"5", "when it was first used stays"
    assert go(1000, meanwhile={transitions.SEARCHED: b"x 9", b"b": b"0"}) == {b"b"}
    assert stored[transitions.SEARCHED] == b"x 9", "somebody else went further"
    assert go(1000, 9) == {b"c"}
    assert asked == [b"", b"7", b"x 9"]
    assert go(2000) == go(86_400_999) == set()
    assert go(86_401_000) == {b"a"}
    assert {b"a", b"b", b"c"} < stored.keys()


# ------------------------------------------------------------------------------------------------------------ on servers


def _searched(client: Any) -> bool:
    """Whether the search for lost registrations has come to its end."""
    return b"done" in client.hgetall("{mine}:queues").get(b":searched", b"")


def test_a_server_with_many_foreign_keys_is_gone_through_page_by_page(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "SEARCH_KEYS", 100)
    client = server.client()
    pipe = client.pipeline(transaction=False)
    for number in range(1_000):
        pipe.set(f"foreign:{number}", "x")
    pipe.execute()
    jobs = JobQueue(server.url, namespace="mine")

    @jobs.job(queue="tenant7")
    def work(number: int) -> None: ...

    record = work.enqueue(1)
    client.delete("{mine}:queues")
    assert jobs.get(record.id) == record
    monkeypatch.setattr(lookup, "SEARCH_PAGES", 1)
    client.delete("{mine}:queues")
    looks = 0
    while not _searched(client):
        assert (looks := looks + 1) < 100
        jobs.counts()
    assert looks > 5, "a page with each look, and the next look goes on"
    assert jobs.counts()["tenant7"].ready == 1
    jobs.close()


def test_who_may_not_scan_goes_by_the_registry(server: Server) -> None:
    client = server.client()
    client.acl_setuser("shop", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-scan"])
    jobs = JobQueue(server.url.replace("://", "://shop:x@", 1), namespace="mine")

    @jobs.job(queue="tenant7")
    def work(number: int) -> None: ...

    record = work.enqueue(1)
    assert jobs.get(record.id) == record
    assert jobs.counts()["tenant7"].ready == 1
    jobs.close()
    client.acl_deluser("shop")


def test_flushall_between_two_jobs_of_a_queue(server: Server) -> None:
    jobs = JobQueue(server.url, namespace="mine")

    @jobs.job
    def work(number: int) -> None: ...

    tenant = work.opts(queue="tenant7")
    tenant.enqueue(1)
    server.client().flushall()
    record = tenant.enqueue(2)
    assert jobs.get(record.id) == record
    assert jobs.counts()["tenant7"].ready == 1
    jobs.close()


def test_a_cluster_is_gone_through_node_by_node() -> None:
    """The cursor says on which; a node that has left is passed over, and one that came in its place is gone through."""
    topology = Topology("x", [("a", 1)])
    topology.learn(("a", 1), [[0, 5, [b"a", 1]], [6, 9, [b"c", 3]], [10, 12, [b"b", 2]], [13, 20, [b"a", 1]]])
    replies = {
        "a 0": [b"7", [b"k1"]],
        "a 7": [b"0", []],
        "b 0": [b"0", [b"k2"]],
        "c 0": [b"9", []],
        "c 9": [b"0", [b"k3"]],
    }

    def ask(cursor: bytes) -> tuple[bytes, list[bytes], str]:
        flow = route(topology, [("", (b"SCAN", cursor, b"MATCH", b"*"))])
        address, [(_, words)] = next(flow)
        asked = f"{address[0]} {words[1].decode()}"
        with pytest.raises(StopIteration) as end:
            flow.send([replies[asked]])
        [[following, keys]] = end.value.value
        return following, keys, asked

    cursor, found, asked = b"0", list[bytes](), list[str]()
    while asked == [] or cursor != b"0":
        cursor, keys, where = ask(cursor)
        found += keys
        asked.append(where)
    assert asked == ["a 0", "a 7", "b 0", "c 0", "c 9"]
    assert found == [b"k1", b"k2", b"k3"]
    assert ask(b"redis://ab:1 77")[2] == "b 0", "that node has left"
    gone = route(topology, [("", (b"SCAN", b"redis://d:1 5", b"MATCH", b"*"))])
    with pytest.raises(StopIteration) as end:
        next(gone)
    assert end.value.value == [[b"0", []]]


def test_a_queue_that_is_marked_and_empty_is_found_again_before_its_next_job() -> None:
    """The registry alone was lost. The next producer would see the mark, and acknowledge a job that nobody finds."""
    bench = Bench()
    tenant = bench.work.opts(queue="tenant7")
    bench.jobs.delete(tenant.enqueue(1).id)
    forget_registry(bench)

    bench.jobs.counts()
    record = tenant.enqueue(2)

    assert bench.jobs.get(record.id) == record
    assert b"tenant7" in bench.memory._shared.contents.hashes[namespace_keys("test").queues.full]


def test_a_node_that_is_away_ends_the_search_and_not_the_look() -> None:
    flow = lookup.search(namespace_keys("test"), lookup.Registry(frozenset({b"low"}), None, True), 1000, pages=9)
    request = next(flow)
    assert isinstance(request, Read)
    with pytest.raises(StopIteration) as end:
        flow.throw(NotApplied("the node is away"))
    assert end.value.value == set()
