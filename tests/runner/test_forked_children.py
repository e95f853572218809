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
