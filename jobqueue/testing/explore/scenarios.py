"""The scenarios: who takes part, what is stored at first, what may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.keys import QueueKeys, namespace_keys, queue_keys
from jobqueue.record import JobRecord, Stored, encode, job_record
from jobqueue.runner.decisions import Config
from jobqueue.storage.interpreter import Interpreter
from jobqueue.testing.explore.engines import BACKOFF_MS, GRACE_MS, engine
from jobqueue.testing.explore.history import JobHistory, LockHistory, Past
from jobqueue.testing.explore.locks import TTL_MS, lock_user
from jobqueue.testing.explore.programs import Program, Programs
from jobqueue.testing.explore.runners import (
    Setup,
    aged,
    beats,
    enqueuer,
    is_plain_beat,
    operator,
    patrols,
    registrar,
    runner,
    stopper,
)
from jobqueue.testing.explore.search import Conditions, Rules, Search
from jobqueue.testing.explore.states import PENDING, State
from jobqueue.testing.explore.stores import Stores

__all__ = ["SCENARIOS", "Scenario", "build"]

START_MS: Final = 1_000_000
LEASE_MS: Final = 300
BEAT_MS: Final = 100
LONG_MS: Final = 1_000_000
NAMESPACE: Final = "explore"
NONCE: Final = b"nonce..."


class _Conditions(Conditions):
    def holds(self, name: str, args: tuple[Any, ...], search: Search, store: int, at: Moment, memory: Any) -> bool:
        contents = search.stores.contents[store]
        spots = search.stores.spots[store]
        match name:
            case "work":
                return any(
                    queue.ready.full in contents.lists
                    or (queue.waiting.full in contents.sets and contents.sets[queue.waiting.full].first()[0] <= at.now)
                    for queue in args[0]
                )
            case "beat":
                return at.local >= args[0] and any(not held.lost for held in memory)
            case "patrol":
                queue, lease, seen, after = args
                entries = contents.sets.get(queue.working.full)
                ripe = any(at.local >= one.since + one.patience for _, one in seen)
                return (at.local >= after or ripe) and (
                    entries is not None
                    and any(score <= at.now or score > at.now + lease for score in entries.scores.values())
                )
            case "stop":
                return bool(memory)
            case "dead":
                return bool((spot := spots.get(args[1])) and spot.place == "dead")
            case _:
                lock = contents.locks.get(namespace_keys(NAMESPACE).lock(args[0]).full)
                return lock is None or lock.until <= at.now


@attrs.frozen
class Scenario:
    """One scenario.

    Attributes:
        name: What it is called.
        about: What happens in it.
        build: Makes its search and first state from the numbers of runners, jobs and faults.
    """

    name: str
    about: str
    build: Callable[[int, int, int], tuple[Search, State]]


def build(
    actors: Sequence[tuple[int, Program, tuple[Any, ...]]],
    processes: int,
    stores: Stores,
    contents: Interpreter,
    past: Past,
    rules: Rules,
    faults: int,
) -> tuple[Search, State]:
    """A search and its first state."""
    programs = Programs()
    search = Search(stores, programs, _Conditions(), past, rules, START_MS)
    store = stores.number_of(contents)
    first = past.first(stores.spots[store])
    at = Moment(START_MS, 0.0)
    nodes = [programs.start(process, program, args, at, ()) for process, program, args in actors]
    state = State(
        store, 0, 0, faults, search.pasts.of(first), (), (("runs", search.memories.of(())),) * processes,
        tuple((node, (PENDING,) * len(search.parts_of(node))) for node in nodes),
    )  # fmt: skip
    return search, state


def _ids(jobs: int) -> list[bytes]:
    return [b"job-%c" % (ord("a") + index) for index in range(jobs)]


def _stored(name: str, id: bytes, retry: int, due: int = START_MS) -> Stored:
    return Stored(name, b'{"of":"%b"}' % id, retry, 0, 0, START_MS, due)


def _fill(contents: Interpreter, queue: QueueKeys, jobs: dict[bytes, Stored]) -> None:
    ready = {id: encode(NONCE, stored) for id, stored in jobs.items() if stored.due <= START_MS}
    waiting = {id: encode(NONCE, stored) for id, stored in jobs.items() if stored.due > START_MS}
    due = {id: stored.due for id, stored in jobs.items() if stored.due > START_MS}
    contents.apply(transitions.put(queue, ready, waiting, due))
    contents.apply(transitions.register_queue(namespace_keys(NAMESPACE), queue.queue, 0))
    contents.apply(transitions.mark_registered(queue))


def _stores(queues: Sequence[QueueKeys], ids: Sequence[bytes]) -> Stores:
    return Stores(queues, {id: b'{"of":"%b"}' % id for id in ids})


def _names(runners: int) -> list[bytes]:
    return [b"r%d" % (number + 1) for number in range(runners)]


def _setup(number: int, queue: QueueKeys, capacity: int, lease: int = LONG_MS) -> Setup:
    return Setup(b"r%d" % (number + 1), queue, capacity, lease, BEAT_MS)


def _engine(number: int, *queues: QueueKeys) -> tuple[int, Program, tuple[Any, ...]]:
    """A runner that has room for two jobs."""
    config = Config(b"r%d" % (number + 1), LONG_MS, BEAT_MS, GRACE_MS, threads=2, coroutines=2, processes=2)
    return number, engine, (config, queues, (2, 1)[: len(queues)], None)


def _no(_search: Search, _state: State) -> bool:
    return False


def _retrying(search: Search, state: State) -> bool:
    """Whether a job is waiting, or lies dead and its operator has not seen it."""
    return any(spot.place in ("waiting", "dead") for spot in search.stores.spots[state.store].values())


def _orphaned(search: Search, state: State) -> bool:
    """Whether a lease is held that nobody extends."""
    held = {
        (one.id, one.claim)
        for status, memory in state.processes
        if status == "runs"
        for one in search.memories.values[memory]
        if not one.lost
    }
    spots = search.stores.spots[state.store]
    return any(spot.place == "working" and (id, spot.claim) not in held for id, spot in spots.items())


def _held(search: Search, state: State) -> bool:
    """Whether somebody holds a job."""
    return any(spot.place == "working" for spot in search.stores.spots[state.store].values())


# ----------------------------------------------------------------------------------------------------------- the scenarios


def _claim(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(jobs)
    stores = _stores([queue], ids)
    contents = Interpreter()
    _fill(contents, queue, {id: _stored("ok", id, 0) for id in ids[:-1]})
    last: JobRecord[Any] = job_record(ids[-1], "low", _stored("ok", ids[-1], 0), "ready", nonce=NONCE)
    actors: list[tuple[int, Program, tuple[Any, ...]]] = [_engine(number, queue) for number in range(runners)]
    actors.append((runners, enqueuer, ((last,),)))
    rules = Rules(
        ticks=(),
        free=0,
        urgent=False,
        long="",
        pause=False,
        crash=True,
        jumps=(),
        rescue=None,
        latest=99,
        alike=runners,
        waits=_no,
    )
    return build(
        actors, runners + 1, stores, contents, JobHistory(ids, _names(runners), START_MS, rescued=False), rules, faults
    )


def _register(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    """Producers take the place of runners: each enqueues a job into a queue that nobody has used before."""
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(min(runners, jobs))
    actors: list[tuple[int, Program, tuple[Any, ...]]] = []
    for number, id in enumerate(ids):
        record: JobRecord[Any] = job_record(id, "low", _stored("ok", id, 0), "ready", nonce=NONCE)
        actors.append((number, registrar, ((record,),)))
    rules = Rules(
        ticks=(), free=0, urgent=False, long="", pause=False, crash=True, jumps=(), rescue=None, latest=99, alike=1,
        waits=_no,
    )  # fmt: skip
    history = JobHistory(ids, [], START_MS, rescued=False)
    return build(actors, len(ids), _stores([queue], ids), Interpreter(), history, rules, faults)


def _stop(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(jobs)
    kinds = ("looks", "completes", "ok")
    contents = Interpreter()
    for index, id in enumerate(ids):
        _fill(contents, queue, {id: _stored(kinds[index % len(kinds)], id, 0)})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = []
    for number in range(runners):
        actors += [(number, runner, (_setup(number, queue, 2), 0, ())), (number, stopper, ())]
    rules = Rules(
        ticks=(), free=0, urgent=False, long="", pause=False, crash=True, jumps=(), rescue=None, latest=99,
        alike=runners, waits=_no,
    )  # fmt: skip
    history = JobHistory(ids, _names(runners), START_MS, rescued=False)
    return build(actors, runners, _stores([queue], ids), contents, history, rules, faults)


def _retry(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(jobs)
    stores = _stores([queue], ids)
    kinds = [("fail", 0), ("fail once", 1), ("snooze once", 0)]
    contents = Interpreter()
    for index, id in enumerate(ids):
        name, retry = kinds[index % len(kinds)]
        _fill(contents, queue, {id: _stored(name, id, retry)})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = [_engine(number, queue) for number in range(runners)]
    actors.append((runners, operator, (queue, ids[0], "requeue")))
    back = 4 * BACKOFF_MS  # not as far as ahead: the history must see it after a jump ahead as well
    rules = Rules(
        ticks=(BACKOFF_MS - 1, 1, *(BACKOFF_MS,) * (1 + faults)), free=0, urgent=True, long="",
        pause=False, crash=True, jumps=(3 * BACKOFF_MS, -back),
        rescue=None, latest=99, alike=runners, waits=_retrying,
    )  # fmt: skip
    history = JobHistory(ids, _names(runners), START_MS, rescued=False, back=back)
    return build(actors, runners + 1, stores, contents, history, rules, faults)


def _rescue(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(jobs)
    stores = _stores([queue], ids)
    contents = Interpreter()
    _fill(contents, queue, {id: _stored("ok", id, 0) for id in ids})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = []
    for number in range(runners):
        setup = _setup(number, queue, 2, LEASE_MS)
        actors += [
            (number, runner, (setup, 0, ())),
            (number, beats, (setup, float(BEAT_MS))),
            (number, patrols, (setup, (), 0.0)),
        ]
    ticks = 1 + 6 * max(1, faults)
    rules = Rules(
        ticks=(BEAT_MS,) * ticks, free=1, urgent=True, long="job-a", pause=True, crash=True,
        jumps=(10 * LEASE_MS,),
        rescue=3 * BEAT_MS, latest=ticks - 3 * max(1, faults), alike=runners, waits=_orphaned,
        wakes=99 if faults < 2 else ticks - 3 * faults, aged=aged, apart=is_plain_beat,
    )  # fmt: skip
    history = JobHistory(ids, _names(runners), START_MS, rescued=True, lease=LEASE_MS)
    return build(actors, runners, stores, contents, history, rules, faults)


def _clock(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    """The last runner only looks for jobs of the dead, and the others only hold: the states of all together are too many."""
    queue = queue_keys(NAMESPACE, "low")
    ids = _ids(jobs)[: runners - 1 or 1]
    stores = _stores([queue], ids)
    contents = Interpreter()
    _fill(contents, queue, {id: _stored("ok", id, 0) for id in ids})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = []
    for number in range(runners):
        setup = attrs.evolve(_setup(number, queue, 1, LEASE_MS), set_back=True)
        if number < runners - 1 or runners == 1:
            actors += [(number, runner, (setup, 0, ())), (number, beats, (setup, float(BEAT_MS)))]
        if number == runners - 1:
            actors.append((number, patrols, (setup, (), 0.0)))
    rules = Rules(
        ticks=(BEAT_MS,) * (5 + 2 * faults), free=1 + faults, urgent=True, long="job-a", pause=False, crash=False,
        jumps=(10 * LEASE_MS, -10 * LEASE_MS), rescue=None, latest=99, alike=0, waits=_held, aged=aged,
    )  # fmt: skip
    return build(
        actors, runners, stores, contents, JobHistory(ids, _names(runners), START_MS, rescued=False), rules, faults
    )


def _shares(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    queues = [queue_keys(NAMESPACE, "high"), queue_keys(NAMESPACE, "low")]
    ids = _ids(jobs)
    stores = _stores(queues, ids)
    contents = Interpreter()
    for index, id in enumerate(ids):
        _fill(contents, queues[index % 2], {id: _stored("ok", id, 0)})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = [_engine(number, *queues) for number in range(runners)]
    rules = Rules(
        ticks=(),
        free=0,
        urgent=False,
        long="",
        pause=False,
        crash=True,
        jumps=(),
        rescue=None,
        latest=99,
        alike=runners,
        waits=_no,
    )
    return build(
        actors, runners, stores, contents, JobHistory(ids, _names(runners), START_MS, rescued=False), rules, faults
    )


def _lock(runners: int, jobs: int, faults: int) -> tuple[Search, State]:
    stores = Stores([], {})
    actors: list[tuple[int, Program, tuple[Any, ...]]] = [
        (number, lock_user, (jobs // runners + (number < jobs % runners), 0)) for number in range(runners)
    ]
    rules = Rules(
        ticks=(TTL_MS - 1, 1) * (2 + faults), free=2, urgent=True, long="writes", pause=True, crash=True,
        # Not as far back as ahead: the history must see by the clock that it has jumped, after two jumps as well.
        jumps=(3 * TTL_MS, -4 * TTL_MS),
        rescue=None, latest=99, alike=0 if jobs % runners else runners, waits=_locked,
    )  # fmt: skip
    return build(actors, runners, stores, Interpreter(), LockHistory(runners, START_MS), rules, faults)


def _locked(search: Search, state: State) -> bool:
    return any(lock.until > search.moment(state).now for lock in search.stores.contents[state.store].locks.values())


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("claim", "enqueue, claim, run and finish", _claim),
        Scenario("register", "the first jobs of a queue, by producers who die or hear nothing", _register),
        Scenario("stop", "runners that stop in the middle of jobs, which look whether they should or do not", _stop),
        Scenario("retry", "failures, snoozes, due times, the dead place, an operator who requeues", _retry),
        Scenario(
            "rescue", "leases, beats, runners that die, sleep past their lease or wake, a clock that jumps", _rescue
        ),
        Scenario("clock", "a server's clock that is set back and ahead under the leases of living holders", _clock),
        Scenario("shares", "two queues with weights, each of which answers for itself", _shares),
        Scenario("lock", "a user's lock that is taken, extended, overrun and given back", _lock),
    )
}
