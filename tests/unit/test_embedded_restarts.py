"""An embedded server that died is started again by the next use of anybody who uses it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from jobqueue import JobQueue, NotApplied, Runner, embedded
from jobqueue.embedded import EmbeddedServer
from jobqueue.embedded_place import state_of
from tests.embedded_users import ask, directory_of_a_server, process_of, wait_until_ended


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a server may be; afterwards it has ended."""
    yield from directory_of_a_server(tmp_path / "data")


class Shop:
    """A queue on the server of a directory, and what its jobs did."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.jobs = JobQueue(f"embedded://{directory}")
        self.done: list[int] = []
        self.ran = threading.Semaphore(0)

        @self.jobs.job(name="work")
        def work(number: int) -> None:
            self.done.append(number)
            self.ran.release()

        self.work = work

    def kill_server(self) -> None:
        socket = (self.directory / "socket").read_text()
        os.kill(process_of(socket), signal.SIGKILL)
        wait_until_ended(self.directory)


@pytest.fixture
def shop(directory: Path) -> Iterator[Shop]:
    shop = Shop(directory)
    yield shop
    shop.jobs.close()


def test_the_next_use_finds_the_server_and_the_jobs(shop: Shop) -> None:
    for number in range(3):
        shop.work.enqueue(number)
        shop.kill_server()
    assert len(shop.jobs.find()) == 3
    assert shop.jobs.length("low") == 3


async def test_the_next_use_of_a_coroutine_finds_them_too(shop: Shop) -> None:
    for number in range(2):
        await shop.work.aenqueue(number)
        await asyncio.to_thread(shop.kill_server)
    assert await shop.jobs.alength("low") == 2
    await shop.jobs.aclose()


def test_a_runner_goes_on_with_the_server_that_it_starts(shop: Shop) -> None:
    runner = Runner(shop.jobs, threads=1, lease=2)
    thread = threading.Thread(target=runner.run, kwargs={"signals": False})
    thread.start()
    try:
        shop.work.enqueue(1)
        assert shop.ran.acquire(timeout=20)
        os.kill(process_of((shop.directory / "socket").read_text()), signal.SIGKILL)  # the runner may start it at once
        shop.work.enqueue(2)
        assert shop.ran.acquire(timeout=20)
    finally:
        runner.stop()
        thread.join()
    assert shop.done == [1, 2]


def test_users_of_two_processes_meet_at_the_same_server_again(directory: Path) -> None:
    one, other = EmbeddedServer.open(directory), EmbeddedServer.open(directory)
    ask(one.socket, "SET", "kept", "1")
    os.kill(process_of(one.socket), signal.SIGKILL)
    wait_until_ended(directory)
    found: list[str] = []
    threads = [threading.Thread(target=lambda user=user: found.append(user.located())) for user in (one, other) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {one.socket}
    assert ask(one.socket, "GET", "kept") == b"1"
    one.close()
    assert ask(other.socket, "PING"), "its other user still needs it"
    other.close()
    assert other.located() == other.socket, "who has left starts nothing"
    assert not Path(other.socket).exists()


def test_the_log_before_a_restart_is_kept(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    process = process_of(server.socket)
    os.kill(process, signal.SIGKILL)
    wait_until_ended(directory)
    server.located()
    assert f"{process}:M" in (directory / "log.before").read_text()
    assert f"{process}:M" not in (directory / "log").read_text()
    server.close()


def test_a_server_that_loads_for_long_is_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than one that is silent is."""
    looks = [0]
    real = state_of

    def loading(socket: str, timeout: float) -> Literal["ready", "loading", "hanging", "silent"]:
        looks[0] += 1
        return "loading" if looks[0] < 50 else real(socket, timeout)

    monkeypatch.setattr(embedded, "_SILENT_SECONDS", 5 * embedded._POLL_SECONDS)
    monkeypatch.setattr(embedded, "state_of", loading)
    server = EmbeddedServer.open(directory)
    assert looks[0] >= 50
    assert ask(server.socket, "PING")
    looks[0] = 0
    assert server.located() == server.socket
    assert looks[0] >= 50
    server.close()


def test_a_server_that_does_not_start_again_is_an_error_that_says_why(shop: Shop) -> None:
    shop.work.enqueue(1)
    shop.kill_server()
    log = next((shop.directory / "appendonlydir").glob("*.incr.aof"))
    log.write_bytes(b"*1\r\n$4\r\nNOPE\r\n" * 99)
    with pytest.raises(NotApplied, match=r"does not start; the end of its log(.|\n)*") as caught:
        shop.work.enqueue(2)
    [record] = caught.value.records
    assert record.id in str(caught.value)


def test_a_first_enqueue_whose_server_cannot_start_stores_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shop = Shop(tmp_path / "file")
    with pytest.raises(NotApplied, match="cannot hold an embedded server"):
        shop.work.enqueue(1)
