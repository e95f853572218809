"""Tools for tests: of jobs, of storages, and of what happens when things go wrong."""

from __future__ import annotations

from jobqueue.storage.memory import MemoryStorage
from jobqueue.testing.conformance import (
    ConformanceError,
    ConformanceFailure,
    ConformanceReport,
    check_async_storage,
    check_storage,
)
from jobqueue.testing.faulty import Fault, FaultyStorage, Plan

__all__ = [
    "ConformanceError",
    "ConformanceFailure",
    "ConformanceReport",
    "Fault",
    "FaultyStorage",
    "MemoryStorage",
    "Plan",
    "check_async_storage",
    "check_storage",
]
