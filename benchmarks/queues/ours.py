"""jobqueue with functions on threads."""

from __future__ import annotations

from typing import Any

from benchmarks import jobs as bodies
from benchmarks.queues import URL
from jobqueue import JobQueue

jobs = JobQueue(URL or None, namespace="bench")
KINDS: dict[str, Any] = {name: jobs.job(name=name)(getattr(bodies, name)) for name in ("noop", "nap")}


def send(kind: str, *arguments: Any) -> None:
    KINDS[kind].enqueue(*arguments)


def send_many(kind: str, many: list[tuple[Any, ...]]) -> None:
    call = KINDS[kind].call
    jobs.enqueue_many([call(*arguments) for arguments in many])


def send_later(delay: float, kind: str, *arguments: Any) -> None:
    KINDS[kind].opts(delay=delay).enqueue(*arguments)
