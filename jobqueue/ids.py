"""Ids, nonces and tokens, from a source of chance that tests replace.

Ids are UUIDs of version 7 (RFC 9562, section 5.7) in 32 hexadecimal digits: 48 bits of milliseconds, then 74 random bits.
The usual packages for them keep state that drifts ahead of the clock or survives a fork; ours must take the time and the
random bits as arguments.
"""

from __future__ import annotations

import os
import random
from typing import Final, Protocol

__all__ = ["Chance", "SeededChance", "SystemChance", "uuid7"]

_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62


def uuid7(now: int, entropy: bytes) -> str:
    """A UUID of version 7 as 32 hexadecimal digits.

    Args:
        now: Milliseconds since 1970.
        entropy: Ten random bytes, of which 74 bits are used.
    """
    bits = int.from_bytes(entropy[:10], "big")
    high = (bits >> 62) & 0xFFF
    low = bits & 0x3FFF_FFFF_FFFF_FFFF
    return f"{(now & 0xFFFF_FFFF_FFFF) << 80 | _VERSION | high << 64 | _VARIANT | low:032x}"


class Chance(Protocol):
    """Where random bytes come from."""

    def entropy(self, size: int) -> bytes:
        """``size`` random bytes."""
        ...

    def jitter(self) -> float:
        """A number from 0 up to 1, evenly spread."""
        ...


class SystemChance:
    """The operating system's randomness: nothing is kept between calls, so a forked child shares nothing."""

    def entropy(self, size: int) -> bytes:
        """See `Chance.entropy`."""
        return os.urandom(size)

    def jitter(self) -> float:
        """See `Chance.jitter`."""
        return int.from_bytes(os.urandom(4), "big") / 2**32


class SeededChance:
    """The same sequence for the same seed, for tests and simulations."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def entropy(self, size: int) -> bytes:
        """See `Chance.entropy`."""
        return self._random.randbytes(size)

    def jitter(self) -> float:
        """See `Chance.jitter`."""
        return self._random.random()
