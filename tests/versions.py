"""``python -m tests.versions``: the tests that go through other libraries, on their oldest versions and on their newest.

The oldest are the lower bounds in ``pyproject.toml``; the newest are what the index has. Each set is laid over this
environment from a folder of its own, which is removed afterwards. A set that is installed here anyway is left to the suite,
as the newest is in a clean clone. Words such as ``redis==6.4`` make another set, which is tried instead of these two. Exit
code 0: all passed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["lower_bounds", "main"]

ROOT: Final = Path(__file__).parents[1]
EXTRAS: Final = ("cli", "fast")
"""Extras whose packages are tried; `embedded` is a server, and `testing` and `dev` are what tests run on."""
TESTS: Final = (
    "tests/storage", "tests/unit/test_tls_settings.py", "tests/unit/test_codec.py", "tests/unit/test_stored_bytes.py",
    "tests/unit/test_record.py", "tests/unit/test_declare.py",
    "tests/unit/test_declare_classes.py", "tests/unit/test_backend.py", "tests/unit/test_cli.py",
)  # fmt: skip
"""All tests of storages, and those of other code that calls redis, hiredis, msgspec, attrs, click or rich."""
OF_TESTS: Final = (
    "tests/storage/test_lockstep.py::test_a_mistake_in_the_script_is_found",
    "tests/storage/test_conformance.py::test_a_broken_storage_is_caught_by_the_case_for_its_rule",
    "tests/storage/test_conformance.py::test_every_case_can_fail",
)
"""These show that tests fail where they should: which library carries the bytes makes no difference."""
QUIET: Final = ("-W", "ignore:unclosed <socket:ResourceWarning")
"""redis-py before 5.2 leaves the socket of a refused connection to the garbage collector."""
VERSIONS: Final = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"


def lower_bounds(project: Mapping[str, Any]) -> dict[str, str]:
    """Name → lowest version of every package that users install.

    Args:
        project: The table ``project`` of ``pyproject.toml``.

    Raises:
        ValueError: A requirement is something else than a lower bound: an upper one keeps people out.
    """
    extras = project["optional-dependencies"]
    found = {}
    for requirement in [*project["dependencies"], *(word for extra in EXTRAS for word in extras[extra])]:
        bound = re.fullmatch(r"([\w-]+)>=([\d.]+)(; .*)?", requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} is no plain lower bound, such as redis>=5")
        found[bound[1]] = bound[2]
    return found


def _versions(names: Sequence[str], environment: Mapping[str, str]) -> str:
    told = subprocess.check_output([sys.executable, "-c", VERSIONS, *names], env=environment, text=True)
    return told.strip()


def _passed(name: str, requirements: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the tests pass with these packages laid over this environment."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jobqueue-versions-") as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
        subprocess.run([*pip, "--target", folder, *requirements], check=True)
        environment = {**os.environ, "PYTHONPATH": folder}
        versions = _versions(names, environment)
        print(f"{name}: {versions}", flush=True)
        if versions == _versions(names, os.environ):
            print(f"{name}: the suite runs on them here", flush=True)
            return True
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *QUIET, *TESTS]
        tests += [f"--deselect={test}" for test in OF_TESTS]
        ended = subprocess.run(tests, cwd=ROOT, env=environment, check=False)
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return ended.returncode == 0


def main(words: Sequence[str]) -> int:
    """Run the command; answers its exit code."""
    bounds = lower_bounds(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    sets: dict[str, Sequence[str]] = {"chosen": words}
    if not words:
        sets = {"oldest": [f"{name}=={version}" for name, version in bounds.items()], "newest": [*bounds]}
    results = [_passed(name, requirements, list(bounds)) for name, requirements in sets.items()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
