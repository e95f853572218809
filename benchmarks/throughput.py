"""How fast jobs are enqueued and drained, at what cost for the server and the runner's memory."""

from __future__ import annotations

from benchmarks.contenders import CEILING, COROUTINES, Contender
from benchmarks.figures import Row
from benchmarks.measure import Plan
from benchmarks.stand import Stand, others_cores

__all__ = ["throughput"]

SINGLES = 4_000


def throughput(plan: Plan) -> list[Row]:
    """In every round each contender in turn enqueues and drains on a fresh server; then two workers at once."""
    one = Row("enqueue one by one, jobs/s", goal="0.85 of one round trip")
    many = Row("enqueue in bulk, jobs/s", goal="5 × the best other, 0.6 of the ceiling")
    drain = Row("drain, one runner, functions, jobs/s", goal="20 × the best other, 0.6 of the ceiling")
    loop = Row("drain, one runner, coroutines, jobs/s", ours=COROUTINES.name, goal="10 × the best on asyncio")
    two = Row("drain, two runners, functions, jobs/s", goal="1.5 × one, as far as two cores allow")
    trips = Row("round trips per 100 jobs drained", more=False, goal="4 at most")
    commands = Row("commands at the server per job drained", more=False)
    server = Row("server, µs of processor per job drained", more=False, goal="5 where taskiq takes 16")
    size = Row("bytes stored per queued no-op", more=False, goal="250 at most")
    memory = Row("memory of a runner, MiB", more=False, goal="45 at most")
    rows = [one, many, drain, loop, two, trips, commands, server, size, memory]
    for _ in range(plan.rounds):
        for contender in plan.contenders:
            plan.say(f"throughput {contender.name}")
            _round(plan, contender, rows)
    return rows


def _round(plan: Plan, contender: Contender, rows: list[Row]) -> None:
    one, many, drain, loop, two, trips, commands, server, size, memory = rows
    name = contender.name
    on_asyncio = contender.module in ("ours_async", "taskiq", "bullmq")
    jobs = plan.few(contender.jobs, least=2_000)
    drains = [loop] if contender is COROUTINES else [drain, loop] if on_asyncio or contender is CEILING else [drain]
    with Stand(contender, plan.environments, tuned=True) as stand:
        with others_cores(stand, one.others):
            singles = plan.few(SINGLES)
            one.add(name, stand.produce("one", singles)["rate"])
        stand.client.flushall()
        if contender.many:
            with others_cores(stand, many.others):
                before = stand.look()
                many.add(name, stand.produce("many", jobs)["rate"])
        else:
            before = stand.look()
            stand.produce("one", jobs)
        size.add(name, stand.since(before).memory / jobs)
        marks = stand.expect(jobs)
        before = stand.look()
        with others_cores(stand, drains[0].others):
            stand.start_worker()
            stand.until_done(jobs)
        cost = stand.since(before)
        memory.add(name, stand.memory())
        for row in drains:
            row.add(name, marks.rate())
        trips.add(name, cost.reads / jobs * 100)
        commands.add(name, cost.commands / jobs)
        server.add(name, cost.processor / jobs * 1e6)
        stand.stop_workers()
        stand.client.flushall()
        stand.produce("many" if contender.many else "one", jobs)
        marks = stand.expect(jobs)
        with others_cores(stand, two.others):
            for _ in range(2):
                stand.start_worker()
            stand.until_done(jobs)
        two.add(name, marks.rate())
