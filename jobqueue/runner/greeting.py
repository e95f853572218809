"""What a runner says at its start: what the server promises, and which queues nobody serves."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from jobqueue.application import introduce
from jobqueue.logs import counted
from jobqueue.looking import counts_apart
from jobqueue.names import suggestion
from jobqueue.queue import DEFAULT_QUEUES, JobQueue

__all__ = ["doubtful", "persistence"]


MANY_QUEUES: Final = 1_000
"""With more queues a runner warns: see docs/how-to/deploy.md for what each costs."""


def persistence(told: Mapping[str, Any]) -> tuple[int, str]:
    """The line about what the server keeps, and the level to log it at."""
    name = f"{told.get('server', 'the server')} {told.get('version', '')}".strip()
    appending = told.get("appendonly")
    if appending == "yes":
        sync = told.get("appendfsync", "unknown")
        if sync == "always":
            return logging.INFO, f"{name}, append-only file, fsync always: at least once; nothing acknowledged is lost"
        return logging.INFO, (
            f"{name}, append-only file, fsync {sync}: at least once; a power loss, or a kill while the disk is slow, may "
            "undo about the last 2 s"
        )
    if appending == "no":
        snapshots = (
            "snapshots only" if told.get("save") else "no persistence" if "save" in told else "snapshots at most"
        )
        return logging.WARNING, (
            f"{name}, {snapshots}: best effort; when the server process ends, everything since the last snapshot is lost. "
            "Set appendonly yes"
        )
    return logging.INFO, f"{name}: keeps jobs in this process, or does not tell how it keeps them"


def doubtful(jobs: JobQueue, named: Iterable[str], serving: Collection[str]) -> Iterator[str]:
    """A line for another application in the namespace, each queue that may be mistyped, and each that nobody serves.

    Args:
        jobs: The queues.
        named: Those that this runner was told to serve.
        serving: Those that it serves.
    """
    told = jobs.access.run(introduce(jobs.access.opened(), jobs.app))
    if told is not None:
        yield told
    found, _ = jobs.access.run(counts_apart(jobs.access))
    if len(serving) > MANY_QUEUES:
        yield (
            f"this runner serves {len(serving):,} queues: an empty one of many costs little, but work in it is found later; "
            "see 'Many queues' in the page on deployment, and serve fewer with --queues"
        )
    declared = sorted({*DEFAULT_QUEUES, *(kind.queue for kind in jobs.registry)})
    for queue in named:
        if queue not in declared and not (queue in found and any(attrs.astuple(found[queue]))):
            meant = suggestion(queue, declared) or f" (there are {', '.join(declared)})"
            yield f"no kind is declared for queue {queue!r}, and nothing is in it{meant}"
    others = {queue for runner in jobs.runners() for queue in runner.queues}
    for queue, counts in found.items():
        if queue not in serving and queue not in others and counts.ready + counts.waiting:
            yield f"queue {queue!r} has {counted(counts.ready + counts.waiting, 'job')} and no runner serves it"
