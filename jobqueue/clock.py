"""The one module that reads a clock. Everything else is handed the time, or asks here.

Two times are told apart. ``now`` is the time that the storage's server and all runners agree on; leases, due times and
fences are made of it. ``monotonic`` is this process's own, which no operator can set; a runner measures with it how long
it has been out of touch, and how long it has watched somebody else's lease.

Both are in milliseconds. What waits for sockets, threads and processes counts in seconds, as Python does: its time is
`monotonic_s`. A name that ends in ``_ms`` or ``_s`` says which it is, and `tests/test_units.py` that they never meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import msgspec

__all__ = [
    "Clock",
    "Moment",
    "ServerClock",
    "Standing",
    "SystemClock",
    "going",
    "monotonic_ms",
    "monotonic_s",
    "wall_ms",
]

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

    def refresh(self, max_age_ms: float) -> None:
        """Ask the server for its time, if that was last done more than so many milliseconds ago."""
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


monotonic_s: Final = time.monotonic
"""Seconds on the clock by which Python's own waits end; another one than that of `monotonic_ms`."""


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

    def refresh(self, max_age_ms: float) -> None:
        """See `Clock.refresh`; there is nothing to ask."""


class ServerClock:
    """The server's time: the local monotonic clock plus an offset that is sampled from the server.

    The offset is the server's answer less the local time *at receipt*, so this clock may run behind by a round trip but
    never ahead: nothing starts early. Until the first sample it tells the machine's own time.

    Args:
        sample: Answers the server's time in milliseconds; costs a round trip. It is told until when to ask, in seconds of
            `monotonic_s`, or None.
    """

    def __init__(self, sample: Callable[[float | None], int]) -> None:
        self._sample = sample
        # Replaced as one, without a lock: a signal handler may come in between. Of two samples either will do.
        self._known: tuple[float, float] | None = None  # the offset, and when it was sampled last

    def now(self) -> int:
        """See `Clock.now`."""
        known = self._known
        return wall_ms() if known is None else int(monotonic_ms() + known[0])

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return monotonic_ms()

    def refresh(self, max_age_ms: float, end_s: float | None = None) -> None:
        """See `Clock.refresh`; the sample is told ``end_s``. Raises what the sample raises."""
        known = self._known
        if known is not None and monotonic_ms() - known[1] <= max_age_ms:
            return
        best: tuple[float, float] | None = None
        for _ in range(TRIES):
            sent = monotonic_ms()
            server = self._sample(end_s)
            received = monotonic_ms()
            took = received - sent
            if best is None or took < best[0]:
                best = (took, server - received)
            if took <= SLOW_SAMPLE_MS:
                break
        assert best is not None
        took, offset = best
        # The true offset lies between the one at receipt and the one at sending. A slow sample is too vague to replace
        # a known offset within these bounds, but proves one outside of them wrong: behind a link that is always slow,
        # a server's clock that is set, or a clock here that drifts, would otherwise never be noticed.
        known = self._known
        if known is not None and took > SLOW_SAMPLE_MS and offset <= known[0] <= offset + took + 1:
            offset = known[0]
        self._known = (offset, monotonic_ms())
