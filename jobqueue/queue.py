"""`JobQueue`: what kinds of job are declared on and jobs are enqueued through."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from jobqueue.access import Access
from jobqueue.application import application_name
from jobqueue.backend import Backend, GivenBackend, MemoryBackend, open_backend
from jobqueue.clock import Clock
from jobqueue.declared import QUEUES
from jobqueue.declaring import Declaring
from jobqueue.enqueueing import Enqueueing
from jobqueue.errors import DeclarationError
from jobqueue.lock import Lock
from jobqueue.looking import Looking
from jobqueue.names import check_namespace, check_queue_name
from jobqueue.operating import Operating
from jobqueue.options import check_known_queue
from jobqueue.registry import Registry
from jobqueue.storage.limits import Limits
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.protocol import Storage
from jobqueue.storage.url import Url, check_url
from jobqueue.transitions import MAX_PAYLOAD
from jobqueue.words import explains

if TYPE_CHECKING:
    from jobqueue.testing import Testing

__all__ = ["DEFAULT_QUEUES", "JobQueue"]

DEFAULT_QUEUES: Final = ("high", "low")


@explains("JobQueue")
class JobQueue(Declaring, Enqueueing, Looking, Operating):
    """Declares kinds of job, enqueues jobs, and looks at those that are stored.

    One object serves any number of threads, event loops and forked children. Nothing connects before the first use.

    Args:
        url: Where jobs are stored: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``,
            ``memory://`` or ``embedded:///directory``. None: the environment's ``JOBQUEUE_URL``, read at first use.
        namespace: Keeps applications on one server apart: 1–64 characters of ``A–Z a–z 0–9 _ . -``.
        app: Name of the application: two of different names in one namespace are warned. By default the package or module in
            which this is made.
        imports: Modules that declare kinds; imported by `Runner`, the command line and `load`.
        queues: The only queues there are, besides those that a kind declares by default: any other name is an error.
        max_payload: Bytes that the arguments of one job may take as JSON. What is stored and takes more, and more than the
            default, is not read: it goes to dead as it is.
        max_ready: How many jobs may be ready in each queue, or in those that are named (``{"mail": 1_000}``). One more is
            a `QueueFull`. Bounds what this object enqueues, not what is delayed, retried or requeued. None: no bound. With
            ``queues`` a misspelt name is an error; without, the first enqueueing warns of one that resembles a kind's queue.
        storage: A storage of your own, instead of a URL.
        client: A client of redis-py to take the connection settings from, instead of a URL.
        clock: The clock of ``storage``; the machine's own by default.
        allow_eviction: Work with a server that may drop keys when its memory is full.
        allow_unverified_tls: Speak TLS with a server whose certificate is not verified, where the URL or the client asks for
            that; ``?allow_unverified_tls=`` in the URL wins.
        timeout: How long a call may take in all, in seconds or as a `timedelta`: connecting, waiting for a connection,
            retries. 10 by default; ``?timeout=`` in the URL wins.
        max_connections: How many connections calls of this process open at most, again for each event loop: 10 by default;
            ``?max_connections=`` in the URL wins. One more asks for the time.

    Raises:
        DeclarationError: An argument cannot work.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "jobqueue",
        app: str | None = None,
        imports: Iterable[str] = (),
        queues: Iterable[str] | None = None,
        max_payload: int = MAX_PAYLOAD,
        max_ready: int | Mapping[str, int] | None = None,
        storage: Storage | None = None,
        client: Any = None,
        clock: Clock | None = None,
        allow_eviction: bool = False,
        allow_unverified_tls: bool = False,
        timeout: float | timedelta | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._allow_unverified_tls = allow_unverified_tls
        if isinstance(url, str):
            url = Url(url)  # a traceback with variables shows them by their repr
        self.url = None if url is None else check_url(url, allow_unverified_tls=allow_unverified_tls)
        self._limits = Limits.of(timeout, max_connections)
        if sum(given is not None for given in (url, storage, client)) > 1:
            raise DeclarationError("JobQueue takes a url, a storage or a client: only one of them")
        for what, names in (("imports", imports), ("queues", queues)):
            if isinstance(names, str):
                raise DeclarationError(f"{what} is a list of names: {what}=[{names!r}]")
        if isinstance(max_payload, bool) or not isinstance(max_payload, int) or max_payload < 1:
            raise DeclarationError(f"max_payload is a number of bytes, at least 1, not {max_payload!r}")
        if storage is not None and not callable(getattr(storage, "apply", None)):
            raise DeclarationError(f"storage= takes a Storage, such as MemoryStorage(), not {storage!r}")
        self.imports = tuple(imports)
        self.app = application_name(app, _making_scope())
        self.max_payload = max_payload
        self.registry = Registry()
        self._queue_names = (
            None if queues is None else frozenset(check_queue_name(queue) for queue in (*DEFAULT_QUEUES, *queues))
        )
        self.max_ready = _check_bound(max_ready, self._queue_names)
        self._given = storage, clock
        if client is not None:
            from jobqueue.storage.redis import RedisServer

            # A client that cannot be used is refused here; nothing connects.
            RedisServer.of(client, allow_unverified_tls=allow_unverified_tls)
        self._client = client
        self._allow_eviction = allow_eviction
        self.access = Access(check_namespace(namespace), self._backend)
        QUEUES.add(self)

    @property
    def namespace(self) -> str:
        """Keeps applications on one server apart; a `testing` block on a server has one of its own."""
        return self.access.keys.scope

    def lock(self, name: str, ttl: float | timedelta) -> Lock:
        """A lock that ends by itself after ``ttl`` seconds; taken by ``with``, ``async with``, `Lock.run` or `Lock.arun`."""
        return Lock(self.access, name, ttl)

    # -------------------------------------------------------------------------------------------------------- storage

    def _backend(self) -> Backend:
        storage, clock = self._given
        if isinstance(storage, MemoryStorage):
            return MemoryBackend(storage, clock)
        if storage is not None:
            return GivenBackend(storage, clock)
        return open_backend(
            self.url, self._client, self._limits, allow_eviction=self._allow_eviction,
            allow_unverified_tls=self._allow_unverified_tls,
        )  # fmt: skip

    def close(self) -> None:
        """Give back the connections; the next call opens new ones."""
        self.access.close()

    async def aclose(self) -> None:
        """Give back the connections of the running loop and those of `close`."""
        await self.access.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:  # fmt: skip
        await self.aclose()

    # ---------------------------------------------------------------------------------------------------------- other

    def load(self) -> None:
        """Import the modules named by ``imports``, so that the kinds they declare are known.

        Raises:
            DeclarationError: One of them does not exist.
        """
        for module in self.imports:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
                    raise
                raise DeclarationError(
                    f"imports={list(self.imports)!r}: there is no module {module!r} on the path; "
                    "run from the project's directory, or name it with --app-dir"
                ) from error

    def relocate(self, *, url: str | None = None, namespace: str | None = None) -> None:
        """Work elsewhere than declared from now on, as the command line's ``--url`` and ``--namespace`` ask for.

        Raises:
            DeclarationError: The URL or the namespace cannot be, or a storage or client was given in code.
        """
        self.close()  # a module that used it while it was imported did so elsewhere
        if url is not None:
            if self._client is not None or self._given[0] is not None:
                raise DeclarationError("this JobQueue was given a storage or a client in code: a URL cannot replace it")
            url = Url(url)
            self.url = check_url(url, allow_unverified_tls=self._allow_unverified_tls)
        if namespace is not None:
            self.access.relocate(check_namespace(namespace))

    def testing(
        self, *, start: datetime | None = None, url: str | None = None, seed: int = 0
    ) -> AbstractContextManager[Testing]:
        """Swap the storage for an empty one with a fake clock, for the length of a ``with`` block.

        Args:
            start: What the fake clock shows at first; by default the start of 2030 (UTC).
            url: Store in a namespace of its own on this server, which is removed at the end, instead of in memory;
                ``embedded://`` starts a server for this block, ``memory://`` is as without one. The clock is fake there too.
            seed: Where all chance of the block comes from: ids, tokens, jitter.

        Raises:
            DeclarationError: Nothing can open the URL.
            NotApplied: The server cannot be reached.
        """
        from jobqueue.testing import open_testing

        return open_testing(self, start, server=url, seed=seed)


def _making_scope() -> dict[str, Any]:
    """The global names of the code that makes a `JobQueue`, behind what `explains` puts around that."""
    frame = sys._getframe(1)  # noqa: SLF001 - the way that typing.NamedTuple and attrs take
    while frame.f_back is not None and frame.f_globals.get("__name__") in (__name__, explains.__module__):
        frame = frame.f_back
    return frame.f_globals


def _check_bound(
    max_ready: int | Mapping[str, int] | None, known: frozenset[str] | None
) -> int | dict[str, int] | None:
    if max_ready is None:
        return None
    named = max_ready if isinstance(max_ready, Mapping) else {None: max_ready}
    for queue, most in named.items():
        if queue is not None:
            check_known_queue(queue, known)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            told = "max_ready" if queue is None else f"max_ready of queue {queue!r}"
            raise DeclarationError(
                f"{told} is a number of jobs, at least 1, not {most!r}: without a bound leave it out"
            )
    return dict(max_ready) if isinstance(max_ready, Mapping) else max_ready
