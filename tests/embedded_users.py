"""Users of an embedded server in processes of their own, and what one asks about the server."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue import embedded_place
from jobqueue.embedded_place import Place

ROOT = Path(__file__).parents[1]

# A user in a process of its own: tells where the server listens, stays until its input ends, leaves in order.
STAY = """
server = EmbeddedServer.open(directory)
print(server.socket, flush=True)
sys.stdin.read()
"""


class User:
    """Another process."""

    started: ClassVar[list[User]] = []

    def __init__(self, directory: Path, code: str = STAY) -> None:
        head = "import os, sys; from pathlib import Path; from jobqueue import embedded\n"
        head += "from jobqueue.embedded import EmbeddedServer; directory = Path(sys.argv[1])\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", head + code, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.started.append(self)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        if self.process.stdin and not self.process.stdin.closed:
            self.process.communicate()

    def leave(self) -> str:
        rest, _ = self.process.communicate()
        assert self.process.returncode == 0
        return rest


def directory_of_a_server(directory: Path) -> Iterator[Path]:
    """A directory for a server; afterwards nobody uses it, also when the test failed, and its server ends."""
    yield directory
    while User.started:
        User.started.pop().kill()
    for place in list(embedded_place._open_places):
        place.close()
    if (directory / "server").exists():
        wait_until_ended(directory)


def wait_until_ended(directory: Path, lock: str = "server") -> None:
    """Wait until the process that holds the lock is gone. (Without time limit the lock itself would be the wait.)"""
    pause = threading.Event()
    with (directory / lock).open() as file:
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pause.wait(0.01)
    pytest.fail(f"the {lock} of {directory} lives on")


def place_in(directory: Path) -> Place:
    """What a user has of a directory before it joins."""
    opened = os.open(directory, os.O_RDONLY)
    try:
        return Place(opened)
    finally:
        os.close(opened)


def runs(directory: Path) -> bool:
    place = place_in(directory)
    with place.alone():
        found = place.server_runs()
    place.close()
    return found


def client(socket: str) -> redis.Redis:
    return redis.Redis(unix_socket_path=socket, retry=Retry(NoBackoff(), 0))


def ask(socket: str, *command: str) -> object:
    with client(socket) as connection:
        return connection.execute_command(*command)


def process_of(socket: str) -> int:
    with client(socket) as connection:
        return int(connection.info("server")["process_id"])
