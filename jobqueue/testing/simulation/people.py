"""The other actors of a simulation: who enqueues, who operates, who takes locks, and who writes what no jobqueue wrote."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

from jobqueue import flows, lookup, transitions
from jobqueue.access import Access
from jobqueue.clock import Clock
from jobqueue.errors import JobNotFound, LockTaken, NotApplied, OutcomeUnknown, StorageError
from jobqueue.ids import Chance
from jobqueue.keys import NamespaceKeys, namespace_keys, queue_keys
from jobqueue.lock import Lease, Lock
from jobqueue.record import JobRecord, Stored
from jobqueue.safe_text import id_bytes
from jobqueue.testing.simulation.scripts import Script
from jobqueue.testing.simulation.world import Actor, Process, Sleep, Steps, World

__all__ = ["Deployer", "LockUser", "Operator", "Producer", "Register"]

LOCK: Final = "tick"


class Register(Protocol):
    """Whoever has to know what was enqueued and what came of it."""

    def intended(self, scripts: Sequence[Script], records: Sequence[JobRecord[Any]]) -> None:
        """These are about to be enqueued."""
        ...

    def foreign(self, script: Script, id: bytes, record: bytes) -> None:
        """A foreign writer is about to write this."""
        ...

    def answered(self, stored: Sequence[str], unsure: Sequence[str], refused: Sequence[str]) -> None:
        """What the producer was told of its jobs, by id."""
        ...

    def again(self, ids: Sequence[str]) -> None:
        """These are about to be sent again."""
        ...

    def believes(self, holder: str, lease: Lease, until: float) -> None:
        """A user of the lock believes to hold it until a virtual time."""
        ...

    def gave_back(self, holder: str) -> None:
        """A user of the lock does not believe so any more."""
        ...


class Producer(Actor):
    """Enqueues its scripts in bursts, and those without a clear answer again."""

    def __init__(
        self,
        world: World,
        column: str,
        namespace: str,
        scripts: list[Script],
        register: Register,
        *,
        burst: int,
        pause: float,
        gone: Callable[[Producer], None],
    ) -> None:
        super().__init__(world, column, f"{world.seed}:{column}:{len(scripts)}")
        self.scripts = scripts
        self.busy = True
        self._namespace = namespace
        self._register = register
        self._burst = burst
        self._pause = pause
        self._gone = gone
        self._process = Process(self, "enqueue")
        self._process.start(self._life(), self.chance.jitter() * pause)

    def died(self) -> None:
        """See `Actor.died`."""
        self._gone(self)

    def _life(self) -> Steps:
        while True:
            try:
                yield from self._process.refresh(0)
                break
            except NotApplied:
                yield Sleep(100)
        while self.scripts:
            size = 1 + int(self.chance.jitter() * self._burst)
            burst = self.scripts[:size]
            del self.scripts[:size]
            for script in burst:
                if script.foreign == "record":
                    yield from self._scribble(script)
            ours = [script for script in burst if script.foreign != "record"]
            if ours:
                yield from self._enqueue(ours)
            yield Sleep(self._pause * self.chance.jitter() * 2)
        self.busy = False

    def _enqueue(self, burst: list[Script]) -> Steps:
        now = self.clock.now()
        if any(each.delay is not None for each in burst):
            now = yield from self._process.drive(flows.time_to_keep(self.clock))
        jobs = [
            (each.queue, Stored(each.kind, each.payload(), each.retry, 0, 0, now, now + (each.delay or 0)))
            for each in burst
        ]
        records = flows.new_records(jobs, now, self.chance)
        self._register.intended(burst, records)
        left: Sequence[JobRecord[Any]] = records
        for _ in range(8):
            try:
                yield from self._process.drive(flows.store(self._namespace, left, cast(Clock, self.clock)))
            except StorageError as error:
                unsure = [record.id for record in error.records]
                refused = unsure if isinstance(error, NotApplied) else []
                self._register.answered([one.id for one in error.stored], [] if refused else unsure, refused)
                left = error.records
            else:
                self._register.answered([record.id for record in left], [], [])
                return
            if self.chance.jitter() < 0.15:
                return  # it gives up: these may be stored, or not
            # Sometimes at once, sometimes so late that the job has long ended.
            yield Sleep(50 + 3000 * self.chance.jitter() ** 3)
            self._register.again([record.id for record in left])

    def _scribble(self, script: Script) -> Steps:
        id = self.chance.entropy(16).hex().encode()
        record = self.chance.entropy(9 + script.number % 40)
        self._register.foreign(script, id, record)
        keys = queue_keys(self._namespace, script.queue)
        try:
            yield from self._process.drive(flows.send_one(transitions.put(keys, {id: record}, {}, {})))
        except (NotApplied, OutcomeUnknown):
            self._register.answered([], [id.decode()], [])
        else:
            self._register.answered([id.decode()], [], [])


class Operator(Actor):
    """Looks at jobs and now and then requeues or deletes one."""

    def __init__(
        self, world: World, column: str, namespace: str, queues: Sequence[str], *, pause: float, until: float
    ) -> None:
        super().__init__(world, column, f"{world.seed}:{column}")
        self._keys = [queue_keys(namespace, queue) for queue in queues]
        self._pause = pause
        self._until = until
        self._process = Process(self, "operate")
        self._process.start(self._life(), pause)

    def _life(self) -> Steps:
        drive, chance = self._process.drive, self.chance
        while self.world.now < self._until:
            try:
                found = yield from drive(lookup.find(self._keys, ("ready", "waiting", "dead"), None, 20, None))
                if found:
                    record = found[int(chance.jitter() * len(found))]
                    if record.place == "dead" or chance.jitter() < 0.4:
                        yield from drive(lookup.requeue(self._keys, id_bytes(record.id)))
                    elif chance.jitter() < 0.2:
                        yield from drive(lookup.delete(self._keys, id_bytes(record.id)))
            except (StorageError, JobNotFound):
                pass
            yield Sleep(self._pause * (0.3 + 1.4 * chance.jitter()))


class Deployer(Actor):
    """Stops runners while they have work, as a deploy does; each is started again."""

    def __init__(self, world: World, column: str, deploy: Callable[[], bool], *, pause: float, until: float) -> None:
        super().__init__(world, column, f"{world.seed}:{column}")
        self._deploy = deploy
        self._pause = pause
        self._until = until
        Process(self, "deploy").start(self._life(), pause)

    def _life(self) -> Steps:
        while self.world.now < self._until:
            # As often as it finds somebody busy: most likely it meets a job that takes long.
            found = self._deploy()
            yield Sleep(self._pause * (0.3 + 1.4 * self.chance.jitter()) * (1.0 if found else 0.1))


class _Access:
    """What `Lock` needs of an access."""

    def __init__(self, keys: NamespaceKeys, chance: Chance, clock: Any) -> None:
        self.keys = keys
        self.chance = chance
        self._clock = clock

    def clock(self) -> Any:
        """The clock of the actor."""
        return self._clock


class LockUser(Actor):
    """Takes a lock, holds it for a time, sometimes extends it, sometimes holds it for too long: like a cron tick."""

    def __init__(
        self, world: World, column: str, namespace: str, register: Register, *, ttl: float, until: Callable[[], bool],
        gone: Callable[[LockUser], None], number: int,
    ) -> None:  # fmt: skip
        super().__init__(world, column, f"{world.seed}:{column}:{number}")
        access = _Access(namespace_keys(namespace), self.chance, self.clock)
        self._lock = Lock(cast(Access, access), LOCK, ttl / 1000)
        self._register = register
        self._ttl = ttl
        self._until = until
        self._gone = gone
        self._process = Process(self, "lock")
        self._process.start(self._life(), ttl * self.chance.jitter())

    def died(self) -> None:
        """See `Actor.died`."""
        self._register.gave_back(self.column)
        self._gone(self)

    def _life(self) -> Steps:
        chance, ttl = self.chance, self._ttl
        while not self._until():
            try:
                lease = yield from self._process.drive(self._lock._take())  # noqa: SLF001 - the flow below `with`
            except (LockTaken, StorageError):
                yield Sleep(ttl * (0.2 + 0.4 * chance.jitter()))
                continue
            self._believe(lease)
            yield Sleep(ttl * chance.jitter() ** 2 * 1.8)
            try:
                if chance.jitter() < 0.4:
                    yield from self._process.drive(lease._extend(None))  # noqa: SLF001 - as above
                    self._believe(lease)
                    yield Sleep(ttl * 0.8 * chance.jitter())
            except (LockTaken, StorageError):
                pass
            self._register.gave_back(self.column)
            if chance.jitter() < 0.85:
                with contextlib.suppress(StorageError):
                    yield from self._process.drive(self._lock._drop(lease))  # noqa: SLF001 - as above
            yield Sleep(ttl * chance.jitter())

    def _believe(self, lease: Lease) -> None:
        if not lease.lost:
            self._register.believes(self.column, lease, self.clock.virtual(lease._until))  # noqa: SLF001 - as above
