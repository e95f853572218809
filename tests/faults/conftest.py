"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stage import Stage
from tests.servers import Server


@pytest.fixture
def stage(server: Server, tmp_path: Path) -> Iterator[Stage]:
    """A queue on the shared server, whose scripts are known to it."""
    made = Stage(server.client(), server.url, tmp_path)
    made.load_scripts()
    yield made
    made.close()
