"""The way from a `JobQueue` to its storage: opened at first use, once per process, one async storage per event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from jobqueue import meta
from jobqueue.backend import Backend
from jobqueue.clock import Clock
from jobqueue.drive import Awaiting, Blocking
from jobqueue.errors import JobQueueError
from jobqueue.flows import Flow
from jobqueue.ids import Chance, SystemChance
from jobqueue.keys import NamespaceKeys, namespace_keys
from jobqueue.loops import adrive, drive
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
        introduced: Whether the application has left its name in the namespace, or need not.
    """

    def __init__(self, backend: Backend, chance: Chance, keys: NamespaceKeys, *, pauses: bool = True) -> None:
        self.backend = backend
        self.chance = chance
        self.keys = keys
        self.pauses = pauses
        self.thread = threading.get_ident()
        self.task = _current_task()
        self.epoch: bytes | None = None
        self.introduced = not backend.is_shared
        self.pid = os.getpid()
        self._storages: dict[str, Storage] = {}  # one at most
        self._lock = threading.RLock()
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[AsyncStorage, AsyncGenerator[None]]] = {}

    def storage(self) -> Storage:
        """The storage of the threads of this process."""
        storage = self._storages.get("")
        if storage is None:
            with self._lock:  # not twice, except by a call that interrupts this: then the first that is entered counts
                storage = self._storages.get("")
                if storage is None:
                    storage = self._storages.setdefault("", self.backend.storage())
        return storage

    async def async_storage(self) -> AsyncStorage:
        """The storage of the running event loop; closed when the loop is shut down."""
        loop = asyncio.get_running_loop()
        if loop not in self._by_loop:
            for closed in [other for other in list(self._by_loop) if other.is_closed()]:
                self._by_loop.pop(closed, None)
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
        storage = self._storages.pop("", None)
        if storage is not None:
            storage.close()
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
        self._locks: dict[int, threading.RLock] = {}
        self._by_process: dict[
            int, Opened
        ] = {}  # that of this process, and perhaps what a fork has left of its parent's
        self._replaced: list[Opened] = []

    @property
    def _lock(self) -> threading.RLock:
        """The lock of this process: another thread may have held the parent's when this one was forked, for good.

        A call that interrupts another one of the same thread (a signal handler, a finalizer) passes it, or it would wait
        for itself. So what it guards must be right then as well: it keeps others from doing in vain what is done already.
        """
        return self._locks.setdefault(os.getpid(), threading.RLock())

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
        process = os.getpid()
        opened = self._by_process.get(process)
        if opened is None:
            with self._lock:
                opened = self._by_process.get(process)
                if opened is None:
                    # A forked child keeps nothing of its parent's: neither connections nor what they know.
                    for other in set(self._by_process) - {process}:
                        self._by_process.pop(other, None)
                    mine = Opened(self._open_backend(), self._chance, self._keys)
                    opened = self._by_process.setdefault(process, mine)
                    if opened is not mine:  # a call that interrupted this one was faster
                        mine.close()
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
        replacement.introduced = True
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
        backend = opened.backend
        return drive(flow, Blocking(opened.storage(), backend.clock, backend.timeout, opened.pauses))

    async def arun(self, flow: Flow[T], *, prepare: bool = True) -> T:
        """Drive a flow on the running event loop; see `run`."""
        opened = self.opened()
        if prepare:
            flow = self._prepared_first(opened, flow)
        backend = opened.backend
        storage = await opened.async_storage()
        return await adrive(flow, Awaiting(storage, backend.clock, backend.timeout, opened.pauses))

    def prepared(self, opened: Opened) -> Flow[None]:
        """Look at first use whether this version may use the namespace."""
        if opened.epoch is None:
            opened.epoch = yield from meta.prepare(opened.keys, opened.chance)

    def _prepared_first(self, opened: Opened, flow: Flow[T]) -> Flow[T]:
        yield from self.prepared(opened)
        return (yield from flow)

    def close(self) -> None:
        """Give back the connections; the next use opens new ones."""
        opened = self._by_process.pop(os.getpid(), None)
        if opened is not None:
            opened.close()

    async def aclose(self) -> None:
        """Give back the connections of the running loop, and the others."""
        opened = self._by_process.get(os.getpid())
        if opened is not None:
            await opened.aclose()
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
