"""Matchers: what a test can say of an argument instead of its value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import attrs

from jobqueue.roundtrip import round_trip_differs

__all__ = ["differs", "is_matcher"]

VALUES: Final = (
    str, bytes, bytearray, memoryview, int, float, complex, type(None), date, datetime, time, timedelta, Decimal, UUID, Enum,
    PurePath, Mapping, list, tuple, set, frozenset, type,
)  # fmt: skip
"""What is meant as itself: where the kind wants another type, it is a mistake of the test."""


def is_matcher(value: object) -> bool:
    """Whether a value is one, or a list, tuple or dict with one in it.

    That is: a function of the argument, or an object with an ``__eq__`` of its own that is no value of an argument, such
    as ``unittest.mock.ANY`` or ``pytest.approx(…)``.
    """
    if isinstance(value, Mapping):
        return any(is_matcher(part) for part in value.values())
    if isinstance(value, list | tuple):
        return any(is_matcher(part) for part in value)
    if isinstance(value, VALUES) or _has_fields(type(value)):
        return False
    return callable(value) or type(value).__eq__ is not object.__eq__


def differs(wanted: Any, received: Any, name: str) -> bool:
    """Whether an argument is another one than a test wants, or does not match."""
    if not is_matcher(wanted):
        return round_trip_differs(wanted, received, name) is not None
    if isinstance(wanted, Mapping) and isinstance(received, Mapping):
        return wanted.keys() != received.keys() or any(
            differs(value, received[key], f"{name}[{key!r}]") for key, value in wanted.items()
        )
    if isinstance(wanted, list | tuple) and isinstance(received, list | tuple):
        return len(wanted) != len(received) or any(
            differs(one, other, name) for one, other in zip(wanted, received, strict=True)
        )
    if callable(wanted):
        return not wanted(received)
    return not (wanted == received)  # noqa: SIM201 - a matcher need not have a `!=`


def _has_fields(cls: type) -> bool:
    """Whether it is a class of values: attrs, a dataclass, a pydantic model."""
    return attrs.has(cls) or hasattr(cls, "__dataclass_fields__") or hasattr(cls, "model_fields")
