"""What many queues and large arguments cost."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from benchmarks import jobs as bodies
from benchmarks.contenders import FUNCTIONS
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import ROOT, Stand, others_cores
from jobqueue import JobQueue

__all__ = ["many"]

QUEUES: Final = (10, 100, 1_000)
JOBS: Final = 2_000
LARGE_BYTES: Final = 990_000
LARGE: Final = 500


def many(plan: Plan) -> list[Row]:
    """One runner of ours."""
    rows: list[Row] = []
    for queues in QUEUES:
        plan.say(f"many: {queues} queues")
        found = (
            Row(f"{JOBS:,} jobs in {queues:,} queues: drained, jobs/s"),
            Row(f"{JOBS:,} jobs in {queues:,} queues: commands at the server per job", more=False),
            Row(f"an idle runner of {queues:,} queues: commands at the server per second", more=False),
            Row(f"an idle runner of {queues:,} queues: processor, % of a core", more=False),
        )
        _queues(plan, queues, found)
        rows += found
    plan.say(f"many: {LARGE} jobs of {LARGE_BYTES:,} bytes")
    longest = Row(
        f"{LARGE} jobs of {LARGE_BYTES:,} bytes at once: the longest call at the server, ms", more=False, goal="20"
    )
    ping = Row(f"{LARGE} jobs of {LARGE_BYTES:,} bytes at once: the longest PING of another client, ms", more=False)
    _large(plan, longest, ping)
    return [*rows, longest, ping]


def _queues(plan: Plan, queues: int, rows: tuple[Row, Row, Row, Row]) -> None:
    rate, commands, idle_commands, idle = rows
    with Stand(FUNCTIONS, plan.environments, tuned=True) as stand:
        with JobQueue(stand.server.tcp_url, namespace="bench") as jobs:
            noop = jobs.job(name="noop")(bodies.noop)
            jobs.enqueue_many([noop.opts(queue=f"q{number % queues}").call(number) for number in range(JOBS)])
        marks = stand.expect(JOBS)
        before = stand.look()
        with others_cores(stand, rate.others):
            stand.start_worker(8)
            stand.until_done(JOBS)
        rate.add(FUNCTIONS.name, marks.rate())
        commands.add(FUNCTIONS.name, stand.since(before).commands / JOBS)
        time.sleep(plan.seconds(20.0, 1.0))
        seconds = plan.seconds(30.0, 1.0)
        before, spent = stand.look(), stand.worker_seconds()
        time.sleep(seconds)
        idle_commands.add(FUNCTIONS.name, stand.since(before).commands / seconds)
        idle.add(FUNCTIONS.name, (stand.worker_seconds() - spent) / seconds * 100)


def _large(plan: Plan, longest: Row, ping: Row) -> None:
    number = plan.few(LARGE)
    with Stand(FUNCTIONS, plan.environments) as stand, JobQueue(stand.server.tcp_url, namespace="bench") as jobs:

        @jobs.job(name="large")
        def large(number: int, load: str) -> None:
            raise NotImplementedError

        load = "x" * LARGE_BYTES
        words = [sys.executable, "-m", "benchmarks.ping", stand.server.tcp_url]
        with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            other.stdout.readline()
            stand.watch_for_slow_calls()
            with others_cores(stand, longest.others):
                jobs.enqueue_many([large.call(one, load) for one in range(number)])
            told, _ = other.communicate()
        longest.add(FUNCTIONS.name, stand.slowest())
        ping.add(FUNCTIONS.name, float(told))
