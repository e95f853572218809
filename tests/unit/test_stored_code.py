"""What is stored is data: nothing of it is loaded, imported, or made into a class."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobqueue import JobQueue, Runner
from jobqueue.cli.app import run
from jobqueue.record import Stored, encode
from tests.servers import Server

NAMES = (
    "os.system", "builtins:eval", "__main__.thing", "a..b", "job\0", "antigravity.geohash", "this", "shop.mail:send",
    "x" * 10_000, "../etc/passwd", "__import__('os')", "run.__globals__",
)  # fmt: skip


class Touches:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.fixture
def jobs(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    monkeypatch.setenv("JOBQUEUE_URL", server.url)
    monkeypatch.setenv("JOBQUEUE_NAMESPACE", "shop")
    with JobQueue(server.url, namespace="shop") as made:

        @made.job(name="known")
        def known(text: str) -> None: ...

        known.enqueue("first")
        yield made


def test_a_pickle_in_any_field_is_only_looked_at(jobs: JobQueue, server: Server, tmp_path: Path) -> None:
    """Record, arguments, name, error, claim, meta, runner, counter, lock: a runner and all commands meet it."""
    trap = tmp_path / "trap"
    data = pickle.dumps(Touches(str(trap)), protocol=0)
    text = data.decode("ascii")
    payload = msgspec.json.encode({"text": text})
    with server.client() as client:
        records: dict[Any, Any] = {
            b"bare": data,
            b"payload": encode(b"nonce678", Stored("known", data, 1, 0, 0, 1, 1)),
            b"argument": encode(b"nonce678", Stored("known", payload, 1, 0, 0, 1, 1, error=text)),
            b"name": encode(b"nonce678", Stored(text, payload, 1, 0, 0, 1, 1)),
        }
        client.hset("{shop:low}:records", mapping=records)
        client.rpush("{shop:low}:ready", *records)
        client.hset("{shop}:runners", data, data)
        client.hset("{shop}:meta", "class", data)
        client.hset("{shop}:lock:door", mapping={"token": data, "until": 2**52, "fence": 1})
        client.hset("{shop:low}:counters", data, data)
    Runner(jobs, threads=1).run(signals=False, until_empty=True)
    for words in (["stats"], ["jobs"], ["audit"], *(["show", id.decode()] for id in records), ["stats", "--json"]):
        assert run(words) in (0, 1)
    assert not trap.exists()
    pickle.loads(data).close()
    assert trap.exists(), "the trap works"


def test_a_stored_name_imports_nothing(jobs: JobQueue, server: Server) -> None:
    """It is looked up among the kinds that were declared, and waits where it is not there."""
    ids = {b"id-%d" % index: name for index, name in enumerate(NAMES)}
    with server.client() as client:
        for id, name in ids.items():
            client.hset("{shop:low}:records", id, encode(b"nonce678", Stored(name, b"{}", 1, 0, 0, 1, 1)))
            client.rpush("{shop:low}:ready", id)
    Runner(jobs, threads=1).run(signals=False, until_empty=True)  # imports what a runner needs
    for id in ids:
        jobs.requeue(id.decode())
    before = set(sys.modules)
    Runner(jobs, threads=1).run(signals=False, until_empty=True)
    assert set(sys.modules) == before
    for id in ids:
        found = jobs.get(id.decode())
        assert found is not None
        assert found.place == "waiting"
        assert found.parked_since is not None
