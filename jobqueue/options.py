"""The options of one enqueue call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict

import attrs

from jobqueue.durations import milliseconds
from jobqueue.errors import DeclarationError
from jobqueue.names import check_queue_name, suggestion
from jobqueue.retry import check_limit
from jobqueue.words import OPTS, refuse

__all__ = ["NO_OPTIONS", "EnqueueOptions", "Options", "check_known_queue"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EnqueueOptions(TypedDict, total=False):
    """What ``opts`` and ``JobQueue.enqueue`` take.

    Keys:
        queue: The queue to put the job into, instead of the one its kind declares.
        retry: How many retries, instead of what the kind declares; 0 is one run, negative is without end.
        delay: Not before this many seconds (or this `timedelta`) from now.
        at: Not before this time, which must be aware. Not together with ``delay``.
    """

    queue: str
    retry: int
    delay: float | timedelta
    at: datetime


def check_known_queue(name: object, known: frozenset[str] | None) -> str:
    """Answer a queue's name unchanged.

    Args:
        name: The name to check.
        known: The names there are, or None if any well-formed name will do.

    Raises:
        DeclarationError: The name is malformed, or not one of those known.
    """
    checked = check_queue_name(name)
    if known is not None and checked not in known:
        raise DeclarationError(
            f"there is no queue {checked!r}{suggestion(checked, known)} "
            f"(JobQueue(queues=…) declares {', '.join(sorted(known))})"
        )
    return checked


def _stored(check: Callable[[object], Any]) -> Any:
    """An option that becomes the field of the same name in the job's record, once ``check`` has passed it."""
    return attrs.field(default=None, metadata={"check": check})


@attrs.frozen
class Options:
    """Checked options of one enqueue call.

    Attributes:
        queue: The queue, or None for the one of the kind.
        retry: How many retries, or None for what the kind says.
        delay_ms: Milliseconds from now; 0 when ``at_ms`` is set.
        at_ms: Milliseconds since 1970 (UTC), or None.
    """

    queue: str | None = None
    retry: int | None = _stored(check_limit)
    delay_ms: int = 0
    at_ms: int | None = None

    @property
    def stored(self) -> dict[str, Any]:
        """The fields of the job's record that were given."""
        return {name: value for name in _CHECKS if (value := getattr(self, name)) is not None}

    def updated(self, given: Mapping[str, Any], known_queues: frozenset[str] | None = None) -> Options:
        """Answer these options with those given in their place.

        Args:
            given: What the user typed, see `EnqueueOptions`.
            known_queues: The queues there are, or None if any well-formed name will do.

        Raises:
            DeclarationError: A queue that does not exist, or a ``retry`` that is not a whole number.
            TypeError: An option of another name, or a value of the wrong type.
            ValueError: ``delay`` together with ``at``, a naive ``at``, or a delay that is negative, not finite or
                above a hundred years.
        """
        if not given:
            return self
        known = EnqueueOptions.__annotations__
        for name in given:
            if name not in known:
                refuse("opts", name, known, OPTS)
        if "delay" in given and "at" in given:
            raise ValueError("delay and at say the same thing in two ways: give one of them")
        changes = {name: _CHECKS[name](value) if name in _CHECKS else value for name, value in given.items()}
        if "queue" in changes:
            changes["queue"] = check_known_queue(changes["queue"], known_queues)
        if "delay" in changes:
            changes.update(delay_ms=milliseconds(changes.pop("delay"), "delay"), at_ms=None)
        if "at" in changes:
            changes.update(delay_ms=0, at_ms=_at_ms(changes.pop("at")))
        return attrs.evolve(self, **changes)


_CHECKS: Final = {field.name: field.metadata["check"] for field in attrs.fields(Options) if field.metadata}
NO_OPTIONS: Final = Options()


def _at_ms(at: object) -> int:
    if not isinstance(at, datetime):
        raise TypeError(f"at must be an aware datetime, not {at!r}")
    if at.utcoffset() is None:
        raise ValueError(f"at={at!r} has no time zone: use datetime(…, tzinfo=UTC) or .astimezone()")
    # Rounded up: a job never starts early. The storage has no use for times before 1970; all of them are "now".
    return max(0, -((_EPOCH - at) // timedelta(milliseconds=1)))
