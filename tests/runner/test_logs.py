"""What log records say of jobs: which job, how it ended, with which exception. And that they arrive."""

from __future__ import annotations

import asyncio
import gc
import logging
import logging.config
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from jobqueue import Context, Discard, Job, JobQueue, Retry, RetryPolicy, Runner, Snooze, current_context
from jobqueue.keys import queue_keys
from jobqueue.lifecycle import Ending
from jobqueue.logs import FIELDS, Careful, about, extra_of, library_logger, name_jobs
from jobqueue.record import Stored, encode
from jobqueue.runner.events import JobsEnded
from jobqueue.runner.execute import run_coroutine, run_function
from jobqueue.runner.journal import Journal, RunnerStatus, tell_dead
from jobqueue.runner.report import Reporter
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.task import End, Task
from jobqueue.storage.memory import MemoryStorage
from tests.faults.ledger import await_that
from tests.runner.running import run_until_drained

AT_ONCE = RetryPolicy(limit=1, backoff=lambda _: 0)
own = logging.getLogger("shop.mail")


@pytest.fixture
def shop() -> Iterator[JobQueue]:
    """A queue in memory."""
    with JobQueue(storage=MemoryStorage(), namespace="logs") as jobs:
        yield jobs


def said(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a job that a record has."""
    return {name: vars(record)[name] for name in FIELDS if name in vars(record)}


# ------------------------------------------------------------------------------------------------------ which job it is


def test_whatever_a_job_logs_says_which_job_it_is(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @shop.job(name="plain", queue="high")
    def plain() -> None:
        own.info("plain")

    @shop.job(name="async")
    async def coroutine() -> None:
        own.info("before")
        await asyncio.to_thread(own.info, "on a thread")
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(2)))
        logging.getLogger("another.library").warning("after")

    @shop.register
    @attrs.frozen
    class Mail(Job, name="class"):
        to: str

        def __attrs_post_init__(self) -> None:
            own.info("made for %s", self.to)

        def perform(self, ctx: Context) -> None:
            ctx.logger.info("performed")

    with caplog.at_level(logging.INFO):
        ids = {"plain": plain.enqueue().id, "async": coroutine.enqueue().id}
        ids["class"] = shop.enqueue(Mail("a")).id
        caplog.clear()
        run_until_drained(shop)
    found: dict[str, list[str]] = {}
    runners = set()
    for record in caplog.records:
        if record.name in ("shop.mail", "another.library", "jobqueue.job"):
            fields = said(record)
            assert fields["job_id"] == ids[fields["kind"]]
            assert (fields["queue"], fields["attempt"]) == ("high" if fields["kind"] == "plain" else "low", 1)
            assert fields["fence"] > 0
            runners.add(fields["runner"])
            found.setdefault(fields["kind"], []).append(record.getMessage())
    assert found == {
        "plain": ["plain"], "async": ["before", "on a thread", "after"], "class": ["made for a", "performed"],
    }  # fmt: skip
    [runner] = runners
    assert any(runner in line for line in caplog.messages if line.startswith("runner "))
    assert not any(
        said(record) for record in caplog.records if record.name not in ("shop.mail", "another.library", "jobqueue.job")
    )


def test_a_record_names_its_own_job_among_many_at_a_time(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @shop.job(name="work")
    async def work(number: int) -> None:
        for _ in range(3):
            own.info("%d", number)
            await asyncio.sleep(0)

    caplog.set_level(logging.INFO, logger="shop.mail")
    records = shop.enqueue_many([work.call(number) for number in range(20)])
    run_until_drained(shop)
    wanted = sorted((record.id, str(number)) for number, record in enumerate(records) for _ in range(3))
    found = [(said(one)["job_id"], one.getMessage()) for one in caplog.records if one.name == "shop.mail"]
    assert sorted(found) == wanted


def test_what_the_application_says_itself_wins(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.request = "r-1"
        record.runner = "blue"
        return record

    @shop.job(name="work", retry=0)
    def work() -> None:
        own.warning("one", extra={"queue": "of letters", "job_id": 7, "kind": None})
        logging.setLogRecordFactory(before)
        own.warning("two")

    logging.setLogRecordFactory(factory)
    try:
        work.enqueue()
        assert run_until_drained(shop).status.done == 1
    finally:
        logging.setLogRecordFactory(before)
    one, two = [vars(record) for record in caplog.records if record.name == "shop.mail"]
    assert (one["queue"], one["job_id"], one["kind"], one["runner"]) == ("of letters", 7, None, "blue")
    assert (one["request"], one["attempt"]) == ("r-1", 1)
    assert two["queue"] == "low", "a factory that was set while the job ran takes nothing away"


def test_outside_of_jobs_nothing_is_added_and_it_is_done_once(caplog: pytest.LogCaptureFixture) -> None:
    name_jobs()
    make = logging.Logger.makeRecord
    name_jobs()
    assert logging.Logger.makeRecord is make
    own.warning("no job")
    [record] = caplog.records
    assert said(record) == {}


# --------------------------------------------------------------------------------------------------- context variables

request: ContextVar[str] = ContextVar("request", default="unset")


def declare(shop: JobQueue, seen: list[str]) -> list[Any]:
    """A kind of each sort that looks at a variable and then sets it."""

    def look() -> None:
        seen.append(request.get())
        request.set("by a job")

    @shop.job(name="plain")
    def plain() -> None:
        look()

    @shop.job(name="async")
    async def coroutine() -> None:
        look()
        await asyncio.to_thread(lambda: seen.append(request.get().replace("by a job", "before")))

    @shop.register
    @attrs.frozen
    class Kind(Job, name="class"):
        def __attrs_post_init__(self) -> None:
            look()

        def perform(self, ctx: Context) -> None:
            seen.append(request.get().replace("by a job", "before"))

    return [plain.call, coroutine.call, Kind]


@pytest.mark.parametrize("how", ["run", "arun", "drain", "adrain"])
async def test_a_job_begins_with_the_variables_of_the_runners_start(shop: JobQueue, how: str) -> None:
    seen: list[str] = []
    kinds = declare(shop, seen)

    def enqueue() -> None:
        del seen[:]  # the instances of the class have looked too
        for call in [make() for _ in range(2) for make in kinds]:
            shop.enqueue(call)
        del seen[:]

    async def start() -> None:
        enqueue()
        request.set("at the start")
        runner = Runner(shop, threads=1, coroutines=1)
        if how == "arun":
            running = asyncio.create_task(runner.arun())
            await asyncio.to_thread(await_that, lambda: runner.status.done == 6, "all jobs ended")
            runner.stop()
            await running
        else:
            thread = threading.Thread(target=copy_context().run, args=(partial(runner.run, signals=False),))
            thread.start()
            await asyncio.to_thread(await_that, lambda: runner.status.done == 6, "all jobs ended")
            runner.stop()
            thread.join()

    async def adrain() -> None:
        with shop.testing() as t:
            enqueue()
            request.set("at the start")
            await t.adrain()

    def drain() -> None:
        with shop.testing() as t:
            enqueue()
            request.set("at the start")
            t.drain()

    if how == "drain":
        await asyncio.to_thread(drain)
    else:
        await asyncio.create_task(adrain() if how == "adrain" else start())
    assert sorted(seen) == ["at the start"] * 6 + ["before"] * 4
    assert request.get() == "unset"


def test_a_testing_block_names_jobs_too(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @shop.job(name="work")
    def work() -> None:
        own.warning("plain")

    @shop.job(name="async")
    async def coroutine() -> None:
        own.warning("async")

    with shop.testing() as t:
        ids = [work.enqueue().id, coroutine.enqueue().id]
        t.drain()
    assert [said(record)["job_id"] for record in caplog.records] == ids
    own.warning("behind it")
    assert said(caplog.records[-1]) == {}


# ------------------------------------------------------------------------------------------------------ how a job ended


class Sour(Exception):
    """An error of the application."""


def test_a_failure_has_its_exception_and_says_all_of_its_job(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    class Seeing(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.exc_info:
                seen.append((current_context().record.name, current_context().attempt))
            return True

    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise Sour("then") from error

    @shop.job(name="plain", retry=AT_ONCE)
    def plain() -> None:
        fail()

    @shop.job(name="async", retry=AT_ONCE)
    async def coroutine() -> None:
        await asyncio.sleep(0)
        fail()

    seeing = Seeing()
    logger = logging.getLogger("jobqueue.runner")
    logger.addFilter(seeing)
    try:
        ids = {plain.enqueue().id: "plain", coroutine.enqueue().id: "async"}
        run_until_drained(shop)
    finally:
        logger.removeFilter(seeing)
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 4
    for record in failures:
        fields = vars(record)
        assert ids[fields["job_id"]] == fields["kind"]
        assert (fields["outcome"], record.levelname) == (
            ("retried", "WARNING") if fields["attempt"] == 1 else ("dead", "ERROR")
        )
        assert 0 < fields["duration"] < 60
        assert record.exc_info
        kind, error, trace = record.exc_info
        assert (kind, type(error), str(error)) == (Sour, Sour, "then")
        assert error is not None
        assert isinstance(error.__cause__, KeyError)
        names = [frame.name for frame in traceback.extract_tb(trace)]
        assert names == [plain.__name__ if fields["kind"] == "plain" else "coroutine", "fail"], "its own frames alone"
        assert (record.filename, record.funcName) == ("report.py", "__call__")
    assert sorted(seen) == [("async", 1), ("async", 2), ("plain", 1), ("plain", 2)]


def test_a_failure_that_is_no_text_can_be_written_to_a_file(shop: JobQueue, tmp_path: Path) -> None:
    @shop.job(name="work", retry=0)
    def work() -> None:
        raise Sour("half a \ud83d")

    work.enqueue()
    file = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logging.root.addHandler(file)
    try:
        run_until_drained(shop)
    finally:
        logging.root.removeHandler(file)
        file.close()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert "failed (dead)" in text
    assert "Sour: half a \\ud83d" in text
    assert "in work" in text


def test_arguments_that_do_not_fit_are_a_failure_with_an_exception(
    shop: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    before = JobQueue(storage=shop.access.opened().storage(), namespace="logs")

    @before.job(name="work")
    def work(number: int) -> None: ...

    @shop.job(name="work")
    def changed(number: str) -> None: ...

    work.enqueue(1)
    run_until_drained(shop)
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info
    assert record.exc_info[0] is not None
    assert (record.exc_info[0].__name__, vars(record)["outcome"]) == ("PayloadError", "dead")


def test_one_line_per_ended_job_at_debug(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @shop.job(name="work", retry=AT_ONCE)
    def work(what: str, ctx_attempt: int = 0) -> object:
        if what == "fails":
            raise Sour("no")
        if what == "snoozes" and current_context().record.due == current_context().record.created:
            return Snooze(0)
        return Discard("why not") if what == "leaves" else None

    ids = {work.enqueue(what).id: what for what in ("ends", "fails", "snoozes", "leaves")}
    with caplog.at_level(logging.DEBUG, logger="jobqueue.runner"):
        run_until_drained(shop)
    ended: dict[str, list[str]] = {}
    for record in caplog.records:
        if "outcome" in vars(record) and not record.exc_info:
            assert vars(record)["duration"] > 0
            ended.setdefault(ids[vars(record)["job_id"]], []).append(vars(record)["outcome"])
            assert record.levelno == (logging.INFO if vars(record)["outcome"] == "discarded" else logging.DEBUG)
    assert ended == {
        "ends": ["done"], "fails": ["retried", "dead"], "snoozes": ["snoozed", "done"], "leaves": ["discarded"],
    }  # fmt: skip


def task(error: BaseException | None = None) -> Task:
    stored = Stored("work", b"{}", 13, 2, 0, 0, 0)
    found = Task(queue_keys("test", "low"), b"job-1", b"runner-1:7:5000", 7, b"", stored, None, 0.0)
    found.outcome = error
    return found


@pytest.mark.parametrize(
    "what", ["done", "retried", "dead", "snoozed", "discarded", "released", "crashed", "late", "parked"]
)
def test_every_line_of_the_library_about_a_job_says_which(what: Ending, caplog: pytest.LogCaptureFixture) -> None:
    name_jobs()
    caplog.set_level(logging.DEBUG)
    adapter = logging.LoggerAdapter(logging.getLogger("own"), {"service": "shop"})
    Journal(RunnerStatus(), Reporter(Careful(adapter))).observe(JobsEnded(what, [task()]))
    [record] = caplog.records
    wanted = ("job-1", "work", "low", 3, "runner-1", 7)
    assert said(record) == dict(zip(FIELDS, wanted, strict=True))
    assert (vars(record)["service"], vars(record)["outcome"]) == ("shop", what)
    assert record.filename == "journal.py"


def test_a_run_that_does_not_begin_has_no_duration() -> None:
    report = Reporter()
    report.timed = True
    for held in (task(), task()):
        held.lease_lost = True
        run_function(held, lambda: 1.0, None, report)
        asyncio.run(run_coroutine(held, lambda: 1.0, report))
        assert (held.end, held.took) == (End.HANDED_BACK, 0.0)


def test_a_job_that_a_rescue_gave_up_says_which(caplog: pytest.LogCaptureFixture) -> None:
    name_jobs()
    kept = encode(b"12345678", Stored("work", b"{}", 13, 2, 0, 0, 0))
    tell_dead(logging.getLogger("own"), [Rescued(b"job-1", "low", "runner-1", True, 0, 7, kept)])
    tell_dead(logging.getLogger("own"), [Rescued(b"job-1", "low", "runner-1", True, 0, 7, b"")])
    known, unreadable = caplog.records
    assert tuple(said(known).values()) == ("job-1", "work", "low", 3, "runner-1", 7)
    assert tuple(said(unreadable).values()) == ("job-1", "", "low", 1, "runner-1", 7)


def test_a_failure_keeps_nothing_alive(shop: JobQueue) -> None:
    """Neither what the frames of the job hold nor its exception: not even until the result is stored."""

    class Big:
        pass

    alive: weakref.WeakSet[Big] = weakref.WeakSet()
    most = 0

    def fail() -> None:
        nonlocal most
        held = Big()
        alive.add(held)
        most = max(most, len(alive))
        raise Sour("no")

    @shop.job(name="plain", retry=0)
    def plain() -> None:
        fail()

    @shop.job(name="again", retry=0)
    def again() -> None:
        try:
            fail()
        except Sour as error:
            raise Retry(0) from error

    shop.enqueue_many([kind.call() for _ in range(50) for kind in (plain, again)])
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.CRITICAL)
    gc.disable()
    try:
        runner = run_until_drained(shop, threads=1, logger=quiet)
        assert runner.status.dead == 100
        assert len(alive) == 0
    finally:
        gc.enable()
    assert most <= 2, "the one before, at the most"


# -------------------------------------------------------------------------------------------------------- they arrive


def silence(**loggers: Any) -> None:
    """What an application does that configures logging after its imports."""
    logging.config.dictConfig({"version": 1, "loggers": loggers})


@pytest.fixture
def existing() -> Iterator[None]:
    """Loggers that are there before the application configures logging; enabled again at the end."""
    names = ("jobqueue.runner", "jobqueue.job", "jobqueue.supervisor", "jobqueue.storage")
    for name in names:
        logging.getLogger(name)
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.mark.usefixtures("existing")
@pytest.mark.parametrize("when", ["before", "after", "in a job"])
def test_dict_config_does_not_silence_the_library(shop: JobQueue, caplog: pytest.LogCaptureFixture, when: str) -> None:
    @shop.job(name="work", retry=0)
    def work(ctx: Context) -> None:
        if when == "in a job":
            silence(shop={"level": "INFO"})
            assert logging.getLogger("jobqueue.runner").disabled
        ctx.logger.warning("by the job")
        raise Sour("no")

    work.enqueue()
    if when == "before":
        silence(shop={"level": "INFO"})
    runner = Runner(shop, lease=0.6)
    if when == "after":
        silence(shop={"level": "INFO"})
    shop_runner = threading.Thread(target=runner.run, kwargs={"signals": False})
    logging.root.addHandler(caplog.handler)
    shop_runner.start()
    await_that(lambda: runner.status.dead == 1, "the job ended")
    runner.stop()
    shop_runner.join()
    assert {"by the job", "no"} <= {*caplog.messages, *(str(r.exc_info[1]) for r in caplog.records if r.exc_info)}


@pytest.mark.usefixtures("existing")
def test_the_other_loggers_of_the_library_are_not_silenced_either() -> None:
    silence()
    assert logging.getLogger("jobqueue.supervisor").disabled
    assert Careful("jobqueue.supervisor").isEnabledFor(logging.ERROR)
    silence()
    assert not library_logger("jobqueue.storage").disabled


def test_one_logger_for_all_that_a_runner_says(shop: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    @shop.job(name="closes", retry=0)
    async def closes() -> None:
        asyncio.get_running_loop().stop()
        asyncio.get_running_loop().call_soon(sys.exit)
        raise Sour("no")

    @shop.job(name="plain", retry=0)
    def plain() -> None:
        raise Sour("no")

    adapter = logging.LoggerAdapter(logging.getLogger("own.shop"), {"service": "shop"})
    for kind in (closes, plain):
        kind.enqueue()
    with caplog.at_level(logging.DEBUG):
        run_until_drained(shop, logger=adapter)
    ours = [record for record in caplog.records if "jobqueue" in record.pathname and record.name != "asyncio"]
    assert {record.name for record in ours} == {"own.shop"}
    assert {vars(record)["service"] for record in ours} == {"shop"}


# -------------------------------------------------------------------------------------------------------------- extra


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def record_with(**extra: object) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", logging.INFO, "f", 1, "m", (), None, extra=extra)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), ("é\ud800", '"\\u00e9\\ud800"'), (None, "null"), ([1, {"a": True}], '[1, {"a": true}]'),
        ({1, }, '"{1}"'), ([b"x"], '["b\'x\'"]'), (float("nan"), '"nan"'), ({(1, 2): 3}, '"{(1, 2): 3}"'),
        ([1, Hostile()], '[1, "<Hostile: its repr raised RuntimeError>"]'),
    ],
)  # fmt: skip
def test_extra_is_json_or_its_repr(value: object, text: str) -> None:
    assert extra_of(record_with(value=value, other=1)) == f'{{"value": {text}, "other": 1}}'


def test_a_value_inside_of_itself_is_its_repr() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert extra_of(record_with(value=circle)) == '{"value": "[[...]]"}'


def test_about_ends_with_its_block() -> None:
    name_jobs()
    with about({"job_id": "1"}), about({"kind": "work"}):
        inner = record_with()
    assert extra_of(inner) == '{"kind": "work"}'
    assert extra_of(record_with()) == "{}"


def test_a_context_has_its_fields_for_other_tools(shop: JobQueue) -> None:
    with shop.testing() as t:
        assert t.context(attempt=2, fence=9).log_fields == {
            "job_id": "0" * 32, "kind": "(plain call)", "queue": "low", "attempt": 2, "runner": "", "fence": 9,
        }  # fmt: skip
