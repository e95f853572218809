"""Runners in processes of their own, on real servers: signals, sudden deaths, poison, and a server that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import JobQueue
from jobqueue.looking import Counts
from tests.conftest import MakeServer
from tests.faults.ledger import PATIENCE, Ledger, await_that
from tests.runner.apps.crew import declare
from tests.runner.running import drained, handled, start
from tests.servers import Server

ROOT = Path(__file__).parent.parent.parent
LEASE = 0.6
NOTHING = Counts(waiting=0, ready=0, working=0, dead=0)


@attrs.frozen
class Crew:
    """Where runners work, and how to start one."""

    jobs: JobQueue
    ledger: Ledger
    folder: Path
    start: Callable[..., subprocess.Popen[bytes]]

    def enqueue(self, kind: str, *keys: str, **arguments: Any) -> None:
        """Enqueue jobs of a kind, one for each key."""
        declared = self.jobs.registry.get(kind)
        assert declared is not None
        calls = [declared.decode(msgspec.json.encode({"key": key, **arguments})) for key in keys]
        self.jobs.enqueue_many(calls)

    def started(self, *keys: str) -> Callable[[], bool]:
        """Whether these were started."""
        return lambda: set(keys) <= set(self.ledger.runs())


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Callable[[str], Crew]]:
    """Makes a crew on the server at a URL; its processes and its queue are gone at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    queues: list[JobQueue] = []
    ledger = Ledger(tmp_path / "ledger")

    def make(url: str) -> Crew:
        def run(**options: float) -> subprocess.Popen[bytes]:
            words = [f"{name}={number}" for name, number in options.items()]
            command = [sys.executable, "-m", "tests.runner.apps.crew", url, str(ledger.path), *words]
            processes.append(subprocess.Popen(command, cwd=ROOT))
            return processes[-1]

        queues.append(declare(url, ledger))
        return Crew(queues[-1], ledger, tmp_path, run)

    yield make
    for process in processes:
        process.kill()
        process.wait()
    for queue in queues:
        queue.close()


@pytest.fixture
def crew(server: Server, hire: Callable[[str], Crew]) -> Crew:
    """A crew on each kind of server."""
    return hire(server.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_drains(crew: Crew, number: signal.Signals) -> None:
    gate = crew.folder / "gate"
    crew.enqueue("gated", "a", "b", gate=str(gate))
    process = crew.start(threads=2)
    await_that(crew.started("a", "b"), "both run")
    crew.enqueue("quick", "c")

    process.send_signal(number)
    await_that(lambda: [info for info in crew.jobs.runners() if info.pid == process.pid] == [], "it says that it stops")
    gate.touch()

    assert process.wait(PATIENCE) == 0
    assert crew.ledger.runs("end") == {"a": 1, "b": 1}, "what ran has ended, nothing more was begun"
    assert crew.ledger.runs("stopped") == {"clean": 1}
    assert crew.jobs.counts()["low"] == attrs.evolve(NOTHING, ready=1)


def test_what_does_not_end_is_handed_back_and_the_process_is_left_with_0(crew: Crew) -> None:
    gate = crew.folder / "gate"
    crew.enqueue("gated", "a", gate=str(gate))
    process = crew.start(grace=0.1)
    await_that(crew.started("a"), "it runs")

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 0
    assert not crew.ledger.runs("stopped"), "it did not wait for the thread"
    assert crew.jobs.counts()["low"] == attrs.evolve(NOTHING, ready=1)
    gate.touch()
    other = crew.start()
    await_that(drained(crew.jobs), "another runner runs it at once")
    other.terminate()
    assert other.wait(PATIENCE) == 0
    assert [entry.attempt for entry in crew.ledger.entries("start")] == [1, 1]


@pytest.mark.parametrize(("number", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_the_second_signal_ends_it_at_once(crew: Crew, number: signal.Signals, second: signal.Signals) -> None:
    crew.enqueue("gated", "a", gate=str(crew.folder / "never"))
    process = crew.start()
    await_that(crew.started("a"), "it runs")
    process.send_signal(number)
    await_that(lambda: crew.jobs.runners() == [], "it drains")

    process.send_signal(second)

    assert process.wait(PATIENCE) == 128 + second
    assert crew.jobs.counts()["low"] == attrs.evolve(NOTHING, working=1), "like a crash: its lease will end"


def test_the_end_of_a_session_sends_two_signals_and_is_one_stop(crew: Crew) -> None:
    gate = crew.folder / "gate"
    crew.enqueue("gated", "a", gate=str(gate))
    process = crew.start()
    await_that(crew.started("a"), "it runs")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    await_that(lambda: crew.jobs.runners() == [], "it drains")
    gate.touch()

    assert process.wait(PATIENCE) == 0
    assert crew.ledger.runs("end") == {"a": 1}


def test_under_nohup_the_end_of_the_terminal_changes_nothing(crew: Crew) -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN):
        process = crew.start()
    await_that(crew.jobs.runners, "it runs")
    process.send_signal(signal.SIGHUP)
    crew.enqueue("quick", "a")
    await_that(drained(crew.jobs), "it goes on")
    process.terminate()
    assert process.wait(PATIENCE) == 0


def test_the_jobs_of_a_killed_runner_run_again_within_the_bound(crew: Crew) -> None:
    gate, lease = crew.folder / "gate", 3.0
    crew.enqueue("gated", "a", "b", gate=str(gate))
    first = crew.start(lease=lease)
    await_that(crew.started("a", "b"), "both run")
    second = crew.start(lease=lease)
    await_that(lambda: len(crew.jobs.runners()) == 2, "another runner is there")

    os.kill(first.pid, signal.SIGKILL)
    died = time.monotonic()
    await_that(lambda: crew.ledger.runs() == {"a": 2, "b": 2}, "they are run again")

    assert time.monotonic() - died <= lease + 3 * lease / 6 + 2.5, "lease, three beats and a call (on a busy machine)"
    gate.touch()
    await_that(drained(crew.jobs), "they end")
    assert {entry.attempt for entry in crew.ledger.entries()} == {1}, "a crash is no failed attempt"
    crew.ledger.check(["a", "b"], again=["a", "b"])
    second.terminate()
    assert second.wait(PATIENCE) == 0


def test_poison_is_dead_after_five_crashes_and_its_neighbours_are_done(
    own_server: MakeServer, hire: Callable[[str], Crew]
) -> None:
    crew = hire(own_server().url)
    neighbours = [f"n{number}" for number in range(40)]
    crew.enqueue("quick", *neighbours[:20])
    crew.enqueue("poison", "poison")
    crew.enqueue("quick", *neighbours[20:])
    process = crew.start(threads=4)
    crashes = 0
    end = time.monotonic() + 60
    while not drained(crew.jobs)():
        assert time.monotonic() < end, crew.jobs.counts()
        try:
            code = process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        assert code == 66
        crashes += 1
        process = crew.start(threads=4)
    process.terminate()
    process.wait(PATIENCE)

    assert crashes == 5
    [dead] = crew.jobs.dead()
    assert (dead.name, dead.recoveries, dead.attempt) == ("poison", 5, 0)
    assert set(crew.ledger.runs("end")) == set(neighbours)


def test_three_processes_share_the_work_without_doubles(own_server: MakeServer, hire: Callable[[str], Crew]) -> None:
    crew = hire(own_server().url)
    keys = [f"k{number}" for number in range(600)]
    processes = [crew.start() for _ in range(3)]
    await_that(lambda: len(crew.jobs.runners()) == 3, "all of them are there")
    crew.enqueue("quick", *keys[:300])
    crew.enqueue("coroutine", *keys[300:])
    await_that(drained(crew.jobs), "all jobs ended")
    for process in processes:
        process.terminate()
    assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
    assert crew.ledger.runs("end") == dict.fromkeys(keys, 1)


def test_a_runner_survives_the_death_of_its_server(own_server: MakeServer, hire: Callable[[str], Crew]) -> None:
    """Killed and started again three times while a runner works: jobs go on meanwhile, and none is lost."""
    server = own_server(args=["--appendonly", "yes", "--appendfsync", "always"])
    crew = hire(server.url)
    gate = crew.folder / "gate"
    keys = [f"k{number}" for number in range(900)]
    live = start(crew.jobs, threads=2, lease=5)
    crew.enqueue("gated", "held", gate=str(gate))
    await_that(crew.started("held"), "one job runs all the time")
    for part in range(3):
        crew.enqueue("quick", *keys[part * 300 : part * 300 + 300])
        await_that(lambda part=part: len(crew.ledger.runs()) >= part * 300 + 50, "it is under way")  # type: ignore[misc]
        server.kill()
        assert live.thread.is_alive()
        server.restart()
    server.kill()
    gate.touch()
    await_that(lambda: crew.ledger.runs("end")["held"], "a running job goes on without a server")
    server.restart()
    await_that(drained(crew.jobs), "all jobs ended")
    live.stop()

    assert set(crew.ledger.runs("end")) == {*keys, "held"}
    assert crew.ledger.runs() == dict.fromkeys([*keys, "held"], 1), "with an append-only file nothing runs twice"
    assert crew.jobs.counts()["low"] == NOTHING
    assert live.runner.status.done == 901


def test_a_runner_waits_for_a_server_that_is_not_there_yet(own_server: MakeServer, hire: Callable[[str], Crew]) -> None:
    server = own_server(args=["--appendonly", "yes", "--appendfsync", "always"])
    crew = hire(server.url)
    crew.enqueue("quick", "a")
    crew.jobs.close()
    server.kill()
    process = crew.start()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    server.restart()
    await_that(crew.started("a"), "it begins when the server is there")
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert crew.ledger.runs("end") == {"a": 1}
