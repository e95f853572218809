"""Where a kind's jobs run, and how long they may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

from jobqueue import Context, DeclarationError, Job, JobQueue


def compute(number: int) -> int:
    return number * 2


async def fetch(number: int) -> int:
    return number


@pytest.fixture
def jobs() -> JobQueue:
    return JobQueue("memory://")


def test_functions_on_threads_coroutines_on_the_loop_and_what_asks_for_it_in_processes(jobs: JobQueue) -> None:
    assert jobs.job(name="a")(compute).kind.lane == "thread"
    assert jobs.job(name="b", timeout=1.5)(fetch).kind.lane == "loop"
    declared = jobs.job(name="c", process=True, timeout=timedelta(minutes=1))(compute)
    assert (declared.kind.lane, declared.kind.timeout) == ("process", 60_000)
    assert declared(4) == 8, "a plain call stays one"


@attrs.frozen
class Base(Job, process=True, timeout=5):
    number: int

    def perform(self, ctx: Context) -> None: ...


@attrs.frozen
class Heir(Base, timeout=7):
    pass


@attrs.frozen
class Late(Job, timeout=3):
    number: int

    async def perform(self, ctx: Context) -> None: ...


def test_classes_and_what_they_inherit(jobs: JobQueue) -> None:
    for cls, lane, timeout in ((Base, "process", 5_000), (Heir, "process", 7_000), (Late, "loop", 3_000)):
        kind = jobs.registry.of_class(jobs.register(cls))
        assert kind is not None
        assert (kind.lane, kind.timeout) == (lane, timeout)


def test_inside_of_a_testing_block_they_simply_run(jobs: JobQueue) -> None:
    declared = jobs.job(name="c", process=True, timeout=0.001)(compute)
    with jobs.testing() as t:
        declared.enqueue(3)
        assert t.drain() == {"done": 1}


@pytest.mark.parametrize(
    ("options", "function", "message"),
    [
        ({"timeout": 5}, compute, "a thread cannot be stopped: add process=True"),
        ({"process": True}, fetch, "is a coroutine function, which runs on the event loop"),
        ({"process": True, "timeout": 0}, compute, "leaves no time at all"),
        ({"process": True, "timeout": -1}, compute, "timeout must be between"),
        ({"process": True, "timeout": float("nan")}, compute, "timeout must be between"),
        ({"process": True, "timeout": "5"}, compute, "timeout must be a timedelta or a number of seconds"),
        ({"process": 3}, compute, "process is True or False, not 3"),
    ],
)
def test_what_cannot_work_is_refused(options: Any, function: Any, message: str, jobs: JobQueue) -> None:
    with pytest.raises(DeclarationError, match=message):
        jobs.job(name="a", **options)(function)
    assert len(jobs.registry) == 0


def test_what_another_process_could_not_find_is_refused(jobs: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    def local(number: int) -> None: ...

    with pytest.raises(DeclarationError, match="declare a kind with process=True at the top of a module"):
        jobs.job(name="a", process=True)(local)
    jobs.job(name="a")(local)
    # In an interactive session the program has no file.
    monkeypatch.setattr(compute, "__module__", "__main__")
    monkeypatch.delattr("__main__.__file__", raising=False)
    monkeypatch.setattr("__main__.__spec__", None)
    with pytest.raises(DeclarationError, match="that is in a file"):
        jobs.job(name="b", process=True)(compute)
