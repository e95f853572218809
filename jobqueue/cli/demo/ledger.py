"""What happened in the jobs, written down beside the queue: nothing that the queue believes goes into the result.

One file per process, opened for appending; each entry is one JSON line in one write. So entries of threads do not mix, and
a process that is killed has written what it wrote.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from jobqueue.cli.demo.files import Count

__all__ = ["Entry", "Halfway", "Ledger", "Reader"]

_encode: Final = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    """One line.

    Attributes:
        job: The id of the job.
        path: Its file.
        what: ``started``, ``stumbled`` (failed, as planned), ``halfway`` (waits for its runner to be killed) or ``counted``.
        pid: The process.
        count: What was counted.
    """

    job: str
    path: str
    what: Literal["started", "stumbled", "halfway", "counted"]
    pid: int
    count: Count | None = None


_decode: Final = msgspec.json.Decoder(Entry).decode


class Ledger:
    """The writing end in one process."""

    def __init__(self, folder: Path) -> None:
        self._pid = os.getpid()
        self._file = os.open(folder / f"{self._pid}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, job: str, path: str, what: Literal["started", "stumbled", "halfway", "counted"],
              count: Count | None = None) -> None:  # fmt: skip
        """Append one entry; when this returns, it survives the process."""
        line = _encode(Entry(job, path, what, self._pid, count)) + b"\n"
        written = os.write(self._file, line)
        if written != len(line):
            raise OSError(f"the ledger took {written} of {len(line)} bytes: is the disk full?")


class Reader:
    """The reading end: answers what was appended since it last looked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new_entries(self) -> list[Entry]:
        """The entries since the last call, per process in order. A line that is not complete yet is left for later.

        Raises:
            msgspec.MsgspecError: A complete line is no entry.
        """
        entries = []
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                data = file.read()
            end = data.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + end
            entries += [_decode(line) for line in data[:end].splitlines()]
        return entries


class Halfway:
    """A word between the demo and its jobs: half of them are done, and one job shall wait for its runner to be killed."""

    def __init__(self, folder: Path) -> None:
        self._reached = folder / "halfway"
        self._taken = folder / "taken"

    def announce(self) -> None:
        """Say that half of the jobs are done."""
        self._reached.touch(mode=0o600)

    @property
    def reached(self) -> bool:
        """Whether it was said."""
        return self._reached.exists()

    def take(self) -> bool:
        """Whether the caller is the first of all processes to ask."""
        try:
            self._taken.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True
