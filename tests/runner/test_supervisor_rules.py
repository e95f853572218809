"""When a supervisor starts, stops and replaces its runners: its rules, with processes and a time that the test makes up."""

from __future__ import annotations

import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.runner import supervisor
from jobqueue.runner.lifeline import Lifeline
from jobqueue.runner.rescue import Rescued
from jobqueue.runner.signals import STOPS
from jobqueue.runner.supervisor import LIVED_S, PAUSE_FIRST_S, PAUSE_LONGEST_S, Supervisor
from jobqueue.storage.memory import MemoryStorage
from tests.faults.ledger import PATIENCE, await_that


class FakeProcess:
    """A runner process that does what the test says."""

    made: list[FakeProcess] = []  # noqa: RUF012 - renewed for every test

    def __init__(self, command: list[str], *, pass_fds: tuple[int], **_: object) -> None:
        self.line = socket.socket(fileno=os.dup(pass_fds[0]))
        self.pid = 1_000 + len(self.made)
        self.code: int | None = None
        self.made.append(self)

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.end(-signal.SIGKILL)

    def works(self) -> None:
        """It says under which name it claims."""
        self.line.sendall(b"runner-%d\n" % self.pid)

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self.line.close()

    @property
    def is_told(self) -> bool:
        """Whether it was told to stop."""
        self.line.setblocking(False)
        try:
            while self.line.recv(64):  # where jobs are stored
                pass
        except BlockingIOError:
            return False
        return True


class Crew:
    """A supervisor of fake processes, and its time."""

    def __init__(self, jobs: JobQueue, size: int, *, burst: bool) -> None:
        self.supervisor = Supervisor(jobs, ["run"], size, grace=0.0, burst=burst)
        self.now = 1_000.0

    def turn(self, seconds: float = 0.0) -> None:
        """Some time passes; then it looks, as often as it has something to hear."""
        self.now += seconds
        for _ in range(3):
            self.supervisor._heed(self.now)
            self.supervisor._bury(self.now)
            self.supervisor._keep(self.now)
            for key, _ in self.supervisor._selector.select(0):
                key.data()

    def signal(self, number: signal.Signals) -> None:
        self.supervisor._signals.append(number)
        self.turn()

    def close(self) -> None:
        """Free what it holds."""
        for process in FakeProcess.made:
            process.end(0)
        for child in self.supervisor._children():
            child.line.close()
        self.supervisor._selector.close()
        self.supervisor._graves.close(1)

    @property
    def alive(self) -> list[FakeProcess]:
        return [process for process in FakeProcess.made if process.code is None]


Recruit = Callable[..., Crew]


@pytest.fixture
def recruit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recruit]:
    """Makes a crew whose processes have been started."""
    FakeProcess.made = []
    monkeypatch.setattr("jobqueue.runner.supervisor.subprocess.Popen", FakeProcess)
    made: list[Crew] = []

    def make(size: int, *, burst: bool = False) -> Crew:
        made.append(Crew(JobQueue(storage=MemoryStorage(), namespace="test"), size, burst=burst))
        made[-1].turn()
        assert len(made[-1].alive) == size
        return made[-1]

    yield make
    for crew in made:
        crew.close()


def works(crew: Crew) -> Crew:
    """The same, once all its processes work."""
    for process in crew.alive:
        process.works()
    crew.turn()
    return crew


# -------------------------------------------------------------------------------------------------------- replacements


def test_a_runner_that_lived_for_a_while_is_replaced_at_once(recruit: Recruit) -> None:
    crew = works(recruit(2))
    for _ in range(4):
        crew.turn(LIVED_S)
        crew.alive[0].end(-9)
        crew.turn()
        assert len(crew.alive) == 2


def test_one_that_dies_at_once_again_and_again_is_replaced_after_pauses_that_grow(recruit: Recruit) -> None:
    crew = works(recruit(1))
    pauses = []
    for _ in range(9):
        crew.alive[0].end(1)
        crew.turn()
        due = crew.supervisor._slots[0].due
        pauses.append(due - crew.now if not crew.alive else 0.0)
        if pauses[-1]:
            crew.turn(pauses[-1] - 0.001)
            assert crew.alive == []
            crew.turn(0.001)
        assert len(crew.alive) == 1
    assert pauses == pytest.approx([0, 0.5, 1, 2, 4, 8, 16, 30, 30])
    assert (PAUSE_FIRST_S, PAUSE_LONGEST_S) == (0.5, 30)

    crew.turn(LIVED_S)
    for _ in range(2):
        crew.alive[0].end(1)
        crew.turn()
        assert len(crew.alive) == 1, "one that lived makes a new beginning, and the first death after it costs nothing"


def test_the_pauses_of_one_slot_are_not_those_of_another(recruit: Recruit) -> None:
    crew = works(recruit(2))
    for _ in range(2):
        crew.alive[-1].end(1)
        crew.turn()
    assert len(crew.alive) == 1
    crew.alive[0].end(1)
    crew.turn()
    assert len(crew.alive) == 1, "the first death of this one"


# ---------------------------------------------------------------------------------------------------- exit codes 2, 3


@pytest.mark.parametrize("code", [2, 3])
def test_what_will_not_be_better_the_next_time_ends_all(recruit: Recruit, code: int) -> None:
    """A command line that is wrong, a storage that refuses for good."""
    crew = recruit(2)
    crew.turn()
    first, second = crew.alive
    first.end(code)
    crew.turn()
    assert len(FakeProcess.made) == 2, "nothing is started again"
    assert second.is_told
    second.end(0)
    crew.turn()
    assert (crew.supervisor._code, crew.supervisor._children()) == (code, [])


@pytest.mark.parametrize(("code", "worked"), [(2, True), (3, True), (1, False), (-9, False), (-40, False)])
def test_any_other_end_is_a_death_like_any(recruit: Recruit, code: int, worked: bool) -> None:
    """2 and 3 as well once a runner has worked: then it was right, and the storage took it. No signal has the number 40."""
    crew = works(recruit(2)) if worked else recruit(2)
    crew.turn()
    first, second = crew.alive
    first.end(code)
    crew.turn()
    assert len(crew.alive) == 2
    assert not second.is_told
    assert crew.supervisor._code == 0


# ----------------------------------------------------------------------------------------------------- rolling restart


def test_a_rolling_restart_replaces_one_after_the_other(recruit: Recruit) -> None:
    crew = works(recruit(3))
    old = crew.alive
    crew.signal(signal.SIGHUP)
    for index, leaving in enumerate(old):
        assert len(crew.alive) == 4, "one more than there are"
        assert not leaving.is_told, "before its successor works"
        crew.alive[-1].works()
        crew.turn()
        assert leaving.is_told
        assert [one for one in old[index + 1 :] if one.is_told] == []
        assert len(crew.alive) == 4, "and no further one before it has left"
        leaving.end(0)
        crew.turn()
    assert len(crew.alive) == 3
    assert set(old).isdisjoint(crew.alive)
    crew.turn(60)
    assert len(FakeProcess.made) == 6


def test_a_successor_that_does_not_start_ends_the_rolling_restart(recruit: Recruit) -> None:
    crew = works(recruit(2))
    old = crew.alive
    crew.signal(signal.SIGHUP)
    crew.alive[-1].end(2)
    crew.turn(60)
    assert crew.alive == old
    assert not any(one.is_told for one in old)


@pytest.mark.parametrize("seed", range(8))
def test_there_are_never_more_than_one_too_many(recruit: Recruit, seed: int) -> None:
    """Whoever dies, starts to work, leaves or is told to be replaced, in whatever order."""
    chance = random.Random(seed)
    size = chance.randint(1, 3)
    crew = recruit(size)
    replaced = 0
    for _ in range(150):
        crew.turn(chance.choice([0.0, 0.1, 1.0, 12.0]))
        assert len(crew.alive) <= size + 1
        assert crew.supervisor._children() == [] or len(crew.supervisor._children()) == len(crew.alive)
        what = chance.random()
        if not crew.alive:
            continue
        process = chance.choice(crew.alive)
        if what < 0.1:
            process.end(1)
        elif what < 0.2:
            before = len(crew.supervisor._turn)
            crew.signal(signal.SIGHUP)
            replaced += len(crew.supervisor._turn) > before
        elif what < 0.7:
            process.works()
        elif process.is_told:
            process.end(0)
    assert replaced
    crew.turn(60)
    for _ in range(20):
        for process in crew.alive:
            process.works()
        crew.turn()
        for process in crew.alive:
            if process.is_told:
                process.end(0)
        crew.turn(60)
    assert len(crew.alive) == size


# -------------------------------------------------------------------------------------------------------- stop signals


def stopped(recruit: Recruit, number: signal.Signals) -> Crew:
    """Two runners that do not leave, told to by this signal."""
    crew = works(recruit(2))
    crew.supervisor._hangup_stops = True
    crew.signal(number)
    assert all(one.is_told for one in crew.alive)
    return crew


@pytest.mark.parametrize("number", STOPS)
def test_the_same_signal_again_within_a_second_is_one(recruit: Recruit, number: signal.Signals) -> None:
    crew = stopped(recruit, number)
    crew.signal(number)
    crew.turn(0.999)
    crew.signal(number)
    assert len(crew.alive) == 2

    crew.turn(0.001)
    crew.signal(number)
    assert crew.alive == []
    assert crew.supervisor._code == 128 + number


def test_another_signal_hurries_at_once(recruit: Recruit) -> None:
    crew = stopped(recruit, signal.SIGTERM)
    crew.signal(signal.SIGINT)
    assert crew.alive == []
    assert crew.supervisor._code == 128 + signal.SIGINT


def test_a_reload_is_no_request_to_stop(recruit: Recruit) -> None:
    """Nor does one that comes with the stop do anything."""
    crew = works(recruit(2))
    crew.supervisor._hangup_stops = False
    for _ in range(3):
        crew.signal(signal.SIGHUP)
    assert not any(one.is_told for one in crew.alive)
    crew.signal(signal.SIGTERM)
    crew.signal(signal.SIGHUP)
    crew.turn(2)
    assert len(crew.alive) == 3
    assert all(one.is_told for one in crew.alive)


# --------------------------------------------------------------------------------------------------------------- bursts


def test_a_burst_ends_with_its_runners(recruit: Recruit) -> None:
    crew = works(recruit(2, burst=True))
    first, second = crew.alive
    first.end(0)
    crew.turn(60)
    assert crew.alive == [second], "it has done what there was"
    assert not crew.supervisor._is_over()
    second.end(0)
    crew.turn()
    assert crew.supervisor._is_over()
    assert (crew.supervisor._children(), crew.supervisor._code) == ([], 0)


def test_a_runner_that_dies_in_a_burst_is_replaced_once_its_jobs_are_back(
    recruit: Recruit, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()

    def settled(*_: object) -> Any:
        yield from ()
        assert back.wait(PATIENCE)
        return []

    monkeypatch.setattr(supervisor, "settle", settled)
    crew = works(recruit(2, burst=True))
    first, second = crew.alive
    first.end(-9)
    crew.turn(60)
    assert crew.alive == [second]
    assert 0 < crew.supervisor._pause(crew.now) < 0.1, "it looks again soon"
    back.set()
    await_that(lambda: not crew.supervisor._graves.is_busy, "they are handed back")
    crew.turn()
    assert len(crew.alive) == 2
    for process in crew.alive:
        process.end(0)
    crew.turn()
    assert crew.supervisor._is_over()


def test_a_hangup_stops_a_burst(recruit: Recruit) -> None:
    crew = works(recruit(2, burst=True))
    crew.signal(signal.SIGHUP)
    assert all(one.is_told for one in crew.alive)
    assert len(FakeProcess.made) == 2


# ------------------------------------------------------------------------------------------------------ what is logged


def test_a_job_that_goes_to_dead_is_named(
    recruit: Recruit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def settled(*_: object) -> Any:
        yield from ()
        return [Rescued(b"job-1", "low", "gone", True, 0), Rescued(b"job-2", "low", "gone", False, 0)]

    monkeypatch.setattr(supervisor, "settle", settled)
    caplog.set_level(logging.INFO)
    crew = recruit(1)
    assert crew.supervisor._graves._settle(b"gone")
    counts, dead = caplog.messages[-2:]
    assert counts == "runner gone is gone: 1 job returned to their queues and will run again, 1 went to dead"
    assert dead.startswith("job job-1 of queue low went to dead: ")


# ------------------------------------------------------------------------------------------------------ what they say


@pytest.mark.parametrize("words", [b"\xff\n", b"\n\n", b"a b\n", b"x" * 65, b"\x1b[2J\n", b"x\n" * 1_001])
def test_what_is_not_a_name_is_no_runner_whose_jobs_are_handed_back(
    recruit: Recruit, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: bytes
) -> None:
    """Nor what comes after it: something else may speak for the runner. What it has said before counts."""
    crew = works(recruit(1))
    [process] = crew.alive
    buried: list[bytes] = []
    monkeypatch.setattr(crew.supervisor._graves, "put", buried.append)
    process.line.sendall(words)
    crew.turn()
    process.line.sendall(b"somebody-else\n")
    process.end(-9)
    crew.turn()
    assert buried == [b"runner-1000"]
    assert [line for line in caplog.messages if "says what is not a name" in line] == [
        "runner process 1, pid 1000: says what is not a name"
    ]


def test_a_runner_is_told_where_jobs_are_stored_before_anything_else() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        os.set_inheritable(number, True)
        line = Lifeline(os.dup(number))
        assert not os.get_inheritable(line._socket.fileno())
        ours.sendall(b"redis://:s3cr3t@h/0\n")
        assert line.url() == "redis://:s3cr3t@h/0"
        ours.sendall(b"\n")
        assert line.url() is None, "the target says it"
        ours.close()
        assert line.url() is None, "the supervisor is gone, which is seen soon"
        line._socket.close()
