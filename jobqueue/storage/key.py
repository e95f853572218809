"""The names of what a storage keeps."""

from __future__ import annotations

import attrs

__all__ = ["HashKey", "Key", "ListKey", "LockKey", "SetKey"]


def _full(key: Key) -> str:
    return f"{{{key.scope}}}:{key.name}"


@attrs.frozen
class Key:
    """A key of the storage: a scope (whose keys share a cluster slot) and a name in it."""

    scope: str = attrs.field(eq=False)
    name: str = attrs.field(eq=False)
    full: str = attrs.field(init=False, repr=False, default=attrs.Factory(_full, takes_self=True))


class ListKey(Key):
    """Names a list: first in, first out."""


class SetKey(Key):
    """Names a sorted set: members by (score, member bytes)."""


class HashKey(Key):
    """Names a hash: field → value."""


class LockKey(Key):
    """Names a lock: who holds it, until when, and how often it was taken."""
