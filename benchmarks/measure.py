"""What every measurement is told: who is measured, how often, how much."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import attrs

from benchmarks.contenders import Contender

__all__ = ["Plan"]


@attrs.frozen
class Plan:
    """What every measurement is told.

    Attributes:
        contenders: Who is measured.
        environments: Where the virtual environments are.
        rounds: How often; medians count.
        quick: With a fiftieth of the jobs, to see that it works. The numbers mean little then.
    """

    contenders: tuple[Contender, ...]
    environments: Path
    rounds: int = 3
    quick: bool = False

    def few(self, jobs: int, least: int = 20) -> int:
        """So many jobs, or a fiftieth of them, but not less than ``least``."""
        return max(least, jobs // 50) if self.quick else jobs

    def seconds(self, full: float, quick: float) -> float:
        """How long something takes."""
        return quick if self.quick else full

    def say(self, what: str) -> None:
        """Tell on standard error what is measured now."""
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
