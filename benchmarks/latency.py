"""How soon an idle worker starts a job, how late a delayed job is, and what an idle worker costs. All at their defaults."""

from __future__ import annotations

import time

from benchmarks.contenders import CEILING, FUNCTIONS, Contender
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import Stand, others_cores, percentile

__all__ = ["latency"]

JOBS = 200
DELAYED = 60
DELAY_S = 2.0
FIRST = 3
"""Jobs that do not count: they open the producer's and the worker's connections."""


def latency(plan: Plan) -> list[Row]:
    """One after the other: a job every 50 ms, delayed jobs, then nothing for ten seconds."""
    half = Row("pick-up by an idle worker, median, ms", more=False, goal="0.5 where huey takes 0.57")
    most = Row("pick-up by an idle worker, 99th percentile, ms", more=False, goal="1.3 where huey takes 1.29")
    late = Row("a delayed job starts late by, median, ms", more=False, goal="5 at most")
    requests = Row("requests per second of an idle worker", more=False, goal="1 at most")
    processor = Row("processor of an idle worker, % of a core", more=False, goal="0.5 at most")
    rows = [half, most, late, requests, processor]
    for contender in plan.contenders:
        plan.say(f"latency {contender.name}")
        _measure(plan, contender, rows)
    return rows


def _measure(plan: Plan, contender: Contender, rows: list[Row]) -> None:
    half, most, late, requests, processor = rows
    name, jobs = contender.name, plan.few(JOBS)
    with Stand(contender, plan.environments) as stand:
        marks = stand.expect(jobs)
        stand.start_worker()
        stand.settle()
        with others_cores(stand, half.others):
            sent = stand.produce("paced", jobs)["sent"]
        stand.until_done(jobs)
        waits = [(began - at) * 1000 for began, at in zip(marks.begins(), sent, strict=True)][FIRST:]
        half.add(name, percentile(waits, 0.5))
        most.add(name, percentile(waits, 0.99))
        if contender is FUNCTIONS:
            with others_cores(stand, late.others):
                sent = stand.produce("later", plan.few(DELAYED), DELAY_S)["sent"]
                time.sleep(DELAY_S + 0.5)
            begins = marks.begins()[: len(sent)]
            late.add(name, percentile([(at - one - DELAY_S) * 1000 for at, one in zip(begins, sent, strict=True)], 0.5))
        if contender is not CEILING:
            seconds = plan.seconds(10.0, 2.0)
            before, spent = stand.look(), stand.worker_seconds()
            with others_cores(stand, requests.others):
                time.sleep(seconds)
            requests.add(name, stand.since(before).reads / seconds)
            processor.add(name, (stand.worker_seconds() - spent) / seconds * 100)
