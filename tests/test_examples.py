"""The applications under examples/ pass their own tests, run as their readers would: in memory and on a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

EXAMPLES: Final = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("where", [[], ["--jobqueue-url=embedded://"]], ids=["memory", "server"])
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/pytest.ini")))
def test_the_example_passes_its_tests(name: str, where: list[str]) -> None:
    # Warnings are errors, but for the one in which pytest-asyncio asks projects that do not use it for a setting.
    options = ["-q", "-p", "no:valkey", "-p", "no:asyncio", "-p", "no:cacheprovider", "-W", "error"]
    command = [sys.executable, "-m", "pytest", *options, *where]
    ran = subprocess.run(command, cwd=EXAMPLES / name, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_there_are_three_examples() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("*/pytest.ini")} == {"billing", "images", "signup"}
