"""``jobqueue run --processes N``: real runners, real signals, real servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from jobqueue import JobQueue
from jobqueue.logs import counted
from jobqueue.looking import Counts
from jobqueue.runner_info import RunnerInfo
from tests.conftest import MakeServer
from tests.faults.ledger import PATIENCE, Ledger, await_that
from tests.runner.apps.crew import declare
from tests.runner.running import drained
from tests.runner.test_processes import ROOT, Crew
from tests.servers import Server

NOTHING = Counts(waiting=0, ready=0, working=0, dead=0)


class Supervised:
    """``jobqueue run --processes`` with its log in a file."""

    def __init__(self, crew: Crew, url: str, *options: str, target: str = "tests.runner.apps.crowd:jobs") -> None:
        self.log_path = crew.folder / f"log-{time.monotonic_ns()}"
        self.crew = crew
        with self.log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "jobqueue", "run", target, "--threads", "2", *options],
                cwd=ROOT,
                env={**os.environ, "CREW_URL": url, "CREW_LEDGER": str(crew.ledger.path)},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """What it and its runners have logged."""
        return self.log_path.read_text()

    def pids(self) -> list[int]:
        """All processes it ever started."""
        return [int(pid) for pid in re.findall(r"started, pid (\d+)", self.log)]

    def works(self, number: int) -> list[RunnerInfo]:
        """Wait until so many runners work; answers them."""
        await_that(lambda: len(self.crew.jobs.runners()) == number, f"{number} runners work")
        return self.crew.jobs.runners()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it; answers its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)

    def close(self) -> None:
        """End it and all that it started."""
        self.popen.kill()
        self.popen.wait()
        await_that(lambda: not any(lives(pid) for pid in self.pids()), "runners end without their supervisor")


def lives(pid: int) -> bool:
    """Whether there is such a process. (Its parent is gone or has reaped it.)"""
    try:
        os.kill(pid, 0)
        return (
            "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3] if Path("/proc").exists() else True
        )
    except (ProcessLookupError, FileNotFoundError):  # the second: it ended since the line before
        return False


Supervise = Callable[..., Supervised]


@pytest.fixture
def hire(tmp_path: Path) -> Iterator[Callable[[str], tuple[Crew, Supervise]]]:
    """Makes a crew and its supervisors on the server at a URL; all processes are gone at the end."""
    started: list[Supervised] = []
    queues: list[JobQueue] = []
    ledger = Ledger(tmp_path / "ledger")

    def make(url: str) -> tuple[Crew, Supervise]:
        def no_crew(**_: float) -> subprocess.Popen[bytes]:
            raise AssertionError("runners are started by supervisors here")

        queues.append(declare(url, ledger))
        crew = Crew(queues[-1], ledger, tmp_path, no_crew)

        def supervise(*options: str, target: str = "tests.runner.apps.crowd:jobs") -> Supervised:
            started.append(Supervised(crew, url, *options, target=target))
            return started[-1]

        return crew, supervise

    yield make
    (tmp_path / "gate").touch()
    for one in started:
        one.close()
    for queue in queues:
        queue.close()


@pytest.fixture
def crew(server: Server, hire: Callable[[str], tuple[Crew, Supervise]]) -> tuple[Crew, Supervise]:
    """A crew on each kind of server."""
    return hire(server.url)


def test_the_jobs_of_a_killed_runner_are_handed_back_by_its_supervisor(crew: tuple[Crew, Supervise]) -> None:
    """Whether this notifies those who wait is looked at in `test_notifications`: polling would hide it here."""
    people, supervise = crew
    gate = people.folder / "gate"
    supervised = supervise("--processes", "2", "--lease", "30", "--grace", "5")
    supervised.works(2)
    people.enqueue("gated", "a", "b", "c", gate=str(gate))
    await_that(people.started("a", "b", "c"), "all run")
    victim = people.ledger.entries("start")[0].pid
    held = {entry.key for entry in people.ledger.entries("start") if entry.pid == victim}
    assert held

    os.kill(victim, signal.SIGKILL)
    await_that(lambda: all(people.ledger.runs()[key] == 2 for key in held), "they are run again")

    assert f"is gone: {counted(len(held), 'job')} returned to their queues" in supervised.log
    assert "gave no sign of life" not in supervised.log, "nobody waited for the end of their leases"
    assert victim not in [runner.pid for runner in people.jobs.runners()], "nobody takes the dead one for alive"
    supervised.works(2)
    gate.touch()
    await_that(drained(people.jobs), "they end")
    people.ledger.check(["a", "b", "c"], again=held)
    assert {entry.attempt for entry in people.ledger.entries()} == {1}, "a crash is no failed attempt"
    assert supervised.end() == 0
    assert people.jobs.counts()["low"] == NOTHING
    assert "was killed by SIGKILL" in supervised.log


def test_the_jobs_of_a_runner_that_died_while_the_server_was_away(
    own_server: MakeServer, hire: Callable[[str], tuple[Crew, Supervise]]
) -> None:
    server = own_server(args=["--appendonly", "yes", "--appendfsync", "always"])
    people, supervise = hire(server.url)
    gate = people.folder / "gate"
    supervised = supervise("--processes", "2", "--lease", "30")
    supervised.works(2)
    people.enqueue("gated", "a", gate=str(gate))
    await_that(people.started("a"), "it runs")
    server.kill()
    os.kill(people.ledger.entries("start")[0].pid, signal.SIGKILL)
    await_that(lambda: "could not be handed back, trying again" in supervised.log, "it is tried")

    server.restart()

    await_that(lambda: people.ledger.runs()["a"] == 2, "it runs again", seconds=15)
    gate.touch()
    await_that(drained(people.jobs), "it ends")
    assert supervised.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_all(crew: tuple[Crew, Supervise], number: signal.Signals) -> None:
    people, supervise = crew
    gate = people.folder / "gate"
    supervised = supervise("--processes", "2", "--lease", "0.6", "--grace", "20")
    runners = supervised.works(2)
    people.enqueue("gated", "a", "b", "c", gate=str(gate))
    await_that(people.started("a", "b", "c"), "all run")
    supervised.popen.send_signal(number)
    await_that(lambda: people.jobs.runners() == [], "they say that they stop")
    # A service manager signals every process of the service: to a runner this must not be the second signal.
    for runner in runners:
        os.kill(runner.pid, number)
    people.enqueue("quick", "d")
    gate.touch()

    assert supervised.popen.wait(PATIENCE) == 0
    assert people.ledger.runs("end") == {"a": 1, "b": 1, "c": 1}, "what ran has ended, nothing more was begun"
    assert people.jobs.counts()["low"] == attrs.evolve(NOTHING, ready=1)
    assert not any(lives(pid) for pid in supervised.pids())


def test_the_second_signal_kills_and_everything_is_ready_again(crew: tuple[Crew, Supervise]) -> None:
    people, supervise = crew
    supervised = supervise("--processes", "2", "--lease", "30")
    supervised.works(2)
    people.enqueue("gated", "a", "b", gate=str(people.folder / "gate"))
    await_that(people.started("a", "b"), "both run")
    supervised.popen.send_signal(signal.SIGTERM)
    await_that(lambda: supervised.log.count("stopping: ") == 2, "they drain")

    assert supervised.end(signal.SIGINT) == 128 + signal.SIGINT
    assert people.jobs.counts()["low"] == attrs.evolve(NOTHING, ready=2), "handed back, not left to their leases"
    assert not any(lives(pid) for pid in supervised.pids())


def test_runners_end_in_order_when_their_supervisor_is_killed(crew: tuple[Crew, Supervise]) -> None:
    people, supervise = crew
    gate = people.folder / "gate"
    supervised = supervise("--processes", "2", "--lease", "0.6")
    supervised.works(2)
    people.enqueue("gated", "a", gate=str(gate))
    await_that(people.started("a"), "it runs")

    supervised.popen.kill()

    await_that(lambda: people.jobs.runners() == [], "they stop")
    gate.touch()
    await_that(lambda: not any(lives(pid) for pid in supervised.pids()), "they are gone")
    assert people.ledger.runs("end") == {"a": 1}
    assert people.jobs.counts()["low"] == NOTHING


def test_poison_kills_five_runners_and_is_dead(
    own_server: MakeServer, hire: Callable[..., tuple[Crew, Supervise]]
) -> None:
    people, supervise = hire(own_server().url)
    neighbours = [f"n{number}" for number in range(40)]
    people.enqueue("quick", *neighbours[:20])
    people.enqueue("poison", "poison")
    people.enqueue("quick", *neighbours[20:])
    supervised = supervise("--processes", "2", "--lease", "30")
    await_that(drained(people.jobs), "all came to an end", seconds=60)

    [dead] = people.jobs.dead()
    assert (dead.name, dead.recoveries, dead.attempt) == ("poison", 5, 0)
    assert set(people.ledger.runs("end")) == set(neighbours)
    assert supervised.end() == 0


def test_a_rolling_restart_under_load(own_server: MakeServer, hire: Callable[..., tuple[Crew, Supervise]]) -> None:
    """Three runners are replaced while 200 jobs a second come in: nothing is lost, nothing that finished runs twice.

    And no job waits for longer than the grace time and a second, from its enqueueing to its claim, whose fence is the time.
    """
    grace = 3
    people, supervise = hire(own_server().url)
    supervised = supervise("--processes", "3", "--grace", str(grace))
    before = {runner.pid for runner in supervised.works(3)}
    keys: list[str] = []
    enqueued: dict[str, float] = {}
    enough = threading.Event()

    def produce() -> None:
        while not enough.wait(0.05):
            fresh = [f"k{number}" for number in range(len(keys), len(keys) + 10)]
            enqueued.update(dict.fromkeys(fresh, time.time() * 1000))
            people.enqueue("quick", *fresh[:5])
            people.enqueue("coroutine", *fresh[5:])
            keys.extend(fresh)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        await_that(lambda: len(people.ledger.runs("end")) > 50, "they work")
        supervised.popen.send_signal(signal.SIGHUP)
        await_that(
            lambda: len(supervised.pids()) == 6 and not any(lives(pid) for pid in before), "all have been replaced",
            seconds=60,
        )  # fmt: skip
        after = {runner.pid for runner in supervised.works(3)}
    finally:
        enough.set()
        producer.join()
    await_that(drained(people.jobs), "all jobs ended")

    assert after.isdisjoint(before)
    assert people.ledger.runs("end") == dict.fromkeys(keys, 1)
    assert people.ledger.runs() == dict.fromkeys(keys, 1), "nothing was interrupted either: the grace time was enough"
    waits = {entry.key: entry.fence - enqueued[entry.key] for entry in people.ledger.entries("start")}
    assert max(waits.values()) < (grace + 1) * 1000, f"waited too long: {waits}"
    assert supervised.end() == 0


def test_a_new_version_that_does_not_start_leaves_the_old_at_work(
    own_server: MakeServer, hire: Callable[..., tuple[Crew, Supervise]], tmp_path: Path
) -> None:
    people, supervise = hire(own_server().url)
    (tmp_path / "deployed.py").write_text("from tests.runner.apps.crowd import jobs\n")
    supervised = supervise("--processes", "2", "--app-dir", str(tmp_path), target="deployed:jobs")
    before = {runner.pid for runner in supervised.works(2)}
    (tmp_path / "deployed.py").write_text("raise RuntimeError('forgotten')\n")

    supervised.popen.send_signal(signal.SIGHUP)
    await_that(lambda: "the others are kept as they are" in supervised.log, "it is said")

    assert {runner.pid for runner in people.jobs.runners()} == before
    people.enqueue("quick", "a")
    await_that(drained(people.jobs), "they work")
    assert supervised.end() == 0


def test_a_right_that_is_missing_is_said_and_ends_with_3(
    hire: Callable[[str], tuple[Crew, Supervise]], own_server: MakeServer
) -> None:
    """A runner waits for what passes; what does not is no better with the next runner."""
    server = own_server()
    with server.client() as client:
        command: Any = client.execute_command
        command("ACL", "SETUSER", "weak", "on", ">pw", "~*", "+@all", "-hincrby")
    _, supervise = hire(f"unix://weak:pw@{server.socket}")

    supervised = supervise("--processes", "2")

    assert supervised.popen.wait(PATIENCE) == 3
    assert "HINCRBY on {" in supervised.log


def test_what_cannot_work_is_said_once_and_ends_with_2(crew: tuple[Crew, Supervise], tmp_path: Path) -> None:
    _, supervise = crew
    (tmp_path / "wrong.py").write_text("from jobqueue import JobQueue\njobs = JobQueue('memory://')\n")
    (tmp_path / "empty.py").write_text(
        "import os\nfrom jobqueue import JobQueue\njobs = JobQueue(os.environ['CREW_URL'])\n"
    )
    at = ("--processes", "2", "--app-dir", str(tmp_path))
    memory = supervise(*at, target="wrong:jobs")
    empty = supervise(*at, target="empty:jobs")
    short = supervise(*at, "--lease", "0.1", target="empty:jobs")
    assert [one.popen.wait(PATIENCE) for one in (memory, empty, short)] == [2, 2, 2]
    assert "--processes needs a storage that they can share" in memory.log
    assert "no kind of job is declared" in empty.log
    assert "a lease of 100 ms is too short" in short.log
    assert short.pids() == []


def test_every_option_reaches_the_runners(crew: tuple[Crew, Supervise], tmp_path: Path) -> None:
    people, supervise = crew
    (tmp_path / "more.py").write_text("from tests.runner.apps.crowd import jobs\njobs.job(name='more')(lambda: None)\n")
    supervised = supervise(
        *("--processes", "2", "--coroutines", "7", "--queues", "high=3,low=2", "--lease", "12.5", "--uvloop", "--json"),
        *("--app-dir", str(tmp_path), "--import", "more", "--namespace", "other", "--log-level", "debug"),
    )
    people.jobs.relocate(namespace="other")
    runners = supervised.works(2)
    for runner in runners:
        assert (runner.threads, runner.coroutines, runner.lease) == (2, 7, 12.5)
        assert runner.queues == {"high": 3, "low": 2}
    people.enqueue("coroutine", "a")
    await_that(drained(people.jobs), "a coroutine runs on uvloop")
    assert supervised.end() == 0
    assert people.ledger.runs("end") == {"a": 1}
    assert "more" in supervised.log
    assert supervised.log.startswith("{")


def test_a_runner_that_dies_at_once_again_and_again_is_started_less_and_less_often(
    own_server: MakeServer, hire: Callable[..., tuple[Crew, Supervise]]
) -> None:
    _, supervise = hire(own_server().url)
    supervised = supervise("--processes", "2")
    supervised.works(2)
    for number in range(3, 6):
        await_that(lambda number=number: len(supervised.pids()) >= number - 1, "another was started")  # type: ignore[misc]
        os.kill(supervised.pids()[-1], signal.SIGKILL)
    await_that(lambda: len(supervised.pids()) == 5, "the last one was started")
    pauses = re.findall(r"(?m)^(.{29}) .*died at once (\d) times: the next in ([\d.]+) s", supervised.log)
    starts = re.findall(r"(?m)^(.{29}) .*started, pid", supervised.log)
    assert [(times, pause) for _, times, pause in pauses] == [("2", "0.5"), ("3", "1.0")]
    for (died, _, pause), started in zip(pauses, starts[3:], strict=True):
        waited = datetime.fromisoformat(started) - datetime.fromisoformat(died)
        assert waited.total_seconds() > 0.9 * float(pause)
    supervised.works(2)
    assert supervised.end() == 0
