"""What has to hold after a soak, and its curves."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.soak.jobs import Ledger
from benchmarks.soak.stage import Sample
from benchmarks.svg import Curve, curves

__all__ = ["draw", "verdicts"]

FLAT: Final = 1.15
FLAT_MIB: Final = 4.0
"""Flat: the median of the last third is below that of the first third by this factor and so much on top."""
FLAT_FROM_S: Final = 25.0
"""A shorter run says nothing of memory."""


def verdicts(
    ledger: Ledger, accepted: int, samples: Sequence[Sample], *, left: int, ended: int
) -> list[tuple[str, bool, str]]:
    """What had to hold, whether it did, and the numbers.

    Args:
        ledger: What ran.
        accepted: Jobs that were stored: the numbers below it.
        samples: The memory.
        left: Jobs that the storage still has.
        ended: The supervisor's exit code.
    """
    found = [
        ("every accepted job ran to its end", not ledger.missing(accepted),
         f"{accepted:,} accepted, {ledger.missing(accepted):,} missing"),
        ("nothing else ran", not ledger.strangers(accepted), f"{ledger.strangers(accepted):,} strangers"),
        ("the storage is empty", left == 0, f"{left:,} jobs left"),
        ("the supervisor ended well", ended == 0, f"exit code {ended}"),
    ]  # fmt: skip
    last = samples[-1].at if samples else 0.0
    if last < FLAT_FROM_S:
        return found
    warm = min(60.0, last / 3)
    for name, read in _MEMORIES.items():
        values = [(sample.at, read(sample)) for sample in samples if sample.at >= warm]
        third = (last - warm) / 3
        first = statistics.median([value for at, value in values if at < warm + third] or [0.0])
        end = statistics.median([value for at, value in values if at >= last - third] or [0.0])
        found.append((f"flat: {name}", end <= first * FLAT + FLAT_MIB, f"{first:.1f} → {end:.1f} MiB"))
    return found


_MEMORIES: Final[dict[str, Callable[[Sample], float]]] = {
    "memory of the largest runner": lambda sample: sample.runner,
    "memory of the server": lambda sample: sample.server,
    "the server's data": lambda sample: sample.data,
}


def draw(samples: Sequence[Sample], faults: Sequence[tuple[float, str]], notes: Sequence[str]) -> str:
    """The curves as SVG."""
    rates = [
        (late.at, max(0, late.done - early.done) / (late.at - early.at)) for early, late in itertools.pairwise(samples)
    ]
    panels = [
        [Curve("jobs done per second", rates)],
        [Curve("jobs sent and not done", [(one.at, one.backlog) for one in samples], "#7c3aed")],
        [Curve("largest runner, MiB", [(one.at, one.runner) for one in samples], "#16a34a")],
        [
            Curve("server process, MiB", [(one.at, one.server) for one in samples], "#dc2626"),
            Curve("its data, MiB", [(one.at, one.data) for one in samples], "#f59e0b"),
        ],
    ]
    return curves("Half load, and a fault every few seconds", notes, panels, faults)
