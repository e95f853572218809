"""The pytest plugin of jobqueue: fixtures for testing blocks, in memory or on a real server.

pytest loads every installed plugin in every run, also of projects that have nothing to do with it. So this is a module
beside the package and imports nothing of it: ``import jobqueue`` would cost each of those runs some 50 ms, and would come
before the tools that measure coverage. The package is imported by the first test that asks for a fixture.
"""

from __future__ import annotations

import argparse
import pkgutil
import secrets
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from datetime import datetime

    from jobqueue import JobQueue
    from jobqueue.testing import Server, Testing

_OPEN: Final[pytest.StashKey[list[Testing]]] = pytest.StashKey()
_SEED: Final = "jobqueue_seed"
_IN_MEMORY: Final = (None, "", "memory://")


def _seed(text: str) -> int:
    if text == "random":
        return secrets.randbelow(1_000_000)
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a seed is a number, or 'random', not {text!r}") from None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and the setting."""
    group = parser.getgroup("jobqueue", "background jobs (jobqueue)")
    group.addoption(
        "--jobqueue-url",
        metavar="URL",
        help="where the tests of jobs store: redis://…, embedded:// for a server of their own, or memory:// (the default)",
    )
    group.addoption(
        "--jobqueue-seed",
        metavar="N",
        type=_seed,
        default=0,
        help="seed of all chance in the tests of jobs (ids, jitter): a number, or 'random'; 0 by default",
    )
    parser.addini("jobqueue", "the JobQueue under test: module:name, as in shop.work:jobs")


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed of the run, in a worker of pytest-xdist: by itself each would draw one of its own."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    config.option.jobqueue_seed = given.get(_SEED, config.option.jobqueue_seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of pytest-xdist."""
    node.workerinput[_SEED] = node.config.option.jobqueue_seed


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say where jobs are tested, in projects that test jobs."""
    url, seed = config.option.jobqueue_url, config.option.jobqueue_seed
    if not (url or seed or config.getini("jobqueue")):
        return None
    from jobqueue.storage.url import redacted

    where = "in memory" if url in _IN_MEMORY else url if url == "embedded://" else redacted(url)
    return f"jobqueue: {where}, seed {seed}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the past of its jobs to the report of a test that failed; show the test where the library refused something."""
    raised = call.excinfo
    if raised is not None and "jobqueue.errors" in sys.modules:
        _told(lambda: _explain(item, raised.value))
    report = yield
    if report.failed:
        for testing in item.stash.get(_OPEN, ()):
            report.sections.append(("jobqueue", f"{_told(testing.history)}\nto repeat: --jobqueue-seed={testing.seed}"))
    return report


def _told(tell: Callable[[], object]) -> object:
    """What there is to tell, or why it cannot be told: an error in this hook would end the whole session of pytest."""
    try:
        return tell()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the repr of an argument is code of a user, which may raise anything
        return f"what happened cannot be told: {type(error).__name__} while it was put into words"


def _explain(item: pytest.Item, error: BaseException) -> None:
    from jobqueue.errors import NotApplied

    for name, module in list(sys.modules.items()):
        if name.startswith("jobqueue.") and module is not None:
            vars(module).setdefault("__tracebackhide__", _is_refusal)  # pytest asks it, unless --full-trace is given
    if isinstance(error, NotApplied) and _OPEN not in item.stash and not getattr(error, "__notes__", None):
        error.__cause__ = None  # two hundred lines of a client that found nobody
        error.add_note(
            "No testing block was open, so this went to the storage of production: ask for the fixture `jobqueue`, or use "
            "`with jobs.testing():`"
        )


def _is_refusal(error: pytest.ExceptionInfo[BaseException] | None) -> bool:
    """Whether the library refused something: then its message says why, and its frames tell nobody anything."""
    from jobqueue.errors import JobQueueError

    return error is not None and isinstance(error.value, JobQueueError)


# ------------------------------------------------------------------------------------------------------------ fixtures


@pytest.fixture(scope="session")
def jobqueue_app(pytestconfig: pytest.Config) -> JobQueue:
    """The JobQueue under test: what the setting `jobqueue` names. Projects can define this fixture instead."""
    from jobqueue import JobQueue
    from jobqueue.shadows import hidden

    named = pytestconfig.getini("jobqueue")
    if not named:
        _fail(
            "which JobQueue is to be tested? Name it in the settings of pytest, as in `jobqueue = shop.work:jobs`, or "
            "define a fixture jobqueue_app in conftest.py that returns it"
        )
    try:
        found = pkgutil.resolve_name(named)
    except (ImportError, AttributeError, ValueError) as error:
        _fail(
            f"the setting `jobqueue = {named}` (module:name) leads nowhere: {error!r}{hidden(named.partition(':')[0])}"
        )
    if not isinstance(found, JobQueue):
        _fail(f"the setting `jobqueue = {named}` names no JobQueue, but {found!r}")
    return found


def _fail(message: str) -> NoReturn:
    raise pytest.fail.Exception(message, pytrace=False) from None


@pytest.fixture(scope="session")
def _jobqueue_server(pytestconfig: pytest.Config) -> Iterator[Server | None]:
    """The server of this process, if the tests run on one. Workers of xdist with ``embedded://`` have one each."""
    from jobqueue.errors import DeclarationError
    from jobqueue.testing import Server

    if pytestconfig.option.jobqueue_url in _IN_MEMORY:
        yield None
        return
    try:
        server = Server(pytestconfig.option.jobqueue_url)
    except DeclarationError as error:
        _fail(f"--jobqueue-url: {error}")
    with server:
        yield server


@pytest.fixture
def jobqueue_testing(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, _jobqueue_server: Server | None
) -> Iterator[Callable[..., Testing]]:
    """A function that opens a testing block on any JobQueue, as ``jobs.testing(start=…)`` does; it ends with the test."""
    from jobqueue.testing import TestingError, open_testing

    opened = request.node.stash.setdefault(_OPEN, [])
    with ExitStack() as stack:

        def begin(jobs: JobQueue, *, start: datetime | None = None) -> Testing:
            jobs.load()
            seed = pytestconfig.option.jobqueue_seed
            testing = stack.enter_context(open_testing(jobs, start, server=_jobqueue_server, seed=seed))
            opened.append(testing)
            return testing

        yield begin
        try:
            stack.close()
        except TestingError as error:
            _fail(str(error))


@pytest.fixture
def jobqueue(jobqueue_testing: Callable[..., Testing], jobqueue_app: JobQueue) -> Testing:
    """A testing block on the JobQueue under test, for the length of the test."""
    return jobqueue_testing(jobqueue_app)
