"""The beat: a thread that extends a runner's leases and says that it is alive, on connections of its own.

Job code cannot keep it from its work, except by holding the interpreter's lock for longer than a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jobqueue import transitions
from jobqueue.clock import Clock, Moment
from jobqueue.errors import StorageError
from jobqueue.keys import NamespaceKeys
from jobqueue.runner.leases import Leases
from jobqueue.runner.settings import sample_age
from jobqueue.storage.ops import Refused
from jobqueue.storage.protocol import Storage

__all__ = ["Heart"]

_log = logging.getLogger("jobqueue.runner")


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
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._keys = keys
        self._leases = leases
        self._lock = lock
        self._every = every
        self._incarnation = incarnation
        self._info = info
        self._epoch = epoch
        self._data_lost = data_lost
        self._stopped = threading.Event()
        self._late = False
        self._thread = threading.Thread(target=self._run, name="jobqueue-beat", daemon=True)

    def start(self) -> None:
        """Say once that the runner is alive, in the calling thread, then beat. Raises nothing: trouble is logged."""
        self.beat()
        self._thread.start()

    def close(self) -> None:
        """End the thread after the beat under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._every / 1000)

    def _run(self) -> None:
        due = self._clock.monotonic() + self._every
        while not self._stopped.wait(max(0.0, due - self._clock.monotonic()) / 1000):
            late = self._clock.monotonic() - due
            if late > self._every:
                _log.warning(
                    "a beat came %.1f s late: something held this process, or its interpreter's lock; leases last %.1f s",
                    late / 1000, self._leases.lease / 1000,
                )  # fmt: skip
            started = self._clock.monotonic()
            try:
                answered = self.beat()
            except Exception:  # noqa: BLE001 - see below
                # A runner without beats loses everything it holds: nothing may end this thread.
                _log.exception("a beat met something unexpected; it is tried again")
                answered = False
            # After a beat without an answer the next one comes sooner: a lease lasts for six of them.
            due = started + (self._every if answered else self._every / 4)

    def beat(self) -> bool:
        """Extend all leases and register the runner; answers whether the storage answered."""
        trouble: StorageError | None = None
        try:
            self._clock.refresh(sample_age(self._every))
        except StorageError as error:
            trouble = error
        at = Moment(self._clock.now(), self._clock.monotonic())
        with self._lock:
            overdue = self._leases.overdue(at)
            batches = self._leases.extend(at)
        for task in overdue:
            _log.warning(
                "job %s %s: no beat was answered within its lease; if another runner has taken it, it runs a second time, "
                "and what this run ends with is discarded",
                task.stored.name, task.id.decode("ascii", "replace"),
            )  # fmt: skip
        register = transitions.register_runner(
            self._keys, self._incarnation, self._info(at.now), self._epoch, seen=at.now, lease=self._leases.lease
        )
        outcomes = self._storage.apply([*(batch for batch, _ in batches), register])
        registered = outcomes.pop()
        with self._lock:
            taken = self._leases.extended(batches, outcomes, at.local)
        for task in taken:
            _log.warning(
                "job %s %s: its lease was lost, another runner saw it expired and took it; it runs a second time, and what "
                "this run ends with is discarded",
                task.stored.name, task.id.decode("ascii", "replace"),
            )  # fmt: skip
        if isinstance(registered, Refused) and (renewed := self._data_lost()) is not None:
            self._epoch, self._incarnation = renewed
        for outcome in (*outcomes, registered):
            if isinstance(outcome, StorageError):
                trouble = outcome
        if trouble is not None and not self._late:
            _log.warning("the storage does not answer beats; it is asked again until it does: %s", trouble)
        elif trouble is None and self._late:
            _log.info("the storage answers beats again")
        self._late = trouble is not None
        return trouble is None
