"""Due work is done, whatever happens to the process that does it: real processes of ``jobqueue run --burst``.

The idea is that of test suites for due work: let a worker die after each commit and around each call to the world outside,
lose each reply, and compare what is left with a run in which nothing went wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobqueue import JobQueue
from jobqueue.looking import Counts
from tests.faults.ledger import PATIENCE, Ledger
from tests.servers import Server, kinds

ROOT = Path(__file__).parents[2]
APP = "tests.runner.apps.due_work"


class Shop:
    """The application, and what became of its work."""

    def __init__(self, url: str, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger")
        self.jobs = JobQueue(url, namespace="due")
        self.env = {**os.environ, "DUE_URL": url, "DUE_LEDGER": str(self.ledger.path)}
        self._folder = folder

    def enqueue(self, *calls: str) -> None:
        """Enqueue jobs, as Python text."""
        code = "; ".join([f"from {APP} import *", *calls])
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=self.env, check=True)

    def burst(self, *options: str, dies: str = "", loses: str = "") -> str:
        """Run all that is due; answers the log. The exit code is 0."""
        command = [sys.executable, "-m", "jobqueue", "run", f"{APP}:jobs", "--burst", *options]
        env = {**self.env, "DUE_DIES": dies, "DUE_LOSES": loses}
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3 * PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        for point in [*dies.split(), *loses.split()]:
            assert (self._folder / point).exists(), f"{point} was never reached"
        return done.stderr

    def left(self) -> Counts:
        """What all queues hold."""
        found = [(one.waiting, one.ready, one.working, one.dead) for one in self.jobs.counts().values()]
        return Counts(*map(sum, zip(*found, strict=True)))


@pytest.fixture
def shop(tmp_path: Path, running_servers: Callable[[str], Server]) -> Iterator[Shop]:
    """One with nothing to do."""
    server = running_servers(kinds()[0])
    server.flush()
    found = Shop(server.url, tmp_path)
    with found.jobs:
        yield found


NOTHING = Counts(0, 0, 0, 0)


def test_all_that_is_due_is_done_once_and_nothing_else(shop: Shop) -> None:
    shop.enqueue(
        "jobs.enqueue_many([charge.call(f'c{number}') for number in range(120)])",
        "follow.enqueue('f', 5)",
        "retry.enqueue('again', 0)",
        "retry.enqueue('later', 3600)",
        "mail.opts(delay=3600).enqueue('tomorrow')",
    )
    log = shop.burst()

    assert shop.ledger.runs("charged") == {f"c{number}": 1 for number in range(120)}
    assert shop.ledger.runs("followed") == {
        "f": 1,
        "f.5": 1,
        "f.5.4": 1,
        "f.5.4.3": 1,
        "f.5.4.3.2": 1,
        "f.5.4.3.2.1": 1,
    }
    assert shop.ledger.runs("tried") == {"again": 2, "later": 1}
    assert not shop.ledger.runs("sent")
    assert shop.left() == Counts(2, 0, 0, 0)
    assert "nothing ready or due is left" in log


@pytest.mark.parametrize(
    ("kind", "dies", "effects"),
    [("mail", "mail:after", {"sent": 2}), ("charge", "charge:before charge:after", {"charged": 1})],
)
def test_a_death_around_a_call_repeats_it_at_the_most(
    shop: Shop, kind: str, dies: str, effects: dict[str, int]
) -> None:
    """What was done when the process died is done again, unless the job looks first."""
    shop.enqueue(f"{kind}.enqueue('a')")
    shop.burst("--processes", "2", dies=dies)

    assert {event: shop.ledger.runs(event)["a"] for event in effects} == effects
    assert shop.left() == NOTHING


def test_a_death_after_any_move_loses_and_repeats_nothing(shop: Shop) -> None:
    """The claim of a job, and the end of one that has enqueued another."""
    shop.enqueue("charge.enqueue('a')", "follow.enqueue('f', 2)")
    shop.burst("--processes", "2", dies="move:1 move:3")

    assert shop.ledger.runs("charged") == {"a": 1}
    assert shop.ledger.runs("followed") == {"f": 1, "f.2": 1, "f.2.1": 1}
    assert shop.left() == NOTHING


def test_a_reply_that_is_lost_changes_nothing(shop: Shop) -> None:
    shop.enqueue("mail.enqueue('a')", "follow.enqueue('f', 3)", "retry.enqueue('r', 0)")
    log = shop.burst(loses="move:1 move:2 move:3 move:5")

    assert shop.ledger.runs("sent") == {"a": 1}
    assert set(shop.ledger.runs("followed")) == {"f", "f.3", "f.3.2", "f.3.2.1"}
    assert shop.ledger.runs("tried") == Counter(r=2)
    assert shop.left() == NOTHING
    assert "does not answer" in log
