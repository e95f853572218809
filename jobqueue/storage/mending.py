"""What `Mend` means: whether an id is whole, and how it becomes so."""

from __future__ import annotations

from typing import Final

from jobqueue.storage.contents import Contents, full_name
from jobqueue.storage.ops import CLAIMS, RECORDS, HashKey, Key, ListKey, Mend, SetKey, Unread

__all__ = ["keys_of_mend", "mend"]

_SETS: Final = ("waiting", "working", "dead")


def keys_of_mend(op: Mend) -> tuple[Key, ...]:
    """Every key that it looks at."""
    scope = op.target.scope
    hashes = (HashKey(scope, RECORDS), HashKey(scope, CLAIMS))
    return (*hashes, ListKey(scope, "ready"), op.target, *[SetKey(scope, place) for place in _SETS])


def mend(contents: Contents, op: Mend) -> int:
    """Make the id whole; answers 1 if something changed, else 0."""
    scope, id_ = op.target.scope, op.id
    claims, records, ready = full_name(scope, CLAIMS), full_name(scope, RECORDS), full_name(scope, "ready")
    stored = contents.hashes.get(records, {}).get(id_)
    if (Unread(len(stored)) if stored is not None and isinstance(op.seen, Unread) else stored) != op.seen:
        return 0
    names = [full_name(scope, place) for place in _SETS]
    sets = [name for name in names if name in contents.sets and id_ in contents.sets[name].scores]
    listed = contents.lists.get(ready)
    times = sum(value == id_ for value in listed) if listed is not None else 0
    whole = len(sets) + times == (op.seen is not None)
    claimed = id_ in contents.hashes.get(claims, {})
    if whole and (not claimed or sets == [full_name(scope, "working")]):
        return 0
    contents.hash_delete(claims, (id_,))
    if whole:
        return 1
    for name in sets:
        contents.set_remove(name, (id_,))
    if listed is not None:
        for _ in range(times):
            listed.remove(id_)
        if not listed:
            del contents.lists[ready]
    if op.seen is not None:
        if not isinstance(op.seen, Unread):
            contents.hash_set(records, {id_: op.record})
        contents.set_add(op.target.full, {id_: op.score})
    return 1
