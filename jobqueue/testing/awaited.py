"""Notices calls of ``a…`` methods that nobody awaits.

Python itself only warns, some time later, and often into the void. While a testing block is open, the methods remember the
coroutines they hand out. Rejected: to listen for Python's warning, which does not come for a coroutine that somebody still
holds; and to look through all objects of the process, which takes a large program a tenth of a second for every test.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

from jobqueue.access import Access
from jobqueue.declaring import BoundFunction, JobFunction
from jobqueue.enqueueing import Enqueueing
from jobqueue.lock import Lease, Lock
from jobqueue.looking import Looking
from jobqueue.operating import Operating
from jobqueue.queue import JobQueue

__all__ = ["Watch", "watch_also"]

ENOUGH: Final = 256
"""So many remembered calls are gone through for those that have begun."""

# How each class finds the storage it would use.
_ACCESS: Final[dict[type, Callable[[Any], Access]]] = {
    JobQueue: lambda jobs: jobs.access,
    Enqueueing: lambda jobs: jobs.access,  # bases of it
    Looking: lambda jobs: jobs.access,
    Operating: lambda jobs: jobs.access,
    JobFunction: lambda function: function.queue.access,
    BoundFunction: lambda function: function.queue.access,
    Lock: lambda lock: lock.access,
    Lease: lambda lease: lease._lock.access,  # noqa: SLF001 - one package
}
_guard: Final = threading.Lock()
_watches: Final[dict[Access, list[Watch]]] = {}
_originals: Final[list[tuple[type, str, Any]]] = []


class Watch:
    """The ``a…`` calls that were made through one `JobQueue` in one block.

    Args:
        access: The storage access of the `JobQueue`.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._calls: list[tuple[Coroutine[Any, Any, Any], str]] = []

    def __enter__(self) -> Self:
        with _guard:
            if not _watches:
                _patch()
            _watches.setdefault(self._access, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        with _guard:
            _watches[self._access].remove(self)
            if not _watches[self._access]:
                del _watches[self._access]
            if not _watches:
                _unpatch()

    def add(self, coroutine: Coroutine[Any, Any, Any], where: str) -> None:
        """Remember a call."""
        if len(self._calls) >= ENOUGH:
            self._calls = [call for call in self._calls if _is_unused(call[0])]
        self._calls.append((coroutine, where))

    def unused(self) -> list[str]:
        """Where the calls are that nobody awaited; they cannot be awaited any more."""
        found = []
        for coroutine, where in self._calls:
            if _is_unused(coroutine):
                coroutine.close()  # or Python would warn as well
                found.append(where)
        self._calls.clear()
        return found


def watch_also(cls: type, access_of: Callable[[Any], Access]) -> None:
    """Notice the ``a…`` calls of another class, once no block is open.

    Args:
        cls: The class.
        access_of: Answers the storage access that an instance uses.
    """
    _ACCESS[cls] = access_of


def _is_unused(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _watched(cls: type, name: str, access_of: Callable[[Any], Access]) -> Callable[..., Any]:
    """A coroutine method of a class that tells the innermost watch of its `JobQueue` what it hands out."""
    original = vars(cls)[name]

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        coroutine: Coroutine[Any, Any, Any] = original(self, *args, **kwargs)
        watches = _watches.get(access_of(self))
        if watches:
            frame = inspect.currentframe()
            caller = frame.f_back if frame is not None else None
            place = f" at {caller.f_code.co_filename}:{caller.f_lineno}" if caller is not None else ""
            watches[-1].add(coroutine, f"{type(self).__name__}.{name}(){place}")
        return coroutine

    # Web frameworks ask a function what it is before they call it.
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(call)
    else:
        call._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # noqa: SLF001
    return call


def _patch() -> None:
    for cls, access_of in _ACCESS.items():
        for name, method in list(vars(cls).items()):
            if inspect.iscoroutinefunction(method) and not name.startswith("_"):
                _originals.append((cls, name, method))
                setattr(cls, name, _watched(cls, name, access_of))


def _unpatch() -> None:
    while _originals:
        cls, name, method = _originals.pop()
        setattr(cls, name, method)
