"""`Enqueueing`: what a `JobQueue` offers to those who have jobs to store."""

from __future__ import annotations

import contextlib
import itertools
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Never, Unpack

import msgspec

from jobqueue import flows
from jobqueue.access import Access, Opened
from jobqueue.application import introduce
from jobqueue.asked import check_records
from jobqueue.declaring import BoundFunction, JobFunction
from jobqueue.errors import NotApplied, OutcomeUnknown, PayloadError, UnknownElsewhere
from jobqueue.flows import Flow
from jobqueue.job import Call, Job
from jobqueue.logs import Careful
from jobqueue.names import suggestion
from jobqueue.options import NO_OPTIONS, EnqueueOptions
from jobqueue.record import JobRecord, R, Stored
from jobqueue.registry import Registry
from jobqueue.words import belongs_to, described

__all__ = ["Enqueueing"]

_LOG: Final = Careful("jobqueue.queue")
_KIND: Final = operator.itemgetter(0)
_ARGUMENTS: Final = operator.itemgetter(1)


@belongs_to("JobQueue")
class Enqueueing:
    """Stores jobs."""

    access: Access
    registry: Registry
    app: str | None
    max_payload: int
    max_ready: int | dict[str, int] | None
    if TYPE_CHECKING:  # it stands in `Declaring`

        def call_of(self, thing: object) -> Call[Any]:
            """See `Declaring.call_of`."""
            ...

    def enqueue(self, job: Job | Call[R], *misplaced: Never, **options: Unpack[EnqueueOptions]) -> JobRecord[R]:
        """Store one job.

        Args:
            job: An instance of a class kind, or a call made by ``function.call(…)``.
            misplaced: Nothing: arguments belong into the call.
            options: See `EnqueueOptions`.

        Returns:
            Its record. Returning means stored.

        Raises:
            PayloadError: The arguments do not fit; nothing was stored.
            NotApplied: Nothing was stored; a `QueueFull` if ``max_ready`` jobs are ready in the queue.
            OutcomeUnknown: It may have been stored.
        """
        return self.access.run(self._enqueue((self._call(job, misplaced, options),)), prepare=False)[0]

    async def aenqueue(self, job: Job | Call[R], *misplaced: Never, **options: Unpack[EnqueueOptions]) -> JobRecord[R]:
        """See `enqueue`."""
        return (await self.access.arun(self._enqueue((self._call(job, misplaced, options),)), prepare=False))[0]

    def enqueue_many(self, jobs: Iterable[Job | Call[Any]]) -> list[JobRecord[Any]]:
        """Store many jobs: all or nothing per queue up to 500 jobs and 1 MiB of arguments.

        What is more goes in parts of that size, in order, each all or nothing; what follows a part that failed is not sent.

        Raises:
            PayloadError: The arguments of one do not fit; nothing was stored.
            NotApplied: Some were not stored, see its ``stored`` and ``records``.
            OutcomeUnknown: Some may have been stored, see its ``stored`` and ``records``.
        """
        return self.access.run(self._enqueue(self._calls(jobs)), prepare=False)

    async def aenqueue_many(self, jobs: Iterable[Job | Call[Any]]) -> list[JobRecord[Any]]:
        """See `enqueue_many`."""
        return await self.access.arun(self._enqueue(self._calls(jobs)), prepare=False)

    def enqueue_records(self, records: Iterable[JobRecord[Any]]) -> list[JobRecord[Any]]:
        """Send the ``records`` of a `NotApplied` or `OutcomeUnknown` again: each is stored once.

        One that was stored by the first sending and has run to its end since is stored, and run, a second time.
        """
        return self.access.run(self._enqueue_again("enqueue_records", records), prepare=False)

    async def aenqueue_records(self, records: Iterable[JobRecord[Any]]) -> list[JobRecord[Any]]:
        """See `enqueue_records`."""
        return await self.access.arun(self._enqueue_again("aenqueue_records", records), prepare=False)

    def _call(self, job: Job | Call[R], misplaced: tuple[object, ...], options: EnqueueOptions) -> Call[R]:
        call: Call[R] = self.call_of(job)
        if misplaced:
            raise TypeError(
                f"the call of {call.kind.name!r} has its arguments already: enqueue takes it alone, and options by name"
            )
        return call.opts(**options) if options else call

    def _calls(self, jobs: Iterable[object]) -> list[Call[Any]]:
        if isinstance(jobs, Call | Job | JobFunction | BoundFunction | type) or not isinstance(jobs, Iterable):
            raise TypeError(
                "enqueue_many takes several jobs, as in jobs.enqueue_many([function.call(…), …]), "
                f"not {described(jobs)}"
            )
        return [self.call_of(job) for job in jobs]

    # ----------------------------------------------------------------------------------------------------------- flows

    def _enqueue(self, calls: Sequence[Call[R]]) -> Flow[list[JobRecord[R]]]:
        """The flow that stores a job of each call; the arguments are checked before it begins."""
        # Taken apart at once: reading attributes one by one costs more, in a class with a `__getattr__`.
        parts = [*map(msgspec.structs.astuple, calls)]
        payloads: list[bytes] = []
        for kind, group in itertools.groupby(parts, _KIND):
            if self.registry.private.get(kind.name) and self.access.opened().backend.is_shared:
                self._warn_private(kind.name)
            encoded = kind.codec.encode_all([*map(_ARGUMENTS, group)])
            longest: bytes = max(encoded, key=len)
            if len(longest) > self.max_payload:
                raise self._too_long(kind.name, longest)
            payloads += encoded
        return self._made(parts, payloads)

    def _made(self, calls: Sequence[Any], payloads: Sequence[bytes]) -> Flow[list[JobRecord[Any]]]:
        """Make a job of each call, taken apart, and its payload; and store them."""
        opened = self.access.opened()
        clock = opened.backend.clock
        now = clock.now()
        for _, _, options in calls:
            if options.delay_ms or options.at_ms is not None:
                now = yield from flows.time_to_keep(clock)
                break
        jobs: list[tuple[str, Stored]] = []
        for (kind, _, options), payload in zip(calls, payloads, strict=True):
            if options is NO_OPTIONS:
                jobs.append((kind.queue, Stored(kind.name, payload, kind.retry.limit, 0, 0, now, now)))
                continue
            due = now + options.delay_ms if options.at_ms is None else options.at_ms
            given = {"retry": kind.retry.limit, **options.stored}
            stored = Stored(kind.name, payload, attempt=0, recoveries=0, created=now, due=due, **given)
            jobs.append((options.queue or kind.queue, stored))
        records = flows.new_records(jobs, now, opened.chance)
        if opened.epoch is None or not opened.introduced:
            yield from self._first(opened, records)
        return (yield from flows.store(opened.keys.scope, records, clock, self.max_ready))

    def _enqueue_again(self, call: str, records: object) -> Flow[list[JobRecord[Any]]]:
        found = check_records(call, records)
        for index, record in enumerate(found):
            if len(record.payload) > self.max_payload:
                raise self._too_long(record.name or record.id, record.payload)
            if record.stored.parked_since:  # of another life
                stored = msgspec.structs.replace(record.stored, parked_since=0)
                found[index] = msgspec.structs.replace(record, stored=stored)
        opened = self.access.opened()
        if opened.epoch is None or not opened.introduced:
            yield from self._first(opened, found)
        return (yield from flows.store(opened.keys.scope, found, opened.backend.clock, self.max_ready, again=True))

    def _first(self, opened: Opened, records: Sequence[JobRecord[Any]]) -> Flow[None]:
        """What comes before the first jobs of a process."""
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
                for queue, meant in self._misspelt_bounds():
                    _LOG.warning("max_ready bounds queue %s, which no kind here uses%s", queue, meant)

    def _misspelt_bounds(self) -> Iterator[tuple[str, str]]:
        """The queues in ``max_ready`` whose names resemble one that a kind uses, and what is to be said of that.

        Any other name may be used by kinds that are not declared here, or by ``opts(queue=…)``.
        """
        used = {kind.queue for kind in self.registry}
        for queue in self.max_ready if isinstance(self.max_ready, dict) else ():
            if queue not in used and (meant := suggestion(queue, used)):
                yield queue, meant

    def _too_long(self, what: str, payload: bytes) -> PayloadError:
        return PayloadError(
            f"{what}: its arguments take {len(payload)} bytes, more than max_payload={self.max_payload}; "
            "nothing was stored: store the data elsewhere and pass its name"
        )

    def _warn_private(self, name: str) -> None:
        """Warn of a kind that no other process can import, at the line outside of this library that enqueues."""
        level, frame = 1, sys._getframe()  # noqa: SLF001 - `skip_file_prefixes` came with Python 3.12
        while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "jobqueue":
            level, frame = level + 1, frame.f_back
        where = (
            "inside of a function, which another process may not call"
            if "<locals>" in name
            else "in a program that cannot be imported by name, as an interactive session, a notebook or `python -c`"
        )
        warnings.warn(
            f"no other process can run the jobs of {name!r}: it is declared {where}. Declare it in a module that runners "
            "import, or say name=… where those declare it as well",
            UnknownElsewhere,
            stacklevel=level,
        )
        self.registry.private[name] = False
