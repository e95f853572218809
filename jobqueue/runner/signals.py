"""What the signals that end a runner mean, and who hears them: SIGTERM, SIGINT and SIGHUP."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Literal, TypeAlias

from jobqueue.clock import monotonic_s
from jobqueue.errors import NotApplied
from jobqueue.runner.threads import Inbox, Word
from jobqueue.uninterrupted import uninterrupted

__all__ = ["STOPS", "Doorbell", "SignalsToStop", "StopRequests", "how_ended"]

STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ONE_REQUEST_S: Final = 1.0
"""So long after the first signal another may be its copy. Nobody waits for a stop so shortly before asking for haste."""
GOODBYE_S: Final = 0.5
WAKE: Final = Word("signal")
"""Means nothing but that the main thread should look: the handler says the rest."""

Meaning: TypeAlias = Literal["stop", "copy", "hurry"]


def how_ended(code: int) -> str:
    """What the exit code of a process says, as `subprocess` has it: negative if a signal killed it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # most of those for real time have no name
        name = f"signal {-code}"
    return f"was killed by {name}"


class StopRequests:
    """What each of the signals means that ask a process to stop.

    The first stops it, a second leaves at once. A terminal and a supervisor may both send the same signal though, and the
    end of a session sends SIGTERM and SIGHUP one after the other: for a second these are one request.
    """

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def take(self, number: int, local: float) -> Meaning:
        """A signal arrived at this time (local seconds)."""
        if self._first is None:
            self._first = (number, local)
            return "stop"
        first, since = self._first
        is_copy = number == first or signal.SIGHUP in (number, first)
        return "copy" if is_copy and local - since < ONE_REQUEST_S else "hurry"


class Doorbell:
    """Ends a wait at the inbox when a signal arrives, whichever thread the system gave it to.

    Handlers run on the main thread alone. If another thread took the signal, the main thread would learn of it when its
    wait ends: after seconds, while somebody counts down to SIGKILL. Rejected: to block signals in all other threads, for
    the processes that jobs start would inherit that.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._hear, self._ring = socket.socketpair()
        self._ring.setblocking(False)
        self._before = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="jobqueue-signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; on the main thread, like the making."""
        signal.set_wakeup_fd(self._before)
        self._ring.close()
        self._thread.join(timeout=1)
        self._hear.close()

    def _listen(self) -> None:
        while self._hear.recv(4096):
            self._inbox.say(WAKE)


class SignalsToStop:
    """Stops a runner when it is signalled, for the length of a ``with`` block on the main thread.

    SIGHUP is handled only where it has its default meaning: whoever ignores it (`nohup`) or handles it keeps it.

    Args:
        stop: Called for the first signal; a second leaves the process with 128 and its number.
        inbox: Where the main thread waits.
        log: Says so.
        monotonic_s: Tells local seconds.

    Attributes:
        first: The name of the first signal that arrived in the block, empty before.
    """

    def __init__(
        self, stop: Callable[[], None], inbox: Inbox, log: logging.Logger,
        monotonic_s: Callable[[], float] = monotonic_s,
    ) -> None:  # fmt: skip
        self._stop = stop
        self._inbox = inbox
        self._log = log
        self._monotonic_s = monotonic_s
        self.first = ""
        self._requests = StopRequests()

    def __enter__(self) -> None:
        self._before = {number: signal.getsignal(number) for number in STOPS}
        _handling.add(self)
        for number, before in self._before.items():
            if number is not signal.SIGHUP or before is signal.SIG_DFL:
                signal.signal(number, self._signalled)
        self._doorbell = Doorbell(self._inbox)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._doorbell.close()
        for number, before in self._before.items():
            if before is not None:  # what was not installed from Python cannot be again
                signal.signal(number, before)
        _handling.discard(self)
        self.first = ""

    def give_back(self) -> None:
        """Handle no signal any more, in a child that a job has forked: it has no runner to stop.

        Otherwise it would live on after terminate(), and the job that waits for its end would wait for ever.
        """
        for number, before in self._before.items():
            if signal.getsignal(number) == self._signalled:
                signal.signal(number, before or signal.SIG_DFL)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        meaning = self._requests.take(number, self._monotonic_s())
        if meaning == "hurry":
            self._say_goodbye(signal.Signals(number).name)
            os._exit(128 + number)  # a crash, as far as the storage is concerned, and safe like one
        if meaning == "stop":
            self.first = signal.Signals(number).name
            self._stop()

    def _say_goodbye(self, name: str) -> None:
        """Log on another thread, for a moment at most: a handler of the log may be what this signal has interrupted."""
        line = "%s, the second signal: leaving at once; jobs that run here come back when their leases end"
        with contextlib.suppress(NotApplied):  # the process leaves in any case
            uninterrupted(functools.partial(self._log.warning, line, name), "the last line of the log", GOODBYE_S)


_handling: Final[set[SignalsToStop]] = set()
"""Those that handle signals now."""


def _forked() -> None:
    """Not when the first signal arrives: Python forgets one that comes before the child has looked around."""
    for handling in _handling:
        handling.give_back()
    _handling.clear()


os.register_at_fork(after_in_child=_forked)
