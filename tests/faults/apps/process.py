"""A process that meets its fate at a named point: ``python -m tests.faults.apps.process ROLE URL LEDGER``.

The environment's ``FAULT`` says where: ``CLM:before:1:9`` sends signal 9 to itself before the first claim is sent; several
are separated by commas. The library knows nothing of it: the storage is wrapped here.

Roles: ``run`` a runner, ``enqueue`` one job, ``lock`` and hold until the end of standard input's first line.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from jobqueue import JobQueue, Runner
from jobqueue.access import Access
from jobqueue.backend import RedisBackend
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.redis import open_redis
from jobqueue.storage.wrappers import Over
from tests.faults.apps.deeds import QUEUE, Deed, declare
from tests.faults.ledger import Ledger
from tests.faults.stage import LEASE, NAMESPACE
from tests.faults.steps import step_of

FAULT = "FAULT"


class Fate:
    """Counts the steps of the whole process and sends signals at the one it is waiting for."""

    def __init__(self, text: str, ledger: Ledger) -> None:
        step, when, nth, numbers = text.split(":")
        self._step, self._when, self._nth = step, when, int(nth)
        self._signals = [signal.Signals(int(number)) for number in numbers.split("+")]
        self._ledger = ledger
        self._mutex = threading.Lock()

    def met(self, steps: set[str | None], when: str) -> None:
        if self._step not in steps or when != self._when:
            return
        with self._mutex:
            self._nth -= 1
            if self._nth:
                return
        self._ledger.write(f"cut-{self._step}", "process")
        for number in self._signals:
            # To this very thread: the system may give a signal to any.
            signal.pthread_kill(threading.get_ident(), number)


class FatefulStorage(Over):
    """Passes everything on, unless fate has it otherwise."""

    def __init__(self, storage: Storage, fates: Sequence[Fate]) -> None:
        super().__init__(storage)
        self._fates = fates

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        steps = {step_of(batch) for batch in batches}
        for fate in self._fates:
            fate.met(steps, "before")
        outcomes = self._storage.apply(batches)
        for fate in self._fates:
            fate.met(steps, "after")
        return outcomes


class FatefulBackend(RedisBackend):
    """Makes such storages."""

    def __init__(self, url: str, fates: Sequence[Fate]) -> None:
        super().__init__(open_redis(url))
        self._fates = fates
        self.timeout = None  # its storages do not bound their calls

    def storage(self) -> Storage:
        return FatefulStorage(super().storage(), self._fates)


def main(role: str, url: str, path: str, *rest: str) -> None:
    """Play the role."""
    ledger = Ledger(Path(path))
    fates = [Fate(text, ledger) for text in os.environ.get(FAULT, "").split(",") if text]
    jobs = declare(JobQueue(url, namespace=NAMESPACE))
    jobs.access = Access(NAMESPACE, lambda: FatefulBackend(url, fates))
    if role == "enqueue":
        jobs.enqueue(Deed(rest[0], path))
        ledger.write("accepted", rest[0])
    elif role == "lock":
        with jobs.lock("report", ttl=float(rest[0])) as lease:
            ledger.write("held", "lock", lease.fence)
            sys.stdin.readline()
            ledger.write("lost" if lease.lost else "kept", "lock", lease.fence)
        ledger.write("gave", "lock", lease.fence)
    else:
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        Runner(jobs, threads=4, lease=float(rest[0]) if rest else LEASE, grace=float(rest[1]) if rest[1:] else 5.0,
               queues=[QUEUE]).run()  # fmt: skip


def _leave_with_parent() -> None:
    os.read(0, 1)  # nobody writes there: it ends when the test process does
    os._exit(3)


if __name__ == "__main__":
    main(*sys.argv[1:])
