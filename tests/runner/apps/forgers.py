"""Jobs that start something which pretends to be their worker process, and jobs that find the pipe in themselves."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from jobqueue import Context, JobQueue
from jobqueue.runner.process_pipe import HEADER, OfRun, Pipe
from tests.faults.ledger import Ledger

__all__ = ["FORGER", "MESSAGES", "jobs"]

jobs = JobQueue("memory://", namespace="forgers")


def frame(**message: Any) -> bytes:
    """A message as it goes through the pipe."""
    data = msgspec.msgpack.encode(message)
    return HEADER.pack(len(data)) + data


DONE: Final = frame(type="Ended", run=b"", how="done")
FORGER: Final = f"""
import os, socket, stat
for fd in range(3, 256):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            socket.socket(fileno=os.dup(fd)).sendall({DONE!r} * 4)
    except OSError:
        pass
"""


def write(ctx: Context, event: str, ledger: str, key: str) -> None:
    """Write into the ledger."""
    Ledger(Path(ledger)).write(event, key, ctx.fence, ctx.attempt)


# ------------------------------------------------------------------------------------------ programs that a job starts


def leaky_program() -> None:
    """The usual way to hand on descriptors, and the way to hand on all by mistake."""
    subprocess.run([sys.executable, "-c", FORGER], close_fds=False, check=True)


def shell() -> None:
    """Hands on what may be inherited, without a word."""
    os.system(f'{sys.executable} -c "{FORGER}"')  # there is no double quote in it


def forked_program() -> None:
    """A program in place of a copy of the process."""
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", FORGER])
    os.waitpid(child, 0)


def forked_copy() -> None:
    """A copy that writes into whatever socket it has."""
    child = os.fork()
    if child == 0:
        exec(FORGER)  # in this process
        os._exit(0)
    os.waitpid(child, 0)


def forked_reporter() -> None:
    """A copy that uses the pipe of its parent as the worker does."""
    child = os.fork()
    if child == 0:
        for pipe in [found for found in gc.get_objects() if isinstance(found, Pipe)]:
            with contextlib.suppress(OSError):
                pipe.send(msgspec.convert({"type": "Ended", "run": b"", "how": "done"}, FromWorker))
        os._exit(0)
    os.waitpid(child, 0)


def forked_and_came_back() -> None:
    """A copy that Python has not made: it goes on in the job as its parent does, and ends it well."""
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        raise SystemExit(0)
    os.waitpid(child, 0)


PROGRAMS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function
    for function in (leaky_program, shell, forked_program, forked_copy, forked_reporter, forked_and_came_back)
}


class FromWorker(OfRun, tag="Ended", frozen=True):
    """The same as the real one, so far as a forger knows it."""

    how: str


@jobs.job(name="starts", process=True, retry=0)
def starts(ctx: Context, ledger: str, key: str, how: str) -> None:
    """Starts something, waits for its end and fails."""
    PROGRAMS[how]()
    write(ctx, "end", ledger, key)
    raise ValueError("this is how it ends")


@jobs.job(name="quiet", process=True)
def quiet(ctx: Context, ledger: str, key: str) -> None:
    """One of those after it."""
    write(ctx, "end", ledger, key)


# --------------------------------------------------------------------------------------------- what reaches the runner


def own_sockets() -> Iterator[socket.socket]:
    """The sockets of this process, each once more."""
    for fd in range(3, 4096):  # its number is that which it had in the runner, which may have many
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield socket.socket(fileno=os.dup(fd))


LINE: Final[dict[str, Any]] = {
    "type": "Logged", "run": b"", "logger": "forged", "level": 50, "message": "forged", "created": 1.0, "trace": None,
    "error": "", "pathname": "", "line": 1, "function": "", "thread": "", "extra": "{}",
}  # fmt: skip
MESSAGES: Final[dict[str, bytes]] = {
    "text": b"hello world\n",
    "empty": HEADER.pack(0),
    "too long": HEADER.pack(2**32 - 1),
    "too long a line": HEADER.pack(5 * 2**20),
    "not a message": HEADER.pack(4) + b"\xc1\xc1\xc1\xc1",
    "deep": HEADER.pack(100_000) + b"\x91" * 100_000,
    "another run": DONE,
    "no run": frame(type="Ended", how="done"),
    "ready again": frame(type="Ready", run=b"run"),
    "of the other side": frame(type="Go", run=b"run"),
    "an ending that is none": frame(type="Ended", run=b"run", how="well"),
    "a delay without end": frame(type="Ended", run=b"run", how="snooze", after=2**60),
    "a line": frame(**LINE),
    "a line of another time": frame(**{**LINE, "run": b"run", "created": float("inf")}),
    "a line that says a list": frame(**{**LINE, "run": b"run", "extra": "[1]"}),
    "a deep line": frame(**{**LINE, "run": b"run", "extra": "[" * 200_000}),
}


@jobs.job(name="writes", process=True, retry=0)
def writes(ctx: Context, ledger: str, key: str, what: str) -> None:
    """Writes into the pipe, and waits for what becomes of it."""
    write(ctx, "start", ledger, key)
    for end in own_sockets():
        end.sendall(MESSAGES[what])
    threading.Event().wait()


@jobs.job(name="trickles", process=True, timeout=0.5, retry=0)
def trickles(ctx: Context) -> None:
    """Announces a message, and sends it a byte at a time."""
    [end] = own_sockets()
    end.sendall(struct.pack(">I", 1_000_000))
    pause = threading.Event()
    while not pause.wait(0.01):
        end.sendall(b"x")


@jobs.job(name="leaves", process=True, retry=0)
def leaves(ctx: Context, ledger: str, key: str, what: str) -> None:
    """Leaves a thread behind that ends its process, or writes into its pipe, when a file is there; then there is another."""

    def wait() -> None:
        pause = threading.Event()
        while not Path(f"{ledger}.go").exists():
            pause.wait(0.005)
        if what == "an end":
            os._exit(7)
        for end in own_sockets():
            end.sendall(DONE)
        Path(f"{ledger}.gone").touch()

    write(ctx, "end", ledger, key)
    threading.Thread(target=wait, daemon=True).start()


@jobs.job(name="large line", process=True)
def large_line() -> None:
    """Logs more than a runner takes for a message."""
    logging.getLogger("large").warning("x" * (20 * 2**20), extra={"more": "y" * (20 * 2**20)})


# ------------------------------------------------------------------------------------------------------- what leaks out


def inheritable() -> list[int]:
    """The descriptors, besides the standard ones, that a program of this process would have."""
    found = []
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            if os.get_inheritable(fd):
                found.append(fd)
    return found


def tell(folder: str, name: str) -> None:
    """Write down what a program that is started here gets to know."""
    words = [Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in (os.getpid(), os.getppid())]
    told = {"inheritable": inheritable(), "words": words, "environment": dict(os.environ), "path": sys.path}
    Path(folder, f"{name}.new").write_bytes(msgspec.json.encode(told))
    Path(folder, f"{name}.new").rename(Path(folder, name))


@jobs.job(name="process tells", process=True)
def process_tells(folder: str) -> None:
    """In a worker process."""
    tell(folder, "process")


@jobs.job(name="thread tells")
def thread_tells(folder: str) -> None:
    """In the runner."""
    tell(folder, "thread")
