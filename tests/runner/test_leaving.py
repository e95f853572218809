"""The end of a process whose jobs have left something behind that would keep it alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobqueue import JobQueue
from jobqueue.storage.memory import MemoryStorage
from tests.faults.ledger import PATIENCE, await_that
from tests.runner.running import running

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


# ---------------------------------------------------------------------------------------------- tasks on the runner's loop


def test_tasks_that_jobs_left_on_the_loop_end_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """As with `asyncio.run` they are cancelled and get to their `finally`. Nothing complains of those that go on."""
    caplog.set_level(logging.INFO)
    ended: list[str] = []
    begun = threading.Semaphore(0)
    left: list[asyncio.Task[None]] = []

    async def tidy() -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tidy")

    async def stubborn() -> None:
        begun.release()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    with JobQueue(storage=MemoryStorage(), namespace="left") as jobs:

        @jobs.job(name="leaves")
        async def leaves() -> None:
            left.append(asyncio.create_task(tidy()))
            await asyncio.sleep(0)

        @jobs.job(name="stays")
        async def stays() -> None:
            await stubborn()

        jobs.enqueue_many([leaves.call(), stays.call()])
        with running(jobs, grace=0.1) as runner:
            begun.acquire(timeout=PATIENCE)
            begun.acquire(timeout=PATIENCE)
            await_that(lambda: runner.status.done == 1, "the job that leaves a task has ended")
    assert ended == ["tidy"]
    left.clear()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
