"""What really happened, written down by the jobs themselves, in a file that no storage knows of."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

__all__ = ["PATIENCE", "Entry", "Ledger", "await_that"]

PATIENCE: Final = 20.0
"""Seconds after which something that has to happen counts as not happening; much more than any bound in the tests."""
_LOOK: Final = 0.01


def await_that(condition: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
    """Return as soon as the condition holds; fail if it does not within some seconds."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        pause.wait(_LOOK)


@attrs.frozen
class Entry:
    """One line.

    Attributes:
        event: ``start`` or ``end`` of a run, or what else a job has to say.
        key: The job, by the name that the test gave it.
        fence: Of the claim.
        attempt: 1 for the first.
        pid: The process.
    """

    event: str
    key: str
    fence: int
    attempt: int
    pid: int


class Ledger:
    """An append-only file: one write per line, so that neither threads nor processes nor their deaths tear a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, event: str, key: str, fence: int = 0, attempt: int = 0) -> None:
        """Write a line."""
        line = f"{event} {key} {fence} {attempt} {os.getpid()}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def entries(self, event: str | None = None) -> list[Entry]:
        """The lines, in order."""
        found = []
        for line in self.path.read_text().splitlines():
            what, key, fence, attempt, pid = line.split()
            if event in (None, what):
                found.append(Entry(what, key, int(fence), int(attempt), int(pid)))
        return found

    def runs(self, event: str = "start") -> Counter[str]:
        """Job → how many times it was started (or ended)."""
        return Counter(entry.key for entry in self.entries(event))

    def check(
        self, accepted: Iterable[str], *, runs: Mapping[str, int] | None = None, again: Iterable[str] = ()
    ) -> None:
        """Fail unless the ledger shows every accepted job run to its end, no other, and none more often than it may.

        Args:
            accepted: The jobs whose enqueueing returned.
            runs: Runs of a job that its own behaviour asks for; 1 if not named.
            again: Jobs that may have been run once more, because the fault gives a reason.
        """
        accepted, may = set(accepted), set(again)
        started, ended = self.runs(), self.runs("end")
        lost = accepted - set(ended)
        unexpected = set(started) - accepted
        wanted = {key: (runs or {}).get(key, 1) for key in accepted}
        doubled = {key: count for key, count in started.items() if count > wanted.get(key, 0) + (key in may)}
        fences: dict[str, list[int]] = {}
        for entry in self.entries("start"):
            fences.setdefault(entry.key, []).append(entry.fence)
        unfenced = {key: seen for key, seen in fences.items() if len(set(seen)) != len(seen)}
        assert not lost, f"lost: {sorted(lost)}; ledger:\n{self.path.read_text()}"
        assert not unexpected, f"unexpected: {sorted(unexpected)}"
        assert not doubled, f"run more often than there is a reason for: {doubled}; ledger:\n{self.path.read_text()}"
        assert not unfenced, f"two runs under one fence: {unfenced}"
