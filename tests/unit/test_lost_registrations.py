"""Queues whose registration somebody removed are found from their own keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from jobqueue import lookup, transitions
from jobqueue.flows import Apply, Read
from jobqueue.keys import namespace_keys
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Answer, Batch, Fields, Found, HashSet, Query, Scopes
from tests.unit.queue_bench import Bench


def forget_registry(bench: Bench) -> None:
    """What somebody does who deletes the key."""
    del bench.memory._shared.contents.hashes[namespace_keys("test").queues.full]


def test_a_queue_is_found_from_its_own_keys_where_its_registration_was_lost() -> None:
    bench = Bench()
    record = bench.work.opts(queue="tenant7").enqueue(1)
    bench.jobs.counts()
    for look in (
        lambda: bench.jobs.get(record.id),
        lambda: bench.jobs.find()[0],
        lambda: bench.jobs.requeue(record.id),
        lambda: record if bench.jobs.counts()["tenant7"].ready == 1 else None,
    ):
        forget_registry(bench)
        assert look() == record
    assert b"tenant7" in bench.memory._shared.contents.hashes[namespace_keys("test").queues.full]


def test_a_search_that_is_done_is_not_made_by_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.work.enqueue(1)
    bench.jobs.counts()
    reads: list[Query] = []
    read = bench.memory.read

    def noted(queries: Sequence[Query]) -> list[Answer]:
        reads.extend(queries)
        return read(queries)

    monkeypatch.setattr(bench.memory, "read", noted)
    bench.jobs.counts()
    assert not any(isinstance(query, Scopes) for query in reads)
    assert reads


def test_a_search_goes_on_where_it_was_left_and_is_made_again_a_day_later() -> None:
    """Page by page, by whoever comes by; of two at once one is noted."""
    keys, pages = namespace_keys("test"), {b"": ("test:a", b"7"), b"7": ("test:b", b"x 9"), b"x 9": ("test:c", b"")}
    stored: dict[bytes, bytes] = {b"a": b"5"}
    asked: list[bytes] = []

    def go(now: int, pages_at_once: int = 1, *, meanwhile: dict[bytes, bytes] | None = None) -> set[bytes]:
        flow = lookup.search(keys, dict(stored), now, pages=pages_at_once)
        answer: Any = None
        try:
            while True:
                request = flow.send(answer)
                if isinstance(request, Read):
                    [query] = request.queries
                    assert isinstance(query, Scopes)
                    asked.append(query.cursor)
                    scope, cursor = pages[query.cursor]
                    answer = [Found((scope,), cursor)]
                else:
                    assert isinstance(request, Apply)
                    stored.update(meanwhile or {})
                    storage = MemoryStorage()
                    storage.apply([Batch("test", (HashSet(keys.queues, stored),))])
                    answer = storage.apply(request.batches)
                    [fields] = storage.read([Fields(keys.queues)])
                    assert isinstance(fields, dict)
                    stored.update(fields)
        except StopIteration as end:
            found: set[bytes] = end.value
            return found

    assert go(1000) == {b"a"}
    assert stored[b"a"] == b"5", "when it was first used stays"
    assert go(1000, meanwhile={transitions.SEARCHED: b"x 9", b"b": b"0"}) == {b"b"}
    assert stored[transitions.SEARCHED] == b"x 9", "somebody else went further"
    assert go(1000, 9) == {b"c"}
    assert asked == [b"", b"7", b"x 9"]
    assert go(2000) == go(86_400_999) == set()
    assert go(86_401_000) == {b"a"}
    assert {b"a", b"b", b"c"} < stored.keys()
