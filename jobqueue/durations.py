"""One check for every duration that a user types, and one way to tell a duration."""

from __future__ import annotations

import math
from datetime import timedelta

__all__ = ["LONGEST_MS", "milliseconds", "span"]

LONGEST_MS = 100 * 365 * 24 * 3600 * 1000
"""A hundred years: far above any use, far below 2**53, so that a sum with a time stays exact in a storage."""


def milliseconds(value: float | timedelta, what: str) -> int:
    """Turn a duration into whole milliseconds.

    Args:
        value: Seconds, or a `timedelta`.
        what: The name of the duration, for the error message.

    Returns:
        Milliseconds, from 0 to a hundred years. What is below a millisecond is rounded.

    Raises:
        TypeError: Not a number and not a `timedelta` (``True`` is not a number here).
        ValueError: Negative, not finite, or above a hundred years.
    """
    # By the methods of the three types themselves: what a subclass answers may be anything, and ends up in a record.
    if isinstance(value, timedelta):
        seconds = timedelta.total_seconds(value)
    elif isinstance(value, float):
        seconds = float.__float__(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = int.__int__(value)
    else:
        raise TypeError(f"{what} must be a timedelta or a number of seconds, not {value!r}")
    # Compared before it is multiplied: an int may be too large for a float.
    if not 0 <= seconds <= LONGEST_MS // 1000:
        problem = "negative" if seconds < 0 else "too long" if _finite(seconds) else "not finite"
        raise ValueError(f"{what} must be between 0 seconds and 100 years; {value!r} is {problem}")
    return round(seconds * 1000)


def span(seconds: float) -> str:
    """Answer a duration in the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _finite(seconds: float) -> bool:
    return isinstance(seconds, int) or math.isfinite(seconds)
