"""Tools for tests: of jobs, of storages, and of what happens when things go wrong."""

from __future__ import annotations

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
from jobqueue.testing.inline import Run
from jobqueue.testing.kit import Testing, TestingError, open_testing

__all__ = [
    "ConformanceError",
    "ConformanceFailure",
    "ConformanceReport",
    "FakeClock",
    "Fault",
    "FaultyStorage",
    "MemoryStorage",
    "Plan",
    "Run",
    "Testing",
    "TestingError",
    "check_async_storage",
    "check_storage",
    "open_testing",
]
