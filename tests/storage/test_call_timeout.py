"""One bound for everything that a call does, the same for threads and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, Self

import pytest

from jobqueue import DeclarationError, JobQueue, NotApplied, OutcomeUnknown, StorageError
from tests.conftest import MakeServer
from tests.servers import Server
from tests.storage.test_pool import declared, stopped

SECONDS = 0.5
LATE = 1.5
"""How much later an error may come on a machine that is busy."""

Called = Callable[[JobQueue, Any], Coroutine[Any, Any, object]]


async def blocking(function: Callable[[], object]) -> object:
    """A call that blocks."""
    return function()


CALLS: dict[str, Called] = {
    "enqueue": lambda _, job: blocking(lambda: job.enqueue(1)),
    "aenqueue": lambda _, job: job.aenqueue(1),
    "enqueue, delayed": lambda _, job: blocking(lambda: job.opts(delay=5).enqueue(1)),
    "aenqueue, delayed": lambda _, job: job.opts(delay=5).aenqueue(1),
    "enqueue_many": lambda jobs, job: blocking(
        lambda: jobs.enqueue_many([job.call(1), job.opts(queue="high").call(2)])
    ),
    "counts": lambda jobs, _: blocking(jobs.counts),
    "acounts": lambda jobs, _: jobs.acounts(),
    "lock": lambda jobs, _: blocking(lambda: jobs.lock("a", ttl=9).run(print)),
}


async def error_of(call: Coroutine[Any, Any, object]) -> tuple[StorageError, float]:
    """What a call raises, and after how many seconds."""
    began = time.monotonic()
    with pytest.raises(StorageError) as caught:
        await call
    return caught.value, time.monotonic() - began


@pytest.fixture
def jobs(own_server: MakeServer) -> Iterator[tuple[JobQueue, Server]]:
    server = own_server()
    with JobQueue(server.url, namespace="bound", timeout=SECONDS) as made:
        yield made, server


@pytest.mark.parametrize("what", CALLS)
async def test_a_server_that_hangs(jobs: tuple[JobQueue, Server], what: str) -> None:
    """Before there is a connection, and with one. Where the request was sent, it may have been done."""
    made, server = jobs
    job = declared(made)
    for connected in (False, True):
        if connected:
            await CALLS[what](made, job)
        with stopped(server):
            error, took = await error_of(CALLS[what](made, job))
        assert took <= SECONDS + LATE
        sent = connected and "enqueue" in what
        assert type(error) is (OutcomeUnknown if sent else NotApplied)
        await CALLS[what](made, job)
    await made.aclose()


def test_an_answer_that_trickles(server: Server) -> None:
    """A byte now and then starts no time anew."""
    with Trickle(server) as trickle:
        jobs = JobQueue(f"{trickle.url}?timeout={SECONDS}", namespace="bound")
        job = declared(jobs)
        job.enqueue(1)
        trickle.slow = True
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            job.enqueue(2)
        assert time.monotonic() - began <= SECONDS + LATE
        began = time.monotonic()
        with pytest.raises(NotApplied):  # there was no connection left
            job.enqueue(3)
        assert time.monotonic() - began <= SECONDS + LATE
        began = time.monotonic()
        with pytest.raises(NotApplied):
            asyncio.run(job.aenqueue(4))
        assert time.monotonic() - began <= SECONDS + LATE
        jobs.close()


def test_a_dead_connection_leaves_time_for_another(server: Server) -> None:
    """As behind a firewall that forgets a connection nobody uses: the second try takes a new one."""
    with Trickle(server) as trickle:
        jobs = JobQueue(trickle.url, namespace="bound", timeout=SECONDS * 2)
        job = declared(jobs)
        job.enqueue(1)
        trickle.mute_all()
        job.enqueue(2)
        assert jobs.length("low") == 2
        jobs.close()


def test_a_long_call_has_the_time_for_each_part(server: Server) -> None:
    with Trickle(server) as trickle:
        jobs = JobQueue(trickle.url, namespace="bound", timeout=0.4)
        job = declared(jobs)
        job.enqueue(0)
        trickle.pause = 0.11
        assert len(jobs.enqueue_many([job.call(number) for number in range(3_000)])) == 3_000
        trickle.pause = 0
        assert jobs.length("low") == 3_001
        jobs.close()


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), 1e9, True, "3", timedelta(0), [1]])
def test_a_timeout_that_cannot_be(given: Any) -> None:
    with pytest.raises(
        DeclarationError, match="timeout= is how long a call may take in all: a timedelta or a number of"
    ):
        JobQueue("redis://h", timeout=given)


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "abc", "s3cret", "1e9"])
@pytest.mark.parametrize(
    "scheme", ["redis://me:pw@h/0", "unix:///s", "memory://", "embedded:///d", "redis+cluster://h"]
)
def test_a_timeout_in_the_url_that_cannot_be(scheme: str, given: str) -> None:
    with pytest.raises(
        DeclarationError, match=r"a number of seconds above 0 and up to a day, as in \?timeout=2"
    ) as caught:
        JobQueue(f"{scheme}?timeout={given}")
    assert "s3cret" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        ("timeout=", "has no value"),
        ("timeout=1&timeout=2", "stands twice"),
        ("max_connections=", "has no value"),
        ("socket_connect_timeout=1", "timeout= bounds the whole call"),
    ],
)
def test_settings_that_cannot_be(query: str, advice: str) -> None:
    with pytest.raises(DeclarationError, match=advice):
        JobQueue(f"redis://h?{query}")


@pytest.mark.parametrize("url", ["memory://?timeout=2", "memory://?max_connections=3&timeout=2"])
def test_limits_mean_nothing_in_memory(url: str) -> None:
    jobs = JobQueue(url, timeout=timedelta(seconds=3), max_connections=2)
    declared(jobs).enqueue(1)
    assert jobs.length("low") == 1


class Trickle:
    """Stands between a client and a server, and hands answers on late, byte by byte or never."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.slow = False
        self.pause = 0.0
        self._mute: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for each in (self._listener, *self._sockets):
            with_shutdown(each)

    def mute_all(self) -> None:
        """From now on nothing comes through on the connections that there are."""
        self._mute.update(self._sockets)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(self._server.socket)
            self._sockets += [client, upstream]
            threading.Thread(target=self._forward, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=self._forward, args=(upstream, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                if source in self._mute:
                    continue
                if answers and self.pause:
                    self._ended.wait(self.pause)
                for piece in [data[at : at + 1] for at in range(len(data))] if answers and self.slow else [data]:
                    target.sendall(piece)
                    if answers and self.slow and self._ended.wait(SECONDS / 3):
                        return
            with_shutdown(target)
        except OSError:
            pass


def with_shutdown(each: socket.socket) -> None:
    """Close it, and wake who reads from it."""
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_an_error_says_how_long_was_waited(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        jobs = JobQueue(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        errors = [await error_of(blocking(jobs.counts)), await error_of(jobs.acounts())]

    for error, _ in errors:
        assert re.search(r"\(no answer within [01]\.[0-9] s, see timeout=\)", str(error))
        assert ("does it speak TLS there" in str(error)) == (scheme == "rediss")
