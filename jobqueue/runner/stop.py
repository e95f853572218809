"""The deadlines of a runner that was asked to stop. All times are local milliseconds.

It claims no more and lets its jobs end within the grace time. Then it interrupts those that still run; a little later it
releases those whose threads do not end, and leaves, whether or not the storage answers.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Stop"]

CANCEL_GRACE_MS: Final = 1_000.0
"""How long interrupted jobs have to end."""
UNSURE_MS: Final = 2_000.0
"""How long a runner that holds nothing asks again for a claim that went without an answer."""


class Stop:
    """How far one runner is with its stop.

    Attributes:
        asked: It was asked to.
        has_released: It has released the jobs whose threads do not end. Nothing may be done for them any more.
    """

    def __init__(self) -> None:
        self.asked = False
        self.has_released = False
        self._grace_until = self._unsure_until = 0.0
        self._leave_at: float | None = None

    def begin(self, local: float, grace: float) -> None:
        """It was asked to, and its jobs may go on for so long."""
        self.asked = True
        self._grace_until = local + grace
        self._unsure_until = local + UNSURE_MS

    def interrupts(self, local: float) -> bool:
        """Whether to interrupt the jobs now; True once."""
        if not (self.asked and local >= self._grace_until and self._leave_at is None):
            return False
        self._leave_at = local + CANCEL_GRACE_MS
        return True

    def releases(self, local: float) -> bool:
        """Whether to release now what has not ended; True once."""
        if self._leave_at is None or local < self._leave_at or self.has_released:
            return False
        self.has_released = True
        return True

    def gives_up(self, local: float) -> bool:
        """Whether the storage has not answered for so long that what is held is left to the ends of its leases."""
        return self._leave_at is not None and local >= self._leave_at + 3 * CANCEL_GRACE_MS

    def leaves_claims(self, local: float) -> bool:
        """Whether a claim without an answer is not asked for any more: what it took comes back when its lease ends."""
        return local >= self._unsure_until

    def next_step(self, local: float) -> float:
        """When to look again."""
        end = self._grace_until if self._leave_at is None else self._leave_at
        if local < self._unsure_until:
            end = min(end, self._unsure_until)
        return end if end > local else local + CANCEL_GRACE_MS
