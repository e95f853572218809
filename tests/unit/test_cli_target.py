"""What the commands that look are told to look at, and what they show of jobs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from jobqueue import JobQueue, transitions
from jobqueue.cli.app import run
from jobqueue.keys import queue_keys
from jobqueue.record import parse_claim
from jobqueue.storage.ops import Applied
from tests.servers import Server

MODULE: Final = """
from jobqueue import JobQueue
jobs = JobQueue({url!r}, namespace="shop")
@jobs.job(name="send", retry=4)
def send(to: str, text: str = "") -> None: ...
"""
TARGET: Final = "shopwork:jobs"
HOSTILE: Final = "\x1b\x9b\u202e\x07\r\x7f"


@pytest.fixture
def jobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    """The queue of the module ``shopwork`` in the current directory."""
    (tmp_path / "shopwork.py").write_text(MODULE.format(url=server.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.delenv("JOBQUEUE_URL", raising=False)
    with JobQueue(server.url, namespace="shop") as queue:

        @queue.job(name="send", retry=4)
        def send(to: str, text: str = "") -> None: ...

        yield queue
    sys.modules.pop("shopwork", None)


def send(jobs: JobQueue, to: str = "a", text: str = "", **options: Any) -> Any:
    kind = jobs.registry.get("send")
    assert kind is not None
    from jobqueue import Call

    return jobs.enqueue(Call(kind, {"to": to, "text": text}).opts(**options))


def hold(jobs: JobQueue, runner: bytes = b"5e7" * 10) -> None:
    """Claim the first job as a runner."""
    now = jobs.access.clock().now()
    batch = transitions.claim(queue_keys("shop", "low"), runner, 1, limit=1, now=now, lease=30_000, beat=5_000)
    [outcome] = jobs.access.opened().storage().apply([batch])
    assert isinstance(outcome, Applied)


def out_of(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(words) == code
    out, err = capsys.readouterr()
    assert (err == "") is (code == 0)
    return out or err


WORDS: Final = {"stats": 0, "jobs": 0, "audit": 0, "show": 1, "requeue": 1, "delete": 1}
"""The commands that look, and how many ids each takes."""


@pytest.mark.parametrize("command", WORDS)
def test_a_target_says_the_same_as_url_and_namespace(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def answer(*words: str) -> Any:
        server.flush()
        jobs.close()
        record = send(jobs, delay=60)
        before, after = [word for word in words if word == TARGET], [word for word in words if word != TARGET]
        text = out_of(capsys, command, *before, *[record.id] * WORDS[command], *after, "--json")
        return json.loads(re.sub(r'"[0-9T:.+-]{20,}"', '"TIME"', text.replace(record.id, "ID")))

    expected = answer("--url", server.url, "--namespace", "shop")
    assert expected == answer(TARGET)
    monkeypatch.setenv("JOBQUEUE_NAMESPACE", "elsewhere")
    assert expected == answer(TARGET), "a runner of this target would not look elsewhere either"
    monkeypatch.setenv("JOBQUEUE_NAMESPACE", "shop")
    assert expected == answer("--url", server.url)
    monkeypatch.setenv("JOBQUEUE_URL", server.url)
    assert expected == answer()
    if not WORDS[command]:
        assert expected != answer(TARGET, "--namespace", "other")


def test_an_id_with_a_colon_is_one_behind_a_target(jobs: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    """As another program may have made one."""
    assert "no job a:b is stored in namespace shop" in out_of(capsys, "show", TARGET, "a:b", code=1)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["show", TARGET], f"the ID of a job is missing behind {TARGET}", 2),
        (["show", "x", "y"], "one ID at a time; a TARGET in front of it is module:attribute, not 'x'", 2),
        (["stats", "shopwork"], "TARGET is module:attribute, as in shop.work:jobs, not 'shopwork'", 2),
        (["stats", "shopwork:send"], "shopwork:send is no JobQueue but JobFunction; its JobQueues are: jobs", 2),
        (["jobs", "shopwerk:jobs"], "there is no module 'shopwerk'", 2),
        (["jobs", "shopwerk:jobs"], "; did you mean 'shopwork'? Else run from the project's directory", 2),
        (
            ["stats"],
            "name a TARGET, as in shop.work:jobs, or --url, or --url-file, or set the environment's JOBQUEUE_URL",
            2,
        ),
        (["jobs", TARGET, "--app-dir", "/proc"], "there is no module 'shopwork'", 2),
        (["stats", TARGET, "--namespace", "a:b"], "'a:b' is no name of a namespace", 2),
        (["show", TARGET, "\udcff"], "no job \\xff is stored", 1),
        (["jobs", TARGET, "--after", "\udcff"], "no job \\xff to continue behind", 1),
        (["jobs", TARGET, "--after", "x"], "no job x to continue behind", 1),
    ],
    ids=str,
)
def test_what_cannot_be_is_said(
    jobs: JobQueue, capsys: pytest.CaptureFixture[str], words: list[str], said: str, code: int
) -> None:  # fmt: skip
    error = out_of(capsys, *words, code=code)
    assert said in error.splitlines()[-1]


# ------------------------------------------------------------------------------------------------------------ namespaces


def test_stats_of_nothing_say_where_something_is(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBQUEUE_URL", server.url)
    send(jobs)
    with JobQueue(server.url, namespace="bank") as other:
        other.counts()  # a namespace that somebody looked into is not one with jobs

    with server.client() as client:
        client.hset("{\x1b[2J:x}:records", "a", "b")
        client.set("{shop:low}:cache", "not ours")

    out = out_of(capsys, "stats", "--namespace", "shpo")
    assert "no queue was ever used here; namespaces with queues on this server: shop\n" in out
    assert json.loads(out_of(capsys, "stats", "--namespace", "shpo", "--json"))["namespaces"] == ["shop"]
    assert "namespaces" not in json.loads(out_of(capsys, "stats", "--namespace", "shop", "--json"))


def test_stats_of_an_empty_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no queue was ever used here\n" in out_of(capsys, "stats", "--url", server.url)


# ------------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "environment", [{}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "60"}]
)
def test_arguments_are_shown_and_obeyed_by_no_terminal(
    jobs: JobQueue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    send(jobs, HOSTILE, "x" * 1_000)
    send(jobs, "é" * 1_000)
    out = out_of(capsys, "jobs", TARGET)
    plain = re.sub(r"\x1b\[[01]m", "", out)  # rich writes headings in bold
    assert not set(HOSTILE) & set(plain)
    assert len([line for line in plain.splitlines() if " low " in line]) == 2
    if not environment:
        assert r'{"to":"\u001b\x9b\u202e' in plain
        assert f'{{"to":"{"é" * 32}…' in plain


def test_arguments_can_be_left_out(jobs: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    send(jobs, "secret")
    for words in (["--no-arguments"], ["--no-arguments", "--json"]):
        assert "secret" not in out_of(capsys, "jobs", TARGET, *words)
    assert "arguments" not in out_of(capsys, "jobs", TARGET, "--no-arguments")
    assert json.loads(out_of(capsys, "jobs", TARGET, "--json"))["jobs"][0]["arguments"] == {"to": "secret", "text": ""}


# --------------------------------------------------------------------------------------------------------------- working


def test_what_runs_is_shown_with_its_runner_and_its_start(jobs: JobQueue, capsys: pytest.CaptureFixture[str]) -> None:
    record = send(jobs)
    send(jobs)
    hold(jobs)
    held = jobs.get(record)
    assert held is not None
    assert held.runner == "5e7" * 10
    assert abs(held.score - held.fence - 30_000) < 100

    out = out_of(capsys, "jobs", TARGET, "--place", "working")
    assert "started" in out
    [line] = [line for line in out.splitlines() if record.id in line]
    assert " 5e75e75e (silent) " in line
    [value] = json.loads(out_of(capsys, "jobs", TARGET, "--place", "working", "--json"))["jobs"]
    assert value["runner"] == "5e7" * 10
    assert timedelta() <= datetime.fromisoformat(value["started"]) - held.created < timedelta(minutes=1)
    shown = out_of(capsys, "show", TARGET, record.id)
    assert re.search(rf"runner +{held.runner}\n", re.sub(r" +\n", "\n", shown))
    assert "started" in shown


def test_a_claim_that_somebody_else_wrote_is_shown_harmlessly(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    record = send(jobs)
    hold(jobs)
    with server.client() as client:
        client.hset("{shop:low}:claims", record.id, b"\xff\x1b[2J")
    assert parse_claim(b"\xff\x1b[2J")[1] == 0
    for words in (["jobs", TARGET, "--place", "working"], ["show", TARGET, record.id]):
        out = out_of(capsys, *words)
        assert "\x1b" not in out
        assert r"\xff" in out


# ------------------------------------------------------------------------------------------------- imports of a runner


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package ``importshop`` in the current directory, with queues whose imports go wrong."""
    folder = tmp_path / "importshop"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "mail": "",
        "typo": "from jobqueue import JobQueue\njobs = JobQueue('memory://', imports=['importshop.mial'])",
        "file": "from jobqueue import JobQueue\njobs = JobQueue('memory://', imports=['importshop/mail.py'])",
        "inside": "from importshop.mail import nothing",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] in ("importshop", "inside")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["importshop.typo:jobs"], "imports= of importshop.typo:jobs: there is no module 'importshop.mial' below "),
        (["importshop.typo:jobs"], "; did you mean 'importshop.mail'? Else run from the project's directory"),
        (["importshop.file:jobs"], "imports= of importshop.file:jobs names a module, as in shop.mail, not 'importshop/"),
        (["inside:jobs", "--app-dir", "importshop"], "'importshop' is the folder that modules are looked for in: name"),
        (["inside:jobs", "--app-dir", "importshop"], "and the module as importshop.inside"),
    ],
)  # fmt: skip
def test_what_a_runner_cannot_import_is_told(
    package: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(["run", *words]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_file_in_place_of_a_module_to_import_is_told(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (package / "plain.py").write_text("from jobqueue import JobQueue\njobs = JobQueue('memory://')")
    assert run(["run", "importshop.plain:jobs", "--import", "importshop/mail.py"]) == 2
    assert "--import names a module, as in shop.mail, not 'importshop/mail.py'" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------- spoiled and narrow


@pytest.mark.parametrize("command", ["jobs", "audit"])
def test_a_spoiled_queue_is_named_and_hides_no_other(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    send(jobs, queue="high")
    good = send(jobs)
    with server.client() as client:
        client.set("{shop:high}:waiting", "not ours")

    assert run([command, TARGET]) == 3
    out, err = capsys.readouterr()
    assert (good.id if command == "jobs" else "1 job") in out or "looked at" in out
    assert err.startswith("jobqueue: queue high: ")
    assert err.count("\n") == 1
    assert run([command, TARGET, "--json"]) == 3
    assert [*json.loads(capsys.readouterr().out)["refused"]] == ["high"]
    assert run([command, TARGET, "--queue", "high"]) == 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("place", [None, "waiting"])
def test_a_narrow_terminal_shows_kinds_times_and_errors(
    jobs: JobQueue, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    send(jobs, text="secret", delay=7_201)
    monkeypatch.setenv("FORCE_COLOR", "1")
    words = () if place is None else ("--place", place)
    for columns, shown in [(80, " 2 h "), (120, " 2 h "), (140, "20")]:
        monkeypatch.setenv("COLUMNS", str(columns))
        out = re.sub(r"\x1b\[[0-9;]*m", "", out_of(capsys, "jobs", TARGET, *words))
        [row] = [line for line in out.splitlines() if " send " in line]
        assert shown in row
        assert ("0/5" in row) is (columns >= 100)
        assert ("secret" in row) is (columns == 140)
        assert ("waiting" in row) is (columns == 140 or place is None)
        assert "…" not in row.partition("secret")[0]
