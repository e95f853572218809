"""Runners at work while the server is in trouble: jobs of every kind flow, and nobody is robbed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import threading
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from jobqueue import JobQueue, LockTaken, NotApplied, OutcomeUnknown
from tests.conftest import MakeServer
from tests.faults.ledger import await_that
from tests.faults.proxy import Proxy
from tests.faults.stage import Stage
from tests.servers import Server, kinds

KINDS: Final = kinds()
LEASE_S: Final = 1.2


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Callable[[Server], Stage]]:
    stages: list[Stage] = []

    def make(server: Server) -> Stage:
        stages.append(Stage(server.client(), server.url, tmp_path))
        stages[-1].load_scripts()
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


RUNS: Final = {"fails": 2}
FLOW: Final = {"a", "b", "c", "delayed", "fails"}


def flow(stage: Stage, jobs: JobQueue) -> None:
    """Jobs that take every step: at once, delayed, retried, buried, and one that is held until the gate opens."""
    jobs.enqueue(stage.deed("held", gate=str(stage.gate())))
    for key in "abc":
        jobs.enqueue(stage.deed(key))
    jobs.enqueue(stage.deed("delayed"), delay=0.3)
    jobs.enqueue(stage.deed("fails", fails=1))
    jobs.enqueue(stage.deed("doomed", fails=99), retry=0)


def holding(stage: Stage) -> None:
    """Wait until the held job runs."""
    await_that(lambda: stage.ledger.runs()["held"], "the held job running")


def unharmed(stage: Stage, *, more: set[str] | None = None) -> None:
    """Fail unless everything has run as if nothing had happened."""
    stage.settle(dead=1)
    assert stage.ledger.runs()["doomed"] == 1
    started = {key: count for key, count in stage.ledger.runs().items() if key != "doomed"}
    expected = FLOW | {"held"} | (more or set())
    assert set(started) == set(stage.ledger.runs("end")) == expected
    assert started == {key: RUNS.get(key, 1) for key in expected}
    assert b"rescued" not in stage.counters(), "somebody was robbed"
    assert not stage.ledger.entries("lost"), "a job was told that its lease was lost"


@pytest.mark.parametrize("kind", KINDS)
def test_fault_stall(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F18] The server does nothing for longer than a lease: of two runners neither is robbed."""
    server = own_server(kind)
    stage = on(server)
    gate = stage.gate()
    with stage.worker(stage.jobs(), lease=0.6), stage.worker(stage.jobs(), lease=0.6):
        flow(stage, stage.jobs())
        holding(stage)
        sleeper = server.client()
        sleeper.execute_command("DEBUG", "SLEEP", "1.5")  # type: ignore[no-untyped-call]
        sleeper.close()
        stage.outlive(2)
        gate.touch()
        stage.settle(dead=1)
    runs = stage.ledger.runs()
    assert runs == {"a": 1, "b": 1, "c": 1, "delayed": 1, "fails": 2, "doomed": 1, "held": 1}
    assert b"rescued" not in stage.counters(), "somebody was robbed"


@pytest.mark.parametrize("kind", KINDS)
def test_fault_impatience(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F18] The same with clients that give up sooner than the server wakes: what they sent arrives late, and twice."""
    server = own_server(kind, port=True)
    stage = on(server)
    url = f"{server.tcp_url}?socket_timeout=0.2"
    producer = stage.jobs(url)
    with stage.worker(stage.jobs(url), lease=LEASE_S), stage.worker(stage.jobs(url), lease=LEASE_S):
        flow(stage, stage.jobs())  # patient: one sent again while its job ends would rightly run twice
        producer.counts()  # it has seen the server while that is awake
        holding(stage)
        sleeper = server.client()
        asleep = threading.Thread(target=lambda: sleeper.execute_command("DEBUG", "SLEEP", "0.9"))  # type: ignore[no-untyped-call]
        asleep.start()
        accepted = set()
        for key in ("x", "y"):
            try:
                producer.enqueue(stage.deed(key))
            except OutcomeUnknown as error:
                await_that(lambda: not asleep.is_alive(), "the server awake")
                producer.enqueue_records(error.records)
            accepted.add(key)
        asleep.join()
        sleeper.close()
        stage.outlive(lease=LEASE_S)
        stage.gate().touch()
        stage.settle(dead=1)
    runs = stage.ledger.runs("end")
    assert set(runs) == FLOW | {"held"} | accepted
    # An enqueue whose outcome was unknown may run once more if it was sent again after the job had ended.
    assert all(count == 1 for key, count in runs.items() if key not in accepted)
    assert b"rescued" not in stage.counters(), "somebody was robbed"


@pytest.mark.parametrize("kind", KINDS)
def test_fault_full(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F14] A server without memory refuses new jobs, and everything that it has drains; leases live on."""
    server = own_server(kind)
    stage = on(server)
    jobs = stage.jobs()
    flow(stage, jobs)
    stage.client.config_set("maxmemory", 1)
    with stage.worker(jobs, lease=LEASE_S):
        with pytest.raises(NotApplied, match="maxmemory"):
            jobs.enqueue(stage.deed("refused"))
        await_that(lambda: set(stage.ledger.runs("end")) >= FLOW, "the queue drained")
        holding(stage)
        stage.outlive(lease=LEASE_S)
        stage.gate().touch()
        await_that(lambda: stage.ledger.runs("end")["held"] and not stage.leases(), "the held job finished")
        stage.client.config_set("maxmemory", 0)
        jobs.enqueue(stage.deed("accepted"))
        stage.settle(dead=1)
    unharmed(stage, more={"accepted"})


Trouble = Callable[[Server, redis.Redis], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def read_only(server: Server, operator: redis.Redis) -> Iterator[None]:
    operator.replicaof("127.0.0.1", 1)
    yield
    operator.replicaof("NO", "ONE")


@contextlib.contextmanager
def no_permission(server: Server, operator: redis.Redis) -> Iterator[None]:
    operator.acl_setuser("default", enabled=True, commands=["-evalsha", "-eval"])
    yield
    operator.acl_setuser("default", enabled=True, categories=["+@all"])


@contextlib.contextmanager
def no_connections(server: Server, operator: redis.Redis) -> Iterator[None]:
    operator.config_set("maxclients", 1)
    operator.client_kill_filter(_type="normal", skipme=True)
    yield
    operator.config_set("maxclients", 1000)


@contextlib.contextmanager
def disk_error(server: Server, operator: redis.Redis) -> Iterator[None]:
    shutil.rmtree(server.directory / "data")
    operator.config_set("stop-writes-on-bgsave-error", "yes")

    def failed() -> bool:
        info: Any = operator.info("persistence")
        if info["rdb_last_bgsave_status"] == "err":
            return True
        with contextlib.suppress(redis.ResponseError):
            operator.bgsave()
        return False

    await_that(failed, "a snapshot that fails")
    yield
    operator.config_set("stop-writes-on-bgsave-error", "no")


TROUBLES: Final[dict[str, Trouble]] = {
    "F12": read_only,
    "F16": no_connections,
    "F27": disk_error,
    "F28": no_permission,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", TROUBLES)
def test_fault_refusal(
    fault: str, kind: str, own_server: MakeServer, on: Callable[[Server], Stage], tmp_path: Path
) -> None:
    """The server refuses everything for a while, with jobs in every place: runners wait, and go on afterwards."""
    server = own_server(kind, args=["--save", "3600 100000", "--enable-protected-configs", "yes"])
    (server.directory / "data").mkdir()
    stage = on(server)
    if fault == "F27":
        stage.client.config_set("dir", str(server.directory / "data"))
    jobs = stage.jobs()
    with stage.worker(jobs, lease=3), stage.worker(stage.jobs(), lease=3):
        flow(stage, jobs)
        holding(stage)
        with TROUBLES[fault](server, stage.client):
            with pytest.raises(NotApplied):
                jobs.enqueue(stage.deed("refused"))
            stage.gate().touch()
            await_that(lambda: stage.ledger.runs("end")["held"], "the end of the held job, whose result is refused")
        unharmed(stage)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["F17-scripts", "F4-clients"])
def test_fault_in_a_loop(what: str, kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F17] [F4] SCRIPT FLUSH, or CLIENT KILL, again and again under load: nothing is lost, nothing runs twice."""
    server = own_server(kind)
    stage = on(server)
    jobs = stage.jobs()
    over = threading.Event()
    times = 0

    def disturb() -> None:
        nonlocal times
        operator = server.client()
        while not over.wait(0.02):
            if what == "F17-scripts":
                operator.script_flush()
            else:
                operator.client_kill_filter(_type="normal", skipme=True)
            times += 1
        operator.close()

    disturber = threading.Thread(target=disturb)
    keys = [f"k{number}" for number in range(100)]
    gate = stage.gate()
    try:
        with stage.worker(jobs, lease=3), stage.worker(stage.jobs(), lease=3):
            disturber.start()
            for key in keys:
                try:
                    jobs.enqueue(stage.deed(key))
                except (NotApplied, OutcomeUnknown) as error:
                    await_that(lambda error=error: _sent_again(jobs, error), "the job stored")  # type: ignore[misc]
            await_that(lambda: times > 15, "enough disturbance")
            over.set()
            disturber.join()
            gate.touch()
            stage.settle()
    finally:
        over.set()
    # A claim or a result that was cut is settled by sending it again; an enqueue may arrive after the job has ended.
    stage.ledger.check(keys, again=keys if what == "F4-clients" else ())
    assert b"rescued" not in stage.counters()


def _sent_again(jobs: JobQueue, error: NotApplied | OutcomeUnknown) -> bool:
    try:
        jobs.enqueue_records(error.records)
    except (NotApplied, OutcomeUnknown):
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_fault_partition(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F24] One runner is cut off for longer than its lease: a peer takes over; it fences itself, and works again later."""
    server = own_server(kind)
    stage = on(server)
    gate = stage.gate()
    with Proxy(server.socket) as proxy:
        cut_off = stage.jobs(f"{proxy.url}?socket_timeout=0.25")
        with stage.worker(cut_off) as victim:
            stage.jobs().enqueue(stage.deed("held", gate=str(gate)))
            holding(stage)
            proxy.darken()
            with pytest.raises(OutcomeUnknown):
                cut_off.enqueue(stage.deed("unsure"))
            with stage.worker(stage.jobs()):
                await_that(lambda: stage.ledger.runs()["held"] == 2, "the peer running the job")
                gate.touch()
                await_that(lambda: stage.ledger.runs("end")["held"] == 2, "the end of both runs")
                stage.settle()
                proxy.lift()
                await_that(lambda: victim.runner.status.late == 1, "the late result discarded")
            stage.jobs().enqueue(stage.deed("later"))
            await_that(lambda: stage.ledger.runs("end")["later"], "the runner at work again")
            stage.settle()
    assert [entry.key for entry in stage.ledger.entries("lost")] == ["held"], "it was told that its lease was lost"
    assert stage.counters()[b"done"] in (2, 3)
    assert stage.ledger.runs()["unsure"] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_fault_partition_at_the_end(kind: str, own_server: MakeServer, on: Callable[[Server], Stage]) -> None:
    """[F24-SHD] A runner that is cut off and told to stop leaves in bounded time; its job runs again elsewhere."""
    server = own_server(kind)
    stage = on(server)
    with Proxy(server.socket) as proxy:
        with stage.worker(stage.jobs(f"{proxy.url}?socket_timeout=0.25"), grace=0):
            stage.jobs().enqueue(stage.deed("held", gate=str(stage.gate())))
            holding(stage)
            proxy.darken()
        stage.gate().touch()
        with stage.worker(stage.jobs()):
            stage.settle()
        proxy.lift()
    stage.ledger.check({"held"}, again={"held"})


# ----------------------------------------------------------------------------------------------------- the clock jumps


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves the clock of a server that it is loaded into."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed, so there is no way to move a server's clock")
    library = tmp_path_factory.mktemp("shim") / "clock.so"
    source = Path(__file__).parent / "apps" / "clock_shim.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jump", [45, -3600], ids=["+45s", "-1h"])
def test_fault_clock(
    jump: int, kind: str, own_server: MakeServer, on: Callable[[Server], Stage], shim: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """[F20] The server's clock jumps by much more than a lease: the holder is not robbed, a dead runner's jobs come back."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("CLOCK_SHIM", str(offset))
    server = own_server(kind)
    monkeypatch.delenv("LD_PRELOAD")
    stage = on(server)
    before = stage.now()
    gate = stage.gate()
    with stage.worker(stage.jobs()), stage.worker(stage.jobs()):
        stage.jobs().enqueue(stage.deed("held", gate=str(gate)))
        holding(stage)
        stage.jobs().enqueue(stage.deed("fails", fails=1))
        offset.write_text(f"{jump}\n")
        await_that(lambda: abs(stage.now() - before - jump) < 30, "the server's clock moved")
        beats = _beats(stage)
        await_that(lambda: _beats(stage) - beats >= 30, "both runners beating for longer than any patience")
        assert b"rescued" not in stage.counters(), "somebody was robbed"
        stage.jobs().enqueue(stage.deed("after"))
        await_that(lambda: stage.ledger.runs("end")["after"], "a job enqueued after the jump")
        gate.touch()
        offset.write_text("0")  # put right: what was to be retried is due after all
        await_that(lambda: stage.ledger.runs("end")["fails"], "the retry")
        stage.settle()
    stage.ledger.check({"held", "fails", "after"}, runs={"fails": 2})
    assert b"rescued" not in stage.counters(), "somebody was robbed"


def _beats(stage: Stage) -> int:
    """How many calls of scripts the server has counted: two runners make some with every beat."""
    info: Any = stage.client.info("commandstats")
    return int(info["cmdstat_evalsha"]["calls"]) // 4


@pytest.mark.parametrize("jump", [45, -3600], ids=["+45s", "-1h"])
def test_fault_clock_and_death(
    jump: int, own_server: MakeServer, on: Callable[[Server], Stage], shim: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """[F20-REC] Jobs of a runner that is gone come back within the bound, whatever the server's clock says."""
    offset = tmp_path / "offset"
    offset.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("CLOCK_SHIM", str(offset))
    server = own_server(KINDS[0])
    monkeypatch.delenv("LD_PRELOAD")
    stage = on(server)
    for key in "ab":
        stage.jobs().enqueue(stage.deed(key))
    stage.orphan(2)
    offset.write_text(f"{jump}\n")
    with stage.worker(stage.jobs()):
        stage.settle(seconds=5)
    stage.ledger.check({"a", "b"})
    assert stage.counters()[b"rescued"] == 2


# ------------------------------------------------------------------------------------------- forks, and cancellation


def test_fault_fork(server: Server, stage: Stage) -> None:
    """[F26] A child forked from a process that is connected enqueues on connections, and with ids, of its own."""
    jobs = stage.jobs()
    jobs.enqueue(stage.deed("parent"))
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for nth in range(5):
                    jobs.enqueue(stage.deed(f"child-{number}-{nth}"))
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    keys = {"parent"} | {f"child-{number}-{nth}" for number in range(4) for nth in range(5)}
    for nth in range(20):
        jobs.enqueue(stage.deed(f"parent-{nth}"))
        keys.add(f"parent-{nth}")
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    with stage.worker(jobs):
        stage.settle()
    stage.ledger.check(keys)


@types.coroutine
def _cancelled_at(turn: int, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, None, Any]:
    """Await it, and cancel it when it is suspended for this time: no race against the server decides how far it comes."""
    awaited = coroutine.__await__()
    step = partial(next, awaited)
    while True:
        try:
            suspended = step()
        except StopIteration as end:
            return end.value
        turn -= 1
        if turn == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield suspended
        except BaseException as error:  # noqa: BLE001 - handed on to the coroutine
            step = partial(awaited.throw, error)
        else:
            step = partial(next, awaited)


async def _ends_uncancelled(turn: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Whether it came to its end before it was suspended that often."""
    try:
        await asyncio.ensure_future(_cancelled_at(turn, coroutine))
    except asyncio.CancelledError:
        return False
    return True


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not connected"])
async def test_fault_cancel(connected: bool, server: Server, stage: Stage) -> None:
    """[F26] Cancelled at every await: the job is stored once or not at all, and the connections stay sound."""
    jobs = stage.jobs()
    certain, unsure = set[str](), set[str]()
    for turn in range(1, 100):
        if connected:
            await jobs.acounts()
        else:
            await jobs.aclose()
        key = f"k{turn}"
        if await _ends_uncancelled(turn, jobs.aenqueue(stage.deed(key))):
            certain.add(key)
            break
        unsure.add(key)
        # The next answer on this connection is the one to this question.
        assert sum(counts.dead for counts in (await jobs.acounts()).values()) == 0
    assert certain, "an enqueue never came to its end"
    assert unsure, "it was always too late to cancel"
    await jobs.aclose()
    assert len(stage.check_contents()) >= len(certain)
    with stage.worker(stage.jobs()):
        await asyncio.to_thread(stage.settle)
    runs = stage.ledger.runs("end")
    assert certain <= set(runs) <= certain | unsure
    assert set(runs.values()) == {1}


async def test_fault_cancel_lock(server: Server, stage: Stage) -> None:
    """[F26-LCK] Cancelled at every await of taking and giving back: whatever is left ends by itself, and has one holder."""
    jobs, others = stage.jobs(), stage.jobs()
    fences: dict[int, int] = {}
    left: set[int] = set()
    turn, ended = 0, False
    for turn in range(1, 100):
        name = f"report-{turn}"

        async def hold(turn: int = turn, name: str = name) -> None:
            async with jobs.lock(name, ttl=0.3) as lease:
                fences[turn] = lease.fence
                with pytest.raises(LockTaken):
                    await others.lock(name, ttl=5).__aenter__()

        ended = await _ends_uncancelled(turn, hold())
        if not _has_one_holder(others, name, fences.get(turn, 0)):
            left.add(turn)
        if ended:
            break
    assert ended, "the lock was never given back"
    assert turn not in left, "a lock that was given back is not free"
    assert 0 < len(fences) < turn, "it was never cancelled before, or never after the lock was taken"
    await jobs.aclose()
    await others.aclose()
    for turn in left:
        await_that(
            partial(_has_one_holder, others, f"report-{turn}", fences.get(turn, 0)),
            f"the end of the lock that was cancelled when it was suspended for the {turn}. time",
            seconds=5,
        )


def _has_one_holder(jobs: JobQueue, name: str, fence: int) -> bool:
    """Whether the lock can be taken; who has it is alone with it, and its fence is above the one before."""
    try:
        with jobs.lock(name, ttl=5) as lease:
            assert lease.fence > fence
            with pytest.raises(LockTaken), jobs.lock(name, ttl=5):
                pass
            return True
    except LockTaken:
        return False
