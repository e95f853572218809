"""The bytes that are stored, letter by letter: whatever library wrote them, others read them for years."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import attrs
import pytest

from jobqueue import JobQueue
from jobqueue.record import Stored, decode, encode, rewrite


class Size(enum.Enum):
    SMALL = "s"


class Point(NamedTuple):
    x: int
    y: int


@attrs.frozen
class Picture:
    path: str
    width: int = 640


@dataclasses.dataclass(frozen=True)
class Mail:
    to: str
    copies: tuple[str, ...] = ()


PAYLOADS: list[tuple[Any, Any, bytes]] = [
    (None, None, b"null"),
    (bool, True, b"true"),
    (int, -(2**63), b"-9223372036854775808"),
    (float, 0.1, b"0.1"),
    (float, 1e300, b"1e300"),
    (str, 'ä\x00"\n', b'"\xc3\xa4\\u0000\\"\\n"'),
    (bytes, b"\x00\xff", b'"AP8="'),
    (Decimal, Decimal("1.50"), b'"1.50"'),
    (uuid.UUID, uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), b'"2026-01-02T03:04:05.000006Z"'),
    (date, date(2026, 1, 2), b'"2026-01-02"'),
    (time, time(3, 4, 5), b'"03:04:05"'),
    (timedelta, timedelta(seconds=90.5), b'"PT90.5S"'),
    (Size, Size.SMALL, b'"s"'),
    (Literal["a", 1], 1, b"1"),
    (list[int], [1, 2], b"[1,2]"),
    (tuple[int, str], (1, "a"), b'[1,"a"]'),
    (dict[str, float], {"a": 1.0}, b'{"a":1.0}'),
    (dict[int, int], {1: 2}, b'{"1":2}'),
    (Point, Point(1, 2), b"[1,2]"),
    (Picture, Picture("a.png"), b'{"path":"a.png","width":640}'),
    (Mail, Mail("a", ("b",)), b'{"to":"a","copies":["b"]}'),
]


@pytest.mark.parametrize(("hint", "value", "expected"), PAYLOADS)
def test_the_payload_of_each_type(hint: Any, value: object, expected: bytes) -> None:
    def job(value: Any) -> None: ...

    job.__annotations__["value"] = hint
    call = JobQueue("memory://").job(name="job")(job).call(value)

    payload = call.kind.codec.encode(call.arguments)

    assert payload == b'{"value":' + expected + b"}"
    assert call.kind.codec.decode(payload) == (value,)


FULL = b"noncenon\x9c\xa4kind\xc4\x02{}\xff\x01\x02\x03\x04\xa2no\x05\x06\x07\xcd\x01\x00"
NEW = b"noncenon\x9c\xa4kind\xc4\x02{}\r\x00\x00\xcf\x00\x00\x01\xba`\xd38\x00\x01\xc0\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        (FULL, Stored("kind", b"{}", -1, 1, 2, 3, 4, "no", 5, 6, 7, 256)),
        (NEW, Stored("kind", b"{}", 13, 0, 0, 1_900_000_000_000, 1)),
    ],
)
def test_a_record(record: bytes, stored: Stored) -> None:
    assert encode(b"noncenon", stored) == record
    assert decode(record) == stored


def test_a_record_that_is_changed_in_one_field() -> None:
    assert rewrite(FULL, attempt=200) == FULL.replace(b"\xff\x01\x02", b"\xff\xcc\xc8\x02")
