"""The pool of connections: a bound, waiting for one of the own, and what becomes of those that nobody uses."""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from jobqueue import DeclarationError, JobQueue, NotApplied
from jobqueue.storage.redis import links as links_module
from jobqueue.storage.redis import pool as pool_module
from tests.conftest import MakeServer
from tests.servers import Server

THREADS = 60


def declared(jobs: JobQueue) -> Any:
    """A kind of job."""

    @jobs.job(name="pooled")
    def job(number: int) -> None: ...

    return job


def named(client: redis.Redis) -> int:
    """How many connections of ours the server has."""
    return sum(each["name"] == "jobqueue" for each in client.client_list())


def together(count: int, call: Callable[[int], object]) -> list[BaseException]:
    """Call it from many threads at once; answers what was raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(count)

    def work(number: int) -> None:
        start.wait()
        try:
            call(number)
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            raised.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_never_more_than_there_may_be() -> None:
    """A thread that was held up after it had begun to take a place, while another one took the last."""
    links: links_module.Links[Any, Any] = links_module.Links(1)
    enter: Any = links._entered
    others: list[Any] = []

    def held_up(link: Any) -> Any:
        if not others:
            others.append(None)
            others.append(links.add())
        return enter(link)

    links._entered = held_up  # type: ignore[method-assign]
    mine = links.add()
    assert [mine is None, others[1] is None].count(False) == 1
    assert len(links) == 1


def test_of_many_at_once_as_many_as_there_may_be() -> None:
    links: links_module.Links[Any, Any] = links_module.Links(3)
    kept: list[Any] = []

    def take(_: int) -> None:
        for _ in range(50):
            link = links.add()
            if link is not None:
                kept.append(link)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert together(12, take) == []
    finally:
        sys.setswitchinterval(before)
    assert len(kept) == len(links) == 3


def test_connections_are_given_back_though_no_thread_could_be_started_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    start: Any = _thread.start_new_thread
    refused: list[int] = []

    def refuse(*args: Any) -> Any:
        if args[0] is pool_module._watch and not refused:
            refused.append(1)
            raise RuntimeError("can't start new thread")
        return start(*args)

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    monkeypatch.setattr(links_module, "IDLE_SECONDS", 0.05)
    client = server.client()
    before = named(client)
    with JobQueue(server.url, namespace="pool", max_connections=5) as jobs:
        job = declared(jobs)
        while not refused:
            assert together(THREADS, job.enqueue) == []
        assert together(THREADS, job.enqueue) == []
        assert eventually(lambda: named(client) - before == 1)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server's process stands still."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("most", [1, 3, None])
def test_many_threads_share_few_connections(server: Server, most: int | None) -> None:
    client = server.client()
    before = named(client)
    with JobQueue(server.url, namespace="pool", max_connections=most) as jobs:
        job = declared(jobs)

        def call(number: int) -> None:
            for _ in range(5):
                job.enqueue(number)
            assert named(client) - before <= (most or 10)

        assert together(THREADS, call) == []
        assert jobs.length("low") == 5 * THREADS
    assert named(client) <= before


def test_more_threads_than_the_server_has_connections(own_server: MakeServer) -> None:
    """A server that refuses connections is no reason to fail while one of our own comes free."""
    server = own_server(args=["--maxclients", "20"])
    client = server.client()
    client.ping()
    with JobQueue(server.url, namespace="pool", max_connections=50) as jobs:
        job = declared(jobs)
        assert together(THREADS, job.enqueue) == []
        assert jobs.length("low") == THREADS


def test_no_connection_in_time(server: Server) -> None:
    """Certainly nothing was stored, and the error says what to raise. A place is free when nobody has its connection."""
    with JobQueue(server.url, namespace="pool", max_connections=1, timeout=0.3) as jobs:
        job = declared(jobs)
        job.enqueue(0)
        storage: Any = jobs.access.opened().storage()
        held = storage._nodes._links.idle.pop()
        with pytest.raises(NotApplied) as caught:
            job.enqueue(1)
        assert "became free within 0.3 s: all 1 of this process were in use; nothing was changed" in str(caught.value)
        assert "Raise max_connections= (JobQueue, or ?max_connections= in the URL)" in str(caught.value)
        assert caught.value.passes
        del held
        job.enqueue(2)
        assert jobs.length("low") == 2


async def test_many_tasks_share_few_connections(server: Server) -> None:
    client = server.client()
    before = named(client)
    async with JobQueue(server.url, namespace="pool", max_connections=2) as jobs:
        job = declared(jobs)
        await asyncio.gather(*[job.aenqueue(number) for number in range(THREADS)])
        assert named(client) - before <= 2
        assert await jobs.alength("low") == THREADS


async def test_a_task_that_is_cancelled_while_it_waits(server: Server) -> None:
    """What was handed to it goes to the next one."""
    async with JobQueue(server.url, namespace="pool", max_connections=1, timeout=2) as jobs:
        job = declared(jobs)
        await job.aenqueue(0)
        for round in range(20):
            tasks = [asyncio.ensure_future(job.aenqueue(number)) for number in range(6)]
            for _ in range(round):
                await asyncio.sleep(0)
            for task in tasks[1:4]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait_for(job.aenqueue(0), 1)


def test_idle_connections_are_given_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another call; one stays."""
    monkeypatch.setattr(links_module, "IDLE_SECONDS", 0.05)
    client = server.client()
    before = named(client)
    with JobQueue(server.url, namespace="pool", max_connections=5) as jobs:
        job = declared(jobs)
        assert together(THREADS, job.enqueue) == []
        assert eventually(lambda: named(client) - before == 1)
        job.enqueue(1)


async def test_idle_connections_of_a_loop_are_given_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "IDLE_SECONDS", 0.05)
    client = server.client()
    before = named(client)
    async with JobQueue(server.url, namespace="pool", max_connections=5) as jobs:
        job = declared(jobs)
        await asyncio.gather(*[job.aenqueue(number) for number in range(THREADS)])
        assert await asyncio.to_thread(eventually, lambda: named(client) - before == 1)
        await job.aenqueue(1)


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within ten seconds."""
    look = threading.Event()
    return any(is_so() or look.wait(0.01) for _ in range(1000))


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "3"])
def test_a_bound_that_cannot_be(given: Any) -> None:
    with pytest.raises(DeclarationError, match="max_connections= is a whole number, at least 1"):
        JobQueue("redis://h", max_connections=given)
    with pytest.raises(DeclarationError, match=r"'max_connections' in the redis:// URL is a whole number|has no value"):
        JobQueue(f"redis://h?max_connections={given if given != '3' else ''}")


def test_the_url_wins(server: Server) -> None:
    with JobQueue(f"{server.url}?max_connections=2&timeout=3", max_connections=7, timeout=8) as jobs:
        backend: Any = jobs.access.opened().backend
        assert (backend._server.limits.max_connections, backend.timeout) == (2, 3.0)
