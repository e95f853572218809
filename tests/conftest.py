"""Fixtures and profiles that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from hypothesis import settings

from tests.servers import KINDS, OLDEST, Server, binary_of, kinds, start_server, version_of

# "ci" is what runs unless --hypothesis-profile says otherwise. No deadline: the machine is shared, and a slow example
# is no failure. Not derandomized: every run looks somewhere else, and the printed blob brings a failure back.
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True, max_examples=50)
settings.register_profile("long", settings.get_profile("ci"), max_examples=2000)
settings.load_profile("ci")


class MakeServer(Protocol):
    """What ``own_server`` is: starts a server that this test alone uses, and that ends with it."""

    def __call__(self, kind: str = "valkey", *, port: bool = False, args: Sequence[str] = ()) -> Server: ...


def pytest_report_header() -> list[str]:
    """Which servers the tests run on, and which they leave out."""
    return [_describe(kind) for kind in KINDS]


def _describe(kind: str) -> str:
    binary = binary_of(kind)
    if binary is None:
        return f"server: no {kind} found, its runs are left out"
    if kind not in kinds():
        oldest = ".".join(map(str, OLDEST))
        return f"server: {kind} {version_of(kind)} ({binary}) is older than {oldest}, its runs are left out"
    return f"server: {kind} {version_of(kind)} ({binary})"


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Callable[[str], Server]]:
    """One server per kind and test process, started by the first test that wants it."""
    running: dict[str, Server] = {}

    def get(kind: str) -> Server:
        if kind not in running:
            running[kind] = start_server(kind)
        return running[kind]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(params=kinds())
def server(request: pytest.FixtureRequest, running_servers: Callable[[str], Server]) -> Server:
    """An empty server, shared with other tests: do not kill or reconfigure it. Runs the test once per kind."""
    found = running_servers(request.param)
    found.flush()
    return found


@pytest.fixture
def own_server() -> Iterator[MakeServer]:
    """A factory of servers that belong to this test: kill, reconfigure, restart them at will."""
    started: list[Server] = []

    def make(kind: str = "valkey", *, port: bool = False, args: Sequence[str] = ()) -> Server:
        started.append(start_server(kind, port=port, args=args))
        return started[-1]

    yield make
    for server in started:
        server.stop()
