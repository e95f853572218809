"""What a runner says at its start: what the server promises, and which queues nobody serves."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import attrs

from jobqueue.names import suggestion
from jobqueue.queue import DEFAULT_QUEUES, JobQueue

__all__ = ["persistence", "undeclared", "unserved"]


def persistence(told: Mapping[str, Any]) -> tuple[int, str]:
    """The line about what the server keeps, and the level to log it at."""
    name = f"{told.get('server', 'the server')} {told.get('version', '')}".strip()
    appending = told.get("appendonly")
    if appending == "yes":
        sync = told.get("appendfsync", "unknown")
        if sync == "always":
            return logging.INFO, f"{name}, append-only file, fsync always: at least once; nothing acknowledged is lost"
        return logging.INFO, (
            f"{name}, append-only file, fsync {sync}: at least once; a power loss may undo about the last 2 s"
        )
    if appending == "no":
        snapshots = "snapshots only" if told.get("save") else "no persistence"
        return logging.WARNING, (
            f"{name}, {snapshots}: best effort; when the server process ends, everything since the last snapshot is lost. "
            "Set appendonly yes"
        )
    return logging.INFO, f"{name}: keeps jobs in this process, or does not tell how it keeps them"


def undeclared(jobs: JobQueue, serving: Iterable[str]) -> Iterator[str]:
    """A line for each queue that is to be served, is no kind's, and holds nothing: its name may be mistyped."""
    declared = sorted({*DEFAULT_QUEUES, *(kind.queue for kind in jobs.registry)})
    others = [queue for queue in serving if queue not in declared]
    used = {queue for queue, counts in jobs.counts().items() if any(attrs.astuple(counts))} if others else ()
    for queue in others:
        if queue not in used:
            meant = suggestion(queue, declared) or f" (there are {', '.join(declared)})"
            yield f"no kind is declared for queue {queue!r}, and nothing is in it{meant}"


def unserved(jobs: JobQueue, serving: Container[str]) -> Iterator[str]:
    """A line for each queue that has jobs and that no living runner serves."""
    others = {queue for runner in jobs.runners() for queue in runner.queues}
    for queue, counts in jobs.counts().items():
        if queue not in serving and queue not in others and counts.ready + counts.waiting:
            yield f"queue {queue!r} has {counts.ready + counts.waiting} jobs and no runner serves it"
