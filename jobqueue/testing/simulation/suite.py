"""Many histories: what they saw together, and whether every invariant was put to the test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from jobqueue.clock import monotonic_s
from jobqueue.testing.simulation.books import MEANINGS
from jobqueue.testing.simulation.faults import FATES
from jobqueue.testing.simulation.simulation import History, Simulation

__all__ = ["Report", "VacuousInvariant", "simulate"]

NEVER_SEEN = frozenset({"no surprise"})
"""What is only seen when it is broken."""


class VacuousInvariant(AssertionError):
    """Histories in which some invariant was never put to the test: they prove nothing of it."""


@attrs.define
class Report:
    """What a number of histories saw together.

    Attributes:
        histories: How many.
        steps: Batches that arrived at the storages.
        jobs: Jobs that were stored.
        runs: Runs of jobs.
        ended: How jobs ended → how many.
        faults: Fault → how often.
        seen: Invariant → how often it was checked and not vacuous.
        seconds: Real time.
        virtual: Virtual time in seconds.
    """

    histories: int = 0
    steps: int = 0
    jobs: int = 0
    runs: int = 0
    ended: Counter[str] = attrs.field(factory=Counter)
    faults: Counter[str] = attrs.field(factory=Counter)
    seen: Counter[str] = attrs.field(factory=Counter)
    seconds: float = 0.0
    virtual: float = 0.0

    def add(self, history: History) -> None:
        """Count one history."""
        self.histories += 1
        self.steps += history.steps
        self.jobs += history.jobs
        self.runs += history.runs
        self.ended.update(history.ended)
        self.faults.update(history.faults)
        self.seen.update(history.seen)
        self.virtual += history.ms / 1000

    @property
    def vacuous(self) -> list[str]:
        """Invariants and faults that were never put to the test."""
        return [rule for rule in MEANINGS if rule not in NEVER_SEEN and not self.seen[rule]] + [
            f"fault {fate!r}" for fate in FATES if not self.faults[fate]
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**attrs.asdict(self), "vacuous": self.vacuous}

    def __str__(self) -> str:
        lines = [
            f"{self.histories} histories, {self.jobs} jobs, {self.runs} runs, {self.steps} steps of the storage",
            f"{self.virtual / 3600:.1f} hours of virtual time in {self.seconds:.1f} s",
            "jobs ended: " + ", ".join(f"{how} {count}" for how, count in sorted(self.ended.items())),
            "faults: " + ", ".join(f"{fault} {count}" for fault, count in sorted(self.faults.items())),
            "invariants, and how often each was put to the test:",
        ]
        lines += [f"  {rule:<15} {self.seen[rule]:>8}  {MEANINGS[rule]}" for rule in MEANINGS if rule not in NEVER_SEEN]
        if self.vacuous:
            lines.append("NEVER put to the test: " + ", ".join(self.vacuous))
        return "\n".join(lines)


def simulate(
    seeds: Iterable[int],
    *,
    progress: Callable[[Report], None] | None = None,
    vacuous: bool = False,
    vary: bool = True,
    **settings: Any,
) -> Report:
    """Play a history for each seed.

    Args:
        seeds: Which.
        progress: Called after each history with the report so far.
        vacuous: Accept that an invariant is never put to the test; for a few seeds.
        vary: Draw the number of actors and jobs from the seed, too, where ``settings`` do not say it.
        settings: See `Simulation`.

    Raises:
        InvariantBroken: A history broke an invariant; see `Simulation.run`.
        VacuousInvariant: All held, but some were never put to the test.
    """
    report = Report()
    started = monotonic_s()
    for seed in seeds:
        varied = _varied(seed) if vary else {}
        report.add(Simulation(seed=seed, **{**varied, **settings}).run())
        report.seconds = monotonic_s() - started
        if progress is not None:
            progress(report)
    if report.vacuous and not vacuous:
        raise VacuousInvariant(
            f"{report.histories} histories held, but never put to the test: {', '.join(report.vacuous)}"
        )
    return report


def _varied(seed: int) -> dict[str, Any]:
    """Worlds of different sizes, the same for the same seed."""
    return {
        "runners": (2, 3, 2, 1, 2, 4)[seed % 6],
        "bursts": (0, 1, 0, 0, 1, 2)[seed % 6],
        "producers": 1 + seed % 2,
        "jobs": (12, 8, 20, 5, 30)[seed % 5],
        "threads": 1 + seed % 3,
        "coroutines": 1 + (seed // 2) % 3,
    }
