"""The storage that the how-to ends with keeps the rules; every torn or sloppy variant of it is caught by its rule."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final, cast

import pytest
import sqlite_storage
from sqlite_storage import SqliteStorage

from jobqueue.errors import NotApplied
from jobqueue.testing import Apart, ConformanceError, ConformanceReport, check_storage
from jobqueue.testing.cases.bench import Bench, Case, CaseFailed, Offers, cases
from tests.storage.variants_sqlite import VARIANTS, CommitsLater


def check(make: type[SqliteStorage], folder: Path, *, lockstep: int = 0, patience: float = 20.0) -> ConformanceReport:
    """In this process, where a crash loses the handle alone."""
    path = folder / "jobs.sqlite"
    return check_storage(
        lambda: make(path),
        another=lambda _: make(path),
        crash=lambda _: make(path),
        lockstep=lockstep,
        patience=patience,
    )


def crash_for_real(make: type[SqliteStorage], folder: Path, case: Case) -> None:
    """Run one case on a storage in a process of its own, which is killed."""
    storage = Apart(partial(make, folder / "jobs.sqlite"))
    bench = Bench(storage, 20.0, Offers(crash=lambda storage: cast("Apart", storage).crash()))
    try:
        case.run(bench)
    finally:
        bench.close()


def test_it_is_short() -> None:
    source = Path(sqlite_storage.__file__ or "").read_text()

    assert sum(1 for line in source.splitlines() if line.strip()) < 200


@pytest.mark.timeout(400)  # a busy disk takes its time
def test_it_keeps_the_rules(tmp_path: Path) -> None:
    assert len(check(SqliteStorage, tmp_path, lockstep=10).passed) == len(cases()) + 1


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("rule", "make", "case"), [pytest.param(*each, id=each[1].__name__) for each in VARIANTS])
def test_a_variant_is_caught(rule: int, make: type[SqliteStorage], case: str, tmp_path: Path) -> None:
    with pytest.raises(ConformanceError, match=f"rule {rule}: {case}") as caught:
        check(make, tmp_path, patience=0.2)

    [reason] = [each.reason for each in caught.value.report.failures if each.case == case]
    assert len(reason.splitlines()) <= 4, reason


CRASHES: Final = [case for case in cases() if case.needs == "surviving a crash"]


@pytest.mark.parametrize("case", CRASHES, ids=lambda case: case.name)
def test_its_process_may_be_killed(case: Case, tmp_path: Path) -> None:
    crash_for_real(SqliteStorage, tmp_path, case)


@pytest.mark.parametrize("case", CRASHES, ids=lambda case: case.name)
def test_an_answer_before_the_commit_does_not_survive_that(case: Case, tmp_path: Path) -> None:
    with pytest.raises((CaseFailed, NotApplied, sqlite3.Error)):  # or it keeps the file locked
        crash_for_real(CommitsLater, tmp_path, case)
