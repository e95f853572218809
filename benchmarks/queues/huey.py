from __future__ import annotations

from typing import Any

from huey import RedisHuey

from benchmarks import jobs as bodies
from benchmarks.queues import URL

app = RedisHuey("bench", url=URL)
KINDS = {name: app.task(name=name)(getattr(bodies, name)) for name in ("noop", "nap")}


def send(kind: str, *arguments: Any) -> None:
    KINDS[kind](*arguments)
