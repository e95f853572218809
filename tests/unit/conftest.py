"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobqueue.testing import Server as TestingServer
from jobqueue.testing import Testing, open_testing
from tests.servers import Server, kinds
from tests.unit.kit_jobs import fresh, jobs


@pytest.fixture(scope="session")
def testing_servers(running_servers: Callable[[str], Server]) -> Iterator[Callable[[str], TestingServer]]:
    """The servers of the kinds, as testing blocks use them."""
    used: dict[str, TestingServer] = {}

    def get(kind: str) -> TestingServer:
        if kind not in used:
            used[kind] = TestingServer(running_servers(kind).url)
        return used[kind]

    yield get
    for server in used.values():
        server.close()


@pytest.fixture(params=["memory", *kinds()])
def t(request: pytest.FixtureRequest) -> Iterator[Testing]:
    """A testing block on the jobs of `kit_jobs`: in memory, and on every kind of server."""
    server = None
    if request.param != "memory":
        server = request.getfixturevalue("testing_servers")(request.param)
    with fresh(), open_testing(jobs, server=server) as testing:
        yield testing
