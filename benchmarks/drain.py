"""How fast one runner drains no-ops, and how fast they are enqueued, next to a bare loop over redis-py.

    python -m benchmarks.drain [--jobs 50000] [--rounds 3] [--url redis://…] [--json]

Without ``--url`` it starts the embedded Valkey in a temporary folder, append-only file on. The bare loop is the least that
keeps a job safe from a crash: a record and a list, a script that pops a hundred and notes them as taken, JSON decoded, a
function called, two deletions. What it does not do is what the ratio pays for: leases, fences, retries, counters, rescue,
several queues, and requests that may be sent twice.

The two are measured in turn, and the median of all rounds is shown; only the ratios travel from one machine to another.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue import JobQueue, Runner
from jobqueue.embedded import EmbeddedServer

__all__ = ["Measured", "main", "measure"]

BATCH: Final = 100
"""What the bare loop claims at a time."""
BULK: Final = 500
"""Jobs in one call of a bulk enqueue, on both sides."""
SINGLES: Final = 10
"""Single enqueues are measured over this part of the jobs, because each costs a round trip."""
PATIENCE: Final = 120.0
"""Seconds after which a drain that does not end is given up."""

CLAIM: Final = """
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {} end
local taken = {}
for i, id in ipairs(ids) do taken[#taken + 1] = id; taken[#taken + 1] = ARGV[2] end
redis.call('HSET', KEYS[3], unpack(taken))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
"""


@attrs.frozen
class Measured:
    """One line of the table: jobs per second, medians over the rounds.

    Attributes:
        what: What was measured.
        ours: With jobqueue.
        bare: With the bare loop.
    """

    what: str
    ours: float
    bare: float

    @property
    def ratio(self) -> float:
        """Ours as a part of the bare loop's."""
        return self.ours / self.bare


def noop(number: int) -> None:
    """What every job does."""


class Bare:
    """A queue of a record and a list."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.list, self.data, self.taken = (f"{{{prefix}}}:{name}" for name in ("list", "data", "taken"))
        self.claim = client.register_script(CLAIM)
        self.last = 0

    def single(self, jobs: int) -> None:
        """Enqueue one at a time."""
        for _ in range(jobs):
            self._put(1)

    def bulk(self, jobs: int) -> None:
        """Enqueue many at a time."""
        for start in range(0, jobs, BULK):
            self._put(min(BULK, jobs - start))

    def _put(self, count: int) -> None:
        ids = [b"%032x" % number for number in range(self.last, self.last + count)]
        self.last += count
        bodies = {id: json.dumps({"number": number}).encode() for number, id in enumerate(ids)}
        with self.client.pipeline(transaction=True) as pipe:
            pipe.hset(self.data, mapping=bodies)
            pipe.rpush(self.list, *bodies)
            pipe.execute()

    def drain(self) -> int:
        """Claim, run and finish until nothing is left; answers how many."""
        done = 0
        while found := self.claim(keys=[self.list, self.data, self.taken], args=[BATCH, b"a-runner"]):
            ids, bodies = found
            for body in bodies:
                noop(**json.loads(body))
            with self.client.pipeline(transaction=True) as pipe:
                pipe.hdel(self.taken, *ids)
                pipe.hdel(self.data, *ids)
                pipe.execute()
            done += len(ids)
        return done


class Ours:
    """The same through jobqueue."""

    def __init__(self, url: str, namespace: str, threads: int) -> None:
        self.jobs = JobQueue(url, namespace=namespace)
        self.noop = self.jobs.job(name="noop")(noop)
        self.threads = threads

    def single(self, jobs: int) -> None:
        """Enqueue one at a time."""
        for number in range(jobs):
            self.noop.enqueue(number)

    def bulk(self, jobs: int) -> None:
        """Enqueue many at a time."""
        for start in range(0, jobs, BULK):
            self.jobs.enqueue_many([self.noop.call(number) for number in range(start, min(start + BULK, jobs))])

    def drain(self, jobs: int) -> float:
        """Jobs per second from the first result to the last; a runner's start takes its time once."""
        runner = Runner(self.jobs, threads=self.threads)
        thread = threading.Thread(target=runner.run, kwargs={"signals": False})
        pause = threading.Event()
        thread.start()
        try:
            first = _reach(runner, 1, pause)
            begun = time.perf_counter()
            last = _reach(runner, jobs, pause)
            took = time.perf_counter() - begun
        finally:
            runner.stop()
            thread.join()
        return (last - first) / took if last > first else float(jobs)


def _reach(runner: Runner, jobs: int, pause: threading.Event) -> int:
    """Wait until so many are done; answers how many are."""
    end = time.monotonic() + PATIENCE
    while (done := runner.status.done) < jobs:
        if time.monotonic() > end:
            raise TimeoutError(f"{done} of {jobs} jobs were done in {PATIENCE:.0f} s")
        pause.wait(0.002)
    return done


def _rate(call: Callable[[int], object], jobs: int) -> float:
    begun = time.perf_counter()
    call(jobs)
    return jobs / (time.perf_counter() - begun)


def measure(url: str, *, jobs: int, rounds: int, threads: int = 4) -> list[Measured]:
    """Measure on the server at ``url``; what it wrote there is removed again.

    Args:
        url: A Redis or Valkey server.
        jobs: How many jobs in a round.
        rounds: How many rounds, at least 1.
        threads: Threads of the runner.
    """
    namespace = f"drain-{time.time_ns():x}"
    client: Any = redis.from_url(url, retry=Retry(NoBackoff(), 0))
    bare, ours = Bare(client, f"{namespace}-bare"), Ours(url, namespace, threads)
    found: dict[str, tuple[list[float], list[float]]] = {
        "single enqueue": ([], []), "bulk enqueue": ([], []), "drain": ([], []),
    }  # fmt: skip
    few = max(1, jobs // SINGLES)
    try:
        for _ in range(rounds):
            for what, count in (("single enqueue", few), ("bulk enqueue", jobs - few)):
                call = what.split()[0]
                found[what][0].append(_rate(getattr(ours, call), count))
                found[what][1].append(_rate(getattr(bare, call), count))
            found["drain"][0].append(ours.drain(jobs))
            found["drain"][1].append(_rate(lambda _: bare.drain(), jobs))
    finally:
        ours.jobs.close()
        for key in client.scan_iter(match=f"{{{namespace}*", count=1000):
            client.unlink(key)
        client.close()
    return [Measured(what, statistics.median(a), statistics.median(b)) for what, (a, b) in found.items()]


@contextlib.contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="drain-") as folder:
        server = EmbeddedServer.open(Path(folder))
        try:
            yield f"unix://{server.socket}"
        finally:
            server.close()


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", help="a Redis or Valkey server; without it, the embedded one")
    parser.add_argument("--jobs", type=int, default=50_000, help="jobs in a round (50000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (3)")
    parser.add_argument("--threads", type=int, default=4, help="threads of the runner (4)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    given = parser.parse_args(arguments)
    if min(given.jobs, given.rounds, given.threads) < 1:
        parser.error("--jobs, --rounds and --threads are at least 1")
    with _server(given.url) as url:
        lines = measure(url, jobs=given.jobs, rounds=given.rounds, threads=given.threads)
    if given.json:
        print(json.dumps({
            line.what: {"jobs_per_second": round(line.ours), "bare": round(line.bare), "ratio": round(line.ratio, 3)}
            for line in lines
        }))  # fmt: skip
        return
    print(f"{'jobs per second':<16}{'jobqueue':>12}{'bare loop':>12}{'ratio':>8}")
    for line in lines:
        print(f"{line.what:<16}{line.ours:>12,.0f}{line.bare:>12,.0f}{line.ratio:>8.2f}")


if __name__ == "__main__":
    main()
