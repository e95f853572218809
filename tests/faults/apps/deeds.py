"""The one kind of job that all fault tests run: it writes into the ledger what happens to it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Final

import attrs

from jobqueue import Context, Job, JobQueue, RetryPolicy
from tests.faults.ledger import Ledger

__all__ = ["QUEUE", "Deed", "declare"]

QUEUE: Final = "q"
_GATE_SECONDS: Final = 30.0


@attrs.frozen
class Deed(Job, name="deed", queue=QUEUE, retry=RetryPolicy(limit=3, backoff=lambda _: 0.1)):
    """Writes ``start``, waits for its gate, fails if told to, writes ``end``.

    Attributes:
        key: Its name in the ledger.
        ledger: Path of the ledger.
        fails: So many attempts raise.
        gate: It waits until a file of this name exists.
        kill: A signal that its first run sends to its own process.
    """

    key: str
    ledger: str
    fails: int = 0
    gate: str = ""
    kill: int = 0

    def perform(self, ctx: Context) -> None:
        ledger = Ledger(Path(self.ledger))
        first = self.key not in ledger.runs()
        ledger.write("start", self.key, ctx.fence, ctx.attempt)
        if self.kill and first:
            os.kill(os.getpid(), signal.Signals(self.kill))
        if self.gate:
            pause = threading.Event()
            for _ in range(int(_GATE_SECONDS / 0.01)):
                if Path(self.gate).exists():
                    break
                pause.wait(0.01)
            if ctx.lease_lost:
                ledger.write("lost", self.key, ctx.fence, ctx.attempt)
        if ctx.attempt <= self.fails:
            raise RuntimeError(f"attempt {ctx.attempt} of {self.key} fails, as it was told to")
        ledger.write("end", self.key, ctx.fence, ctx.attempt)


def declare(jobs: JobQueue) -> JobQueue:
    """Declare the kind."""
    jobs.register(Deed)
    return jobs
