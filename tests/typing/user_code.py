"""What users write. `# E: mypy`, `# E: pyright` mark the lines that a checker must refuse; no other line may be refused."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import attrs

from jobqueue import Call, Context, Job, JobQueue, JobRecord, Retry, RetryPolicy, Snooze

jobs = JobQueue("memory://", namespace="shop")


@jobs.job
def resize(path: str, width: int = 640) -> bytes:
    return path.encode() * width


@jobs.job(queue="high", retry=RetryPolicy(limit=3, backoff=lambda n: timedelta(seconds=n)))
def charge(ctx: Context, order: int, *, note: str = "") -> float:
    return ctx.attempt + order + len(note)


@jobs.job(process=True, timeout=timedelta(minutes=1))
def compute(ctx: Context, number: int) -> int:
    return number * ctx.attempt


@jobs.job
async def fetch(url: str) -> int:
    return len(url)


@jobs.job(name="shop.crawl", aliases=("old.crawl",))
async def crawl(ctx: Context, /, url: str, *more: str, **headers: str) -> list[int]:
    return [ctx.fence, len(url), len(more), len(headers)]


@jobs.job
def store(value: Any, key: str) -> None: ...


@jobs.job
async def astore(value: object, key: str) -> None: ...


@jobs.job
def nightly() -> None: ...


double = jobs.job(name="double")(lambda: 3)


@jobs.register
@attrs.frozen
class Thumbnail(Job, name="images.thumbnail", queue="low", retry=2, process=True, timeout=60):
    path: str
    width: int = 64

    def perform(self, ctx: Context) -> None: ...


@jobs.register
@dataclass(frozen=True, slots=True)
class Report(Job, retry=RetryPolicy()):
    title: str = ""

    async def perform(self, context: Context) -> int:
        return context.attempt


def plain_calls(ctx: Context) -> None:
    assert_type(resize("a"), bytes)
    assert_type(charge(ctx, 3, note="n"), float)
    coroutine: Coroutine[Any, Any, int] = fetch("a")
    coroutine.close()
    assert_type(double(), int)
    resize(3)  # E: mypy pyright
    charge(3)  # E: mypy pyright


def enqueueing() -> None:
    assert_type(resize.enqueue("a", width=3), JobRecord[bytes])
    assert_type(charge.enqueue(3, note="n"), JobRecord[float])
    assert_type(fetch.enqueue("a"), JobRecord[int])
    assert_type(crawl.enqueue("a", "b", accept="c"), JobRecord[list[int]])
    assert_type(crawl.call("a"), Call[list[int]])
    assert_type(nightly.enqueue(), JobRecord[None])
    assert_type(double.enqueue(), JobRecord[int])
    store.enqueue(value={"a": 1}, key="k")
    astore.enqueue({"a": 1}, "k")
    resize.enqueue()  # E: mypy pyright
    resize.enqueue(3)  # E: mypy pyright
    resize.enqueue("a", height=3)  # E: mypy pyright
    resize.enqueue("a", 3, 4)  # E: mypy pyright
    charge.enqueue(3, "n")  # E: mypy pyright
    crawl.enqueue("a", 3)  # E: mypy pyright
    nightly.enqueue(1)  # E: mypy pyright


def context_is_not_an_argument(ctx: Context) -> None:
    charge.enqueue(ctx, 3)  # E: mypy pyright
    charge.call(ctx, 3)  # E: mypy pyright


async def awaiting() -> None:
    assert_type(await fetch.aenqueue("a"), JobRecord[int])
    assert_type(await resize.aenqueue("a"), JobRecord[bytes])
    assert_type(await crawl.opts(delay=3).aenqueue("a"), JobRecord[list[int]])
    fetch.aenqueue("a")  # E: mypy pyright
    resize.opts(delay=3).aenqueue("a")  # E: mypy pyright
    jobs.aenqueue(Thumbnail("a"))  # E: mypy pyright
    fetch("a")  # E: mypy pyright


def options() -> None:
    resize.opts(delay=timedelta(minutes=1), queue="high", retry=0).enqueue("a")
    resize.opts(at=datetime(2030, 1, 1, tzinfo=UTC)).call("a").opts(delay=0.5)
    assert_type(resize.opts(delay=3).enqueue("a"), JobRecord[bytes])
    resize.opts(delay=3).enqueue(3)  # E: mypy pyright
    resize.opts(dleay=3)  # E: mypy pyright
    resize.opts(delay="3")  # E: mypy pyright
    resize.opts(queue=None)  # E: mypy pyright
    resize.opts(at=3)  # E: mypy pyright
    resize.call("a").opts(retry="3")  # E: mypy pyright


def class_kinds() -> None:
    jobs.enqueue(Thumbnail("x.png"), queue="high", delay=5)
    jobs.enqueue(Report(title="t"))
    assert_type(jobs.enqueue(resize.call("a")), JobRecord[bytes])
    jobs.enqueue_many([resize.call("a"), charge.opts(delay=9).call(3), Thumbnail("x.png")])
    Thumbnail(3)  # E: mypy pyright
    jobs.enqueue(Thumbnail("x.png"), dleay=5)  # E: mypy pyright
    jobs.enqueue(resize)  # E: mypy pyright
    jobs.enqueue(resize, "a")  # E: mypy pyright
    jobs.enqueue(resize.call("a"), 3)  # E: mypy pyright
    resize.delay("a")  # E: mypy pyright
    resize.opts(delay=3).send("a")  # E: mypy pyright
    resize.call("a").enqueue()  # E: mypy pyright
    jobs.task(len)  # E: mypy pyright
    jobs.enqueue("resize")  # E: mypy pyright


class NoJob:
    def perform(self, ctx: Context) -> None: ...


class BadPerform(Job):
    def perform(self) -> None: ...  # E: mypy pyright


class BadOption(Job, quee="low"):  # E: mypy pyright
    pass


def declaring() -> None:
    jobs.register(NoJob)  # E: mypy pyright
    jobs.job(retry="3")  # E: mypy pyright
    jobs.job(queu="low")  # E: mypy pyright
    jobs.job(3)  # E: mypy pyright
    RetryPolicy(on=ValueError)  # E: mypy pyright
    RetryPolicy(max_retries=3)  # E: mypy pyright
    Retry(max=3)  # E: mypy pyright
    Snooze(seconds=3)  # E: mypy pyright
    jobs.job(max_retries=3)  # E: mypy pyright
    RetryPolicy(backoff=lambda n: "soon")  # E: mypy pyright
