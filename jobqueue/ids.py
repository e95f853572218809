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

# The digit that begins with the bits 10 and ends with the last two of another digit.
_VARIANT: Final = {f"{digit:x}": f"{8 | digit & 3:x}" for digit in range(16)}


def uuid7(now: int, entropy: bytes) -> str:
    """A UUID of version 7 as 32 hexadecimal digits.

    Args:
        now: Milliseconds since 1970.
        entropy: Ten random bytes, of which 74 bits are used.
    """
    digits = entropy.hex()
    return f"{now & 0xFFFF_FFFF_FFFF:012x}7{digits[:3]}{_VARIANT[digits[3]]}{digits[4:19]}"


class Chance(Protocol):
    """Where random bytes come from."""

    def entropy(self, size: int) -> bytes:
        """``size`` random bytes."""
        ...

    def entropies(self, count: int, size: int) -> list[bytes]:
        """``count`` times ``size`` random bytes."""
        ...

    def jitter(self) -> float:
        """A number from 0 up to 1, evenly spread."""
        ...


class SystemChance:
    """The operating system's randomness: nothing is kept between calls, so a forked child shares nothing."""

    def entropy(self, size: int) -> bytes:
        """See `Chance.entropy`."""
        return os.urandom(size)

    def entropies(self, count: int, size: int) -> list[bytes]:
        """See `Chance.entropies`; asks the system once."""
        together = os.urandom(count * size)
        return [together[start : start + size] for start in range(0, count * size, size)]

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

    def entropies(self, count: int, size: int) -> list[bytes]:
        """See `Chance.entropies`."""
        return [self.entropy(size) for _ in range(count)]

    def jitter(self) -> float:
        """See `Chance.jitter`."""
        return self._random.random()
