"""A storage in a process of its own, which can be killed: for storages that are a library and have no server.

Loaded only by those who use it: `multiprocessing` is not small.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Final

from jobqueue.errors import NotApplied
from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import Outcome, Storage

__all__ = ["Apart"]

_METHODS: Final = frozenset({"apply", "read", "wait", "interrupt", "close"})
_THREADS: Final = 16


class Apart:
    """A `Storage` whose every call is carried out by another process.

    Args:
        make: Makes the storage, in that process; a function or class of a module, or a `functools.partial` of one,
            because it is sent there by name. It is asked again after each `crash`, so it must find what was stored.
    """

    def __init__(self, make: Callable[[], Storage]) -> None:
        self.make = make
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()
        self._asked = 0
        self._waiting: dict[int, tuple[threading.Event, list[Any]]] = {}
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `Storage.apply`."""
        outcomes: list[Outcome] = self._call("apply", batches)
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        answers: list[Answer] = self._call("read", queries)
        return answers

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """See `Storage.wait`."""
        scope: str | None = self._call("wait", channels, timeout)
        return scope

    def interrupt(self) -> None:
        """See `Storage.interrupt`."""
        self._call("interrupt")

    def close(self) -> None:
        """End the process in good order."""
        if self._process.is_alive():
            self._call("close")
        self.kill()

    def kill(self) -> None:
        """End the process with SIGKILL; calls under way raise `NotApplied`, whatever became of them."""
        self._process.kill()
        self._process.join()
        self._reader.join()
        self._pipe.close()

    def crash(self) -> Apart:
        """Kill it, and answer another one that finds what is left."""
        self.kill()
        return Apart(self.make)

    def _call(self, method: str, *args: Any) -> Any:
        done, answer = threading.Event(), list[Any]()
        try:
            with self._lock:
                self._asked += 1
                self._waiting[self._asked] = done, answer
                self._pipe.send((self._asked, method, args))
        except OSError:
            raise NotApplied("the process of the storage is dead") from None
        done.wait()
        if not answer:
            raise NotApplied("the process of the storage died")
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def _listen(self) -> None:
        try:
            while True:
                number, answer = self._pipe.recv()
                done, box = self._waiting.pop(number)
                box.append(answer)
                done.set()
        except (EOFError, OSError):
            with self._lock:
                for done, _ in self._waiting.values():
                    done.set()


def _serve(make: Callable[[], Storage], pipe: Connection) -> None:
    storage = make()
    lock = threading.Lock()

    def carry_out(number: int, method: str, args: tuple[Any, ...]) -> None:
        assert method in _METHODS
        try:
            answer = getattr(storage, method)(*args)
        except Exception as error:  # noqa: BLE001 - whatever it raises is raised at the caller
            answer = error
        with lock:
            pipe.send((number, answer))

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            while True:
                pool.submit(carry_out, *pipe.recv())
        except (EOFError, OSError):
            return
