"""The phases of a job in a runner."""

from __future__ import annotations

import itertools

import pytest

from jobqueue.keys import queue_keys
from jobqueue.record import Stored
from jobqueue.runner.task import NEXT, Phase, Task, advance


def task(phase: Phase) -> Task:
    made = Task(queue_keys("test", "low"), b"1", b"r:7:5000", 7, b"", Stored("k", b"{}", 0, 0, 0, 0, 0), None, 0.0)
    made.phase = phase
    return made


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Phase, Phase)))
def test_a_job_goes_where_the_table_says_and_nowhere_else(before: Phase, after: Phase) -> None:
    one = task(before)
    if after in NEXT[before]:
        advance([one], after)
        assert one.phase is after
    else:
        with pytest.raises(RuntimeError, match="cannot go from"):
            advance([one], after)
        assert one.phase is before


def test_every_phase_can_be_reached_and_left() -> None:
    reached = {Phase.CLAIMED}
    for _ in Phase:
        reached |= {after for before in reached for after in NEXT[before]}
    assert reached == set(Phase) == set(NEXT)
    assert [phase for phase in Phase if not NEXT[phase]] == [Phase.GONE]


def test_what_is_left_of_a_job_that_has_returned_is_to_store_its_verdict() -> None:
    assert [phase for phase in Phase if task(phase).returned] == [Phase.JUDGED, Phase.SENT, Phase.GONE]
