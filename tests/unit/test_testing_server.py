"""Testing blocks on a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobqueue import DeclarationError, JobQueue, NotApplied
from jobqueue.testing import Server as TestingServer
from jobqueue.testing import open_testing
from tests.servers import Server
from tests.unit.kit_jobs import broken, fresh, jobs, mail, seen


def keys(server: Server) -> set[Any]:
    with server.client() as client:
        return set(client.keys())


def connections(client: Any) -> set[str]:
    return {each["id"] for each in client.client_list()}


def test_everything_lies_on_the_server_in_a_namespace_that_is_removed(server: Server) -> None:
    with server.client() as client:
        client.set("somebody's", "1")
        client.hset("{kit}:queues", "low", "1")

    with fresh(), jobs.testing(url=server.url) as t:
        assert jobs.namespace.startswith("test-")
        assert jobs.namespace.endswith("-kit")
        broken.opts(retry=0).enqueue(1)
        mail.opts(delay=60).enqueue("a")
        with jobs.lock("nightly", ttl=60):
            pass
        t.drain(reraise=False)
        mail.enqueue("b")
        t.crash_runner()
        mail.enqueue("c")
        scopes = {key.partition(b"}")[0] for key in keys(server)}
        assert f"{{{jobs.namespace}:low".encode() in scopes

    assert keys(server) == {b"somebody's", b"{kit}:queues"}
    assert jobs.namespace == "kit"


def test_so_does_what_a_block_leaves_that_fails(server: Server) -> None:
    def fail() -> None:
        with jobs.testing(url=server.url):
            mail.enqueue("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert keys(server) == set()
    assert jobs.namespace == "kit"


def test_blocks_on_one_server_do_not_meet(server: Server) -> None:
    other = JobQueue(namespace="kit")

    @other.job(name="mail")
    def namesake(to: str, subject: str = "hello") -> None:
        seen.append("namesake")

    with TestingServer(server.url) as connected, fresh(), open_testing(jobs, server=connected) as t:
        with open_testing(other, server=connected) as u:
            mail.enqueue("a")
            assert u.enqueued() == []
            assert u.drain() == {}
            assert t.drain() == {"done": 1}
        assert seen == [("mail", "a")]


def test_an_inner_block_is_in_memory_unless_told_otherwise(server: Server) -> None:
    with fresh(), jobs.testing(url=server.url) as outer:
        outside = jobs.namespace
        mail.enqueue("a")
        with jobs.testing() as inner:
            assert jobs.namespace == outside
            assert inner.enqueued() == []
            assert len(outer.enqueued()) == 1
        with jobs.testing(url=server.url) as inner:
            assert jobs.namespace != outside
            assert inner.enqueued() == []
            assert len(outer.enqueued()) == 1
        assert outer.drain() == {"done": 1}


async def test_coroutines_leave_no_connection_behind(server: Server) -> None:
    with server.client() as client:
        before = connections(client)

        with fresh(), jobs.testing(url=server.url) as t:
            await mail.aenqueue("a")
            assert await t.adrain() == {"done": 1}
            assert connections(client) - before

        client.ping()  # a turn in which the server sees that connections were closed
        assert not connections(client) - before


def test_a_server_of_the_block_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with fresh(), jobs.testing(url="embedded://") as t:
        [folder] = tmp_path.glob("jobqueue-test-*")
        assert (folder / "pid").exists()
        mail.enqueue("a")
        assert t.drain() == {"done": 1}

    assert list(tmp_path.glob("jobqueue-test-*")) == []


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotApplied, match="cannot be reached"), jobs.testing(url=f"unix://{tmp_path}/none"):
        pass

    assert jobs.namespace == "kit"
    with jobs.testing() as t:
        assert t.enqueued() == []


@pytest.mark.parametrize(
    ("url", "said"), [("embedded://relative", "names no directory"), ("mongodb://x", "begins with 'mongodb'")]
)
def test_a_url_that_is_no_server(url: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said), jobs.testing(url=url):
        pass


def test_the_seed_decides_the_ids(testing_servers: Callable[[str], TestingServer]) -> None:
    def ids(seed: int, server: TestingServer | None = None) -> list[str]:
        with open_testing(jobs, server=server, seed=seed):
            return [mail.enqueue(to).id for to in "abc"]

    assert ids(1) == ids(1) == ids(1, testing_servers("valkey"))
    assert set(ids(1)).isdisjoint(ids(2))


def test_the_seed_is_that_of_the_block() -> None:
    with jobs.testing(seed=7) as t:
        assert t.seed == 7
