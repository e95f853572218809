"""Somebody who may write to a queue's keys, and writes anything into any of them."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from typing import Any, Final

import msgspec
import redis

from jobqueue.record import NONCE_SIZE, Stored, encode

__all__ = ["CANARY", "HOSTILE", "KEYS", "Vandal"]

CANARY: Final = "CANARY-7f3a"
"""What stands in arguments, and must not come to light in a log."""
HOSTILE: Final = "\x1b[2J\x1b]0;x\x07\x9b31m‮\r\nERROR forged\t\x00"
"""Commands for a terminal, and lines for a log."""

SPOILED: Final = {
    "records": "hash", "claims": "hash", "requests": "hash", "counters": "hash", "waiting": "set", "working": "set",
    "dead": "set", "ready": "list", "wake": "list",
}  # fmt: skip
SHARED: Final = {
    "meta": "hash", "queues": "hash", "runners": "hash", "seen": "set", "leases": "set", "wake": "list", "lock:door": "hash"
}  # fmt: skip
KEYS: Final = {
    **{f"{{shop:spoiled}}:{name}": kind for name, kind in SPOILED.items()},
    **{f"{{shop}}:{name}": kind for name, kind in SHARED.items()},
}
"""Key → what it should be. The queue ``clean`` is left alone, the namespace of both is not."""


class Vandal:
    """Writes at random.

    Args:
        client: The server.
        seed: What it does depends on this alone, and on what is stored.
    """

    def __init__(self, client: redis.Redis, seed: int) -> None:
        self._client: Any = client
        self._chance = random.Random(seed)
        self._number = itertools.count()

    def ids(self) -> list[bytes]:
        """The ids of jobs that are stored in the spoiled queue, or named there."""
        found: set[bytes] = set()
        for command in ("HKEYS records", "LRANGE ready 0 20", "ZRANGE dead 0 20", "ZRANGE waiting 0 20"):
            name, key, *rest = command.split()
            with contextlib.suppress(redis.ResponseError):  # the key is of another type now
                found.update(self._client.execute_command(name, f"{{shop:spoiled}}:{key}", *rest))
        return sorted(found)

    def once(self) -> str:
        """Spoil one key; answers which, and how."""
        key = self._chance.choice([*KEYS])
        kind = KEYS[key]
        [act] = self._chance.choices([self._write, self._drop, self._retype], weights=[20, 1, 1])
        try:
            act(key, kind)
        except redis.ResponseError:  # it is of another type since an earlier time
            self._client.delete(key)
            self._write(key, kind)
        return f"{act.__name__} {key}"

    def _write(self, key: str, kind: str) -> None:
        if kind == "hash":
            self._client.hset(key, self._field(key), self._value(key))
        elif kind == "set":
            self._client.zadd(key, {self._member(): self._score()})
        else:
            self._client.rpush(key, self._member())

    def _drop(self, key: str, _: str) -> None:
        self._client.delete(key)

    def _retype(self, key: str, kind: str) -> None:
        self._client.delete(key)
        other = self._chance.choice([one for one in ("hash", "set", "list", "text") if one != kind])
        if other == "text":
            self._client.set(key, self._value(key))
        else:
            self._write(key, other)

    def _field(self, key: str) -> bytes:
        there: list[bytes] = self._client.hkeys(key)
        known = [b"schema", b"epoch", b"done", b"token", b"until", b"fence", b":searched", b"spoiled"]
        return self._chance.choice([*there[:20], *known, self._member(), *NAMES])

    def _member(self) -> bytes:
        ids = self.ids()
        if ids and self._chance.random() < 0.5:
            return self._chance.choice(ids)
        return self._chance.choice([
            b"id-%d" % next(self._number), HOSTILE.encode(), b"\xff\xfe%d" % next(self._number), b"", b"a/b c", b"x" * 5_000,
        ])  # fmt: skip

    def _score(self) -> Any:
        now = time.time() * 1000
        return self._chance.choice([
            "inf", "-inf", 1e300, -1e300, 0.5, -5, 2**60, 0, now, now - 60_000, now + 500, now + 10**12,
        ])  # fmt: skip

    def _value(self, key: str) -> bytes:
        if key.endswith(":records"):
            return self._chance.choice([*VALUES, *SECRET, *[self._record() for _ in range(3)]])
        return self._chance.choice(VALUES)

    def _record(self) -> bytes:
        """A record that is right, or nearly."""
        payload = self._chance.choice(
            [*VALUES, b'{"text": "%s"}' % CANARY.encode(), b'{"text": 1e999}', b'{"%s": 1}' % CANARY.encode()]
        )
        name = self._chance.choice(["spoiled", "strict", "unknown", f"x{HOSTILE}", "y" * 10_000, ""])
        retry, attempt, recoveries, created, due = self._chance.choices([0, 1, 13, 2**53 - 1], k=5)
        error = self._chance.choice([None, f"boom\n{HOSTILE}"])
        stored = Stored(name, payload, retry, attempt, recoveries, created, due, error)
        record = encode(b"nonce678", stored)
        if self._chance.random() < 0.2:  # torn, or with a field of another type
            fields = msgspec.msgpack.decode(record[NONCE_SIZE:])
            fields[self._chance.randrange(len(fields))] = self._chance.choice([None, -1, 1e308, 2**63, [], "", {}])
            return record[:NONCE_SIZE] + msgspec.msgpack.encode(fields)[: self._chance.choice([3, 10_000])]
        return record


NAMES: Final = (b"", b"0", b"9" * 400, b"\xff\xfe\x80", HOSTILE.encode(), b"[" * 20_000, b"x" * 300_000)
"""Fields of hashes."""
VALUES: Final = (
    *NAMES, b"-1", b"1e999", b"inf", b"nan", b"0.5", b'{"a":' * 20_000, b"null", b"{}", b'{"seen": 1e999}', b"closed",
    b"me:1:1", b"me:" + b"9" * 400 + b":1", b"9007199254740993",
)  # fmt: skip
SECRET: Final = (CANARY.encode(), b'{"text": "%s"}' % CANARY.encode(), b'{"%s": 1}' % CANARY.encode())
"""Values of records alone: what else stands in the keys, every command may show."""
