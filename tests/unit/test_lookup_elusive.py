"""Operators and a record whose job is in no place: calls end and say so."""

from __future__ import annotations

import pytest

from jobqueue import lookup, transitions
from jobqueue.clock import SystemClock
from jobqueue.drive import run
from jobqueue.errors import StorageRefused
from jobqueue.keys import queue_keys
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage

KEYS = queue_keys("app", "low")
RECORD = encode(b"nonce...", Stored("kind", b"{}", 0, 0, 0, 1, 1))


def test_a_record_whose_list_was_removed() -> None:
    storage = MemoryStorage()
    storage.apply([transitions.put(KEYS, {b"1": RECORD}, {}, {})])
    storage._shared.contents.lists.clear()  # somebody deleted the key

    with pytest.raises(StorageRefused, match="removed a key of its queue"):
        run(lookup.delete([KEYS], b"1"), storage, SystemClock())
