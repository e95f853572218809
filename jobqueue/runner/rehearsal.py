"""What a runner tries before it claims anything: all that it is going to ask of the storage, with no job."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Final

from jobqueue import flows, meta
from jobqueue.access import Access
from jobqueue.drive import run
from jobqueue.keys import QueueKeys
from jobqueue.storage.protocol import Storage

__all__ = ["rehearse"]

WAIT_S: Final = 0.001
NAMED: Final = 100
"""So many queues that cannot be served are named."""


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
