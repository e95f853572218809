"""Runners on threads of a test."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobqueue import JobQueue, Runner
from tests.faults.ledger import PATIENCE, await_that

__all__ = ["Running", "drained", "handled", "run_until_drained", "running", "start"]


class Running:
    """A runner in a thread.

    Attributes:
        runner: The runner.
        thread: Its thread.
        error: What `Runner.run` raised.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="test-runner")
        self.thread.start()

    def _run(self) -> None:
        try:
            self.runner.run(signals=False)
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self.error = error

    def stop(self) -> None:
        """Ask it to stop, and wait until it has; raises what it raised."""
        self.runner.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the runner does not end"
        if self.error is not None:
            raise self.error


def start(jobs: JobQueue, **options: Any) -> Running:
    """Start a runner with short leases."""
    return Running(Runner(jobs, **{"lease": 0.6, "threads": 2, "grace": 5, **options}))


@contextmanager
def running(jobs: JobQueue, **options: Any) -> Iterator[Runner]:
    """A runner for the length of a block; it stops cleanly."""
    live = start(jobs, **options)
    try:
        yield live.runner
    finally:
        live.stop()


def drained(jobs: JobQueue) -> Callable[[], bool]:
    """Whether nothing is waiting, ready or working any more."""
    return lambda: not any(counts.waiting + counts.ready + counts.working for counts in jobs.counts().values())


def run_until_drained(jobs: JobQueue, **options: Any) -> Runner:
    """Run everything that there is; answers the stopped runner."""
    with running(jobs, **options) as runner:
        await_that(drained(jobs), "all jobs ended")
    return runner


@contextmanager
def handled(number: signal.Signals, how: signal.Handlers) -> Iterator[None]:
    """A signal is ignored here, or has its default meaning; processes that are started meanwhile inherit it."""
    before = signal.signal(number, how)
    try:
        yield
    finally:
        signal.signal(number, before)
