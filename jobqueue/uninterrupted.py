"""Something that must not be met half-done by a call that interrupts it: an import, the start of a server.

A signal handler or a finalizer runs in the middle of whatever its thread does, and must not wait for that: it would wait for
itself. So such things are done on a thread of their own, which goes on meanwhile. The garbage collector rests so long: a
finalizer that it ran on that thread would wait for whoever waits for the thread.
"""

from __future__ import annotations

import _thread
import gc
import sys
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from jobqueue.errors import NotApplied

__all__ = ["uninterrupted"]

T = TypeVar("T")

SECONDS: Final = 60.0
"""By default. A call that interrupted an import waits for it in vain: so long, and no longer."""


def uninterrupted(function: Callable[[], T], what: str, seconds: float = SECONDS) -> T:
    """Call the function on a thread of its own, and wait for it.

    Args:
        function: What to call.
        what: What it does, for the message.
        seconds: How long to wait for it.

    Raises:
        NotApplied: It took longer than that, and goes on. What the function raises is raised.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    ended = threading.Lock()
    ended.acquire()

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - it is raised again where it was waited for
            errors.append(error)
        finally:
            ended.release()

    collects = gc.isenabled()
    try:
        gc.disable()
        _start(work)
        if not ended.acquire(timeout=seconds):
            raise NotApplied(f"{what} took longer than {seconds:g} s; nothing was changed")
    finally:
        if collects:
            gc.enable()
    if errors:
        raise errors[0]
    return results[0]


def _start(work: Callable[[], None]) -> None:
    # Not a `threading.Thread`, whose start takes a lock that the interrupted code may hold.
    if sys.is_finalizing():  # it has no other thread any more, and before Python 3.12 one that is started never runs
        work()
        return
    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:  # at the end of the interpreter
        work()
