"""What would be hashed of arguments is counted first: values that all have one hash would hold the interpreter."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from jobqueue.codec import Codec, Parameter
from jobqueue.crowds import MOST
from jobqueue.errors import PayloadError

MODULUS = 2**61 - 1
"""Integers that differ by it have one hash."""
INTEGERS = [number * MODULUS for number in range(1, MOST + 2)]
KEYS = {str(number): 0 for number in INTEGERS}
UUIDS = [str(UUID(int=number)) for number in INTEGERS]


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Item:
    x: int


@attrs.frozen
class Basket:
    items: set[Item] = attrs.Factory(set)
    prices: dict[int, list[int]] = attrs.Factory(dict)
    lines: list[int] = attrs.Factory(list)
    inner: Basket | None = None


class Pair(NamedTuple):
    left: int
    right: set[int]


class Line(NamedTuple):
    left: tuple[int, ...]
    right: int


class Movie(TypedDict, total=False):
    years: frozenset[int]


class Row(msgspec.Struct, array_like=True):
    left: int
    right: set[int]


@dataclasses.dataclass
class Years:
    years: set[int]


class Model(pydantic.BaseModel):
    inner: list[Years] = []


class Plain(pydantic.BaseModel):
    lines: list[int] = []
    names: set[str] = set()
    by_name: dict[str, int] = {}


LARGE: list[tuple[Any, Any]] = [
    (set[int], INTEGERS), (frozenset[int], INTEGERS), (AbstractSet[int], INTEGERS), (set[Any], INTEGERS), (set, INTEGERS),
    (set[UUID], UUIDS), (set[Decimal], [*KEYS]), (set[tuple[int, int]], [[number, 0] for number in INTEGERS]),
    (set[int | str], INTEGERS), (set[int] | None, INTEGERS), (Annotated[set[int], msgspec.Meta(min_length=1)], INTEGERS),
    (set[Item], [{"x": number} for number in INTEGERS]), (set[frozenset[int]], [[number] for number in INTEGERS]),
    (dict[int, int], KEYS), (dict[UUID, int], dict.fromkeys(UUIDS, 0)), (list[set[int]], [INTEGERS[::2], INTEGERS[1::2]]),
    (set[tuple[int, ...]], [[0] * 80 + [number] for number in INTEGERS[:500]]),
    (frozenset[Line], [[[0] * 80, number] for number in INTEGERS[:500]]),
    (tuple[int, set[int]], [1, INTEGERS]), (dict[str, set[int]], {"a": INTEGERS}), (Pair, [1, INTEGERS]),
    (Row, [1, INTEGERS]),
    (Movie, {"years": INTEGERS}), (Basket, {"items": [{"x": number} for number in INTEGERS]}),
    (Model, {"inner": [{"years": INTEGERS}]}),
    (Basket, {"inner": {"inner": {"prices": {key: [1] for key in KEYS}}}}),
]  # fmt: skip
SMALL: list[tuple[Any, Any]] = [
    (list[int], INTEGERS), (Any, INTEGERS), (dict[str, int], KEYS), (dict[Any, int], KEYS), (set[str], [*KEYS]),
    (set[int], INTEGERS[1:]), (set[tuple[int, ...]], [[0] * 80 + [number] for number in INTEGERS[:400]]),
    (dict[int, list[int]], {"1": INTEGERS, "2": INTEGERS}),
    (Basket, {"lines": INTEGERS, "items": [{"x": 1}]}), (Plain, {"lines": INTEGERS, "by_name": KEYS}),
    (set[Colour], ["red"] * 6_000), (set[timedelta], ["P1D"] * 6_000), (set[datetime], ["2030-01-01T00:00:00Z"] * 6_000),
    (tuple[list[int], set[int]], [INTEGERS, [1]]), (set[int] | str, "," * 6_000),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), LARGE, ids=lambda part: str(part)[:40])
def test_a_payload_that_hashes_too_much_is_refused_unread(hint: Any, value: Any) -> None:
    codec = Codec("shop.take", [Parameter("other", int, 0), Parameter("value", hint)])
    payload = json.dumps({"other": 1, "value": value}).encode()
    for read in (codec.decode, codec.arguments):
        with pytest.raises(
            PayloadError,
            match=r"argument `value`: sets, and dicts .* 5,000 elements in all, where 8 parts .*: give a list",
        ):
            read(payload)


@pytest.mark.parametrize(("hint", "value"), SMALL, ids=lambda part: str(part)[:40])
def test_what_is_not_hashed_or_cannot_be_foreseen_is_not_counted(hint: Any, value: Any) -> None:
    codec = Codec("shop.take", [Parameter("value", hint)])
    assert len(codec.decode(json.dumps({"value": value}).encode())) == 1


def test_all_arguments_count_together_and_fields_that_stand_twice_count_twice() -> None:
    codec = Codec("shop.take", [Parameter("a", set[int]), Parameter("b", Basket | None, None)])
    half = json.dumps(INTEGERS[: MOST // 2 + 1])
    keys = json.dumps({key: [1] for key in [*KEYS][: MOST // 2 + 1]})
    for payload in (
        f'{{"a":{half},"b":{{"prices":{keys}}}}}',
        f'{{"a":{half},"a":{half},"a":[]}}',
        f'{{"a":[],"b":{{"prices":{keys},"prices":{keys},"prices":{{}}}}}}',
    ):
        with pytest.raises(PayloadError, match="5,000 elements in all"):
            codec.decode(payload.encode())


@pytest.mark.parametrize("tail", ["", "]", "]} x", ']},"b":'])
def test_it_is_counted_before_the_end_is_known_to_be_wrong(tail: str) -> None:
    codec = Codec("shop.take", [Parameter("a", set[int])])
    with pytest.raises(PayloadError, match=r"it is no JSON|JSON is malformed"):
        codec.decode(f'{{"a":{json.dumps(INTEGERS)[:-1]}{tail}'.encode())
    with pytest.raises(PayloadError, match="nested too deep"):
        codec.decode(b'{"a":' + b"[1," * 100_000)


def test_the_caller_is_told() -> None:
    codec = Codec("shop.take", [Parameter("value", set[int])])
    assert codec.encode({"value": set(range(MOST))})
    for calls in ([{"value": set(range(MOST + 1))}], [{"value": {1}}, {"value": set(range(MOST + 1))}]):
        with pytest.raises(PayloadError, match=r"5,000 elements in all, .*: give a list, and make the set in the job"):
            codec.encode_all(calls)
