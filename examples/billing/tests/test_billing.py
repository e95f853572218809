from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import pytest
from fakes import FakeBank, FakeBooks, World

from billing import services
from billing.run import charge, close, refund, start
from billing.services import CardExpired
from billing.work import jobs
from jobqueue import Call
from jobqueue.testing import JobReport, Testing, check_job


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch) -> FakeBank:
    fake = FakeBank()
    monkeypatch.setattr(services, "bank", fake, raising=False)
    return fake


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> FakeBooks:
    fake = FakeBooks()
    monkeypatch.setattr(services, "books", fake, raising=False)
    return fake


def test_a_month(jobqueue: Testing, bank: FakeBank, books: FakeBooks) -> None:
    start.enqueue("May")
    assert jobqueue.drain() == {"done": 3, "discarded": 1}  # gone has left
    assert bank.account == 1250
    assert jobqueue.jump().days == 14
    assert jobqueue.drain() == {"done": 1}
    assert books.carried == 1250


def test_a_run_that_is_started_twice_charges_once(jobqueue: Testing, bank: FakeBank, books: FakeBooks) -> None:
    start.enqueue("May")
    start.enqueue("May")
    jobqueue.run_until_idle()
    assert bank.account == books.carried == 1250


def test_a_bank_that_does_not_answer_is_asked_again_ever_later(
    jobqueue: Testing, bank: FakeBank, books: FakeBooks
) -> None:
    bank.down = True
    charge.enqueue("May", "ann")
    hours = []
    for _ in range(3):
        assert jobqueue.drain(reraise=False) == {"retried": 1}
        hours.append(jobqueue.jump().total_seconds() / 3600)
    assert hours == [6, 36, 216]
    assert jobqueue.drain(reraise=False) == {"dead": 1}

    bank.down = False
    [dead] = jobqueue.dead()
    jobs.requeue(dead.id)  # an operator
    assert jobqueue.drain() == {"done": 1}
    assert bank.account == 1000


def test_a_bank_that_is_closed_costs_no_retry(jobqueue: Testing, bank: FakeBank, books: FakeBooks) -> None:
    bank.closed_for = 8 * 3600
    record = charge.opts(retry=0).enqueue("May", "ann")
    for _ in range(5):
        assert jobqueue.drain() == {"snoozed": 1}
        assert jobqueue.jump().total_seconds() == 8 * 3600
    bank.closed_for = 0
    assert jobqueue.assert_enqueued(charge, customer="ann").id == record.id
    assert jobqueue.drain() == {"done": 1}


def test_an_expired_card_is_not_tried_again(jobqueue: Testing, bank: FakeBank, books: FakeBooks) -> None:
    bank.expired.add("ann")
    charge.enqueue("May", "ann")
    with pytest.raises(CardExpired):
        jobqueue.drain()
    assert [job.attempt for job in jobqueue.dead()] == [1]


def test_two_refunds_of_the_same_amount_are_two(jobqueue: Testing, bank: FakeBank) -> None:
    refund.enqueue("ann", 100)
    refund.enqueue("ann", 100)
    jobqueue.drain()
    assert bank.account == -200


# ------------------------------------------------------------------------------------------- is it safe to run twice?


def put(world: World) -> AbstractContextManager[Any]:
    return mock.patch.multiple(services, bank=world.bank, books=world.books, create=True)


def check(call: Call[Any], *effects: str, enqueued: Any = "each") -> JobReport:
    return check_job(
        call,
        world=World,
        use=put,
        effects=effects,
        state=lambda world: (world.bank.account, world.books.settled, world.books.carried),
        enqueued=enqueued,
    )


@pytest.mark.parametrize(
    ("call", "effects"),
    [
        (charge.call("May", "ann"), ["bank.charge", "books.mark_paid"]),
        (refund.call("ann", 100), ["bank.pay_out"]),
        (close.call("May"), ["books.balance", "books.close"]),
    ],
    ids=lambda value: value.kind.name if isinstance(value, Call) else "",
)
def test_it_is_safe_to_run_twice(call: Call[Any], effects: list[str]) -> None:
    report = check(call, *effects)
    assert report.ok, report.explain()


def test_the_start_is_not_and_what_it_enqueues_has_to_be() -> None:
    report = check(start.call("May"), "books.open_invoices")
    assert report.verdict == "duplicates"
    assert check(start.call("May"), "books.open_invoices", enqueued="distinct").ok


@pytest.mark.parametrize(("fenced", "balance"), [(True, 1250), (False, 1000)])
def test_a_runner_that_wakes_up_behind_another_month(
    fenced: bool, balance: int, jobqueue: Testing, books: FakeBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `check_job` cannot know, because it plays one job: the balance belongs to two."""
    books.settled = {("May", "ann"), ("June", "bob")}
    if not fenced:
        monkeypatch.setattr(books, "_compare", lambda fence: None)
    add_up, paused = books.paid, list[str]()

    def add_up_and_pause(month: str) -> int:
        if not paused:
            paused.append(month)
            jobqueue.pause_runner()  # for longer than lock and lease: others close May, then June
        return add_up(month)

    monkeypatch.setattr(books, "paid", add_up_and_pause)
    close.enqueue("May")
    close.opts(delay=1).enqueue("June")
    jobqueue.drain(reraise=False)
    assert books.closed == {"May", "June"}
    assert books.carried == balance
