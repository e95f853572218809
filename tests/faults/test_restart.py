"""The server dies: killed at the very step, its file cut at any byte, its data gone, its place taken by a replica."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from jobqueue import JobQueue
from tests.conftest import MakeServer
from tests.faults.ledger import await_that
from tests.faults.proxy import Cut, Proxy
from tests.faults.scenes import SCENES, Cell, judge
from tests.faults.stage import Stage
from tests.servers import Server, kinds

DURABLE: Final = ("--appendonly", "yes", "--appendfsync")
KINDS: Final = kinds()
LEASE: Final = 1.8
"""Seconds; longer than a restart, so that no lease ends in it."""


def patient(server: Server) -> redis.Redis:
    """A client of the test's own, which asks again while the server is away."""
    return redis.Redis(unix_socket_path=server.socket, retry=Retry(ConstantBackoff(0.02), 200))


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Callable[[Server], Stage]]:
    stages: list[Stage] = []

    def make(server: Server) -> Stage:
        stages.append(Stage(patient(server), server.url, tmp_path))
        stages[-1].load_scripts()
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


class Killing:
    """Kills a server and starts it again, where a cell calls for it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(self) -> None:
        self._server.kill()
        self._server.restart()


@pytest.mark.parametrize("when", [Cut.LOSE_REQUEST, Cut.LOSE_REPLY], ids=["before", "after"])
@pytest.mark.parametrize("name", [f"F8-{step}" for step in SCENES])
def test_fault(name: str, when: Cut, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F8] SIGKILL of a server with an append-only file at the very step, and its restart: nothing is lost."""
    step = name.partition("-")[2]
    # fsync or not makes no difference to a process that dies: the bytes are in the page cache.
    server = own_server(
        KINDS[len(step) % len(KINDS)], args=[*DURABLE, "always" if when is Cut.LOSE_REPLY else "everysec"]
    )
    with Proxy(server.socket) as proxy:
        cell = Cell(on(server), proxy, when, lease=LEASE, then=Killing(server))

        accepted, dead = SCENES[step](cell)

        judge(cell, step, accepted, dead)
        if step != "REC":
            assert b"rescued" not in cell.stage.counters()


# ------------------------------------------------------------------------------------------------- the file is cut off


def _journal(server: Server) -> Path:
    [found] = server.directory.glob("appendonlydir/*.incr.aof")
    return found


def _whole_life(stage: Stage, jobs: JobQueue) -> None:
    """Every move there is, each in a transaction of its own."""
    for key in "ab":
        jobs.enqueue(stage.deed(key))
    jobs.enqueue(stage.deed("c"), delay=0.05)
    jobs.enqueue(stage.deed("doomed", fails=9), retry=0)
    jobs.enqueue(stage.deed("fails", fails=1))
    stage.orphan(1)
    with jobs.lock("report", ttl=5), stage.worker(jobs):
        stage.settle(dead=1)
    [dead] = jobs.dead()
    jobs.requeue(dead.id)
    jobs.delete(dead.id)


def _ends(journal: bytes) -> list[int]:
    """Where the commands of a journal end."""
    ends = []
    at = 0
    while at < len(journal):
        head = journal.index(b"\r\n", at)
        line, at = journal[at:head], head + 2
        if line[:1] == b"#":
            continue
        for _ in range(int(line[1:])):
            size = journal.index(b"\r\n", at)
            at = size + 2 + int(journal[at + 1 : size]) + 2
        ends.append(at)
    return ends


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_the_disk(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F9] [I21] Wherever the append-only file ends, every job is in one place with its record and its claim.

    All bytes of the last transactions are tried; and of those before, the end of each command and the middle of it.
    """
    server = own_server(kind, args=[*DURABLE, "always"])
    stage = on(server)
    _whole_life(stage, stage.jobs())
    server.kill()
    path = _journal(server)
    whole = path.read_bytes()
    ends = _ends(whole)
    last = ends[-_LAST_COMMANDS] if len(ends) > _LAST_COMMANDS else 0
    middles = [(before + after) // 2 for before, after in itertools.pairwise(ends)]
    early = sorted({cut for cut in (*ends, *middles) if cut < last})
    cuts = early[:: max(1, len(early) // _EARLY_CUTS)] + list(range(last, len(whole) + 1))
    places: set[str] = set()
    for cut in cuts:
        path.write_bytes(whole[:cut])
        server.restart()
        places.update(stage.check_contents().values())
        server.kill()
    assert places >= {"ready", "working", "waiting", "dead"}, f"no cut met a job in some places: only {places}"


_LAST_COMMANDS: Final = 6
_EARLY_CUTS: Final = 25


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_the_last_seconds(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F9-ACK] What is cut off after a power loss is undone, results too: those jobs run again, no other does."""
    server = own_server(kind, args=[*DURABLE, "everysec"])
    stage = on(server)
    jobs = stage.jobs()
    for key in "abcd":
        jobs.enqueue(stage.deed(key))
    written = _journal(server)
    await_that(lambda: b'"key":"d"' in written.read_bytes(), "the journal written: a busy disk takes its time")
    kept = len(written.read_bytes())
    with stage.worker(jobs):
        stage.settle()
    jobs.close()
    server.kill()
    path = _journal(server)
    path.write_bytes(path.read_bytes()[:kept])
    server.restart()

    assert stage.sizes()["ready"] == 4
    with stage.worker(stage.jobs()):
        stage.settle()

    assert stage.ledger.runs("end") == dict.fromkeys("abcd", 2)
    fences = [entry.fence for entry in stage.ledger.entries("start")]
    assert fences == sorted(fences), "fences do not run backwards, though the counter did"
    assert max(fences[:4]) < min(fences[4:])


# --------------------------------------------------------------------------------------------------- the data are gone


@pytest.mark.parametrize("how", ["FLUSHALL", "restart"])
@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_everything(
    kind: str, how: str, own_server: MakeServer, on: Callable[[Server], Stage], caplog: pytest.LogCaptureFixture
) -> None:
    """[F10] All data are gone while jobs run: their results are refused, the loss is told, and the runner goes on."""
    server = own_server(kind)
    stage = on(server)
    jobs = stage.jobs()
    gate = stage.gate()
    with stage.worker(jobs, lease=1.2) as worker:
        jobs.enqueue(stage.deed("held", gate=str(gate)))
        await_that(lambda: stage.ledger.runs()["held"], "the job running")
        if how == "FLUSHALL":
            server.flush()
        else:
            Killing(server)()
        await_that(lambda: "lost its data" in caplog.text, "the loss noticed")
        gate.touch()
        await_that(lambda: worker.runner.status.late == 1, "the result refused")
        jobs.enqueue(stage.deed("after"))
        await_that(lambda: stage.ledger.runs("end")["after"], "a new job")
        stage.settle()
        await_that(lambda: len(jobs.runners()) == 1, "the runner registered anew")
    stage.ledger.check({"held", "after"})
    assert stage.counters()[b"done"] == 1


# --------------------------------------------------------------------------------------- a replica takes over, too late


@pytest.mark.parametrize("kind", KINDS)
def test_fault_of_the_primary(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F11] A replica that lags becomes the primary: what it had not heard of is lost or repeated, and nothing else."""
    primary = own_server(kind, port=True, args=["--repl-diskless-sync-delay", "0"])
    replica = own_server(kind)
    stage = on(replica)
    operator = patient(replica)
    with Proxy(("127.0.0.1", primary.port), raw=True) as link, Proxy(primary.socket) as front:
        host, port = link.url.removeprefix("redis://").split(":")
        operator.replicaof(host, int(port))

        def linked() -> bool:
            info: Any = operator.info("replication")
            return bool(info["master_link_status"] == "up")

        await_that(linked, "the replica in sync")
        jobs = stage.jobs(f"{front.url}?socket_timeout=0.5")
        for key in "ab":
            jobs.enqueue(stage.deed(key))
        await_that(lambda: stage.sizes()["ready"] == 2, "the jobs on the replica")
        with jobs.lock("report", ttl=30) as lease:
            fence = lease.fence
        asked = patient(primary)
        key = "{faults}:lock:report"
        await_that(lambda: operator.hgetall(key) == asked.hgetall(key) != {}, "the lock, given back, on the replica")
        asked.close()
        link.darken()  # from now on the replica hears nothing
        with stage.worker(jobs):
            await_that(lambda: len(stage.ledger.entries("end")) == 2, "both jobs run on the old primary")
            jobs.enqueue(stage.deed("unheard"))
            await_that(lambda: stage.ledger.runs("end")["unheard"], "a job that the replica never hears of")
            jobs.lock("report", ttl=30).__enter__()  # held by the old primary's word
            front.upstream = replica.socket
            operator.replicaof("NO", "ONE")
            front.cut_all()
            jobs.enqueue(stage.deed("after"))
            stage.settle()
        with jobs.lock("report", ttl=30) as lease:  # by the new one's word it is free: the documented window
            assert lease.fence > fence, "the fence tells the two holders apart"
    stage.ledger.check({"a", "b", "unheard", "after"}, again={"a", "b"})
    assert stage.ledger.runs()["after"] == 1
    operator.close()


def test_what_could_not_be_stored_is_said_at_the_end(
    own_server: MakeServer, on: Callable[[Server], Stage], caplog: pytest.LogCaptureFixture
) -> None:
    """A clean stop of a runner whose server is gone, as when both are told to end: its jobs will run again."""
    server = own_server("valkey")
    stage = on(server)
    stage.jobs().enqueue(stage.deed("held", gate=str(stage.gate())))
    with caplog.at_level("INFO"), stage.worker(stage.jobs(), grace=0.1):
        await_that(lambda: stage.ledger.runs()["held"], "the job running")
        server.kill()
        stage.gate().touch()
        await_that(lambda: stage.ledger.runs("end")["held"], "the job at its end")
    [last] = [entry for entry in caplog.records if entry.getMessage().startswith("stopped")]
    assert "; 1 left as they are, to run again" in last.getMessage()
    assert last.levelname == "WARNING"
