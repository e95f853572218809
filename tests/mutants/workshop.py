"""Plants a bug into a copy of the project and runs the tests there, the quick ones first, until one fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from tests.mutants.variant import ROOT, Variant

__all__ = ["PARTS", "Caught", "NotRunnable", "hunt", "hunt_all", "innocent"]

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "rules": (
        "tests/unit/test_retry.py", "tests/unit/test_judge.py", "tests/unit/test_transitions.py",
        "tests/unit/test_flows.py", "tests/unit/test_lock.py", "tests/unit/test_shares.py", "tests/unit/test_record.py",
        "tests/unit/test_queue.py", "tests/unit/test_promise.py", "tests/unit/test_server_clock.py",
        "tests/unit/test_embedded_faults.py", "tests/runner", "--ignore=tests/runner/test_core_machine.py",
        "--ignore=tests/runner/test_processes.py", "--ignore=tests/runner/test_supervisor.py",
        "--ignore=tests/runner/test_forked_children.py", "--ignore=tests/runner/test_threads.py",
        "--ignore=tests/runner/test_stopping.py", "--timeout=30",
    ),
    "storages": (
        "tests/storage/test_memory.py", "tests/storage/test_sortedset.py", "tests/storage/test_conformance.py",
        "tests/storage/test_redis.py",
    ),
    "fault grid": ("tests/faults/test_grid_memory.py",),
    "simulation": ("tests/simulation/test_simulation.py", "tests/simulation/test_simulation_histories.py"),
    "lockstep": ("tests/storage/test_lockstep.py",),
    "exploration": ("tests/simulation/test_explore.py",),
    "machines": ("tests/runner/test_core_machine.py", "tests/simulation/test_delivery_machine.py"),
    "processes": (
        "tests/runner/test_threads.py", "tests/runner/test_stopping.py", "tests/runner/test_supervisor.py",
        "tests/runner/test_processes.py", "tests/faults",
    ),
}  # fmt: skip
"""The parts of the suite in the order in which they are asked: what is quick, and what says most plainly what is wrong,
comes first. A wrong library often runs in circles, so the quick tests have less time than usual."""

# Tests that plant bugs of their own: what they find says nothing of ours.
_PLANTING: Final = "not planted and not mistake and not broken_storage and not every_case_can_fail"
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", re.MULTILINE)
_LEFT_OUT: Final = shutil.ignore_patterns(".hypothesis", ".pytest_cache")


class NotRunnable(Exception):
    """The tests could not be run at all, so they caught nothing."""


@attrs.frozen
class Caught:
    """What became of a variant.

    Attributes:
        variant: Which.
        test: The first test that failed, or None if it survived.
        part: The part of the suite that it is in.
        seconds: From the start of the first part to the failure, or to the end.
    """

    variant: Variant
    test: str | None
    part: str | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "variant": self.variant.name, "sentence": self.variant.sentence, "test": self.test, "part": self.part,
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="variant-") as folder:
        root = Path(folder)
        for name in ("jobqueue", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=_LEFT_OUT)
        shutil.copy2(ROOT / "pyproject.toml", root)
        yield root


def _run(root: Path, arguments: Sequence[str], limit: float) -> tuple[int | None, str]:
    """Run tests below ``root``: exit code, None if they took too long, and what was printed."""
    words = [
        sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=line", "-rfE", "-p", "no:cacheprovider",
        "--hypothesis-seed=1", "-W", "default", *arguments,
    ]  # fmt: skip
    # What tests start has to find this copy, too, wherever it runs.
    surroundings = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "1000"}
    # A session of its own, so that whatever the tests started ends with them.
    process = subprocess.Popen(
        words, cwd=root, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        printed, _ = process.communicate()
        return None, printed
    return process.returncode, printed


def hunt(variant: Variant, parts: Sequence[str] = tuple(PARTS), limit: float = 600.0) -> Caught:
    """Plant a variant and run the parts of the suite until a test fails.

    Args:
        variant: What to plant.
        parts: Names out of `PARTS`.
        limit: Seconds that all parts may take together. A variant that is not caught within them survived.

    Raises:
        NotRunnable: The tests could not even be collected.
        StaleVariant: The text that the variant replaces is gone.
    """
    started = time.monotonic()
    with _copy() as root:
        variant.plant(root)
        for part in parts:
            left = limit - (time.monotonic() - started)
            if left <= 0:
                break
            code, printed = _run(root, ["-x", "-k", _PLANTING, *PARTS[part]], left)
            if code == 1 and (found := _FAILED.search(printed)):
                return Caught(variant, found[1], part, time.monotonic() - started)
            if code not in (0, None):
                raise NotRunnable(f"{variant.name}: pytest ended with {code} in {part}\n{printed[-2000:]}")
    return Caught(variant, None, None, time.monotonic() - started)


def hunt_all(
    variants: Sequence[Variant],
    parts: Sequence[str] = tuple(PARTS),
    limit: float = 600.0,
    *,
    workers: int = 1,
) -> Iterator[Caught]:
    """Hunt many, ``workers`` at a time; answers them in their order, each as soon as those before it are done."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda variant: hunt(variant, parts, limit), variants)


def innocent(tests: Sequence[str], limit: float = 600.0) -> list[str]:
    """Run tests on the library as it is, and answer those that fail there as well: they catch nothing."""
    if not tests:
        return []
    with _copy() as root:
        code, printed = _run(root, list(dict.fromkeys(tests)), limit)
    failed = _FAILED.findall(printed)
    if code != 0 and not failed:
        raise NotRunnable(f"the tests that caught something cannot be run ({code})\n{printed[-2000:]}")
    return failed
