"""How the command line starts its own program once more."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import jobqueue

__all__ = ["command", "environment"]


def command(*words: str) -> Sequence[str]:
    """The command line of ``jobqueue`` with these words; nothing is imported from where it happens to be started."""
    return (sys.executable, "-P", "-m", "jobqueue", *words)


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which a child finds this very package, also in a checkout that is not installed."""
    environment = {**os.environ, **more}
    home = Path(jobqueue.__file__).parents[1]
    if str(home) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{path}{os.pathsep}{home}" if path else str(home)
    return environment
