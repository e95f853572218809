"""The conformance suite: whether a storage keeps the ten rules of `jobqueue.storage.protocol`.

Needs no test framework::

    from jobqueue.testing import check_storage

    def test_my_storage():
        check_storage(lambda: MyStorage("localhost"))
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import attrs

from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import AsyncStorage, Outcome, Storage
from jobqueue.testing.cases import batches, claims, large, moves, waiting
from jobqueue.testing.cases.bench import Bench, CaseFailed, cases

__all__ = ["ConformanceError", "ConformanceFailure", "ConformanceReport", "check_async_storage", "check_storage"]

T = TypeVar("T")

_MODULES = (batches, moves, claims, large, waiting)  # imported because each registers its cases


@attrs.frozen
class ConformanceFailure:
    """A case that failed.

    Attributes:
        rule: Number of the rule that it checks.
        case: Its name.
        reason: What was expected and what was got, or the traceback of an error.
    """

    rule: int
    case: str
    reason: str


@attrs.frozen
class ConformanceReport:
    """What was checked.

    Attributes:
        passed: (rule, case) of all that passed.
        failures: The others.
    """

    passed: tuple[tuple[int, str], ...]
    failures: tuple[ConformanceFailure, ...]


class ConformanceError(AssertionError):
    """A storage breaks rules; the message names each case that failed, with what was expected and what was got.

    Attributes:
        report: All of it as values.
    """

    def __init__(self, report: ConformanceReport) -> None:
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        failures = self.report.failures
        total = len(failures) + len(self.report.passed)
        lines = [f"{len(failures)} of {total} cases failed:"]
        lines += [f"\nrule {each.rule}: {each.case}\n  {each.reason}" for each in failures]
        return "\n".join(lines)


def check_storage(make: Callable[[], Storage], *, patience: float = 20.0) -> ConformanceReport:
    """Run all cases against a storage.

    Every case uses a storage of its own from ``make`` (closed afterwards) and names that nothing else uses, so the
    server need not be empty. What the cases write stays there: use a database for tests.

    Args:
        make: Makes a storage; all may share one server.
        patience: How long in seconds a wait may take that should return at once; a storage that loses wake-ups fails
            after this time, a good one never needs it.

    Returns:
        What was checked, with no failures.

    Raises:
        ConformanceError: At least one case failed. All were run.
    """
    passed: list[tuple[int, str]] = []
    failures: list[ConformanceFailure] = []
    for case in cases():
        try:
            storage = make()
            try:
                case.run(Bench(storage, patience))
            finally:
                storage.close()
        except CaseFailed as failed:
            failures.append(ConformanceFailure(case.rule, case.name, str(failed)))
        except Exception:  # noqa: BLE001 - whatever a storage raises is a failure of this case, and the others still run
            failures.append(ConformanceFailure(case.rule, case.name, traceback.format_exc()))
        else:
            passed.append((case.rule, case.name))
    report = ConformanceReport(tuple(passed), tuple(failures))
    if failures:
        raise ConformanceError(report)
    return report


def check_async_storage(make: Callable[[], AsyncStorage], *, patience: float = 20.0) -> ConformanceReport:
    """Run the very same cases against an asynchronous storage; see `check_storage`.

    Everything of it, ``make`` included, runs on one event loop in a thread that this function starts and ends.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="jobqueue-conformance")
    thread.start()
    try:
        return check_storage(lambda: _OnLoop(make, loop), patience=patience)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _OnLoop:
    """A `Storage` for any thread over an `AsyncStorage` of one event loop."""

    def __init__(self, make: Callable[[], AsyncStorage], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

        async def call() -> AsyncStorage:
            return make()

        self._storage = self._run(call())

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return self._run(self._storage.apply(batches))

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return self._run(self._storage.read(queries))

    def wait(self, channels: Sequence[str], timeout: float, /) -> None:
        self._run(self._storage.wait(channels, timeout))

    def interrupt(self) -> None:
        self._run(self._storage.interrupt())

    def close(self) -> None:
        self._run(self._storage.close())

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(call, self._loop)
        return future.result()
