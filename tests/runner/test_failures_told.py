"""What is kept and logged of a failure: all that led to it, in every lane."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from jobqueue import Discard, JobQueue, Retry, Snooze
from jobqueue.endings import outcome_of
from jobqueue.testing import check_job
from tests.runner.apps import whole
from tests.runner.apps.whole import LANES
from tests.runner.running import run_until_drained
from tests.runner.test_endings import World, nothing

HERE = "tests.runner.apps.whole"
GROUP = "ExceptionGroup: unhandled errors in a TaskGroup"
TOLD = {
    "raise from": [f"{HERE}.ShopError: order 7", "caused by KeyError: 'card'", ", in raise_from\n", ", in _card\n"],
    "raise while handling": [f"{HERE}.ShopError: order 7", "while handling KeyError: 'card'", ", in _card\n"],
    "retry from": [
        "jobqueue.retry.Retry: it asked for another run in 1 s: KeyError: 'card'",
        "caused by KeyError: 'card'",
        ", in _card\n",
    ],
    "retry returned": [
        "jobqueue.retry.Retry: it asked for another run in 1 s: KeyError: 'card'",
        "while handling KeyError: 'card'",
        ", in _card\n",
    ],
    "deep": ["KeyError: 'card'", ", in _card\n", " frames left out\n"],
    "group": [
        f"{GROUP} (2 sub-exceptions): {HERE}.ShopError: order 7; KeyError: 'b'",
        f"  member 1 of 2: {HERE}.ShopError: order 7\n",
        "  caused by KeyError: 'card'\n",
        "  member 2 of 2: KeyError: 'b'\n",
        ", in fail\n",
        ", in _card\n",
    ],
    "group of retries": [
        f"{GROUP} (4 sub-exceptions): jobqueue.retry.Retry: it asked for another run in 1 s; ",
        "  caused by KeyError: 'card'\n",
    ],
    "group with a discard": [
        f"{GROUP} (2 sub-exceptions): jobqueue.retry.Discard; {HERE}.ShopError: order 7",
    ],
}
"""What a job does → how its text begins, and what else is in there."""
DISCARDED = {
    "discard from": "no card: KeyError: 'card'",
    "discard returned": "KeyError: 'card'",
    "discard for": "KeyError: 'card'",
    "group of discards": "no card",
}


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    """The queue of these jobs, in memory."""
    whole.jobs.relocate(url="memory://", namespace="whole")
    with whole.jobs:
        yield whole.jobs


def test_all_that_led_to_a_failure_is_kept_in_every_lane(jobs: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    jobs.enqueue_many([call(what) for call in LANES.values() for what in (*TOLD, *DISCARDED)])
    run_until_drained(jobs, threads=1, job_processes=1)

    told = {(r.name, str(jobs.decode(r).arguments["what"])): str(r.error) for r in jobs.find(place="dead")}
    assert sorted(told) == sorted((lane, what) for lane in LANES for what in TOLD)
    for (lane, what), text in told.items():
        first, *others = TOLD[what]
        assert text.startswith(first), (lane, what)
        assert [other for other in others if other not in f"{text}\n"] == [], (lane, what, text)
        assert f"failed (dead): {text.splitlines()[0]}" in caplog.text
    said = [record.getMessage().partition(": ")[2] for record in caplog.records if "discarded" in record.getMessage()]
    assert sorted(said) == sorted([*DISCARDED.values()] * len(LANES))


def test_a_long_message_is_kept_whole_and_short_in_the_line_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    message = f"begin {'x' * 9_000} end"
    with JobQueue("memory://") as shop:

        @shop.job(retry=0)
        def fail() -> None:
            raise ValueError(message)

        fail.enqueue()
        run_until_drained(shop)
        [record] = shop.find(place="dead")
    assert str(record.error).startswith(f"ValueError: {message}\n")
    [said] = [record.getMessage() for record in caplog.records if record.exc_info]
    assert "ValueError: begin" in said
    assert said.endswith(" end")
    assert len(said) < 1_200


def test_what_a_worker_process_logs_keeps_its_innermost_frames(
    jobs: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    whole.logs.enqueue()
    run_until_drained(jobs, job_processes=1)
    [record] = [record for record in caplog.records if record.name == "shop"]
    assert record.exc_text is not None
    assert ", in deep\n" in record.exc_text
    assert ", in _card\n" in record.exc_text
    assert record.exc_text.endswith("KeyError: 'card'")


def test_a_testing_block_raises_the_failure_with_all_that_led_to_it() -> None:
    with whole.jobs.testing() as t:
        whole.on_a_thread.enqueue("raise from")
        with pytest.raises(whole.ShopError) as caught:
            t.drain()
        assert isinstance(caught.value.__cause__, KeyError)
        whole.on_the_loop.enqueue("group")
        with pytest.raises(ExceptionGroup) as group:
            t.drain()
        assert isinstance(group.value.exceptions[0].__cause__, KeyError)
        whole.on_the_loop.enqueue("retry returned")
        assert t.drain() == {"dead": 1}
        assert str(t.dead()[-1].error).startswith(TOLD["retry returned"][0])


def test_check_job_tells_all_that_led_to_a_failure() -> None:
    report = check_job(
        whole.on_a_thread.call("raise from"),
        world=World, use=lambda world: nothing(), effects=["act"], state=lambda _: None,
    )  # fmt: skip
    assert "order 7" in report.explain()
    assert "caused by KeyError: 'card'" in report.explain()


# ------------------------------------------------------------------------------------------- groups of what is asked for


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        ([Snooze(5)], 0),
        ([Snooze(5), Snooze(60), Snooze(7)], 1),
        ([Discard("a"), Snooze(5)], 1),
        ([Snooze(60), Retry(after=1), Discard()], 1),
        ([Retry(), Retry(after=9), Retry(after=3)], 1),
        ([ExceptionGroup("in", [Discard("a"), ExceptionGroup("in", [Retry()])]), Snooze(1)], None),
    ],
)
def test_a_group_of_requests_asks_for_what_keeps_most_of_the_job(members: list[Exception], chosen: int | None) -> None:
    outcome, _ = outcome_of(ExceptionGroup("a", members))
    assert isinstance(outcome, Retry) if chosen is None else outcome is members[chosen]


def test_a_group_with_an_error_in_it_has_failed() -> None:
    group = ExceptionGroup("a", [Snooze(5), ValueError("b"), Discard()])
    assert outcome_of(group)[0] is group


def test_a_group_that_asks_for_nonsense_has_failed() -> None:
    wrong = Snooze(5)
    wrong.delay_ms = -1
    outcome, text = outcome_of(ExceptionGroup("a", [Retry(), wrong]))
    assert isinstance(outcome, TypeError)
    assert text.startswith("TypeError: the job asked for something with jobqueue.retry.Snooze")
    assert "caused by ExceptionGroup: a (2 sub-exceptions)" in text


def test_a_snoozed_job_of_a_task_group_is_snoozed() -> None:
    jobs = JobQueue("memory://")

    @jobs.job(name="limited")
    async def limited() -> None:
        await whole._group(Snooze(60), Snooze(5))

    with jobs.testing() as t:
        limited.enqueue()
        assert t.drain() == {"snoozed": 1}
        assert t.jump().total_seconds() == 60
