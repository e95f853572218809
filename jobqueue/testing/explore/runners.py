"""Producers, operators, and runners that lose their leases or stop, as programs made of production rules.

Such a runner is three programs that share one memory, as it is three threads in production: one claims, runs and stores
results, one beats, one patrols. What it would send, and what it makes of the answers, is decided by `transitions`,
`runner.packing`, `runner.leases` and `runner.rescue`; the order in which it asks is a model of the core. Where a runner has
one thread, it is the core itself: see `engines`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from jobqueue import flows, lookup, transitions
from jobqueue.clock import Moment
from jobqueue.context import Context
from jobqueue.errors import JobNotFound, NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.judge import FINISHED, released
from jobqueue.keys import QueueKeys, namespace_keys
from jobqueue.record import JobRecord, decode
from jobqueue.runner.execute import told_to_stop
from jobqueue.runner.leases import Leases
from jobqueue.runner.packing import pack
from jobqueue.runner.rescue import Watch, patrol
from jobqueue.runner.task import End, Phase, Task
from jobqueue.storage.answers import Applied
from jobqueue.storage.ops import Answer, Fields, Page, Query, claim_mark
from jobqueue.testing.explore.programs import (
    NOT_APPLIED,
    UNKNOWN,
    Ask,
    Env,
    Idle,
    Look,
    Next,
    Part,
    Run,
    Steps,
    carry_out,
    spread,
)
from jobqueue.testing.explore.stores import Spot

__all__ = [
    "Held",
    "Setup",
    "aged",
    "beats",
    "enqueuer",
    "is_plain_beat",
    "operator",
    "patrols",
    "runner",
    "stopper",
]


@attrs.frozen
class Setup:
    """What a runner is told.

    Attributes:
        incarnation: Its name.
        queue: The queue it serves.
        capacity: How many jobs it holds at a time.
        lease: Length of a lease in ms.
        beat: Time between two extensions in ms.
        set_back: Whether the server's clock may be set back.
    """

    incarnation: bytes
    queue: QueueKeys
    capacity: int
    lease: int
    beat: int
    set_back: bool = False


@attrs.frozen
class Held:
    """A job in the hands of a runner, as its memory has it. Times are local milliseconds.

    Attributes:
        latest: The latest end of a lease that its runner has asked for, by the server's clock.
        told: Its runner has told it to stop.
    """

    id: bytes
    claim: bytes
    fence: int
    record: bytes
    queue: QueueKeys
    deadline: float
    latest: int
    lost: bool = False
    returned: bool = False
    told: bool = False


def _task(held: Held) -> Task:
    stored = decode(held.record)
    task = Task(held.queue, held.id, held.claim, held.fence, held.record, stored, None, held.deadline)
    task.lease_lost, task.cancelled = held.lost, held.told
    task.phase = Phase.JUDGED if held.returned else Phase.OUTSTANDING
    task.verdict = FINISHED if held.returned else released(stored, held.fence)
    return task


def _leases(env: Env, setup: Setup) -> Leases:
    leases = Leases(setup.lease)
    for held in env.memory:
        leases.held[held.id] = _task(held)
        leases._latest = held.latest  # noqa: SLF001 - its state, as it was
    return leases


def _keep(env: Env, leases: Leases) -> None:
    env.memory = tuple(
        Held(
            task.id, task.claim, task.fence, task.record, task.queue, task.deadline, leases._latest,  # noqa: SLF001 - as above
            task.lease_lost, returned=task.returned, told=task.cancelled,
        )
        for task in sorted(leases.held.values(), key=lambda task: task.id)
    )  # fmt: skip


def _claims(tasks: Sequence[Task]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((task.id, task.claim) for task in tasks)


# -------------------------------------------------------------------------------------------------------------- runner


def runner(env: Env, setup: Setup, number: int, results: tuple[Held, ...]) -> Steps[Next]:
    """Store results, claim, run what was claimed; again and again."""
    if not results:
        yield Idle("work", ((setup.queue,),))
    return Next(_asks, (setup, number + 1, results, env.at))
    yield  # a program is a generator


def _asks(env: Env, setup: Setup, number: int, results: tuple[Held, ...], at: Moment) -> Steps[Next]:
    """Send it all, and again what went without an answer."""
    part = _gather(env, setup, number, results, at)
    [answers] = yield Ask((part,))
    if answers in (UNKNOWN, NOT_APPLIED):
        return Next(_asks, (setup, number, results, at))
    leases = _leases(env, setup)
    for held in results:
        if (task := leases.held.get(held.id)) is not None and task.claim == held.claim:
            leases.drop(task)
    fresh = _claimed(setup, part, answers, at)
    for task in fresh:
        leases.hold(task)
        leases.ask(at)  # as its claim did
    _keep(env, leases)
    return Next(_runs, (setup, number, _claims(fresh), ()))


def _gather(env: Env, setup: Setup, number: int, results: Sequence[Held], at: Moment) -> Part:
    """What goes to the queue: results, what is due, what is handed back, a claim."""
    tasks = [_task(held) for held in results]
    batches = [entry.batch for entry in pack(tasks)]
    until = 0
    if all(task.returned for task in tasks):  # else it would take at once what it handed back
        until = at.now + setup.lease
        batches.append(transitions.promote(setup.queue, at.now))
        batches.append(
            transitions.claim(
                setup.queue,
                setup.incarnation,
                number,
                limit=setup.capacity,
                now=at.now,
                lease=setup.lease,
                beat=setup.beat,
            )
        )
    return Part(env.process, tuple(batches), _claims(tasks), until)


def _claimed(setup: Setup, part: Part, answers: Any, at: Moment) -> list[Task]:
    if part.steps[-1] != "claim" or not isinstance(answers[-1], Applied):
        return []
    moved = answers[-1].moved
    mark = claim_mark(setup.incarnation, moved.fence, setup.beat)
    deadline = at.local + setup.lease  # from when it was first sent
    return [
        Task(setup.queue, id, mark, moved.fence, record, decode(record), None, deadline)
        for id, record in zip(moved.ids, moved.records, strict=True)
        if isinstance(record, bytes)
    ]


def _runs(
    env: Env, setup: Setup, number: int, claimed: tuple[tuple[bytes, bytes], ...], ended: tuple[Held, ...]
) -> Steps[Next]:
    """Run jobs one after the other, and go on with what is to be stored or handed back."""
    for index, (id, claim) in enumerate(claimed):
        held = _mine(env, id, claim)
        if held is None:
            continue  # claimed again by this very runner: that claim counts
        if not held.lost and not held.told and held.deadline > env.local:
            env.tell("start", id, claim)
            return Next(_job, (setup, number, claimed[index:], ended))
        ended += (_plain(held),)  # nothing starts under a lease that is not certain, or in a runner that stops
    return Next(runner, (setup, number, ended))
    yield  # a program is a generator


def _job(
    env: Env, setup: Setup, number: int, claimed: tuple[tuple[bytes, bytes], ...], ended: tuple[Held, ...]
) -> Steps[Next]:
    """Run the first of these."""
    id, claim = claimed[0]
    yield Run(f"runs {id.decode()}")
    held = _mine(env, id, claim)
    if held is not None:
        is_back = _is_broken_off(env, held)
        held = attrs.evolve(held, returned=not is_back)
        env.memory = tuple(held if other.id == id else other for other in env.memory)
        ended += (_plain(held),)
    return Next(_runs, (setup, number, claimed[1:], ended))


def _is_broken_off(env: Env, held: Held) -> bool:
    """Whether a run that has come to its end is handed back, since it saw that its runner told it to stop."""
    task = _task(held)
    name = task.stored.name
    context = Context(task.job_record, flags=task)
    is_broken_off = False
    if name == "looks":
        is_broken_off = context.cancelled
    elif name == "completes" and context.cancelled:
        context.complete()
    if is_broken_off:
        env.tell("broken off", held.id, held.claim)
    if task.seen:
        told_to_stop(task)
    return task.end is End.HANDED_BACK


def stopper(env: Env) -> Steps[None]:
    """Tell the jobs of a runner, once, that it stops. It is started again at once, for whatever its successor does."""
    yield Idle("stop")
    env.memory = tuple(attrs.evolve(held, told=not held.returned) for held in env.memory)


def _plain(held: Held) -> Held:
    """As it is stored or handed back, for which its lease makes no difference."""
    return attrs.evolve(held, deadline=0.0, latest=0, lost=False, told=False)


def _mine(env: Env, id: bytes, claim: bytes) -> Held | None:
    return next((held for held in env.memory if held.id == id and held.claim == claim), None)


# ------------------------------------------------------------------------------------------------------ beat and patrol


def beats(env: Env, setup: Setup, due: float) -> Steps[Next]:
    """Extend all leases, as `Heart.beat` does; at once again if no answer came."""
    yield Idle("beat", (due,))
    at = env.at
    leases = _leases(env, setup)
    leases.overdue(at)
    batches = leases.extend(at)
    _keep(env, leases)
    if not batches:
        return Next(beats, (setup, at.local + setup.beat))
    until = leases._latest  # noqa: SLF001 - what the batches ask for
    parts = tuple(Part(env.process, (batch,), _claims(tasks), until) for batch, tasks in batches)
    told = yield Ask(parts)
    outcomes = [outcome for part, answers in zip(parts, told, strict=True) for outcome in spread(part, answers)]
    leases = _leases(env, setup)
    now_held = [
        (batch, [_same(leases, task) for task in tasks]) for batch, tasks in batches
    ]  # what was held then, as it is now
    leases.extended(now_held, outcomes, at.local)
    _keep(env, leases)
    failed = any(isinstance(outcome, NotApplied | OutcomeUnknown) for outcome in outcomes)
    return Next(beats, (setup, due if failed else at.local + setup.beat))


def _same(leases: Leases, task: Task) -> Task:
    held = leases.held.get(task.id)
    return held if held is not None and held.claim == task.claim else task


def _far(query: Query) -> Answer:
    """No lease lies beyond the longest if clocks only jump ahead: a question with one answer is not asked."""
    return () if isinstance(query, Page) and query.after is not None and query.before is None else None


def _ask(_query: Query) -> Answer:
    return None


def patrols(env: Env, setup: Setup, seen: tuple[tuple[bytes, Any], ...], after: float) -> Steps[Next]:
    """Take the jobs of runners that are gone."""
    queue = setup.queue
    yield Idle("patrol", (queue, setup.lease, seen, after))
    watch = Watch()
    watch.seen[queue.scope] = dict(seen)
    begun = env.local
    try:
        yield from carry_out(env, patrol(queue, watch, setup.lease, lambda: env.at), _ask if setup.set_back else _far)
    except (NotApplied, OutcomeUnknown):
        return Next(patrols, (setup, tuple(sorted(watch.seen[queue.scope].items())), begun))
    return Next(patrols, (setup, tuple(sorted(watch.seen[queue.scope].items())), begun + setup.beat))


def aged(
    program: Any, args: tuple[Any, ...], local: float, end: float, spots: dict[bytes, Spot], coming: frozenset[int]
) -> tuple[Any, ...]:
    """The arguments of a program that waits, as they mean the same from a later time on; see `Rules`.

    It is all the same how long ago it was that something became due, and when something began that does not become due
    before the end. And an expired lease that has gone comes back with the same end by a request only that asks
    for it already, unless the server's clock is set back.
    """
    if program is beats:
        setup, due = args
        return setup, due if due > local else 0.0
    if program is patrols:
        setup, seen, after = args
        if not setup.set_back:
            seen = tuple((id, one) for id, one in seen if one.end in coming or _is_there(one, spots.get(id)))
        return setup, tuple((id, _aged(one, local, end)) for id, one in seen), after if after > local else 0.0
    return args


def is_plain_beat(part: Part, spots: dict[bytes, Spot], at: Moment, memory: Any) -> bool:
    """Whether a part extends nothing but leases that all see to be certain, as long as no clock is set back.

    Then nobody else looks at or takes these jobs, and if their runner stores a result it comes to the same thing before
    the extension and after it.
    """
    if part.steps != ("extend",):
        return False
    certain = {(held.id, held.claim) for held in memory if not held.lost and held.deadline > at.local}
    return all(
        one in certain and (spot := spots.get(one[0])) is not None and spot.claim == one[1] and spot.score > at.now
        for one in part.meant
    )


def _is_there(one: Any, spot: Spot | None) -> bool:
    return spot is not None and spot.place == "working" and spot.score == one.end


def _aged(one: Any, local: float, end: float) -> Any:
    if one.patience > end:
        return attrs.evolve(one, since=0.0)
    return one if one.since + one.patience > local else attrs.evolve(one, since=-one.patience)


# ---------------------------------------------------------------------------------------------- producers and operators


class _Still:
    """The clock of producers: when a queue was first used makes no difference to anything."""

    def now(self) -> int:
        """See `Clock.now`."""
        return 0


def enqueuer(env: Env, records: tuple[JobRecord[Any], ...]) -> Steps[None]:
    """Enqueue jobs."""
    yield from _stored(env, records)


def _stored(env: Env, records: tuple[JobRecord[Any], ...]) -> Steps[tuple[JobRecord[Any], ...]]:
    """Enqueue jobs; answers those that are stored for certain."""
    clock: Any = _Still()
    try:
        yield from carry_out(env, flows.store("explore", records, clock))
    except (NotApplied, OutcomeUnknown) as error:
        kept = error.stored
        if isinstance(error, NotApplied):
            for record in error.records:
                env.tell("not stored", record.id.encode())
    else:
        kept = records
    for record in kept:
        env.tell("stored", record.id.encode())
    return tuple(kept)


def registrar(env: Env, records: tuple[JobRecord[Any], ...]) -> Steps[None]:
    """Enqueue jobs, then look whether their queues are in the registry."""
    kept = yield from _stored(env, records)
    if kept:
        [known] = yield Look((Fields(namespace_keys("explore").queues),))
        for record in kept:
            if record.queue.encode() not in known:
                env.tell("unknown", record.id.encode())


def operator(env: Env, queue: QueueKeys, id: bytes, what: str) -> Steps[None]:
    """Requeue or delete a job once it is dead."""
    yield Idle("dead", (queue, id))
    flow: Any = lookup.requeue if what == "requeue" else lookup.delete
    try:
        yield from carry_out(env, flow([queue], id))
    except (JobNotFound, StorageRefused, NotApplied, OutcomeUnknown):
        return  # it is told so, and looks again when it likes
