"""The way from a `JobQueue` to its storage: opened at first use, once per process, one async storage per event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from jobqueue import flows
from jobqueue.backend import Backend
from jobqueue.clock import Clock
from jobqueue.drive import arun, run
from jobqueue.errors import JobQueueError
from jobqueue.flows import Flow
from jobqueue.ids import Chance, SystemChance
from jobqueue.keys import NamespaceKeys, namespace_keys
from jobqueue.storage.protocol import AsyncStorage, Storage

__all__ = ["Access", "Opened"]

T = TypeVar("T")


class Opened:
    """A backend with the storages made of it; belongs to one process.

    Attributes:
        backend: The backend.
        epoch: The epoch of the namespace, once it was looked at.
        chance: Where its ids, nonces and tokens come from.
        keys: The namespace in which it works.
        pauses: Whether flows wait before they send again; under a clock that stands still nobody should.
        thread: The thread that opened it.
    """

    def __init__(self, backend: Backend, chance: Chance, keys: NamespaceKeys, *, pauses: bool = True) -> None:
        self.backend = backend
        self.chance = chance
        self.keys = keys
        self.pauses = pauses
        self.thread = threading.get_ident()
        self.task = _current_task()
        self.epoch: bytes | None = None
        self.pid = os.getpid()
        self._storage: Storage | None = None
        self._lock = threading.Lock()
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[AsyncStorage, AsyncGenerator[None]]] = {}

    def storage(self) -> Storage:
        """The storage of the threads of this process."""
        if self._storage is None:
            with self._lock:
                if self._storage is None:
                    self._storage = self.backend.storage()
        return self._storage

    async def async_storage(self) -> AsyncStorage:
        """The storage of the running event loop; closed when the loop is shut down."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for closed in [other for other in self._by_loop if other.is_closed()]:
                del self._by_loop[closed]
            storage = self.backend.async_storage()
            # `asyncio.run` ends the asynchronous generators of its loop, and that is the one moment at which connections
            # of a loop can still be closed. A weak reference would not do: a connection keeps its loop alive.
            guard = self._until_the_end(loop, storage)
            self._by_loop[loop] = storage, guard
            await anext(guard)
        return self._by_loop[loop][0]

    async def _until_the_end(self, loop: asyncio.AbstractEventLoop, storage: AsyncStorage) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._by_loop.pop(loop, None)
            await storage.close()

    def close(self) -> None:
        """Give back the connections."""
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        self.backend.close()

    async def aclose(self) -> None:
        """Give back the connections of the running loop."""
        entry = self._by_loop.get(asyncio.get_running_loop())
        if entry is not None:
            await entry[1].aclose()


class Access:
    """How one `JobQueue` reaches its storage.

    Args:
        namespace: The namespace.
        open_backend: Opens the backend.
    """

    def __init__(self, namespace: str, open_backend: Callable[[], Backend]) -> None:
        self._keys = namespace_keys(namespace)
        self._chance: Chance = SystemChance()
        self._open_backend = open_backend
        self._locks: dict[int, threading.Lock] = {}
        self._opened: Opened | None = None
        self._replaced: list[Opened] = []

    @property
    def _lock(self) -> threading.Lock:
        """The lock of this process: another thread may have held the parent's when this one was forked, for good."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    @property
    def keys(self) -> NamespaceKeys:
        """The keys of the namespace in use now."""
        return self._replaced[-1].keys if self._replaced else self._keys

    def relocate(self, namespace: str) -> None:
        """Work in another namespace from now on, whose name has been checked."""
        self._keys = namespace_keys(namespace)

    def opened(self) -> Opened:
        """What is in use now."""
        if self._replaced:
            return self._replaced[-1]
        opened = self._opened
        if opened is None or opened.pid != os.getpid():
            with self._lock:
                opened = self._opened
                if opened is None or opened.pid != os.getpid():
                    # A forked child keeps nothing of its parent's: neither connections nor what they know.
                    opened = self._opened = Opened(self._open_backend(), self._chance, self._keys)
        return opened

    @property
    def chance(self) -> Chance:
        """Where ids, nonces and tokens come from now."""
        return self._replaced[-1].chance if self._replaced else self._chance

    def clock(self) -> Clock:
        """The clock of what is in use now."""
        return self.opened().backend.clock

    @property
    def depth(self) -> int:
        """How many replacements are in use, one inside of the other."""
        return len(self._replaced)

    def uses(self, backend: Backend) -> bool:
        """Whether this is the replacement in use; opens nothing."""
        return bool(self._replaced) and self._replaced[-1].backend is backend

    def replace(
        self, backend: Backend, *, namespace: str | None = None, chance: Chance | None = None, pauses: bool = True
    ) -> Callable[[], None]:
        """Use another backend until the answered function is called; replacements of one thread stack.

        Args:
            backend: What to use, in all threads.
            namespace: Where to work on it, a name that has been checked; where one is already if None.
            chance: Where ids, nonces and tokens come from; the operating system if None.
            pauses: Whether flows wait before they send again.

        Raises:
            JobQueueError: Another thread, or another task of this thread, replaced it and has not ended that yet.
        """
        keys = self.keys if namespace is None else namespace_keys(namespace)
        replacement = Opened(backend, self._chance if chance is None else chance, keys, pauses=pauses)
        with self._lock:
            if self._replaced and (other := _stranger(self._replaced[-1], replacement)):
                raise JobQueueError(
                    f"the storage of this JobQueue is swapped already, by a testing() block of another {other}: the swap is "
                    f"process-wide, so let that block end first, or give each {other} a JobQueue of its own"
                )
            self._replaced.append(replacement)
        return lambda: self._replaced.remove(replacement)

    def run(self, flow: Flow[T], *, prepare: bool = True) -> T:
        """Drive a flow, blocking the calling thread; without ``prepare`` it calls `prepared` by itself."""
        opened = self.opened()
        if prepare:
            flow = self._prepared_first(opened, flow)
        return run(flow, opened.storage(), opened.backend.clock, pauses=opened.pauses)

    async def arun(self, flow: Flow[T], *, prepare: bool = True) -> T:
        """Drive a flow on the running event loop; see `run`."""
        opened = self.opened()
        if prepare:
            flow = self._prepared_first(opened, flow)
        return await arun(flow, await opened.async_storage(), opened.backend.clock, pauses=opened.pauses)

    def prepared(self, opened: Opened) -> Flow[None]:
        """Look at first use whether this version may use the namespace."""
        if opened.epoch is None:
            opened.epoch = yield from flows.prepare(opened.keys, opened.chance)

    def _prepared_first(self, opened: Opened, flow: Flow[T]) -> Flow[T]:
        yield from self.prepared(opened)
        return (yield from flow)

    def close(self) -> None:
        """Give back the connections; the next use opens new ones."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            opened.close()

    async def aclose(self) -> None:
        """Give back the connections of the running loop, and the others."""
        if self._opened is not None:
            await self._opened.aclose()
        self.close()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None  # no loop is running


def _stranger(outer: Opened, inner: Opened) -> str:
    """What the two do not share: the one must not work in the other's storage. A task that has ended left it to others."""
    if outer.thread != inner.thread:
        return "thread"
    if outer.task is not None and inner.task not in (None, outer.task) and not outer.task.done():
        return "task"
    return ""
