"""The line between a supervisor and a runner process: a socket of which each of the two has one end.

The runner says its name (its incarnation) before it claims anything under it, so that whoever reaps it knows whose jobs to
hand back. The other way nothing is said: when the supervisor's side ends, the runner stops as for a signal. That is how a
supervisor stops a runner, and what a runner sees when its supervisor is gone.

Rejected: signals from the supervisor. A service manager that signals every process of a service would make the
supervisor's signal the second one, at which a runner leaves at once; and a signal kills a process that is still starting.
Rejected: finding the name in the storage by host and process id. Two containers may share both.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

__all__ = ["Lifeline"]


class Lifeline:
    """The runner's end.

    Args:
        descriptor: The inherited file descriptor of its end.
        stop: Called once, on a thread of its own, when the supervisor wants the runner to stop or is gone.
    """

    def __init__(self, descriptor: int, stop: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # A program that a job starts must not hold the line: the supervisor would wait for its end.
        self._socket.set_inheritable(False)
        self._stop = stop
        threading.Thread(target=self._watch, name="jobqueue-lifeline", daemon=True).start()

    def say(self, incarnation: bytes) -> None:
        """Tell the supervisor under which name this process claims from now on. One that is gone need not know."""
        with contextlib.suppress(OSError):
            self._socket.sendall(incarnation + b"\n")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(64):
                continue
        self._stop()
