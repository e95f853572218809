"""What jobs of any queue write down while they run: a mapped file, beside the queue and without load on its server.

Standard library alone: it is imported in the virtual environments of other queues. A mark costs about a microsecond.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

__all__ = ["Tally", "tally"]

_WIDTH: Final = 24
"""Bytes of an entry: two times, two counts, and the rest to a multiple of eight."""
_TIMES: Final = struct.Struct("=dd")
FILE: Final = "BENCH_TALLY"
"""The environment's name for the file."""


class Tally:
    """An entry for each job, by number: when its last run began and ended, and how many runs began and ended.

    Args:
        path: The file; made anew with ``jobs`` entries if they are given.
        jobs: How many jobs.
    """

    def __init__(self, path: str | Path, jobs: int = 0) -> None:
        if jobs:
            Path(path).write_bytes(bytes(jobs * _WIDTH))
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def __len__(self) -> int:
        return len(self._map) // _WIDTH

    def began(self, number: int) -> None:
        """A run begins."""
        at = number * _WIDTH
        _TIMES.pack_into(self._map, at, time.time(), 0.0)
        self._map[at + 16] = min(255, self._map[at + 16] + 1)

    def ended(self, number: int) -> None:
        """A run ends."""
        at = number * _WIDTH + 8
        struct.pack_into("=d", self._map, at, time.time())
        self._map[at + 9] = min(255, self._map[at + 9] + 1)

    def done(self) -> int:
        """How many jobs have ended at least once."""
        return len(self) - self._map[17::_WIDTH].count(0)

    def begun(self) -> int:
        """How many jobs have begun at least once."""
        return len(self) - self._map[16::_WIDTH].count(0)

    def twice(self) -> int:
        """How many jobs have ended more than once."""
        return sum(count > 1 for count in self._map[17::_WIDTH])

    def begins(self) -> list[float]:
        """When each job last began; 0 for one that did not."""
        return [_TIMES.unpack_from(self._map, at)[0] for at in range(0, len(self._map), _WIDTH)]

    def ends(self) -> list[float]:
        """When each job last ended; 0 for one that did not."""
        return [_TIMES.unpack_from(self._map, at)[1] for at in range(0, len(self._map), _WIDTH)]

    def rate(self, first: int = 0, last: int | None = None) -> float:
        """Jobs per second between the first and the last end of the jobs from ``first`` to before ``last``."""
        times = [at for at in self.ends()[first:last] if at]
        return (len(times) - 1) / (max(times) - min(times)) if len(times) > 1 else 0.0

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()


_opened: Tally | None = None


def tally() -> Tally:
    """The tally of this process, named by the environment."""
    global _opened
    if _opened is None:
        _opened = Tally(os.environ[FILE])
    return _opened
