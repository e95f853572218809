"""What a runner makes of what it is told: the beat that the bound of a rescue rests on, and weights."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobqueue import DeclarationError
from jobqueue.runner.settings import check_lease, check_weights


@pytest.mark.parametrize(
    ("lease", "length", "beat"), [(30, 30_000, 5_000), (5, 5_000, 833), (timedelta(minutes=1), 60_000, 10_000)]
)
def test_there_are_six_beats_in_a_lease(lease: float | timedelta, length: int, beat: int) -> None:
    """So an owner has five more tries after a beat that was lost, and a rescue takes a lease and a half at most."""
    assert check_lease(lease) == (length, beat)


def test_a_lease_has_room_for_six_beats() -> None:
    assert check_lease(0.6) == (600, 100)
    with pytest.raises(DeclarationError, match="599 ms is too short"):
        check_lease(0.599)


def test_high_counts_twice_unless_it_is_told_otherwise() -> None:
    assert check_weights(["high", "low", "mails"]) == {"high": 2, "low": 1, "mails": 1}
    assert check_weights({"high": 1, "low": 3}) == {"high": 1, "low": 3}
