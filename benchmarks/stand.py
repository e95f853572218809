"""The stand: a server of its own, a tally, and producers and workers of one contender as processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import attrs
import psutil

from benchmarks.contenders import Contender
from benchmarks.tally import FILE, Tally
from tests.servers import start_server

__all__ = ["ROOT", "Cost", "Stand", "median", "others_cores", "percentile", "raise_priority"]

ROOT: Final = Path(__file__).parents[1]
PATIENCE_S: Final = 180.0
PRIORITY: Final = -15
LOOK_S: Final = 0.02
SETTLE_S: Final = 1.5
"""After the start of a worker, until it is idle: consumer groups are made, modules imported."""


def raise_priority(pid: int) -> bool:
    """Put a process before others, with what it starts from now on, where that is permitted; answers whether it was.

    Where Linux groups processes by session, the niceness counts within the session only, and the group has one of its own.
    """
    try:
        psutil.Process(pid).nice(PRIORITY)
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(str(PRIORITY))
    except (psutil.AccessDenied, PermissionError):
        return False
    return True


def _busy() -> float:
    """Processor seconds that the whole machine has used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


@contextmanager
def others_cores(stand: Stand, told: list[float]) -> Iterator[None]:
    """Append how many cores processes that are not the stand's used while the block ran."""
    busy, own, began = _busy(), stand.processor_seconds(), time.monotonic()
    yield
    took = time.monotonic() - began
    told.append(max(0.0, (_busy() - busy) - (stand.processor_seconds() - own)) / took)


@attrs.frozen
class Cost:
    """What the server did between two looks.

    Attributes:
        commands: Commands, with those inside of scripts.
        reads: Reads from sockets, about the number of round trips.
        processor: Processor seconds.
        memory: Bytes that its data grew by.
    """

    commands: int
    reads: int
    processor: float
    memory: int


class Stand:
    """One contender on a server of its own.

    Args:
        contender: Who.
        environments: Where the virtual environments are.
        tuned: With the settings for speed; otherwise with its own defaults.
        distance: Milliseconds of round trip between the server and all others, by a relay that adds them; None for none.
    """

    def __init__(
        self, contender: Contender, environments: Path, *, tuned: bool = False, distance: float | None = None
    ) -> None:
        self.contender = contender
        self._environments = environments
        self._tuned = tuned
        self._folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.server = start_server("redis", port=True, args=("--slowlog-max-len", "10000"))
        if psutil.Process().nice() == PRIORITY:
            raise_priority(self.server.pid)  # it has a session of its own
        self.client: Any = self.server.client()
        self.url = f"{self.server.tcp_url}/0"
        self._relay: subprocess.Popen[str] | None = None
        if distance is not None:
            host, _, port = self.server.tcp_url.removeprefix("redis://").partition(":")
            words = [sys.executable, "-m", "benchmarks.relay", host, port, str(distance)]
            self._relay = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._relay.stdout is not None
            self.url = f"redis://127.0.0.1:{int(self._relay.stdout.readline())}/0"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.tally: Tally | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_workers(kill=True)
        if self._relay is not None:
            self._relay.communicate()
        self.client.close()
        self.server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ the server

    def look(self) -> Cost:
        """What the server has done so far."""
        info = self.client.info("all")
        calls = sum(
            value["calls"] for name, value in info.items() if name.startswith("cmdstat_") and name != "cmdstat_info"
        )
        processor = info["used_cpu_user"] + info["used_cpu_sys"]
        return Cost(calls, info["total_reads_processed"], processor, info["used_memory"])

    def since(self, before: Cost) -> Cost:
        """What it has done since; this look and that one not counted."""
        now = self.look()
        return Cost(
            now.commands - before.commands, now.reads - before.reads - 1, now.processor - before.processor,
            now.memory - before.memory,
        )  # fmt: skip

    def go_away(self, milliseconds: float) -> None:
        """Set the distance."""
        assert self._relay is not None
        assert self._relay.stdin is not None
        self._relay.stdin.write(f"{milliseconds}\n")
        self._relay.stdin.flush()

    def watch_for_slow_calls(self) -> None:
        """Note calls above a millisecond from now on."""
        self.client.config_set("slowlog-log-slower-than", 1000)
        self.client.slowlog_reset()

    def slowest(self) -> float:
        """The longest call at the server since, in milliseconds; 1 if there was none above it."""
        return max((entry["duration"] for entry in self.client.slowlog_get(10_000)), default=1000) / 1000

    # ------------------------------------------------------------------------------------------------------- processes

    def _environment(self, concurrency: int) -> dict[str, str]:
        here = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "PYTHON"))}
        return {
            **here, **(self.contender.environment if self._tuned else {}), "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1", "BENCH_URL": self.url, "BENCH_CONCURRENCY": str(concurrency),
            FILE: str(self._folder / "tally"),
        }  # fmt: skip

    def expect(self, jobs: int) -> Tally:
        """A new tally for so many jobs; before the workers are started."""
        self.tally = Tally(self._folder / "tally", jobs)
        return self.tally

    def produce(self, mode: str, jobs: int, seconds: float = 0.0, lengths: list[float] | None = None) -> dict[str, Any]:
        """Run the producer (see `benchmarks.producer`); answers what it told."""
        python = self.contender.folder(self._environments) / "python"
        words = [str(python), "-m", "benchmarks.producer", self.contender.module, mode, str(jobs), str(seconds)]
        ended = subprocess.run(
            words, env=self._environment(10), cwd=self._folder, capture_output=True, text=True, check=False,
            input="\n".join(map(str, lengths or ())), timeout=PATIENCE_S,
        )  # fmt: skip
        if ended.returncode != 0 or not ended.stdout:
            raise RuntimeError(f"the producer of {self.contender.name} failed:\n{ended.stderr[-2000:]}")
        told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return told

    def start_worker(self, concurrency: int | None = None, words: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a worker, with more words on its command line if there are any."""
        size = self.contender.concurrency if concurrency is None else concurrency
        command = [*self.contender.command(self._environments, size, tuned=self._tuned), *words]
        with (self._folder / "log").open("ab") as log:
            worker = subprocess.Popen(
                command, env=self._environment(size), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def stop_workers(self, *, kill: bool = False) -> None:
        """End the workers and their children, with SIGTERM first unless ``kill``."""
        tree = self._tree()
        if not kill:
            for worker in self.workers:
                worker.send_signal(signal.SIGTERM)
            psutil.wait_procs(tree, timeout=3)
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        for worker in self.workers:
            worker.wait()
        self.workers = []

    def _tree(self) -> list[psutil.Process]:
        found = []
        for worker in self.workers:
            try:
                process = psutil.Process(worker.pid)
                found += [process, *process.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    @staticmethod
    def _seconds(processes: list[psutil.Process]) -> float:
        spent = 0.0
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent += times.user + times.system
        return spent

    def processor_seconds(self) -> float:
        """Processor seconds of this process, those of its children that have ended, the server and the workers."""
        own = psutil.Process().cpu_times()
        ended = own.children_user + own.children_system
        return self._seconds([*self._tree(), psutil.Process(self.server.pid)]) + own.user + own.system + ended

    def worker_seconds(self) -> float:
        """Processor seconds of the workers."""
        return self._seconds(self._tree())

    def memory(self) -> float:
        """Resident MiB of the workers and their children."""
        return float(sum(process.memory_info().rss for process in self._tree())) / 2**20

    # --------------------------------------------------------------------------------------------------------- waiting

    def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        """Look until it holds.

        Raises:
            TimeoutError: It did not in time; with the end of the workers' log.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                path = self._folder / "log"
                log = path.read_text(errors="replace")[-1500:] if path.exists() else ""
                raise TimeoutError(f"{self.contender.name}: {what} did not happen in {seconds:.0f} s\n{log}")
            time.sleep(LOOK_S)

    def until_done(self, jobs: int, seconds: float = PATIENCE_S) -> None:
        """Wait until so many jobs are done."""
        marks = self.tally
        assert marks is not None
        self.until(lambda: marks.done() >= jobs, f"the end of {jobs} jobs ({marks.done()} are done)", seconds)

    def settle(self) -> None:
        """Wait until workers that have just been started are idle."""
        time.sleep(SETTLE_S)


def median(values: list[float]) -> float:
    """The median; 0 of none."""
    return statistics.median(values) if values else 0.0


def percentile(values: list[float], part: float) -> float:
    """The value below which this part of them is."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
