"""The demo: that its numbers are right, that it would say so if they were not, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import msgspec
import pytest

from jobqueue import JobQueue
from jobqueue.cli.app import run
from jobqueue.cli.demo import command
from jobqueue.cli.demo.files import Count, count, find_files, plain_loop
from jobqueue.cli.demo.ledger import Entry, Ledger, Reader
from jobqueue.cli.demo.play import Scene
from jobqueue.cli.demo.verdict import Verdict, judge
from tests.conftest import MakeServer

FILES = 24


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all kinds, and some that cannot be read."""
    place = tmp_path / "tree"
    (place / "sub" / "folder").mkdir(parents=True)
    for number in range(FILES):
        folder = place if number % 2 else place / "sub" / "folder"
        (folder / f"file {number} é").write_bytes(b"some words\n" * number + b"\0 last" * (number % 3))
    (place / "gone").symlink_to("nowhere")
    return place


def demo(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = run(["demo", "--json", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    value = json.loads(out)
    assert isinstance(value, dict)
    return code, value


def test_nothing_is_lost_when_a_runner_is_killed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = demo(capsys, str(tree))

    assert code == 0, value
    assert value["ok"] is True
    assert value["files"] == value["processed"] == FILES + 1
    assert value["lost"] == value["unfinished"] == value["dead"] == 0
    totals = value["totals"]
    assert isinstance(totals, dict)
    assert totals["jobs"] == totals["loop"]
    assert totals["jobs"]["files"] == FILES + 1
    assert totals["jobs"]["unreadable"] == 1
    killed = value["killed"]
    assert isinstance(killed, dict)
    # It was running something when it was killed, so at least that and what had failed was run again.
    assert killed["cut_off"] >= 1
    stumbled = value["failed_at_first"]
    repeated = value["repeated"]
    assert isinstance(stumbled, int)
    assert isinstance(repeated, int)
    assert stumbled >= 3
    assert repeated >= stumbled + killed["cut_off"]
    assert value["exit_codes"] == [0]


# ------------------------------------------------------------------------------------------- what it would say if not


def ledgers(folder: Path) -> list[Path]:
    return sorted(folder.glob("demo-*/ledger/*.jsonl"))


def forget_a_result(folder: Path) -> None:
    for file in ledgers(folder):
        lines = file.read_bytes().splitlines(keepends=True)
        for line in lines:
            entry = msgspec.json.decode(line, type=Entry)
            if entry.what == "counted":
                # Each run of this job, so that it looks as if it had been dropped by the queue.
                for other in ledgers(folder):
                    kept = [
                        one for one in other.read_bytes().splitlines(keepends=True) if entry.job.encode() not in one
                    ]
                    other.write_bytes(b"".join(kept))
                return


def falsify_a_result(folder: Path) -> None:
    for file in ledgers(folder):
        before = file.read_bytes()
        after = re.sub(rb'"words":\d+', b'"words":987654', before, count=1)
        if after != before:
            file.write_bytes(after)
            return


def add_a_result(folder: Path) -> None:
    with ledgers(folder)[0].open("ab") as file:
        file.write(msgspec.json.encode(Entry("somebody", "/x", "counted", 1, Count())) + b"\n")


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (forget_a_result, {"lost": 1, "equal": False, "processed": FILES}),
        (falsify_a_result, {"lost": 0, "equal": False, "processed": FILES + 1}),
        (add_a_result, {"lost": 0, "equal": True}),
    ],
)
def test_a_wrong_ledger_is_noticed(
    tamper: Callable[[Path], None],
    wrong: dict[str, object],
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The files of the ledger are changed between the last job and the comparison."""

    def look(scene: Scene) -> None:
        if not any(state.waiting + state.ready + state.working for state in scene.queues.values()):
            tampered.append(scene)  # the last picture before the comparison
            tamper(tmp_path / "kept")

    tampered: list[Scene] = []
    monkeypatch.setattr(command, "_show_nothing", look)
    before = os.umask(0)
    try:
        code, value = demo(capsys, str(tree), "--dir", str(tmp_path / "kept"))
    finally:
        os.umask(before)
    assert len(tampered) == 1
    assert code == 1
    assert value["ok"] is False
    assert {name: value[name] for name in wrong} == wrong
    made = [path for path in (tmp_path / "kept", *tmp_path.glob("kept/**/*")) if path.lstat().st_mode & 0o077]
    assert made == [], "other users may look into it"


def test_what_cannot_be_played_is_said(tmp_path: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(["demo", str(empty)]) == 2
    assert "no file below" in capsys.readouterr().err
    assert run(["demo", str(tree), "--namespace", "../up"]) == 2
    assert "no name of a namespace" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(["demo", str(tree), "--dir", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    assert run(["demo", str(tree), "--dir", str(tmp_path / "shared" / "below")]) == 2
    assert "shared can be written by other users" in capsys.readouterr().err
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_runner_that_ends_by_itself_is_said(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(scene: Scene) -> None:
        [first, *_] = re.findall(r"runner 1 started as process (\d+)", "\n".join(scene.news))
        os.kill(int(first), signal.SIGKILL)

    monkeypatch.setattr(command, "_show_nothing", look)
    assert run(["demo", str(tree), "--json", "--dir", str(tmp_path / "kept")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["ok"] is False
    assert re.match(r"jobqueue: runner process \d+ ended with exit code -9; the end of runner-1.log:\n", err)


def test_it_plays_on_a_server_of_your_own(
    own_server: MakeServer, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_server()
    assert demo(capsys, str(tree), "--url", server.url, "--namespace", "mine")[0] == 0
    with JobQueue(server.url, namespace="mine") as jobs:
        assert {name: attrs.astuple(counts) for name, counts in jobs.counts().items()} == {
            "high": (0, 0, 0, 0),
            "low": (0, 0, 0, 0),
        }

        @jobs.job
        def own() -> None: ...

        own.enqueue()
        assert run(["demo", str(tree), "--url", server.url, "--namespace", "mine"]) == 2
        assert "needs a namespace without jobs" in capsys.readouterr().err
        assert jobs.length("low") == 1


# ------------------------------------------------------------------------------------------------------------ verdict


RIGHT = Count(1, 2, "abc")


def judged(*entries: Entry, known: tuple[str, ...] = ()) -> Verdict:
    return judge({"a": "/a", "b": "/b"}, known, entries, {"/a": RIGHT, "/b": RIGHT})


def entry(job: str, what: str, value: Count | None = None) -> Entry:
    return msgspec.convert({"job": job, "path": f"/{job}", "what": what, "pid": 1, "count": value}, Entry)


A = entry("a", "started"), entry("a", "counted", RIGHT)
B = entry("b", "started"), entry("b", "counted", RIGHT)


def test_a_verdict_is_good_when_each_job_has_the_right_result() -> None:
    verdict = judged(*A, *B)
    assert verdict.ok
    assert (verdict.runs, verdict.repeated, verdict.counted) == (2, 0, 2)


def test_runs_may_be_repeated_with_the_same_result() -> None:
    verdict = judged(*A, *A, entry("b", "started"), entry("b", "stumbled"), *B)
    assert verdict.ok
    assert (verdict.runs, verdict.repeated, verdict.stumbled, verdict.counted) == (4, 2, 1, 2)


@pytest.mark.parametrize(
    ("verdict", "field"),
    [
        (judged(*A), "lost"),
        (judged(*A, B[0]), "lost"),
        (judged(*A, known=("b",)), "unfinished"),
        (judged(*A, *B, entry("b", "counted", Count(1, 3, "abc"))), "different"),
        (judged(*A, B[0], entry("b", "counted", Count(error="OSError"))), "different"),
        (judged(*A, *B, entry("c", "counted", RIGHT)), "foreign"),
        (judged(*A, *B, Entry("b", "/a", "counted", 1, RIGHT)), "foreign"),
    ],
)
def test_a_verdict_is_bad(verdict: Verdict, field: str) -> None:
    assert not verdict.ok
    assert getattr(verdict, field)
    others = {"lost", "unfinished", "different", "foreign"} - {field}
    assert not any(getattr(verdict, other) for other in others)


# -------------------------------------------------------------------------------------------------- files and ledger


def test_counting_equals_the_simplest_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    texts = [
        b"",
        b"\n",
        b"a",
        b"a b\nc",
        b"  a\x0b b \n\n c",
        b"abc def ghi\n" * 5,
        b"x" * 40,
        b" " * 9,
        b"ab  cd\n ef",
    ]
    for size in (1, 2, 3, 7, 1 << 20):
        monkeypatch.setattr("jobqueue.cli.demo.files.CHUNK", size)
        for text in texts:
            (tmp_path / "file").write_bytes(text)
            expected = Count(
                len(text.split(b"\n")) - (not text or text.endswith(b"\n")),
                len(text.split()),
                hashlib.sha256(text).hexdigest(),
            )
            assert count(str(tmp_path / "file")) == expected, (text, size)


def test_what_cannot_be_read_is_counted_as_that(tmp_path: Path) -> None:
    assert count(str(tmp_path / "nothing")) == Count(error="FileNotFoundError")
    assert count(str(tmp_path)) == Count(error="IsADirectoryError")
    assert plain_loop([str(tmp_path)]) == {str(tmp_path): Count(error="IsADirectoryError")}


def test_found_are_regular_files_with_a_name_of_text(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).touch()
    found = find_files(tree)
    assert found.left_out == 1
    names = {Path(path).name for path in found.paths}
    assert names == {f"file {number} é" for number in range(FILES)} | {"gone"}
    sizes = [Path(path).stat().st_size for path in found.paths if not path.endswith("gone")]
    assert sizes == sorted(sizes)
    assert find_files(tree / "gone").paths == (str(tree / "gone"),)


def test_the_standard_library_is_found_without_what_is_installed() -> None:
    found = find_files(None)
    assert os.__file__ in found.paths
    assert all(path.endswith(".py") for path in found.paths)
    assert not any("-packages" in path for path in found.paths)


def test_a_ledger_is_read_line_by_line(tmp_path: Path) -> None:
    ledger, reader = Ledger(tmp_path), Reader(tmp_path)
    assert reader.new_entries() == []
    ledger.write("a", "/a", "started")
    ledger.write("a", "/a", "counted", RIGHT)
    pid = os.getpid()
    assert reader.new_entries() == [Entry("a", "/a", "started", pid), Entry("a", "/a", "counted", pid, RIGHT)]
    line = msgspec.json.encode(B[1]) + b"\n"
    with (tmp_path / "1.jsonl").open("ab", buffering=0) as file:
        file.write(line[:9])
        assert reader.new_entries() == []
        file.write(line[9:] + b"junk\n")
        with pytest.raises(msgspec.DecodeError):
            reader.new_entries()


# ---------------------------------------------------------------------------------------------------------- processes


@attrs.define
class Playing:
    """A demo on a terminal of its own."""

    process: subprocess.Popen[bytes]
    terminal: int
    temporary: Path
    seen: str = ""

    def read(self) -> bool:
        """Take what it has drawn; False when it has closed its terminal."""
        try:
            data = os.read(self.terminal, 65536)
        except OSError:  # EIO: on Linux nobody has the other end any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def until(self, words: str) -> None:
        while words not in self.seen:
            assert self.read(), self.seen

    def runners(self) -> list[int]:
        return [int(pid) for pid in dict.fromkeys(re.findall(r"runner \d started as process (\d+)", self.seen))]


@pytest.fixture
def play(tree: Path) -> Iterator[Playing]:
    ours, theirs = pty.openpty()
    # Not below pytest's folder, whose name is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="jq-demo-") as temporary:
        # Where the tests run in the background of a shell, SIGINT is ignored, and it would be in the demo as well.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [sys.executable, "-m", "jobqueue", "demo", str(tree)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TMPDIR": temporary, "COLUMNS": "120", "TERM": "xterm"},
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, before)
        os.close(theirs)
        try:
            yield Playing(process, ours, Path(temporary))
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def test_progress_is_drawn_while_it_runs(play: Playing) -> None:
    play.until("killed with SIGKILL")
    for word in ("queue", "waiting", "ready", "working", "done", "dead", "high", "low"):
        assert word in play.seen
    play.until("jobs lost")
    while play.read():
        pass
    assert play.process.wait(30) == 0
    assert re.search(r"files processed.* 25 of 25 ", play.seen)
    assert re.search(r"jobs lost\W.* 0\b", play.seen)
    assert "yes, file by file" in play.seen


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to wait for others' processes")


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], bool]]:
    """A function that waits for the end of a process that somebody else started."""
    file = os.pidfd_open(pid)
    try:
        yield lambda: bool(select.select([file], [], [], 60)[0])
    finally:
        os.close(file)


@needs_pidfd
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_with_all_its_processes(play: Playing, number: int) -> None:
    play.until("killed with SIGKILL")  # and now it waits for the lease to run out
    os.killpg(play.process.pid, signal.SIGSTOP)  # in time, however long this process may be kept from going on
    runners = play.runners()
    assert len(runners) == 2
    [server] = play.temporary.glob("jobqueue-demo-*/server/pid")
    with watched(int(server.read_text())) as server_ends:
        # Ctrl-C reaches the whole group of the terminal, SIGTERM the one process.
        (os.killpg if number == signal.SIGINT else os.kill)(play.process.pid, number)
        os.killpg(play.process.pid, signal.SIGCONT)
        while play.read():
            pass
        assert play.process.wait(30) == 130
        assert server_ends()
    assert "Traceback" not in play.seen
    for pid in runners:  # its children, so there is nobody else to reap them
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert list(play.temporary.glob("jobqueue-demo-*")) == []


@needs_pidfd
def test_killed_it_leaves_no_runner_behind(play: Playing) -> None:
    play.until("killed with SIGKILL")
    dead = int(re.findall(r"process (\d+) was killed", play.seen)[0])
    [living] = [pid for pid in play.runners() if pid != dead]
    [server] = play.temporary.glob("jobqueue-demo-*/server/pid")
    with watched(living) as runner_ends, watched(int(server.read_text())) as server_ends:
        play.process.kill()
        assert runner_ends()
        assert server_ends()
