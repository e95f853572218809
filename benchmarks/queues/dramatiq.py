from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks import jobs as bodies
from benchmarks.queues import URL

dramatiq.set_broker(RedisBroker(url=URL))
KINDS = {name: dramatiq.actor(getattr(bodies, name), actor_name=name) for name in ("noop", "nap")}


def send(kind: str, *arguments: Any) -> None:
    KINDS[kind].send(*arguments)
