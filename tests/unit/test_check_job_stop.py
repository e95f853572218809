"""`check_job` plays a stop in the middle of a job, which notices or not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from jobqueue import Context, Discard, current_context
from tests.unit import shop
from tests.unit.shop import check, name_of

PARTS = 2


@shop.jobs.job
def works_in_parts(ctx: Context) -> None:
    for part in range(PARTS):
        if ctx.cancelled or ctx.lease_lost:
            return
        shop.shop.debit(1, key=f"{ctx.record.id} {part}")


@shop.jobs.job
async def waits_between_parts(ctx: Context) -> None:
    for part in range(PARTS):
        await asyncio.sleep(0)
        await shop.shop.amail(f"part {part}", key=f"{ctx.record.id} {part}")


@shop.jobs.job(retry=0)
async def cleans_up_badly(ctx: Context) -> None:
    try:
        await asyncio.sleep(0)
        shop.shop.debit(1, key=ctx.record.id)
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        raise ValueError("while it cleaned up") from None


@shop.jobs.job
async def ends_what_it_has_begun(ctx: Context) -> None:
    """A part that must not be broken off is ended in spite of the stop."""
    begun = False
    try:
        await asyncio.sleep(0)
        begun = True
        shop.shop.debit(1, key=ctx.record.id)
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if not begun:
            raise
    shop.shop.mail("done", key=ctx.record.id)
    ctx.complete()


@pytest.mark.parametrize(
    "job",
    [works_in_parts.call(), waits_between_parts.call(), cleans_up_badly.call(), ends_what_it_has_begun.call()],
    ids=name_of,
)
def test_a_job_that_can_be_stopped_passes(job: Any) -> None:
    report = check(job)

    assert report.ok, report.explain()


@shop.jobs.job
def says_complete_too_soon(ctx: Context) -> None:
    for part in range(PARTS):
        if ctx.cancelled:
            ctx.complete()
            return
        shop.shop.debit(1, key=f"{ctx.record.id} {part}")


@shop.jobs.job
def discards_itself(ctx: Context) -> None:
    shop.shop.debit(1, key=ctx.record.id)
    if ctx.cancelled:
        raise Discard("no time")
    shop.shop.mail("paid", key=ctx.record.id)


@shop.jobs.job
async def swallows_and_says_complete(ctx: Context) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
        shop.shop.debit(1, key=ctx.record.id)
    current_context().complete()


@pytest.mark.parametrize(
    "job", [says_complete_too_soon.call(), discards_itself.call(), swallows_and_says_complete.call()], ids=name_of
)
def test_a_job_that_is_said_to_be_complete_and_is_not_is_found(job: Any) -> None:
    report = check(job)

    assert report.verdict == "diverges"
    assert "ctx.complete()" in report.explain()


@shop.jobs.job
def charges_at_a_stop(ctx: Context) -> None:
    shop.shop.mail("charging", key="one")
    if ctx.cancelled:
        shop.shop.debit(1)
        return
    shop.shop.debit(1, key=ctx.record.id)


def test_the_stop_is_drawn() -> None:
    report = check(charges_at_a_stop.call(), "mail", "debit")

    assert report.verdict == "diverges"
    head, picture, _ = report.explain().split("\n\n")
    assert head.endswith("when a runner is told to stop at its start and the job is run again:")
    lines = [line.rstrip() for line in picture.split("\n")]
    assert [line.split("  ")[1] for line in lines[3:7]] == [
        "■ is told to stop at its start", "mail('charging', key='one')", "debit(1)", "returns",
    ]  # fmt: skip
