"""What a signal to a runner means, with a time that the test makes up."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

import pytest

from jobqueue.runner.signals import STOPS, SignalsToStop, StopRequests, how_ended
from jobqueue.runner.threads import Inbox
from tests.runner.running import handled

TERM, INT, HUP = STOPS
REALLY_LEAVE: Final = os._exit


@pytest.mark.parametrize(
    ("signals", "meanings"),
    [
        ([(TERM, 0.0), (TERM, 0.0), (TERM, 0.999)], ["stop", "copy", "copy"]),
        ([(TERM, 0.0), (TERM, 1.0)], ["stop", "hurry"]),
        ([(INT, 5.0), (INT, 5.5), (INT, 6.0)], ["stop", "copy", "hurry"]),  # the second is counted from the first
        ([(HUP, 0.0), (HUP, 0.5), (HUP, 90.0)], ["stop", "copy", "hurry"]),
        ([(TERM, 0.0), (INT, 0.1)], ["stop", "hurry"]),
        ([(INT, 0.0), (TERM, 0.0)], ["stop", "hurry"]),
        ([(TERM, 0.0), (HUP, 0.0)], ["stop", "copy"]),
        ([(HUP, 0.0), (TERM, 0.1), (INT, 0.2)], ["stop", "copy", "copy"]),
        ([(HUP, 0.0), (TERM, 1.1)], ["stop", "hurry"]),
    ],
)
def test_what_signals_mean(signals: list[tuple[int, float]], meanings: list[str]) -> None:
    requests = StopRequests()
    assert [requests.take(number, local) for number, local in signals] == meanings


def test_how_a_process_ended_is_said_of_every_signal() -> None:
    """Those for real time have no names, but for the first and the last of them."""
    assert {how_ended(-number) for number in signal.valid_signals()} >= {
        "was killed by SIGKILL",
        "was killed by signal 40",
    }
    assert how_ended(40) == "ended with exit code 40"


class Heard:
    """What a runner was told, and the time."""

    def __init__(self) -> None:
        self.stops = 0
        self.now = 100.0
        self.left: list[int] = []

    def stop(self) -> None:
        self.stops += 1

    def handling(self) -> SignalsToStop:
        return SignalsToStop(self.stop, Inbox(), logging.getLogger("leaving"), lambda: self.now)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The process is not left in a test."""
    one = Heard()
    monkeypatch.setattr(os, "_exit", one.left.append)
    return one


@pytest.mark.parametrize("number", STOPS)
def test_the_second_signal_leaves_unless_it_comes_at_once(
    heard: Heard, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before = [signal.getsignal(one) for one in STOPS]
    with heard.handling():
        os.kill(os.getpid(), number)
        heard.now += 0.9
        os.kill(os.getpid(), number)
        assert (heard.stops, heard.left) == (1, [])
        assert not caplog.messages
        heard.now += 0.1
        os.kill(os.getpid(), number)
        assert (heard.stops, heard.left) == (1, [128 + number])
        [message] = caplog.messages
        assert message.startswith(f"{number.name}, the second signal: leaving at once")
    assert [signal.getsignal(one) for one in STOPS] == before


def ours(_: int, __: FrameType | None) -> None:
    """A handler of the user's."""


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, ours])
def test_a_hangup_that_somebody_else_has_decided_about_is_left_alone(
    heard: Heard, theirs: signal.Handlers | Callable[[int, FrameType | None], None]
) -> None:
    with handled(signal.SIGHUP, signal.SIG_DFL):
        signal.signal(signal.SIGHUP, theirs)
        with heard.handling():
            assert signal.getsignal(signal.SIGHUP) is theirs
            os.kill(os.getpid(), signal.SIGHUP)
            assert heard.stops == 0
        assert signal.getsignal(signal.SIGHUP) is theirs


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_has_its_signals_back_at_once_but_those_that_somebody_handles_since(heard: Heard) -> None:
    """Not when the first arrives: that one may be lost."""
    before = {number: signal.getsignal(number) for number in STOPS}
    with heard.handling():
        signal.signal(signal.SIGHUP, ours)
        child = os.fork()
        if child == 0:
            found = {number: signal.getsignal(number) for number in STOPS}
            REALLY_LEAVE(0 if found == {**before, signal.SIGHUP: ours} else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert signal.getsignal(TERM) != before[TERM]
