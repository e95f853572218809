"""How the process of a runner ends, although something that jobs have left behind would keep it alive."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from jobqueue.clock import monotonic_s

__all__ = ["lasting", "leave_process", "watch_the_end"]

LEAVE_S: Final = 1.0
"""How long what is left may take to end by itself, once the program has ended: idle executors do so at once."""
LAST_S: Final = 5.0
"""How long the end of a program may take of which nothing is known to be left: its own `atexit` functions may be at work."""


def leave_process() -> NoReturn:
    """End this process with exit code 0, without waiting for its threads."""
    with contextlib.suppress(BaseException):  # a job may have closed or replaced any of them
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def lasting() -> list[Any]:
    """What Python waits for at its end.

    Threads that are no daemons; those of executors, which are daemons where a thread of a runner started them, and are
    waited for all the same; and processes that `multiprocessing` has started.
    """
    executors, processes = sys.modules.get("concurrent.futures.thread"), sys.modules.get("multiprocessing")
    of_executors = getattr(executors, "_threads_queues", {})
    threads = [thread for thread in threading.enumerate() if not thread.daemon or thread in of_executors]
    children = [] if processes is None else processes.active_children()
    return [*threads, *(child for child in children if not child.daemon)]


def watch_the_end(before: Sequence[Any], seconds: float, log: logging.Logger) -> None:
    """Let the process end when its program has ended, although jobs have left something behind that Python waits for.

    It gets the rest of the grace time, and nothing happens while the program goes on.

    Args:
        before: What was there before the runner ran, and is no job's.
        seconds: The rest of the grace time.
        log: Where to say that it is over.
    """
    left = [one for one in lasting() if one not in before]
    until = monotonic_s() + seconds
    ended = threading.Event()
    # The end of the program, before Python waits for executors. It has no public name; `atexit` comes after the waiting.
    threading._register_atexit(ended.set)  # type: ignore[attr-defined] # noqa: SLF001
    threading.Thread(target=_watch, args=(left, ended, until, log), name="jobqueue-end", daemon=True).start()


def _watch(left: list[Any], ended: threading.Event, until: float, log: logging.Logger) -> None:
    ended.wait()
    now = monotonic_s()
    for one in left:
        one.join(max(0.0, max(until, now + LEAVE_S) - monotonic_s()))
    names = ", ".join(one.name for one in left if one.is_alive())
    if not names:
        # Most often this thread ends here, with its process. Something that Python waits for is in no list.
        time.sleep(max(0.0, max(until, now + LAST_S) - monotonic_s()))
        names = "what runs at the end of the program"
    with contextlib.suppress(BaseException):
        log.warning("the grace time is over, and what jobs have left behind still runs; it ends now: %s", names)
    leave_process()
