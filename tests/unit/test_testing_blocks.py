"""Testing blocks: those of several tasks, and what must not leak out of a fault."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Any

import pytest

from jobqueue import JobQueue, JobQueueError, NotApplied
from jobqueue.testing import Testing

jobs = JobQueue(namespace="tasks")


@jobs.job
def mail(to: str) -> None:
    pass


async def enqueued(to: str) -> int:
    """What a block of the calling task sees after it enqueued one job."""
    with jobs.testing() as t:
        await asyncio.sleep(0)
        await mail.aenqueue(to)
        await asyncio.sleep(0)
        return len(t.enqueued())


def test_a_second_task_cannot_open_a_block_beside_the_first() -> None:
    async def both() -> tuple[int | BaseException, int | BaseException]:
        return await asyncio.gather(enqueued("a"), enqueued("b"), return_exceptions=True)

    first, second = asyncio.run(both())

    assert first == 1
    assert isinstance(second, JobQueueError)
    assert "a testing() block of another task" in str(second)


def test_one_after_the_other_can_and_so_can_a_block_within() -> None:
    async def in_turn() -> list[int]:
        seen = [await asyncio.create_task(enqueued("a")), await asyncio.create_task(enqueued("b"))]
        with jobs.testing() as t:
            await mail.aenqueue("outer")
            seen += [await enqueued("inner"), len(t.enqueued())]
        return seen

    assert asyncio.run(in_turn()) == [1, 1, 1, 1]


def test_tasks_of_a_block_share_it() -> None:
    async def shared() -> int:
        with jobs.testing() as t:
            await asyncio.gather(mail.aenqueue("a"), mail.aenqueue("b"))
            return len(t.enqueued())

    assert asyncio.run(shared()) == 2


def test_a_block_that_an_ended_task_left_open_may_have_one_within() -> None:
    """As an asynchronous fixture does, which is run in a task of its own."""
    block = jobs.testing()

    async def scenario() -> int:
        async def fixture() -> None:
            block.__enter__()

        await asyncio.create_task(fixture())
        try:
            return await enqueued("a")
        finally:
            block.__exit__(None, None, None)

    assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize("swap", ["thread", "task"])
def test_the_error_says_what_to_do(swap: str) -> None:
    async def inside() -> None:
        with jobs.testing():
            work = asyncio.to_thread(asyncio.run, enqueued("a")) if swap == "thread" else enqueued("a")
            await asyncio.create_task(work)

    with pytest.raises(JobQueueError, match=f"give each {swap} a JobQueue of its own"):
        asyncio.run(inside())


@jobs.job
async def catches_everything() -> None:
    with contextlib.suppress(BaseException):
        CRASHING[-1].crash_runner()


@jobs.job
async def gathers_everything() -> None:
    async def part() -> None:
        CRASHING[-1].crash_runner()

    await asyncio.gather(part(), return_exceptions=True)


CRASHING: list[Testing] = []


@pytest.mark.parametrize("kind", [catches_everything, gathers_everything])
def test_a_job_does_not_survive_its_runner_by_catching_its_end(kind: Any) -> None:
    with jobs.testing() as t:
        CRASHING.append(t)
        record = kind.enqueue()

        assert t.drain() == {"crashed": 1}
        kept = jobs.get(record.id)
        assert kept is not None
        assert kept.place == "working"


def test_the_end_of_a_cut_within_a_cut_ends_its_own() -> None:
    with jobs.testing() as t:
        with t.cut_server():
            with t.cut_server(3):
                pass
            with pytest.raises(NotApplied):
                mail.enqueue("a")
        mail.enqueue("a")


@pytest.mark.parametrize("by", [{"days": 1e12}, {"seconds": math.inf}])
def test_a_clock_says_how_far_it_goes(by: dict[str, float]) -> None:
    with jobs.testing() as t, pytest.raises(ValueError, match="hundred years"):
        t.clock.advance(**by)
