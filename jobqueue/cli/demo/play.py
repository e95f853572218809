"""The demo itself: enqueue, start runners, kill one half-way, wait for the end, compare."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

import jobqueue
from jobqueue.cli.demo.files import plain_loop
from jobqueue.cli.demo.jobs import LEDGER, count_file, jobs
from jobqueue.cli.demo.ledger import Entry, Halfway, Reader
from jobqueue.cli.demo.verdict import Verdict, judge
from jobqueue.cli.start import command, environment
from jobqueue.clock import monotonic_s
from jobqueue.errors import DeclarationError, JobQueueError

if TYPE_CHECKING:
    from jobqueue.looking import Counts

__all__ = ["DemoFailed", "Outcome", "QueueState", "Scene", "Settings", "play"]

QUEUES: Final = ("high", "low")
ONE_IN: Final = 10
"""One job in so many fails at first."""
SHOW_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.01
STOP_SECONDS: Final = 15.0
LOG_END: Final = 2000


class DemoFailed(JobQueueError):
    """The demo could not be played to its end."""


@attrs.frozen
class Settings:
    """What is played, and where.

    Attributes:
        paths: The files, the smallest first.
        url: The storage.
        namespace: Where in it; must be empty.
        folder: For the ledger and the logs; it exists, is empty, and no other user of the system may enter it.
        runners: How many processes.
        threads: Functions at a time in each.
        lease: Seconds.
        patience: Seconds without any progress after which the demo gives up.
    """

    paths: Sequence[str]
    url: str
    namespace: str
    folder: Path
    runners: int
    threads: int
    lease: float
    patience: float


@attrs.frozen
class QueueState:
    """How many jobs of a queue are where; ``done`` comes from the ledger, the others from the storage."""

    waiting: int
    ready: int
    working: int
    done: int
    dead: int


@attrs.frozen
class Scene:
    """What there is to be seen at one moment.

    Attributes:
        queues: The state of each queue.
        jobs: How many were enqueued.
        done: How many have a result.
        news: What happened so far, a sentence each.
    """

    queues: Mapping[str, QueueState]
    jobs: int
    done: int
    news: tuple[str, ...]


@attrs.frozen
class Outcome:
    """How it ended.

    Attributes:
        verdict: The comparison with the plain loop.
        dead: Jobs in the dead place.
        killed: The process that was killed, or None if that did not come about.
        done_before: Jobs that had a result when it was killed.
        cut_off: Runs that it had started and not ended.
        exit_codes: Of the runners that were stopped in the regular way.
        seconds: From the first job enqueued to the last one done.
        loop_seconds: What the plain loop took.
    """

    verdict: Verdict
    dead: int
    killed: int | None
    done_before: int
    cut_off: int
    exit_codes: tuple[int, ...]
    seconds: float
    loop_seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything is as promised."""
        return self.verdict.ok and not self.dead and self.killed is not None and not any(self.exit_codes)


def play(settings: Settings, show: Callable[[Scene], None]) -> Outcome:
    """Play the demo; when this returns or raises, its processes have ended.

    Args:
        settings: What and where.
        show: Called several times a second.

    Raises:
        DeclarationError: The namespace is not empty.
        DemoFailed: No runner is alive, or nothing happened for too long.
        StorageError: The storage did not do its part.
    """
    jobs.relocate(url=settings.url, namespace=settings.namespace)
    with jobs:
        stage = _Stage(settings, show)
        try:
            return stage.perform()
        finally:
            stage.clear()


class _Stage:
    def __init__(self, settings: Settings, show: Callable[[Scene], None]) -> None:
        self._settings = settings
        self._show = show
        self._runners: dict[int, subprocess.Popen[bytes]] = {}
        self._ledger = settings.folder / "ledger"
        self._entries: list[Entry] = []
        self._queue_of: dict[str, str] = {}
        self._path_of: dict[str, str] = {}
        self._done: dict[str, None] = {}
        self._killed: int | None = None
        self._done_before = 0
        self._news: list[str] = []

    def perform(self) -> Outcome:
        if any(sum(attrs.astuple(counts)) for counts in jobs.counts().values()):
            raise DeclarationError(f"the demo needs a namespace without jobs, and {jobs.namespace!r} holds some")
        self._ledger.mkdir(mode=0o700)
        began = monotonic_s()
        self._enqueue()
        for number in range(self._settings.runners):
            self._start_runner(number)
        self._watch(Reader(self._ledger), Halfway(self._ledger))
        seconds = monotonic_s() - began
        exit_codes = self._stop_runners()
        return self._compare(seconds, exit_codes)

    # ------------------------------------------------------------------------------------------------------ beginning

    def _enqueue(self) -> None:
        paths = self._settings.paths
        stumbling = min(3, len(paths) - 1)
        records = jobs.enqueue_many(
            count_file.opts(queue="high" if index < len(paths) // 2 else "low").call(
                path, stumbles=index % ONE_IN == stumbling, is_last=index == len(paths) - 1
            )
            for index, path in enumerate(paths)
        )
        for record, path in zip(records, paths, strict=True):
            self._queue_of[record.id] = record.queue
            self._path_of[record.id] = path
        self._tell(f"{len(records)} jobs enqueued, one per file; one in {ONE_IN} is going to fail in its first run")

    def _start_runner(self, number: int) -> None:
        settings = self._settings
        words = [
            # The ledger's folder holds nothing to import.
            *command("run", "jobqueue.cli.demo.jobs:jobs", "--app-dir", str(self._ledger)),
            *("--namespace", settings.namespace, "--queues", "high=2,low=1", "--threads", str(settings.threads)),
            *("--lease", str(settings.lease), "--grace", "5"),
        ]
        with open(settings.folder / f"runner-{number + 1}.log", "xb", opener=_for_this_user) as log:
            # A session of its own: Ctrl-C is for the demo, which then ends its runners. If the demo itself is killed,
            # the pipe that is their standard input tells them. The URL may hold a password, so it is no argument.
            runner = subprocess.Popen(  # noqa: S603 - this interpreter, and no shell
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=settings.folder,
                env=environment(JOBQUEUE_URL=settings.url, **{LEDGER: str(self._ledger)}),
                start_new_session=True,
            )
        self._runners[runner.pid] = runner
        self._tell(f"runner {number + 1} started as process {runner.pid}")

    # --------------------------------------------------------------------------------------------------------- middle

    def _watch(self, reader: Reader, halfway: Halfway) -> None:
        before: object = None
        changed = monotonic_s()
        while True:
            self._read_for(SHOW_SECONDS, reader, halfway)
            counts = jobs.counts()
            left = sum(one.waiting + one.ready + one.working for one in counts.values())
            if not left:
                self._read(reader)  # what was written before the last job left the queue
            self._show(self._scene(counts))
            if not left:
                return
            self._check_runners()
            now = monotonic_s()
            state = (counts, len(self._entries))
            if state != before:
                before, changed = state, now
            elif now - changed > self._settings.patience:
                raise DemoFailed(
                    f"nothing happened for {self._settings.patience:g} s and {left} jobs are left; {self._log_ends()}"
                )

    def _read_for(self, seconds: float, reader: Reader, halfway: Halfway) -> None:
        """Follow the ledger closely: several hundred jobs are done between two pictures."""
        until = monotonic_s() + seconds
        while monotonic_s() < until:
            self._read(reader)
            if 2 * len(self._done) >= len(self._queue_of) - 1 and not halfway.reached:
                halfway.announce()
            time.sleep(LOOK_SECONDS)

    def _read(self, reader: Reader) -> None:
        for entry in reader.new_entries():
            self._entries.append(entry)
            if entry.what == "counted" and entry.job in self._queue_of:
                self._done[entry.job] = None
            if entry.what == "halfway" and self._killed is None and entry.pid in self._runners:
                self._kill(entry.pid)

    def _kill(self, pid: int) -> None:
        runner = self._runners[pid]
        runner.kill()
        runner.wait()
        self._killed = pid
        self._done_before = len(self._done)
        self._tell(
            f"half-way, with {len(self._done)} jobs done, process {pid} was killed with SIGKILL; what it held comes back "
            f"when its lease of {self._settings.lease:g} s has run out"
        )

    def _check_runners(self) -> None:
        for pid, runner in list(self._runners.items()):
            if runner.poll() is not None and pid != self._killed:
                raise DemoFailed(f"runner process {pid} ended with exit code {runner.returncode}; {self._log_ends()}")

    def _log_ends(self) -> str:
        logs = sorted(self._settings.folder.glob("runner-*.log"))
        return "\n".join(
            f"the end of {log.name}:\n{log.read_text(errors='replace')[-LOG_END:].strip()}" for log in logs
        )

    def _tell(self, news: str) -> None:
        self._news.append(news)

    def _scene(self, counts: Mapping[str, Counts]) -> Scene:
        done = Counter(self._queue_of[id] for id in self._done)
        zero: Any = jobqueue.Counts(0, 0, 0, 0)
        queues = {}
        for name in QUEUES:
            one = counts.get(name, zero)
            queues[name] = QueueState(one.waiting, one.ready, one.working, done[name], one.dead)
        return Scene(queues, len(self._queue_of), len(self._done), tuple(self._news))

    # ------------------------------------------------------------------------------------------------------------ end

    def _stop_runners(self) -> tuple[int, ...]:
        living = [runner for pid, runner in self._runners.items() if pid != self._killed]
        for runner in living:
            runner.terminate()
        return tuple(_wait(runner) for runner in living)

    def _compare(self, seconds: float, exit_codes: tuple[int, ...]) -> Outcome:
        # Read anew and whole: what is judged is what is in the files, not what was seen on the way.
        entries = Reader(self._ledger).new_entries()
        began = monotonic_s()
        plain = plain_loop(self._settings.paths)
        loop_seconds = monotonic_s() - began
        results = {entry.job for entry in entries if entry.what == "counted"}
        still_known = [id for id in self._path_of if id not in results and jobs.get(id) is not None]
        own = [entry.what for entry in entries if entry.pid == self._killed]
        return Outcome(
            verdict=judge(self._path_of, still_known, entries, plain),
            dead=sum(counts.dead for counts in jobs.counts().values()),
            killed=self._killed,
            done_before=self._done_before,
            cut_off=own.count("started") - own.count("counted") - own.count("stumbled"),
            exit_codes=exit_codes,
            seconds=seconds,
            loop_seconds=loop_seconds,
        )

    def clear(self) -> None:
        """End what still runs, however the demo went."""
        for runner in self._runners.values():
            if runner.poll() is None:
                runner.terminate()
        for runner in self._runners.values():
            _wait(runner)
            assert runner.stdin is not None, "it was opened as a pipe"
            runner.stdin.close()


def _wait(runner: subprocess.Popen[bytes]) -> int:
    try:
        return runner.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        runner.kill()
        return runner.wait()


def _for_this_user(path: str, flags: int) -> int:
    """Open a file that, if it is made, other users of the system cannot read."""
    return os.open(path, flags, 0o600)
