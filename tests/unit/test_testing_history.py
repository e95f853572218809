"""What a test is told of the past of its jobs."""

from __future__ import annotations

import re

import pytest

from jobqueue import Context, JobQueue
from jobqueue.testing import Testing
from tests.unit.kit_jobs import again, broken, flaky, jobs, mail, urgent


def steps(t: Testing) -> list[str]:
    """The history without its title, and ids replaced."""
    title, *lines = t.history().split("\n")
    assert title.startswith("what happened in this block (")
    return [re.sub(r"[0-9a-f]{32}", "ID", line) for line in lines]


def test_nothing(t: Testing) -> None:
    assert steps(t) == ["  nothing"]


def test_a_job_that_failed_and_then_succeeded(t: Testing) -> None:
    flaky.opts(delay=60).enqueue(2)
    t.run_until_idle()

    assert steps(t) == [
        "  flaky(good=2) ID:",
        "    +0:00:00  enqueued in low, due in 0:01:00",
        "    +0:01:00  due",
        "    +0:01:00  claimed, attempt 1",
        "    +0:01:00  retried, due in 1:00:00: tests.unit.kit_jobs.Broken: 1",
        "    +1:01:00  due",
        "    +1:01:00  claimed, attempt 2",
        "    +1:01:00  done",
    ]


def test_what_jobs_ask_for_and_what_people_do(t: Testing) -> None:
    again.enqueue("snooze")
    again.enqueue("discard")
    record = broken.opts(retry=0).enqueue(1)
    t.drain(reraise=False)
    jobs.requeue(record.id)
    jobs.delete(record.id)

    assert steps(t) == [
        "  again(then='snooze') ID:",
        "    +0:00:00  enqueued in low",
        "    +0:00:00  claimed, attempt 1",
        "    +0:00:00  snoozed, due in 0:01:00",
        "  again(then='discard') ID:",
        "    +0:00:00  enqueued in low",
        "    +0:00:00  claimed, attempt 1",
        "    +0:00:00  discarded",
        "  broken(number=1) ID:",
        "    +0:00:00  enqueued in low",
        "    +0:00:00  claimed, attempt 1",
        "    +0:00:00  dead: tests.unit.kit_jobs.Broken: 1",
        "    +0:00:00  requeued",
        "    +0:00:00  deleted",
    ]


def test_crashes_and_lost_replies(t: Testing) -> None:
    t.lose_reply()
    mail.enqueue("a")
    t.crash_runner()
    t.clock.advance(seconds=46)
    t.lose_reply(3)
    t.drain()

    assert steps(t) == [
        "  mail(to='a') ID:",
        "    +0:00:00  enqueued in low",
        "    +0:00:00  the reply to that got lost",
        "    +0:00:00  enqueued again, and was stored already",
        "    +0:00:00  claimed, attempt 1",
        "    +0:00:00  its runner died before it began",
        "    +0:00:46  taken from its runner, which is gone",
        "    +0:00:46  claimed, attempt 1",
        "    +0:00:46  done",
    ]


def test_a_zombie() -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="slow")
    def slow(ctx: Context) -> None:
        if ctx.record.recoveries == 0:
            t.pause_runner()

    with queue.testing() as t:
        slow.enqueue()
        t.drain()

        assert steps(t) == [
            "  slow() ID:",
            "    +0:00:00  enqueued in low",
            "    +0:00:00  claimed, attempt 1",
            "    +0:00:00  its runner stood still in the middle of it",
            "    +0:00:46  taken from its runner, which is gone",
            "    +0:00:46  claimed, attempt 1",
            "    +0:00:46  done",
            "    +0:00:46  its runner went on",
            "    +0:00:46  done: refused, the job had been taken away from this runner",
        ]


def test_a_long_past_is_cut(t: Testing) -> None:
    again.enqueue("snooze")
    for _ in range(15):
        t.drain()
        t.jump()

    lines = steps(t)

    assert lines[:2] == ["  again(then='snooze') ID:", "    … 25 steps earlier"]
    assert len(lines) == 22


def test_a_failed_assertion_tells_the_past_of_jobs_of_that_kind_and_the_seed() -> None:
    with jobs.testing(seed=42) as t:
        mail.enqueue("a")
        urgent.enqueue(1)
        t.drain()

        with pytest.raises(AssertionError) as caught:
            t.assert_enqueued(mail, to="a")

    told = str(caught.value)
    assert "what happened to jobs of mail in this block (memory, seed 42):\n  mail(to='a') " in told
    assert told.endswith("+0:00:00  done")
    assert "urgent" not in told


def test_a_failed_refutation_tells_the_past_of_what_was_found(t: Testing) -> None:
    mail.enqueue("a")
    mail.enqueue("b")

    with pytest.raises(AssertionError) as caught:
        t.refute_enqueued(mail, to="a")

    past = str(caught.value).partition("what happened")[2]
    assert "mail(to='a')" in past
    assert "mail(to='b')" not in past


def test_a_result_that_was_sent_again_is_no_refusal() -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="works")
    def works() -> None:
        t.lose_reply(2)

    with queue.testing() as t:
        works.enqueue()
        t.drain()

        assert steps(t)[-3:] == [
            "    +0:00:00  claimed, attempt 1",
            "    +0:00:00  done",
            "    +0:00:00  the reply to that got lost",
        ]
