"""The one module that reads a clock. Everything else is handed the time.

Two times are told apart. ``now`` is the time that the storage's server and all runners agree on; leases, due times and
fences are made of it. ``monotonic`` is this process's own, which no operator can set; a runner measures with it how long
it has been out of touch, and how long it has watched somebody else's lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import msgspec

__all__ = ["Clock", "Moment", "ServerClock", "Standing", "SystemClock", "going", "wall_ms"]

SLOW_SAMPLE_MS: Final = 100.0
"""A sample of the server's time whose round trip took longer says little: it is taken again."""
TRIES: Final = 5

# The monotonic clock that goes on counting while the machine is suspended, where there is one: a lease does not
# wait for a laptop to wake up.
_SOURCE: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One reading of both clocks.

    Attributes:
        now: Milliseconds since 1970 by the storage's clock.
        local: Milliseconds on this process's monotonic clock.
    """

    now: int
    local: float


class Clock(Protocol):
    """Tells the time in milliseconds."""

    def now(self) -> int:
        """Milliseconds since 1970 by the clock that all users of the storage share."""
        ...

    def monotonic(self) -> float:
        """Milliseconds since some moment in the past; never runs backwards."""
        ...

    def refresh(self, max_age: float) -> None:
        """Ask the server for its time, if that was last done more than ``max_age`` milliseconds ago."""
        ...


@runtime_checkable
class Standing(Clock, Protocol):
    """A clock that stands still until somebody moves it."""

    def going(self) -> Clock:
        """One that shows the same time, with a monotonic part that goes on by itself between two moves as well."""
        ...


def going(clock: Clock) -> Clock:
    """A clock for somebody who has threads: these sleep in real time, and measure with it how long they slept."""
    return clock.going() if isinstance(clock, Standing) else clock


def monotonic_ms() -> float:
    """Milliseconds on the monotonic clock of this machine."""
    return time.clock_gettime_ns(_SOURCE) / 1e6


def wall_ms() -> int:
    """Milliseconds since 1970 by the clock of this machine."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """The clocks of this machine; for storages that live in this process."""

    def now(self) -> int:
        """See `Clock.now`."""
        return wall_ms()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return monotonic_ms()

    def refresh(self, max_age: float) -> None:
        """See `Clock.refresh`; there is nothing to ask."""


class ServerClock:
    """The server's time: the local monotonic clock plus an offset that is sampled from the server.

    The offset is the server's answer less the local time *at receipt*, so this clock may run behind by a round trip but
    never ahead: nothing starts early. Until the first sample it tells the machine's own time.

    Args:
        sample: Answers the server's time in milliseconds; costs a round trip.
    """

    def __init__(self, sample: Callable[[], int]) -> None:
        self._sample = sample
        self._offset: float | None = None
        self._sampled = 0.0
        self._lock = threading.Lock()

    def now(self) -> int:
        """See `Clock.now`."""
        offset = self._offset
        return wall_ms() if offset is None else int(monotonic_ms() + offset)

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return monotonic_ms()

    def refresh(self, max_age: float) -> None:
        """See `Clock.refresh`. Raises what the sample raises."""
        if self._offset is not None and monotonic_ms() - self._sampled <= max_age:
            return
        best: tuple[float, float] | None = None
        for _ in range(TRIES):
            sent = monotonic_ms()
            server = self._sample()
            received = monotonic_ms()
            took = received - sent
            if best is None or took < best[0]:
                best = (took, server - received)
            if took <= SLOW_SAMPLE_MS:
                break
        assert best is not None
        took, offset = best
        with self._lock:
            # The true offset lies between the one at receipt and the one at sending. A slow sample is too vague to replace
            # a known offset within these bounds, but proves one outside of them wrong: behind a link that is always slow,
            # a server's clock that is set, or a clock here that drifts, would otherwise never be noticed.
            known = self._offset
            if known is None or took <= SLOW_SAMPLE_MS or not offset <= known <= offset + took + 1:
                self._offset = offset
            self._sampled = monotonic_ms()
