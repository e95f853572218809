from __future__ import annotations

from typing import Any

from taskiq_redis import RedisStreamBroker

from benchmarks import jobs as bodies
from benchmarks.queues import URL

app = RedisStreamBroker(URL)
KINDS = {name: app.task(task_name=name)(getattr(bodies, f"a{name}")) for name in ("noop", "nap")}


async def start() -> None:
    await app.startup()


async def send(kind: str, *arguments: Any) -> None:
    await KINDS[kind].kiq(*arguments)
