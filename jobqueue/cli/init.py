"""`jobqueue run` as the first process of a container: an init of its own, beside the process that works.

Whoever is PID 1 inherits all processes whose parents are gone, and has to wait for them, or they stay as zombies until the
container has no more process ids. Rejected: that the runner waits for any child. It would take the exit codes of processes
that jobs have started and wait for themselves.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

__all__ = ["stay_as_init"]

OWN: Final = frozenset({
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGSEGV, signal.SIGBUS,
    signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
})  # fmt: skip
"""Signals that concern the process which gets them."""


def stay_as_init() -> int | None:
    """Where this process is PID 1, go on in a child, and stay behind to wait for orphans and to pass signals on.

    To be called before there are threads.

    Returns:
        None in the process that is to work. In PID 1, once that one has ended: its exit code, or 128 and the number of the
        signal that killed it.
    """
    if os.getpid() != 1:
        return None
    passed_on = signal.valid_signals() - OWN
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would tell nothing
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    while True:
        number = signal.sigwait({*passed_on, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        elif (code := _wait(child)) is not None:
            return code if code >= 0 else 128 - code


def _wait(child: int) -> int | None:
    """Wait for all that have ended; answers how the child did, if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                found = os.waitstatus_to_exitcode(status)
    return found
