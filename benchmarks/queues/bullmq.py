"""bullmq has no command line: ``python -m benchmarks.queues.bullmq`` is its worker."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from bullmq import Job, Queue, Worker

from benchmarks import jobs as bodies
from benchmarks.queues import CONCURRENCY, URL

KINDS: dict[str, Any] = {"noop": bodies.anoop, "nap": bodies.anap}
OPTIONS = {"removeOnComplete": True}
queue: Queue


async def start() -> None:
    global queue
    queue = Queue("bench", {"connection": URL})


async def send(kind: str, *arguments: Any) -> None:
    await queue.add(kind, list(arguments), OPTIONS)


async def send_many(kind: str, many: list[tuple[Any, ...]]) -> None:
    await queue.addBulk([{"name": kind, "data": list(arguments), "opts": OPTIONS} for arguments in many])


async def work() -> None:
    async def process(job: Job, _: str) -> None:
        await KINDS[job.name](*job.data)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = Worker("bench", process, {"connection": URL, "concurrency": CONCURRENCY})
    await stop.wait()
    await worker.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(work())
