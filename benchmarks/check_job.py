"""How long `check_job` takes for a job of five effects: every crash, redelivery and all overlaps that fit its limit.

python benchmarks/check_job.py [--effects 5] [--limit 500]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator

from jobqueue import Context, JobQueue
from jobqueue.job import Call
from jobqueue.testing import check_job

jobs = JobQueue(namespace="benchmark")


class Bank:
    def __init__(self) -> None:
        self.payments: dict[str, int] = {}

    def pay(self, key: str, amount: int) -> None:
        self.payments.setdefault(key, amount)

    async def apay(self, key: str, amount: int) -> None:
        self.pay(key, amount)


banks: list[Bank] = []


@contextlib.contextmanager
def use(bank: Bank) -> Iterator[None]:
    banks.append(bank)
    yield
    banks.remove(bank)


@jobs.job
def function(ctx: Context, effects: int) -> None:
    for number in range(effects):
        banks[-1].pay(f"{ctx.record.id} {number}", number)


@jobs.job
async def coroutine(ctx: Context, effects: int) -> None:
    for number in range(effects):
        await banks[-1].apay(f"{ctx.record.id} {number}", number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effects", type=int, default=5)
    parser.add_argument("--limit", type=int, default=500)
    given = parser.parse_args()
    for kind, effect in ((function, "pay"), (coroutine, "apay")):
        rounds = [timed(kind.call(given.effects), effect, given.limit) for _ in range(3)]
        print(f"{min(seconds for seconds, _ in rounds) * 1000:>6.0f} ms (wanted: below 1000 ms)\n{rounds[0][1]}")


def timed(call: Call[None], effect: str, limit: int) -> tuple[float, str]:
    """Check once; answers how long it took, and what was checked."""
    started = time.perf_counter()
    report = check_job(
        call, world=Bank, use=use, effects=[effect], state=lambda bank: bank.payments, limit=limit
    )  # fmt: skip
    took = time.perf_counter() - started
    assert report.ok, report.explain()
    return took, report.explain()


if __name__ == "__main__":
    main()
