"""The jobs of the demo. The storage and the folder of the ledger come with the environment."""

from __future__ import annotations

import functools
import os
import signal
import threading
from pathlib import Path
from typing import Final

from jobqueue.cli.demo.files import count
from jobqueue.cli.demo.ledger import Ledger
from jobqueue.context import Context
from jobqueue.queue import JobQueue
from jobqueue.retry import RetryPolicy

__all__ = ["LEDGER", "Stumble", "count_file", "jobs"]

LEDGER: Final = "JOBQUEUE_DEMO_LEDGER"
"""The environment's name for the folder of the ledger; set by the demo for its runners."""
PATIENCE: Final = 30.0
"""Seconds that the job half-way waits for the end of its runner."""

jobs: Final = JobQueue(namespace="demo")


class Stumble(Exception):
    """The failure that the demo plans for some jobs."""


@functools.cache
def _ledger() -> Ledger:
    return Ledger(Path(os.environ[LEDGER]))


# The pause of the real default is 2 minutes and more, which is longer than anybody watches a demo.
@jobs.job(name="demo.count", retry=RetryPolicy(limit=3, backoff=lambda n: 0.5 * n))
def count_file(ctx: Context, path: str, stumbles: bool = False, is_halfway: bool = False) -> None:
    """Count one file and write the result into the ledger.

    Args:
        ctx: The run.
        path: The file.
        stumbles: Fail in the first attempt.
        is_halfway: Wait in the first run for the demo to kill this runner.
    """
    id, ledger = ctx.record.id, _ledger()
    ledger.write(id, path, "started")
    if is_halfway and ctx.attempt == 1 and not ctx.record.recoveries:
        ledger.write(id, path, "halfway")
        # Without this wait the runner might have nothing in its hands at the moment when it is killed.
        threading.Event().wait(PATIENCE)
    if stumbles and ctx.attempt == 1:
        ledger.write(id, path, "stumbled")
        raise Stumble(f"{path} is one of those that fail at first")
    ledger.write(id, path, "counted", count(path))


def _end_with_the_demo() -> None:
    """Wait until the demo, which holds the other end of standard input, is gone, however it ended; then stop."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if LEDGER in os.environ:  # in a runner of the demo
    threading.Thread(target=_end_with_the_demo, name="demo-leash", daemon=True).start()
