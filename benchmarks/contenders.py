"""Who is measured: jobqueue twice, the ceiling, and other queues, each with its command line and its virtual environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

import attrs

__all__ = ["CEILING", "CONTENDERS", "COROUTINES", "FUNCTIONS", "OTHERS", "Contender", "set_up"]


@attrs.frozen
class Contender:
    """A queue, or the ceiling.

    Attributes:
        name: What it is called in tables; its module in `benchmarks.queues` is ``module``.
        module: See above.
        worker: The words of its worker's command line; ``{concurrency}`` is replaced. The first is a program of its virtual
            environment.
        concurrency: Jobs that a worker runs at a time in the throughput runs: the fastest of those tried.
        many: Whether it has a call that sends many jobs.
        jobs: How many jobs it drains in a round: a second or two of work.
        packages: What is installed, the queue itself first; nothing for those that run in our own environment.
        environment: What is set for speed, in the throughput runs only.
        tuned: More words for the throughput runs only.
    """

    name: str
    module: str
    worker: tuple[str, ...]
    concurrency: int
    many: bool
    jobs: int
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    tuned: tuple[str, ...] = ()

    def folder(self, environments: Path) -> Path:
        """Where its programs are."""
        return environments / self.module / "bin" if self.packages else Path(sysconfig.get_path("scripts"))

    def installed(self, environments: Path) -> bool:
        """Whether it can be measured here."""
        return (self.folder(environments) / "python").exists()

    def version(self, environments: Path) -> str:
        """The version of its first package."""
        if not self.packages:
            return metadata.version("jobqueue" if self.module != "bare" else "redis")
        said = f"import importlib.metadata as m; print(m.version({self.packages[0]!r}))"
        command = [str(self.folder(environments) / "python"), "-c", said]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        return told.stdout.strip()

    def command(self, environments: Path, concurrency: int, *, tuned: bool) -> list[str]:
        """The command line of a worker."""
        program, *words = (word.format(concurrency=concurrency) for word in self.worker)
        return [str(self.folder(environments) / program), *words, *(self.tuned if tuned else ())]


_RUN: Final = (
    "jobqueue",
    "run",
    "--log-level",
    "warning",
    "--threads",
    "{concurrency}",
    "--coroutines",
    "{concurrency}",
)
_COMMON: Final = ("redis", "hiredis", "uvloop")

FUNCTIONS: Final = Contender("jobqueue", "ours", (*_RUN, "benchmarks.queues.ours:jobs"), 4, many=True, jobs=100_000)
COROUTINES: Final = Contender(
    "jobqueue (coroutines)", "ours_async", (*_RUN, "benchmarks.queues.ours_async:jobs"), 400, many=True, jobs=60_000,
    tuned=("--uvloop",),
)  # fmt: skip
CEILING: Final = Contender("ceiling", "bare", ("python", "-m", "benchmarks.queues.bare"), 1, many=True, jobs=100_000)
OTHERS: Final = (
    Contender(
        "dramatiq", "dramatiq", ("dramatiq", "benchmarks.queues.dramatiq", "--processes", "1", "--threads", "{concurrency}"),
        2, many=False, jobs=10_000, packages=("dramatiq", *_COMMON), environment={"dramatiq_queue_prefetch": "1000"},
    ),
    Contender(
        "huey", "huey", ("huey_consumer", "benchmarks.queues.huey.app", "-w", "{concurrency}", "-k", "thread", "-q"),
        1, many=False, jobs=10_000, packages=("huey", *_COMMON),
    ),
    Contender(
        "taskiq", "taskiq",
        ("taskiq", "worker", "benchmarks.queues.taskiq:app", "--workers", "1", "--log-level", "WARNING",
         "--max-async-tasks", "{concurrency}"),
        100, many=False, jobs=8_000, packages=("taskiq-redis", "taskiq", *_COMMON), tuned=("--max-prefetch", "0"),
    ),
    Contender(
        "bullmq", "bullmq", ("python", "-m", "benchmarks.queues.bullmq"), 10, many=True, jobs=6_000,
        packages=("bullmq", *_COMMON),
    ),
    Contender(
        "celery", "celery",
        ("celery", "-A", "benchmarks.queues.celery:app", "worker", "-P", "threads", "-c", "{concurrency}", "-l", "ERROR"),
        4, many=False, jobs=3_000, packages=("celery", *_COMMON),
        tuned=("--prefetch-multiplier", "128", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
)  # fmt: skip
CONTENDERS: Final = {one.name: one for one in (FUNCTIONS, COROUTINES, CEILING, *OTHERS)}


def set_up(environments: Path, names: list[str]) -> None:
    """Make a virtual environment for each of these queues, with the newest version it asks for.

    Raises:
        CalledProcessError: pip failed; what it said is on standard error.
    """
    for one in OTHERS:
        if not names or one.name in names:
            print(f"{one.name} → {environments / one.module}", file=sys.stderr)
            subprocess.run([sys.executable, "-m", "venv", environments / one.module], check=True)
            subprocess.run([one.folder(environments) / "pip", "install", "-q", *one.packages], check=True)
