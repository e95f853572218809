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
from functools import partial
from typing import Any, Final, TypeVar, cast

import attrs

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.storage.ops import Answer, Batch, Query
from jobqueue.storage.protocol import AsyncStorage, Outcome, Storage
from jobqueue.testing.cases import batches, claims, finding, handles, large, mending, moves, waiting
from jobqueue.testing.cases.bench import Bench, Case, CaseFailed, Offers, cases
from jobqueue.testing.needs import need_hypothesis

__all__ = ["ConformanceError", "ConformanceFailure", "ConformanceReport", "check_async_storage", "check_storage"]

T = TypeVar("T")

METHODS: Final = ("apply", "read", "wait", "interrupt", "close")

_MODULES = (
    batches,
    moves,
    mending,
    claims,
    large,
    waiting,
    handles,
    finding,
)  # imported because each registers its cases


@attrs.frozen
class ConformanceFailure:
    """A case that failed.

    Attributes:
        rule: Number of the rule that it checks; 0 for the comparison with the memory storage, which checks all.
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
        failures: Those that did not.
        not_claimed: (rule, case) of those that need what the storage was not said to offer; they were not run.
    """

    passed: tuple[tuple[int, str], ...]
    failures: tuple[ConformanceFailure, ...]
    not_claimed: tuple[tuple[int, str], ...] = ()


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
        lines += [f"\nrule {each.rule or '1 to 10'}: {each.case}\n  {each.reason}" for each in failures]
        if self.report.not_claimed:
            lines.append("\nnot claimed: " + ", ".join(name for _, name in self.report.not_claimed))
        return "\n".join(lines)


def check_storage(
    make: Callable[[], Storage],
    *,
    another: Callable[[Storage], Storage] | None = None,
    crash: Callable[[Storage], Storage] | None = None,
    wakes_others: bool = True,
    lockstep: int = 0,
    patience: float = 20.0,
) -> ConformanceReport:
    """Run all cases against a storage.

    Every case uses a storage of its own from ``make`` (closed afterwards) and names that nothing else uses, so the
    server need not be empty. What the cases write stays there: use a database for tests.

    A case that needs what a storage was not said to offer (``another``, ``crash``, ``wakes_others``) is not run; the
    report lists it as not claimed.

    Args:
        make: Makes a storage; all may share one server.
        another: Opens one more handle of the store that the given storage is a handle of, as another process would.
        crash: Ends without warning whatever keeps the given storage's store (`jobqueue.testing.Apart` can do that
            for a storage that is a library), and answers a handle of what is left. It is called while threads are
            writing; the given storage is not used any more after they have met the end.
        wakes_others: Whether a batch through one handle ends the wait of another; say False for a storage that only
            looks again after a while.
        lockstep: How many random sequences of batches and queries to compare with the memory storage, step by step;
            100 take a few seconds. Needs the package ``hypothesis``, which then shrinks what it found.
        patience: How long in seconds a wait may take that should return at once; a storage that loses wake-ups fails
            after this time, a good one never needs it.

    Returns:
        What was checked, with no failures.

    Raises:
        ConformanceError: At least one case failed. All were run.
        TypeError: ``make`` is no function, or what it makes lacks a method of a storage; nothing was checked.
        ModuleNotFoundError: ``lockstep`` without the package ``hypothesis``; nothing was checked.
    """
    _check_callable(make)
    first = make()
    _check_methods(first)
    first.close()
    compare = _lockstep(lockstep) if lockstep else None
    offers = Offers(another, crash, wakes_others)
    passed: list[tuple[int, str]] = []
    failures: list[ConformanceFailure] = []
    not_claimed: list[tuple[int, str]] = []

    def check(rule: int, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except CaseFailed as failed:
            failures.append(ConformanceFailure(rule, name, str(failed)))
        except (NotApplied, OutcomeUnknown):
            said = "what becomes of each batch is to be answered in its place, also this; only `read` may raise it"
            failures.append(ConformanceFailure(rule, name, f"{traceback.format_exc()}{said}"))
        except Exception:  # noqa: BLE001 - whatever a storage raises is a failure of this case, and the others still run
            failures.append(ConformanceFailure(rule, name, traceback.format_exc()))
        else:
            passed.append((rule, name))

    def run_case(case: Case) -> None:
        bench = Bench(make(), patience, offers)
        try:
            case.run(bench)
        finally:
            bench.close()

    for case in cases():
        if offers.has(case.needs):
            check(case.rule, case.name, partial(run_case, case))
        else:
            not_claimed.append((case.rule, case.name))
    if compare is not None:
        check(0, "in lockstep with the memory storage", partial(compare, make))
    report = ConformanceReport(tuple(passed), tuple(failures), tuple(not_claimed))
    if failures:
        raise ConformanceError(report)
    return report


def check_async_storage(
    make: Callable[[], AsyncStorage],
    *,
    another: Callable[[AsyncStorage], AsyncStorage] | None = None,
    crash: Callable[[AsyncStorage], AsyncStorage] | None = None,
    wakes_others: bool = True,
    lockstep: int = 0,
    patience: float = 20.0,
) -> ConformanceReport:
    """Run the very same cases against an asynchronous storage; see `check_storage`.

    Everything of it, ``make`` and the others included, runs on one event loop in a thread that this function starts and
    ends.
    """
    _check_callable(make)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="jobqueue-conformance")
    thread.start()

    def over(act: Callable[[AsyncStorage], AsyncStorage] | None) -> Callable[[Storage], Storage] | None:
        return None if act is None else lambda storage: _OnLoop(partial(act, cast(_OnLoop, storage).inner), loop)

    try:
        return check_storage(
            lambda: _OnLoop(make, loop), another=over(another), crash=over(crash), wakes_others=wakes_others,
            lockstep=lockstep, patience=patience,
        )  # fmt: skip
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _check_callable(make: object) -> None:
    if not callable(make):
        raise TypeError(f"make is a function that makes a storage, such as its class, not {make!r}")


def _check_methods(storage: object) -> None:
    missing = [name for name in METHODS if not callable(getattr(storage, name, None))]
    if missing:
        raise TypeError(f"{storage!r} is no storage: it has no {', '.join(missing)} (see jobqueue.storage.protocol)")


def _lockstep(examples: int) -> Callable[[Callable[[], Storage]], None]:
    need_hypothesis("lockstep")
    from jobqueue.testing.lockstep import check_lockstep

    return partial(check_lockstep, examples=examples)


class _OnLoop:
    """A `Storage` for any thread over an `AsyncStorage` of one event loop."""

    def __init__(self, make: Callable[[], AsyncStorage], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

        async def call() -> AsyncStorage:
            return make()

        self.inner = self._run(call())
        _check_methods(self.inner)

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return self._run(self.inner.apply(batches))

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return self._run(self.inner.read(queries))

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        return self._run(self.inner.wait(channels, timeout))

    def interrupt(self) -> None:
        self._run(self.inner.interrupt())

    def close(self) -> None:
        self._run(self.inner.close())

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(call, self._loop)
        return future.result()
