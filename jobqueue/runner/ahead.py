"""How many jobs a runner claims before it has a place for them, and how long they may wait for one.

Both follow two measurements: how quickly jobs end while the runner has some, and how long its calls to the storage take.
A claim has to bring what the runner runs during a round trip, or it stands still until the next one arrives.

**The bound.** A job that was claimed ahead starts within `patience`, the larger of 50 ms and four round trips, or is taken
back and released. A round trip counts as 250 ms at most. Nothing is claimed ahead for as long again.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["ClaimAhead"]

AHEAD_MS: Final = 20.0
"""What is expected to start within this time is claimed ahead, also where a round trip takes next to nothing."""
AHEAD_TRIPS: Final = 2.0
"""The same in round trips: one claim is run while the next one travels."""
AHEAD_MOST: Final = 1_000
PATIENCE: Final = 2.5
"""A job waits for a place for so many times of what was expected, then it is released. 2.5 × 20 ms = 50 ms."""
PATIENCE_TRIPS: Final = 4.0
ROUND_TRIP_MOST_MS: Final = 250.0
CALLS: Final = 4
"""The shortest of so many calls counts: a call in which the server stood still says nothing of the next one."""
WINDOW_MS: Final = 2.0
"""The rate is taken over so long a time at least in which there were jobs …"""
SAMPLE: Final = 8
"""… or, where the jobs ended sooner, over so many of them."""
STALE: Final = 10.0
"""The rate is forgotten when no job ended for so many times of what is claimed ahead."""


class ClaimAhead:
    """What one runner measures of its jobs and of its calls. All times are local milliseconds."""

    def __init__(self) -> None:
        self._per_ms = 0.0
        self._count = 0
        self._busy = 0.0  # how long the runner had jobs, in this window and before `_since`
        self._since: float | None = None
        self._calls: deque[float] = deque(maxlen=CALLS)

    def called(self, took: float) -> None:
        """A call to the storage was answered after so long."""
        self._calls.append(took)

    def began(self, local: float) -> None:
        """The runner had no job, and was given some."""
        if self._since is not None and local - self._since > STALE * self._span():
            self.forget()
        self._since = local

    def ended(self, jobs: int, local: float, *, idle: bool) -> None:
        """Some jobs ended, the last of them at ``local``; ``idle`` if the runner has none any more."""
        self._count += jobs
        if self._since is not None:
            local = max(local, self._since)
            self._busy += local - self._since
        self._since = local
        if self._busy >= WINDOW_MS or (idle and self._count >= SAMPLE and self._busy > 0):
            rate = self._count / self._busy
            self._per_ms = (self._per_ms + rate) / 2 if self._per_ms else rate
            self._count, self._busy = 0, 0.0

    def forget(self) -> None:
        """Claim nothing ahead until jobs have ended quickly again."""
        self._per_ms = 0.0
        self._count, self._busy = 0, 0.0
        self._since = None

    def jobs(self) -> int:
        """How many jobs to claim ahead."""
        return min(int(self._per_ms * self._span()), AHEAD_MOST) if self._per_ms else 0

    @property
    def round_trip(self) -> float:
        """How long a call takes."""
        return min(*self._calls, ROUND_TRIP_MOST_MS) if self._calls else 0.0

    @property
    def patience(self) -> float:
        """How long a job may wait for a place before it is released."""
        return max(PATIENCE * AHEAD_MS, PATIENCE_TRIPS * self.round_trip)

    def _span(self) -> float:
        return max(AHEAD_MS, AHEAD_TRIPS * self.round_trip)
