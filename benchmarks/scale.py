"""Whether a long queue costs more than a short one, and how long a call keeps the server when much happens at once."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from benchmarks import jobs as bodies
from benchmarks.contenders import FUNCTIONS
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import Stand, others_cores
from benchmarks.tally import Tally
from jobqueue import JobQueue, Place, transitions
from jobqueue.keys import queue_keys
from jobqueue.storage.ops import Applied, Moved

__all__ = ["scale"]

SHORT, LONG = 1_000, 1_000_000
MANY = 100_000
PART = 20_000
"""How many jobs are drained of the long and of the short queue; the short one holds that many more at first."""
CHUNK = 10_000
LEASE_MS = 100
PAGED: Final[tuple[Place, ...]] = ("waiting", "ready")


def scale(plan: Plan) -> list[Row]:
    """All of it with one runner of ours."""
    short, long, many, part = plan.few(SHORT), plan.few(LONG), plan.few(MANY), plan.few(PART)
    queued = f"{long:,} jobs queued against {short:,}"
    rate = Row(f"time of a job drained, {queued}, ratio", more=False, goal="1.2 at most")
    server = Row(f"server's time for a job drained, {queued}, ratio", more=False, goal="1.2 at most")
    stored = Row(f"server's time for a job enqueued, {queued}, ratio", more=False, goal="1.2 at most")
    due = Row(f"{many:,} delayed jobs due at once: the longest call at the server, ms", more=False, goal="20 at most")
    due_all = Row(f"{many:,} delayed jobs due at once: all done after, s", more=False)
    lost = Row(f"{many:,} jobs of a dead runner: the longest call at the server, ms", more=False, goal="20 at most")
    lost_all = Row(f"{many:,} jobs of a dead runner: all done after, s", more=False)
    pages: dict[Place, Row] = {
        place: Row(f"a page of 100 behind {many - many // 100:,} jobs in {place}, ms", more=False, goal="50 at most")
        for place in PAGED
    }
    scanned = Row(f"{many:,} jobs gone through by scan, s", more=False)
    for round_ in range(plan.rounds):
        plan.say(f"scale {round_ + 1} of {plan.rounds}: {queued}")
        small, big = (_drained(plan, queued, part, rate) for queued in (short + part, long))
        for row, one, other in zip((rate, server, stored), small, big, strict=True):
            row.add(FUNCTIONS.name, other / one)
    plan.say(f"scale: {many:,} due at once")
    _burst(plan, many, due, due_all, dead=False)
    plan.say(f"scale: {many:,} to be rescued")
    _burst(plan, many, lost, lost_all, dead=True)
    plan.say(f"scale: pages of {many:,}")
    for place, row in pages.items():
        _paged(plan, many, place, row, scanned)
    return [rate, server, stored, due, due_all, lost, lost_all, *pages.values(), scanned]


class _Ours:
    """A producer in this process, for what the contenders' producers cannot do."""

    def __init__(self, stand: Stand) -> None:
        self.jobs = JobQueue(stand.server.tcp_url, namespace="bench")
        self._noop = self.jobs.job(name="noop")(bodies.noop)

    def fill(self, jobs: int, at: datetime | None = None) -> None:
        """Enqueue so many."""
        kind = self._noop if at is None else self._noop.opts(at=at)
        for start in range(0, jobs, CHUNK):
            self.jobs.enqueue_many([kind.call(number) for number in range(start, min(start + CHUNK, jobs))])

    def claim_for_nobody(self, jobs: int) -> None:
        """Take so many under the leases of a runner that never beats."""
        backend = self.jobs.access.opened().backend
        storage = backend.storage()
        keys, claimed, number = queue_keys("bench", "low"), 0, 0
        while claimed < jobs:
            number += 1
            now = backend.clock.now()
            batch = transitions.claim(
                keys, b"nobody", number, limit=transitions.LIMIT, now=now, lease=LEASE_MS, beat=LEASE_MS
            )
            [outcome] = storage.apply([batch])
            assert isinstance(outcome, Applied)
            [moved] = outcome.answers
            assert isinstance(moved, Moved)
            claimed += len(moved.ids)
        storage.close()


def _paged(plan: Plan, many: int, place: Place, page: Row, scanned: Row) -> None:
    """A page far behind, asked for by the record of the job before it, and all of it."""
    with Stand(FUNCTIONS, plan.environments, tuned=True) as stand:
        ours = _Ours(stand)
        with ours.jobs:
            ours.fill(many, datetime.now(UTC) + timedelta(days=1) if place == "waiting" else None)
            before = ours.jobs.find(place=place, limit=many - many // 100)[-1]
            for _ in range(plan.rounds + 2):
                started = time.perf_counter()
                assert ours.jobs.find(place=place, after=before)
                page.add(FUNCTIONS.name, (time.perf_counter() - started) * 1_000)
            started = time.perf_counter()
            assert sum(1 for _ in ours.jobs.scan(place=place)) == many
            scanned.add(FUNCTIONS.name, time.perf_counter() - started)


def _drained(plan: Plan, queued: int, part: int, row: Row) -> tuple[float, float, float]:
    """Seconds and the server's seconds for a job drained, and the server's for one enqueued at the end of the filling."""
    with Stand(FUNCTIONS, plan.environments, tuned=True) as stand:
        ours = _Ours(stand)
        with ours.jobs:
            ours.fill(queued - part)
            before = stand.look()
            ours.fill(part)
            stored = stand.since(before).processor / part
        marks = stand.expect(queued)
        before = stand.look()
        with others_cores(stand, row.others):
            stand.start_worker()
            stand.until_done(part)
            spent = stand.since(before).processor / marks.done()
        stand.stop_workers(kill=True)
        return 1 / _early_rate(marks, part), spent, stored


def _early_rate(marks: Tally, part: int) -> float:
    """Jobs per second of the first that ended."""
    ends = sorted(at for at in marks.ends() if at)[:part]
    return (len(ends) - 1) / (ends[-1] - ends[0])


def _burst(plan: Plan, many: int, longest: Row, all_done: Row, *, dead: bool) -> None:
    """Many jobs that are due at the same moment, or (``dead``) whose runner is dead, and one runner that is idle."""
    with Stand(FUNCTIONS, plan.environments, tuned=True) as stand:
        stand.expect(many)
        ours = _Ours(stand)
        with ours.jobs:
            if dead:
                ours.fill(many)
                ours.claim_for_nobody(many)
                moment = time.time()
            else:
                lead = plan.seconds(12.0, 3.0)
                moment = time.time() + lead
                ours.fill(many, datetime.fromtimestamp(moment, UTC))
                assert time.time() < moment, f"{many} jobs took longer than {lead} s to store"
        stand.watch_for_slow_calls()
        with others_cores(stand, longest.others):
            stand.start_worker(words=("--lease", "3"))
            stand.until_done(many)
        all_done.add(FUNCTIONS.name, time.time() - moment)
        longest.add(FUNCTIONS.name, stand.slowest())
