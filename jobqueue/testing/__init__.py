"""Tools for tests: of jobs, of storages, and of what happens when things go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing.clock import FakeClock
from jobqueue.testing.conformance import (
    ConformanceError,
    ConformanceFailure,
    ConformanceReport,
    check_async_storage,
    check_storage,
)
from jobqueue.testing.faulty import Fault, FaultyStorage, Plan
from jobqueue.testing.inline import Run, TestingError
from jobqueue.testing.kit import Testing, open_testing
from jobqueue.testing.needs import need_hypothesis
from jobqueue.testing.server import Server

if TYPE_CHECKING:
    from jobqueue.testing import strategies
    from jobqueue.testing.apart import Apart
    from jobqueue.testing.checking import JobReport, check_job
    from jobqueue.testing.machine import DeliveryMachine
    from jobqueue.testing.simulation import Faults, History, InvariantBroken, Report, Simulation, simulate

__all__ = [
    "Apart",
    "ConformanceError",
    "ConformanceFailure",
    "ConformanceReport",
    "DeliveryMachine",
    "FakeClock",
    "Fault",
    "Faults",
    "FaultyStorage",
    "History",
    "InvariantBroken",
    "JobReport",
    "MemoryStorage",
    "Plan",
    "Report",
    "Run",
    "Server",
    "Simulation",
    "Testing",
    "TestingError",
    "check_async_storage",
    "check_job",
    "check_storage",
    "open_testing",
    "simulate",
    "strategies",
]

_CHECKING: Final = frozenset({"JobReport", "check_job"})
_SIMULATION: Final = frozenset({"Faults", "History", "InvariantBroken", "Report", "Simulation", "simulate"})


def __getattr__(name: str) -> Any:
    # Only those who check and simulate pay for the import.
    if name in _CHECKING:
        from jobqueue.testing import checking

        return getattr(checking, name)
    if name == "Apart":
        from jobqueue.testing.apart import Apart

        return Apart
    if name in ("DeliveryMachine", "strategies"):
        need_hypothesis(f"jobqueue.testing.{name}")
        if name == "strategies":
            import jobqueue.testing.strategies

            return jobqueue.testing.strategies
        from jobqueue.testing.machine import DeliveryMachine

        return DeliveryMachine
    if name in _SIMULATION:
        from jobqueue.testing import simulation

        return getattr(simulation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
