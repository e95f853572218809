"""What happens in a soak: a server, supervised runners, a producer, and faults."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import psutil

from benchmarks.soak.jobs import LEDGER, Ledger, jobs, work
from jobqueue import NotApplied, OutcomeUnknown, StorageError
from tests.servers import Server, start_server

__all__ = ["LEASE_S", "RUNNERS", "Sample", "Soak"]

ROOT: Final = Path(__file__).parents[2]
LEASE_S: Final = 3
RUNNERS: Final = 2
CALIBRATION: Final = 40_000
"""Jobs, the first half of which waits for the runners to be there."""
TURN_S: Final = 0.05
SAMPLE_S: Final = 1.0
DRAIN_S: Final = 60.0
"""How long the rest may take after the last fault."""


@attrs.frozen
class Sample:
    """One look, at a second of the run: MiB and jobs."""

    at: float
    runner: float
    server: float
    data: float
    done: int
    backlog: int


class Producer(threading.Thread):
    """Sends numbers at a rate; what was not stored, or not known to be, is sent again until it is."""

    def __init__(self, rate: float, first: int) -> None:
        super().__init__(name="producer")
        self.rate = rate
        self.sent = first
        self._over = threading.Event()

    def run(self) -> None:
        began, first = time.monotonic(), self.sent
        while not self._over.wait(TURN_S):
            wanted = first + int((time.monotonic() - began) * self.rate)
            # After a fault it catches up, but not with everything at once.
            wanted = min(wanted, self.sent + max(1, int(self.rate * TURN_S * 4)))
            if wanted > self.sent:
                _send(range(self.sent, wanted))
                self.sent = wanted

    def close(self) -> None:
        """Send no more; what is under way is brought to its end."""
        self._over.set()
        self.join()


def _send(numbers: range) -> None:
    send: Callable[[], Any] = lambda: jobs.enqueue_many([work.call(number) for number in numbers])  # noqa: E731
    while True:
        try:
            send()
        except (NotApplied, OutcomeUnknown) as error:
            records = error.records
            send = lambda: jobs.enqueue_records(records)  # noqa: B023, E731
            time.sleep(0.1)
        except StorageError:
            time.sleep(0.1)
        else:
            return


class Soak:
    """The server, the supervisor with its runners, the producer, the ledger and the faults of one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        self.server: Server = start_server("redis", args=("--appendonly", "yes", "--appendfsync", "everysec"))
        (folder / "ledger").mkdir()
        self.ledger = Ledger(folder / "ledger")
        self.samples: list[Sample] = []
        self.faults: list[tuple[float, str]] = []
        self.accepted = 0
        jobs.relocate(url=self.server.url)
        with (folder / "log").open("wb") as log:
            self.supervisor = subprocess.Popen(
                [
                    sys.executable, "-m", "jobqueue", "run", "benchmarks.soak.jobs:jobs", "--url", self.server.url,
                    "--processes", str(RUNNERS), "--threads", "4", "--lease", str(LEASE_S), "--log-level", "error",
                ],
                cwd=ROOT, env={**os.environ, LEDGER: str(folder / "ledger")}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def close(self) -> None:
        """End everything that was started."""
        runners = self._runners()
        self.supervisor.kill()
        self.supervisor.wait()
        for runner in runners:
            with contextlib.suppress(psutil.NoSuchProcess):
                runner.kill()
        jobs.close()
        self.server.stop()

    def _runners(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.supervisor.pid).children()
        except psutil.NoSuchProcess:
            return []

    # ---------------------------------------------------------------------------------------------------------- faults

    def _kill_runner(self) -> None:
        self._one_runner().kill()

    def _pause_runner(self) -> None:
        runner = self._one_runner()
        runner.suspend()

        def resume() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                runner.resume()

        timer = threading.Timer(LEASE_S * 1.5, resume)
        timer.daemon = True
        timer.start()

    def _one_runner(self) -> psutil.Process:
        return self._chance.choice(self._runners())

    def _cut_all(self) -> None:
        self._ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _cut_one(self) -> None:
        client: Any = self.server.client()
        ids = [one["id"] for one in client.client_list() if one["id"] != str(client.client_id())]
        client.close()
        if ids:
            self._ask("CLIENT", "KILL", "ID", self._chance.choice(ids))

    def _flush_scripts(self) -> None:
        self._ask("SCRIPT", "FLUSH", "SYNC")

    def _stall(self) -> None:
        self._ask("CLIENT", "PAUSE", "1000", "ALL")

    def _restart_server(self) -> None:
        self.server.kill()
        time.sleep(0.5)
        self.server.restart()

    def _ask(self, *words: str) -> None:
        client: Any = self.server.client()
        client.execute_command(*words)
        client.close()

    @property
    def kinds(self) -> dict[str, Callable[[], None]]:
        """The faults by name."""
        return {
            "a runner killed": self._kill_runner, "a runner stopped past its lease": self._pause_runner,
            "all connections cut": self._cut_all, "one connection cut": self._cut_one,
            "scripts flushed": self._flush_scripts, "calls stalled for 1 s": self._stall,
            "the server killed and restarted": self._restart_server,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------- run

    def warm_up(self) -> float:
        """Wait for the runners and let them drain jobs on their own; answers how many a second they did.

        Raises:
            TimeoutError: They did not drain them; with the end of their log.
        """
        _send(range(CALIBRATION // 2))
        self.accepted = CALIBRATION // 2
        started = self._await_all(DRAIN_S)
        done, began = self.ledger.runs, time.monotonic()
        _send(range(CALIBRATION // 2, CALIBRATION))
        self.accepted = CALIBRATION
        if not (started and self._await_all(DRAIN_S)):
            log = (self._folder / "log").read_text(errors="replace")
            raise TimeoutError(f"the runners did not drain {CALIBRATION} jobs:\n{log[-2000:]}")
        return (self.ledger.runs - done) / (time.monotonic() - began)

    def _await_all(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.ledger.missing(self.accepted):
            if time.monotonic() > end:
                return False
            time.sleep(TURN_S)
            self.ledger.look()
        return True

    def run(self, rate: float, seconds: float, every: float, say: Callable[[str], None]) -> None:
        """Send and disturb for so long, then wait for the rest."""
        producer = Producer(rate, self.accepted)
        producer.start()
        began = time.monotonic()
        order: list[str] = []
        next_fault, next_word = every, 30.0
        while (at := time.monotonic() - began) < seconds:
            self.ledger.look()
            self._sample(at, producer.sent)
            if at >= next_fault and at < seconds - every:
                if not order:  # each of them once before any comes again
                    order = self._chance.sample(list(self.kinds), len(self.kinds))
                name = order.pop()
                if self._runners():
                    self.kinds[name]()
                    self.faults.append((at, name))
                next_fault = at + every
            if at >= next_word:
                say(f"{at:.0f} s: {self.ledger.runs:,} runs, {producer.sent - self.ledger.runs:,} behind")
                next_word += 30
            time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - began - at)))
        producer.close()
        self.accepted = producer.sent
        self._await_all(DRAIN_S)

    def _sample(self, at: float, sent: int) -> None:
        client: Any = self.server.client()
        try:
            data = client.info("memory")["used_memory"] / 2**20
            server = psutil.Process(self.server.pid).memory_info().rss / 2**20
            # Of the runners the largest: one that was started a moment ago would hide another that grows.
            runner = max((process.memory_info().rss for process in self._runners()), default=0) / 2**20
        except (psutil.NoSuchProcess, OSError, StorageError):
            return
        finally:
            client.close()
        done = len(self.ledger.counts) - self.ledger.counts.count(0)
        self.samples.append(
            Sample(at, runner, server, data, done, max(0, sent - done))
        )  # done before the producer has heard that it is stored

    def left(self) -> int:
        """Jobs that the storage still has, in any place."""
        return sum(count.waiting + count.ready + count.working + count.dead for count in jobs.counts().values())
