"""Jobs in worker processes: real processes, ended in every way there is."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobqueue import Discard, JobQueue, Snooze
from jobqueue.clock import SystemClock
from jobqueue.judge import RaisedElsewhere
from jobqueue.keys import queue_keys
from jobqueue.looking import Counts
from jobqueue.record import Stored, encode
from jobqueue.runner import process_child
from jobqueue.runner.process_pipe import Ended, FromChild, Go, Pipe, ToChild
from jobqueue.runner.processes import Processes
from jobqueue.runner.task import End, Task
from jobqueue.runner.threads import Inbox
from tests.faults.ledger import PATIENCE, Ledger, await_that
from tests.runner.apps import toil
from tests.runner.running import drained, run_until_drained, running
from tests.runner.test_processes import ROOT
from tests.runner.test_supervisor import lives
from tests.servers import kinds

NOTHING = Counts(waiting=0, ready=0, working=0, dead=0)


@pytest.fixture
def jobs(running_servers: Any) -> Iterator[JobQueue]:
    """The queue of these jobs on an empty server, which is not the one that its module names."""
    server = running_servers(kinds()[0])
    server.flush()
    toil.jobs.relocate(url=server.url, namespace="elsewhere")
    with toil.jobs:
        yield toil.jobs


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_functions_and_classes_run_in_processes_that_are_used_again(jobs: JobQueue, ledger: Ledger) -> None:
    path = str(ledger.path)
    jobs.enqueue_many([toil.note.call(path, f"n{number}") for number in range(5)])
    jobs.enqueue(toil.Grind(path, "g"))
    runner = run_until_drained(jobs, job_processes=1)

    ended = ledger.entries("end")
    assert [entry.key for entry in ended] == ["n0", "n1", "n2", "n3", "n4", "g"]
    [pid] = {entry.pid for entry in ended}
    assert pid != os.getpid()
    assert not lives(pid)
    assert all(entry.attempt == 1 and entry.fence for entry in ended)
    assert runner.status.done == 6


def test_a_process_is_replaced_after_so_many_jobs(jobs: JobQueue, ledger: Ledger) -> None:
    jobs.enqueue_many([toil.note.call(str(ledger.path), str(number)) for number in range(5)])
    run_until_drained(jobs, job_processes=1, jobs_per_process=2)

    pids = [entry.pid for entry in ledger.entries("end")]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]


def test_so_many_run_at_a_time(jobs: JobQueue, ledger: Ledger, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    jobs.enqueue_many([toil.gated.call(str(ledger.path), key, str(gate)) for key in "abc"])
    with running(jobs, job_processes=2):
        await_that(lambda: len(ledger.entries("start")) == 2, "two run")
        assert jobs.counts()["low"].ready == 1, "the third waits where another runner can take it"
        gate.touch()
        await_that(drained(jobs), "all end")
    assert ledger.runs("end") == {"a": 1, "b": 1, "c": 1}


# ----------------------------------------------------------------------------------------------------------- timeouts


def test_a_job_that_takes_too_long_is_killed_with_what_it_started(jobs: JobQueue, ledger: Ledger) -> None:
    toil.endless.enqueue(str(ledger.path), "a")
    runner = run_until_drained(jobs)

    first, second = ledger.entries("start")
    assert (first.attempt, second.attempt) == (1, 2), "a failed attempt like any other"
    assert not lives(first.pid)
    program = int(Path(f"{ledger.path}.program").read_text())
    await_that(lambda: not lives(program), "the program that it started is gone as well")
    assert ledger.runs("end") == {"a": 1}
    assert (runner.status.retried, runner.status.crashed, runner.status.done) == (1, 0, 1)


def test_a_policy_can_give_up_on_a_timeout(jobs: JobQueue) -> None:
    toil.impatient.enqueue()
    run_until_drained(jobs)

    [dead] = jobs.dead()
    assert (dead.attempt, dead.recoveries) == (1, 0)
    assert dead.error == "TimeoutError: timed out after 0.2 s, its process was killed"


# ------------------------------------------------------------------------------------------------------------ crashes


@pytest.mark.parametrize(
    ("way", "how"),
    [("segfault", "was killed by SIGSEGV"), ("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 7")],
)
def test_a_job_whose_process_dies_is_dead_after_five_and_its_neighbours_do_not_notice(
    way: str, how: str, jobs: JobQueue, ledger: Ledger, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    path = str(ledger.path)
    jobs.enqueue_many([toil.gated.call(path, "a", str(gate)), toil.on_a_thread.call(path, "b", str(gate))])
    with running(jobs, job_processes=2) as runner:
        await_that(lambda: len(ledger.entries("start")) == 2, "the neighbours run")
        toil.poison.enqueue(path, "p", way)
        await_that(jobs.dead, "it is given up, though the neighbours go on for as long as they like")
        [dead] = jobs.dead()
        gate.touch()
        await_that(drained(jobs), "the neighbours end")

    assert (dead.name, dead.recoveries, dead.attempt) == ("poison", 5, 0), "a crash is no failed attempt"
    assert dead.error == f"its process {how}; that was its crash number 5 in a row"
    assert ledger.runs() == {"a": 1, "b": 1, "p": 5}
    assert ledger.runs("end") == {"a": 1, "b": 1}
    fences = [entry.fence for entry in ledger.entries("start") if entry.key == "p"]
    assert fences == sorted(set(fences)), "each run under a claim of its own"
    assert (runner.status.crashed, runner.status.dead, runner.status.done) == (4, 1, 2)


def test_a_job_whose_process_dies_a_few_times_ends_well(jobs: JobQueue, ledger: Ledger) -> None:
    toil.poison.enqueue(str(ledger.path), "p", "exit", times=3)
    runner = run_until_drained(jobs)

    assert ledger.runs() == {"p": 4}
    assert {entry.attempt for entry in ledger.entries()} == {1}
    assert (runner.status.crashed, runner.status.done, runner.status.failed) == (3, 1, 0)


# ------------------------------------------------------------------------------------------------------- how they end


def test_errors_are_judged_by_their_class_and_kept_as_text(jobs: JobQueue) -> None:
    for what in ("mild", "severe", "other"):
        toil.picky.enqueue(what)
    with running(jobs):
        await_that(lambda: len(jobs.dead()) == 2 and jobs.counts()["low"].waiting == 1, "all are judged")

    [mild] = jobs.find(place="waiting")
    assert str(mild.error).startswith("tests.runner.apps.toil.Mild: mild\n")
    assert "in picky" in str(mild.error), "with the traceback of the process"
    assert {str(dead.error).split("\n")[0] for dead in jobs.dead()} == {
        "tests.runner.apps.toil.Severe: severe", "ValueError: other",
    }  # fmt: skip


def test_what_jobs_ask_for(jobs: JobQueue) -> None:
    ids = {what: toil.asks.enqueue(what).id for what in ("snooze", "discard", "retry")}
    with running(jobs) as runner:
        await_that(lambda: runner.status.executed == 3, "all have run")

    assert jobs.get(ids["discard"]) is None
    snoozed, retried = jobs.get(ids["snooze"]), jobs.get(ids["retry"])
    assert snoozed is not None
    assert retried is not None
    assert (snoozed.attempt, retried.attempt) == (0, 1)
    assert 90 < (snoozed.due - snoozed.created).total_seconds() < 110
    assert 190 < (retried.due - retried.created).total_seconds() < 210
    assert (runner.status.snoozed, runner.status.discarded, runner.status.retried) == (1, 1, 1)


def test_arguments_that_do_not_fit_are_dead_at_once(jobs: JobQueue) -> None:
    record = toil.picky.opts(delay=3600).enqueue("mild")
    jobs.delete(record.id)
    stored = msgspec.structs.replace(record.stored, payload=b'{"what":7}', due=record.stored.created)
    jobs.enqueue_records([msgspec.structs.replace(record, stored=stored, place="ready")])
    run_until_drained(jobs)

    [dead] = jobs.dead()
    assert dead.attempt == 0
    assert str(dead.error).startswith("PayloadError: ")


def test_what_a_job_logs_and_enqueues_goes_where_its_runner_does(
    jobs: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Not to the namespace and the URL that the module names when it is imported."""
    caplog.set_level(logging.INFO, logger="chatty")
    record = toil.talks.enqueue()
    with running(jobs, queues=["low"]):
        await_that(lambda: jobs.length("left") == 1, "what it enqueued is here")
        await_that(lambda: jobs.get(record.id) is None, "it ended")

    said = {entry.name: entry for entry in caplog.records if entry.name in ("jobqueue.job", "own", "quiet", "chatty")}
    assert set(said) == {"jobqueue.job", "own", "chatty"}, "at the levels that are set here"
    assert said["jobqueue.job"].getMessage() == f"said by {record.id}"
    assert said["jobqueue.job"].levelno == logging.WARNING
    assert said["jobqueue.job"].process != os.getpid()
    assert "Mild: with a traceback" in str(said["own"].exc_text)
    assert "in talks" in str(said["own"].stack_info)
    assert said["own"].exc_info
    assert repr(said["own"].exc_info[1]) == "Mild('with a traceback')"


def test_what_is_logged_of_a_job_in_a_process_says_which(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    record = toil.says.enqueue()
    runner = run_until_drained(jobs, job_processes=1)
    assert runner.status.dead == 1

    said = [entry for entry in caplog.records if entry.name == "own"]
    failed = [entry for entry in caplog.records if entry.exc_info]
    assert len(said) == len(failed) == 2
    for attempt, entry in [*enumerate(said, 1), *enumerate(failed, 1)]:
        fields = vars(entry)
        assert (fields["job_id"], fields["kind"], fields["attempt"]) == (record.id, "says", attempt)
        assert (fields["fence"] > 0, len(fields["runner"])) == (True, 32)
    assert [entry.getMessage() for entry in said] == ["at import"] * 2, "each job begins with what the imports have set"
    assert [vars(entry)["order"] for entry in said] == [{"id": 7}] * 2
    assert [vars(entry)["queue"] for entry in said] == ["mine"] * 2
    assert vars(said[0])["at"].startswith("datetime.datetime(2026, 1, 2")
    for entry, outcome, told in zip(failed, ("retried", "dead"), ("retried in 0 s", "dead"), strict=True):
        assert (vars(entry)["outcome"], vars(entry)["queue"]) == (outcome, "low")
        assert vars(entry)["duration"] > 0
        text = logging.Formatter().format(entry)
        assert f"failed ({told}): tests.runner.apps.toil.Mild: then" in text
        assert "toil.py" in text
        assert "in says" in text, "the frames of the other process"
        assert entry.exc_info
        assert entry.exc_info[0]
        assert (entry.exc_info[0].__name__, str(entry.exc_info[1])) == ("Mild", "then")


# ------------------------------------------------------------------------------------------------------- the driver


@pytest.fixture
def driver(jobs: JobQueue) -> Iterator[tuple[Processes, Inbox]]:
    """One process and where its jobs come back to."""
    inbox = Inbox()
    processes = Processes(1, 100, jobs, inbox, SystemClock().monotonic)
    yield processes, inbox
    processes.close()


def task_of(jobs: JobQueue, name: str, *arguments: str, deadline: float = float("inf")) -> Task:
    """A job as the core hands it to a driver."""
    kind = jobs.registry.get(name)
    assert kind is not None
    stored = Stored(name, kind.encode(kind.arguments_of(arguments, {})), 13, 0, 0, 0, 0)
    return Task(queue_keys(jobs.namespace, "low"), b"id", b"claim", 7, encode(bytes(8), stored), stored, kind, deadline)


def returned(inbox: Inbox) -> Task:
    """The next job that comes back."""
    [task], _ = inbox.take(PATIENCE)
    return task


def started_flags(jobs: JobQueue, processes: Processes, ledger: Ledger) -> Task:
    """A job that runs, and writes down what its context tells it."""
    task = task_of(jobs, "flags", str(ledger.path), "a")
    processes.start([task])
    await_that(lambda: ledger.entries("start"), "it runs")
    return task


def test_a_job_hears_that_its_lease_was_lost(jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger) -> None:
    processes, inbox = driver
    task = started_flags(jobs, processes, ledger)
    task.lease_lost = True

    assert returned(inbox) is task
    assert ledger.runs("lost") == {"a": 1}
    assert task.outcome is None
    assert task.end is End.HANDED_BACK


ENDINGS: dict[str, type[BaseException] | str | None] = {
    "returns": "back", "raises": "back", "asks": "back", "snoozes": Snooze, "discards": Discard, "is complete": None,
    "is complete and fails": RaisedElsewhere, "never looks": None, "never looks and fails": RaisedElsewhere,
    "leaves": "back",
}  # fmt: skip


def test_how_a_job_ends_after_it_was_told_to(jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger) -> None:
    processes, inbox = driver
    for count, (how, left) in enumerate(ENDINGS.items(), 1):
        task = task_of(jobs, "told", str(ledger.path), how.replace(" ", "-"), how)
        processes.start([task])
        await_that(lambda count=count: len(ledger.entries("start")) == count, "it runs")  # type: ignore[misc]
        task.cancelled = True
        assert returned(inbox) is task
        assert task.end is not End.CRASHED
        outcome = "back" if task.end is End.HANDED_BACK else task.outcome and type(task.outcome)
        assert outcome == left, how
    assert len(ledger.runs("told")) == len(ENDINGS)


def test_the_limit_of_a_job_that_was_told_to_end_does_not_count(
    jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger
) -> None:
    """Its process is killed in either case: because of the stop, since that came first."""
    processes, inbox = driver
    task = task_of(jobs, "short", str(ledger.path), "a")
    processes.start([task])
    await_that(lambda: ledger.entries("start"), "it runs")
    task.cancelled = True
    assert returned(inbox) is task
    assert (task.end, task.outcome) == (End.HANDED_BACK, None)


def test_a_job_that_a_worker_process_does_not_start_is_handed_back() -> None:
    """Its lease was lost after it was sent and before its first line."""
    ours, theirs = socket.socketpair()
    runner: Pipe[FromChild] = Pipe(ours, FromChild)
    pipe: Pipe[ToChild] = Pipe(theirs, ToChild)
    with closing(runner), closing(pipe):
        child = process_child._Worker.__new__(process_child._Worker)
        child._pipe = pipe
        child._task = task_of(toil.jobs, "note", "nowhere", "a")
        child._task.lease_lost = True
        child._lines = process_child._ToRunner(pipe)
        child._lines.run = b"run"
        assert child._run(Go(b"run")) == Ended(b"run", "handed back")


def test_a_job_that_does_not_end_when_it_is_told_to_is_killed_and_handed_back(
    jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger, tmp_path: Path
) -> None:
    processes, inbox = driver
    task = task_of(jobs, "gated", str(ledger.path), "a", str(tmp_path / "never"))
    processes.start([task])
    await_that(lambda: ledger.entries("start"), "it runs")
    task.cancelled = True

    assert returned(inbox) is task
    assert task.end is End.HANDED_BACK
    [started] = ledger.entries("start")
    assert not lives(started.pid), "before anybody else may run the job"


def test_nothing_starts_under_a_lease_that_is_not_certain(
    jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger
) -> None:
    """Though it may have been when the process was started, which takes a while."""
    processes, inbox = driver
    late = task_of(jobs, "note", str(ledger.path), "late", deadline=SystemClock().monotonic())
    processes.start([late])
    assert returned(inbox) is late
    assert late.end is End.HANDED_BACK
    processes.start([task_of(jobs, "note", str(ledger.path), "next")])
    assert returned(inbox).outcome is None
    assert ledger.runs() == {"next": 1}


def test_what_a_job_printed_is_out_though_its_process_is_killed_later(
    jobs: JobQueue,
    driver: tuple[Processes, Inbox],
    ledger: Ledger,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Standard output is no terminal here, so that a process keeps it back until there is a lot, unless told not to."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    processes, inbox = driver
    processes.start([task_of(jobs, "prints", str(ledger.path), "a")])
    assert returned(inbox).outcome is None
    [ended] = ledger.entries("end")
    assert lives(ended.pid)
    os.kill(ended.pid, signal.SIGKILL)
    assert "printed by a" in capfd.readouterr().out


def test_a_process_that_cannot_be_started_is_a_failed_attempt_and_the_next_is_tried(
    jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, inbox = driver
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(ledger.path.parent / "gone"))
        failed = task_of(jobs, "note", str(ledger.path), "a")
        processes.start([failed])
        assert returned(inbox) is failed
    assert failed.text.startswith("FileNotFoundError: its worker process could not be used: ")
    assert isinstance(failed.outcome, RaisedElsewhere)

    processes.start([task_of(jobs, "note", str(ledger.path), "b")])
    assert returned(inbox).outcome is None
    assert ledger.runs("end") == {"b": 1}


def test_a_signal_to_all_processes_of_a_service_ends_no_job(
    jobs: JobQueue, driver: tuple[Processes, Inbox], ledger: Ledger, tmp_path: Path
) -> None:
    processes, inbox = driver
    gate = tmp_path / "gate"
    processes.start([task_of(jobs, "gated", str(ledger.path), "a", str(gate))])
    await_that(lambda: ledger.entries("start"), "it runs")
    [started] = ledger.entries("start")
    assert os.getpgid(started.pid) != os.getpgid(0), "Ctrl-C in a terminal does not reach it"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(started.pid, number)
    gate.touch()

    task = returned(inbox)
    assert (task.outcome, task.end) == (None, End.RAN)
    assert ledger.runs("end") == {"a": 1}


# ------------------------------------------------------------------------------------------------------ how it all ends


def test_a_stop_kills_what_does_not_end_and_hands_it_back(jobs: JobQueue, ledger: Ledger, tmp_path: Path) -> None:
    toil.gated.enqueue(str(ledger.path), "a", str(tmp_path / "never"))
    with running(jobs, grace=0.2) as runner:
        await_that(lambda: ledger.entries("start"), "it runs")

    [started] = ledger.entries("start")
    assert not lives(started.pid)
    [record] = jobs.find(place="ready")
    assert (record.attempt, record.recoveries) == (0, 0), "uncounted"
    assert (runner.status.released, runner.status.crashed) == (1, 0)


@pytest.mark.parametrize("kind", ["gated", "holds"])
def test_worker_processes_end_with_a_runner_that_is_killed(
    kind: str, jobs: JobQueue, ledger: Ledger, tmp_path: Path
) -> None:
    """Even those whose job holds the interpreter's lock, so that nothing in them could notice it."""
    if kind == "holds" and sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent has died")
    job = {"gated": toil.gated.call(str(ledger.path), "a", str(tmp_path / "never")),
           "holds": toil.holds.call(str(ledger.path), "a")}[kind]  # fmt: skip
    jobs.relocate(namespace="toil")
    jobs.enqueue(job)
    assert jobs.url is not None
    runner = subprocess.Popen([sys.executable, "-m", "tests.runner.apps.toil", jobs.url], cwd=ROOT)
    try:
        await_that(lambda: ledger.entries("start"), "it runs")
        [started] = ledger.entries("start")
        assert started.pid != runner.pid
    finally:
        runner.kill()
        runner.wait()
    await_that(lambda: not lives(started.pid), "the worker process is gone, though its job does not end")


def test_a_supervised_runner_is_killed_and_its_job_is_handed_back(
    jobs: JobQueue, ledger: Ledger, tmp_path: Path
) -> None:
    """Once: the worker process of the dead runner is gone before."""
    assert jobs.url is not None
    command = [
        *(sys.executable, "-m", "jobqueue", "run", "tests.runner.apps.toil:jobs", "--processes", "2", "--lease", "30"),
        *("--job-processes", "1", "--url", jobs.url, "--namespace", jobs.namespace),
    ]
    gate = tmp_path / "gate"
    log = tmp_path / "log"
    with log.open("wb") as told:
        supervisor = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=told)
    try:
        await_that(lambda: len(jobs.runners()) == 2, "two runners work")
        # Each has started a process, so that what follows does not measure that.
        warm = tmp_path / "warm"
        jobs.enqueue_many([toil.gated.call(str(ledger.path), key, str(warm)) for key in ("x", "y")])
        await_that(lambda: len(ledger.entries("start")) == 2, "both have a process")
        warm.touch()
        await_that(drained(jobs), "they end")
        toil.gated.enqueue(str(ledger.path), "a", str(gate))
        await_that(lambda: ledger.runs()["a"] == 1, "it runs")
        worker = ledger.entries("start")[-1].pid
        parent = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True, check=True)
        os.kill(int(parent.stdout), signal.SIGKILL)
        await_that(lambda: ledger.runs()["a"] == 2, "it runs again")
        assert not lives(worker)
        gate.touch()
        await_that(drained(jobs), "it ends")
    finally:
        supervisor.terminate()
        assert supervisor.wait(PATIENCE) == 0
    assert "is gone: 1 job returned to their queues" in log.read_text(), "its supervisor handed it back"
    assert "gave no sign of life" not in log.read_text(), "nobody waited for the end of its lease"
    assert ledger.runs("end") == {"a": 1, "x": 1, "y": 1}


SCRIPT = """
import os
from jobqueue import JobQueue, Runner

jobs = JobQueue("memory://")

@jobs.job(process=True)
def double(number: int) -> None:
    print(__name__, number * 2, os.getpid() != RUNNER, flush=True)

RUNNER = os.getppid() if __name__ != "__main__" else os.getpid()
"""
GUARDED = """
if __name__ == "__main__":
    double.enqueue(21)
    runner = Runner(jobs, lease=0.6)
    import threading
    def watch():
        while runner.status.executed < 1:
            pause.wait(0.01)
        runner.stop()
    pause = threading.Event()
    threading.Thread(target=watch).start()
    runner.run()
    print(runner.status.done, [job.error for job in jobs.find()])
"""


def test_kinds_of_the_program_itself(tmp_path: Path) -> None:
    """Its file need not have a name that could be imported."""
    script = tmp_path / "my first script"
    script.write_text(SCRIPT + GUARDED)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["my first script 42 True", "1 []"]


def test_a_program_that_runs_a_runner_when_it_is_imported_is_told(tmp_path: Path) -> None:
    """Without this its worker process would be another runner, which starts another …"""
    script = tmp_path / "careless.py"
    script.write_text(SCRIPT + GUARDED.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert "put that below `if __name__ ==" in done.stdout
