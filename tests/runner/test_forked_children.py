"""What a job forks is no runner: signals do to it what they would do anywhere."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

APP = """
import os, signal, time
from jobqueue import JobQueue, Runner

jobs = JobQueue("memory://", namespace="test")

@jobs.job(name="forker")
def forker() -> None:
    hear, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"!")  # the interpreter forgets signals that come before it has looked around in the child
        for _ in range(6000):  # in short naps: a signal just before a long one would be seen after it
            time.sleep(0.01)
        os._exit(0)
    os.read(hear, 1)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    runner.stop()

forker.enqueue()
runner = Runner(jobs, threads=1)
runner.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_of_a_job_ends_when_it_is_told_to() -> None:
    command = [sys.executable, "-W", "ignore", "-c", APP]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == [str(-signal.SIGTERM)]


ENDS = """
import asyncio, os, sys, threading
from jobqueue import JobQueue, Runner

jobs = JobQueue("memory://", namespace="test")
RUNNER = os.getpid()

def fork(how: str) -> None:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        # In one piece: other threads and processes write as well.
        os.write(1, f"child of {how} left with {os.waitstatus_to_exitcode(status)}\\n".encode())
    elif how == "exits":
        sys.exit(0)
    elif how == "exits with 7":
        sys.exit(7)
    elif how == "says why":
        sys.exit("why")
    elif how == "raises":
        raise ValueError("in the child")

@jobs.job(name="thread")
def on_a_thread(how: str) -> None:
    fork(how)
    count(how)

@jobs.job(name="loop")
async def on_the_loop(how: str) -> None:
    fork(how)
    await asyncio.sleep(0)
    count(how)

@jobs.job(name="other")
async def other() -> None:
    while len(ended) < 10:
        if os.getpid() != RUNNER:
            print("another job went on in the child", flush=True)
            os._exit(9)
        await asyncio.sleep(0)

ended = []

def count(how: str) -> None:
    if os.getpid() == RUNNER:
        ended.append(how)
        if len(ended) == 10:
            runner.stop()

other.enqueue()
for job in (on_a_thread, on_the_loop):
    for how in ("returns", "exits", "exits with 7", "says why", "raises"):
        job.enqueue(how)
runner = Runner(jobs, threads=1)
runner.run()
print(runner.status.done)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_that_comes_to_the_end_of_its_job_is_no_runner() -> None:
    """It leaves as a program of its own would, and nothing of the runner goes on in it."""
    command = [sys.executable, "-W", "ignore", "-c", ENDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    codes = {"returns": 0, "exits": 0, "exits with 7": 7, "says why": 1, "raises": 1}
    assert sorted(lines[:-1]) == sorted(f"child of {how} left with {code}" for how, code in codes.items() for _ in "ab")
    assert lines[-1] == "11"
    assert "ValueError: in the child" in done.stderr
    assert "why" in done.stderr.splitlines()


TESTED = """
import os, sys
from jobqueue import JobQueue

jobs = JobQueue("memory://", namespace="test")

@jobs.job(name="forks")
def forks() -> None:
    child = os.fork()
    if child == 0:
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

with jobs.testing() as t:
    forks.enqueue()
    print(t.drain(), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_of_a_job_in_a_test_does_not_go_on_with_the_test() -> None:
    command = [sys.executable, "-W", "ignore", "-c", TESTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["3", "{'done': 1}"]
