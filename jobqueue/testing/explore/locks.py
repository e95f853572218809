"""Users of a lock as programs, around the flows of `jobqueue.lock`."""

from __future__ import annotations

from typing import Any

from jobqueue.clock import Moment
from jobqueue.errors import LockTaken, NotApplied, OutcomeUnknown
from jobqueue.keys import namespace_keys
from jobqueue.lock import Lock
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
        return self._at.now

    def monotonic(self) -> float:
        return self._at.local

    @property
    def _at(self) -> Moment:
        return self._env.at


def lock_user(env: Env, left: int, tries: int) -> Steps[Next | None]:
    """Take the lock, write twice under it with an extension in between, give it back; ``left`` times."""
    yield Idle("free", (NAME,))
    access: Any = _Access(env, b"%d/%d/%d" % (env.process, left, tries))
    lock = Lock(access, NAME, TTL_MS / 1000)
    try:
        lease = yield from carry_out(env, lock._take())  # noqa: SLF001 - as `with` does, with the calls cut in two
    except LockTaken:
        return Next(lock_user, (left, tries + 1))
    except (NotApplied, OutcomeUnknown):
        return _again(left)
    env.tell("take", lease.fence, lease._until)  # noqa: SLF001
    yield Run("writes")
    env.tell("write", lease.fence)
    try:
        if left > 1:
            yield from carry_out(env, lease._extend(None))  # noqa: SLF001
            env.tell("extend", lease._until)  # noqa: SLF001
            yield Run("again writes")
            env.tell("write", lease.fence)
    except (LockTaken, NotApplied, OutcomeUnknown):
        pass  # it may be lost: what it writes from now on shows by its fence
    env.tell("leave")
    try:
        yield from carry_out(env, lock._drop(lease))  # noqa: SLF001
    except (NotApplied, OutcomeUnknown):
        return _again(left)
    return _again(left)


def _again(left: int) -> Next | None:
    return Next(lock_user, (left - 1, 0)) if left > 1 else None
