"""The servers of the tests themselves: a fixture that leaks or lies would spoil everything built on it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.conftest import MakeServer
from tests.servers import Server, kinds


def test_a_server_is_real_and_empty(server: Server) -> None:
    with server.client() as client:
        assert client.dbsize() == 0
        client.set("kept", b"bytes\xff")

        assert client.get("kept") == b"bytes\xff"
        assert client.info("server")["process_id"] == server.pid


@pytest.fixture
def left_behind(running_servers: Callable[[str], Server]) -> None:
    """What an earlier test would leave on the shared servers."""
    for kind in kinds():
        with running_servers(kind).client() as client:
            client.set("left", b"behind")


@pytest.mark.usefixtures("left_behind")
def test_a_test_finds_its_server_empty_whatever_came_before(server: Server) -> None:
    with server.client() as client:
        assert client.dbsize() == 0


def test_tests_of_one_process_share_a_server(server: Server, running_servers: Callable[[str], Server]) -> None:
    assert running_servers(server.kind) is server


@pytest.mark.parametrize("kind", kinds())
def test_kill_and_restart_keep_socket_port_and_data(own_server: MakeServer, kind: str) -> None:
    server = own_server(kind, port=True, args=["--appendonly", "yes", "--appendfsync", "always"])
    before = server.pid
    with redis.Redis.from_url(server.tcp_url) as client:
        client.set("kept", "1")
    server.kill()
    with server.client() as client, pytest.raises(redis.ConnectionError):
        client.ping()

    server.restart()

    assert server.pid != before
    with redis.Redis.from_url(server.tcp_url) as client:
        assert client.get("kept") == b"1"


def test_debug_is_allowed_and_a_stopped_server_leaves_nothing(own_server: MakeServer) -> None:
    server = own_server()
    with server.client() as client:
        client.execute_command("DEBUG", "SLEEP", "0")
    server.stop()

    assert not server.running
    assert not server.directory.exists()


def test_a_server_that_cannot_start_shows_its_log(own_server: MakeServer) -> None:
    with pytest.raises(RuntimeError, match="no-such-setting"):
        own_server(args=["--no-such-setting", "1"])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for a process that is not a child")
def test_a_killed_test_process_leaves_no_server() -> None:
    code = "import sys; from tests.servers import start_server; print(start_server('valkey').pid, flush=True); input()"
    pipe = subprocess.PIPE
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, cwd=root) as starter:
        assert starter.stdout is not None
        watch = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()

    ended, _, _ = select.select([watch], [], [], 20)
    os.close(watch)

    assert ended, "the server outlived the test process"
