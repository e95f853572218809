"""Wake-ups within one process: at most one token per scope, kept until somebody waits for it.

The only part of the memory storage that knows threads. The rules (`jobqueue.storage.interpreter`) only say that a scope
is to be rung.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

__all__ = ["Bell"]

T = TypeVar("T")


class Bell:
    """The wake-up tokens of some contents, and the mutex that guards these contents.

    Attributes:
        mutex: To be held while the contents are read or changed; a call that interrupts another one of its thread passes
            it. Those who wait do not hold it.
    """

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self._tokens: set[str] = set()
        self._interrupted: set[object] = set()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def alone(self, work: Callable[[], T]) -> T:
        """Do something while nobody else reads or changes the contents."""
        # In one line: where a block has several, an exception can be thrown at its end, before the mutex is given back.
        with self.mutex: return work()  # fmt: skip  # noqa: E701

    def ring(self, scopes: Iterable[str]) -> None:
        """Leave a token for each scope; one of those who wait for it takes it."""

        def work() -> None:
            self._tokens.update(scopes)
            self._changed.notify_all()

        # The lock itself, and in one line: see `alone`. What a condition does at the end of a block can be interrupted.
        with self._lock: work()  # fmt: skip  # noqa: E701

    def wait(self, who: object, scopes: Sequence[str], timeout: float) -> str | None:
        """Answer a scope whose token it took, or None when ``who`` is interrupted or ``timeout`` seconds are over."""
        with self._lock:
            found = self._changed.wait_for(lambda: who in self._interrupted or self._take(scopes), timeout)
            self._interrupted.discard(who)
        return found if isinstance(found, str) else None

    def interrupt(self, who: object) -> None:
        """End the wait of ``who`` that is under way, or its next one."""
        with self._lock:
            self._interrupted.add(who)
            self._changed.notify_all()

    def _take(self, scopes: Sequence[str]) -> str | None:
        for scope in scopes:
            if scope in self._tokens:
                self._tokens.discard(scope)
                return scope
        return None
