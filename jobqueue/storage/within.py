"""How many records may be answered: `Head` and `Records` bound the bytes, and what is too long alone is not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobqueue.storage.ops import Unread

__all__ = ["read", "within"]


def within(ids: Sequence[bytes], max_bytes: int, records: Mapping[bytes, bytes]) -> Sequence[bytes]:
    """As many ids from the first as their records fit into ``max_bytes``; one that is longer by itself counts nothing."""
    total = 0
    for index, id_ in enumerate(ids):
        size = len(records.get(id_, b""))
        if size <= max_bytes:
            total += size
            if total > max_bytes:
                return ids[:index]
    return ids


def read(record: bytes, max_bytes: int | None) -> bytes | Unread:
    """The record, if it is not too long to be read."""
    return record if max_bytes is None or len(record) <= max_bytes else Unread(len(record))
