"""One scene for each step of a job's life: it comes to the request that takes the step, and that request is cut.

A scene answers the jobs that it had accepted, and how many ended dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import pytest

from jobqueue import JobQueue
from tests.faults.ledger import await_that
from tests.faults.proxy import Cut, Proxy, Rule
from tests.faults.stage import LEASE, Stage
from tests.faults.steps import carries

__all__ = ["ANSWER_SECONDS", "SCENES", "Cell", "judge"]

ANSWER_SECONDS: Final = 0.25


@attrs.define
class Cell:
    """One cell of the grid on a real server.

    Attributes:
        stage: The queue; what does not go through the proxy.
        proxy: Between the library and the server.
        cut: What happens to the request.
        lease: Of the runners, in seconds.
        then: Called when it happens.
        rule: What was armed.
    """

    stage: Stage
    proxy: Proxy
    cut: Cut
    lease: float = LEASE
    then: Callable[[], None] | None = None
    rule: Rule | None = None

    def arm(self, step: str, nth: int = 1) -> Rule:
        """From now on the nth request with the step is cut."""
        self.rule = self.proxy.rule(carries(step), self.cut, nth=nth)
        self.rule.then = self.then
        return self.rule

    def through(self) -> JobQueue:
        """A queue object whose requests go through the proxy."""
        return self.stage.jobs(f"{self.proxy.url}?socket_timeout={ANSWER_SECONDS}")

    def await_cut(self) -> None:
        """Wait until it happened; a delayed request has arrived then."""
        rule = self.rule
        assert rule is not None
        await_that(lambda: rule.hit, f"a request to cut: {rule}")
        if self.cut is Cut.DELAY:
            await_that(lambda: rule.late, f"the late arrival of {rule}")


def enqueue(cell: Cell) -> tuple[set[str], int]:
    """ENQ: the producer is cut; the job is stored once."""
    jobs = cell.through()
    cell.arm("ENQ")
    jobs.enqueue(cell.stage.deed("a"))
    jobs.enqueue(cell.stage.deed("b"))
    cell.await_cut()
    cell.proxy.lift()  # while the job is stored: what arrives after it has ended makes it run again, as promised
    await_that(lambda: cell.stage.sizes()["ready"] == 2, "both jobs ready")
    with cell.stage.worker(cell.stage.jobs(), lease=cell.lease):
        cell.stage.settle()
    return {"a", "b"}, 0


def promote(cell: Cell) -> tuple[set[str], int]:
    """PRO: jobs are delayed, and become due while the runner is there."""
    jobs = cell.through()
    for key in "ab":
        jobs.enqueue(cell.stage.deed(key), delay=0.3)
    cell.arm("PRO", nth=2)  # the first finds nothing due
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle()
        cell.proxy.lift()
    return {"a", "b"}, 0


def claim(cell: Cell) -> tuple[set[str], int]:
    """CLM: the request that takes the jobs is cut."""
    jobs = cell.through()
    for key in "abcdefgh":  # more than it claims at once, so that a second taking would take others
        jobs.enqueue(cell.stage.deed(key))
    cell.arm("CLM")
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle()
        cell.proxy.lift()
    return set("abcdefgh"), 0


def finish(cell: Cell) -> tuple[set[str], int]:
    """ACK: the result is cut."""
    jobs = cell.through()
    for key in "ab":
        jobs.enqueue(cell.stage.deed(key))
    cell.arm("ACK")
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle()
        cell.proxy.lift()
    return {"a", "b"}, 0


def retry(cell: Cell) -> tuple[set[str], int]:
    """RTY: the move of a failed job to waiting is cut; attempt counts once."""
    jobs = cell.through()
    jobs.enqueue(cell.stage.deed("fails", fails=1))
    cell.arm("RTY")
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle()
        cell.proxy.lift()
    attempts = [entry.attempt for entry in cell.stage.ledger.entries("start")]
    assert sorted(set(attempts)) == [1, 2], f"attempt counts each failure once, not {attempts}"
    return {"fails"}, 0


def bury(cell: Cell) -> tuple[set[str], int]:
    """DLQ: the move of a job without retries to dead is cut."""
    jobs = cell.through()
    jobs.enqueue(cell.stage.deed("doomed", fails=99), retry=0)
    cell.arm("DLQ")
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle(dead=1)
        cell.proxy.lift()
    [record] = cell.stage.jobs().dead()
    assert record.attempt == 1
    assert "as it was told to" in (record.error or "")
    return set(), 1


def rescue(cell: Cell) -> tuple[set[str], int]:
    """REC: somebody claimed jobs and is gone; the runner's request that takes them back is cut."""
    jobs = cell.through()
    for key in "abc":
        jobs.enqueue(cell.stage.deed(key))
    cell.stage.orphan(2)
    cell.arm("REC")
    with cell.stage.worker(jobs, lease=cell.lease):
        cell.await_cut()
        cell.stage.settle()
        cell.proxy.lift()
    assert cell.stage.counters()[b"rescued"] == 2
    return {"a", "b", "c"}, 0


def extend(cell: Cell) -> tuple[set[str], int]:
    """HB: a job runs for longer than a lease; a beat is cut; nobody takes the job away."""
    jobs = cell.through()
    gate = cell.stage.gate()
    jobs.enqueue(cell.stage.deed("long", gate=str(gate)))
    with cell.stage.worker(jobs, lease=cell.lease):
        await_that(lambda: cell.stage.ledger.runs()["long"], "the job running")
        with cell.stage.worker(cell.stage.jobs(), lease=cell.lease):  # the other one watches
            cell.arm("HB")
            cell.await_cut()
            cell.stage.outlive(lease=cell.lease)
            gate.touch()
            cell.stage.settle()
        cell.proxy.lift()
    assert b"rescued" not in cell.stage.counters()
    return {"long"}, 0


def lock(cell: Cell) -> tuple[set[str], int]:
    """LCK: taking a lock is cut; it is held once, by us, and given back."""
    jobs = cell.through()
    cell.arm("LCK")
    with jobs.lock("report", ttl=30) as lease:
        cell.await_cut()
        cell.proxy.lift()
        assert not lease.lost
        assert not cell.stage.jobs().lock("report", ttl=30).run(pytest.fail, "two holders")
        first = lease.fence
    with cell.stage.jobs().lock("report", ttl=30) as lease:
        assert lease.fence > first
    return set(), 0


def unlock(cell: Cell) -> tuple[set[str], int]:
    """LCK, its other half: giving the lock back is cut; a late drop does not take it from the next holder."""
    jobs = cell.through()
    cell.arm("UNL")
    with jobs.lock("report", ttl=30):
        pass
    with cell.stage.jobs().lock("report", ttl=30):
        cell.await_cut()
        cell.proxy.lift()
        assert not cell.stage.jobs().lock("report", ttl=30).run(pytest.fail, "two holders")
    return set(), 0


def stop(cell: Cell) -> tuple[set[str], int]:
    """SHD: the hand-back of what still runs after the grace time is cut; another runner gets it at once."""
    jobs = cell.through()
    gate = cell.stage.gate()
    jobs.enqueue(cell.stage.deed("long", gate=str(gate)))
    cell.arm("SHD")
    with cell.stage.worker(jobs, grace=0, lease=30):
        await_that(lambda: cell.stage.ledger.runs()["long"], "the job running")
    cell.await_cut()
    assert cell.stage.sizes()["working"] == 0, "a stopped runner holds nothing"
    cell.proxy.lift()
    gate.touch()
    with cell.stage.worker(cell.stage.jobs(), lease=cell.lease):
        cell.stage.settle()
    return {"long"}, 0


def close(cell: Cell) -> tuple[set[str], int]:
    """SHD, its other half: the request after which nothing is known of the runner's claims is cut.

    Nobody waits for its answer. It arrives, if it is late, behind that of another runner.
    """
    jobs = cell.through()
    cell.arm("CLO")
    for key in "ab":
        with cell.stage.worker(jobs, lease=cell.lease):
            jobs.enqueue(cell.stage.deed(key))
            cell.stage.settle()
    cell.await_cut()
    cell.proxy.lift()
    return {"a", "b"}, 0


SCENES: Final[dict[str, Callable[[Cell], tuple[set[str], int]]]] = {
    "ENQ": enqueue,
    "PRO": promote,
    "CLM": claim,
    "ACK": finish,
    "RTY": retry,
    "DLQ": bury,
    "REC": rescue,
    "HB": extend,
    "LCK": lock,
    "LCK2": unlock,
    "SHD": stop,
    "SHD2": close,
}


def judge(cell: Cell, step: str, accepted: set[str], dead: int, *, again: bool = False) -> None:
    """Fail unless the fault happened and the ledger and the storage show what was promised.

    Args:
        cell: After its scene.
        step: Which scene.
        accepted: The jobs that it had accepted.
        dead: How many ended dead.
        again: Whether a job may have been run once more.
    """
    rule = cell.rule
    assert rule is not None
    assert rule.hit, "the fault did not happen, so nothing was tested"
    ledger = cell.stage.ledger
    if dead:
        assert ledger.runs()["doomed"] <= 1 + again
        assert not ledger.runs("end")
    else:
        runs = {"fails": 2, "long": 1 if step == "HB" else 2}
        ledger.check(accepted, runs=runs, again=accepted if again else ())
    assert len(cell.stage.check_contents()) == dead
