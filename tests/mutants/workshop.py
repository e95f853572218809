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

__all__ = ["PARTS", "Caught", "NotRunnable", "Workshop"]

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "rules": (
        "tests/unit/test_retry.py", "tests/unit/test_judge.py", "tests/unit/test_transitions.py",
        "tests/unit/test_audit.py",
        "tests/unit/test_flows.py", "tests/unit/test_flow_requests.py", "tests/unit/test_large_payloads.py",
        "tests/unit/test_long_records.py", "tests/unit/test_max_ready.py",
        "tests/unit/test_lost_registrations.py", "tests/unit/test_lock.py",
        "tests/unit/test_shares.py", "tests/unit/test_record.py", "tests/unit/test_queue.py",
        "tests/unit/test_promise.py", "tests/unit/test_server_clock.py",
        "tests/unit/test_embedded_faults.py", "tests/runner", "--ignore=tests/runner/test_core_machine.py",
        "--ignore=tests/runner/test_processes.py", "--ignore=tests/runner/test_supervisor.py",
        "--ignore=tests/runner/test_forked_children.py", "--ignore=tests/runner/test_threads.py",
        "--ignore=tests/runner/test_stopping.py", "--ignore=tests/runner/test_leaving.py", "--timeout=30",
    ),
    "storages": (
        "tests/storage/test_exact.py", "tests/storage/test_shape.py", "tests/storage/test_snapshots.py",
        "tests/storage/test_memory.py",
        "tests/storage/test_sortedset.py", "tests/storage/test_conformance.py",
        "tests/storage/test_redis.py", "tests/storage/test_redis_flow.py", "tests/storage/test_redis_rights.py",
        "tests/storage/test_tls.py",
    ),
    "checks": (
        "tests/unit/test_check_job.py", "tests/unit/test_check_job_rules.py", "tests/unit/test_check_job_found.py",
        "tests/unit/test_check_job_stop.py",
        "--timeout=60",
    ),
    "fault grid": ("tests/faults/test_grid_memory.py",),
    "simulation": ("tests/simulation/test_simulation.py", "tests/simulation/test_simulation_histories.py"),
    "plugin": ("tests/plugin",),
    "lockstep": ("tests/storage/test_lockstep.py",),
    "exploration": ("tests/simulation/test_explore.py",),
    "machines": ("tests/runner/test_core_machine.py", "tests/simulation/test_delivery_machine.py"),
    "processes": (
        "tests/runner/test_threads.py", "tests/runner/test_stopping.py", "tests/runner/test_supervisor.py",
        "tests/runner/test_processes.py", "tests/runner/test_forked_children.py", "tests/runner/test_leaving.py",
        "tests/faults",
    ),
}  # fmt: skip
"""The parts of the suite in the order in which they are asked: what is quick, and what says most plainly what is wrong,
comes first. A wrong library often runs in circles, so the quick tests have less time than usual."""

# Tests that plant bugs of their own: what they find says nothing of ours.
_PLANTING: Final = "not planted and not mistake and not broken_storage and not every_case_can_fail"
# Below `tests`: what a test printed may be the summary of a run of its own.
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::.+?)(?: - .*)?$", re.MULTILINE)
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
        for name in ("pyproject.toml", "jobqueue_pytest.py"):
            shutil.copy2(ROOT / name, root)
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


class Workshop:
    """Where variants are hunted.

    Attributes:
        doubted: Tests that failed without a variant, or only sometimes with it: they caught nothing.
    """

    def __init__(self) -> None:
        self.doubted: set[str] = set()
        self._trusted: set[str] = set()

    def hunt(self, variant: Variant, parts: Sequence[str] = tuple(PARTS), limit: float = 600.0) -> Caught:
        """Plant a variant and run the parts of the suite until a test fails because of it.

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
                while (left := limit - (time.monotonic() - started)) > 0:
                    doubted = [f"--deselect={test}" for test in sorted(self.doubted)]
                    code, printed = _run(root, ["-x", "-k", _PLANTING, *PARTS[part], *doubted], left)
                    took = time.monotonic() - started
                    if code == 1 and (found := _FAILED.search(printed)):
                        if self._is_caught(root, found[1], limit):
                            return Caught(variant, found[1], part, took)
                        continue
                    if code not in (0, None):
                        raise NotRunnable(f"{variant.name}: pytest ended with {code} in {part}\n{printed[-2000:]}")
                    break
        return Caught(variant, None, None, time.monotonic() - started)

    def _is_caught(self, root: Path, test: str, limit: float) -> bool:
        """Whether the test fails again with the variant, and passes on the library as it is."""
        code, _ = _run(root, [test, "--timeout=30"], limit)
        if code == 1 and test not in self._trusted:
            with _copy() as clean:
                code = 1 if _run(clean, [test], limit)[0] == 0 else 0
        (self._trusted if code == 1 else self.doubted).add(test)
        return code == 1

    def hunt_all(
        self,
        variants: Sequence[Variant],
        parts: Sequence[str] = tuple(PARTS),
        limit: float = 600.0,
        *,
        workers: int = 1,
    ) -> Iterator[Caught]:
        """Hunt many, ``workers`` at a time; answers them in their order, each as soon as those before it are done."""
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(lambda variant: self.hunt(variant, parts, limit), variants)
