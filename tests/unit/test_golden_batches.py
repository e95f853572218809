"""The bytes that the life of a plain job costs on the way to a server, letter by letter.

Whatever the library learns, a job that does not use it is enqueued, claimed and finished by these: nobody pays for what he
does not use, and runners of two versions mean the same. A change here needs a decision.
"""

from __future__ import annotations

import pytest

from jobqueue import transitions
from jobqueue.keys import queue_keys
from jobqueue.record import Stored, encode
from jobqueue.storage.ops import Batch
from jobqueue.storage.redis.compile import compile_batches, compile_put, sole_put

LOW = queue_keys("shop", "low")
ID, CLAIM, NOW = b"0190", b"r:000000000000000000000000000001:5000", 1_900_000_000_000
RECORD = encode(b"noncenon", Stored("kind", b"{}", 13, 0, 0, NOW, NOW))
HEADER = (
    b"{shop:low}:records",
    b"{shop:low}:claims",
    b"{shop:low}:requests",
    b"{shop:low}:counters",
    b"{shop:low}:wake",
)

STEPS: dict[str, tuple[Batch, tuple[bytes, ...], list[bytes]]] = {
    "enqueue": (
        transitions.put(LOW, {ID: RECORD}, {}, {}),
        (b"{shop:low}:records", b"{shop:low}:wake", b"{shop:low}:counters", b"{shop:low}:ready"),
        [b"S", b"lw", b"4", b"", b"1", ID, RECORD],
    ),
    "schedule": (
        transitions.put(LOW, {}, {ID: RECORD}, {ID: NOW + 5}),
        (b"{shop:low}:records", b"{shop:low}:wake", b"{shop:low}:counters", b"{shop:low}:waiting"),
        [b"S", b"w", b"4", b"*", b"1", ID, RECORD, b"1900000000005"],
    ),
    "promote": (
        transitions.promote(LOW, NOW),
        (*HEADER, b"{shop:low}:waiting", b"{shop:low}:ready"),
        [b"1", b"0", b"1", b"V", b"tw", b"6", b"7", b"0", b"", b"D", b"1900000000000", b"500", b"-", b"-", b"-", b"-", b"0"],
    ),
    "claim": (
        transitions.claim(LOW, b"r", 7, limit=9, now=NOW, lease=30_000, beat=5_000),
        (*HEADER, b"{shop:low}:state", b"{shop:low}:ready", b"{shop:low}:working"),
        [
            b"1", b"1", b"A", b"6", b"paused", b"1", b"V", b"lwg", b"7", b"8", b"0", b"", b"H", b"9", b"1048576", b"-",
            b"=", b"1900000030000", b"s", b"r", b"5000", b"1900000000000", b"o", b"r", b"7", b"0",
        ],
    ),
    "extend": (
        transitions.extend(LOW, {ID: CLAIM}, NOW),
        (*HEADER, b"{shop:low}:working"),
        [
            b"1", b"0", b"1", b"V", b"", b"6", b"6", b"0", b"", b"T", b"1", ID, b"1", CLAIM, b"=", b"1900000000000", b"-",
            b"-", b"0",
        ],
    ),
    "finish": (
        transitions.finish(LOW, {ID: CLAIM}),
        (*HEADER, b"{shop:low}:working"),
        [
            b"1", b"0", b"1", b"V", b"", b"6", b"0", b"4", b"done", b"T", b"1", ID, b"1", CLAIM, b"-", b"-", b"-", b"0",
        ],
    ),
    "retry": (
        transitions.move_out("retry", LOW, {ID: CLAIM}, {ID: RECORD}, {ID: NOW}),
        (*HEADER, b"{shop:low}:working", b"{shop:low}:waiting"),
        [
            b"1", b"0", b"1", b"V", b"w", b"6", b"7", b"4", b"retried", b"T", b"1", ID, b"1", CLAIM, b"*", b"1900000000000",
            b"x", b"-", b"1", ID, RECORD,
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_what_is_sent_for_a_plain_job(step: str) -> None:
    batch, keys, args = STEPS[step]
    put = sole_put([batch])
    call = compile_put(put) if put is not None else compile_batches(LOW.scope, [batch])

    assert call.keys == keys
    assert call.args == args


def test_a_plain_record() -> None:
    assert RECORD == (
        b"noncenon\x9c\xa4kind\xc4\x02{}\r\x00\x00\xcf\x00\x00\x01\xba`\xd38\x00\xcf\x00\x00\x01\xba`\xd38\x00\xc0"
        b"\x00\x00\x00\x00"
    )
