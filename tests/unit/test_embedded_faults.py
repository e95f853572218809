"""The embedded server when its users are killed, forked or in a hurry, and when it dies or hangs itself."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobqueue import embedded, embedded_place
from jobqueue.embedded import EmbeddedServer
from jobqueue.embedded_place import Place
from jobqueue.errors import StorageError
from tests.embedded_users import (
    STAY,
    User,
    ask,
    directory_of_a_server,
    place_in,
    process_of,
    runs,
    wait_until_ended,
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a server may be; afterwards it has ended."""
    yield from directory_of_a_server(tmp_path / "data")


def test_the_starter_is_killed_and_the_other_works_on(directory: Path) -> None:
    starter = User(directory)
    socket = starter.line()
    server = EmbeddedServer.open(directory)

    starter.kill()

    assert server.socket == socket
    assert ask(socket, "SET", "kept", "1")
    late = User(directory)
    assert late.line() == socket
    late.leave()
    assert ask(socket, "GET", "kept") == b"1"
    server.close()
    assert not runs(directory)


def test_all_users_are_killed_and_the_next_one_finds_the_data(directory: Path) -> None:
    users = [User(directory), User(directory)]
    socket = {user.line() for user in users}.pop()
    ask(socket, "SET", "kept", "1")
    for user in users:
        user.kill()

    server = EmbeddedServer.open(directory)

    assert ask(server.socket, "GET", "kept") == b"1"
    server.close()
    assert not runs(directory)


def test_a_server_without_users_ends_by_itself(directory: Path) -> None:
    user = User(directory)
    socket = user.line()
    user.kill()

    wait_until_ended(directory)

    place = place_in(directory)
    with place.alone():  # and the guard has tidied up
        pass
    place.close()
    assert not Path(socket).parent.exists()


def test_one_guard_is_enough_for_many_servers(directory: Path) -> None:
    for _ in range(5):
        EmbeddedServer.open(directory).close()
    server = EmbeddedServer.open(directory)
    place = place_in(directory)
    with place.alone(), place.lend("guard") as lock:
        assert lock is None, "no guard lives"
    place.close()
    server.close()

    wait_until_ended(directory, "guard")


DIE = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    "patch",
    [
        f"embedded._start = lambda *_: {DIE}",
        f"run = embedded.subprocess.run; embedded.subprocess.run = lambda *a, **k: (run(*a, **k), {DIE})",
        f"embedded._is_ready = lambda *_: {DIE}",
    ],
    ids=["before the server starts", "while the server starts", "before the server answers"],
)
def test_a_starter_that_is_killed_half_way_leaves_nothing_wrong(directory: Path, patch: str) -> None:
    killed = User(directory, f"{patch}\n{STAY}")
    killed.process.communicate()
    assert killed.process.returncode == -signal.SIGKILL

    server = EmbeddedServer.open(directory)

    assert ask(server.socket, "PING")
    server.close()
    assert not runs(directory)


def test_the_server_is_killed_and_started_again_where_it_was(directory: Path) -> None:
    first = EmbeddedServer.open(directory)
    ask(first.socket, "SET", "kept", "1")
    os.kill(process_of(first.socket), signal.SIGKILL)
    wait_until_ended(directory)

    second = EmbeddedServer.open(directory)

    assert second.socket == first.socket
    assert ask(first.socket, "GET", "kept") == b"1"
    second.close()
    assert ask(first.socket, "PING"), "its other user still needs it"
    first.close()


def test_a_server_that_died_is_no_trouble_for_who_leaves(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    os.kill(process_of(server.socket), signal.SIGKILL)
    wait_until_ended(directory)

    server.close()

    assert not Path(server.socket).parent.exists()


def test_a_folder_that_others_can_enter_is_not_used_again(directory: Path) -> None:
    first = EmbeddedServer.open(directory)
    os.kill(process_of(first.socket), signal.SIGKILL)
    wait_until_ended(directory)
    Path(first.socket).parent.chmod(0o777)

    second = EmbeddedServer.open(directory)

    assert second.socket != first.socket
    second.close()
    first.close()
    assert not runs(directory)


def test_a_forked_child_does_not_keep_it_alive(directory: Path) -> None:
    forked = """
server = EmbeddedServer.open(directory)
if os.fork() != 0:
    print("forked", flush=True)
sys.stdin.read()
"""
    user = User(directory, forked)
    assert user.line() == "forked"
    user.process.kill()
    user.process.wait()

    wait_until_ended(directory)

    user.process.communicate()  # the child lived until here


def test_a_forked_child_does_not_end_it(directory: Path) -> None:
    forked = """
server = EmbeddedServer.open(directory)
child = os.fork()
if child == 0:
    server.close()
    sys.exit()
os.waitpid(child, 0)
print(server.socket, flush=True)
sys.stdin.read()
"""
    user = User(directory, forked)

    assert ask(user.line(), "PING")
    user.leave()
    assert not runs(directory)


def test_a_directory_that_is_deleted_under_its_users(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    process = process_of(server.socket)
    shutil.rmtree(directory)
    other = EmbeddedServer.open(directory)

    assert process_of(other.socket) != process
    server.close()
    assert ask(other.socket, "PING"), "it is another server, and in use"
    with pytest.raises(redis.ConnectionError):
        ask(server.socket, "PING")
    other.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for a process that is not a child")
def test_a_directory_that_is_deleted_under_a_killed_user(directory: Path) -> None:
    user = User(directory)
    watch = os.pidfd_open(process_of(user.line()))
    shutil.rmtree(directory)
    user.kill()

    ended, _, _ = select.select([watch], [], [], 20)
    os.close(watch)

    assert ended


def test_a_server_that_hangs_is_ended_later(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_place, "_END_SECONDS", 0.1)
    server = EmbeddedServer.open(directory)
    process = process_of(server.socket)
    os.kill(process, signal.SIGSTOP)

    with pytest.raises(StorageError, match=f"{directory} was not ended"):
        server.close()
    os.kill(process, signal.SIGCONT)

    wait_until_ended(directory)


def test_a_server_that_does_not_answer_is_not_started_twice(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SILENT_SECONDS", 0.3)
    monkeypatch.setattr(embedded, "_HANGING_SECONDS", 0.1)
    server = EmbeddedServer.open(directory)
    process = process_of(server.socket)
    os.kill(process, signal.SIGSTOP)

    with pytest.raises(StorageError, match="does not answer") as caught:
        EmbeddedServer.open(directory)
    os.kill(process, signal.SIGCONT)

    assert (directory / "pid").read_text().strip() == str(process)
    assert str(directory / "pid") in str(caught.value)
    server.close()


def test_a_server_that_dies_while_somebody_joins_is_replaced(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = EmbeddedServer.open(directory)
    ask(first.socket, "SET", "kept", "1")
    process = process_of(first.socket)
    os.kill(process, signal.SIGSTOP)

    def kill_when_seen(socket: str, timeout: float) -> str:
        found = embedded_place.state_of(socket, min(timeout, 0.1))
        if found == "hanging":
            os.kill(process, signal.SIGKILL)
        return found

    monkeypatch.setattr(embedded, "state_of", kill_when_seen)
    second = EmbeddedServer.open(directory)

    assert process_of(second.socket) != process
    assert ask(first.socket, "GET", "kept") == b"1"
    first.close()
    second.close()


def test_a_guard_that_could_not_end_a_server_is_in_nobodys_way(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No guard of its own for this server, but one in a thread here, which can be watched and hurried.
    monkeypatch.setattr(embedded, "_guarded", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(embedded_place, "_END_SECONDS", 0.05)
    monkeypatch.setattr(embedded_place, "GUARD_SECONDS", 0.01)
    tried = threading.Event()
    end_server = Place.end_server

    def end_and_tell(place: Place, known: str) -> None:
        try:
            end_server(place, known)
        finally:
            tried.set()

    server = EmbeddedServer.open(directory)
    process = process_of(server.socket)
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(StorageError):
        server.close()
    monkeypatch.setattr(Place, "end_server", end_and_tell)
    opened = os.open(directory, os.O_RDONLY)
    own_lock = os.open(directory / "guard", os.O_RDWR | os.O_CREAT)
    guard = threading.Thread(target=embedded_place.guard, args=(opened, server.socket, own_lock), daemon=True)
    guard.start()
    assert tried.wait(10)

    os.kill(process, signal.SIGCONT)
    late = EmbeddedServer.open(directory)

    assert ask(late.socket, "PING")
    monkeypatch.setattr(embedded_place, "_END_SECONDS", 10.0)  # nobody hurries this one, which has a disk to write to
    late.close()
    guard.join(10)
    assert not guard.is_alive()
    os.close(opened)


def test_a_server_nobody_can_find_is_not_started_twice(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    (directory / "socket").unlink()

    with pytest.raises(StorageError, match="the file that says where it listens is gone"):
        EmbeddedServer.open(directory)

    server.close()
    assert not runs(directory)
