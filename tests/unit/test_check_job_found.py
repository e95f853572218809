"""Wrong jobs that once passed the check."""

from __future__ import annotations

import asyncio
import contextvars
import enum
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


@pytest.mark.parametrize("state", [lambda _: uncopied, lambda _: (1, uncopied)], ids=["alone", "in a tuple"])
def test_a_state_that_is_always_the_same_and_cannot_be_copied_is_refused(state: Any) -> None:
    uncopied.clear()
    report = check(mails_every_time.call(), "mail", world=Sealed, state=state)

    assert report.verdict == "not checked"
    assert "state= answers the same object after every history" in report.explain()


class Paid(enum.Enum):
    NO = 0
    YES = 1


class Order(shop.Shop):
    paid = Paid.NO

    def mail(self, to: str, key: str | None = None) -> None:
        self.paid = Paid.YES


def test_a_state_whose_copy_is_itself_can_be_compared() -> None:
    assert check(mails_every_time.call(), "mail", world=Order, state=lambda made: made.paid).ok


@pytest.mark.parametrize("state", [lambda _: None, lambda made: made.mails is None], ids=["nothing", "wrong"])
def test_a_state_that_sees_nothing_of_the_effects_is_refused(state: Any) -> None:
    report = check(mails_every_time.call(), "mail", state=state)

    assert (report.verdict, report.histories) == ("not checked", 0)
    assert "state= sees nothing of what the effects do" in report.explain()


def test_a_state_may_see_nothing_if_jobs_were_enqueued_that_count() -> None:
    assert check(shop.enqueues_again.call(7), state=lambda _: None, enqueued="distinct").ok
    assert check(shop.enqueues_again.call(7), state=lambda _: None, enqueued="ignored").verdict == "not checked"


@shop.jobs.job
def mails_from_threads(order: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda to: shop.shop.mail(to, key=f"{order} {to}"), "ab"))


@shop.jobs.job
def mails_from_a_thread(order: int) -> None:
    thread = threading.Thread(target=lambda: shop.shop.mail("a", key=str(order)))
    thread.start()
    thread.join()


@shop.jobs.job
def enqueues_from_a_thread(order: int) -> None:
    shop.shop.debit(1, key=str(order))
    thread = threading.Thread(target=lambda: shop.charge.enqueue(order))
    thread.start()
    thread.join()


late = threading.Event()


@shop.jobs.job
def mails_when_it_has_ended(order: int) -> None:
    def mail() -> None:
        late.wait(10)
        shop_then.mail("a")

    shop_then = shop.shop
    shop_then.debit(1, key=str(order))
    # With the context of the job, but nobody waits for it.
    threading.Thread(target=contextvars.copy_context().run, args=(mail,), name="late mail").start()


def test_a_thread_that_outlives_its_run_is_seen() -> None:
    late.clear()
    looks = 0

    def state(made: shop.Shop) -> int:
        nonlocal looks
        looks += 1
        if looks == 4:  # in the third history
            late.set()
            for thread in threading.enumerate():
                if thread.name == "late mail":
                    thread.join(10)
        return made.balance

    report = check(mails_when_it_has_ended.call(7), state=state)

    assert report.verdict == "not checked"
    assert "'mail' was called from a thread" in report.explain()


@pytest.mark.parametrize("kind", [mails_from_threads, mails_from_a_thread, enqueues_from_a_thread])
def test_effects_from_threads_of_the_job_are_not_checked(kind: Any) -> None:
    for _ in range(5):
        report = check(kind.call(7))

        assert report.verdict == "not checked"
        assert "was called from a thread that the job started by itself" in report.explain()


@shop.jobs.job
async def mails_through_to_thread(order: int) -> None:
    await asyncio.to_thread(shop.shop.mail, "a", key=str(order))


@shop.jobs.job
async def enqueues_through_to_thread(order: int) -> None:
    shop.shop.debit(1, key=str(order))
    await asyncio.to_thread(shop.charge.enqueue, order)


@shop.jobs.job
async def awaits_that_it_is_enqueued(order: int) -> None:
    shop.shop.debit(1, key=str(order))
    await shop.charge.aenqueue(order)


def test_to_thread_is_part_of_the_job() -> None:
    assert check(mails_through_to_thread.call(7)).ok


@pytest.mark.parametrize("kind", [enqueues_through_to_thread, awaits_that_it_is_enqueued])
def test_what_coroutines_enqueue_counts(kind: Any) -> None:
    assert check(kind.call(7)).verdict == "duplicates"
    assert check(kind.call(7), enqueued="distinct").ok


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
