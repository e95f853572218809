"""Wrong jobs that once passed the check."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from jobqueue import Context, Job
from tests.unit import shop
from tests.unit.shop import check

outbox: list[str] = []


class Outbox(shop.Shop):
    def __init__(self) -> None:
        super().__init__()
        outbox.clear()

    def mail(self, to: str, key: str | None = None) -> None:
        outbox.append(to)


@shop.jobs.job
def mails_every_time() -> None:
    shop.shop.mail("a")


def test_a_state_that_is_the_live_object_is_kept_as_it_was() -> None:
    report = check(mails_every_time.call(), "mail", world=Outbox, state=lambda _: outbox)

    assert report.verdict == "duplicates"


class Uncopied(list[str]):
    def __deepcopy__(self, memo: Any) -> Uncopied:
        raise TypeError("not this one")


uncopied = Uncopied()


class Sealed(Outbox):
    def mail(self, to: str, key: str | None = None) -> None:
        uncopied.append(to)


def test_a_state_that_is_always_the_same_and_cannot_be_copied_is_refused() -> None:
    uncopied.clear()
    report = check(mails_every_time.call(), "mail", world=Sealed, state=lambda _: uncopied)

    assert report.verdict == "not checked"
    assert "state= answers the same Uncopied after every history" in report.explain()


@shop.jobs.job
def mails_from_threads(order: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda to: shop.shop.mail(to, key=f"{order} {to}"), "ab"))


@shop.jobs.job
def mails_from_a_thread(order: int) -> None:
    thread = threading.Thread(target=lambda: shop.shop.mail("a", key=str(order)))
    thread.start()
    thread.join()


@pytest.mark.parametrize("kind", [mails_from_threads, mails_from_a_thread])
def test_effects_from_threads_of_the_job_are_not_checked(kind: Any) -> None:
    for _ in range(5):
        report = check(kind.call(7))

        assert report.verdict == "not checked"
        assert "was called from a thread that the job started by itself" in report.explain()


@shop.jobs.job
async def mails_through_to_thread(order: int) -> None:
    await asyncio.to_thread(shop.shop.mail, "a", key=str(order))


def test_to_thread_is_part_of_the_job() -> None:
    assert check(mails_through_to_thread.call(7)).ok


class Guarded(shop.Shop):
    last: int | None = None
    paid = 0

    def pay(self, fence: int, expected: int | None) -> None:
        if self.last == expected:
            self.last, self.paid = fence, self.paid + 1


@shop.jobs.job
def pays_if_nobody_else_did(ctx: Context) -> None:
    made: Any = shop.shop
    seen = made.last
    if seen is None or seen > ctx.fence:
        made.pay(ctx.fence, expected=seen)


@shop.jobs.register
@attrs.frozen
class PaysIfNobodyElseDid(Job):
    def perform(self, ctx: Context) -> None:
        pays_if_nobody_else_did(ctx)


@pytest.mark.parametrize("job", [pays_if_nobody_else_did.call(), PaysIfNobodyElseDid()], ids=["function", "class"])
def test_a_zombie_may_pause_before_its_first_line(job: Any) -> None:
    report = check(job, "pay", world=Guarded, state=lambda made: made.paid)

    assert not report.ok
    assert "pauses at its start" in report.explain()


@shop.jobs.job
def enqueues_three_or_none(order: int) -> None:
    if not shop.jobs.find(name=shop.jobs.call_of(shop.charge.call(1)).kind.name):
        for number in range(3):
            shop.charge.enqueue(number)
    shop.shop.mail("m", key=str(order))


def test_a_crash_between_two_enqueues_is_played() -> None:
    report = check(enqueues_three_or_none.call(7), enqueued="distinct")

    assert report.verdict == "diverges"
    assert "before it enqueues" in report.explain()
