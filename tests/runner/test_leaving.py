"""The end of a process whose jobs have left something behind that would keep it alive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.faults.ledger import PATIENCE

APP = """
import atexit, concurrent.futures, multiprocessing, os, signal, sys, threading
from jobqueue import JobQueue, Runner
from jobqueue.runner import leaving

leaving.LAST_S = 0.2

jobs = JobQueue("memory://", namespace="test")
executor = concurrent.futures.ThreadPoolExecutor(2)
for_ever = threading.Event()

def sleep() -> None:
    for_ever.wait()

@jobs.job(name="leaves")
def leaves(what: str) -> None:
    if what == "executor":
        executor.submit(for_ever.wait)
    elif what == "idle":
        executor.submit(int).result()
    elif what == "thread":
        threading.Thread(target=for_ever.wait, name="left", daemon=False).start()
    elif what == "process":
        multiprocessing.get_context("fork").Process(target=sleep, name="left").start()
    elif what == "atexit":
        atexit.register(for_ever.wait)
    elif what == "stdout":
        sys.stdout.close()
        os.close(1)
        gate.set()
        for_ever.wait()
    gate.set()

gate = threading.Event()
leaves.enqueue(sys.argv[1])
runner = Runner(jobs, threads=1, grace=float(sys.argv[2]))

def stop() -> None:
    gate.wait()
    while runner.status.done + (sys.argv[1] == "stdout") < 1:
        threading.Event().wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop, daemon=True).start()
runner.run()
os.write(2, b"the program goes on\\n")
"""


LEFT = ("executor", "thread", "process", "atexit")


def test_what_jobs_left_behind_keeps_no_process_alive(tmp_path: Path) -> None:
    """After the grace time, and not before the program has ended; an idle executor ends by itself."""
    programs: dict[str, subprocess.Popen[bytes]] = {}
    codes = {}
    try:
        for what in (*LEFT, "idle", "stdout"):
            command = [sys.executable, "-W", "ignore", "-c", APP, what, "600" if what == "idle" else "0.2"]
            with (tmp_path / what).open("wb") as said:
                programs[what] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, process_group=0)
        for what, program in programs.items():
            codes[what] = program.wait(PATIENCE)
    finally:
        for program in programs.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)  # also what was left behind
            program.wait()
    assert codes == dict.fromkeys(programs, 0)
    said_by = {what: (tmp_path / what).read_text() for what in programs}
    assert [what for what, text in said_by.items() if "the program goes on" in text] == [*LEFT, "idle"]
    assert [what for what, text in said_by.items() if "what jobs have left behind still runs" in text] == [*LEFT]
