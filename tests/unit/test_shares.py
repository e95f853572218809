"""The bound in the docstring of shares.py, for any weights and any history."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.runner.shares import Shares

WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 12) | st.just(1000), min_size=2)
HISTORY = st.lists(st.tuples(st.integers(1, 40), st.sets(st.sampled_from("abcdef"), min_size=1)), max_size=40)


@given(WEIGHTS, HISTORY, st.data())
def test_two_queues_with_work_stay_within_one_turn_of_each(
    weights: dict[str, int], history: list[tuple[int, set[str]]], data: st.DataObject
) -> None:
    shares = Shares(weights)
    for units, queues in history:
        shares.split(units, queues)
    first, second = data.draw(st.permutations(sorted(weights)))[:2]
    got: Counter[str] = Counter()
    for units, others in data.draw(HISTORY):
        got.update(shares.split(units, {first, second, *others}))
        lead = abs(got[first] / weights[first] - got[second] / weights[second])
        assert lead <= 1 / weights[first] + 1 / weights[second] + 1e-6


@given(WEIGHTS, HISTORY, st.data())
def test_no_queue_with_work_waits_for_longer_than_is_said(
    weights: dict[str, int], history: list[tuple[int, set[str]]], data: st.DataObject
) -> None:
    shares = Shares(weights)
    for units, queues in history:
        shares.split(units, queues)
    queue = data.draw(st.sampled_from(sorted(weights)))
    waited = 0
    for _ in range(200):
        if queue in shares.split(1, weights):
            waited = 0
        else:
            waited += 1
        assert waited < (sum(weights.values()) - weights[queue]) / weights[queue] + len(weights)


@given(WEIGHTS, HISTORY)
def test_every_unit_goes_to_a_queue_that_takes_part(
    weights: dict[str, int], history: list[tuple[int, set[str]]]
) -> None:
    shares = Shares(weights)
    for units, queues in history:
        parts = shares.split(units, queues)
        assert parts.keys() <= queues & weights.keys()
        assert sum(parts.values()) == (units if queues & weights.keys() else 0)
        assert all(part > 0 for part in parts.values())


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_the_size_of_a_claim_does_not_matter(size: int) -> None:
    shares = Shares({"high": 2, "low": 1})
    got: Counter[str] = Counter()
    for _ in range(300):
        got.update(shares.split(size, ["high", "low"]))
    assert abs(got["high"] - 200 * size) <= 1


def test_one_at_a_time_in_the_order_of_need() -> None:
    shares = Shares({"low": 1, "high": 2})
    assert [next(iter(shares.split(1, ["high", "low"]))) for _ in range(6)] == ["high", "low", "high"] * 2


def test_a_queue_that_comes_back_neither_saved_nor_owes_turns() -> None:
    shares = Shares({"a": 1, "b": 1})
    shares.split(100, ["a"])
    assert [next(iter(shares.split(1, ["a", "b"]))) for _ in range(4)] == ["a", "b", "a", "b"]


def test_a_queue_that_is_added_joins_where_the_others_are() -> None:
    shares = Shares({"a": 1})
    shares.split(1_000, ["a"])
    shares.add("b", 1)
    assert shares.split(10, ["a", "b"]) == {"a": 5, "b": 5}


@given(WEIGHTS, HISTORY)
def test_strictly_all_goes_to_the_largest_weight_that_has_work(
    weights: dict[str, int], history: list[tuple[int, set[str]]]
) -> None:
    shares = Shares(weights, strict=True)
    for units, queues in history:
        able = queues & weights.keys()
        parts = shares.split(units, queues)
        assert sum(parts.values()) == (units if able else 0)
        assert {weights[queue] for queue in parts} <= {max((weights[queue] for queue in able), default=0)}


def test_strictly_queues_of_one_weight_share() -> None:
    shares = Shares({"a": 2, "b": 2, "c": 1}, strict=True)
    assert shares.split(10, ["a", "b", "c"]) == {"a": 5, "b": 5}
    assert shares.split(1, ["c"]) == {"c": 1}
