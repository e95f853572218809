"""Users of a lock as programs, around the flows of `jobqueue.lock`."""

from __future__ import annotations

import contextlib
from typing import Any

from jobqueue.errors import LockTaken, NotApplied, OutcomeUnknown
from jobqueue.keys import namespace_keys
from jobqueue.lock import Lease, Lock
from jobqueue.testing.explore.programs import Env, Idle, Next, Run, Steps, carry_out

__all__ = ["TTL_MS", "lock_user"]

TTL_MS = 200
NAME = "printer"


class _Access:
    """What a `Lock` needs: the namespace, a clock, and a fresh token."""

    def __init__(self, env: Env, token: bytes) -> None:
        self.keys = namespace_keys("explore")
        self.chance = self
        self._env = env
        self._token = token

    def clock(self) -> Any:
        return self

    def entropy(self, size: int) -> bytes:
        return self._token.ljust(size, b"-")

    def now(self) -> int:
        return self._env.now

    def monotonic(self) -> float:
        return self._env.local


def _lock(env: Env, token: bytes) -> Lock:
    access: Any = _Access(env, token)
    return Lock(access, NAME, TTL_MS / 1000)


def lock_user(env: Env, left: int, tries: int) -> Steps[Next | None]:
    """Take the lock, write twice under it with an extension in between, give it back; ``left`` times."""
    yield Idle("free", (NAME,))
    lock = _lock(env, b"%d/%d/%d" % (env.process, left, tries))
    try:
        lease = yield from carry_out(env, lock._take())  # noqa: SLF001 - as `with` does, with the calls cut in two
    except LockTaken:
        return Next(lock_user, (left, tries + 1))
    except (NotApplied, OutcomeUnknown):
        return _again(left)
    env.tell("take", lease.fence, lease._until)  # noqa: SLF001
    return Next(_writes, (left, lease.token, lease.fence, lease._until))  # noqa: SLF001


def _writes(env: Env, left: int, token: bytes, fence: int, until: float) -> Steps[Next]:
    yield Run("writes")
    env.tell("write", fence)
    return Next(_extends if left > 1 else _leaves, (left, token, fence, until))


def _extends(env: Env, left: int, token: bytes, fence: int, until: float) -> Steps[Next]:
    lease = Lease(_lock(env, token), token, fence, until)
    try:
        yield from carry_out(env, lease._extend(None))  # noqa: SLF001
    except (LockTaken, NotApplied, OutcomeUnknown):
        return Next(_leaves, (left, token, fence, until))  # it may be lost: what it wrote shows by its fence
    env.tell("extend", lease._until)  # noqa: SLF001
    return Next(_writes_again, (left, token, fence, lease._until))  # noqa: SLF001


def _writes_again(env: Env, left: int, token: bytes, fence: int, until: float) -> Steps[Next]:
    yield Run("again writes")
    env.tell("write", fence)
    return Next(_leaves, (left, token, fence, until))


def _leaves(env: Env, left: int, token: bytes, fence: int, until: float) -> Steps[Next | None]:
    env.tell("leave")
    lock = _lock(env, token)
    with contextlib.suppress(NotApplied, OutcomeUnknown):
        yield from carry_out(env, lock._drop(Lease(lock, token, fence, until)))  # noqa: SLF001
    return _again(left)


def _again(left: int) -> Next | None:
    return Next(lock_user, (left - 1, 0)) if left > 1 else None
