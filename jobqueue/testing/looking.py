"""What a test can see of the jobs in its block, and what it is told when it expected others."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from typing import Any, Final, TypeVar, overload

from jobqueue import lookup
from jobqueue.context import Context, Flags
from jobqueue.declaring import JobFunction
from jobqueue.drive import run
from jobqueue.flows import Flow
from jobqueue.job import Call
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.queue import JobQueue
from jobqueue.record import JobRecord, R, Stored
from jobqueue.storage.ops import Place
from jobqueue.testing.backend import KitBackend
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.patterns import Pattern, What, listing, pattern, told

__all__ = ["Looking"]

T = TypeVar("T")

EVERYTHING: Final = 2**31


class Looking:
    """The part of `Testing` that changes nothing.

    It reads the storage by the short way: nothing gets lost there, and blocks inside of this one do not matter.

    Attributes:
        clock: What time it is.
        seed: Where all chance of the block comes from.
    """

    def __init__(self, jobs: JobQueue, backend: KitBackend, clock: FakeClock, seed: int) -> None:
        self.clock = clock
        self.seed = seed
        self._jobs = jobs
        self._backend = backend
        self._history = backend.history
        self._all_keys = jobs.access.keys
        self._queues_of: tuple[tuple[int, int], list[str]] = (-1, -1), []

    @overload
    def enqueued(self, what: JobFunction[..., Any, ..., R], /, **partial: Any) -> list[JobRecord[R]]: ...
    @overload
    def enqueued(self, what: Call[R], /) -> list[JobRecord[R]]: ...
    @overload
    def enqueued(self, what: What | None = None, /, **partial: Any) -> list[JobRecord[Any]]: ...

    def enqueued(self, what: What | None = None, /, **partial: Any) -> list[JobRecord[Any]]:
        """The jobs that are to be run, now or later, of all queues, in the order in which they were enqueued.

        Args:
            what: Only of this kind (a declared function, a class, a name), or only this one: a `Call` or an instance is
                exact, options of a call included. Positional.
            partial: Only with these arguments, as the job receives them, defaults filled in; others do not matter.
                Instead of a value also what is equal to it (``unittest.mock.ANY``, ``pytest.approx(…)``), or a function
                that answers whether it will do.

        Raises:
            PayloadError: An argument that the kind does not have, or of another type.
            UnknownJob: The kind is not declared on this `JobQueue`.
            TypeError: ``what`` names no kind.
        """
        wanted = pattern(self._jobs, what, partial)
        return [record for record in self._find("ready", "waiting") if wanted.differences(self._jobs, record) == []]

    @overload
    def assert_enqueued(self, what: JobFunction[..., Any, ..., R], /, **partial: Any) -> JobRecord[R]: ...
    @overload
    def assert_enqueued(self, what: Call[R], /) -> JobRecord[R]: ...
    @overload
    def assert_enqueued(self, what: What, /, **partial: Any) -> JobRecord[Any]: ...

    def assert_enqueued(self, what: What, /, **partial: Any) -> JobRecord[Any]:
        """Answer the first job that `enqueued` finds.

        Raises:
            AssertionError: There is none; the message lists what is enqueued, and what happened to jobs of this kind.
            PayloadError: An argument that the kind does not have, or of another type.
            UnknownJob: The kind is not declared on this `JobQueue`.
            TypeError: ``what`` names no kind.
        """
        __tracebackhide__ = True  # pytest shows the line of the test instead of this one
        if what is None:  # as in assert_enqueued(send_email("a@b.c")): that would hold for any job
            raise TypeError("None is no kind of job: a function that is called runs at once; write send_email.call(…)")
        wanted = pattern(self._jobs, what, partial)
        records = self._find("ready", "waiting")
        for record in records:
            if wanted.differences(self._jobs, record) == []:
                return record
        lines = [f"no job {wanted} is enqueued; what is enqueued{self._others()}:"]
        lines += listing(self._jobs, wanted, records, self.clock.datetime) if records else ["  nothing"]
        raise AssertionError("\n".join([*lines, *self._past(wanted)]))

    def refute_enqueued(self, what: What | None = None, /, **partial: Any) -> None:
        """Check that `enqueued` finds nothing.

        Raises:
            AssertionError: It does; the message lists what.
            PayloadError: An argument that the kind does not have, or of another type.
            UnknownJob: The kind is not declared on this `JobQueue`.
            TypeError: ``what`` names no kind.
        """
        __tracebackhide__ = True
        wanted = pattern(self._jobs, what, partial)
        found = self.enqueued(what, **partial)
        if found:
            lines = listing(self._jobs, wanted, found, self.clock.datetime)
            title = f"{wanted} is enqueued, and should not be:"
            raise AssertionError("\n".join([title, *lines, *self._past(wanted, {record.id for record in found})]))

    def dead(self) -> list[JobRecord[Any]]:
        """The jobs that were given up, of all queues, those longest dead first."""
        return self._find("dead", in_order=False)

    def history(self) -> str:
        """What happened to the jobs of this block until now, for people: a line for each step, with the fake time."""
        return "\n".join(self._past(Pattern()))

    def context(
        self,
        *,
        attempt: int = 1,
        fence: int = 1,
        lease_lost: bool = False,
        cancelled: bool = False,
        record: JobRecord[Any] | None = None,
        logger: logging.Logger | None = None,
    ) -> Context:
        """A context for a plain call of a job's function, without any queue.

        Args:
            attempt: 1 for the first run.
            fence: The number of the claim.
            lease_lost: Whether the runner lost its right to the job.
            cancelled: Whether the job was asked to end.
            record: The job; by default one that tells nothing.
            logger: Where the job should log to.

        Raises:
            ValueError: ``attempt`` is below 1.
        """
        if attempt < 1:
            raise ValueError(f"attempt={attempt}: the first run is attempt 1")
        if record is None:
            now = self.clock.now()
            stored = Stored("(plain call)", b"{}", 13, attempt - 1, 0, now, now)
            record = JobRecord("0" * 32, "low", stored, "working", fence=fence)
        flags = Flags()
        flags.lease_lost, flags.cancelled = lease_lost, cancelled
        if logger is None:
            return Context(record, attempt=attempt, fence=fence, flags=flags)
        return Context(record, attempt=attempt, fence=fence, flags=flags, logger=logger)

    def _others(self) -> str:
        held, dead = len(self._find("working")), len(self.dead())
        counts = [f"{count} {place}" for count, place in ((held, "working"), (dead, "dead")) if count]
        besides = f" (besides {' and '.join(counts)})" if counts else ""
        return besides if self._jobs.access.depth < 2 else f"{besides} in the innermost of the blocks that are open"

    def _past(self, wanted: Pattern, ids: Container[str] | None = None) -> list[str]:
        """What happened to the jobs of a kind, or to some of them."""
        of = "" if wanted.kind is None else f" to jobs of {wanted.kind.name}"
        title = f"what happened{of} in this block ({self._backend.url}, seed {self.seed}):"
        stories = [
            story
            for story in self._history.stories()
            if (wanted.kind is None or self._jobs.registry.get(story.stored.name) is wanted.kind)
            and (ids is None or story.id.decode("utf-8", "backslashreplace") in ids)
        ]
        return [title, *(told(self._jobs, stories) if stories else ["  nothing"])]

    def _find(self, *places: Place, in_order: bool = True) -> list[JobRecord[Any]]:
        records = self._read(lookup.find(self._keys(), places, None, EVERYTHING, None))
        return sorted(records, key=lambda record: (record.created, record.id)) if in_order else records

    def _queues(self) -> Sequence[str]:
        # Not asked for: whatever is in this namespace was written in this block.
        seen = len(self._history.scopes), len(self._jobs.registry)
        if seen != self._queues_of[0]:
            parts = (scope.partition(f"{self._all_keys.scope}:") for scope in self._history.scopes)
            used = {queue for before, _, queue in parts if not before and queue}
            self._queues_of = seen, sorted(used.union(kind.queue for kind in self._jobs.registry))
        return self._queues_of[1]

    def _keys(self) -> list[QueueKeys]:
        return [queue_keys(self._all_keys.scope, queue) for queue in self._queues()]

    def _read(self, flow: Flow[T]) -> T:
        return run(flow, self._backend.direct, self.clock)
