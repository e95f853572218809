"""The beat: a thread that extends a runner's leases and says that it is alive, on connections of its own.

Job code cannot keep it from its work, except by holding the interpreter's lock for longer than a lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from jobqueue import transitions
from jobqueue.clock import Clock, Moment
from jobqueue.drive import run
from jobqueue.errors import StorageError
from jobqueue.flows import Apply, Flow, Read, Refresh
from jobqueue.keys import NamespaceKeys
from jobqueue.runner.events import BeatEnded, BeatFailed, BeatLate, LeasesExpired, LeasesLost, Observer
from jobqueue.runner.leases import Leases, why_lost
from jobqueue.runner.settings import sample_age
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Batch, Records, Refused
from jobqueue.storage.protocol import Storage

__all__ = ["Beats", "Heart"]

CLOSE_MS: Final = 1_000.0
"""How long a runner that ends waits for a beat under way. One that takes longer is not answered soon."""


class Beats:
    """What a beat asks the storage, and what it makes of the answers; without a thread and a clock of its own.

    Args:
        keys: The namespace.
        leases: What the runner holds.
        lock: Guards the leases.
        moment: Reads the clocks.
        every: Milliseconds between two beats.
        incarnation: The runner's name.
        info: What to say of the runner; called with the time.
        epoch: What the namespace's epoch was at the start.
        data_lost: See `Heart`.
        observe: Told what happens.
    """

    def __init__(
        self,
        keys: NamespaceKeys,
        leases: Leases,
        lock: AbstractContextManager[Any],
        moment: Callable[[], Moment],
        *,
        every: float,
        incarnation: bytes,
        info: Callable[[int], bytes],
        epoch: bytes,
        data_lost: Callable[[], tuple[bytes, bytes] | None],
        observe: Observer,
    ) -> None:
        self._keys = keys
        self._leases = leases
        self._lock = lock
        self._moment = moment
        self._every = every
        self._incarnation = incarnation
        self._info = info
        self._epoch = epoch
        self._data_lost = data_lost
        self._observe = observe

    def once(self) -> Flow[bool]:
        """Extend all leases and register the runner; answers whether the storage answered."""
        trouble: StorageError | None = None
        began = self._moment().local
        try:
            yield Refresh(sample_age(self._every))
        except StorageError as error:
            trouble = error
        self.look()
        at = self._moment()
        with self._lock:
            batches = self._leases.extend(at)
        *outcomes, registered = yield Apply((*(batch for batch, _ in batches), self._registration(at.now)))
        with self._lock:
            taken = self._leases.extended(batches, outcomes, at.local)
        if taken:
            yield from self._tell_lost(taken, at.local)
        if isinstance(registered, Refused) and (renewed := self._data_lost()) is not None:
            self._epoch, self._incarnation = renewed
            # At once: the requests of a runner that is not registered are forgotten.
            [registered] = yield Apply((self._registration(at.now),))
        for outcome in (*outcomes, registered):
            if isinstance(outcome, StorageError):
                trouble = outcome
        took = self._moment().local - began
        self._observe(BeatEnded(trouble, at.local, took, took > self._every, self._leases.lease))
        return trouble is None

    def look(self) -> float:
        """Tell the jobs whose lease has ended without an extension; answers when (local ms) to look again.

        Before each beat, and on a thread of its own: a beat may wait for a silent server for longer than a lease lasts.
        """
        at = self._moment()
        with self._lock:
            overdue = self._leases.overdue(at)
            end = self._leases.next_end()
        if overdue:
            self._observe(LeasesExpired(overdue))
        return min(end, at.local + self._every)

    def _registration(self, now: int) -> Batch:
        return transitions.register_runner(
            self._keys, self._incarnation, self._info(now), self._epoch, seen=now, lease=self._leases.lease
        )

    def _tell_lost(self, tasks: Sequence[Task], sent: float) -> Flow[None]:
        try:
            answers = yield Read(tuple(Records(task.queue.scope, (task.id,), 0) for task in tasks))
        except StorageError:
            why = ["its lease was lost; what this run ends with is discarded"] * len(tasks)
        else:
            why = [why_lost(task, kept, sent) for task, [kept] in zip(tasks, answers, strict=True)]
        self._observe(LeasesLost([*zip(tasks, why, strict=True)]))


class Heart:
    """Beats until it is closed.

    Args:
        storage: A storage of its own.
        clock: The shared clock; its offset is sampled with every second beat.
        keys: The namespace.
        leases: What the runner holds.
        lock: Guards the leases.
        every: Milliseconds between two beats.
        incarnation: The runner's name.
        info: What to say of the runner; called with the time.
        epoch: What the namespace's epoch was at the start.
        data_lost: Called when the storage was found with another epoch: it lost its data. Answers the epoch it has now and
            the runner's new name, or None to be called again.
        observe: Told what happens.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        keys: NamespaceKeys,
        leases: Leases,
        lock: threading.Lock,
        *,
        every: float,
        incarnation: bytes,
        info: Callable[[int], bytes],
        epoch: bytes,
        data_lost: Callable[[], tuple[bytes, bytes] | None],
        observe: Observer,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._leases = leases
        self._every = every
        self._observe = observe
        self._beats = Beats(
            keys, leases, lock, lambda: Moment(clock.now(), clock.monotonic()), every=every, incarnation=incarnation,
            info=info, epoch=epoch, data_lost=data_lost, observe=observe,
        )  # fmt: skip
        self._stopped = threading.Event()
        self._answers = False
        self._thread = threading.Thread(target=self._run, name="jobqueue-beat", daemon=True)
        self._watch = threading.Thread(target=self._look, name="jobqueue-leases", daemon=True)

    def start(self) -> None:
        """Say once that the runner is alive, in the calling thread, then beat. Raises nothing: trouble is told."""
        self.beat()
        self._thread.start()
        self._watch.start()

    def close(self) -> None:
        """End both threads, after the beat under way."""
        self._stopped.set()
        for thread in (self._thread, self._watch):
            if thread.is_alive():
                thread.join(timeout=min(self._every, CLOSE_MS) / 1000)

    @property
    def answers(self) -> bool:
        """Whether no beat is under way on the thread, and the last one was answered."""
        return self._answers and not self._thread.is_alive()

    def _look(self) -> None:
        due = self._clock.monotonic()
        while not self._stopped.wait(max(0.0, due - self._clock.monotonic()) / 1000):
            due = self._beats.look()

    def _run(self) -> None:
        due = self._clock.monotonic() + self._every
        while not self._stopped.wait(max(0.0, due - self._clock.monotonic()) / 1000):
            started = self._clock.monotonic()
            if started - due > self._every:
                self._observe(BeatLate(started - due, self._leases.lease))
            try:
                answered = self.beat()
            except Exception as error:  # noqa: BLE001 - a runner without beats loses everything: nothing may end this thread
                self._observe(BeatFailed(error, started))
                answered = False
            ended = self._clock.monotonic()
            # After a beat without an answer the next one comes sooner: a lease lasts for six of them. Not before this one
            # has ended: a storage that takes its time does not make this thread late.
            due = max(started + (self._every if answered else self._every / 4), ended)

    def beat(self) -> bool:
        """Extend all leases and register the runner; answers whether the storage answered."""
        self._answers = False
        self._answers = run(self._beats.once(), self._storage, self._clock)
        return self._answers
