"""What becomes of a job after a run and after a crash, as tables."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.judge import (
    TOO_OFTEN,
    RaisedElsewhere,
    Verdict,
    after_crash,
    after_own_crash,
    after_run,
    is_suspect,
    released,
    unfit,
    unknown_kind,
    unreadable,
)
from jobqueue.record import ERROR_LIMIT, Stored
from jobqueue.retry import Discard, Retry, RetryPolicy, Snooze
from jobqueue.texts import error_text

NOW = 1_900_000_000_000
MINUTE = 60_000
ORDERLY = {"recoveries": 0, "started": 0, "parked": 0, "parked_since": 0}


def stored(**fields: Any) -> Stored:
    return Stored(**{
        "name": "kind", "payload": b"{}", "retry": 13, "attempt": 0, "recoveries": 0, "created": 0, "due": 0, **fields,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "outcome", "policy", "ending", "delay"),
    [
        ({}, ValueError(), RetryPolicy(), "retried", 2 * MINUTE),
        ({"attempt": 3}, ValueError(), RetryPolicy(), "retried", 16 * MINUTE),
        ({"attempt": 12}, ValueError(), RetryPolicy(), "retried", 1024 * MINUTE),
        ({"attempt": 13}, ValueError(), RetryPolicy(), "dead", 0),
        ({"retry": 0}, ValueError(), RetryPolicy(), "dead", 0),
        ({"retry": -1, "attempt": 10**6}, ValueError(), RetryPolicy(), "retried", 1024 * MINUTE),
        ({}, KeyError(), RetryPolicy(on=(ValueError,)), "dead", 0),
        ({}, UnicodeError(), RetryPolicy(on=(ValueError,)), "retried", 2 * MINUTE),
        ({}, UnicodeError(), RetryPolicy(on=(ValueError,), give_up_on=(UnicodeError,)), "dead", 0),
        ({}, ValueError(), RetryPolicy(backoff=lambda n: n / 10), "retried", 100),
        ({"attempt": 1}, ValueError(), RetryPolicy(backoff=lambda n: n / 10), "retried", 200),
        ({}, Retry(), RetryPolicy(on=(ValueError,)), "retried", 2 * MINUTE),
        ({}, Retry(after=7), RetryPolicy(), "retried", 7_000),
        ({"attempt": 13}, Retry(after=7), RetryPolicy(), "dead", 0),
        ({"retry": 0}, Retry(), RetryPolicy(), "dead", 0),
        ({"retry": 0, "attempt": 9}, Snooze(5), RetryPolicy(), "snoozed", 5_000),
        ({"retry": 0}, Discard("why"), RetryPolicy(), "discarded", None),
    ],
)
def test_after_a_run(
    fields: dict[str, Any], outcome: BaseException, policy: RetryPolicy, ending: str, delay: int | None
) -> None:
    before = stored(recoveries=3, started=4, parked=5, parked_since=6, **fields)
    verdict = after_run(before, outcome, "text", policy, NOW)
    assert verdict.ending == ending
    assert verdict.score == (None if delay is None else NOW + delay)
    attempt = before.attempt + 1
    expected: dict[str, dict[str, object]] = {
        "retried": {**ORDERLY, "attempt": attempt, "error": "text", "due": verdict.score},
        "dead": {**ORDERLY, "attempt": attempt, "error": "text"},
        "snoozed": {**ORDERLY, "due": verdict.score},
        "discarded": {},
    }
    assert verdict.changes == expected[ending]
    steps = {"retried": "retry", "dead": "bury", "snoozed": "snooze", "discarded": "discard"}
    assert verdict.step == steps[ending]


@given(st.integers(0, 30), st.integers(-3, 30))
def test_a_job_runs_once_more_than_it_has_retries(attempt: int, retry: int) -> None:
    verdict = after_run(stored(attempt=attempt, retry=retry), ValueError(), "", RetryPolicy(), NOW)
    assert (verdict.ending == "dead") is (retry >= 0 and attempt >= retry)


def test_a_policy_is_asked_for_the_number_of_the_retry() -> None:
    asked: list[int] = []

    def backoff(n: int) -> float:
        asked.append(n)
        return 1

    for attempt in range(4):
        after_run(stored(attempt=attempt), ValueError(), "", RetryPolicy(backoff=backoff), NOW)
    assert asked == [1, 2, 3, 4]


@pytest.mark.parametrize(("died", "score"), [(0, NOW), (NOW - 1, NOW), (NOW, NOW + 1), (NOW + 5, NOW + 6)])
def test_each_death_has_a_score_above_that_of_the_last(died: int, score: int) -> None:
    again = stored(retry=0, died=died)
    assert after_run(again, ValueError(), "", RetryPolicy(), NOW).score == score
    assert unknown_kind(stored(died=died, parked_since=1), NOW).score == score
    assert after_crash(stored(recoveries=TOO_OFTEN - 1, started=9, died=died), 9, NOW).score == score
    assert unfit(again, "", NOW).score == score


# ------------------------------------------------------------------------------------------------------------- crashes


def crash(before: Stored, fence: int = 9) -> Stored | Verdict:
    """The job as it goes back to ready, or the verdict that it is dead."""
    after = after_crash(before, fence, NOW)
    if after.step == "condemn":
        return after
    assert (after.step, after.score) == ("rescue", None)
    assert "attempt" not in after.changes, "a crash is no failed attempt"
    return stored(**{
        **{name: getattr(before, name) for name in Stored.__struct_fields__}, **after.changes,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("recoveries", "started", "after"),
    [
        (0, 0, 1),
        (1, 0, 2),
        (2, 0, 2),
        (2, 8, 2),
        (2, 9, 3),
        (3, 9, 4),
        (4, 0, 4),
        (4, 8, 4),
        (4, 9, "dead"),
        (9, 9, "dead"),
    ],
)
def test_who_is_to_blame(recoveries: int, started: int, after: int | str) -> None:
    """The first two crashes say nothing; then only one that was started alone under this very claim counts."""
    result = crash(stored(recoveries=recoveries, started=started), fence=9)
    if after == "dead":
        assert isinstance(result, Verdict)
        assert (result.ending, result.step) == ("dead", "condemn")
        assert str(recoveries + 1) in str(result.changes["error"])
    else:
        assert isinstance(result, Stored)
        assert (result.recoveries, result.started) == (after, 0)


@given(st.lists(st.booleans(), max_size=40))
def test_a_neighbour_of_poison_never_dies_of_it(alone: list[bool]) -> None:
    """It is claimed with the poison over and over, and started alone only in runs that end well."""
    job = stored()
    for _ in alone:
        after = crash(job, fence=9)
        assert isinstance(after, Stored)
        job = after
    assert job.recoveries <= 2


def test_five_crashes_in_a_row_of_its_own() -> None:
    job, crashes = stored(), 0
    while crashes < 10:
        job = stored(recoveries=job.recoveries, started=9 if is_suspect(job) else 0)
        crashes += 1
        after = crash(job, fence=9)
        if isinstance(after, Verdict):
            break
        job = after
    assert crashes == TOO_OFTEN == 5


def test_a_job_that_cannot_be_read_dies_with_whoever_finds_it() -> None:
    assert (unreadable(NOW).step, unreadable(NOW).score) == ("bury", NOW)
    assert (after_crash(None, 9, NOW).step, after_crash(None, 9, NOW).score) == ("condemn", NOW)


def test_a_suspect_that_goes_back_is_not_to_blame_for_what_comes() -> None:
    """Whoever dies with it next did not start it alone, unless its record says so again."""
    assert released(stored(recoveries=3, started=9), 9).changes == {"started": 0}
    for started in (0, 8):
        verdict = released(stored(recoveries=3, started=started), 9)
        assert (verdict.step, verdict.changes, verdict.score, verdict.ending) == ("release", {}, None, "released")


# -------------------------------------------------------------------------------------------------------- unknown kinds


def test_an_unknown_kind_is_parked_for_longer_and_longer() -> None:
    job, now = stored(), NOW
    pauses: list[int] = []
    while True:
        verdict = unknown_kind(job, now)
        assert verdict.score is not None
        assert len(pauses) < 100, "put off for ever"
        if verdict.ending == "dead":
            break
        assert "attempt" not in verdict.changes
        assert verdict.changes["due"] == verdict.score
        pauses.append(verdict.score - now)
        job = stored(**verdict.changes)
        now = verdict.score
    assert pauses[:7] == [minutes * MINUTE for minutes in (1, 2, 4, 8, 16, 32, 60)]
    assert set(pauses[6:]) == {60 * MINUTE}
    assert 24 * 60 * MINUTE <= now - NOW < 25 * 60 * MINUTE
    assert attrs.asdict(verdict)["step"] == "bury"


@pytest.mark.parametrize(("parked_for", "ending"), [(24 * 60 * MINUTE - 1, "parked"), (24 * 60 * MINUTE, "dead")])
def test_an_unknown_kind_has_a_day(parked_for: int, ending: str) -> None:
    assert unknown_kind(stored(parked=30, parked_since=NOW - parked_for), NOW).ending == ending


@pytest.mark.parametrize("parked", [6, 10, 11, 2**53 - 1])
def test_no_count_that_a_record_can_hold_makes_a_pause_too_long(parked: int) -> None:
    """Whoever can write to the storage can write a record: 2 to the power of its count would fill the memory."""
    verdict = unknown_kind(stored(parked=parked, parked_since=NOW), NOW)
    assert verdict.score == NOW + 60 * MINUTE


# ----------------------------------------------------------------------------------------------------- its own process


def test_a_job_alone_in_its_process_is_to_blame_at_once() -> None:
    """Four crashes bring it back, whatever is in its record; the fifth is its end."""
    job = stored(attempt=2)
    for crashes in range(1, TOO_OFTEN):
        verdict = after_own_crash(job, 100 + crashes, "its process died", NOW)
        assert (verdict.ending, verdict.step) == ("crashed", "release")
        assert "attempt" not in verdict.changes, "a crash is no failed attempt"
        assert (verdict.changes["recoveries"], verdict.changes["started"]) == (crashes, 100 + crashes)
        job = stored(attempt=2, **{name: verdict.changes[name] for name in ("recoveries", "started")})
    last = after_own_crash(job, 200, "its process died", NOW)
    assert (last.ending, last.step, last.score) == ("dead", "bury", NOW)
    assert str(last.changes["error"]).startswith("its process died; ")


def test_who_crashes_in_its_own_process_is_no_suspect_until_a_runner_dies_with_it() -> None:
    """And the runner's death is not held against it: only one that ran alone in the runner is blamed for that."""
    crashed = stored(recoveries=2, started=9)
    assert not is_suspect(crashed, isolated=True)
    assert is_suspect(crashed), "a runner to which the kind is a plain function has no process to risk"
    with_the_runner = crash(crashed, fence=11)
    assert isinstance(with_the_runner, Stored)
    assert with_the_runner.recoveries == 2
    assert is_suspect(with_the_runner, isolated=True)


@pytest.mark.parametrize("wanted", [True, False])
def test_what_another_process_said_of_its_error_counts(wanted: bool) -> None:
    policy = RetryPolicy(on=(KeyError,)) if wanted else RetryPolicy()
    verdict = after_run(stored(), RaisedElsewhere(wanted), "text", policy, NOW)
    assert verdict.ending == ("retried" if wanted else "dead")


def test_what_a_policy_adds_to_a_long_text_takes_nothing_from_its_end() -> None:
    def backoff(_: int) -> float:
        raise ValueError("backoff" * 10_000)

    class Refuses(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise ValueError("instance" * 10_000)

    class Never(Exception, metaclass=Refuses):
        pass

    group = ExceptionGroup("é" * 10_000, [ValueError("é" * 10_000) for _ in range(10)])
    for member in group.exceptions:
        member.__cause__ = KeyError("é" * 10_000, member)
    policy = RetryPolicy(backoff=backoff, give_up_on=(Never,))
    text = error_text(group)
    verdict = after_run(stored(), group, text, policy, NOW)
    told = str(verdict.changes["error"])
    assert len(told.encode()) <= ERROR_LIMIT
    assert told.endswith(text.partition("\n")[2])
    assert "its backoff failed, the default was used: ValueError: backoff" in told
    assert "its retry policy failed, so it is retried: ValueError: instance" in told
