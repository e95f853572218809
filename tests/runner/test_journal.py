"""What a runner writes into its log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jobqueue import JobQueue, RetryPolicy
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
    broken.enqueue()
    with caplog.at_level(logging.WARNING):
        run_until_drained(jobs)
    retried, dead = [entry for entry in caplog.records if "broken" in entry.getMessage()]
    assert (retried.levelname, dead.levelname) == ("WARNING", "ERROR")
    for entry in (retried, dead):
        assert entry.getMessage().endswith(": SystemExit: not")
        lines = logging.Formatter().format(entry).split("\n")
        [frame] = [line for line in lines if line.startswith("    File")]
        assert frame.endswith("in broken"), "its own frames alone"
        assert all(line.startswith("  ") for line in lines[1:]), "or it could look like a line of the log"
        assert secret not in str(lines[1:]), "what a job was given is for `show`"


def test_a_logger_may_be_an_adapter(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @jobs.job(name="broken", retry=0)
    def broken() -> None:
        raise ValueError("no")

    broken.enqueue()
    adapter: Any = logging.LoggerAdapter(logging.getLogger("own"), {})
    with caplog.at_level(logging.WARNING):
        assert run_until_drained(jobs, logger=adapter).status.dead == 1
    assert any(line.endswith("failed (dead): ValueError: no") for line in caplog.messages)
