"""What a user tells a runner, checked at declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from jobqueue.durations import milliseconds
from jobqueue.errors import DeclarationError
from jobqueue.names import check_queue_name
from jobqueue.runner_info import SHORTEST_LEASE_MS

__all__ = ["DEFAULT_WEIGHTS", "check_count", "check_lease", "check_weights", "default_weight", "sample_age"]

DEFAULT_WEIGHTS: Final = {"high": 2}
"""Weights of queues that are served without having been named; all others have 1."""
BEATS_PER_LEASE: Final = 6
SAMPLE_AGE_MS: Final = 7_500.0
LARGEST_WEIGHT: Final = 1_000


def sample_age(beat: float) -> float:
    """How old a sample of the server's time may be at a beat, in ms: it is taken with every second beat of the default.

    Between two samples this clock drifts by less than a millisecond.
    """
    return min(1.5 * beat, SAMPLE_AGE_MS)


def default_weight(queue: str) -> int:
    """The weight of a queue that nobody gave one."""
    return DEFAULT_WEIGHTS.get(queue, 1)


def check_weights(queues: Mapping[str, int] | Iterable[str]) -> dict[str, int]:
    """Queue → weight, from a mapping or from names alone.

    Raises:
        DeclarationError: A name or a weight cannot be, or there is none.
    """
    if not isinstance(queues, Iterable):
        raise DeclarationError(f"queues takes names, or a mapping of name to weight, not {queues!r}")
    if isinstance(queues, str):
        raise DeclarationError(f"queues is a mapping of queue to weight: queues={{{queues!r}: 1}}")
    given = dict(queues) if isinstance(queues, Mapping) else {queue: default_weight(queue) for queue in queues}
    if not given:
        raise DeclarationError("queues is empty: name at least one, or leave it out to serve all")
    for queue, weight in given.items():
        check_queue_name(queue)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= LARGEST_WEIGHT:
            raise DeclarationError(
                f"the weight of queue {queue!r} is a whole number from 1 to {LARGEST_WEIGHT}, not {weight!r}"
            )
    return given


def check_lease(lease: float | timedelta) -> tuple[int, int]:
    """Lease and beat in ms.

    Raises:
        DeclarationError: The lease is too short for six beats.
    """
    length = milliseconds(lease, "lease")
    if length < SHORTEST_LEASE_MS:
        raise DeclarationError(
            f"a lease of {length} ms is too short: at least {SHORTEST_LEASE_MS} ms, six beats of 100 ms"
        )
    return length, length // BEATS_PER_LEASE


def check_count(what: str, value: int, least: int) -> int:
    """A number of threads or coroutines.

    Raises:
        DeclarationError: It is no whole number, or too small or large.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10_000:
        raise DeclarationError(f"{what} is a whole number from {least} to 10000, not {value!r}")
    return value
