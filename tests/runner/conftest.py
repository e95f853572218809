"""Fixtures of the tests of the runner."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from jobqueue import JobQueue
from jobqueue.storage.memory import MemoryStorage
from tests.runner.running import handled
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


@pytest.fixture(autouse=True)
def hangup() -> Iterator[None]:
    """SIGHUP has its default meaning, also where the tests run under `nohup`: runners leave it alone there."""
    with handled(signal.SIGHUP, signal.SIG_DFL):
        yield
