"""The program ``jobqueue``, also started by ``python -m jobqueue``."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

EXTRA_MISSING = 'jobqueue: the command line needs two more packages: pip install "jobqueue-py[cli]"'


def main() -> None:
    """Run the command line and leave with its exit code, see `jobqueue.cli`."""
    # Only looked up here: rich is imported when something is printed with it, which must not fail half-way.
    if importlib.util.find_spec("click") is None or importlib.util.find_spec("rich") is None:
        print(EXTRA_MISSING, file=sys.stderr)
        sys.exit(2)
    from jobqueue.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
