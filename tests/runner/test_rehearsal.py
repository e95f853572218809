"""How a runner waits at its start for a storage that is away."""

from __future__ import annotations

import itertools
import logging

import pytest

from jobqueue import JobQueue, NotApplied, Runner, StorageRefused
from jobqueue.runner.rehearsal import Patience


def test_what_lasts_is_said_ever_more_rarely_and_what_is_new_at_once(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience(0.0, None, logging.getLogger("own"))
    said: list[float] = []
    at = pause_s = 0.0
    while at < 600_000:
        pause_s = patience.pause_s(NotApplied("away"), at)
        said += [at] * len(caplog.messages)
        caplog.clear()
        at += pause_s * 1000
    assert pause_s == 2.0
    gaps = [round(after - before, -3) / 1000 for before, after in itertools.pairwise(said)]
    assert gaps[:5] == sorted(gaps[:5])
    assert gaps[0] <= 2
    assert {*gaps[8:]} <= {60, 61, 62}
    patience.pause_s(NotApplied("loading"), at)
    assert caplog.messages == ["waiting for the storage: loading"]


def test_it_gives_up_what_does_not_pass_and_what_lasts_too_long(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience(5_000.0, 30_000.0, logging.getLogger("own"))
    with pytest.raises(StorageRefused, match="no right"):
        patience.pause_s(StorageRefused("no right"), 5_000.0)
    patience.pause_s(NotApplied("away"), 34_999.0)
    with pytest.raises(NotApplied, match="gave up after 30 s: away"):
        patience.pause_s(NotApplied("away"), 35_000.0)
    assert caplog.messages == ["waiting for the storage: away"]


def test_a_burst_ends_where_no_storage_is(tmp_path: object) -> None:
    with JobQueue(f"unix://{tmp_path}/none", timeout=0.1) as jobs:

        @jobs.job(name="work")
        def work() -> None: ...

        with pytest.raises(NotApplied, match=r"gave up after 0\.6 s"):
            Runner(jobs, lease=0.6).run(signals=False, until_empty=True)
