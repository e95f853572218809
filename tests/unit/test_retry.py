"""The retry table, policies, and what a job can ask for."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import Discard, Retry, RetryPolicy, Snooze
from jobqueue.durations import LONGEST_MS, milliseconds
from jobqueue.errors import DeclarationError
from jobqueue.retry import minutes_backoff

TABLE = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024]
"""Minutes before retry 1, 2, 3 … 13: a promise, so written out."""


def test_the_default_retry_table() -> None:
    policy = RetryPolicy()

    assert policy.limit == 13
    assert [policy.next_delay(n) for n in range(1, 14)] == [minutes * 60_000 for minutes in TABLE]
    assert sum(TABLE) == 5118


def test_without_end_the_pause_stays_at_1024_minutes() -> None:
    assert minutes_backoff(14) == minutes_backoff(10_000) == 1024 * 60


def test_a_backoff_of_ones_own_may_answer_seconds_or_a_timedelta() -> None:
    assert RetryPolicy(backoff=lambda n: n / 4).next_delay(3) == 750
    assert RetryPolicy(backoff=lambda n: timedelta(minutes=n)).next_delay(2) == 120_000
    assert RetryPolicy(backoff=lambda n: 0).next_delay(1) == 0


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, 10**400, timedelta(days=-1), 11 * 365 * 86400])
def test_a_backoff_out_of_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="the backoff of retry 7 must be"):
        RetryPolicy(backoff=lambda n: value).next_delay(7)


@pytest.mark.parametrize("value", [None, "60", True, Fraction(1, 2), [1]])
def test_a_backoff_that_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="the backoff of retry 7 must be"):
        RetryPolicy(backoff=lambda n: value).next_delay(7)


def test_only_the_named_exceptions_are_retried() -> None:
    policy = RetryPolicy(on=(LookupError, OSError), give_up_on=(KeyError,))

    assert policy.wants(IndexError())
    assert policy.wants(ConnectionResetError())
    assert not policy.wants(KeyError())
    assert not policy.wants(ValueError())
    assert RetryPolicy().wants(ValueError())
    assert RetryPolicy().wants(KeyboardInterrupt())
    assert RetryPolicy().wants(SystemExit(1))
    assert RetryPolicy().wants(asyncio.CancelledError())
    assert not RetryPolicy(on=(Exception,)).wants(SystemExit(1))


class Many(ExceptionGroup[Exception], ArithmeticError):
    """A group that is something else as well."""


Tree: TypeAlias = "type[BaseException] | list[Tree]"
LEAVES: Final = st.sampled_from([KeyError, IndexError, OSError, ValueError, SystemExit])
TREES: Final = st.recursive(LEAVES, lambda trees: st.lists(trees, min_size=1, max_size=4), max_leaves=12)
NAMED: Final = st.lists(
    st.sampled_from([KeyError, LookupError, OSError, ValueError, Exception, BaseException]), max_size=3
).map(tuple)


def _made(tree: Tree) -> BaseException:
    return BaseExceptionGroup("some", [_made(one) for one in tree]) if isinstance(tree, list) else tree()


def _flat(tree: Tree) -> Iterator[type[BaseException]]:
    for one in tree if isinstance(tree, list) else ():
        yield from _flat(one)
    if not isinstance(tree, list):
        yield tree


@given(TREES, NAMED, NAMED)
def test_a_group_is_given_up_if_all_its_members_are(
    tree: Tree, on: tuple[type[BaseException], ...], give_up_on: tuple[type[BaseException], ...]
) -> None:
    policy = RetryPolicy(on=on, give_up_on=give_up_on)
    assert policy.wants(_made(tree)) == any(policy.wants(leaf()) for leaf in _flat(tree))


def test_a_class_of_groups_may_be_named() -> None:
    values, mixed = ExceptionGroup("a", [ValueError()]), ExceptionGroup("b", [ValueError(), KeyError()])
    assert RetryPolicy(on=(ExceptionGroup,)).wants(values)
    assert not RetryPolicy(on=(ExceptionGroup,)).wants(ValueError())
    assert not RetryPolicy(on=(ExceptionGroup,), give_up_on=(ValueError,)).wants(values)
    assert RetryPolicy(on=(ExceptionGroup,), give_up_on=(ValueError,)).wants(mixed)
    assert not RetryPolicy(give_up_on=(ExceptionGroup,)).wants(mixed)
    assert RetryPolicy(on=(ArithmeticError,)).wants(Many("c", [ValueError()]))
    assert not RetryPolicy(give_up_on=(ArithmeticError,)).wants(Many("c", [ValueError()]))


def test_what_members_of_a_group_ask_for_counts_for_them() -> None:
    given_up = ValueError()
    policy = RetryPolicy(on=(KeyError,), give_up_on=(ValueError,))
    assert policy.wants(ExceptionGroup("a", [Retry(), given_up]))
    assert policy.wants(ExceptionGroup("a", [Snooze(5), given_up]))
    assert not policy.wants(ExceptionGroup("a", [Discard(), given_up]))
    assert not RetryPolicy().wants(ExceptionGroup("a", [Discard()]))


def test_groups_of_any_depth_and_size_are_judged() -> None:
    group: Exception = ValueError()
    for _ in range(5_000):
        group = ExceptionGroup[Exception]("deep", [group])
    assert not RetryPolicy(give_up_on=(ValueError,)).wants(group)
    group = ValueError()
    for _ in range(60):  # 2**60 members, if each were looked at as often as it is found
        group = ExceptionGroup[Exception]("wide", [group, group])
    assert not RetryPolicy(give_up_on=(ValueError,)).wants(group)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(
            ({"limit": limit}, f"retry={limit!r} is no number of retries")
            for limit in ("3", True, 1.0, 2**31, -(2**31))
        ),
        ({"backoff": 60}, "backoff must be a function .* not 60"),
        ({"on": ValueError}, "^on must be a tuple of exception classes"),
        ({"on": (int,)}, "^on must be a tuple of exception classes"),
        ({"on": [ValueError]}, "^on must be a tuple of exception classes"),
        ({"give_up_on": (ValueError(),)}, "^give_up_on must be a tuple of exception classes"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        RetryPolicy(**arguments)


@pytest.mark.parametrize("limit", [2**31 - 1, -(2**31) + 1])
def test_the_furthest_limits_are_taken(limit: int) -> None:
    assert RetryPolicy(limit=limit).limit == limit


def test_a_limit_may_be_zero_or_without_end() -> None:
    assert (RetryPolicy(limit=0).limit, RetryPolicy(limit=-1).limit) == (0, -1)


def test_what_a_job_can_ask_for() -> None:
    assert Snooze(2.5).delay_ms == 2500
    assert Snooze(delay=timedelta(hours=1)).delay_ms == 3_600_000
    assert Retry().after_ms is None
    assert Retry(after=0).after_ms == 0
    assert (Discard().reason, Discard("gone").reason) == ("", "gone")
    assert all(issubclass(cls, Exception) for cls in (Snooze, Retry, Discard))


@pytest.mark.parametrize("make", [Snooze, Retry])
def test_what_a_job_asks_for_is_checked(make: Any) -> None:
    with pytest.raises(ValueError, match=f"{make.__name__} must be between 0 seconds and 100 years; -1 is negative"):
        make(-1)
    with pytest.raises(ValueError, match="nan is not finite"):
        make(math.nan)
    with pytest.raises(TypeError, match="must be a timedelta or a number of seconds, not True"):
        make(True)


@pytest.mark.parametrize("asked", [Snooze(3), Retry(4), Retry(), Discard("x")])
def test_what_a_job_asks_for_can_be_copied_like_an_exception(asked: Exception) -> None:
    again = copy.copy(asked)

    assert type(again) is type(asked)
    assert vars(again) == vars(asked)


def test_durations_in_milliseconds() -> None:
    assert milliseconds(1, "x") == 1000
    assert milliseconds(0.1, "x") == 100
    assert milliseconds(timedelta(days=1, microseconds=1500), "x") == 86_400_002
    assert milliseconds(LONGEST_MS / 1000, "x") == LONGEST_MS
    with pytest.raises(ValueError, match=r"lease must be between 0 seconds and 100 years; .* is too long"):
        milliseconds(LONGEST_MS / 1000 + 1, "lease")
    with pytest.raises(ValueError, match=r"lease .*inf is not finite"):
        milliseconds(math.inf, "lease")


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.booleans(), st.none(), st.text()))
def test_every_value_is_a_bounded_number_or_an_error(value: Any) -> None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        with pytest.raises(TypeError, match="x must be"):
            milliseconds(value, "x")
    elif 0 <= seconds <= LONGEST_MS / 1000:
        assert abs(milliseconds(value, "x") - seconds * 1000) <= 1
    else:
        with pytest.raises(ValueError, match="x must be"):
            milliseconds(value, "x")
