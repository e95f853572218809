"""The pipe between a runner and its worker processes."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobqueue.runner.process_pipe import FromChild, Logged, Pipe, Setup
from tests.faults.ledger import PATIENCE


@pytest.fixture
def ends() -> Iterator[tuple[Pipe[FromChild], Pipe[FromChild]]]:
    """Both ends."""
    ours, theirs = socket.socketpair()
    here: Pipe[FromChild] = Pipe(ours, FromChild)
    there: Pipe[FromChild] = Pipe(theirs, FromChild)
    for pipe in (here, there):
        pipe.patience(PATIENCE)
    yield here, there
    here.close()
    there.close()


def record(message: str) -> Logged:
    """A record with this message, larger than what fits into the pipe at once."""
    return Logged(b"run", "app", 20, message, 0.0, "x" * 300_000, "", "", 1, "", "", "{}")


@pytest.mark.filterwarnings("error")
def test_a_signal_handler_may_send_while_its_thread_sends(ends: tuple[Pipe[FromChild], Pipe[FromChild]]) -> None:
    """What a job logs in one: it must not wait for the call that it interrupts, nor write into its frame."""
    here, there = ends
    arrived: list[str] = []
    sent: list[str] = []
    numbers = itertools.count()

    def read() -> None:
        while not arrived or arrived[-1] != "last":
            message: Any = there.receive()
            arrived.append(message.message)

    def handle(*_: object) -> None:
        name = f"handler {next(numbers)}"
        here.send(record(name))
        sent.append(name)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.005)
        number = 0
        while len(sent) < 20:
            here.send(record(f"main {number}"))
            number += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    here.send(record("last"))
    reader.join(timeout=PATIENCE)

    assert [text for text in arrived if text.startswith("main")] == [f"main {n}" for n in range(number)]
    assert sorted(text for text in arrived if text.startswith("handler")) == sorted(sent)  # one may interrupt another


def test_an_interruption_between_two_frames_leaves_none_behind(ends: tuple[Pipe[FromChild], Pipe[FromChild]]) -> None:
    """The handler comes when the call that it interrupts has looked for frames, and found no other."""
    here, there = ends
    frames: Any = here._frames

    class Watched(type(frames)):  # type: ignore[misc]
        """Looks as if a signal came just after the last frame was sent."""

        told = False

        def __bool__(self) -> bool:
            if not len(self) and not self.told:
                self.told = True
                here.send(record("handler"))
                return False  # what was looked at before
            return len(self) > 0

    here._frames = Watched(frames)
    threading.Thread(target=here.send, args=(record("main"),), daemon=True).start()
    messages: list[Any] = [there.receive(), there.receive()]
    assert [message.message for message in messages] == ["main", "handler"]


def test_what_a_worker_process_is_told_shows_no_password() -> None:
    """Tracebacks with variables do, where the process could not be started."""
    setup = Setup([], [], ("app", None), ("shop.mail",), "redis://me:secret@h", "shop", {})
    assert repr(setup) == "Setup(main=('app', None), imports=('shop.mail',), namespace='shop', …)"
