"""`jobqueue run` as PID 1, as in a container: orphans are waited for, exit codes stay with whoever asks for them."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.ledger import PATIENCE
from tests.servers import Server, kinds

ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child")
APP = '''
import os, pathlib, signal, subprocess, threading
from jobqueue import JobQueue

jobs = JobQueue(namespace="first")


def ended(pid):
    """Whether a process is gone; a zombie is not."""
    pause = threading.Event()
    for _ in range(1_000):
        if not pathlib.Path(f"/proc/{pid}").exists():
            return True
        pause.wait(0.01)
    return False


@jobs.job
def orphans(count: int) -> None:
    assert os.getpid() != 1
    for _ in range(count):
        # Its parent ends at once; it is PID 1's child then, and ends some time later.
        shell = subprocess.run(["sh", "-c", "sleep 0.02 >/dev/null & echo $!; exit 7"], capture_output=True)
        assert shell.returncode == 7
        assert ended(int(shell.stdout)), "a zombie"
    print(f"{count} orphans", flush=True)


@jobs.job
def signals(name: str) -> None:
    os.kill(1, getattr(signal, name))
    print(name, flush=True)
'''


@functools.cache
def may_be_first() -> bool:
    """Whether this machine lets a test have process ids of its own."""
    if shutil.which(NAMESPACE[0]) is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


class Container:
    """A folder with the application above, on a server."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.env = {**os.environ, "JOBQUEUE_URL": url, "PYTHONPATH": str(ROOT)}
        (folder / "contained.py").write_text(APP)

    def enqueue(self, calls: str) -> None:
        """Run statements where the jobs can be named."""
        self.do([sys.executable, "-c", f"from contained import *; {calls}"])

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run as the first process."""
        return self.do([*NAMESPACE, sys.executable, "-m", "jobqueue", "run", "contained:jobs", *options], check=False)

    def do(self, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A process in the folder."""
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=check, timeout=PATIENCE
        )


@pytest.fixture
def container(tmp_path: Path, running_servers: Callable[[str], Server]) -> Container:
    """One, where that is possible."""
    if not may_be_first():
        pytest.skip("this machine gives a test no process ids of its own")
    server = running_servers(kinds()[0])
    server.flush()
    return Container(tmp_path, server.url)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_orphans_are_waited_for_and_exit_codes_stay(container: Container, processes: str) -> None:
    container.enqueue("orphans.opts(retry=0).enqueue(5)")
    done = container.run("--burst", "--processes", processes)
    assert (done.stdout, done.returncode) == ("5 orphans\n", 0), done.stderr


@pytest.mark.parametrize(("name", "processes"), [("SIGTERM", "1"), ("SIGINT", "2")])
def test_a_signal_reaches_the_runner(container: Container, name: str, processes: str) -> None:
    container.enqueue(f"signals.enqueue({name!r})")
    done = container.run("--processes", processes)
    assert (done.stdout, done.returncode) == (f"{name}\n", 0), done.stderr
    assert "stopping" in done.stderr


def test_the_exit_code_is_that_of_the_runner(container: Container) -> None:
    # One that nobody ignores: a shell lets what it starts in the background ignore SIGINT and SIGQUIT.
    container.enqueue("signals.enqueue('SIGUSR1')")
    assert container.run().returncode == 128 + signal.SIGUSR1
