"""``python -m tests.pythons``: the suite on every Python from 3.11 on that is installed here.

Interpreters are looked for among those of pyenv and on the path; of each version the newest release counts. Each gets an
environment of its own, kept in ``.venv/pythons`` for the next time. ``--only 3.13`` takes these alone, ``--list`` says what
there is, and what follows ``--`` goes to pytest. Exit code 0: the suite passed on all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["interpreters", "main"]

ROOT: Final = Path(__file__).parents[1]
KEPT: Final = ROOT / ".venv" / "pythons"
OLDEST: Final = (3, 11)
TOLD: Final = "import sys; v = sys.version_info; print(*v[:3], v.releaselevel)"


def _places(environment: dict[str, str]) -> Iterator[Path]:
    """Where interpreters may be."""
    root = Path(environment.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob("versions/*/bin/python3"))
    for folder in environment.get("PATH", "").split(os.pathsep):
        if folder and Path(folder).is_dir():
            yield from sorted(path for path in Path(folder).iterdir() if re.fullmatch(r"python3\.\d+", path.name))


def interpreters(environment: dict[str, str]) -> dict[str, Path]:
    """``"3.12"`` → the newest release of it that runs, in the order of versions.

    Args:
        environment: ``PATH`` and ``PYENV_ROOT`` say where to look.
    """
    found: dict[tuple[int, int], tuple[int, Path]] = {}
    for path in _places(environment):
        told = subprocess.run([path, "-c", TOLD], capture_output=True, text=True, check=False, env=environment)
        if told.returncode != 0:
            continue  # a shim of a version that is not chosen
        major, minor, micro, level = told.stdout.split()
        version = int(major), int(minor)
        if version >= OLDEST and level == "final" and int(micro) > found.get(version, (-1, path))[0]:
            found[version] = int(micro), path
    return {f"{major}.{minor}": path for (major, minor), (_, path) in sorted(found.items())}


def _passed(version: str, interpreter: Path, words: Sequence[str]) -> bool:
    """Whether the suite passes on it."""
    python = KEPT / version / "bin" / "python"
    if not python.exists():
        shutil.rmtree(KEPT / version, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", KEPT / version], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", f"{ROOT}[dev]"]
    subprocess.run(pip, check=True)
    print(f"Python {version}: {interpreter}", flush=True)
    return subprocess.run([python, "-m", "pytest", "-q", *words], cwd=ROOT, check=False).returncode == 0


def main(words: Sequence[str]) -> int:
    """Run the command; answers its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.pythons", description=__doc__)
    parser.add_argument("--only", action="append", metavar="VERSION", help="for example 3.13; may be repeated")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest (default: -n auto)")
    arguments = parser.parse_args(words)
    found = interpreters(dict(os.environ))
    missing = [version for version in arguments.only or () if version not in found]
    if missing or not found:
        parser.error(f"no Python {', '.join(missing) or 'from 3.11 on'} is installed here")
    chosen = {version: path for version, path in found.items() if not arguments.only or version in arguments.only}
    for version, path in chosen.items() if arguments.list else ():
        print(f"{version}  {path}")
    if arguments.list:
        return 0
    failed = [one for one, path in chosen.items() if not _passed(one, path, arguments.pytest or ["-n", "auto"])]
    print(f"failed on {', '.join(failed)}" if failed else f"passed on {', '.join(chosen)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
