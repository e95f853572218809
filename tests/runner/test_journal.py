"""What a runner writes into its log."""

from __future__ import annotations

import ast
import logging
import re
from functools import partial
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

import jobqueue
from jobqueue import JobQueue, RetryPolicy, Runner
from jobqueue.keys import queue_keys
from jobqueue.lifecycle import Ending
from jobqueue.record import Stored
from jobqueue.runner.events import (
    DutiesEnded,
    Event,
    JobsEnded,
    JobsRescued,
    LeasesExpired,
    LeasesLost,
    StorageAnswered,
    to_all,
)
from jobqueue.runner.journal import Journal, RunnerStatus, count
from jobqueue.runner.report import Reporter
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.task import Task
from tests.faults.ledger import await_that
from tests.runner.running import drained, run_until_drained, running


def test_a_queue_whose_name_may_be_mistyped_is_said(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @jobs.job(name="work", queue="images")
    def work() -> None: ...

    work.opts(queue="used").enqueue()
    queues = {"images": 1, "imgaes": 1, "low": 1, "used": 1}
    with caplog.at_level(logging.WARNING), running(jobs, queues=queues):
        await_that(drained(jobs), "the job ended")
    [said] = [line for line in caplog.messages if "no kind" in line]
    assert said == "no kind is declared for queue 'imgaes', and nothing is in it; did you mean 'images'?"


def test_a_failure_is_logged_with_its_place(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @jobs.job(name="broken", retry=RetryPolicy(limit=1, backoff=lambda _: 0))
    def broken() -> None:
        raise SystemExit(f"not\nfound: what={secret}")

    secret = "4111"
    id = broken.enqueue().id
    with caplog.at_level(logging.WARNING):
        run_until_drained(jobs)
    retried, dead = [entry for entry in caplog.records if "broken" in entry.getMessage()]
    assert (retried.levelname, dead.levelname) == ("WARNING", "ERROR")
    assert retried.getMessage() == f"job broken {id} failed (retried in 0 s): SystemExit: not"
    assert dead.getMessage() == f"job broken {id} failed (dead): SystemExit: not"
    for entry in (retried, dead):
        lines = logging.Formatter().format(entry).split("\n")
        [frame] = [line for line in lines if line.startswith("  File")]
        assert frame.endswith("in broken"), "its own frames alone"
        assert secret not in entry.getMessage(), "what a job was given is for `show`, and for who reads its exception"


def test_a_logger_may_be_an_adapter(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @jobs.job(name="broken", retry=0)
    def broken() -> None:
        raise ValueError("no")

    id = broken.enqueue().id
    adapter: Any = logging.LoggerAdapter(logging.getLogger("own"), {})
    with caplog.at_level(logging.WARNING):
        assert run_until_drained(jobs, logger=adapter).status.dead == 1
    assert f"job broken {id} failed (dead): ValueError: no" in caplog.messages


# ------------------------------------------------------------------------------------------------- every line about a job


def task(id: bytes = b"job-1", text: str = "text") -> Task:
    stored = Stored("work", b"{}", 13, 0, 0, 0, 0)
    found = Task(queue_keys("test", "low"), id, b"claim", 1, b"", stored, None, 0.0)
    found.text = text
    return found


TOLD = [
    field.name for field in attrs.fields(RunnerStatus) if field.name not in ("executed", "failed", "rescued", "running")
]


@pytest.mark.parametrize("what", TOLD)
def test_every_line_about_a_job_has_its_kind_and_id(what: Ending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status = RunnerStatus()
    ended = JobsEnded(what, [task(b"job-1"), task(b"job-2")])
    to_all(partial(count, status), Journal(status, Reporter(logging.getLogger("own"))).observe)(ended)
    assert getattr(status, what) == 2
    assert len(caplog.messages) == 2
    for line, id in zip(caplog.messages, ("job-1", "job-2"), strict=True):
        assert line.startswith(f"job work {id}")


def test_every_job_that_a_rescue_gives_up_is_named(caplog: pytest.LogCaptureFixture) -> None:
    rescued = [Rescued(b"%d" % number, "low", "gone", number > 1, 0) for number in range(4)]
    Journal(RunnerStatus(), Reporter(logging.getLogger("own"))).observe(JobsRescued(rescued))
    returned, *dead = caplog.messages
    assert returned == "runner gone gave no sign of life: 2 jobs returned to their queues and will run again"
    assert [line.split(" went to dead")[0] for line in dead] == ["job 2 of queue low", "job 3 of queue low"]


@pytest.mark.parametrize("what", ["late", "retried", "discarded", "crashed"])
def test_what_a_foreign_writer_named_cannot_break_a_line(what: Ending, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ended = JobsEnded(what, [task(b"job\n\x1b[2J\xff", "text\x1b[2J")])
    Journal(RunnerStatus(), Reporter(logging.getLogger("own"))).observe(ended)
    [line] = caplog.messages
    assert line.isprintable()


def test_no_line_about_a_job_is_without_its_id() -> None:
    """Whoever adds one to the runner writes the label of the job into it, or says which runner or how many."""
    package = Path(jobqueue.__file__).parent
    calls = [
        (path.name, call.args[0].value)
        for path in sorted((package / "runner").glob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("debug", "info", "warning", "error", "exception")
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    ]
    about = [(file, line) for file, line in calls if re.search(r"\bjob\b", line.replace("job processes", ""))]
    assert len(calls) > 30
    assert len(about) >= 8
    assert [(file, line) for file, line in about if not line.startswith("job %s")] == []


def test_a_filter_or_handler_that_raises_ends_no_runner(
    jobs: JobQueue, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return bool(record.request_id)  # type: ignore[attr-defined]

    own = logging.getLogger("own.wrong")
    wrong = Wrong()
    own.addFilter(wrong)
    runs: list[int] = []

    @jobs.job(name="broken", retry=0)
    def broken(number: int) -> None:
        runs.append(number)
        raise ValueError("no")

    broken.enqueue(1)
    broken.enqueue(2)
    try:
        with caplog.at_level(logging.INFO):
            assert run_until_drained(jobs, logger=own).status.dead == 2
    finally:
        own.removeFilter(wrong)
    assert runs == [1, 2]
    told = capsys.readouterr().err
    assert "failed (dead): ValueError: no" in told
    assert "could not be logged: AttributeError" in told


@pytest.mark.parametrize(
    ("running", "signal", "told"),
    [
        (0, "", "stopping: nothing is running"),
        (0, "SIGINT", "SIGINT, stopping: nothing is running"),
        (1, "", "stopping: 1 job running, for 30 s more at most (the grace time)"),
        (
            2,
            "SIGINT",
            "SIGINT, stopping: 2 jobs running, for 30 s more at most (the grace time); a second signal leaves at once",
        ),
    ],
)
def test_a_stop_tells_what_is_waited_for_and_how_long(
    running: int, signal: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Journal(RunnerStatus(), Reporter(logging.getLogger("own"))).stopping(running, 30_000.0, signal)
    assert caplog.messages == [told]


def test_the_line_of_a_retried_job_tells_when_it_runs_again(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    """As it is stored: a backoff may be chance, and is asked once."""
    asked: list[int] = []

    def backoff(retry: int) -> int:
        asked.append(retry)
        return 7200 * len(asked)

    @jobs.job(name="broken", retry=RetryPolicy(limit=1, backoff=backoff))
    def broken() -> None:
        raise ValueError("no")

    id = broken.enqueue().id
    Runner(jobs).run(signals=False, until_empty=True)
    assert f"job broken {id} failed (retried in 2 h): ValueError: no" in caplog.messages
    record = jobs.get(id)
    assert record is not None
    assert (record.due - record.created).total_seconds() == pytest.approx(7200, abs=60)
    assert asked == [1]


# ---------------------------------------------------------------------------------------------------------------- events


def test_one_observer_hands_each_event_on_to_all_in_order() -> None:
    told: list[tuple[str, Event]] = []
    observe = to_all(lambda event: told.append(("first", event)), lambda event: told.append(("second", event)))
    events: list[Event] = [StorageAnswered(), JobsRescued([])]
    for event in events:
        observe(event)
    assert told == [(who, event) for event in events for who in ("first", "second")]


@pytest.mark.parametrize("ending", get_args(Ending))
def test_each_way_in_which_a_run_may_end_is_counted_once(ending: Ending) -> None:
    status = RunnerStatus()
    ended = JobsEnded(ending, [task(), task()])
    if ending in ("rescued", "deleted", "pruned"):
        with pytest.raises(AssertionError, match="no run ends so"):
            count(status, ended)
        return
    count(status, ended)
    counted = {name: number for name, number in attrs.asdict(status).items() if number}
    executed = {"executed": 2} if ending in ("done", "retried", "dead", "snoozed", "discarded") else {}
    failed = {"failed": 2} if ending in ("retried", "dead") else {}
    assert counted == {ending: 2, **executed, **failed}


def test_what_does_not_count_leaves_the_status_as_it_is() -> None:
    status = RunnerStatus()
    for event in (StorageAnswered(), DutiesEnded(None, 0.0), LeasesExpired([task()]), LeasesLost([(task(), "why")])):
        count(status, event)
    assert status == RunnerStatus()
    count(status, JobsRescued([Rescued(b"1", "low", "gone", False, 0)]))
    assert status == RunnerStatus(rescued=1)
