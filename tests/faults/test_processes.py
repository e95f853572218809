"""Faults of processes: killed, stopped and continued, or told to end, at the very step, by a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from jobqueue import LockTaken
from tests.faults.ledger import await_that
from tests.faults.stage import LEASE, NAMESPACE, Stage
from tests.servers import Server

_ROOT: Final = Path(__file__).parents[2]
RESCUED_MS: Final = 3500
"""From one claim to the next: a job that is to outlast the grace time, the last words, the bound of a rescue (0.9 s), and a
busy machine. A runner that looks only when its wait is over, as if nobody had rung, takes longer."""
LEFT_S: Final = 2.5
"""From a signal to the end of the process, for the same reason."""


@pytest.fixture
def stage(server: Server, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(server.client(), server.url, tmp_path)
    yield stage
    stage.close()


@attrs.define
class Actor:
    """A process of its own that plays a role."""

    process: subprocess.Popen[bytes]

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(20)

    def await_stopped(self) -> None:
        """Wait until SIGSTOP has stopped it."""

        def stopped() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}"
            status = Path(f"/proc/{self.process.pid}/stat").read_text()
            return status.rpartition(")")[2].split()[0] == "T"

        await_that(stopped, "the process stopped")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def say(self) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go on\n")
        self.process.stdin.flush()


@pytest.fixture
def play() -> Iterator[Callable[..., Actor]]:
    actors: list[Actor] = []

    def start(stage: Stage, role: str, *rest: str, fault: str = "") -> Actor:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.apps.process", role, stage.url, str(stage.ledger.path), *rest],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "FAULT": fault, "PYTHONPATH": str(_ROOT)},
            cwd=_ROOT,
        )
        actors.append(Actor(process))
        return actors[-1]

    yield start
    for actor in actors:
        actor.process.kill()
        actor.process.wait()
        assert actor.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            actor.process.stdin.close()


@attrs.frozen
class Scene:
    """What a runner's process has to do when it meets its fate.

    Attributes:
        set_up: Prepares the queue; answers the jobs that will succeed.
        dead: How many jobs end dead.
        runs: Runs of a job that its behaviour asks for, 1 if not named.
        settings: Lease and grace of the process.
        stops: It is stopped by SIGTERM as soon as its job runs.
        gated: Its job waits for the gate, which opens when the process has met its fate.
    """

    set_up: Callable[[Stage], set[str]]
    dead: int = 0
    runs: dict[str, int] = attrs.field(factory=dict)
    settings: tuple[str, ...] = ()
    stops: bool = False
    gated: bool = False


def _plain(stage: Stage) -> set[str]:
    for key in "ab":
        stage.jobs().enqueue(stage.deed(key))
    return {"a", "b"}


def _one(stage: Stage) -> set[str]:
    stage.jobs().enqueue(stage.deed("a"))
    return {"a"}


def _delayed(stage: Stage) -> set[str]:
    records = [stage.jobs().enqueue(stage.deed(key), delay=0.05) for key in "ab"]
    # Due before the process starts, so that its first promotion is the one that moves them.
    await_that(lambda: stage.now() > records[-1].due.timestamp(), "both jobs due")
    assert stage.sizes()["waiting"] == 2
    return {"a", "b"}


def _failing(stage: Stage) -> set[str]:
    stage.jobs().enqueue(stage.deed("fails", fails=1))
    return {"fails"}


def _doomed(stage: Stage) -> set[str]:
    stage.jobs().enqueue(stage.deed("doomed", fails=99), retry=0)
    return set()


def _orphaned(stage: Stage) -> set[str]:
    for key in "abc":
        stage.jobs().enqueue(stage.deed(key))
    stage.orphan(2)
    return {"a", "b", "c"}


def _long(stage: Stage) -> set[str]:
    stage.jobs().enqueue(stage.deed("long", gate=str(stage.gate())))
    return {"long"}


SCENES: Final = {
    "PRO": Scene(_delayed),
    "CLM": Scene(_plain),
    "ACK": Scene(_one),  # of two, the second may not have ended when the result of the first is sent
    "RTY": Scene(_failing, runs={"fails": 2}),
    "DLQ": Scene(_doomed, dead=1),
    "REC": Scene(_orphaned),
    "HB": Scene(_long, gated=True),
    "SHD": Scene(_long, settings=(str(LEASE), "0"), stops=True, gated=True),
}


def _fault(step: str, when: str, *signals: signal.Signals) -> str:
    return f"{step}:{when}:1:{'+'.join(str(int(number)) for number in signals)}"


def _start(scene: Scene, stage: Stage, play: Callable[..., Actor], fault: str) -> tuple[set[str], Actor]:
    accepted = scene.set_up(stage)
    actor = play(stage, "run", *scene.settings, fault=fault)
    if scene.stops:
        await_that(lambda: stage.ledger.runs(), "the job running")
        actor.signal(signal.SIGTERM)
    await_that(lambda: actor.process.poll() is not None or _cut(stage), "the fate of the process")
    return accepted, actor


def _cut(stage: Stage) -> bool:
    return any(entry.event.startswith("cut-") for entry in stage.ledger.entries())


def _judge(stage: Stage, scene: Scene, accepted: set[str], *, again: bool) -> None:
    if scene.dead:
        started = stage.ledger.runs()["doomed"]
        assert 1 <= started <= 1 + again
        assert [record.attempt for record in stage.jobs().dead()] == [1]
    else:
        stage.ledger.check(accepted, runs=scene.runs, again=accepted if again else ())
    claimed: dict[str, int] = {}
    for entry in stage.ledger.entries("start"):
        gap = entry.fence - claimed.get(entry.key, entry.fence)
        assert gap < RESCUED_MS, f"{entry.key} came back after {gap} ms; a fence is the time of its claim"
        claimed[entry.key] = entry.fence
    assert len(stage.check_contents()) == scene.dead
    assert stage.counters().get(b"done", 0) == len(accepted), "each success is counted once"


CRASHES: Final = {
    # cell: whether a job is run once more
    **dict.fromkeys(["F1-PRO", "F1-CLM", "F1-REC"], False),
    **dict.fromkeys(["F1-ACK", "F1-RTY", "F1-DLQ", "F1-HB", "F1-SHD"], True),
    **dict.fromkeys(["F2-PRO", "F2-CLM", "F2-ACK", "F2-RTY", "F2-DLQ"], False),
    **dict.fromkeys(["F2-HB", "F2-SHD"], True),  # the job was running in the process that died
    "F2-REC": True,  # its other threads may claim what it has brought back, and start it, before they are all killed
}


@pytest.mark.parametrize("cell", CRASHES)
def test_fault(cell: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGKILL before the request is sent (F1), and after its effect before its reply is looked at (F2)."""
    fault, _, step = cell.partition("-")
    scene = SCENES[step]
    when = "before" if fault == "F1" else "after"

    accepted, actor = _start(scene, stage, play, _fault(step, when, signal.SIGKILL))
    assert actor.wait() == -signal.SIGKILL
    assert _cut(stage)
    stage.check_contents()
    stage.gate().touch()
    with stage.worker(stage.jobs()):
        stage.settle(dead=scene.dead)

    _judge(stage, scene, accepted, again=CRASHES[cell])
    if cell == "F2-SHD":
        assert b"rescued" not in stage.counters(), "what was handed back can be claimed at once"


@pytest.mark.parametrize("cell", ["F1-RUN", "F2-RUN"])
def test_fault_in_a_job(cell: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGKILL by the job itself: it runs again elsewhere, and so do its neighbours."""
    stage.jobs().enqueue(stage.deed("killer", kill=int(signal.SIGKILL)))
    for key in "ab":
        stage.jobs().enqueue(stage.deed(key))

    assert play(stage, "run").wait() == -signal.SIGKILL
    with stage.worker(stage.jobs()):
        stage.settle()

    assert stage.ledger.runs()["killer"] == 2
    stage.ledger.check({"killer", "a", "b"}, again={"killer", "a", "b"})
    assert {entry.attempt for entry in stage.ledger.entries("end")} == {1}, "a crash is no failed attempt"


@pytest.mark.parametrize("cell", ["F1-ENQ", "F2-ENQ"])
def test_fault_of_a_producer(cell: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGKILL of who enqueues: before the effect nothing is stored, after it the job is, though nobody was told."""
    fault = _fault("ENQ", "before" if cell == "F1-ENQ" else "after", signal.SIGKILL)

    assert play(stage, "enqueue", "x", fault=fault).wait() == -signal.SIGKILL

    assert not stage.ledger.entries("accepted")
    assert list(stage.check_contents().values()) == ([] if cell == "F1-ENQ" else ["ready"])
    with stage.worker(stage.jobs()):
        stage.settle()
    assert stage.ledger.runs("end") == ({} if cell == "F1-ENQ" else {"x": 1})


@pytest.mark.parametrize("cell", ["F1-LCK", "F2-LCK"])
def test_fault_of_a_holder(cell: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGKILL of who holds a lock: it ends by itself, and the fence of the next is greater."""
    fault = _fault("LCK", "before" if cell == "F1-LCK" else "after", signal.SIGKILL)

    assert play(stage, "lock", "0.5", fault=fault).wait() == -signal.SIGKILL

    fences: list[int] = []

    def take() -> bool:
        try:
            with stage.jobs().lock("report", ttl=5) as lease:
                fences.append(lease.fence)
        except LockTaken:
            return False
        return True

    if cell == "F1-LCK":
        assert take(), "a lock that was never taken is free"
    else:
        left: object = stage.client.hget(f"{{{NAMESPACE}}}:lock:report", "fence")
        assert isinstance(left, bytes)
        await_that(take, "the end of the lock")
        assert fences[0] > int(left)


ZOMBIES: Final = {
    # cell: whether a job is run once more
    **dict.fromkeys(["F6-PRO", "F6-CLM", "F6-REC"], False),
    **dict.fromkeys(["F6-ACK", "F6-RTY", "F6-DLQ", "F6-HB", "F6-SHD"], True),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cell", ZOMBIES)
def test_fault_of_a_zombie(cell: str, when: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGSTOP for longer than the lease while a peer takes over; after SIGCONT what it sends changes nothing."""
    step = cell.partition("-")[2]
    scene = SCENES[step]

    accepted, actor = _start(scene, stage, play, _fault(step, when, signal.SIGSTOP))
    actor.await_stopped()
    with stage.worker(stage.jobs()):
        stage.gate().touch()
        stage.settle(dead=scene.dead)
        actor.signal(signal.SIGCONT)
        if not scene.stops:
            actor.signal(signal.SIGTERM)
        assert actor.wait() == 0

    # What it has brought back its own threads may claim and start before the signal has stopped them all.
    _judge(stage, scene, accepted, again=ZOMBIES[cell] or (step, when) == ("REC", "after"))
    if step == "CLM" and when == "after":
        pids = {entry.pid for entry in stage.ledger.entries("start")}
        assert pids == {os.getpid()}, "a runner starts nothing after its own deadline"


def test_fault_in_a_zombie_job(stage: Stage, play: Callable[..., Actor]) -> None:
    """[F6-RUN] SIGSTOP inside a job: its late result is discarded, one finish counts."""
    stage.jobs().enqueue(stage.deed("a", kill=int(signal.SIGSTOP)))

    actor = play(stage, "run")
    actor.await_stopped()
    with stage.worker(stage.jobs()):
        stage.settle()
        actor.signal(signal.SIGCONT)
        await_that(lambda: stage.ledger.runs("end")["a"] == 2, "the end of the first run")
        actor.signal(signal.SIGTERM)
        assert actor.wait() == 0

    stage.ledger.check({"a"}, again={"a"})
    assert stage.counters()[b"done"] == 1
    first, second = stage.ledger.entries("start")
    assert first.fence < second.fence
    assert first.attempt == second.attempt == 1


def test_fault_of_a_zombie_holder(stage: Stage, play: Callable[..., Actor]) -> None:
    """[F6-LCK] SIGSTOP while a lock is held: the next one has it, knows a greater fence, and keeps it."""
    actor = play(stage, "lock", "0.3", fault=_fault("LCK", "after", signal.SIGSTOP))
    actor.await_stopped()
    lock = stage.jobs().lock("report", ttl=30)

    def take() -> bool:
        try:
            lock.__enter__()
        except LockTaken:
            return False
        return True

    await_that(take, "the end of the lock")
    actor.signal(signal.SIGCONT)
    actor.say()
    assert actor.wait() == 0

    assert [entry.event for entry in stage.ledger.entries() if entry.key == "lock"] == ["held", "lost", "gave"]
    assert not stage.jobs().lock("report", ttl=1).run(pytest.fail, "the late drop took the lock from its holder")
    lock.__exit__(None, None, None)


def test_fault_of_a_zombie_producer(stage: Stage, play: Callable[..., Actor]) -> None:
    """[F6-ENQ] SIGSTOP after the job was stored: it has run when its producer wakes up, and runs no second time."""
    actor = play(stage, "enqueue", "x", fault=_fault("ENQ", "after", signal.SIGSTOP))
    actor.await_stopped()
    with stage.worker(stage.jobs()):
        stage.settle()
        actor.signal(signal.SIGCONT)
        assert actor.wait() == 0
        stage.settle()

    assert stage.ledger.runs("accepted") == {"x": 1}
    stage.ledger.check({"x"})


ENDINGS: Final = {"one signal": (signal.SIGTERM,), "two signals": (signal.SIGTERM, signal.SIGINT)}


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("cell", [f"F30-{step}" for step in SCENES])
def test_fault_of_a_signal(cell: str, how: str, stage: Stage, play: Callable[..., Actor]) -> None:
    """SIGTERM before each step: it ends with code 0 and holds nothing; a second signal leaves at once, like a crash."""
    step = cell.partition("-")[2]
    scene = SCENES[step]
    if scene.stops and how == "one signal":
        pytest.skip("it was told to stop already: this would be its second signal")

    accepted, actor = _start(scene, stage, play, _fault(step, "before", *ENDINGS[how]))
    if how == "one signal":
        stage.gate().touch()
        assert actor.process.wait(LEFT_S) == 0
        assert stage.sizes()["working"] == (2 if step == "REC" and not stage.counters().get(b"rescued") else 0)
    else:
        assert actor.process.wait(LEFT_S) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        stage.gate().touch()
    stage.check_contents()
    with stage.worker(stage.jobs()):
        stage.settle(dead=scene.dead)

    _judge(stage, scene, accepted, again=how == "two signals" and step not in ("PRO", "REC"))
