"""What a runner tries before it claims anything, all that it is going to ask of the storage; and how it waits for that."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Final

from jobqueue import flows, meta
from jobqueue.access import Access
from jobqueue.drive import run
from jobqueue.errors import NotApplied, StorageError
from jobqueue.keys import QueueKeys
from jobqueue.storage.protocol import Storage

__all__ = ["Patience", "rehearse"]

WAIT_S: Final = 0.001
NAMED: Final = 100
"""So many queues that cannot be served are named."""
TRY_FIRST_S: Final = 0.1
TRY_LAST_S: Final = 2.0
SAY_FIRST_MS: Final = 1_000.0
SAY_LAST_MS: Final = 60_000.0


class Patience:
    """How a runner waits for a storage that is away: when it tries again, how often it says so, and when it gives up.

    Args:
        began: When it began to wait (local ms).
        longest_ms: How long it waits; None: for ever.
        log: Where to say so. What was said is said again after ever longer pauses, at last once a minute.
    """

    def __init__(self, began: float, longest_ms: float | None, log: logging.Logger) -> None:
        self._began = began
        self._longest_ms = longest_ms
        self._log = log
        self._try_s = TRY_FIRST_S
        self._said: set[str] = set()
        self._say_at = began
        self._say_ms = SAY_FIRST_MS

    def pause_s(self, error: StorageError, local: float) -> float:
        """How many seconds to wait after this error, at this time (local ms).

        Raises:
            StorageError: Waiting does not help, or it has waited long enough.
        """
        if not error.passes:
            raise error
        if self._longest_ms is not None and local - self._began >= self._longest_ms:
            raise NotApplied(f"gave up after {self._longest_ms / 1000:g} s: {error}") from error
        text = str(error)
        if text not in self._said or local >= self._say_at:
            self._log.warning("waiting for the storage: %s", text)
            self._said.add(text)
            self._say_at, self._say_ms = local + self._say_ms, min(2 * self._say_ms, SAY_LAST_MS)
        pause_s, self._try_s = self._try_s, min(2 * self._try_s, TRY_LAST_S)
        return pause_s


def rehearse(
    access: Access, storage: Storage, waiting: Storage, queues: Sequence[QueueKeys], log: logging.Logger
) -> bytes:  # fmt: skip
    """Use the storage as a runner does; answers the epoch of the namespace.

    Args:
        access: The way to the storage, for its clock and namespace.
        storage: What is to apply and read.
        waiting: What is to wait for wake-ups.
        queues: Those to be served, at least one.
        log: Where to say that some of them cannot be served.

    Raises:
        StorageError: Something cannot be done in any queue; whether waiting helps is in its ``passes``.
    """
    clock = access.clock()
    epoch = run(meta.prepare(access.keys, access.chance), storage, clock)
    failed = run(flows.rehearse(access.keys, queues), storage, clock)
    for queue, error in islice(failed.items(), NAMED):
        log.warning("queue %s cannot be served now, it is tried again and again: %s", queue, error)
    if len(failed) > NAMED:
        log.warning("%d more queues cannot be served now, they are tried again and again", len(failed) - NAMED)
    waiting.wait([next(queue.scope for queue in queues if queue.queue not in failed)], WAIT_S)
    return epoch
