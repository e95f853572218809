"""A runner in a process of its own: ``python -m tests.runner.apps.crew URL LEDGER [OPTION=NUMBER …]``."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from jobqueue import Context, JobQueue, RetryPolicy, Runner
from tests.faults.ledger import Ledger

__all__ = ["declare"]


def declare(url: str, ledger: Ledger) -> JobQueue:
    """A queue whose jobs write into the ledger what happens to them."""
    jobs = JobQueue(url, namespace="crew")

    def starts(ctx: Context, key: str) -> None:
        ledger.write("start", key, ctx.fence, ctx.attempt)

    def ends(ctx: Context, key: str) -> None:
        ledger.write("end", key, ctx.fence, ctx.attempt)

    @jobs.job(name="quick", retry=RetryPolicy(limit=3, backoff=lambda _: 0.1))
    def quick(ctx: Context, key: str, fails: int = 0) -> None:
        starts(ctx, key)
        if ctx.attempt <= fails:
            raise RuntimeError("as it was told to")
        ends(ctx, key)

    @jobs.job(name="coroutine")
    async def coroutine(ctx: Context, key: str) -> None:
        starts(ctx, key)
        ends(ctx, key)

    @jobs.job(name="gated")
    def gated(ctx: Context, key: str, gate: str) -> None:
        starts(ctx, key)
        pause = threading.Event()
        while not Path(gate).exists():
            pause.wait(0.005)
        ends(ctx, key)

    @jobs.job(name="poison")
    def poison(ctx: Context, key: str) -> None:
        starts(ctx, key)
        os._exit(66)

    return jobs


def main(url: str, path: str, *options: str) -> None:
    """Run until told to stop."""
    ledger = Ledger(Path(path))
    numbers = {name: float(number) for name, _, number in (option.partition("=") for option in options)}
    threads = int(numbers.pop("threads", 2))
    jobs = declare(url, ledger)
    runner = Runner(jobs, threads=threads, lease=numbers.get("lease", 0.6), grace=numbers.get("grace", 10))
    runner.run()
    ledger.write("stopped", "clean")


if __name__ == "__main__":
    main(*sys.argv[1:])
