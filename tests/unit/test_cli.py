"""The commands that look and operate, on real servers; and what the program does without its extra."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from jobqueue import JobQueue, JobRecord
from jobqueue.cli.app import cli, run
from tests.servers import Server

Cli = Callable[..., int]


@pytest.fixture
def queue(server: Server) -> Iterator[JobQueue]:
    """A queue in the namespace ``shop`` with the kind ``send``."""
    with JobQueue(server.url, namespace="shop") as jobs:

        @jobs.job(name="send", retry=4)
        def send(to: str) -> None: ...

        yield jobs


def send(jobs: JobQueue, to: str, **options: Any) -> JobRecord[Any]:
    kind = jobs.registry.get("send")
    assert kind is not None
    return jobs.enqueue(_call(jobs, to).opts(**options))


def _call(jobs: JobQueue, to: str) -> Any:
    from jobqueue import Call

    kind = jobs.registry.get("send")
    assert kind is not None
    return Call(kind, {"to": to})


@pytest.fixture
def call(server: Server, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command on the server's namespace ``shop``; answers the exit code."""
    monkeypatch.setenv("JOBQUEUE_URL", server.url)
    return lambda *arguments: run([*arguments, "--namespace", "shop"])


def output_of(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


# -------------------------------------------------------------------------------------------------------------- stats


def test_stats(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    for to in "abc":
        send(queue, to)
    send(queue, "d", delay=60, queue="high")

    assert call("stats", "--json") == 0

    value = output_of(capsys)
    assert value["queues"] == {
        "high": {"waiting": 1, "ready": 0, "working": 0, "dead": 0},
        "low": {"waiting": 0, "ready": 3, "working": 0, "dead": 0},
    }
    assert (value["namespace"], value["runners"]) == ("shop", [])

    assert call("stats") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["high", "1", "0", "0", "0", "0"] in rows
    assert ["low", "0", "3", "0", "0", "0"] in rows
    assert ["no", "runner", "is", "alive"] in rows


def test_stats_of_nothing(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("stats") == 0
    assert "no queue was ever used here" in capsys.readouterr().out


def test_in_a_narrow_terminal_every_job_has_one_line(
    queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {send(queue, "a", delay=60).id, send(queue, "b").id}
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")

    assert call("jobs") == 0

    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if "low" in line} == ids
    assert max(map(len, lines[3:])) <= 80
    assert len([line for line in lines if line.strip()]) == 4, "headings, a rule, and two jobs"


# --------------------------------------------------------------------------------------------------------------- jobs


def test_jobs_come_in_pages(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [send(queue, str(number)).id for number in range(5)]
    seen: list[str] = []
    after: list[str] = []
    pages = 0
    while True:
        assert call("jobs", "--limit", "2", "--json", *after) == 0
        value = output_of(capsys)
        pages += 1
        seen += [job["id"] for job in value["jobs"]]
        if value["next"] is None:
            break
        after = ["--after", value["next"]]
    assert seen == ids
    assert pages == 3

    assert call("jobs", "--limit", "2") == 0
    out = capsys.readouterr().out
    assert ids[1] in out
    assert ids[2] not in out
    assert f"more: --after low/ready/0/{ids[1]}" in out


def test_a_full_last_page_promises_no_more(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    send(queue, "a")
    send(queue, "b")
    assert call("jobs", "--limit", "2") == 0
    assert "more:" not in capsys.readouterr().out


def test_jobs_are_filtered(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    low, late, high = send(queue, "a"), send(queue, "b", delay=60), send(queue, "c", queue="high")
    for options, expected in [
        (["--queue", "high"], [high]),
        (["--place", "waiting"], [late]),
        (["--queue", "low", "--place", "ready"], [low]),
        (["--name", "send"], [high, low, late]),
        (["--name", "other"], []),
    ]:
        assert call("jobs", "--json", *options) == 0
        assert [job["id"] for job in output_of(capsys)["jobs"]] == [record.id for record in expected]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--name", "sned"], "jobqueue: no kind 'sned' is among the jobs here; did you mean 'send'?\n"),
        (["--queue", "lwo"], "jobqueue: no queue 'lwo' was ever used here; did you mean 'low'?\n"),
        (["--name", "send", "--place", "dead"], ""),
        (["--queue", "low", "--place", "dead"], ""),
    ],
)
def test_where_there_are_no_such_jobs_it_is_said_what_may_be_meant(
    options: list[str], why: str, queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    send(queue, "a")
    assert call("jobs", *options) == 0
    assert capsys.readouterr() == ("no such jobs\n", why)


# --------------------------------------------------------------------------------------------------------------- show


def test_show_tells_everything(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    record = send(queue, "Zoë")
    assert call("show", record.id, "--json") == 0
    value = output_of(capsys)
    assert value == {
        "id": record.id,
        "name": "send",
        "queue": "low",
        "place": "ready",
        "attempt": 0,
        "retry": 4,
        "recoveries": 0,
        "fence": 0,
        "runner": None,
        "started": None,
        "created": record.created.isoformat(timespec="milliseconds"),
        "due": record.due.isoformat(timespec="milliseconds"),
        "died": None,
        "error": None,
        "parked_since": None,
        "arguments": {"to": "Zoë"},
    }

    assert call("show", record.id) == 0
    out = capsys.readouterr().out
    assert '"to": "Zoë"' in out
    assert "0 of 5" in out


@pytest.mark.parametrize("command", ["show", "requeue", "delete"])
def test_a_job_that_is_not_there(
    command: str, queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert call(command, "no\x1b[2J-such") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert r"no\x1b[2J-such" in err


def test_the_page_behind_a_job_that_is_not_there(queue: JobQueue, call: Cli) -> None:
    send(queue, "a")
    assert call("jobs", "--after", "nobody") == 1


HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e\r\n[red]x[/red]"


def test_what_is_stored_cannot_command_the_terminal(
    queue: JobQueue, call: Cli, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, arguments and errors as a foreign writer, or a failing job, may leave them."""
    from jobqueue.record import NONCE_SIZE, rewrite

    record = send(queue, HOSTILE)
    with server.client() as client:
        [key] = [key for key in client.scan_iter() if key.endswith(b":records")]
        [(field, stored)] = client.hgetall(key).items()
        assert isinstance(stored, bytes)
        client.hset(key, field, rewrite(stored, name=f"name{HOSTILE}", error=f"error{HOSTILE}"))
        client.hset(key, b"raw", b"\0" * NONCE_SIZE + HOSTILE.encode())
        client.rpush(key.replace(b":records", b":ready"), b"raw")
    for command in (["stats"], ["jobs"], ["show", record.id], ["show", "raw"], ["delete", record.id, "raw"]):
        for more in ([], ["--json"]):
            call(*command, *more)
            out, err = capsys.readouterr()
            assert all(line.isprintable() for line in (out + err).split("\n")), (command, more)
            if command == ["show", record.id]:
                assert "[red]x[/red]" in out  # as text: nothing is markup


# ---------------------------------------------------------------------------------------------------------- operating


def test_requeue_makes_a_waiting_job_ready(queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    record = send(queue, "a", delay=3600)
    assert call("requeue", record.id) == 0
    assert capsys.readouterr().out == f"requeued {record.id} (send, queue low)\n"
    assert queue.length("low") == 1


def test_delete_goes_on_behind_one_that_is_not_there(
    queue: JobQueue, call: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = send(queue, "a"), send(queue, "b", delay=60)
    assert call("delete", first.id, "nobody", last.id, last.id, "--json") == 1
    out, err = capsys.readouterr()
    value = json.loads(out)
    assert [job["id"] for job in value["deleted"]] == [first.id, last.id]
    assert value["deleted"][1]["arguments"] == {"to": "b"}
    assert [job["id"] for job in value["failed"]] == ["nobody"]
    assert "nobody" in err
    assert queue.find() == []


def test_a_job_that_is_being_run_is_left_alone(
    queue: JobQueue, call: Cli, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The place is what counts, so a job put there by hand will do."""
    record = send(queue, "a")
    with server.client() as client:
        [ready] = [key for key in client.scan_iter() if key.endswith(b":ready")]
        client.rename(ready, b"aside")
        client.zadd(ready.replace(b":ready", b":working"), {record.id.encode(): 1})
    assert call("delete", record.id, "nobody") == 3
    assert call("requeue", record.id) == 3
    assert "being run" in capsys.readouterr().err
    found = queue.get(record.id)
    assert found is not None
    assert found.place == "working"


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["stats", "--url", "unix:///nowhere/socket"], 3, "/nowhere/socket"),
        (["stats", "--url", "gopher://x"], 2, "no storage is known for a URL that begins with 'gopher'"),
        (["stats", "--url", "memory://"], 2, "memory://"),
        (["stats", "--url", "unix:///x", "--namespace", "a b"], 2, "no name of a namespace"),
        (["stats"], 2, "JOBQUEUE_URL"),
        (["stats", "--nonsense"], 2, "--nonsense"),
        (["nonsense"], 2, "nonsense"),
        (["jobs", "--limit", "0"], 2, "--limit"),
        (["jobs", "--place", "nowhere"], 2, "--place"),
        (["requeue"], 2, "ID..."),
        (["run"], 2, "TARGET"),
        (["run", "no_colon"], 2, "module:attribute"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--lease", "nan"], 2, "lease"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--lease", "0.1"], 2, "too short"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--grace", "-1"], 2, "negative"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--queues", "high=0"], 2, "weight of queue 'high'"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--import", "no_such_module"], 2, "no_such_module"),
        (["run", "jobqueue.cli.demo.jobs:jobs", "--app-dir", "/nowhere/at/all"], 2, "--app-dir"),
    ],
)
def test_errors_are_words_on_standard_error_and_an_exit_code(
    arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JOBQUEUE_URL", raising=False)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("jobqueue.cli.logs.set_up_logging", lambda *_, **__: None)

    assert run(arguments) == code

    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_an_audit_finds_and_mends(
    queue: JobQueue, call: Cli, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, lost = send(queue, "a", delay=60), send(queue, "b")
    assert call("audit") == 0
    assert capsys.readouterr().out == "2 jobs looked at, 0 broken, 0 mended\n"
    client = server.client()
    client.delete("{shop:low}:ready")
    client.close()

    assert call("audit", "--queue", "low") == 1
    assert f"{lost.id} low send no place no" in " ".join(capsys.readouterr().out.split())
    assert call("audit", "--json", "--mend") == 0
    assert output_of(capsys) == {
        "looked": 2,
        "broken": 1,
        "mended": 1,
        "findings": [
            {"id": lost.id, "queue": "low", "name": "send", "broken": "no place", "places": [], "mended": True}
        ],
    }
    assert call("audit") == 0
    capsys.readouterr()
    assert call("show", lost.id, "--json") == 0
    shown = output_of(capsys)
    assert (shown["place"], shown["arguments"]) == ("dead", {"to": "b"})
    assert shown["created"] <= shown["died"]
    assert "in no place" in shown["error"]
    assert call("requeue", lost.id) == 0
    assert queue.get(whole.id) is not None


def test_a_long_audit_says_how_far_it_is(
    queue: JobQueue, call: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobqueue.cli.audit.STEP", 2)
    for to in "abc":
        send(queue, to)

    assert call("audit", "--json") == 0
    out, err = capsys.readouterr()
    assert err == "looked at 3 jobs\n"
    assert json.loads(out)["looked"] == 3


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(JobQueue, "_find", interrupted)
    assert run(["jobs", "--url", "unix:///nowhere"]) == 130
    assert capsys.readouterr().err.strip() == "jobqueue: interrupted"


def test_every_command_takes_the_common_options() -> None:
    """As the reference of the command line says."""
    names = set(cli.commands)
    assert names == {"run", "stats", "jobs", "show", "requeue", "delete", "audit", "demo"}
    for command in cli.commands.values():
        options = {name for parameter in command.params for name in parameter.opts}
        assert {"--json", "--url", "--url-file", "--namespace"} <= options, command.name
        assert command.get_short_help_str()
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, (command.name, parameter.name)


def test_help_says_what_the_exit_codes_mean() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    assert "Exit codes: 0 done; 1 a job was not found" in result.output


# ---------------------------------------------------------------------------------------------------------- processes


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    ended = python(f"import sys; sys.modules[{missing!r}] = None\nfrom jobqueue.__main__ import main\nmain()")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == 'jobqueue: the command line needs two more packages: pip install "jobqueue-py[cli]"\n'


def test_help_imports_neither_client_nor_rich() -> None:
    ended = python(
        "import sys\nfrom jobqueue.cli.app import run\n"
        "assert run(['--help']) == 0 and run(['demo', '--help']) == 0\n"
        "print([name for name in ('redis', 'rich') if name in sys.modules])"
    )
    assert ended.stdout.endswith("[]\n"), ended


def test_python_m_runs_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "jobqueue", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.startswith("jobqueue, version ")


def test_a_reader_that_has_seen_enough_is_no_error(queue: JobQueue, server: Server) -> None:
    """``jobqueue jobs | head -1``: standard output is closed before anything is written."""
    send(queue, "a" * 100_000)
    for command in (["jobs"], ["jobs", "--json"], ["show", queue.find()[0].id]):
        process = subprocess.Popen(
            [sys.executable, "-m", "jobqueue", *command, "--url", server.url, "--namespace", "shop"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""
        assert process.wait(30) == 1, "nobody was there to read it: quiet, but no success"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_is_one_line(queue: JobQueue, server: Server) -> None:
    send(queue, "a")
    for command in (["stats"], ["jobs", "--json"]):
        words = [sys.executable, "-m", "jobqueue", *command, "--url", server.url, "--namespace", "shop"]
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (
            1, "jobqueue: what it prints could not be written: No space left on device\n"
        )  # fmt: skip


def test_an_id_that_looks_like_a_target_is_named_by_its_text_form(
    queue: JobQueue, call: Cli, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    record = send(queue, "a")
    with server.client() as client:
        client.hset("{shop:low}:records", "a:b", client.hget("{shop:low}:records", record.id) or "")
        client.zadd("{shop:low}:dead", {"a:b": 5})
    assert call("show", "a:b") == 2
    assert "write \\x3a for the colon" in capsys.readouterr().err
    assert call("show", "a\\x3ab", "--json") == 0
    assert output_of(capsys)["id"] == "a:b"
    assert call("delete", "a\\x3ab") == 0
