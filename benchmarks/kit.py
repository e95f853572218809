"""What a test pays for the testing kit: a block, a job in it, and the same on a server.

python benchmarks/kit.py [--rounds 200] [--url embedded://]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from jobqueue import JobQueue
from jobqueue.testing import Server, Testing, open_testing

jobs = JobQueue(namespace="benchmark")
PER_BLOCK = 20
"""Jobs in one block: more than most tests have."""


@jobs.job(name="nothing")
def nothing(number: int) -> None: ...


@jobs.job(name="nothing.async")
async def nothing_async(number: int) -> None: ...


def block(rounds: int, server: Server | None) -> float:
    """How long it takes to enter and leave a block, in µs: the best of some rounds, the others were disturbed."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        with open_testing(jobs, server=server):
            pass
        best = min(best, time.perf_counter() - started)
    return best * 1e6


def in_a_block(rounds: int, server: Server | None, once: Callable[[Testing], None]) -> float:
    """How long something takes in a block, in µs; each round has a block of its own."""
    best = float("inf")
    for _ in range(rounds):
        with open_testing(jobs, server=server) as t:
            once(t)  # what only the first job of a queue pays
            started = time.perf_counter()
            for _ in range(PER_BLOCK):
                once(t)
            best = min(best, (time.perf_counter() - started) / PER_BLOCK)
    return best * 1e6


def one_job(t: Testing) -> None:
    nothing.enqueue(1)
    assert t.drain() == {"done": 1}


def one_coroutine(t: Testing) -> None:
    nothing_async.enqueue(1)
    assert t.drain() == {"done": 1}


def asserted(t: Testing) -> None:
    nothing.enqueue(1)
    t.assert_enqueued(nothing, number=1)


def report(rounds: int, server: Server | None) -> None:
    limits = ("1000", "200") if server is None else ("", "")
    print("on a server" if server else "in memory")
    for name, took, limit in (
        ("enter and leave a block", block(rounds, server), limits[0]),
        ("enqueue and drain one job", in_a_block(rounds, server, one_job), limits[1]),
        ("the same, a coroutine", in_a_block(rounds, server, one_coroutine), ""),
        ("enqueue and assert_enqueued", in_a_block(rounds, server, asserted), ""),
    ):
        print(f"  {name:<28} {took:>7.0f} µs" + (f"  (wanted: under {limit})" if limit else ""))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--url", default="embedded://", help="a server; '' for none")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    report(options.rounds, None)
    if options.url:
        with Server(options.url) as server:
            report(options.rounds, server)


if __name__ == "__main__":
    main()
