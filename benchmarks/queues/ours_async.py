"""jobqueue with coroutines."""

from __future__ import annotations

from typing import Any

from benchmarks import jobs as bodies
from benchmarks.queues import URL
from jobqueue import JobQueue

jobs = JobQueue(URL or None, namespace="bench")
KINDS: dict[str, Any] = {name: jobs.job(name=name)(getattr(bodies, f"a{name}")) for name in ("noop", "nap")}


async def send(kind: str, *arguments: Any) -> None:
    await KINDS[kind].aenqueue(*arguments)


async def send_many(kind: str, many: list[tuple[Any, ...]]) -> None:
    call = KINDS[kind].call
    await jobs.aenqueue_many([call(*arguments) for arguments in many])
