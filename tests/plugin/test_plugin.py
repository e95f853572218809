"""The fixtures and options, beside every plugin that runs coroutines, in memory and on a server.

Each test is a run of pytest in a process of its own, because plugins that are loaded stay loaded.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from tests.servers import Server, kinds

pytest_plugins = ["pytester"]

OTHERS: Final = ("valkey", "asyncio", "anyio", "xdist", "timeout", "hypothesispytest", "sybil")
"""Plugins of this environment that a run has only if a test asks for them."""

APP: Final = """
from jobqueue import Context, JobQueue
jobs = JobQueue("redis://nowhere.invalid", namespace="shop", imports=["kinds"])
"""
KINDS: Final = """
from jobqueue import Context
from app import jobs

class Closed(Exception): pass

@jobs.job(retry=1)
def charge(order: int, amount: int = 1) -> int:
    if amount > 100:
        raise Closed(f"no {amount} today")
    return order

@jobs.job
async def report(ctx: Context, day: str) -> str:
    return day
"""
SYNC: Final = """
from kinds import charge, report

def test_functions(jobqueue):
    record = charge.opts(delay=60).enqueue(7)
    jobqueue.assert_enqueued(charge, order=7)
    assert jobqueue.drain() == {}
    jobqueue.clock.advance(minutes=1)
    assert jobqueue.drain() == {"done": 1}

def test_coroutine_jobs(jobqueue):
    report.enqueue("monday")
    assert jobqueue.drain() == {"done": 1}

def test_empty_again(jobqueue):
    jobqueue.refute_enqueued()
"""
ASYNC: Final = """
import pytest
from kinds import charge, report

{mark}
async def test_asynchronous(jobqueue):
    await report.aenqueue("monday")
    charge.enqueue(8)
    assert await jobqueue.adrain() == {{"done": 2}}
    with pytest.raises(jobqueue_error, match="adrain"):
        jobqueue.drain()

from jobqueue.testing import TestingError as jobqueue_error
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest on the shop; ``plugins`` are loaded besides ours, ``settings`` are lines of its ini file."""
    pytester.makepyfile(app=APP, kinds=KINDS)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def go(*options: str, plugins: tuple[str, ...] = (), settings: str = "jobqueue = app:jobs") -> pytest.RunResult:
        pytester.makeini(f"[pytest]\npythonpath = .\nfilterwarnings = error\n{settings}\n")
        left_out = [word for name in OTHERS if name not in plugins for word in ("-p", f"no:{name}")]
        return pytester.runpytest_subprocess(*left_out, *options, timeout=60)

    return go


@pytest.fixture(params=["memory", "memory by name", *kinds()[:1], "embedded"])
def where(request: pytest.FixtureRequest) -> str:
    """What to say for a run in memory, on a running server, and on one that the run starts."""
    if request.param == "memory":
        return ""
    if request.param == "memory by name":
        return "--jobqueue-url=memory://"
    if request.param == "embedded":
        return "--jobqueue-url=embedded://"
    server: Server = request.getfixturevalue("running_servers")(request.param)
    server.flush()
    return f"--jobqueue-url={server.url}"


def written(server: Server) -> int:
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))


# ------------------------------------------------------------------------------------------------------ beside others


def test_without_any_other_plugin(run: Run, pytester: pytest.Pytester, where: str) -> None:
    pytester.makepyfile(test_sync=SYNC)

    run(where).assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_pytest_asyncio(run: Run, pytester: pytest.Pytester, mode: str) -> None:
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    pytester.makepyfile(test_sync=SYNC, test_async=ASYNC.format(mark=mark))

    result = run(
        "-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function", plugins=("asyncio",)
    )  # fmt: skip

    result.assert_outcomes(passed=4)


@pytest.mark.parametrize("plugins", [("anyio",), ("anyio", "asyncio")], ids="+".join)
def test_beside_anyio(run: Run, pytester: pytest.Pytester, plugins: tuple[str, ...]) -> None:
    pytester.makepyfile(
        test_sync=SYNC,
        test_async=ASYNC.format(mark="@pytest.mark.anyio"),
        conftest="import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'",
    )

    options = ("-o", "asyncio_default_fixture_loop_scope=function") if "asyncio" in plugins else ()

    run(*options, plugins=plugins).assert_outcomes(passed=4)


@pytest.mark.parametrize("kind", kinds()[:1])
def test_asynchronous_tests_on_a_server(
    run: Run, pytester: pytest.Pytester, running_servers: Callable[[str], Server], kind: str
) -> None:
    server = running_servers(kind)
    server.flush()
    before = written(server)
    pytester.makepyfile(test_async=ASYNC.format(mark="@pytest.mark.asyncio"))

    result = run(
        f"--jobqueue-url={server.url}", "-o", "asyncio_default_fixture_loop_scope=function", plugins=("asyncio",)
    )  # fmt: skip

    result.assert_outcomes(passed=1)
    assert written(server) > before + 5, "the test did not use the server"
    with server.client() as client:
        assert client.keys() == []


# ---------------------------------------------------------------------------------------------------------------- xdist

MANY: Final = """
import os, pathlib, pytest
from kinds import charge
from app import jobs

@pytest.mark.parametrize("number", range(8))
def test_alone(jobqueue, number):
    charge.enqueue(number)
    with jobs.lock("one", ttl=60):
        jobqueue.assert_enqueued(charge, order=number)
        assert len(jobqueue.enqueued()) == 1
        assert jobqueue.drain() == {"done": 1}
    place = pathlib.Path("namespaces")
    place.mkdir(exist_ok=True)
    (place / f"{number} {os.environ['PYTEST_XDIST_WORKER']} {jobqueue.seed} {jobs.namespace}").touch()
"""


def test_workers_do_not_meet(run: Run, pytester: pytest.Pytester, where: str) -> None:
    pytester.makepyfile(test_many=MANY)

    result = run("-n", "2", "--jobqueue-seed=random", *([where] if where else []), plugins=("xdist",))

    result.assert_outcomes(passed=8)
    noted = [path.name.split() for path in (pytester.path / "namespaces").iterdir()]
    assert {worker for _, worker, _, _ in noted} == {"gw0", "gw1"}
    assert len({seed for _, _, seed, _ in noted}) == 1, "each worker drew a seed of its own"
    assert len({namespace for *_, namespace in noted}) == (1 if "memory" in (where or "memory") else 8)
    result.stdout.fnmatch_lines([f"jobqueue: *, seed {noted[0][2]}"])


# ------------------------------------------------------------------------------------------------------- which JobQueue


def test_a_fixture_can_name_it(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_sync=SYNC, conftest="import pytest, app\n@pytest.fixture\ndef jobqueue_app(): return app.jobs"
    )

    run(settings="").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "*Name it in the settings of pytest, as in `jobqueue = shop.work:jobs`*"),
        ("jobqueue = nowhere:jobs", "*jobqueue = nowhere:jobs*leads nowhere*No module named 'nowhere'*"),
        ("jobqueue = app:job", "*jobqueue = app:job*leads nowhere*'app' has no attribute 'job'*"),
        ("jobqueue = app:JobQueue", "*names no JobQueue, but <class*"),
    ],
)
def test_a_wrong_name_is_said(run: Run, pytester: pytest.Pytester, settings: str, said: str) -> None:
    pytester.makepyfile("def test_it(jobqueue): ...")

    result = run(settings=settings)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*jobqueue_pytest.py*")


def test_kinds_are_imported_before_a_test_drains(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(jobqueue):
            assert [record.name for record in jobqueue.enqueued("kinds.charge")] == []
    """)

    run().assert_outcomes(passed=1)


def test_several_queues_and_a_start(run: Run, pytester: pytest.Pytester, where: str) -> None:
    pytester.makepyfile("""
        from datetime import UTC, datetime
        from jobqueue import JobQueue
        from kinds import charge

        mails = JobQueue(namespace="mails")

        @mails.job
        def send(to: str) -> None:
            charge.enqueue(1)

        def test_it(jobqueue, jobqueue_testing):
            t = jobqueue_testing(mails, start=datetime(2020, 5, 1, tzinfo=UTC))
            send.enqueue("a")
            assert t.clock.datetime.year == 2020
            assert t.drain() == {"done": 1}
            jobqueue.assert_enqueued(charge)
    """)

    run(where).assert_outcomes(passed=1)


# ------------------------------------------------------------------------------------------------------------- failures


def test_a_failed_test_shows_the_past_of_its_jobs_and_the_seed(
    run: Run, pytester: pytest.Pytester, where: str
) -> None:  # fmt: skip
    pytester.makepyfile("""
        from kinds import charge
        def test_it(jobqueue):
            charge.enqueue(7)
            charge.enqueue(8, amount=500)
            assert jobqueue.drain(reraise=False) == {"done": 2}
    """)

    result = run("--jobqueue-seed=23", where)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "jobqueue: *, seed 23",
        "E *assert {'done': 1, 'retried': 1} == {'done': 2}",
        "*- jobqueue -*",
        "what happened in this block (*, seed 23):",
        "  kinds.charge(order=7) *:",
        "    +0:00:00  enqueued in low",
        "    +0:00:00  claimed, attempt 1",
        "    +0:00:00  done",
        "  kinds.charge(order=8, amount=500) *:",
        "    +0:00:00  retried, due in 0:02:00: kinds.Closed: no 500 today",
        "to repeat: --jobqueue-seed=23",
    ])  # fmt: skip


TEARDOWN: dict[str, tuple[str, str]] = {
    "its own fixture": (
        """
        import pytest
        from kinds import charge
        @pytest.fixture
        def checked(jobqueue):
            yield
            assert jobqueue.drain() == {}
        def test_it(checked):
            charge.enqueue(7)
        """,
        "E *assert {'done': 1} == {}",
    ),
    "the end of the block": (
        """
        from kinds import charge, report
        def test_it(jobqueue):
            charge.enqueue(7)
            report.aenqueue("monday")
        """,
        "never awaited, so nothing happened:",
    ),
    "a fixture that was there before": (
        """
        import pytest
        from kinds import charge
        @pytest.fixture
        def outer():
            yield
            raise RuntimeError("at the very end")
        def test_it(outer, jobqueue):
            charge.enqueue(7)
        """,
        "E *RuntimeError: at the very end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("where_it_fails", TEARDOWN)
def test_a_test_that_fails_in_its_tear_down_shows_the_past_and_the_seed(
    run: Run, pytester: pytest.Pytester, where_it_fails: str
) -> None:
    source, error = TEARDOWN[where_it_fails]
    pytester.makepyfile(source)

    result = run("--jobqueue-seed=23")

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([
        error,
        "*- jobqueue -*",
        "what happened in this block (*, seed 23):",
        "  kinds.charge(order=7) *:",
        "    +0:00:00  enqueued in low",
        "to repeat: --jobqueue-seed=23",
    ])  # fmt: skip


def test_a_runner_beside_a_test_that_fails(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import threading
        import pytest
        from jobqueue import Runner
        from app import jobs
        from kinds import charge

        @pytest.fixture
        def application(jobqueue):
            runner = Runner(jobs)
            thread = threading.Thread(target=runner.run, kwargs={"signals": False})
            thread.start()
            yield
            runner.stop()
            thread.join()

        def test_it(jobqueue, application):
            charge.enqueue(7)
            assert jobs.length("high") == 1

        def test_the_next_one(jobqueue):
            charge.enqueue(7)
    """)

    result = run()

    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*- jobqueue -*", "  kinds.charge(order=7) *:", "    +0:00:00  enqueued in low"])


WORDLESS: Final = """
import sys
import attrs
import pytest
from app import jobs
from jobqueue import NotApplied, transitions
from jobqueue.keys import queue_keys
from jobqueue.storage.ops import Applied, Placed

@attrs.frozen(repr=False)
class Odd:
    number: int
    def __repr__(self):
        if self.number == 1:
            raise SystemError
        pytest.exit("in a repr")

class Bad(Exception): pass
class Unnoted(NotApplied):
    add_note = None

@jobs.job(name="odd")
def job(odd: Odd) -> None: ...

def test_an_argument_without_words(jobqueue):
    job.enqueue(Odd(1))
    assert False

def test_an_argument_that_ends_the_session(jobqueue):
    job.enqueue(Odd(2))
    assert False

def test_a_history_that_fails(jobqueue):
    jobqueue.history = lambda: [][0]
    assert False

def test_a_history_that_leaves(jobqueue):
    jobqueue.history = lambda: sys.exit(3)
    assert False

def test_an_error_without_words(jobqueue):
    def history():
        raise Bad
    Bad.__str__ = Bad.__repr__ = lambda self: 1 / 0
    jobqueue.history = history
    assert False

def test_an_error_that_takes_no_notes(jobqueue):
    raise Unnoted("no")

def test_bytes_that_are_no_record(jobqueue):
    odd = transitions.put(queue_keys("shop", "low"), {b"\\xff\\x1b[2J": b"no record"}, {}, {})
    stored = Applied((Placed(("stored",)),))
    jobs.access.opened().backend.history.apply(lambda _: [stored], [odd])
    assert False

def test_a_module_that_is_none(jobqueue):
    sys.modules["jobqueue.none"] = None
    assert False

def test_the_next_one(jobqueue): ...
"""


def test_nothing_that_cannot_be_told_ends_the_session(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_wordless=WORDLESS)

    result = run("--junitxml=report.xml")

    result.assert_outcomes(failed=8, passed=1)
    text = result.stdout.str()
    assert text.count("- jobqueue -") == text.count("to repeat: --jobqueue-seed=0") == 8
    assert text.count("what happened cannot be told: ") == 3
    assert "\x1b[2J" not in text


def test_a_test_that_passes_shows_no_past(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_sync=SYNC)

    result = run("-rA", "--jobqueue-seed=23")

    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*what happened in this block*")


def test_where_the_library_refuses_something_the_test_is_shown(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from kinds import charge
        def test_type(jobqueue):
            charge.enqueue("seven")
        def test_number(jobqueue):
            charge.enqueue(1, 2, 3)
        def test_kit(jobqueue):
            jobqueue.run_one()
    """)

    result = run()

    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines([
        '>       charge.enqueue("seven")', "E *argument `order`: Expected `int`, got `str`",
        ">       charge.enqueue(1, 2, 3)", "E *too many positional arguments; nothing was stored",
        ">       jobqueue.run_one()", "E *no job is due*",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*jobqueue/*.py:*")
    assert "jobqueue/declaring.py" in run("--full-trace").stdout.str()


def test_without_the_fixture_it_says_what_was_forgotten(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from kinds import charge
        def test_it():
            charge.enqueue(7)
    """)

    result = run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        ">       charge.enqueue(7)", "E *redis://nowhere.invalid* cannot be reached*",
        "E *No testing block was open*the fixture `jobqueue`*",
    ])  # fmt: skip
    assert len(result.stdout.lines) < 30


def test_a_wrong_url_is_said(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(jobqueue): ...")

    result = run("--jobqueue-url=ftp://somewhere")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*--jobqueue-url: *ftp*"])
    result.stdout.no_fnmatch_line("*jobqueue_pytest.py*")


def test_an_exception_of_a_job_keeps_its_own_traceback(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from kinds import charge
        def test_it(jobqueue):
            charge.enqueue(8, amount=500)
            jobqueue.drain()
    """)

    result = run("--tb=short")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "test_an_exception_of_a_job_keeps_its_own_traceback.py:4: in test_it",
        "    jobqueue.drain()",
        "kinds.py:*: in charge",
        "    raise Closed(f\"no {amount} today\")",
        "E   kinds.Closed: no 500 today",
    ])  # fmt: skip


def test_a_call_that_was_never_awaited_is_an_error(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from kinds import report
        def test_it(jobqueue):
            report.aenqueue("monday")
    """)

    result = run()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["never awaited, so nothing happened:", "*JobFunction.aenqueue() at *:3"])


def test_ids_are_those_of_the_seed(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from kinds import charge
        def test_it(jobqueue):
            raise RuntimeError("id " + charge.enqueue(7).id)
    """)

    def id_of(result: pytest.RunResult) -> str:
        found = re.search("id ([0-9a-f]{32})", result.stdout.str())
        assert found
        return found[1]

    first, second, other = run(), run("--jobqueue-seed=0"), run("--jobqueue-seed=1")

    assert id_of(first) == id_of(second) != id_of(other)


def test_a_seed_is_a_number(run: Run) -> None:
    result = run("--jobqueue-seed=seven")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--jobqueue-seed: a seed is a number, or 'random', not 'seven'"])


# ---------------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:sEcReT@127.0.0.1:1/0", "redis://127.0.0.1:1"),
        ("redis+sentinel://127.0.0.1:1/shop/2?password=sEcReT&sentinel_password=sEcReT", "redis+sentinel://127.0.0.1:1/shop/2"),
        ("redis+sentinel://me:sEcReT@a,me:sEcReT@b/shop", "redis+sentinel://…"),
        ("embedded://me:sEcReT@/srv/shop", "embedded://…"),
        ("memory://me:sEcReT@", "memory://…"),
        ("mysql://me:sEcReT@h", "a URL that cannot be read"),
    ],
)  # fmt: skip
def test_no_password_is_printed(run: Run, pytester: pytest.Pytester, url: str, shown: str) -> None:
    """Not in the header, and not in the report of a failure that shows all frames with their variables."""
    pytester.makepyfile("def test_it(jobqueue): ...")

    result = run(
        f"--jobqueue-url={url}&timeout=0.1" if "?" in url else f"--jobqueue-url={url}", "--showlocals", "--full-trace"
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines([f"jobqueue: {shown}, seed 0"])
    result.stdout.no_fnmatch_line("*sEcReT*")


def test_projects_without_jobs_notice_nothing(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys
        def test_it():
            assert "jobqueue_pytest" in sys.modules
            heavy = {"jobqueue", "redis", "asyncio", "hypothesis", "msgspec", "attrs"} & sys.modules.keys()
            assert heavy == set()
    """)

    result = run(settings="")

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*jobqueue:*")


def test_the_plugin_imports_nothing_that_pytest_has_not() -> None:
    program = (
        "import pytest, sys; old = set(sys.modules); import jobqueue_pytest; print(*sorted(set(sys.modules) - old))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    heavy = [name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names]
    assert heavy == ["jobqueue_pytest"]
    assert len(loaded) < 10, loaded
