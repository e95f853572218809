"""Two situations in which queues differ most: a worker that is killed, and long jobs among short ones. Defaults everywhere.

The jobs only sleep, so all contenders run at the same time, each on a server of its own.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.contenders import CEILING, COROUTINES, FUNCTIONS, Contender
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import Stand

__all__ = ["killed", "mixture"]

JOBS = 100
RUNNING = 10
SHORT_S = 0.001


def killed(plan: Plan) -> list[Row]:
    """SIGKILL to a worker with 10 of 100 jobs running, and another worker at once: how many are done, and when."""
    watch = plan.seconds(90.0, 15.0)
    done = Row(f"of 100 jobs done within {watch:.0f} s", goal="100")
    after = Row("all 100 jobs done after, s", more=False, goal="60 at most")
    ten = Row("the ten that were running done again after, s", more=False)
    short_after = Row("with a lease of 5 s: all 100 jobs done after, s", more=False)
    short_ten = Row("with a lease of 5 s: the ten done again after, s", more=False, goal="12 at most")

    def one(contender: Contender, words: tuple[str, ...], rows: tuple[Row, Row]) -> int:
        with Stand(contender, plan.environments) as stand:
            marks = stand.expect(JOBS)
            stand.produce("naps", JOBS, plan.seconds(2.0, 0.2))
            stand.start_worker(RUNNING, words)
            stand.until(lambda: marks.begun() >= RUNNING, "the start of ten jobs", 60)
            time.sleep(plan.seconds(1.0, 0.1))
            stand.stop_workers(kill=True)
            killed = time.time()
            lost = [
                number
                for number, (began, ended) in enumerate(zip(marks.begins(), marks.ends(), strict=True))
                if began > ended
            ]
            stand.start_worker(RUNNING, words)
            with contextlib.suppress(TimeoutError):
                stand.until(lambda: marks.done() == JOBS, "the end of all jobs", watch)
            ends = marks.ends()
            if all(ends):
                rows[0].add(contender.name, max(ends) - killed)
            if lost and all(ends[number] for number in lost):
                rows[1].add(contender.name, max(ends[number] for number in lost) - killed)
            return marks.done()

    def by_default(contender: Contender) -> None:
        done.add(contender.name, one(contender, (), (after, ten)))

    def with_a_short_lease() -> None:
        one(FUNCTIONS, ("--lease", "5"), (short_after, short_ten))

    tasks: list[Callable[[], object]] = [with_a_short_lease]
    if not plan.quick:
        tasks += [functools.partial(by_default, contender) for contender in _others(plan)]
    _at_once(plan, "killed", tasks)
    return [done, after, ten, short_after, short_ten]


def mixture(plan: Plan) -> list[Row]:
    """Three long jobs and 300 short ones over two workers with two places each: one place is never taken by a long one."""
    long = plan.seconds(10.0, 1.0)
    lengths = [long, SHORT_S, long, SHORT_S, long, *[SHORT_S] * 298]
    total = Row(
        f"jobs of {long:.0f} s among jobs of 1 ms: all done after, s", more=False, goal=f"{long:.0f} and little more"
    )
    wait = Row("the longest wait of a short job, s", more=False, goal="no wait for a long one")

    def one(contender: Contender) -> None:
        with Stand(contender, plan.environments) as stand:
            marks = stand.expect(len(lengths))
            stand.produce("mixed", len(lengths), lengths=lengths)
            stand.start_worker(2)
            stand.start_worker(2)
            stand.until_done(len(lengths), 120)
            begins, ends = marks.begins(), marks.ends()
            total.add(contender.name, max(ends) - min(begins))
            wait.add(
                contender.name, max(begins[at] for at, length in enumerate(lengths) if length == SHORT_S) - min(begins)
            )

    _at_once(plan, "mixture", [functools.partial(one, contender) for contender in _others(plan)])
    return [total, wait]


def _others(plan: Plan) -> list[Contender]:
    return [contender for contender in plan.contenders if contender not in (CEILING, COROUTINES)]


def _at_once(plan: Plan, what: str, tasks: Sequence[Callable[[], object]]) -> None:
    plan.say(f"{what}: {len(tasks)} at once")
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()
