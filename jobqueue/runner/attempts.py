"""Many things to do: of which one that fails keeps none of the others from being done, and many queues in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from jobqueue.flows import Flow
from jobqueue.keys import QueueKeys

__all__ = ["GROUP", "Attempts", "groups"]

GROUP: Final = 100
"""So many queues are asked in one request, and so many empty ones are looked at in one round at least."""


class Attempts:
    """Does one thing after the other, and remembers the first error."""

    def __init__(self) -> None:
        self._failed: Exception | None = None

    def make(self, flow: Flow[Any]) -> Flow[bool]:
        """Do one thing; answers whether it did not fail."""
        try:
            yield from flow
        except Exception as error:  # noqa: BLE001 - also what nobody thought of: the next thing is done
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Something failed."""
        self._failed = self._failed or error

    def end(self) -> None:
        """Raise the first error."""
        if self._failed is not None:
            raise self._failed


def groups(queues: Sequence[QueueKeys]) -> Iterator[Sequence[QueueKeys]]:
    """The queues in parts that one request may ask."""
    for start in range(0, len(queues), GROUP):
        yield queues[start : start + GROUP]
