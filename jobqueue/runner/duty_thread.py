"""The thread that does a runner's duties, on a connection of its own."""

from __future__ import annotations

import threading

from jobqueue.clock import Clock
from jobqueue.drive import run
from jobqueue.runner.duties import Duties
from jobqueue.runner.events import DutiesEnded, Observer
from jobqueue.storage.protocol import Storage

__all__ = ["DutyThread"]


class DutyThread:
    """Does the duties until it is closed.

    Args:
        duties: What to do.
        storage: A storage of its own.
        clock: The shared clock.
        observe: Told of the end of each round.
    """

    def __init__(self, duties: Duties, storage: Storage, clock: Clock, observe: Observer) -> None:
        self._duties = duties
        self._storage = storage
        self._clock = clock
        self._observe = observe
        self._closed = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobqueue-duties", daemon=True)

    def start(self) -> None:
        """Begin with the first round."""
        self._thread.start()

    def poke(self, name: str) -> None:
        """Let a duty be done soon; see `Duties.poke`."""
        self._duties.poke(name)
        self._wake.set()

    def close(self) -> None:
        """Begin no more rounds."""
        self._closed = True
        self._wake.set()

    def join(self) -> None:
        """Wait a second for the round under way."""
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._closed:
            started = self._clock.monotonic()
            try:
                run(self._duties.round(), self._storage, self._clock)
                self._observe(DutiesEnded(None, started))
            except Exception as error:  # noqa: BLE001 - without its duties a runner rescues nobody: nothing may end them
                self._observe(DutiesEnded(error, started))
            # A poke ends a wait; when the next round is due is then asked anew, since the runner rests before it.
            while self._wake.wait(self._pause(started)) and not self._closed:
                self._wake.clear()

    def _pause(self, started: float) -> float:
        """Seconds until the next round."""
        return max(0.01, (self._duties.next_due(started) - self._clock.monotonic()) / 1000)
