from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks import jobs as bodies
from benchmarks.queues import URL

app = Celery("bench", broker=URL)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
KINDS = {name: app.task(name=name)(getattr(bodies, name)) for name in ("noop", "nap")}


def send(kind: str, *arguments: Any) -> None:
    KINDS[kind].apply_async(arguments)
