"""The stored record: both ways, with what is unknown kept and what is unreadable said."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.errors import PayloadError
from jobqueue.record import (
    ERROR_LIMIT,
    SHOWN,
    Stored,
    clean,
    decode,
    encode,
    job_record,
    parse_claim,
    record_of,
    rewrite,
    timestamp,
    wrap_raw,
)
from jobqueue.storage.ops import Kept, claim_mark

COUNTS = st.integers(0, 2**53 - 1)
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(max_size=40), "payload": st.binary(max_size=60), "retry": st.integers(-(2**53) + 1, 2**53 - 1),
    "error": st.none() | st.text(max_size=60), "meta": st.binary(max_size=9), "holds": st.binary(max_size=9),
}  # fmt: skip
# Of the fields that there are, so that one that is new is filled in too.
STORED = st.builds(Stored, **{name: OTHERS.get(name, COUNTS) for name in Stored.__struct_fields__})
NONCE = st.binary(min_size=8, max_size=8)
PLAIN = Stored("kind", b"{}", 13, 1, 2, 3, 4, "no", 5, 6, 7, 8)
FIELDS: list[Any] = ["kind", b"{}", 13, 1, 2, 3, 4, "no", 5, 6, 7, 8]  # as they lie in the record


@given(NONCE, STORED)
def test_both_ways(nonce: bytes, stored: Stored) -> None:
    record = encode(nonce, stored)
    assert record[:8] == nonce
    assert decode(record) == stored


def test_the_fields_are_stored_in_this_order_and_no_version_may_change_it() -> None:
    assert msgspec.msgpack.decode(encode(b"noncenon", PLAIN)[8:]) == FIELDS
    assert decode(b"noncenon" + msgspec.msgpack.encode(FIELDS)) == PLAIN


@pytest.mark.parametrize("name", Stored.__struct_fields__)
def test_rewriting_changes_the_field_that_was_named(name: str) -> None:
    new: Any = {"name": "other", "payload": b"[]", "error": None, "meta": b"\x80", "holds": b"\x80"}.get(name, 99)

    changed = decode(rewrite(encode(b"noncenon", PLAIN), **{name: new}))

    assert changed == msgspec.structs.replace(PLAIN, **{name: new})


@given(
    NONCE,
    STORED,
    st.lists(st.binary(max_size=9) | st.integers(0, 9) | st.none() | st.dictionaries(st.text(), st.none())),
)
def test_rewriting_keeps_every_other_field_byte_for_byte(nonce: bytes, stored: Stored, unknown: list[Any]) -> None:
    fields = [getattr(stored, name) for name in Stored.__struct_fields__]
    record = nonce + msgspec.msgpack.encode([*fields, *unknown])

    changed = rewrite(record, attempt=9, error="new")

    assert changed[:8] == nonce
    after = msgspec.msgpack.decode(changed[8:])
    fields[Stored.__struct_fields__.index("attempt")] = 9
    fields[Stored.__struct_fields__.index("error")] = "new"
    assert msgspec.msgpack.encode(after) == msgspec.msgpack.encode([*fields, *unknown])
    tail = msgspec.msgpack.encode(unknown)
    assert changed.endswith(tail[len(tail) - sum(len(msgspec.msgpack.encode(each)) for each in unknown) :])


def test_a_record_of_an_older_version_has_fewer_fields() -> None:
    record = b"noncenon" + msgspec.msgpack.encode(["kind", b"{}", 13, 0, 0, 1, 2])
    assert decode(record) == Stored("kind", b"{}", 13, 0, 0, 1, 2)
    assert decode(rewrite(record, parked=3)) == Stored("kind", b"{}", 13, 0, 0, 1, 2, None, 0, 3)


def test_what_a_job_holds_stands_at_the_end_and_costs_others_nothing() -> None:
    plain = msgspec.msgpack.encode(FIELDS)
    assert encode(b"noncenon", PLAIN)[8:] == plain
    assert rewrite(b"noncenon" + plain, attempt=1) == b"noncenon" + plain
    several: list[dict[str, Any]] = [{"needs": 1}, {"meta": b"\x80"}, {"holds": b"\x81\xa1u\xc0"}]
    for more in several:
        stored = msgspec.structs.replace(PLAIN, **more)
        fields = [more.get("needs", 0), more.get("meta", b""), more.get("holds", b"")]
        assert msgspec.msgpack.decode(encode(b"noncenon", stored)[8:]) == [*FIELDS, *fields]
        assert decode(rewrite(encode(b"noncenon", stored), attempt=9)) == msgspec.structs.replace(stored, attempt=9)


@pytest.mark.parametrize(
    "fields",
    [
        [], ["kind"], ["kind", "text", 13, 0, 0, 1, 2], [b"kind", b"", 13, 0, 0, 1, 2], ["kind", b"", "13", 0, 0, 1, 2],
        ["kind", b"", 13, -1, 0, 1, 2], ["kind", b"", 13, 0, 0, 1, 2**53], ["kind", b"", 2**53, 0, 0, 1, 2],
        ["kind", b"", -(2**53), 0, 0, 1, 2],
        ["kind", b"", 13, 0.5, 0, 1, 2], {"name": "kind"}, 7,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_record(fields: Any) -> None:
    record = b"noncenon" + msgspec.msgpack.encode(fields)
    with pytest.raises(PayloadError, match="not a job record"):
        decode(record)
    with pytest.raises(PayloadError, match="not a job record"):
        rewrite(record, attempt=1)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused_and_can_be_kept_and_shown(record: bytes) -> None:
    reason = ""
    try:
        decode(record)
    except PayloadError as error:
        reason = str(error)
    wrapped = wrap_raw(record, reason, 7)
    assert decode(wrapped).payload == record
    assert decode(wrapped).error == reason
    assert wrapped[:8] == record[:8].ljust(8, b"\0")
    shown = record_of(b"\xff\x00id", "low", Kept(record, "dead", 3, None))
    assert shown.place == "dead"
    assert shown.payload is not None


@given(st.text(st.characters()) | st.text(st.characters(categories=["Cs"])))
def test_an_error_of_any_text_is_kept_short_and_storable(text: str) -> None:
    kept = clean(text)
    assert decode(rewrite(encode(b"noncenon", PLAIN), error=kept)).error == kept
    if len(text) <= ERROR_LIMIT and not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert kept == text


def test_a_long_error_is_cut_at_its_end() -> None:
    assert clean("a" + "x" * 100_000) == "a" + "x" * (ERROR_LIMIT - 1)


@pytest.mark.parametrize(
    ("claim", "parts"),
    [
        (claim_mark(b"runner", 77, 5_000), (b"runner", 77, 5_000)),
        (claim_mark(b"a\nb:c", 2**49, 100), (b"a\nb:c", 2**49, 100)),
        (b":7:1", (b"", 7, 1)),
        (b"a:0:0", (b"a", 0, 0)),
        (b"a:7:1000000000", (b"a:7:1000000000", 0, 0)),
        (b"a:-7:1", (b"a:-7:1", 0, 0)),
        (b"a:7:1 ", (b"a:7:1 ", 0, 0)),
        (b"a:7", (b"a:7", 0, 0)),
        (b"", (b"", 0, 0)),
    ],
)
def test_what_a_claim_says(claim: bytes, parts: tuple[bytes, int, int]) -> None:
    assert parse_claim(claim) == parts


@pytest.mark.parametrize("retry", [2**53 - 1, -(2**53) + 1])
def test_the_furthest_numbers_of_retries_are_read(retry: int) -> None:
    stored = msgspec.structs.replace(PLAIN, retry=retry)
    assert decode(encode(b"noncenon", stored)) == stored


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_900_000_000_123, datetime(2030, 3, 17, 17, 46, 40, 123_000, tzinfo=UTC)),
        (2**53 - 1, datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_times(ms: int, expected: datetime) -> None:
    assert timestamp(ms) == expected


def test_what_a_user_sees() -> None:
    record = job_record(b"id", "low", PLAIN, "working", fence=9, nonce=b"noncenon")
    assert (record.id, record.name, record.queue, record.payload) == ("id", "kind", "low", b"{}")
    assert (record.attempt, record.retry, record.error, record.place) == (1, 13, "no", "working")
    assert (record.recoveries, record.fence) == (2, 9)
    assert (record.created, record.due) == (timestamp(3), timestamp(4))
    assert "noncenon" not in repr(record)
    public = {name for name in dir(record) if not name.startswith("_")}
    assert public - {"stored", "nonce", "cursor"} >= set(SHOWN)
    assert re.findall(r"[(,] ?(\w+)=(?!datetime.timezone)", repr(record)) == list(SHOWN)
    assert job_record(b"a\xff\0", "low", PLAIN, "ready").id == r"a\xff\x00"
    kept = Kept(encode(b"noncenon", PLAIN), "working", 1, b"runner:77:100")
    assert record_of(b"id", "low", kept).fence == 77


@given(STORED)
def test_a_record_is_a_plain_value_and_what_shows_the_same_is_equal(stored: Stored) -> None:
    record = job_record(b"id", "low", stored, "waiting", nonce=b"noncenon", score=7)

    unseen = {"started": 1, "parked": 2, "died": 3}
    assert record == job_record(
        b"id", "low", msgspec.structs.replace(stored, **unseen), "waiting", nonce=b"noncenon", score=7
    )
    for again in (pickle.loads(pickle.dumps(record)), copy.deepcopy(record)):
        assert again == record
        assert hash(again) == hash(record)
        assert repr(again) == repr(record)
    assert record != msgspec.structs.replace(record, stored=msgspec.structs.replace(stored, attempt=stored.attempt ^ 1))


@pytest.mark.parametrize("claim", [b"junk", b"a:b:c", b"", b"a:1", b"\xff:\xff"])
def test_a_claim_that_a_foreign_writer_left_is_no_obstacle(claim: bytes) -> None:
    assert record_of(b"id", "low", Kept(encode(b"noncenon", PLAIN), "working", 1, claim)).place == "working"
