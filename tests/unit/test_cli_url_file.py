"""Where jobs are stored, said in a file or by the environment: what is wrong with it, and never what is in it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Final

import pytest

from jobqueue import JobQueue
from jobqueue.cli import url_file
from jobqueue.cli.app import run
from tests.servers import Server

CANARY: Final = "s3cr3t"
COMMANDS: Final = ("stats", "jobs", "show x", "requeue x", "delete x", "audit", "demo", "run place:jobs")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of one's own."""
    path = tmp_path / "url"
    path.touch(0o600)
    return path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int) -> str:
    """What standard error says, which is one line."""
    assert run(words) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert CANARY not in err
    return err


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \r\n"])
def test_a_command_looks_where_the_file_says(
    server: Server, file: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    with JobQueue(server.url, namespace="filed") as jobs:

        @jobs.job(name="one", queue="told")
        def one() -> None: ...

        one.enqueue()
        file.write_bytes(f"{server.url}{end}".encode())
        assert run(["stats", "--url-file", str(file), "--namespace", "filed"]) == 0
    out, err = capsys.readouterr()
    assert "told" in out
    assert err == "", "nobody else can read it"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"redis://:s3cr3t@h/0\nredis://:s3cr3t@h/0\n", "it holds more than one line"),
        (b"redis://:s3cr3t\xff@h/0", "it is not UTF-8"),
        (b"redis://:s3cr3t@h/0" * 10_000, "it is longer than 65,536 bytes"),
        (b"redis://:s3cr3t/@h/0", "the redis:// URL has a character in its user or password"),
        (b"'redis://:s3cr3t@h/0'\n", "the URL stands in quotes"),
        (b'\n"redis://:s3cr3t@h/0"', "the URL stands in quotes"),
        (b"JOBQUEUE_URL=redis://:s3cr3t@h/0", "it gives the URL a name"),
        (b"export URL = redis://:s3cr3t@h/0", "it gives the URL a name"),
        (b"\xef\xbb\xbfredis://:s3cr3t@h/0", "it begins with a byte order mark (BOM)"),
        (b"s3cr3t", "no storage is known for a URL: "),
        (b"\0s3cr3t", "no storage is known for a URL: "),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_wrong_with_the_file_is_one_line_without_what_it_holds(
    file: Path, capsys: pytest.CaptureFixture[str], command: str, content: bytes, wrong: str
) -> None:
    file.write_bytes(content)
    line = told(capsys, *command.split(), "--url-file", str(file), code=2)
    assert line.startswith(f"jobqueue: --url-file {file}: {wrong}")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, wrong in [("gone", "No such file"), (".", "Is a directory"), ("a\0b", "embedded null byte")]:
        line = told(capsys, "stats", "--url-file", f"{tmp_path}/{name}", code=2)
        assert wrong in line
        assert "cannot be read" in line
    assert "without end" not in told(capsys, "stats", "--url-file", "/dev/zero", code=2)


def test_one_url_is_enough(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--url", "unix:///x", "--url-file", str(file)]) == 2
    assert "--url and --url-file say the same thing: give one of them" in capsys.readouterr().err


def test_a_pipe_is_read_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell makes one of ``--url-file <(…)``."""
    hear, say = os.pipe()

    def write() -> None:
        with os.fdopen(say, "wb") as pipe:
            pipe.write(f"{server.url}\n".encode())

    writer = threading.Thread(target=write)
    writer.start()
    assert run(["stats", "--url-file", f"/dev/fd/{hear}"]) == 0
    writer.join()
    os.close(hear)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("owner", "mode", "warning"),
    [
        ("own", 0o600, ""),
        ("own", 0o400, ""),
        ("own", 0o640, "other users"),
        ("own", 0o604, "other users"),
        ("own", 0o602, "other users"),
        ("root", 0o640, ""),
        ("root", 0o644, "other users"),
        ("root", 0o660, "other users"),
        ("somebody", 0o600, "belongs to another user"),
    ],
)
def test_a_file_that_others_can_read_or_change_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, owner: str, mode: int, warning: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    user = {"own": 1000, "root": 0, "somebody": 1001}[owner]
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, user, 1000, 1, 0, 0, 0))
    found = url_file._exposed(status)
    assert (warning in found, bool(found)) == (True, bool(warning))


def test_the_warning_is_one_line_and_the_command_goes_on(
    server: Server, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(server.url)
    file.chmod(0o644)
    line = told(capsys, "stats", "--url-file", str(file), code=0)
    assert line == (
        f"jobqueue: --url-file {file} can be read or changed by other users, and may hold a password: chmod 600\n"
    )


def test_a_wrong_variable_of_the_environment_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBQUEUE_URL", "unix:///nowhere")
    monkeypatch.setenv("JOBQUEUE_NAMESPACE", "a b")
    assert told(capsys, "stats", code=2).startswith("jobqueue: the environment's JOBQUEUE_NAMESPACE: 'a b' is ")
    monkeypatch.delenv("JOBQUEUE_NAMESPACE")
    monkeypatch.setenv("JOBQUEUE_URL", "redis://:s3cr3t/@h")
    assert told(capsys, "stats", code=2).startswith("jobqueue: the environment's JOBQUEUE_URL: the redis:// URL has a ")
