"""How fast a worker far from its server is, and how soon after a bad minute it is as fast as before."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.contenders import CEILING, FUNCTIONS, Contender
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import Stand, others_cores

__all__ = ["distance"]

TRIPS_MS: Final[dict[int, str]] = {0: "", 2: "", 6: "12,000", 12: "", 25: "5,000", 50: "2,500"}
"""Round trip → what is wanted."""
JOBS: Final = 20_000
WATCH_S: Final = 6.0
BAD_MS: Final = 50.0
WINDOW_S: Final = 0.2


def distance(plan: Plan) -> list[Row]:
    """Each contender drains through a relay that adds a round trip; then ours has a bad minute."""
    rows: list[Row] = []
    for trip, goal in TRIPS_MS.items():
        row = Row(f"drain at a round trip of {trip} ms more, jobs/s", goal=goal)
        rows.append(row)
        for contender in plan.contenders:
            if contender is FUNCTIONS or (contender is not CEILING and contender.module != "ours_async"):
                plan.say(f"distance {trip} ms {contender.name}")
                _drained(plan, contender, trip, row)
    bad = plan.seconds(30.0, 1.0)
    back = Row(
        f"after {bad:.0f} s of {BAD_MS:.0f} ms: 0.8 of the old rate again after, s", more=False, goal="2 at most"
    )
    if FUNCTIONS in plan.contenders:
        plan.say(f"distance: {bad:.0f} s of {BAD_MS:.0f} ms, then none")
        _recovered(plan, bad, back)
    return [*rows, back]


def _drained(plan: Plan, contender: Contender, trip: float, row: Row) -> None:
    jobs = plan.few(JOBS if contender is FUNCTIONS else 5_000, least=2_000)
    with Stand(contender, plan.environments, tuned=True, distance=0.0) as stand:
        stand.produce("many" if contender.many else "one", jobs)
        stand.go_away(trip)
        marks = stand.expect(jobs)
        with others_cores(stand, row.others):
            stand.start_worker(8 if contender is FUNCTIONS else None)
            stand.until(lambda: marks.done() > 0, "the end of a first job", 60)
            end = time.monotonic() + plan.seconds(WATCH_S, 1.0)
            stand.until(lambda: marks.done() == jobs or time.monotonic() > end, "the end of the watch")
        row.add(contender.name, marks.rate())
        stand.stop_workers(kill=True)


def _recovered(plan: Plan, bad: float, row: Row) -> None:
    jobs = plan.few(1_000_000)
    with Stand(FUNCTIONS, plan.environments, tuned=True, distance=0.0) as stand:
        stand.produce("many", jobs)
        marks = stand.expect(jobs)
        with others_cores(stand, row.others):
            stand.start_worker(8)
            stand.until(lambda: marks.done() > 0, "the end of a first job", 60)
            time.sleep(plan.seconds(2.0, 0.1))
            stand.go_away(BAD_MS)
            worse = time.time()
            time.sleep(bad)
            stand.go_away(0.0)
            better = time.time()
            end = time.monotonic() + plan.seconds(5.0, 1.0)
            stand.until(lambda: marks.done() == jobs or time.monotonic() > end, "the end of the watch")
        ends = sorted(at for at in marks.ends() if at)
        stand.stop_workers(kill=True)
    windows = [
        sum(start <= at < start + WINDOW_S for at in ends) for start in (worse - 4 * WINDOW_S, worse - 2 * WINDOW_S)
    ]
    old = max(windows)
    for number in range(int(5.0 / WINDOW_S)):
        start = better + number * WINDOW_S
        if sum(start <= at < start + WINDOW_S for at in ends) >= 0.8 * old:
            row.add(FUNCTIONS.name, (number + 1) * WINDOW_S)
            return
