"""F7: a job that holds the interpreter's lock for longer than a lease, so that no thread of its runner can beat."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.faults.apps.grip import declare
from tests.faults.ledger import Ledger, await_that
from tests.faults.stage import LEASE, NAMESPACE
from tests.servers import Server

_ROOT: Final = Path(__file__).parents[2]


def _runner(server: Server, ledger: Path, seconds: float, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as told:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.apps.grip", server.url, str(ledger), str(seconds)],
            stderr=told,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            cwd=_ROOT,
        )


def test_fault_a_job_that_holds_the_lock(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    jobs = declare(server.url, path, 0)
    [record] = jobs.enqueue_many([jobs.registry.get("grip").decode(b'{"key":"a"}')])  # type: ignore[union-attr]
    runners = [_runner(server, path, 10 * LEASE, tmp_path / "gripped.log")]
    try:
        await_that(lambda: ledger.entries("start"), "the job holds the lock")
        runners.append(_runner(server, path, 0, tmp_path / "free.log"))

        # The second runner gets the job while the first still holds it, and ends it; the first one's end is discarded.
        await_that(lambda: len(ledger.entries("end")) == 2, "both runs ended")
        await_that(lambda: jobs.get(record.id) is None, "the job was forgotten")
        log = tmp_path / "gripped.log"
        await_that(lambda: "its result is discarded" in log.read_text(), "the late result was refused")
        await_that(lambda: "a beat came" in log.read_text(), "the late beat was logged")
    finally:
        for runner in runners:
            runner.send_signal(signal.SIGTERM)
        codes = [runner.wait(20) for runner in runners]
        jobs.close()

    assert codes == [0, 0]
    lengths = [float(found) for found in re.findall(r"a beat came (\d+\.\d) s late", log.read_text())]
    assert 9 * LEASE < max(lengths) < 30 * LEASE, "with its length: the lock was held for ten leases"
    starts = [entry.fence for entry in ledger.entries("start")]
    assert len(starts) == 2
    assert starts[0] < starts[1]
    assert [entry.fence for entry in ledger.entries("end")] == [starts[1], starts[0]]
    client = server.client()
    assert client.hget(f"{{{NAMESPACE}:low}}:counters", "done") == b"1"
    client.close()
