"""The way from a `JobQueue` to its storage: opened at first use, once per process, one async storage per event loop."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

from jobqueue import flows
from jobqueue.backend import Backend
from jobqueue.clock import Clock
from jobqueue.drive import arun, run
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
        known: Queues that were registered through it.
        epoch: The epoch of the namespace, once it was looked at.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.known: set[str] = set()
        self.epoch: bytes | None = None
        self.pid = os.getpid()
        self._storage: Storage | None = None
        self._lock = threading.Lock()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncStorage] = weakref.WeakKeyDictionary()

    def storage(self) -> Storage:
        """The storage of the threads of this process."""
        if self._storage is None:
            with self._lock:
                if self._storage is None:
                    self._storage = self.backend.storage()
        return self._storage

    def async_storage(self) -> AsyncStorage:
        """The storage of the running event loop."""
        loop = asyncio.get_running_loop()
        storage = self._by_loop.get(loop)
        if storage is None:
            storage = self._by_loop[loop] = self.backend.async_storage()
        return storage

    def close(self) -> None:
        """Give back the connections."""
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        self.backend.close()

    async def aclose(self) -> None:
        """Give back the connections of the running loop."""
        storage = self._by_loop.pop(asyncio.get_running_loop(), None)
        if storage is not None:
            await storage.close()


class Access:
    """How one `JobQueue` reaches its storage.

    Args:
        namespace: The namespace.
        open_backend: Opens the backend.
    """

    def __init__(self, namespace: str, open_backend: Callable[[], Backend]) -> None:
        self.keys: NamespaceKeys = namespace_keys(namespace)
        self.chance: Chance = SystemChance()
        self._open_backend = open_backend
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._replaced: list[Opened] = []

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
                    opened = self._opened = Opened(self._open_backend())
        return opened

    def clock(self) -> Clock:
        """The clock of what is in use now."""
        return self.opened().backend.clock

    def replace(self, backend: Backend) -> Callable[[], None]:
        """Use another backend until the answered function is called; replacements stack."""
        replacement = Opened(backend)
        self._replaced.append(replacement)
        return lambda: self._replaced.remove(replacement)

    def run(self, flow: Flow[T]) -> T:
        """Drive a flow, blocking the calling thread."""
        opened = self.opened()
        return run(self._checked(opened, flow), opened.storage(), opened.backend.clock)

    async def arun(self, flow: Flow[T]) -> T:
        """Drive a flow on the running event loop."""
        opened = self.opened()
        return await arun(self._checked(opened, flow), opened.async_storage(), opened.backend.clock)

    def _checked(self, opened: Opened, flow: Flow[T]) -> Flow[T]:
        if opened.epoch is None:
            opened.epoch = yield from flows.prepare(self.keys, self.chance)
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
