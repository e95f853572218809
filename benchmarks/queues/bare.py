"""The ceiling: the least over redis-py that keeps a job from a crash of its worker.

A record in a hash and its id in a list; a script that takes a hundred ids and notes them as taken; a decoder in C, a
function called, two deletions. No leases, fences, retries, counters or several queues, nothing that rescues, and no request
may be sent twice. ``python -m benchmarks.queues.bare`` is its worker.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks import jobs as bodies
from benchmarks.queues import URL

BATCH = 100
CHUNK = 100
LIST, RECORDS, TAKEN = "bare:list", "bare:records", "bare:taken"
TAKE = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {{}, {}} end
local taken = {}
for i, id in ipairs(ids) do taken[2 * i - 1] = id; taken[2 * i] = ARGV[2] end
redis.call('HSET', KEYS[3], unpack(taken))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""
FILLER = b"-" * 39
"""Makes a record as long as what jobqueue stores of a no-op."""

_client: Any = redis.Redis.from_url(URL or "redis://", retry=Retry(NoBackoff(), 0))
_encode = msgspec.json.encode
_sent = 0


def send(kind: str, *arguments: Any) -> None:
    _store([(kind, arguments)])


def send_many(kind: str, many: list[tuple[Any, ...]]) -> None:
    for start in range(0, len(many), CHUNK):
        _store((kind, arguments) for arguments in many[start : start + CHUNK])


def _store(jobs: Iterable[tuple[str, tuple[Any, ...]]]) -> None:
    global _sent
    records = {}
    for kind, arguments in jobs:
        _sent += 1
        records[b"%032x" % _sent] = FILLER + _encode([kind, *arguments])
    with _client.pipeline(transaction=True) as pipe:
        pipe.hset(RECORDS, mapping=records)
        pipe.rpush(LIST, *records)
        pipe.execute()


def work() -> None:
    """Run jobs until the process is ended."""
    run: dict[str, Callable[..., None]] = {"noop": bodies.noop, "nap": bodies.nap}
    decode = msgspec.json.decode
    take = _client.register_script(TAKE)
    while True:
        ids, records = take(keys=[LIST, RECORDS, TAKEN], args=[BATCH, b"1700000000"])
        for record in records:
            kind, *arguments = decode(record[len(FILLER) :])
            run[kind](*arguments)
        if ids:
            with _client.pipeline(transaction=True) as pipe:
                pipe.hdel(TAKEN, *ids)
                pipe.hdel(RECORDS, *ids)
                pipe.execute()
        elif found := _client.blpop([LIST], timeout=2):
            _client.lpush(LIST, found[1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    work()
