"""`JobQueue`: what kinds of job are declared on and jobs are enqueued through."""

from __future__ import annotations

import contextlib
import copyreg
import importlib
import itertools
import operator
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, Self, TypeVar, Unpack

import msgspec

from jobqueue import flows
from jobqueue.access import Access
from jobqueue.application import application_name, introduce
from jobqueue.backend import Backend, GivenBackend, MemoryBackend, open_backend
from jobqueue.clock import Clock
from jobqueue.errors import DeclarationError, NotApplied, OutcomeUnknown, PayloadError, UnknownJob
from jobqueue.flows import Flow, New
from jobqueue.job import Call, Job, Kind
from jobqueue.lock import Lock
from jobqueue.logs import Careful
from jobqueue.looking import Looking, check_records
from jobqueue.names import check_namespace, check_queue_name, is_importable, origin_of
from jobqueue.options import NO_OPTIONS, EnqueueOptions, Options
from jobqueue.record import JobRecord, R
from jobqueue.registry import BoundFunction, Declaring, JobFunction, Registry
from jobqueue.storage.limits import Limits
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.protocol import Storage
from jobqueue.storage.url import Url, check_url
from jobqueue.transitions import MAX_PAYLOAD
from jobqueue.words import described, explains

if TYPE_CHECKING:
    from jobqueue.testing import Testing

__all__ = ["QUEUES", "JobQueue", "declared_on"]

T = TypeVar("T")

_LOG: Final = Careful("jobqueue.queue")

DEFAULT_QUEUES: Final = ("high", "low")


@explains("JobQueue")
class JobQueue(Declaring, Looking):
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
            a `QueueFull`. Bounds what this object enqueues, not what is delayed, retried or requeued. None: no bound.
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
        self.max_ready = _check_bound(max_ready)
        self.registry = Registry()
        self._queue_names = (
            None if queues is None else frozenset(check_queue_name(queue) for queue in (*DEFAULT_QUEUES, *queues))
        )
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

    # ----------------------------------------------------------------------------------------------------- enqueueing

    def enqueue(self, job: Job | Call[R], *misplaced: Never, **options: Unpack[EnqueueOptions]) -> JobRecord[R]:
        """Store one job.

        Args:
            job: An instance of a class kind, or a call made by ``function.call(…)``.
            misplaced: Nothing: arguments belong into the call.
            options: ``queue``, ``retry``, ``delay`` (seconds) or ``at`` (an aware datetime).

        Returns:
            Its record. Returning means stored.

        Raises:
            PayloadError: The arguments do not fit; nothing was stored.
            NotApplied: Nothing was stored; a `QueueFull` if ``max_ready`` jobs are ready in the queue.
            OutcomeUnknown: It may have been stored.
        """
        return self._enqueue_call(self._call(job, misplaced, options))

    async def aenqueue(self, job: Job | Call[R], *misplaced: Never, **options: Unpack[EnqueueOptions]) -> JobRecord[R]:
        """See `enqueue`."""
        return await self._aenqueue_call(self._call(job, misplaced, options))

    def enqueue_many(self, jobs: Iterable[Job | Call[Any]]) -> list[JobRecord[Any]]:
        """Store many jobs: all or nothing per queue up to 500 jobs and 1 MiB of arguments.

        What is more goes in parts of that size, in order, each all or nothing; what follows a part that failed is not sent.

        Raises:
            PayloadError: The arguments of one do not fit; nothing was stored.
            NotApplied: Some were not stored, see its ``stored`` and ``records``.
            OutcomeUnknown: Some may have been stored, see its ``stored`` and ``records``.
        """
        return self.access.run(self._enqueue(self._new(self._calls_of(jobs))), prepare=False)

    async def aenqueue_many(self, jobs: Iterable[Job | Call[Any]]) -> list[JobRecord[Any]]:
        """See `enqueue_many`."""
        return await self.access.arun(self._enqueue(self._new(self._calls_of(jobs))), prepare=False)

    def enqueue_records(self, records: Iterable[JobRecord[Any]]) -> list[JobRecord[Any]]:
        """Send the ``records`` of a `NotApplied` or `OutcomeUnknown` again: each is stored once.

        One that was stored by the first sending and has run to its end since is stored, and run, a second time.
        """
        return self.access.run(self._store(self._again("enqueue_records", records)), prepare=False)

    async def aenqueue_records(self, records: Iterable[JobRecord[Any]]) -> list[JobRecord[Any]]:
        """See `enqueue_records`."""
        return await self.access.arun(self._store(self._again("aenqueue_records", records)), prepare=False)

    def _again(self, call: str, records: object) -> list[JobRecord[Any]]:
        found = check_records(call, records)
        for record in found:
            if len(record.payload) > self.max_payload:
                raise self._too_long(record.name or record.id, record.payload)
        return found

    def _too_long(self, what: str, payload: bytes) -> PayloadError:
        return PayloadError(
            f"{what}: its arguments take {len(payload)} bytes, more than max_payload={self.max_payload}; "
            "nothing was stored: store the data elsewhere and pass its name"
        )

    def _enqueue_call(self, call: Call[R]) -> JobRecord[R]:
        return self.access.run(self._enqueue(self._new([call])), prepare=False)[0]

    async def _aenqueue_call(self, call: Call[R]) -> JobRecord[R]:
        return (await self.access.arun(self._enqueue(self._new([call])), prepare=False))[0]

    def _call(self, job: Job | Call[R], misplaced: tuple[object, ...], options: EnqueueOptions) -> Call[R]:
        call: Call[R] = self.call_of(job)
        if misplaced:
            raise TypeError(
                f"the call of {call.kind.name!r} has its arguments already: enqueue takes it alone, and options by name"
            )
        return call.opts(**options) if options else call

    def _new(self, calls: Sequence[Call[Any]]) -> list[New]:
        new: list[New] = []
        most = self.max_payload
        # Taken apart at once: reading attributes one by one costs more, in a class with a `__getattr__`.
        for kind, group in itertools.groupby(map(msgspec.structs.astuple, calls), operator.itemgetter(0)):
            if self.registry.private.get(kind.name) and self.access.opened().backend.is_shared:
                self._warn_private(kind.name)
            alike = list(group)
            queue, name, retry = kind.queue, kind.name, kind.retry.limit
            payloads = kind.codec.encode_all([arguments for _, arguments, _ in alike])
            for (_, _, options), payload in zip(alike, payloads, strict=True):
                if len(payload) > most:
                    raise self._too_long(name, payload)
                if options is NO_OPTIONS:
                    new.append(New(queue, name, payload, retry))
                else:
                    due = options.delay_ms or None, options.at_ms
                    limit = retry if options.retry is None else options.retry
                    new.append(New(options.queue or queue, name, payload, limit, *due))
        return new

    def _enqueue(self, jobs: Sequence[New]) -> Flow[list[JobRecord[Any]]]:
        records = yield from flows.make_records(jobs, self.access.clock(), self.access.chance)
        return (yield from self._store(records))

    def _store(self, records: Sequence[JobRecord[Any]]) -> Flow[list[JobRecord[Any]]]:
        opened = self.access.opened()
        try:
            yield from self.access.prepared(opened)
        except (NotApplied, OutcomeUnknown) as error:
            # Nothing was sent of the jobs, whatever became of the look.
            failed = error if isinstance(error, NotApplied) else NotApplied(str(error))
            raise flows.retold(failed, records) from error
        if not opened.introduced:
            with contextlib.suppress(NotApplied):  # the next one says it
                told = yield from introduce(opened, self.app)
                if told is not None:
                    _LOG.warning(told)
        return (yield from flows.store(self.namespace, records, opened.backend.clock, self.max_ready))

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


def _check_bound(max_ready: int | Mapping[str, int] | None) -> int | Mapping[str, int] | None:
    if max_ready is None:
        return None
    named = max_ready if isinstance(max_ready, Mapping) else {None: max_ready}
    for queue, most in named.items():
        if queue is not None:
            check_queue_name(queue)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            told = "max_ready" if queue is None else f"max_ready of queue {queue!r}"
            raise DeclarationError(
                f"{told} is a number of jobs, at least 1, not {most!r}: without a bound leave it out"
            )
    return dict(max_ready) if isinstance(max_ready, Mapping) else max_ready


QUEUES: Final[weakref.WeakSet[JobQueue]] = weakref.WeakSet()
"""All there are in this process: where a worker process, and who checks a job, finds the one that has its kind."""


def declared_on(job: Job | Call[Any]) -> JobQueue:
    """The `JobQueue` on which the kind of a job is declared.

    Raises:
        UnknownJob: There is none any more.
        TypeError: It is no job, or a class that is registered on several.
    """
    if isinstance(job, Call):
        found = [jobs for jobs in QUEUES if jobs.registry.get(job.kind.name) is job.kind]
    elif isinstance(job, Job):
        found = [jobs for jobs in QUEUES if jobs.registry.of_class(type(job)) is not None]
    else:
        raise TypeError(f"{described(job)} is no job: pass a function's .call(…), or an instance of a registered class")
    if not found:
        what = f"the kind {job.kind.name!r}" if isinstance(job, Call) else type(job).__qualname__
        raise UnknownJob(f"{what} is not declared on any JobQueue, or was declared anew since this job was made")
    if len(found) > 1:
        raise TypeError(
            f"{type(job).__qualname__} is registered on {len(found)} JobQueues: pass jobs.call_of(…) of the one you mean"
        )
    return found[0]


# ------------------------------------------------------------------------------------------------------------- pickling
# A call, and a function with options, are pickled like the function itself: by the name of what was declared. Not by methods
# of those classes, because only here it is known where to find that again.


def _kinds(module: str, qualname: str, name: str) -> list[Kind[Any]]:
    known = (queue.registry.get(name) for queue in list(QUEUES))
    found = [kind for kind in known if kind is not None and origin_of(kind.target) == (module, qualname)]
    if len(found) < 2 or module not in sys.modules:
        return found
    # Of a module that was imported again, what it declared before may still be there.
    things = list(vars(sys.modules[module]).values())
    current = [thing.kind for thing in things if isinstance(thing, JobFunction)]
    return [kind for kind in found if kind in current or any(kind.target is thing for thing in things)]


def _found_again(module: str, qualname: str, name: str) -> Kind[Any]:
    """The kind of this name that importing its module declares.

    Raises:
        UnknownJob: There is none, or several `JobQueue` have one.
    """
    if not _kinds(module, qualname, name):
        importlib.import_module(module)
    found = _kinds(module, qualname, name)
    if len(found) != 1:
        raise UnknownJob(f"{len(found)} JobQueues know {name!r}, declared as {qualname} in {module}: it has to be one")
    return found[0]


def _pickled_kind(kind: Kind[Any]) -> tuple[Any, ...]:
    if not is_importable(kind.target):
        raise TypeError(
            f"a call of {kind.name!r} cannot be pickled, since no other process can find what declares it: declare it at "
            "the top of a module that is in a file"
        )
    module, qualname = origin_of(kind.target)
    found = _kinds(module, qualname, kind.name)
    if len(found) != 1 or found[0] is not kind:
        raise TypeError(
            f"a call of {kind.name!r} cannot be pickled: it was declared anew since, or is declared on several JobQueues"
        )
    return _found_again, (module, qualname, kind.name)


def _bound_again(kind: Kind[Any], options: Options) -> BoundFunction[..., Any]:
    return BoundFunction(next(queue for queue in QUEUES if queue.registry.get(kind.name) is kind), kind, options)


def _pickled_bound(function: BoundFunction[..., Any]) -> tuple[Any, ...]:
    return _bound_again, (function.kind, function._options)  # noqa: SLF001 - its other half


copyreg.pickle(Kind, _pickled_kind)
copyreg.pickle(BoundFunction, _pickled_bound)
