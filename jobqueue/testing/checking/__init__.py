"""Is a job safe to run twice? Crashes, repeats and overlaps of a user's own job at each of its effects."""

from __future__ import annotations

from jobqueue.testing.checking.check import check_job
from jobqueue.testing.checking.report import JobReport

__all__ = ["JobReport", "check_job"]
