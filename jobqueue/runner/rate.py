"""How quickly a runner's jobs come back, to tell how many may be claimed ahead."""

from __future__ import annotations

from typing import Final

__all__ = ["Rate"]

AHEAD_MS: Final = 20.0
"""Claim what is expected to start within this time."""
AHEAD_MOST: Final = 1_000


class Rate:
    """How many jobs a millisecond come back, to tell how many may be claimed ahead."""

    WINDOW_MS: Final = 2.0

    def __init__(self) -> None:
        self._per_ms = 0.0
        self._since: float | None = None
        self._count = 0

    def count(self, jobs: int, local: float) -> None:
        """Some jobs came back."""
        if self._since is None or local - self._since > 100 * self.WINDOW_MS:
            self._since, self._count = local, 0  # the runner was idle, or its jobs are long
            self._per_ms = 0.0
            return
        self._count += jobs
        took = local - self._since
        if took >= self.WINDOW_MS:
            self._per_ms = (self._per_ms + self._count / took) / 2
            self._since, self._count = local, 0

    def forget(self) -> None:
        """Claim nothing ahead until jobs come back quickly again."""
        self._per_ms = 0.0
        self._since = None

    def ahead(self) -> int:
        """How many jobs are expected to start within `AHEAD_MS`."""
        return min(int(self._per_ms * AHEAD_MS), AHEAD_MOST) if self._per_ms else 0
