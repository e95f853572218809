"""Who comes from another library, and writes what is written there, reads what to write here."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import jobqueue
from jobqueue import DeclarationError, Job, JobQueue, JobRecord, PayloadError, Runner, words

public: Any = jobqueue  # a type checker would find all of this
queue = JobQueue("memory://")
jobs: Any = queue


@queue.job
def _ok(n: int) -> None: ...


ok: Any = _ok


@queue.job
def slow(n: int, delay: int = 0) -> None: ...


def plain(n: int) -> None: ...


def _record() -> JobRecord[Any]:
    with queue.testing():
        return _ok.enqueue(3)


record: Any = _record()


@pytest.mark.parametrize(
    ("write", "error", "instead"),
    [
        (lambda: ok.enqueue(3, delay=5), PayloadError, ".opts(delay=…).enqueue(…)"),
        (lambda: ok.enqueue(3, countdown=5), PayloadError, ".opts(delay=…).enqueue(…)"),
        (lambda: ok.enqueue(3, eta=5), PayloadError, ".opts(at=…).enqueue(…)"),
        (lambda: ok.call(3, max_retries=5), PayloadError, ".opts(retry=…).enqueue(…)"),
        (lambda: ok.opts(delay=3).enqueue(3, job_timeout=5), PayloadError, "timeout=… where the kind is declared"),
        (lambda: ok.delay(3), AttributeError, "_ok.enqueue(…)"),
        (lambda: ok.apply_async((3,), countdown=3), AttributeError, "_ok.opts(…).enqueue(…)"),
        (lambda: ok.send(3), AttributeError, "_ok.enqueue(…)"),
        (lambda: ok.s(3), AttributeError, "_ok.call(…)"),
        (lambda: ok.enqueue_at(3), AttributeError, "_ok.opts(at=…).enqueue(…)"),
        (lambda: ok.opts(delay=3).delay(3), AttributeError, "_ok.enqueue(…)"),
        (lambda: ok.call(3).enqueue(), AttributeError, "jobs.enqueue(call)"),
        (lambda: jobs.enqueue(ok, 3), TypeError, "_ok.enqueue(…), or jobs.enqueue(_ok.call(…))"),
        (lambda: jobs.enqueue(ok, n=3), TypeError, "_ok.enqueue(…), or jobs.enqueue(_ok.call(…))"),
        (lambda: jobs.enqueue(ok), TypeError, "_ok.enqueue(…), or jobs.enqueue(_ok.call(…))"),
        (lambda: jobs.enqueue(ok.opts(delay=3), 3), TypeError, "_ok.enqueue(…), or jobs.enqueue(_ok.call(…))"),
        (lambda: jobs.enqueue_many(ok.call(3)), TypeError, "jobs.enqueue_many([function.call(…), …]), not a Call"),
        (lambda: jobs.enqueue_many(ok), TypeError, "jobs.enqueue_many([function.call(…), …])"),
        (lambda: jobs.enqueue_many(None), TypeError, "jobs.enqueue_many([function.call(…), …])"),
        (lambda: jobs.get(3), TypeError, "the id of a job or its record, not an int"),
        (lambda: jobs.enqueue_many([ok]), TypeError, "_ok.enqueue(…), or jobs.enqueue(_ok.call(…))"),
        (lambda: jobs.enqueue_records("01a22e4fddc37f2a"), DeclarationError, "takes a list of records"),
        (lambda: jobs.enqueue_records(["01a22e4fddc37f2a"]), DeclarationError, "takes records, each with all"),
        (lambda: jobs.enqueue_records(_record()), DeclarationError, "not a JobRecord"),
        (lambda: jobs.enqueue(_record()), TypeError, "write requeue(…), or enqueue_records([…])"),
        (lambda: public.Runner(jobs, concurrency=8), TypeError, "threads=…"),
        (lambda: public.Runner(jobs, processes=2), TypeError, "jobqueue run --processes N"),
        (lambda: public.Runner(jobs, burst=True), TypeError, "run(until_empty=True)"),
        (lambda: public.Runner(jobs, queue="low"), TypeError, "queues=…"),
        (lambda: public.Runner(jobs, queues=2), DeclarationError, "not 2"),
        (lambda: JobQueue(broker="redis://localhost"), TypeError, "JobQueue(url)"),  # type: ignore[call-arg]
        (lambda: JobQueue(prefix="shop"), TypeError, "namespace=…"),  # type: ignore[call-arg]
        (lambda: jobs.enqueue(plain, 3), TypeError, "declare it with @jobs.job"),
        (lambda: jobs.enqueue(ok.call(3), 3), TypeError, "has its arguments already"),
        (lambda: jobs.enqueue("shop.mail.send", 3), TypeError, "function.call(…) of a declared function"),
        (lambda: jobs.enqueue(ok.call(3), countdown=3), TypeError, "delay=…"),
        (lambda: jobs.task, AttributeError, "@jobs.job"),
        (lambda: jobs.send_task("ok"), AttributeError, "function.enqueue(…)"),
        (lambda: ok.opts(countdown=3), TypeError, "delay=…"),
        (lambda: ok.opts(eta=3), TypeError, "at=…"),
        (lambda: ok.opts(max_retries=3), TypeError, "retry=…"),
        (lambda: ok.opts(time_limit=3), TypeError, "timeout=… where the kind is declared"),
        (lambda: jobs.job(max_retries=3), TypeError, "retry=…"),
        (lambda: jobs.job(delay=3), TypeError, "function.opts(delay=…).enqueue(…)"),
        (lambda: jobs.job(queu="low"), TypeError, "did you mean 'queue'?"),
        (lambda: type("Mail", (Job,), {}, max_retries=3), TypeError, "retry=…"),
        (lambda: type("Mail", (Job,), {}, queu="low"), TypeError, "did you mean 'queue'?"),
        (lambda: public.RetryPolicy(max_retries=3), TypeError, "limit=…"),
        (lambda: public.RetryPolicy(min_backoff=3), TypeError, "backoff=…"),
        (lambda: public.RetryPolicy(autoretry_for=(OSError,)), TypeError, "on=…"),
        (lambda: public.Retry(max=3), TypeError, "@jobs.job(retry=…)"),
        (lambda: public.Retry(countdown=3), TypeError, "Retry(after=…)"),
        (lambda: public.Snooze(seconds=3), TypeError, "Snooze(…)"),
        (lambda: jobs.job("high"), DeclarationError, "@jobs.job(queue='high')"),
        (lambda: jobs.job(plain, 3), TypeError, "JobQueue.job()"),
        (lambda: jobs.job(name="x")(lambda ctx: None), DeclarationError, "as in `ctx: Context`"),
        (lambda: jobs.job(name="x")(lambda self, n: None), DeclarationError, "as in `ctx: Context`"),
        (lambda: jobs.job(bind=True), TypeError, "a first parameter `ctx: Context`"),
        (lambda: jobs.enqueue_call(func=plain, args=(3,)), AttributeError, "function.enqueue(…)"),
        (lambda: ok.opts(retry=public.RetryPolicy()), DeclarationError, "belongs to the declaration"),
        (lambda: jobs.job(retry={"max": 3}), DeclarationError, "a number or a RetryPolicy"),
        (lambda: jobs.length(), TypeError, "JobQueue.length()"),
        (lambda: jobs.scan(limit=3), TypeError, "JobQueue.scan()"),
        (lambda: jobs.register(), TypeError, "JobQueue.register()"),
        (lambda: public.JobQueue("high", connection=3), TypeError, "client=…"),
        (lambda: public.JobQueue("high", "low"), TypeError, "JobQueue(url, namespace=…)"),
        (lambda: public.JobQueue(max_conections=3), TypeError, "did you mean 'max_connections'?"),
        (lambda: public.Runner(["high"], jobs), TypeError, "Runner(jobs, queues=…)"),
        (lambda: public.Runner(["high"]), DeclarationError, "Runner(jobs, queues=…)"),
        (lambda: public.Runner(jobs).run(burst=True), TypeError, "until_empty=True"),
        (lambda: asyncio.run(public.Runner(jobs).arun(burst=True)), TypeError, "until_empty=True"),
        (lambda: public.Runner(jobs).work(), AttributeError, "runner.run()"),
        (lambda: record.result, AttributeError, "it is not kept"),
        (lambda: record.get_status(), AttributeError, "jobs.get(record).place"),
        (lambda: record.refresh(), AttributeError, "jobs.get(record)"),
        (lambda: record.delete(), AttributeError, "jobs.delete(record)"),
    ],
)  # fmt: skip
def test_what_is_written_elsewhere_is_refused_in_words(write: Any, error: type[Exception], instead: str) -> None:
    with pytest.raises(error, match=re.escape(instead)):
        write()
    assert jobs.counts() == {}


def test_nothing_else_is_to_be_had() -> None:
    for thing, name in (
        (ok, "delay"), (ok, "nothing"), (jobs, "task"), (ok.call(3), "send"), (ok.opts(delay=3), "s"),
        (record, "result"), (record, "nothing"), (Runner(jobs), "work"), (Runner(jobs), "nothing"),
    ):  # fmt: skip
        assert not hasattr(thing, name)
        with pytest.raises(AttributeError) as caught:
            getattr(thing, name)
        assert (caught.value.name, caught.value.obj) == (name, thing)


def test_an_argument_of_a_job_may_be_called_like_an_option() -> None:
    with jobs.testing() as t:
        record = slow.enqueue(3, delay=5)

        assert record.payload == b'{"n":3,"delay":5}'
        assert t.drain() == {"done": 1}


def test_the_words_name_what_there_is() -> None:
    """Whatever is written as an option of ours is one."""
    for place, known in ((words.OPTS, {"delay", "at", "retry", "queue"}), (words.JOB, {"retry", "queue", "timeout"})):
        for text in place.values():
            option = re.match(r"(\w+)=…", text)
            assert option is None or option[1] in known or "where the kind is declared" in text
    for text in words.FUNCTION.values():
        for method in re.findall(r"\{\}\.(\w+)", text):
            assert hasattr(ok, method)
