"""A deterministic simulation of the whole queue: production rules, virtual time, faults, every promise checked."""

from __future__ import annotations

from jobqueue.testing.simulation.books import MEANINGS, InvariantBroken
from jobqueue.testing.simulation.faults import Faults
from jobqueue.testing.simulation.simulation import History, Simulation
from jobqueue.testing.simulation.suite import Report, VacuousInvariant, simulate

__all__ = [
    "MEANINGS",
    "Faults",
    "History",
    "InvariantBroken",
    "Report",
    "Simulation",
    "VacuousInvariant",
    "simulate",
]
