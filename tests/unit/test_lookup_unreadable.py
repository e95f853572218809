"""What an operator can do with a dead job whose stored bytes were no record."""

from __future__ import annotations

import pytest

from jobqueue import lookup
from jobqueue.clock import SystemClock
from jobqueue.drive import run
from jobqueue.errors import StorageRefused
from jobqueue.keys import queue_keys
from jobqueue.record import wrap_raw
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch, Put


def test_it_cannot_be_requeued_but_deleted() -> None:
    keys, storage, clock = queue_keys("app", "low"), MemoryStorage(), SystemClock()
    record = wrap_raw(b"\xff junk", "no record", 1)
    storage.apply([Batch(keys.scope, (Put(keys.dead, {b"1": record}, score=1),))])

    with pytest.raises(StorageRefused, match="can only be deleted"):
        run(lookup.requeue([keys], b"1"), storage, clock)

    assert run(lookup.delete([keys], b"1"), storage, clock).place == "dead"
