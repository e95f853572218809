"""What a runner says of itself in the storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final, TypeAlias

import attrs
import msgspec

from jobqueue.clock import Clock
from jobqueue.flows import Flow, Read, Refresh, read_on
from jobqueue.keys import NamespaceKeys
from jobqueue.record import timestamp
from jobqueue.safe_text import id_text
from jobqueue.storage.ops import Fields, Page
from jobqueue.transitions import LIMIT

__all__ = [
    "LONGEST_BEAT",
    "SHORTEST_LEASE_MS",
    "Beat",
    "RunnerInfo",
    "beats",
    "live_runners",
    "read_beats",
    "read_leases",
]

SHORTEST_LEASE_MS: Final = 600
LEASE_DIGITS: Final = 15
MOST: Final = 10_000
"""So many runners are listed at the most."""
LONGEST_BEAT: Final = 2**20
"""Bytes of a beat at most: that of a runner with 10,000 queues, each with its name and weight, takes less."""
TOGETHER: Final = 50
"""So many beats are asked for in one request: each may be as long as that."""


# Somebody else may write anything there: a number that cannot be one of ours makes it no beat.
_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored with each beat. Times and durations in ms."""

    host: str
    pid: _Number
    started: _Number
    seen: _Number
    lease: _Number
    queues: dict[str, _Number]
    threads: _Number
    coroutines: _Number
    version: str
    stopped: bool = False


@attrs.frozen
class RunnerInfo:
    """A runner that is alive, as far as its storage knows.

    Attributes:
        id: Its incarnation: new at every start.
        host: The machine it runs on.
        pid: Its process there.
        started: When it started.
        seen: When it last gave a sign of life.
        lease: The length of its leases in seconds.
        queues: The queues it serves, with their weights.
        threads: Functions it runs at a time.
        coroutines: Coroutines it runs at a time.
        version: The version of jobqueue it runs.
    """

    id: str
    host: str
    pid: int
    started: datetime
    seen: datetime
    lease: float
    queues: dict[str, int]
    threads: int
    coroutines: int
    version: str


def read_beats(fields: dict[bytes, bytes]) -> dict[bytes, Beat]:
    """The beats in the registry of runners; what a foreign writer left there is passed over."""
    beats = {}
    for incarnation, value in fields.items():
        try:
            beats[incarnation] = msgspec.json.decode(value, type=Beat)
        except (msgspec.MsgspecError, ValueError, RecursionError):  # also what is not UTF-8, or nested too deep
            continue
    return beats


def beats(keys: NamespaceKeys, incarnations: Sequence[bytes]) -> Flow[dict[bytes, bytes]]:
    """What stands in the registry of runners for those of them that are there."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(incarnations), TOGETHER):
        part = tuple(incarnations[start : start + TOGETHER])
        [some] = yield Read((Fields(keys.runners, part, LONGEST_BEAT),))
        found.update(some)
    return found


def read_leases(entries: Iterable[tuple[bytes, object]]) -> list[int]:
    """The lengths of leases in use, in ms, of the entries in ``leases``; what no runner can have is passed over."""
    return [
        int(lease)
        for lease, _ in entries
        if len(lease) <= LEASE_DIGITS and lease.isdigit() and int(lease) >= SHORTEST_LEASE_MS
    ]


def live_runners(keys: NamespaceKeys, clock: Clock) -> Flow[list[RunnerInfo]]:
    """The runners that gave a sign of life within their lease, longest running first."""
    yield Refresh(60_000)
    now = clock.now()
    # Only those that can be alive are read: many more may have ended.
    [leases] = yield Read((Page(keys.leases, LIMIT),))
    longest = max(read_leases(leases), default=0)
    page = Page(keys.seen, LIMIT, after=(now - longest, b""))
    [first] = yield Read((page,))
    seen = yield from read_on(page, first, MOST)
    fields = yield from beats(keys, [incarnation for incarnation, _ in seen])
    return [
        RunnerInfo(
            id=id_text(incarnation),
            host=beat.host,
            pid=beat.pid,
            started=timestamp(beat.started),
            seen=timestamp(beat.seen),
            lease=beat.lease / 1000,
            queues=beat.queues,
            threads=beat.threads,
            coroutines=beat.coroutines,
            version=beat.version,
        )
        for incarnation, beat in sorted(read_beats(fields).items(), key=lambda item: (item[1].started, item[0]))
        if not beat.stopped and now - beat.seen <= beat.lease
    ]
