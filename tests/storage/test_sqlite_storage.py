"""The storage that the how-to ends with keeps the rules; every torn or sloppy variant of it is caught by its rule."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
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


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a place: a commit waits for the disk, and there are tens of thousands."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="jq-sqlite-", dir=memory) as made:
        yield Path(made)


def check(make: type[SqliteStorage], folder: Path, *, lockstep: int = 0, patience: float = 20.0) -> ConformanceReport:
    """In this process, where a crash loses the handle alone."""
    opened: list[SqliteStorage] = []

    def more(_: object) -> SqliteStorage:
        opened.append(make(folder / "jobs.sqlite"))
        return opened[-1]

    def fresh() -> SqliteStorage:
        while opened:
            opened.pop().close()  # one that "crashed" would keep its transaction open until it is collected
        return more(None)

    return check_storage(
        fresh,
        another=more,
        crash=more,
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
def test_it_keeps_the_rules(folder: Path) -> None:
    assert len(check(SqliteStorage, folder, lockstep=10).passed) == len(cases()) + 1


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("rule", "make", "case"), [pytest.param(*each, id=each[1].__name__) for each in VARIANTS])
def test_a_variant_is_caught(rule: int, make: type[SqliteStorage], case: str, folder: Path) -> None:
    with pytest.raises(ConformanceError, match=f"rule {rule}: {case}") as caught:
        check(make, folder, patience=0.2)

    [reason] = [each.reason for each in caught.value.report.failures if each.case == case]
    assert len(reason.splitlines()) <= 4, reason


CRASHES: Final = [case for case in cases() if case.needs == "surviving a crash"]


@pytest.mark.parametrize("case", CRASHES, ids=lambda case: case.name)
def test_its_process_may_be_killed(case: Case, folder: Path) -> None:
    crash_for_real(SqliteStorage, folder, case)


@pytest.mark.parametrize("case", CRASHES, ids=lambda case: case.name)
def test_an_answer_before_the_commit_does_not_survive_that(case: Case, folder: Path) -> None:
    with pytest.raises((CaseFailed, NotApplied, sqlite3.Error)):  # or it keeps the file locked
        crash_for_real(CommitsLater, folder, case)
