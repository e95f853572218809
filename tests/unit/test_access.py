"""What reaches the storage for a `JobQueue`: at first use, per event loop, and after the server lost its data."""

from __future__ import annotations

import asyncio

import pytest
import redis

from jobqueue import JobQueue, NotApplied
from jobqueue.backend import MemoryBackend
from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing import FakeClock
from tests.servers import Server


@pytest.mark.parametrize("delay", [0, 60])
def test_a_server_that_was_never_there_leaves_records_to_send_again(delay: int) -> None:
    jobs = JobQueue("redis://127.0.0.1:1/0")

    @jobs.job
    def noop(i: int) -> None: ...

    with pytest.raises(NotApplied) as caught:
        jobs.enqueue_many([noop.opts(delay=delay).call(1), noop.call(2)])
    assert [record.payload for record in caught.value.records] == [b'{"i":1}', b'{"i":2}']

    with pytest.raises(NotApplied) as awaited:
        asyncio.run(noop.opts(delay=delay).aenqueue(3))
    assert [record.payload for record in awaited.value.records] == [b'{"i":3}']

    elsewhere = JobQueue(storage=MemoryStorage())
    elsewhere.enqueue_records(caught.value.records)
    assert sum(counts.ready + counts.waiting for counts in elsewhere.counts().values()) == 2


def test_an_event_loop_that_ends_gives_its_connections_back(server: Server) -> None:
    jobs = JobQueue(server.url, namespace="loops")

    @jobs.job
    async def noop(i: int) -> None: ...

    asyncio.run(noop.aenqueue(0))
    client = server.client()
    before = client.info("clients")["connected_clients"]

    for i in range(20):
        asyncio.run(noop.aenqueue(i))

    assert client.info("clients")["connected_clients"] <= before
    assert jobs.length("low") == 21
    client.close()
    jobs.close()


def test_a_queue_is_registered_again_after_the_server_lost_its_data() -> None:
    storage, clock = MemoryStorage(), FakeClock()
    jobs = JobQueue(storage=storage, clock=clock)

    @jobs.job(queue="custom")
    def noop(i: int) -> None: ...

    noop.enqueue(1)
    storage.restore(MemoryStorage().copy())
    noop.enqueue(2)

    assert jobs.counts()["custom"].ready == 1
    assert isinstance(jobs.access.opened().backend, MemoryBackend)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://localhost/abc", "the number of a database"),
        ("redis://localhost:port/0", "no number from 1 to 65535"),
        ("rediss://localhost:99999/0", "no number from 1 to 65535"),
        ("redis://localhost:0/0", "no number from 1 to 65535"),
        ("redis+cluster://a:1,b:0", "no number from 1 to 65535"),
    ],
)
def test_a_url_that_says_something_else_than_it_seems_is_refused_at_declaration(url: str, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        JobQueue(url)


def test_a_client_that_decodes_is_refused_at_declaration() -> None:
    with pytest.raises(TypeError, match="decode_responses"):
        JobQueue(client=redis.Redis(decode_responses=True))


def test_a_queue_that_is_not_among_the_declared_ones_is_refused_by_those_who_look() -> None:
    jobs = JobQueue("memory://", queues=["images"])

    for look in (lambda: jobs.length("image"), lambda: jobs.find(queue="image"), lambda: jobs.get("x", queue="image")):
        with pytest.raises(TypeError, match="images"):
            look()
