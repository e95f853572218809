"""What has to hold for a batch to be applied, as frozen values."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from jobqueue.storage.key import HashKey, LockKey, SetKey

__all__ = ["Absent", "Empty", "FieldIs", "Guard", "Locked", "Member", "Unlocked"]


class Absent(msgspec.Struct, frozen=True):
    """Holds if the hash has no such field."""

    hash: HashKey
    field: bytes


class FieldIs(msgspec.Struct, frozen=True):
    """Holds if the hash has this value in the field."""

    hash: HashKey
    field: bytes
    value: bytes


class Member(msgspec.Struct, frozen=True):
    """Holds if the sorted set has the member."""

    set: SetKey
    member: bytes


class Empty(msgspec.Struct, frozen=True):
    """Holds if the sorted set has no member."""

    set: SetKey


class Unlocked(msgspec.Struct, frozen=True):
    """Holds if ``token`` may take the lock at ``now`` (ms), having seen it with ``fence`` (0: nobody ever held it).

    That is: nobody ever held it; or ``token`` holds it and has not dropped it; or another token dropped it or held it
    until a time that is not after ``now``, and its fence is not above ``fence``: nobody held it in between. The token
    that dropped a lock cannot take it again, and one that looked before somebody else took it cannot take it after, so
    that a first sending that arrives late does not lock it for nobody.
    """

    lock: LockKey
    token: bytes
    now: int
    fence: int


class Locked(msgspec.Struct, frozen=True):
    """Holds if ``token`` holds the lock at ``now`` (ms): taken by it, not dropped, and its end is after ``now``."""

    lock: LockKey
    token: bytes
    now: int


Guard: TypeAlias = Absent | FieldIs | Member | Empty | Unlocked | Locked
