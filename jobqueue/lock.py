"""Locks with an end and a fence.

A lock is taken with a fresh token each time, and only as it was seen just before: a request that arrives late, when its
sender or somebody else has held the lock since, cannot take it for nobody. Every lock ends by itself after its time to
live; the fence tells what a late holder wrote from what its successor wrote. A server forgets a lock an hour after its end,
together with its last token: until then a name costs a key, also one that is never used again.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Any

from jobqueue import transitions
from jobqueue.access import Access
from jobqueue.durations import milliseconds
from jobqueue.errors import LockTaken
from jobqueue.flows import Flow, Read, Refresh, send_one
from jobqueue.storage.ops import Holder

__all__ = ["Lease", "Lock", "check_lock_name"]

MAX_NAME = 200


def check_lock_name(name: object) -> str:
    """Answer a lock's name unchanged.

    Raises:
        TypeError: It is no string.
        ValueError: It is empty, too long, or has characters that cannot be printed.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a lock is a string, not {name!r}")
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise ValueError(f"the name of a lock has 1 to {MAX_NAME} printable characters, not {name!r}")
    return name


class Lease:
    """The right to a lock for some time.

    Attributes:
        fence: Grows with every holder of the lock: pass it on to what the lock protects.
        token: What proves the right.
    """

    def __init__(self, lock: Lock, token: bytes, fence: int, until: float) -> None:
        self.fence = fence
        self._lock = lock
        self.token = token
        self._until = until  # local monotonic ms
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the lock's time is over, or an extension was refused."""
        return self._lost or self._lock.access.clock().monotonic() >= self._until

    def extend(self, ttl: float | timedelta | None = None) -> None:
        """Hold the lock for ``ttl`` seconds from now (default: as long as it was taken for).

        Raises:
            LockTaken: It is not held any more.
        """
        self._lock.access.run(self._extend(ttl))

    async def aextend(self, ttl: float | timedelta | None = None) -> None:
        """See `extend`."""
        await self._lock.access.arun(self._extend(ttl))

    def _extend(self, ttl: float | timedelta | None) -> Flow[None]:
        lock = self._lock
        length = lock.ttl if ttl is None else milliseconds(ttl, "ttl")
        clock = lock.access.clock()
        yield Refresh(60_000)
        sent = clock.monotonic()
        now = clock.now()
        batch = transitions.extend_lock(lock.access.keys, lock.name, self.token, now, now + length)
        if (yield from send_one(batch)) is None:
            self._lost = True
            raise LockTaken(f"the lock {lock.name!r} is not held any more: its time was over before it was extended")
        self._until = max(self._until, sent + length)


class Lock:
    """A named lock; nothing is taken before ``with``, ``async with``, `run` or `arun`.

    Args:
        access: The way to the namespace.
        name: 1 to 200 printable characters.
        ttl: How long it is held at most, in seconds, if it is neither extended nor given back.
    """

    def __init__(self, access: Access, name: str, ttl: float | timedelta) -> None:
        self.name = check_lock_name(name)
        self.access = access
        self.ttl = milliseconds(ttl, "ttl")
        if not self.ttl:
            raise ValueError(f"the lock {name!r} needs a ttl of at least a millisecond")
        # One object may be used by many threads and tasks, and one may enter after another's time was over: each gives
        # back what it took itself.
        self._held: dict[object, list[Lease]] = {}

    def __enter__(self) -> Lease:
        lease = self.access.run(self._take())
        self._held.setdefault(threading.get_ident(), []).append(lease)
        return lease

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.access.run(self._drop(self._last(threading.get_ident())))

    async def __aenter__(self) -> Lease:
        lease = await self.access.arun(self._take())
        self._held.setdefault(asyncio.current_task(), []).append(lease)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:  # fmt: skip
        await self.access.arun(self._drop(self._last(asyncio.current_task())))

    def _last(self, who: object) -> Lease:
        if who not in self._held:
            # Entered by one thread or task and left by another, as web frameworks and test fixtures do.
            who = next(reversed(self._held))
        leases = self._held[who]
        lease = leases.pop()
        if not leases:
            del self._held[who]
        return lease

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
        """Call the function under the lock.

        Returns:
            False, without calling it, where somebody else holds the lock.

        Raises:
            TypeError: It is a coroutine function: await `arun`.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__qualname__} is a coroutine function: await lock.arun({function.__name__}, …)")
        try:
            lease = self.access.run(self._take())
        except LockTaken:
            return False
        try:
            function(*args, **kwargs)
        finally:
            self.access.run(self._drop(lease))
        return True

    async def arun(self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> bool:
        """Await the coroutine function under the lock; see `run`."""
        try:
            lease = await self.access.arun(self._take())
        except LockTaken:
            return False
        try:
            await function(*args, **kwargs)
        finally:
            await self.access.arun(self._drop(lease))
        return True

    def _take(self) -> Flow[Lease]:
        clock = self.access.clock()
        token = self.access.chance.entropy(16)
        yield Refresh(60_000)
        keys = self.access.keys
        [held] = yield Read((Holder(keys.lock(self.name)),))
        seen = held.fence if held is not None else 0
        sent = clock.monotonic()
        now = clock.now()
        applied = yield from send_one(transitions.take_lock(keys, self.name, token, now, now + self.ttl, seen))
        if applied is None:
            raise LockTaken(f"somebody else holds the lock {self.name!r}; it ends by itself after its time to live")
        [fence] = applied.answers
        assert isinstance(fence, int)
        return Lease(self, token, fence, sent + self.ttl)

    def _drop(self, lease: Lease) -> Flow[None]:
        yield from send_one(transitions.drop_lock(self.access.keys, self.name, lease.token))
