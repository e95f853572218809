"""What comes out of a worker process is a result only if the worker process says so, of the run that it is at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.clock import SystemClock
from jobqueue.runner import processes
from jobqueue.runner.process_pipe import Ended, FromChild, Pipe, Ready
from jobqueue.runner.processes import Processes
from jobqueue.runner.task import End, Task
from jobqueue.runner.threads import Inbox
from tests.faults.ledger import PATIENCE, Ledger, await_that
from tests.runner.apps import forgers
from tests.runner.running import run_until_drained
from tests.runner.test_job_processes import returned, task_of
from tests.runner.test_supervisor import lives
from tests.servers import kinds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted as Linux does")


@pytest.fixture
def jobs(running_servers: Any) -> Iterator[JobQueue]:
    """The queue of these jobs on an empty server."""
    server = running_servers(kinds()[0])
    server.flush()
    forgers.jobs.relocate(url=server.url)
    with forgers.jobs:
        yield forgers.jobs


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@contextmanager
def driver(jobs: JobQueue) -> Iterator[tuple[Processes, Inbox]]:
    """One process, and where its jobs come back to."""
    inbox = Inbox()
    started = Processes(1, 100, jobs, inbox, SystemClock().monotonic)
    try:
        yield started, inbox
    finally:
        started.close()


def run_task(jobs: JobQueue, task: Task) -> None:
    """Run a job in a process."""
    with driver(jobs) as (started, inbox):
        started.start([task])
        assert returned(inbox) is task


def test_what_a_job_starts_or_forks_cannot_end_it_nor_those_after_it(jobs: JobQueue, ledger: Ledger) -> None:
    path = str(ledger.path)
    for how in forgers.PROGRAMS:
        jobs.enqueue_many(
            [forgers.starts.call(path, how, how), *[forgers.quiet.call(path, f"{how}-{n}") for n in "ab"]]
        )
    runner = run_until_drained(jobs, job_processes=1)

    rest = [f"{how}-{n}" for how in forgers.PROGRAMS for n in "ab"]
    assert ledger.runs("end") == dict.fromkeys([*forgers.PROGRAMS, *rest], 1), "each ran to its own end"
    assert [str(dead.error).split("\n")[0] for dead in jobs.dead()] == ["ValueError: this is how it ends"] * len(
        forgers.PROGRAMS
    )
    assert (runner.status.crashed, runner.status.done) == (0, len(rest))


def test_what_is_not_a_message_of_the_run_is_a_crash(jobs: JobQueue, ledger: Ledger) -> None:
    task = task_of(jobs, "writes", str(ledger.path), "a", "another run")
    run_task(jobs, task)

    assert (task.end, task.outcome) == (End.CRASHED, None)
    assert task.text == "its process sent what is not a message of its run, and was killed"
    [started] = ledger.entries("start")
    assert not lives(started.pid)


@pytest.mark.parametrize("what", forgers.MESSAGES)
def test_nothing_but_a_message_of_the_run_is_a_result(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """A worker process that says all sorts of things; only what it says is looked at here."""
    ours, theirs = socket.socketpair()
    worker: Any = processes._Worker.__new__(processes._Worker)
    worker._pipe, worker._run, worker._runs = Pipe(ours, FromChild, processes.LONGEST), b"run", {b"run"}
    worker._monotonic_ms, worker._closed = SystemClock().monotonic, threading.Event()
    worker._process = subprocess.Popen(["sleep", "600"], process_group=0)
    try:
        with theirs:
            theirs.sendall(forgers.MESSAGES[what])
            with pytest.raises(processes._Crashed, match="sent what is not a message of its run, and was killed"):
                worker._answer(task_of(forgers.jobs, "quiet", "nowhere", "a"), None, (Ended,))
        assert worker._process.poll() is not None
        assert not [record for record in caplog.records if record.name == "forged"]
    finally:
        worker.kill()


def test_a_message_that_trickles_does_not_hold_the_timeout_of_its_job(jobs: JobQueue) -> None:
    task = task_of(jobs, "trickles")
    run_task(jobs, task)
    assert task.text == "TimeoutError: timed out after 0.5 s, its process was killed"


@pytest.mark.parametrize("what", ["an end", "words"])
def test_what_a_job_leaves_behind_is_no_failure_of_the_next(jobs: JobQueue, ledger: Ledger, what: str) -> None:
    """Its process is replaced, and the next job runs in another."""
    first = task_of(jobs, "leaves", str(ledger.path), "a", what)
    second = task_of(jobs, "quiet", str(ledger.path), "b")
    with driver(jobs) as (started, inbox):
        started.start([first])
        assert returned(inbox) is first
        [ended] = ledger.entries("end")
        Path(f"{ledger.path}.go").touch()
        gone = Path(f"{ledger.path}.gone")
        await_that(lambda: gone.exists() or not lives(ended.pid), "it has done it")
        started.start([second])
        assert returned(inbox) is second
    assert [(task.outcome, task.end, task.text) for task in (first, second)] == [(None, End.RAN, "")] * 2
    assert ledger.runs("end") == {"a": 1, "b": 1}
    assert len({entry.pid for entry in ledger.entries("end")}) == 2


def test_a_line_of_the_log_is_never_too_long_for_a_message(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(jobs, "large line")
    run_task(jobs, task)
    assert (task.outcome, task.end) == (None, End.RAN)
    [line] = [record for record in caplog.records if record.name == "large"]
    assert len(line.getMessage()) < 20_000
    assert not hasattr(line, "more")


def test_a_process_that_was_forked_has_no_end_of_the_pipe() -> None:
    """Neither that of the runner, by which it would keep worker processes of a dead runner alive."""
    ours, theirs = socket.socketpair()
    pipe: Pipe[FromChild] = Pipe(ours, FromChild)
    other: Pipe[FromChild] = Pipe(theirs, FromChild)
    number = ours.fileno()
    with closing(pipe), closing(other):
        hear, say = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.fstat(number)
                os.write(say, b"open")
            except OSError:
                try:
                    pipe.send(Ready(b"run"))
                except OSError:
                    os.write(say, b"closed")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(hear, 10) == b"closed"
        os.close(hear)
        os.close(say)
        assert not os.get_inheritable(number)
        pipe.send(Ended(b"run", "done"))
        other.patience(PATIENCE)
        assert other.receive() == Ended(b"run", "done"), "the parent's is as it was"
