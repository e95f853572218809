"""The clock that a test moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from jobqueue.testing import FakeClock

NEW_YEAR_MS = 1_893_456_000_000


def test_it_starts_in_2030_and_stands_still() -> None:
    clock = FakeClock()

    assert (clock.now(), clock.now()) == (NEW_YEAR_MS, NEW_YEAR_MS)
    assert clock.datetime == datetime(2030, 1, 1, tzinfo=UTC)
    assert clock.datetime.tzinfo is UTC


def test_both_times_advance_together() -> None:
    clock = FakeClock()
    now, local = clock.now(), clock.monotonic()

    clock.advance(days=1, hours=2, minutes=3, seconds=4, milliseconds=5)

    passed = 86_400_000 + 7_200_000 + 180_000 + 4_000 + 5
    assert clock.now() - now == passed
    assert clock.monotonic() - local == passed


@pytest.mark.parametrize("duration", [90, 90.0, timedelta(minutes=1, seconds=30)])
def test_it_takes_seconds_and_timedeltas(duration: float | timedelta) -> None:
    clock = FakeClock()

    clock.advance(duration, milliseconds=1)

    assert clock.now() - NEW_YEAR_MS == 90_001


def test_it_starts_where_it_is_told() -> None:
    start = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2)))

    assert FakeClock(start).datetime == start


@pytest.mark.parametrize("start", [datetime(2030, 1, 1), datetime(1969, 12, 31, tzinfo=UTC)])  # noqa: DTZ001
def test_a_start_that_no_storage_knows_is_refused(start: datetime) -> None:
    with pytest.raises(ValueError, match=r"time zone|before 1970"):
        FakeClock(start)


@pytest.mark.parametrize("step", [{"seconds": -1}, {"hours": 1, "minutes": -61}, {"days": 36_501}])
def test_it_never_runs_backwards_nor_out_of_the_calendar(step: dict[str, Any]) -> None:
    clock = FakeClock()

    with pytest.raises(ValueError, match="step of a clock"):
        clock.advance(**step)

    assert clock.now() == NEW_YEAR_MS


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="seconds component: str"):
        FakeClock().advance("1 hour")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_many_threads_lose_no_step() -> None:
    clock = FakeClock()

    def tick() -> None:
        for _ in range(500):
            clock.advance(milliseconds=1)

    with ThreadPoolExecutor(8) as pool:
        for ticking in [pool.submit(tick) for _ in range(8)]:
            ticking.result()

    assert clock.now() - NEW_YEAR_MS == 4_000
