"""The options of an enqueue call, checked when they are typed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pytest

from jobqueue import JobQueue
from jobqueue.errors import DeclarationError
from jobqueue.options import NO_OPTIONS, EnqueueOptions, Options
from jobqueue.record import Stored

jobs = JobQueue("memory://")


@jobs.job
def send(to: str) -> None: ...


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Options()),
        ({"queue": "high", "retry": 0}, Options(queue="high", retry=0)),
        ({"retry": -1}, Options(retry=-1)),
        ({"delay": 300}, Options(delay_ms=300_000)),
        ({"delay": 0.25}, Options(delay_ms=250)),
        ({"delay": timedelta(days=1)}, Options(delay_ms=86_400_000)),
        ({"at": datetime(1970, 1, 2, tzinfo=UTC)}, Options(at_ms=86_400_000)),
        ({"at": datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=1)))}, Options(at_ms=82_800_000)),
        ({"at": datetime(2030, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))}, Options(at_ms=1_909_130_400_000)),
        # Never early: a time between two milliseconds is the later one.
        ({"at": datetime(1970, 1, 1, 0, 0, 0, 1001, tzinfo=UTC)}, Options(at_ms=2)),
        # A time long past is now.
        ({"at": datetime(1900, 1, 1, tzinfo=UTC)}, Options(at_ms=0)),
        ({"at": datetime.max.replace(tzinfo=UTC)}, Options(at_ms=253_402_300_800_000)),
    ],
)
def test_options_that_are_fine(given: EnqueueOptions, expected: Options) -> None:
    assert send.call("a").opts(**given).options == expected
    assert send.opts(**given).call("a").options == expected


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dleay": 3}, TypeError, "no option 'dleay'; did you mean 'delay'.*at, delay, queue, retry"),
        ({"priority": 3}, TypeError, "no option 'priority'"),
        ({"delay": 3, "at": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError, "delay and at say the same thing"),
        ({"delay": 0, "at": datetime(2030, 1, 1, tzinfo=UTC)}, ValueError, "delay and at say the same thing"),
        ({"at": datetime(2030, 1, 1)}, ValueError, "has no time zone"),  # noqa: DTZ001 - that is the point
        ({"at": 1893456000}, TypeError, "at must be an aware datetime"),
        ({"at": None}, TypeError, "at must be an aware datetime"),
        ({"delay": -1}, ValueError, "delay must be between .* -1 is negative"),
        ({"delay": timedelta(seconds=-1)}, ValueError, "delay must be between"),
        ({"delay": math.nan}, ValueError, "nan is not finite"),
        ({"delay": math.inf}, ValueError, "inf is not finite"),
        ({"delay": 1e308}, ValueError, "is too long"),
        ({"delay": 10**400}, ValueError, "is too long"),
        ({"delay": "3"}, TypeError, "delay must be a timedelta or a number of seconds"),
        ({"delay": True}, TypeError, "delay must be a timedelta or a number of seconds"),
        ({"delay": None}, TypeError, "delay must be a timedelta or a number of seconds"),
        ({"retry": 1.5}, DeclarationError, "no number of retries"),
        ({"retry": True}, DeclarationError, "no number of retries"),
        ({"retry": 10**18}, DeclarationError, "no number of retries"),
        ({"queue": "a b"}, DeclarationError, "no name of a queue"),
        ({"queue": None}, DeclarationError, "no name of a queue"),
    ],
)
def test_options_that_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        send.opts(**given)
    with pytest.raises(error, match=message):
        send.call("a").opts(**given)
    assert jobs.counts() == {}


def test_later_options_take_the_place_of_earlier_ones() -> None:
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    call = send.opts(delay=9, queue="high").call("a")

    assert call.opts(queue="low").options == Options(queue="low", delay_ms=9000)
    assert call.opts(at=at).options == Options(queue="high", at_ms=1000)
    assert call.opts(at=at).opts(delay=1).options == Options(queue="high", delay_ms=1000)
    assert call.options == Options(queue="high", delay_ms=9000)


def test_no_options_are_one_object() -> None:
    assert send.call("a").opts().options is NO_OPTIONS


def test_options_of_the_record_have_the_names_of_its_fields() -> None:
    given = Options(queue="high", retry=4, delay_ms=5)
    assert given.stored == {"retry": 4}
    assert NO_OPTIONS.stored == {}
    marked = {field.name for field in attrs.fields(Options) if field.metadata}
    assert marked <= set(Stored.__struct_fields__)
