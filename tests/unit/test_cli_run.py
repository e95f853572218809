"""``jobqueue run`` as a process, on a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from jobqueue import JobQueue
from tests.servers import Server

QUEUE = """
from jobqueue import JobQueue
jobs = JobQueue(namespace="shop")
"""
# What a job does is told on standard output, line by line: the test reads it instead of waiting for some time.
MAIL = r"""
import logging
import sys
import threading
from cli_run_shop.work import jobs

@jobs.job(name="send", retry=0)
def send(to: str) -> None:
    print("sending", to, flush=True)
    logging.getLogger("mail").info("sending", extra={"to": {to}, "size": 7, "level": "low"})
    if to == "nobody":
        raise ValueError("\x1b[31mno such\nperson")
    if to == "for ever":
        threading.Event().wait()
    if to == "until stopped":
        sys.stdin.readline()
        print("sent", to, flush=True)
"""


class Process:
    """``jobqueue run`` with pipes."""

    def __init__(self, shop: Path, server: Server, *options: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "jobqueue", "run", "cli_run_shop.work:jobs", "--threads", "2", *options],
            cwd=shop,
            env={**os.environ, "JOBQUEUE_URL": server.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def out(self) -> IO[str]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; answers the exit code and the whole log."""
        self.popen.send_signal(number)
        _, log = self.popen.communicate("\n", timeout=60)
        return self.popen.returncode, log

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    package = tmp_path / "cli_run_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "work.py").write_text(QUEUE)
    (package / "mail.py").write_text(MAIL)
    return tmp_path


@pytest.fixture
def queue(server: Server, shop: Path) -> Iterator[JobQueue]:
    with JobQueue(server.url, namespace="shop") as jobs:
        yield jobs


def send(jobs: JobQueue, to: str) -> str:
    if jobs.registry.get("send") is None:

        @jobs.job(name="send", retry=0)
        def send(to: str) -> None: ...

    kind = jobs.registry.get("send")
    assert kind is not None
    from jobqueue import Call

    record: Any = jobs.enqueue(Call(kind, {"to": to}))
    return str(record.id)


def test_it_runs_jobs_and_ends_with_0_when_told_to(queue: JobQueue, shop: Path, server: Server) -> None:
    send(queue, "a")
    process = Process(shop, server, "--import", "cli_run_shop.mail")
    try:
        assert process.out.readline() == "sending a\n"
        send(queue, "until stopped")
        assert process.out.readline() == "sending until stopped\n"
        [runner] = queue.runners()
        assert (runner.pid, runner.threads, runner.queues) == (process.popen.pid, 2, {"high": 2, "low": 1})
        code, log = process.end()
    finally:
        process.close()
    assert code == 0
    assert "1 kind: send" in log
    assert queue.find() == []
    assert queue.runners() == []


def test_a_job_that_does_not_end_in_time_is_handed_back(queue: JobQueue, shop: Path, server: Server) -> None:
    id = send(queue, "for ever")
    process = Process(shop, server, "--import", "cli_run_shop.mail", "--grace", "0.1")
    try:
        assert process.out.readline() == "sending for ever\n"
        code, _ = process.end(signal.SIGINT)
    finally:
        process.close()
    assert code == 0
    record = queue.get(id)
    assert record is not None
    assert (record.place, record.attempt) == ("ready", 0)


def test_its_json_log_is_one_object_a_line(queue: JobQueue, shop: Path, server: Server) -> None:
    id = send(queue, "nobody")
    send(queue, "b")
    # One job after the other, so that the first has ended when the second begins.
    options = ("--json", "--threads", "1", "--log-level", "debug")
    process = Process(shop, server, "--import", "cli_run_shop.mail", *options)
    try:
        assert process.out.readline() == "sending nobody\n"
        assert process.out.readline() == "sending b\n"
        code, log = process.end()
    finally:
        process.close()
    assert code == 0
    values = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= value.keys() for value in values)
    [failed] = [value for value in values if value["level"] == "error"]
    assert "ValueError" in failed["message"]
    assert "no such" in failed["exception"]
    assert "\x1b" not in log
    [logged, _] = [value for value in values if value["logger"] == "mail"]
    assert (logged["to"], logged["size"], logged["level"], logged["extra_level"]) == ("{'nobody'}", 7, "info", "low")
    ended = {value["outcome"]: value for value in values if value["level"] == "debug" and "outcome" in value}
    assert sorted(ended) == ["dead", "done"]
    for value in (failed, logged, ended["dead"]):
        assert (value["job_id"], value["kind"], value["queue"], value["attempt"]) == (id, "send", "low", 1)
        assert value["fence"] > 0
        assert value["runner"] in values[0]["message"]
    assert failed["outcome"] == "dead"
    assert failed["duration"] == ended["dead"]["duration"] > 0


@pytest.mark.parametrize(
    "setting",
    [
        "logging.basicConfig(level='INFO', format='OWN %(levelname)s %(name)s %(message)s')",
        """
import logging.config
OWN = {"class": "logging.StreamHandler", "formatter": "own"}
FORMAT = {"format": "OWN %(levelname)s %(name)s %(message)s"}
ROOT = {"handlers": ["own"], "level": "INFO"}
logging.config.dictConfig({"version": 1, "root": ROOT, "handlers": {"own": OWN}, "formatters": {"own": FORMAT}})
""",
    ],
)
def test_an_application_that_sets_up_logging_is_left_alone(
    queue: JobQueue, shop: Path, server: Server, setting: str
) -> None:
    mail = shop / "cli_run_shop" / "mail.py"
    mail.write_text(f"{mail.read_text()}\n{setting}\n")
    send(queue, "nobody")
    process = Process(shop, server, "--import", "cli_run_shop.mail", "--json")
    try:
        assert process.out.readline() == "sending nobody\n"
        code, log = process.end()
    finally:
        process.close()
    assert code == 0
    told, *lines = log.splitlines()
    assert told == "jobqueue: --json: no effect, the application sets up logging itself"
    assert lines[0].startswith("OWN INFO jobqueue.runner runner ")
    assert any(line.startswith("OWN ERROR jobqueue.runner job send ") for line in lines)
    assert "ValueError: \x1b[31mno such" in log, "the traceback of the application's own formatter"


def test_options_reach_the_runner(queue: JobQueue, shop: Path, server: Server) -> None:
    """From another directory, in another namespace and elsewhere than the environment says."""
    other = JobQueue(server.url, namespace="elsewhere")
    send(other, "c")
    options = f"--app-dir {shop} --lease 9 --namespace elsewhere --url {server.url} --queues low=3,x=1 --coroutines 7"
    process = subprocess.Popen(
        [sys.executable, "-m", "jobqueue", "run", "cli_run_shop.mail:jobs", *options.split(), "--log-level", "ERROR"],
        env={**os.environ, "JOBQUEUE_URL": "unix:///nowhere"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sending c\n"
        [runner] = other.runners()
        assert (runner.lease, runner.queues, runner.coroutines) == (9.0, {"low": 3, "x": 1}, 7)
        assert queue.runners() == []
        process.terminate()
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
        other.close()
    assert process.returncode == 0
    assert log == ""


def test_a_target_without_kinds_is_an_error(shop: Path, server: Server) -> None:
    process = Process(shop, server)
    try:
        _, log = process.popen.communicate(timeout=60)
    finally:
        process.close()
    assert process.popen.returncode == 2
    assert "no kind of job is declared" in log.splitlines()[-1]
    assert "Traceback" not in log


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_burst_ends_with_3_where_no_storage_is(shop: Path, server: Server, processes: str) -> None:
    nowhere = ("--url", f"unix://{shop}/none", "--lease", "0.6", "--processes", processes)
    process = Process(shop, server, "--import", "cli_run_shop.mail", "--burst", *nowhere)
    try:
        _, log = process.popen.communicate(timeout=60)
    finally:
        process.close()
    assert process.popen.returncode == 3
    assert "gave up after 0.6 s" in log


def test_what_it_waits_for_after_a_signal_is_told(queue: JobQueue, shop: Path, server: Server) -> None:
    process = Process(shop, server, "--import", "cli_run_shop.mail", "--grace", "50")
    try:
        send(queue, "until stopped")
        assert process.out.readline() == "sending until stopped\n"
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.stderr is not None
        told = next(
            line for line in process.popen.stderr if "stopping" in line
        )  # before the job ends, which hears of it
    finally:
        process.close()
    assert "SIGINT, stopping: 1 job running, for 50 s more at most (the grace time); a second signal leaves" in told
