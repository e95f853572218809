"""A runner whose job holds the interpreter's lock for a while: ``python -m tests.faults.apps.grip URL LEDGER SECONDS``."""

from __future__ import annotations

import ctypes
import logging
import sys
from pathlib import Path

from jobqueue import Context, JobQueue, Runner
from tests.faults.ledger import Ledger
from tests.faults.stage import LEASE, NAMESPACE

__all__ = ["declare"]


def declare(url: str, ledger: Path, seconds: float) -> JobQueue:
    """The queue whose one kind holds the lock for some seconds."""
    jobs = JobQueue(url, namespace=NAMESPACE)
    notes = Ledger(ledger)

    @jobs.job(name="grip")
    def grip(ctx: Context, key: str) -> None:
        notes.write("start", key, ctx.fence, ctx.attempt)
        # A call through PyDLL keeps the lock, as C code does that forgets to let go of it.
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))
        notes.write("end", key, ctx.fence, ctx.attempt)

    return jobs


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    url, ledger, seconds = sys.argv[1:]
    Runner(declare(url, Path(ledger), float(seconds)), threads=1, lease=LEASE, queues=["low"]).run()
