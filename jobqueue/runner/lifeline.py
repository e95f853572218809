"""The line between a supervisor and a runner process: a socket of which each of the two has one end.

The runner says its name (its incarnation) before it claims anything under it, so that whoever reaps it knows whose jobs to
hand back. The supervisor says one line, at the start: where jobs are stored, if its own command line says so. When its side
ends, the runner stops as for a signal. That is how a supervisor stops a runner, and what a runner sees when its supervisor
is gone.

Rejected: signals from the supervisor. A service manager that signals every process of a service would make the
supervisor's signal the second one, at which a runner leaves at once; and a signal kills a process that is still starting.
Rejected: the URL as an argument, which every user of the machine can read; and in the environment, which the programs that
jobs start inherit. Rejected: finding the name in the storage by host and process id. Two containers may share both.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

__all__ = ["Lifeline"]


class Lifeline:
    """The runner's end. Nothing that is started or forked from now on has it.

    Args:
        descriptor: The inherited file descriptor of its end.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        # A program that a job starts must not hold the line: it could say names for the runner.
        self._socket.set_inheritable(False)
        os.register_at_fork(after_in_child=self._socket.close)

    def url(self) -> str | None:
        """What the supervisor says first: where jobs are stored, or None if the target says so itself. Called once."""
        said = b""
        with contextlib.suppress(OSError):
            while not said.endswith(b"\n") and (more := self._socket.recv(4096)):
                said += more
        return said.removesuffix(b"\n").decode() or None

    def watch(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when the supervisor wants the runner to stop or is gone: once, on a thread of its own."""
        threading.Thread(target=self._watch, args=(stop,), name="jobqueue-lifeline", daemon=True).start()

    def say(self, incarnation: bytes) -> None:
        """Tell the supervisor under which name this process claims from now on. One that is gone need not know."""
        with contextlib.suppress(OSError):
            self._socket.sendall(incarnation + b"\n")

    def _watch(self, stop: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(64):
                continue
        stop()
