"""The job of the soak, and its ledger: what ran is written down beside the queue, in files that only jobs write."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from jobqueue import Context, JobQueue, RetryPolicy

__all__ = ["FAILS_EVERY", "LEDGER", "Ledger", "jobs", "work"]

LEDGER: Final = "JOBQUEUE_SOAK_LEDGER"
"""The environment's name for the folder of the ledger."""
FAILS_EVERY: Final = 500
"""One job in so many fails in its first attempt."""
ENTRY: Final = struct.Struct("=q")

jobs: Final = JobQueue(namespace="soak")
_file = -1


@jobs.job(name="work", retry=RetryPolicy(limit=5, backoff=lambda _: 1.0))
def work(ctx: Context, number: int) -> None:
    """Write the number down; before that, fail if it is one of those that fail at first."""
    global _file
    if number % FAILS_EVERY == 0 and ctx.attempt == 1:
        raise RuntimeError("one of those that fail at first")
    if _file < 0:
        _file = os.open(Path(os.environ[LEDGER]) / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_file, ENTRY.pack(number))  # one write, whole or not at all: entries of threads do not mix


class Ledger:
    """The reading end: how often each number was written down.

    Args:
        folder: Where the runners write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.counts = bytearray()
        self.runs = 0

    def look(self) -> None:
        """Take in what was written since the last call."""
        for path in self._folder.iterdir():
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            whole = len(data) - len(data) % ENTRY.size
            self._read[path] = self._read.get(path, 0) + whole
            for (number,) in ENTRY.iter_unpack(data[:whole]):
                if number >= len(self.counts):
                    self.counts.extend(bytes(number + 1 - len(self.counts) + 100_000))
                self.counts[number] = min(255, self.counts[number] + 1)
                self.runs += 1

    def missing(self, accepted: int) -> int:
        """How many of the numbers below ``accepted`` are not there."""
        return accepted - len(self.counts[:accepted]) + self.counts[:accepted].count(0)

    def strangers(self, accepted: int) -> int:
        """How many numbers are there that nobody sent."""
        return len(self.counts[accepted:]) - self.counts[accepted:].count(0)

    def again(self) -> int:
        """How many runs were a job's second or a later one."""
        return self.runs - (len(self.counts) - self.counts.count(0))
