"""What the fault tests have in common: a queue, runners, and what must hold when a fault is over."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import redis

from jobqueue import JobQueue, Runner, transitions
from jobqueue.keys import queue_keys
from jobqueue.storage.ops import Applied
from jobqueue.storage.redis.scripts import ALL
from tests.faults.apps.deeds import QUEUE, Deed, declare
from tests.faults.ledger import Ledger, await_that

__all__ = ["LEASE", "NAMESPACE", "Stage", "Worker"]

NAMESPACE: Final = "faults"
LEASE: Final = 0.6
"""Seconds; the shortest there is, so a beat is 0.1 s and the bound of a rescue about 1 s."""
_SCOPE: Final = f"{{{NAMESPACE}:{QUEUE}}}:".encode()


class Worker:
    """A runner in a thread."""

    def __init__(self, jobs: JobQueue, *, lease: float = LEASE, grace: float = 5.0, threads: int = 4) -> None:
        self.runner = Runner(jobs, threads=threads, lease=lease, grace=grace, queues=[QUEUE])
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.runner.run(signals=False)
        except BaseException as error:  # noqa: BLE001 - raised again by stop
            self.error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def ask(self) -> None:
        """Ask it to stop, and go on."""
        self.runner.stop()

    def stop(self, seconds: float = 15.0) -> None:
        """Stop it and wait for its end; raises what ended it."""
        self.runner.stop()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the runner does not end"
        if self.error is not None:
            raise self.error


class Stage:
    """A queue on a real server, with a ledger."""

    def __init__(self, client: redis.Redis, url: str, folder: Path) -> None:
        self.client = client
        self.url = url
        self.folder = folder
        self.ledger = Ledger(folder / "ledger")
        self._opened: list[JobQueue] = []

    def load_scripts(self) -> None:
        """Make the scripts known, so that the first request of each kind is the one that counts."""
        for script in ALL:
            self.client.script_load(script.source)

    def jobs(self, url: str | None = None) -> JobQueue:
        """A queue object of its own, through ``url``."""
        jobs = declare(JobQueue(self.url if url is None else url, namespace=NAMESPACE))
        self._opened.append(jobs)
        return jobs

    def deed(self, key: str, **options: Any) -> Deed:
        """A job that writes into the ledger."""
        return Deed(key, str(self.ledger.path), **options)

    def gate(self, name: str = "gate") -> Path:
        """The path of a file that jobs wait for."""
        return self.folder / name

    @contextlib.contextmanager
    def worker(self, jobs: JobQueue, **options: Any) -> Iterator[Worker]:
        """A runner that is stopped in the regular way at the end."""
        worker = Worker(jobs, **options)
        try:
            yield worker
        finally:
            worker.stop()

    def sizes(self) -> dict[str, int]:
        """How many jobs are where, asked without the library."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.llen(_SCOPE + b"ready")
            for place in (b"waiting", b"working", b"dead"):
                pipe.zcard(_SCOPE + place)
            pipe.hlen(_SCOPE + b"records")
            answers = pipe.execute()
        return dict(zip(("ready", "waiting", "working", "dead", "records"), answers, strict=True))

    def settle(self, *, dead: int = 0, seconds: float = 20.0) -> None:
        """Wait until nothing is left but so many dead jobs."""

        def settled() -> bool:
            return self.sizes() == {"ready": 0, "waiting": 0, "working": 0, "dead": dead, "records": dead}

        try:
            await_that(settled, f"all jobs at their end, {dead} dead", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; there are {self.sizes()}; ledger:\n{self.ledger.path.read_text()}"
            ) from None

    def claims(self) -> dict[bytes, bytes]:
        """The claims that are stored, asked without the library."""
        found: Any = self.client.hgetall(_SCOPE + b"claims")
        return dict(found)

    def now(self) -> float:
        """The server's time, in seconds since 1970."""
        seconds, micros = self.client.time()
        return float(seconds) + float(micros) / 1e6

    def leases(self) -> dict[bytes, int]:
        """Id → end of its lease, of all jobs in working."""
        found: Any = self.client.zrange(_SCOPE + b"working", 0, -1, withscores=True)
        return {id: int(score) for id, score in found}

    def outlive(self, leases: float = 1.5, *, lease: float = LEASE) -> None:
        """Wait until a lease was extended so far that it would have ended so many leases ago without that.

        Of all jobs that are held now and do not end meanwhile; there must be one.
        """
        wanted = {id: end + leases * lease * 1000 for id, end in self.leases().items()}

        def extended() -> bool:
            held = {id: end for id, end in self.leases().items() if id in wanted}
            assert held, "nothing is held any more"
            return all(end >= wanted[id] for id, end in held.items())

        await_that(extended, "leases extended beyond their first end")

    def orphan(self, count: int, *, beat: int = 50) -> None:
        """Take jobs as a runner would that is gone right afterwards; its lease has ended already."""
        jobs = self.jobs()
        clock = jobs.access.clock()
        clock.refresh(0)
        keys = queue_keys(NAMESPACE, QUEUE)
        claim = transitions.claim(keys, b"gone", 1, limit=count, now=clock.now() - 1000, lease=999, beat=beat)
        [outcome] = jobs.access.opened().storage().apply([claim])
        assert isinstance(outcome, Applied)
        assert len(self.claims()) == count

    def counters(self) -> dict[bytes, int]:
        """What was counted."""
        found: Any = self.client.hgetall(_SCOPE + b"counters")
        return {name: int(value) for name, value in found.items()}

    def check_contents(self) -> dict[bytes, str]:
        """Invariants I1 to I4 over what is stored; answers where each id is."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.lrange(_SCOPE + b"ready", 0, -1)
            for place in (b"waiting", b"working", b"dead"):
                pipe.zrange(_SCOPE + place, 0, -1)
            pipe.hkeys(_SCOPE + b"records")
            pipe.hgetall(_SCOPE + b"claims")
            ready, waiting, working, dead, records, claims = pipe.execute()
        places: dict[bytes, str] = {}
        for name, ids in (("ready", ready), ("waiting", waiting), ("working", working), ("dead", dead)):
            for id in ids:
                assert id not in places, f"{id!r} is in {places[id]} and in {name}"
                places[id] = name
        assert set(places) == set(records), f"places {places} and records {records} do not agree"
        assert set(claims) == set(working), f"claims {claims} and working {working} do not agree"
        fences = [int(claim.split(b":")[1]) for claim in claims.values()]
        assert all(fence <= self.counters().get(b"fence", 0) for fence in fences), "a fence beyond the counter"
        return places

    def close(self) -> None:
        """Give back all connections."""
        for jobs in self._opened:
            jobs.close()
        self.client.close()
