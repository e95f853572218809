"""When a job is run again: the policy of a kind, and what a job itself can ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import attrs

from jobqueue.durations import milliseconds
from jobqueue.errors import DeclarationError
from jobqueue.words import explains

__all__ = ["Discard", "Retry", "RetryPolicy", "Snooze", "check_limit", "minutes_backoff"]

DEFAULT_LIMIT: Final = 13
_LONGEST_BACKOFF_MS: Final = 10 * 365 * 24 * 3600 * 1000
_LARGEST_LIMIT: Final = 2**31 - 1


def minutes_backoff(n: int) -> float:
    """Answer the default pause before a retry: ``2 ** min(n, 10)`` minutes.

    Args:
        n: The number of this retry, 1 for the first.

    Returns:
        Seconds: 2, 4, 8 … 1024, 1024, 1024 minutes for n = 1, 2, 3 …
    """
    return 60 * 2.0 ** min(n, 10)


def check_limit(limit: object) -> int:
    """Answer a number of retries unchanged.

    Raises:
        DeclarationError: It is not an ``int`` (``True`` is not one here), or beyond 2**31 - 1.
    """
    if isinstance(limit, int) and not isinstance(limit, bool) and abs(limit) <= _LARGEST_LIMIT:
        return limit
    if isinstance(limit, RetryPolicy):
        raise DeclarationError(
            "a RetryPolicy belongs to the declaration, as in @jobs.job(retry=…); here it is a number"
        )
    raise DeclarationError(
        f"retry={limit!r} is no number of retries: use a whole number, 0 for a single run, negative for no end"
    )


def _is_limit(_: object, __: attrs.Attribute[int], value: int) -> None:
    check_limit(value)


def _is_backoff(_: object, __: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise DeclarationError(f"backoff must be a function of the retry's number that answers seconds, not {value!r}")


def _are_errors(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not all(isinstance(e, type) and issubclass(e, BaseException) for e in value):
        raise DeclarationError(f"{attribute.name} must be a tuple of exception classes, not {value!r}")


@explains("RetryPolicy")
@attrs.frozen
class RetryPolicy:
    """What happens to a job of a kind after an exception. It is code: only ``limit`` is ever stored.

    ``on`` and ``give_up_on`` look into exception groups, as an `asyncio.TaskGroup` raises them: the job is retried if any
    member is to be retried, or any member of a group in there, and given up if all are to be given up. A class of groups
    may be named as well. In ``give_up_on`` it ends the job whatever the members are; in ``on`` it stands for all of them.

    Attributes:
        limit: How many retries; 0 is one run, negative is without end.
        backoff: The pause before retry ``n`` (1 for the first), in seconds or as a `timedelta`.
        on: Only these exceptions are retried, the others end the job at once. By default all are: a `SystemExit`, or the
            `CancelledError` of something that the job awaited, is a failure like any other.
        give_up_on: These are not retried, although ``on`` names them.
    """

    limit: int = attrs.field(default=DEFAULT_LIMIT, validator=_is_limit)
    backoff: Callable[[int], float | timedelta] = attrs.field(default=minutes_backoff, validator=_is_backoff)
    on: tuple[type[BaseException], ...] = attrs.field(default=(BaseException,), validator=_are_errors)
    give_up_on: tuple[type[BaseException], ...] = attrs.field(default=(), validator=_are_errors)

    def next_delay(self, n: int) -> int:
        """Answer the pause before retry ``n`` (1 for the first), in milliseconds.

        Raises:
            TypeError: The backoff did not answer a number or a `timedelta`.
            ValueError: What it answered is negative, not finite, or above ten years.
        """
        value = self.backoff(n)
        delay_ms = milliseconds(value, f"the backoff of retry {n}")
        if delay_ms > _LONGEST_BACKOFF_MS:
            raise ValueError(f"the backoff of retry {n} must be at most 10 years, not {value!r}")
        return delay_ms

    def wants(self, error: BaseException) -> bool:
        """Answer whether this exception is one that is retried, as long as retries are left; of a group, any member."""
        # All groups are of these two, which names none of them.
        narrow = tuple(cls for cls in self.on if cls is not BaseException and cls is not Exception)
        left = [(error, False)]
        seen: set[int] = set()
        while left:
            error, named = left.pop()
            if isinstance(error, self.give_up_on):
                continue
            if isinstance(error, BaseExceptionGroup):
                named = named or isinstance(error, narrow)
                left += [(member, named) for member in error.exceptions if id(member) not in seen]
                seen.update(map(id, error.exceptions))
            elif not isinstance(error, Discard) and (named or isinstance(error, (*self.on, Retry, Snooze))):
                return True
        return False


# The three below are exceptions so that code deep inside a job can raise them; a job may return them just as well. One
# that is made while an exception is handled remembers it, as `raise` would: it is why the job asks.


class Snooze(Exception):
    """Run this job again later; this uses no retry.

    Args:
        delay: How much later, in seconds or as a `timedelta`.

    Attributes:
        delay_ms: The same in milliseconds.

    Raises:
        TypeError: The delay is not a number or a `timedelta`.
        ValueError: The delay is negative, not finite, or above a hundred years.
    """

    @explains("Snooze")
    def __init__(self, delay: float | timedelta) -> None:
        super().__init__(delay)
        self.__context__ = sys.exception()
        self.delay_ms = milliseconds(delay, "the delay of Snooze")


class Discard(Exception):
    """Give this job up: no retry, whatever its limit says.

    Args:
        reason: Why, for the log: a text, or anything that has one, as the error that was met. By default the exception
            that was being handled, or that this one was raised ``from``.
    """

    # Of the class as well, for subclasses that do not call this __init__.
    reason: object = ""

    def __init__(self, reason: object = "") -> None:
        super().__init__(reason)
        self.__context__ = sys.exception()
        self.reason = reason


class Retry(Exception):
    """Run this job again; this uses one retry, and ends the job when none is left.

    The job's error tells as well what this was raised ``from``, or what was being handled when it was made.

    Args:
        after: When, in seconds from now or as a `timedelta`; by default what the policy of the kind says.

    Attributes:
        after_ms: The same in milliseconds, or None.

    Raises:
        TypeError: The time is not a number or a `timedelta`.
        ValueError: The time is negative, not finite, or above a hundred years.
    """

    after_ms: int | None = None

    @explains("Retry")
    def __init__(self, after: float | timedelta | None = None) -> None:
        super().__init__(after)
        self.__context__ = sys.exception()
        self.after_ms = None if after is None else milliseconds(after, "the time of Retry")

    def __str__(self) -> str:
        return "it asked for another run" + ("" if self.after_ms is None else f" in {self.after_ms / 1000:g} s")
