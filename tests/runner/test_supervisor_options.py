"""What `jobqueue run --processes` was told is what its runners are told, option by option."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import pytest

from jobqueue import JobQueue
from jobqueue.cli.run import run

RUN: Final = sys.modules["jobqueue.cli.run"]
GIVEN: Final[dict[str, tuple[str, ...]]] = {
    "threads": ("--threads", "3"),
    "coroutines": ("--coroutines", "7"),
    "job_processes": ("--job-processes", "5"),
    "jobs_per_process": ("--jobs-per-process", "11"),
    "queues": ("--queues", "high=3,low=2"),
    "burst": ("--burst",),
    "strict": ("--strict",),
    "lease": ("--lease", "12.5"),
    "grace": ("--grace", "7.25"),
    "app_dir": ("--app-dir", "{folder}"),
    "modules": ("--import", "json", "--import", "math"),
    "uvloop": ("--uvloop",),
    "log_level": ("--log-level", "error"),
    "url": ("--url", "redis://elsewhere:1/2"),
    "namespace": ("--namespace", "other"),
    "json_output": ("--json",),
}
OWN: Final = {
    "processes": "the supervisor's own",
    "url_file": "read by the supervisor",
    "lifeline": "added to it by the supervisor",
    "target": "always given",
}


def child_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str | None]:
    """How a supervisor would start its runners, without the interpreter, and the URL that it tells them."""
    started: list[list[str]] = []
    told: list[str | None] = []

    def supervise(
        jobs: JobQueue, line: list[str], processes: int, grace: float, *, burst: bool, url: str | None
    ) -> int:
        started.append(line)
        told.append(url)
        return 0

    monkeypatch.setattr(RUN, "_supervise", supervise)
    run.invoke(run.make_context("run", [*words, "--processes", "2"]))
    [[_, safe, dash, package, name, *rest]] = started
    assert (safe, dash, package, name) == ("-P", "-m", "jobqueue", "run")
    return rest, told[0]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each `Runner` was made with; no log is set up and no path changed."""
    made: list[dict[str, Any]] = []

    class Told:
        def __init__(self, jobs: JobQueue, **options: Any) -> None:
            made.append({**options, "url": jobs.url, "namespace": jobs.namespace, "named": None})

        def run(self, *, until_empty: bool) -> None:
            """Comes back at once."""
            made[-1]["until_empty"] = until_empty

    monkeypatch.setattr("jobqueue.runner.runner.Runner", Told)
    monkeypatch.setattr("jobqueue.cli.logs.set_up_logging", lambda *_, **__: None)
    monkeypatch.setattr("jobqueue.cli.target.put_first_on_path", lambda _: None)
    monkeypatch.setattr("jobqueue.cli.target.load_target", lambda _: JobQueue("redis://here", namespace="shop"))
    return made


def test_all_options_are_looked_at_here() -> None:
    assert {parameter.name for parameter in run.params} == GIVEN.keys() | OWN.keys()


@pytest.mark.parametrize(
    "names", [(), *((name,) for name in GIVEN), tuple(GIVEN)], ids=lambda names: "+".join(names)[:40]
)
def test_every_option_reaches_the_runners_of_a_supervisor(
    names: tuple[str, ...], told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = [word.format(folder=tmp_path) for name in names for word in GIVEN[name]]
    child, url = child_of(["shop:jobs", *words], monkeypatch)

    default, ours, theirs = (run.make_context("run", line) for line in (["shop:jobs"], ["shop:jobs", *words], child))
    assert all(ours.params[name] != default.params[name] for name in names), "or nothing would be proved"
    assert theirs.params["url"] is None, "a password may be in it, and anybody may read the arguments of a process"
    theirs.params["url"] = url
    assert theirs.params == ours.params
    run.invoke(theirs)
    checked, runner = told
    assert runner == {**checked, "until_empty": ours.params["burst"]}, "the supervisor refuses what its runners would"
