"""Jobs for worker processes; also a runner of them: ``python -m tests.runner.apps.toil URL``."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from jobqueue import Context, Discard, Job, JobQueue, Retry, RetryPolicy, Runner, Snooze
from tests.faults.ledger import Ledger

__all__ = ["jobs"]

jobs = JobQueue("memory://", namespace="toil")
imported: ContextVar[str] = ContextVar("imported", default="unset")
imported.set("at import")
QUICK = RetryPolicy(limit=3, backoff=lambda _: 0.1)


def write(ctx: Context, event: str, ledger: str, key: str) -> None:
    """Write into the ledger."""
    Ledger(Path(ledger)).write(event, key, ctx.fence, ctx.attempt)


@jobs.job(name="note", process=True)
def note(ctx: Context, ledger: str, key: str) -> None:
    """Ends at once."""
    write(ctx, "start", ledger, key)
    write(ctx, "end", ledger, key)


@jobs.register
@attrs.frozen
class Grind(Job, name="grind", process=True):
    """The same as a class."""

    ledger: str
    key: str

    def perform(self, ctx: Context) -> None:
        """Ends at once."""
        write(ctx, "end", self.ledger, self.key)


@jobs.job(name="thread")
def on_a_thread(ctx: Context, ledger: str, key: str, gate: str) -> None:
    """Waits for a file on a thread of the runner."""
    wait(ctx, ledger, key, gate)


@jobs.job(name="gated", process=True)
def gated(ctx: Context, ledger: str, key: str, gate: str) -> None:
    """Waits for a file."""
    wait(ctx, ledger, key, gate)


def wait(ctx: Context, ledger: str, key: str, gate: str) -> None:
    """Start, wait for a file, end."""
    write(ctx, "start", ledger, key)
    pause = threading.Event()
    while not Path(gate).exists():
        pause.wait(0.005)
    write(ctx, "end", ledger, key)


@jobs.job(name="endless", process=True, timeout=2, retry=QUICK)
def endless(ctx: Context, ledger: str, key: str) -> None:
    """The first attempt starts a program and never ends; the next does."""
    write(ctx, "start", ledger, key)
    if ctx.attempt == 1:
        program = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        Path(f"{ledger}.program").write_text(str(program.pid))
        while True:
            pass
    write(ctx, "end", ledger, key)


@jobs.job(name="impatient", process=True, timeout=0.2, retry=RetryPolicy(give_up_on=(TimeoutError,)))
def impatient() -> None:
    """Never ends."""
    while True:
        pass


@jobs.job(name="poison", process=True)
def poison(ctx: Context, ledger: str, key: str, way: str, times: int = 99) -> None:
    """Takes its process down."""
    write(ctx, "start", ledger, key)
    if sum(entry.key == key for entry in Ledger(Path(ledger)).entries("start")) <= times:
        if way == "segfault":
            ctypes.string_at(0)
        elif way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(7)
    write(ctx, "end", ledger, key)


class Mild(Exception):
    """Is retried."""


class Severe(Mild):
    """Is not."""


@jobs.job(name="picky", process=True, retry=RetryPolicy(on=(Mild,), give_up_on=(Severe,), backoff=lambda _: 60))
def picky(what: str) -> None:
    """Raises one of three."""
    raise {"mild": Mild, "severe": Severe, "other": ValueError}[what](what)


@jobs.job(name="asks", process=True)
def asks(what: str) -> Snooze | Retry | None:
    """Asks for something, returned or raised."""
    if what == "snooze":
        return Snooze(100)
    if what == "discard":
        raise Discard("not wanted")
    return Retry(after=200)


@jobs.job(name="flags", process=True)
def flags(ctx: Context, ledger: str, key: str) -> None:
    """Ends when it is told that its lease was lost, or that it should."""
    write(ctx, "start", ledger, key)
    pause = threading.Event()
    while not (ctx.lease_lost or ctx.cancelled):
        pause.wait(0.005)
    write(ctx, "lost" if ctx.lease_lost else "cancelled", ledger, key)


@jobs.job(name="told", process=True, retry=0)
def told(ctx: Context, ledger: str, key: str, how: str) -> Any:
    """Is told to end, has seen that or not, and does so in some way."""
    write(ctx, "start", ledger, key)
    pause = threading.Event()
    # What it is told without looking, only a test knows.
    while not (ctx._flags.cancelled if how.startswith("never") else ctx.cancelled):
        pause.wait(0.005)
    write(ctx, "told", ledger, key)
    if "complete" in how:
        ctx.complete()
    if "leaves" in how:
        os._exit(7)
    if "fails" in how or how == "raises":
        raise ValueError(how)
    if how == "asks":
        return Retry(after=1)
    if how == "discards":
        raise Discard(how)
    return Snooze(60) if how == "snoozes" else None


@jobs.job(name="says", process=True, retry=RetryPolicy(limit=1, backoff=lambda _: 0))
def says(ctx: Context) -> None:
    """Logs what the application knows, and the variable that it changes; then it fails."""
    own = logging.getLogger("own")
    own.warning(
        "%s", imported.get(), extra={"order": {"id": 7}, "at": datetime(2026, 1, 2, tzinfo=UTC), "queue": "mine"}
    )
    imported.set("by a job")
    try:
        raise KeyError("first")
    except KeyError as error:
        raise Mild("then\nmore") from error


@jobs.job(name="short", process=True, timeout=0.4)
def short(ctx: Context, ledger: str, key: str) -> None:
    """Does not end, neither when it is told to nor within its limit."""
    write(ctx, "start", ledger, key)
    while True:
        pass


@jobs.job(name="talks", process=True)
def talks(ctx: Context) -> None:
    """Logs, and enqueues another job."""
    ctx.logger.warning("said by %s", ctx.record.id)
    logging.getLogger("quiet").info("not to be heard")
    logging.getLogger("chatty").info("to be heard")
    try:
        raise Mild("with a traceback")
    except Mild:
        logging.getLogger("own").exception("and an error", stack_info=True)
    picky.opts(queue="left").enqueue("mild")


@jobs.job(name="prints", process=True)
def prints(ctx: Context, ledger: str, key: str) -> None:
    """Prints a word, as programs do: without a thought of when it is written."""
    print(f"printed by {key}")
    write(ctx, "end", ledger, key)


@jobs.job(name="holds", process=True)
def holds(ctx: Context, ledger: str, key: str) -> None:
    """Holds the interpreter's lock, so that nothing of this process can see what becomes of its runner."""
    write(ctx, "start", ledger, key)
    ctypes.PyDLL(None).sleep(600)


if __name__ == "__main__":
    jobs.relocate(url=sys.argv[1])
    Runner(jobs, lease=0.6, job_processes=2).run()
