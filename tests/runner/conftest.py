"""Fixtures of the tests of the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobqueue import JobQueue
from jobqueue.storage.memory import MemoryStorage
from tests.servers import Server, kinds


@pytest.fixture(params=["memory", *kinds()])
def jobs(request: pytest.FixtureRequest, running_servers: Callable[[str], Server]) -> Iterator[JobQueue]:
    """An empty queue: in memory, and on each kind of server."""
    if request.param == "memory":
        queue = JobQueue(storage=MemoryStorage(), namespace="runner")
    else:
        server = running_servers(request.param)
        server.flush()
        queue = JobQueue(server.url, namespace="runner")
    with queue:
        yield queue
