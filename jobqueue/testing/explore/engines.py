"""A runner as a program: the production `Engine`, and so the production core with all its timers.

An engine changes as it works, and states of the exploration must not. So where an engine rests it is kept as it is, with a
value that two engines have in common if no difference between them can be seen, and a program that goes on works on a copy.

A rest that nobody can end, after a call without an answer, takes no time: the runner's own clock goes on, and no other.
"""

from __future__ import annotations

import copy
import enum
import math
from collections import deque
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from jobqueue.clock import Moment
from jobqueue.flows import Apply, Request
from jobqueue.job import Kind
from jobqueue.keys import QueueKeys
from jobqueue.loops import within
from jobqueue.queue import JobQueue
from jobqueue.retry import RetryPolicy, Snooze
from jobqueue.runner.ahead import ClaimAhead
from jobqueue.runner.core import Core
from jobqueue.runner.decisions import Config, Decision, Leave, Rest
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event
from jobqueue.runner.shares import Shares
from jobqueue.runner.task import End, Task
from jobqueue.storage.ops import Batch
from jobqueue.testing.explore.programs import Ask, Env, Idle, Next, Part, Run, Steps, spread

__all__ = ["BACKOFF_MS", "Resting", "engine"]

BACKOFF_MS: Final = 100
GRACE_MS: Final = 1_000.0


def _anything(of: str) -> None:
    """What a job does is decided by the program."""


_KIND: Final[Kind[Any]] = (
    JobQueue(namespace="explore")
    .job(name="any", retry=RetryPolicy(backoff=lambda n: timedelta(milliseconds=BACKOFF_MS * n)))(_anything)
    .kind
)


class _Shares(Shares):
    """The same rule, and what it said since it was asked for that."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        super().__init__(weights)
        self.said: list[tuple[int, ...]] = []

    def split(self, units: int, queues: Collection[str]) -> dict[str, int]:
        """See `Shares.split`."""
        parts = super().split(units, queues)
        if units > 0:
            # Where one of them has no work no share can be too small.
            is_shared = set(self.weights) <= set(queues)
            self.said.append(tuple(parts.get(name, 0) for name in self.weights) if is_shared else ())
        return parts


class Resting:
    """A runner between two of its turns.

    Attributes:
        core: Its rules, never changed.
        given: Jobs that it has started and that have not come to their end, in order.
        listens: Whether it waits to be rung.
    """

    __slots__ = ("_hash", "_key", "core", "given", "listens")

    def __init__(self, core: Core, given: list[Task], *, listens: bool) -> None:
        self.core = core
        self.given = given
        self.listens = listens
        self._key = _value((core, given, listens), {})
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resting) and self._key == other._key

    def copied(self) -> tuple[Core, list[Task]]:
        """The same core and jobs, to go on with."""
        memo = {id(queue.keys): queue.keys for queue in self.core._queues.values()}  # noqa: SLF001 - there is one of each
        return copy.deepcopy((self.core, self.given), memo)


def _value(thing: Any, seen: dict[int, int]) -> Any:
    """What can be seen of something, as a value; what is met again is named by when it was met."""
    if thing is None or isinstance(thing, int | float | str | bytes | enum.Enum | QueueKeys | Kind):
        return thing
    if isinstance(thing, Batch):
        return repr(thing)
    if callable(thing):
        return None  # the same in all of them
    if id(thing) in seen:
        return ("again", seen[id(thing)])
    seen[id(thing)] = len(seen)
    kind = type(thing).__name__
    if isinstance(thing, list | tuple | deque):
        return (kind, *[_value(one, seen) for one in thing])
    if isinstance(thing, set | frozenset):
        return (kind, *sorted([_value(one, seen) for one in thing], key=repr))
    items: list[Any] = []
    if isinstance(thing, dict):
        items += [(_value(key, seen), _value(value, seen)) for key, value in thing.items()]
    for name in _names(type(thing)) if not hasattr(thing, "__dict__") else sorted(vars(thing)):
        if hasattr(thing, name):
            items.append((name, _value(getattr(thing, name), seen)))
    return (kind, *items)


def _names(kind: type) -> list[str]:
    if issubclass(kind, msgspec.Struct):
        return list(kind.__struct_fields__)
    slots = {name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}
    return sorted(slots - {"__weakref__"})


def _silent(_: Event) -> None:
    """Nobody reads what a runner tells."""


def engine(
    env: Env, config: Config, queues: tuple[QueueKeys, ...], weights: tuple[int, ...], resting: Resting | None
) -> Steps[Next | None]:
    """Take turns until the next rest, and go on with it."""
    given: list[Task] = []
    waited = 0.0

    def moment() -> Moment:
        return Moment(env.now, env.local + waited)

    def start(tasks: Any) -> None:
        given.extend(tasks)

    [namespace, *_] = queues[0].scope.split(":")
    named = {queue.queue: weight for queue, weight in zip(queues, weights, strict=True)}
    runner = Engine(config, namespace, named, lambda _: _KIND, moment=moment, start=start, observe=_silent)
    shares = _Shares(named)
    runner.core._shares = shares  # noqa: SLF001 - the same rule, looked at
    if resting is None:
        yield Idle("work", (queues,))
    else:
        runner.core, before = resting.copied()
        given += before
        looked_at = runner.core._shares  # noqa: SLF001 - as above
        assert isinstance(looked_at, _Shares)
        shares = looked_at
        if given:
            task = given.pop(0)
            yield from _run(env, task, moment)
            runner.core.returned([task], moment())
        elif resting.listens:
            yield Idle("work", (queues,))
            runner.core.woken(moment())
    while True:
        decision = yield from _turn(env, runner, shares, weights)
        match decision.then:
            case Leave():
                return None
            case Rest(until, listen):
                local = env.local
                if not given and (again := _asks_again(runner.core, until, local + waited, listen=listen)) is not None:
                    waited, listen = max(waited, again - local), False
                _settle(runner.core, local, waited)
                return Next(engine, (config, queues, weights, Resting(runner.core, given, listens=listen)))


def _asks_again(core: Core, until: float, local: float, *, listen: bool) -> float | None:
    """When (local ms) a runner goes on by itself; None if it is for others to do something, or for their clocks."""
    queues = core._queues  # noqa: SLF001 - the timers of the core
    quiet = [queues[name].quiet_until for name in queues.quiet(local)]
    return min(quiet) if quiet else None if listen else until


def _settle(core: Core, local: float, waited: float) -> None:
    """Take from a core what makes no difference, so that states meet.

    Its own clock goes back by what it has waited: nobody else can see that clock. It is all the same for how long something
    has been due; how far a queue is ahead counts from the one furthest behind. Nobody needs the last resort of a poll, since
    no notification is lost here. And how quickly jobs end, and so how many are claimed ahead, is nothing to explore.
    """
    for name in ("_claim_from", "_probe_at", "_promote_from", "_flush_at", "_called_at"):
        at = getattr(core, name) - waited
        setattr(core, name, at if at > local else 0.0)
    for queue in core._queues.values():  # noqa: SLF001 - as above
        queue.quiet_until = max(0.0, queue.quiet_until - waited) if queue.quiet_until > local + waited else 0.0
        if queue.claim is not None:
            queue.claim.sent -= waited
    outstanding, shares = core._outstanding, core._shares  # noqa: SLF001 - as above
    outstanding._unproven = deque((until - waited, tasks) for until, tasks in outstanding._unproven)  # noqa: SLF001
    for task in {*core.leases.held.values(), *outstanding.tasks, *core._judged}:  # noqa: SLF001 - as above
        task.deadline -= waited
    shares._positions = {name: at - shares._last for name, at in shares._positions.items()}  # noqa: SLF001 - as above
    shares._last = 0  # noqa: SLF001 - as above
    core._poll_at = math.inf  # noqa: SLF001 - as above
    core._ahead = ClaimAhead()  # noqa: SLF001 - as above
    core.leases._latest = 0  # noqa: SLF001 - nothing is extended


def _turn(env: Env, runner: Engine, shares: _Shares, weights: tuple[int, ...]) -> Steps[Decision]:
    """One turn; what goes to a queue travels apart from what goes to others."""

    def ask(request: Request) -> Steps[Any]:
        assert isinstance(request, Apply)
        for split in shares.said if len(weights) > 1 else ():
            env.tell("split", split, weights)
        shares.said.clear()
        scopes: dict[str, list[Batch]] = {}
        for batch in request.batches:
            scopes.setdefault(batch.scope, []).append(batch)
        held = tuple(sorted((task.id, task.claim) for task in runner.core.leases.held.values()))
        parts = [Part(env.process, tuple(batches), held) for batches in scopes.values()]
        told = yield Ask(tuple(parts))
        outcomes = {
            id(batch): outcome
            for part, answers in zip(parts, told, strict=True)
            for batch, outcome in zip(part.batches, spread(part, answers), strict=True)
        }
        return [outcomes[id(batch)] for batch in request.batches]

    return within(runner.turn(), ask)


def _run(env: Env, task: Task, moment: Any) -> Steps[None]:
    """Run a job, which does what its name says."""
    assert task.take()
    if task.lease_lost or task.deadline <= moment().local:
        task.end = End.HANDED_BACK
        return
    env.tell("start", task.id, task.claim)
    yield Run(f"runs {task.id.decode()}")
    name, stored = task.stored.name, task.stored
    if name == "fail" or (name == "fail once" and not stored.attempt):
        task.outcome, task.text = RuntimeError("planned"), "RuntimeError: planned"
    elif name == "snooze once" and stored.due == stored.created:
        task.outcome = Snooze(timedelta(milliseconds=BACKOFF_MS))
