"""`check_job` finds the planted faults of the example shop, and passes the repaired jobs."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from jobqueue import Context, Snooze
from jobqueue.testing import check_job
from tests.unit import shop
from tests.unit.shop import check, name_of

CRASH = "a runner dies"
OVERLAP = "out of touch for longer than its lease"


@pytest.mark.parametrize(
    ("job", "verdict", "words"),
    [
        (
            shop.double_charge.call(7),
            "duplicates",
            ["debit(10) happens twice", "a runner dies after debit", "key of `debit`"],
        ),
        (
            shop.double_mail.call(7),
            "duplicates",
            ["mail('paid 7') happens twice", "a runner dies after mail", "key of `mail`"],
        ),
        (shop.double_amail.call(7), "duplicates", ["amail('paid 7') happens twice", CRASH]),
        (shop.Charge(7), "duplicates", ["debit(10) happens twice", CRASH]),
        (shop.AsyncCharge(7), "duplicates", ["amail('paid') happens twice", CRASH]),
        (shop.read_modify_write.call(7), "diverges", ["state[0]: 80", "instead of 90", "`write` is called with other"]),
        (shop.key_of_the_run.call(7), "diverges", ["a key has to be the same in all runs"]),
        (shop.look_then_charge.call(7), "duplicates", ["book(10, ", OVERLAP, "have to be one step"]),
        (shop.lost_update.call(7), "diverges", ["state[0]: 90", "instead of 89", OVERLAP, "ctx.fence"]),
        (shop.fenced_too_late.call(7), "diverges", ["state[0]: 90", "instead of 89", OVERLAP]),
        (shop.refuses_the_rest.call(7), "stuck", ["dead after 5 runs", "Refused: charged already", CRASH]),
        (shop.refuses_for_ever.call(7), "stuck", ["has not ended after 32 runs", "lines more"]),
        (shop.enqueues_again.call(7), "duplicates", ['double_charge({"order":7}) in low is enqueued twice']),
    ],
    ids=name_of,
)
def test_a_fault_of_the_shop_is_found(job: Any, verdict: str, words: list[str]) -> None:
    report = check(job)

    assert report.verdict == verdict, report.explain()
    assert not report.ok
    assert 0 < report.wrong <= report.histories
    for word in words:
        assert word in report.explain()


@pytest.mark.parametrize(
    "job",
    [
        shop.charge.call(7),
        shop.acharge.call(7),
        shop.KeyedCharge(7),
        shop.jobs.call_of(shop.KeyedCharge(7)),
        shop.fenced.call(7),
        shop.discards_the_rest.call(7),
        shop.sleeps_once.call(7),
        shop.charge.opts(delay=60, retry=0, queue="high").call(7),
    ],
    ids=name_of,
)
def test_a_repaired_job_passes(job: Any) -> None:
    report = check(job)

    assert report.ok, report.explain()
    assert report.wrong == 0
    assert report.explain().startswith(f"idempotent: {report.job}\n")


def test_the_shortest_history_is_drawn() -> None:
    picture = check(shop.lost_update.call(7)).explain().split("\n\n")[1]

    assert picture.replace("1893456000000", "1").replace("1893456040000", "2").split("\n") == [
        "  runner 1                                          runner 2",
        "  ------------------------------------------------  ----------------------------------------------",
        "  takes the job (attempt 1, fence 1)    |",
        "  read()                                            |",
        "  ‖ pauses before write, for longer than its lease  |",
        "  |                                                 takes the job (attempt 1, fence 2)",
        "  |                                                 read()",
        "  |                                                 write(90, 'charge')",
        "  |                                                 read()",
        "  |                                                 write(89, 'fee')",
        "  |                                                 returns",
        "  write(90, 'charge')                               |",
        "  read()                                            |",
        "  returns                                           |",
        "  (its result is refused: the job was taken away)   |",
    ]


@pytest.mark.parametrize("job", [shop.look_then_charge.call(7), shop.acharge.call(7)], ids=name_of)
def test_the_same_input_gives_the_same_report(job: Any) -> None:
    assert check(job) == check(job)


# ------------------------------------------------------------------------------------------------------------ coverage


@pytest.mark.parametrize(
    ("job", "histories"),
    [
        # One effect has two points, the start is one. Crashes 3, stops 3, redelivery, lost reply; then the merges of what
        # is behind the first point of the first runner (3 pieces) with all of the second (4 pieces: 7 over 3), without the
        # one in which they do not overlap.
        (shop.KeyedCharge(7), 3 + 3 + 1 + 1 + (35 - 1)),
        (shop.charge.call(7), 5 + 5 + 1 + 1 + (462 - 1)),  # two effects: 11 over 5
        (shop.sleeps_once.call(7), 2 * 42),  # two runs of one effect
    ],
    ids=name_of,
)
def test_every_interleaving_of_few_effects_is_played(job: Any, histories: int) -> None:
    report = check(job)

    assert (report.histories, report.is_complete) == (histories, True)
    assert "every interleaving" in report.explain()


def test_with_many_effects_the_number_of_pauses_is_bounded_and_said() -> None:
    report = check(shop.five_effects.call(7))

    # 11 crashes, 11 stops, redelivery, lost reply; one pause: 11; two: the second runner pauses at one of its 11, too.
    assert (report.histories, report.is_complete) == (22 + 2 + 11 + 121, False)
    assert "all with up to 2 pauses; one more would be 605 more histories, too many for limit=500" in report.explain()
    more = check(shop.five_effects.call(7), limit=156 + 605)
    assert more.histories == 156 + 605


def test_a_limit_that_leaves_no_room_for_overlaps_checks_nothing() -> None:
    report = check(shop.five_effects.call(7), limit=34)

    assert (report.verdict, report.histories) == ("not checked", 0)
    assert "5 effects need 35 histories at least, more than limit=34" in report.explain()
    assert check(shop.five_effects.call(7), limit=35).ok


# -------------------------------------------------------------------------------------------------------- enqueued jobs


def test_enqueued_jobs_count_as_one_says() -> None:
    assert check(shop.enqueues_again.call(7), enqueued="each").verdict == "duplicates"
    assert check(shop.enqueues_again.call(7), enqueued="distinct").ok
    assert check(shop.enqueues_again.call(7), enqueued="ignored").ok


@shop.jobs.job
def enqueues_others(ctx: Context, order: int) -> None:
    shop.shop.debit(10, key=str(order))
    shop.double_charge.enqueue(shop.shop.balance)
    shop.shop.mail("m", key=str(order))
    shop.shop.balance = 0  # what it enqueues next time is another job


def test_other_enqueued_jobs_are_no_duplicates() -> None:
    report = check(enqueues_others.call(7), state=lambda made: made.mails, enqueued="distinct")

    assert report.verdict == "diverges"
    assert 'enqueued once instead of never: tests.unit.shop.double_charge({"order":0}) in low' in report.explain()


# --------------------------------------------------------------------------------------------------------- not checked


@shop.jobs.job
def fails() -> None:
    shop.shop.debit(1)
    raise shop.Refused("no money")


@shop.jobs.job(retry=0)
def asks_again_for_ever() -> None:
    raise Snooze(1)


@shop.jobs.job
def counts_itself() -> None:
    counted.append(1)
    shop.shop.debit(len(counted))


counted: list[int] = []


@pytest.mark.parametrize(
    ("job", "effects", "words"),
    [
        (fails.call(), (), ["the clean run failed", "Refused: no money", "raise shop.Refused"]),
        (asks_again_for_ever.call(), (), ["did not end within 31 runs"]),
        (shop.charge.call(7), ("amail",), ["no effect was called (of: amail)", "use="]),
        (shop.charge.call(7), ("debt",), ["Shop has no 'debt'; did you mean 'debit'?"]),
        (shop.charge.call(7), ("balance",), ["balance is no method: it is 100"]),
        (counts_itself.call(), (), ["two clean runs differ", "state[0]: 98", "instead of 99", "leave out of state="]),
    ],
    ids=name_of,
)
def test_what_cannot_be_compared_is_not_checked(job: Any, effects: tuple[str, ...], words: list[str]) -> None:
    counted.clear()

    report = check(job, *effects)

    assert (report.verdict, report.ok, report.histories) == ("not checked", False, 0)
    for word in words:
        assert word in report.explain()


@shop.jobs.job
def does_something_else_each_time() -> None:
    counted.append(1)
    if len(counted) > 2:
        return
    shop.shop.debit(1)


def test_no_effects_at_all_are_a_mistake() -> None:
    settings: dict[str, Any] = {
        "world": shop.Shop,
        "use": lambda world: mock.patch.object(shop, "shop", world),
        "state": id,
    }
    report = check_job(shop.charge.call(7), effects=[], **settings)

    assert report.verdict == "not checked"
    assert "effects= is empty" in report.explain()
    with pytest.raises(TypeError, match=r"effects are names of methods of the world, as in \['send'\], not <function"):
        check_job(shop.charge.call(7), effects=[shop.Shop.debit], **settings)  # type: ignore[list-item]


def test_a_job_that_does_not_repeat_itself_is_not_checked() -> None:
    counted.clear()

    report = check(does_something_else_each_time.call())

    assert report.verdict == "not checked"
    assert "did not come to the same effects as before" in report.explain()
