"""A folder of an embedded server that another user of the system prepared, or may change."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket as sockets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobqueue import JobQueue, StorageRefused
from jobqueue.cli.app import run
from jobqueue.embedded import EmbeddedServer
from jobqueue.embedded_place import NotOurs, is_our_socket, state_of
from tests.embedded_users import User, ask, directory_of_a_server, place_in, process_of, wait_until_ended

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
LOOKING = [["stats"], ["jobs"], ["show", "x"], ["requeue", "x"], ["delete", "x"], ["audit"]]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where a server may be; afterwards it has ended."""
    yield from directory_of_a_server(tmp_path / "data")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of this user that must stay as it is."""
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.fixture(scope="module")
def once_used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where a server was, and has ended; for copies."""
    directory = tmp_path_factory.mktemp("embedded") / "used"
    EmbeddedServer.open(directory).close()
    return directory


@pytest.fixture
def used(directory: Path, once_used: Path) -> Path:
    """A folder where a server was, and has ended."""
    shutil.copytree(once_used, directory)
    return directory


def everything(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that can be seen of a folder, without following links."""
    seen = {}
    for path in [folder, *folder.rglob("*")]:
        found = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
        seen[str(path.relative_to(folder))] = (found.st_mode, found.st_uid, found.st_nlink, content)
    return seen


def mode(path: Path) -> int:
    """What the owner, the group and others may do with a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def refused(directory: Path, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing uses the folder or changes it, and each says why in one line."""
    before = everything(directory)

    with pytest.raises(StorageRefused, match=why):
        EmbeddedServer.open(directory)
    with JobQueue(f"embedded://{directory}") as jobs, pytest.raises(StorageRefused, match=why):
        jobs.counts()
    capsys.readouterr()
    assert run(["stats", "--url", f"embedded://{directory}"]) == 3

    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert everything(directory) == before


# -------------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
@pytest.mark.parametrize("content", ["empty", "used"])
def test_a_folder_that_others_may_write_to_is_refused(
    directory: Path, mode: int, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.mkdir()
    if content == "used":
        (directory / "start").touch(mode=0o600)
    directory.chmod(mode)

    refused(directory, "can be written by other users", capsys)


@AS_ROOT
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_folder_of_another_user_is_refused(used: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by root, and although everything in it is this user's own."""
    used.chmod(mode)
    os.chown(used, NOBODY, NOBODY)

    refused(used, f"belongs to another user of the system .id {NOBODY}", capsys)


def test_a_folder_below_one_that_others_may_write_to_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shared" / "mine").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o777)

    refused(tmp_path / "shared" / "mine", "shared can be written by other users, who could replace", capsys)


@pytest.mark.parametrize(
    "files",
    [
        {"log": "x"}, {"start": "#!/bin/sh\n", "log": "x"}, {"appendonlydir/a": "x"}, {"start": "", "log": "x"},
        {"start": "", "server": "", "pid": "1"}, {"start": "", "users": "me", "server": ""}, {"users": "", "server": "#"},
    ],
)  # fmt: skip
def test_a_folder_that_is_used_for_something_else_is_left_as_it_is(
    directory: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)

    refused(directory, "it is used for something else", capsys)


@pytest.mark.parametrize("command", LOOKING, ids=lambda command: command[0])
def test_looking_starts_and_makes_nothing_where_no_server_was(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "start").touch()
    before = everything(tmp_path)
    for name in ("empty", "begun", "missing", "missing/below"):
        assert run([*command, "--url", f"embedded://{tmp_path / name}"]) == 2
        assert capsys.readouterr().err.endswith(f"started in '{tmp_path / name}', so nothing is stored there\n")
    assert everything(tmp_path) == before


def test_looking_is_possible_where_a_server_was(used: Path) -> None:
    assert run(["stats", "--url", f"embedded://{used}"]) == 0


def test_a_folder_that_is_replaced_under_its_user_is_not_used(directory: Path, victim: Path) -> None:
    server = EmbeddedServer.open(directory)
    os.kill(process_of(server.socket), signal.SIGKILL)
    wait_until_ended(directory)
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "log").symlink_to(victim)

    with pytest.raises(StorageRefused, match="was removed, and there is another one now"):
        server.located()
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
        with pytest.raises(StorageRefused, match="belongs to another user"):
            server.located()

    server.close()
    assert [path.name for path in directory.iterdir()] == ["log"]
    assert victim.read_text() == "precious"


async def test_a_folder_that_is_changed_under_its_user_gets_no_new_server(directory: Path, victim: Path) -> None:
    with JobQueue(f"embedded://{directory}") as jobs:
        jobs.counts()
        os.kill(process_of((directory / "socket").read_text()), signal.SIGKILL)
        wait_until_ended(directory)

        (directory / "temp-1.rdb").symlink_to(victim)
        with pytest.raises(StorageRefused, match=r"'temp-1\.rdb' in it is a link"):
            jobs.counts()
        with pytest.raises(StorageRefused, match=r"'temp-1\.rdb' in it is a link"):
            await jobs.acounts()
        (directory / "temp-1.rdb").unlink()
        await asyncio.to_thread(directory.chmod, 0o777)
        with pytest.raises(StorageRefused, match="can be written by other users"):
            jobs.counts()
        await asyncio.to_thread(directory.chmod, 0o700)
        assert jobs.counts() == {}
        await jobs.aclose()


# --------------------------------------------------------------------------------------------------- what is in there


@pytest.mark.parametrize(
    "name", ["start", "users", "server", "guard", "socket", "pid", "log", "log.before", "appendonlydir", "temp-1.rdb"]
)
@pytest.mark.parametrize("target", ["victim", "new"])
def test_a_link_is_not_followed(used: Path, victim: Path, name: str, target: str) -> None:
    if (used / name).is_dir():
        shutil.rmtree(used / name)
    (used / name).unlink(missing_ok=True)
    (used / name).symlink_to(victim.parent / target)

    with pytest.raises(StorageRefused, match=f"'{name}' in it is a link|something else"):
        EmbeddedServer.open(used)

    assert victim.read_text() == "precious"
    assert not (victim.parent / "new").exists()


@pytest.mark.parametrize("name", ["start", "users", "server", "guard", "socket", "log"])
def test_a_link_is_not_followed_either_where_it_was_made_after_the_look(used: Path, victim: Path, name: str) -> None:
    place = place_in(used)
    (used / name).unlink(missing_ok=True)
    (used / name).symlink_to(victim)

    with pytest.raises(NotOurs, match=f"'{name}' in it is a link"):
        place.open_file(name, os.O_RDWR | os.O_CREAT)
    place.close()


@pytest.mark.parametrize("name", ["start", "socket", "log", "users"])
def test_a_pipe_is_not_waited_for(used: Path, name: str) -> None:
    (used / name).unlink(missing_ok=True)
    os.mkfifo(used / name)

    with pytest.raises(StorageRefused, match=r"neither a file nor a folder|something else"):
        EmbeddedServer.open(used)


@pytest.mark.parametrize("name", ["users", "socket", "appendonlydir", "appendonlydir/appendonly.aof.manifest", "any"])
def test_a_file_that_others_may_write_to_is_refused(used: Path, name: str) -> None:
    if not (used / name).exists():
        (used / name).touch()
    (used / name).chmod(0o777)

    with pytest.raises(StorageRefused, match=f"'{name}' in it can be written by other users|'{name}/.*' in it"):
        EmbeddedServer.open(used)


@AS_ROOT
@pytest.mark.parametrize("name", ["users", "socket", "appendonlydir", "appendonlydir/appendonly.aof.manifest", "any"])
def test_a_file_of_another_user_is_refused(used: Path, name: str) -> None:
    if not (used / name).exists():
        (used / name).touch()
    os.chown(used / name, NOBODY, NOBODY)

    with pytest.raises(StorageRefused, match=f"'{name}' in it belongs to another user"):
        EmbeddedServer.open(used)


@pytest.mark.parametrize("name", ["socket", "log", "pid"])
def test_nothing_is_written_into_a_file_that_has_a_second_name(used: Path, victim: Path, name: str) -> None:
    (used / name).unlink(missing_ok=True)
    (used / name).hardlink_to(victim)

    EmbeddedServer.open(used).close()

    assert victim.read_text() == "precious"


def test_everything_is_for_this_user_alone_whatever_the_mask(directory: Path) -> None:
    before = os.umask(0)
    try:
        server = EmbeddedServer.open(directory)
    finally:
        os.umask(before)
    folder = Path(server.socket).parent
    modes = {
        path: path.lstat().st_mode & 0o077 for path in [directory, *directory.rglob("*"), folder, *folder.iterdir()]
    }
    server.close()

    assert {path for path, mode in modes.items() if mode} == set()
    assert {"log", "pid", "socket", "start", "users", "server", "guard"} <= {path.name for path in modes}


def test_a_copy_that_others_could_read_is_closed_to_them(used: Path) -> None:
    """Who can open a file can hold a lock of it, and whoever waits for that lock waits for them."""
    for file in used.iterdir():
        file.chmod(0o755 if file.is_dir() else 0o644)

    server = EmbeddedServer.open(used)

    assert {
        name for name in ("start", "users", "server", "guard", "log", "socket") if mode(used / name) != 0o600
    } == set()
    server.close()


# -------------------------------------------------------------------------------------------------- where it listens


def notes(tmp_path: Path, victim: Path) -> dict[str, str]:
    """What a note may hold that was not written by a server's starter."""
    open_to_others = tmp_path / "jobqueue-12345678"
    open_to_others.mkdir()
    open_to_others.chmod(0o755)
    (open_to_others / "socket").write_text("x")
    private = tmp_path / "jobqueue-87654321"
    private.mkdir(mode=0o700)
    (private / "other").write_text("x")
    unusual = tmp_path / "private"
    unusual.mkdir(mode=0o700)
    (unusual / "socket").write_text("x")
    (tmp_path / "jobqueue-link").symlink_to(private)
    return {
        "a file": str(victim),
        "open to others": str(open_to_others / "socket"),
        "another name": str(private / "other"),
        "a folder of another name": str(unusual / "socket"),
        "a link": str(tmp_path / "jobqueue-link" / "socket"),
        "relative": os.path.relpath(private / "socket"),
        "nul": f"{private}\0/socket",
        "no folder": str(tmp_path / "jobqueue-missing1" / "socket"),
        "long": "/" + "x" * 100_000,
        "empty": "",
    }


def test_a_note_is_believed_only_if_a_starter_can_have_written_it(used: Path, tmp_path: Path, victim: Path) -> None:
    """Nothing is removed, connected to or bound because a file names it."""
    for note in notes(tmp_path, victim).values():
        before = {path: everything(path) for path in tmp_path.glob("[jp]*")}
        (used / "socket").write_text(note)
        (used / "socket").chmod(0o600)

        server = EmbeddedServer.open(used)
        assert server.socket != note
        assert ask(server.socket, "PING")
        (used / "socket").write_text(note)
        server.close()

        assert victim.read_text() == "precious"
        assert {path: everything(path) for path in tmp_path.glob("[jp]*")} == before
    assert is_our_socket(str(tmp_path / "jobqueue-87654321" / "socket"))


def test_the_guard_removes_nothing_that_a_note_names(directory: Path, victim: Path) -> None:
    user = User(directory)
    socket = user.line()
    (directory / "socket").write_text(str(victim))
    user.kill()

    wait_until_ended(directory)
    wait_until_ended(directory, "guard")

    assert victim.read_text() == "precious"
    assert not Path(socket).parent.exists()


def test_a_folder_of_a_socket_that_was_opened_to_others_is_talked_to_no_more(directory: Path) -> None:
    server = EmbeddedServer.open(directory)
    Path(server.socket).parent.chmod(0o777)

    with pytest.raises(Exception, match="names no private folder of this user"):
        server.located()

    Path(server.socket).parent.chmod(0o700)
    assert server.located() == server.socket
    server.close()


def test_no_socket_is_made_where_others_could_replace_its_folder(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))

    with pytest.raises(StorageRefused, match="shared can be written by other users"):
        EmbeddedServer.open(directory)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_server_of_another_user_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp())
    path = str(folder / "socket")
    with sockets.socket(sockets.AF_UNIX) as listening:
        listening.bind(path)
        listening.settimeout(10)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
            try:
                listening.listen()
            finally:
                os.seteuid(0)
        else:
            listening.listen()
            monkeypatch.setattr("jobqueue.embedded_place.os.geteuid", lambda: os.getuid() + 1)

        assert state_of(path, timeout=1) == "silent"

        met, _ = listening.accept()
        with met:
            assert met.recv(100) == b"", "something was said"
    shutil.rmtree(folder)


@AS_ROOT
def test_another_users_own_server_gets_no_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    """All that another user can prepare: a folder for us, with the note of a private folder and a server that listens."""
    shared = Path(tempfile.mkdtemp())
    shared.chmod(0o1777)
    theirs, place = shared / "data", shared / "jobqueue-12345678"
    with sockets.socket(sockets.AF_UNIX) as listening:
        os.seteuid(NOBODY)
        try:
            for folder in (theirs, place):
                folder.mkdir(mode=0o700)
            listening.bind(str(place / "socket"))
            listening.listen()
            for name in ("start", "users", "server", "guard", "pid", "log"):
                (theirs / name).touch(mode=0o600)
            (theirs / "socket").write_text(str(place / "socket"))
        finally:
            os.seteuid(0)

        refused(theirs, "belongs to another user", capsys)

        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
    shutil.rmtree(shared)
