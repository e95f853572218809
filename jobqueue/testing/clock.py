"""A clock that moves when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from jobqueue.clock import Clock, monotonic_ms
from jobqueue.durations import milliseconds
from jobqueue.record import timestamp

__all__ = ["FakeClock"]

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FakeClock:
    """A `Clock` that stands still between two calls of `advance`; any thread may look at it and move it.

    Args:
        start: What it shows at first, an aware datetime from 1970 on; by default the start of 2030 (UTC).

    Raises:
        ValueError: ``start`` has no time zone, or lies before 1970.
    """

    def __init__(self, start: datetime | None = None) -> None:
        start = START if start is None else start
        if start.utcoffset() is None:
            raise ValueError(f"start={start!r} has no time zone: use datetime(…, tzinfo=UTC)")
        self._start = (start - _EPOCH) // timedelta(milliseconds=1)
        if self._start < 0:
            raise ValueError(f"start={start!r} lies before 1970, where no storage has times")
        self._passed = 0
        self._lock = threading.RLock()
        self._watchers: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<FakeClock {self.datetime.isoformat()}>"

    @property
    def datetime(self) -> datetime:
        """What it shows, as an aware datetime (UTC)."""
        return timestamp(self.now())

    def now(self) -> int:
        """See `Clock.now`."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """See `Clock.monotonic`; milliseconds since this clock was made."""
        return float(self._passed)

    def refresh(self, max_age_ms: float) -> None:
        """See `Clock.refresh`; there is nobody to ask."""

    def advance(
        self,
        duration: float | timedelta = 0,
        /,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
    ) -> None:
        """Let time pass; what is given is added up. Jobs run in `Testing.drain`; a `Runner` in the block wakes up.

        Args:
            duration: Seconds, or a `timedelta`.
            days: Days of 24 hours.
            hours: Hours.
            minutes: Minutes.
            seconds: Seconds.
            milliseconds: Milliseconds; what is below one is rounded.

        Raises:
            TypeError: Something is no number.
            ValueError: Time would run backwards, or on for more than a hundred years.
        """
        try:
            given = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)
            if not isinstance(duration, timedelta):
                duration = timedelta(seconds=duration)
            step = _step(duration + given)
        except OverflowError:
            raise ValueError("a clock advances by a hundred years at most") from None
        with self._lock:
            self._passed += step
        for moved in self._watchers:
            moved()

    def going(self) -> Clock:
        """See `Standing.going`: what a `Runner` goes by, whose threads sleep for real."""
        return _Going(self)

    def watch(self, moved: Callable[[], object]) -> None:
        """Call this after each step, in the thread that made it: for those who sleep by this clock."""
        self._watchers.append(moved)


class _Going:
    """Real time passes on its monotonic part, and every step of the clock besides."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._began = monotonic_ms()

    def now(self) -> int:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic() + monotonic_ms() - self._began

    def refresh(self, max_age_ms: float) -> None:
        """There is nobody to ask."""


def _step(duration: timedelta) -> int:
    return milliseconds(duration, "the step of a clock, which never runs backwards,")
