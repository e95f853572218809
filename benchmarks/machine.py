"""On what something was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from jobqueue import __version__
from tests.servers import version_of

__all__ = ["machine"]


def machine(versions: Mapping[str, str] | None = None) -> dict[str, str]:
    """What and its version: the date, the machine, Python, the server, jobqueue, and ``versions``."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{_model()}",
        "Python": platform.python_version(),
        "Redis": f"{version_of('redis')}, on loopback, no persistence",
        "jobqueue": __version__,
        **(versions or {}),
    }


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({found[0]})" if found else ""
