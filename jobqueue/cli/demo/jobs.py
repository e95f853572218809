"""The jobs of the demo. The storage and the folder of the ledger come with the environment."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

from jobqueue.cli.demo.files import count
from jobqueue.cli.demo.ledger import Halfway, Ledger
from jobqueue.clock import monotonic_s
from jobqueue.context import Context
from jobqueue.queue import JobQueue
from jobqueue.retry import RetryPolicy

__all__ = ["LEDGER", "Stumble", "count_file", "jobs"]

LEDGER: Final = "JOBQUEUE_DEMO_LEDGER"
"""The environment's name for the folder of the ledger; set by the demo for its runners."""
PATIENCE: Final = 30.0
"""Seconds that a job waits for its turn to be killed, and for the end of its runner then."""
LOOK_SECONDS: Final = 0.02

jobs: Final = JobQueue(namespace="demo")


class Stumble(Exception):
    """The failure that the demo plans for some jobs."""


@functools.cache
def _surroundings() -> tuple[Ledger, Halfway]:
    folder = Path(os.environ[LEDGER])
    return Ledger(folder), Halfway(folder)


# The pause of the real default is 2 minutes and more, which is longer than anybody watches a demo.
@jobs.job(name="demo.count", retry=RetryPolicy(limit=3, backoff=lambda n: 0.5 * n))
def count_file(ctx: Context, path: str, stumbles: bool = False, is_last: bool = False) -> None:
    """Count one file and write the result into the ledger.

    Args:
        ctx: The run.
        path: The file.
        stumbles: Fail in the first attempt.
        is_last: Do not begin before half of the jobs are done: a few small files might all be done before the demo sees
            it.
    """
    id = ctx.record.id
    ledger, halfway = _surroundings()
    ledger.write(id, path, "started")
    if is_last:
        _wait_for(halfway)
    if halfway.reached and halfway.take():
        ledger.write(id, path, "halfway")
        # Without this wait the runner might have nothing in its hands at the moment when it is killed.
        threading.Event().wait(PATIENCE)
    if stumbles and ctx.attempt == 1:
        ledger.write(id, path, "stumbled")
        raise Stumble(f"{path} is one of those that fail at first")
    ledger.write(id, path, "counted", count(path))


def _wait_for(halfway: Halfway) -> None:
    until = monotonic_s() + PATIENCE
    while not halfway.reached and monotonic_s() < until:
        time.sleep(LOOK_SECONDS)


def _end_with_the_demo() -> None:
    """Wait until the demo, which holds the other end of standard input, is gone, however it ended; then stop."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if LEDGER in os.environ:  # in a runner of the demo
    threading.Thread(target=_end_with_the_demo, name="demo-leash", daemon=True).start()
