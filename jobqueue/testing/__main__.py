"""``python -m jobqueue.testing``: check the promises of the installed version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobqueue.testing.explore.command import add_parser as add_explore
from jobqueue.testing.simulation.command import add_parser as add_simulate

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; answers the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobqueue.testing", description="Check what jobqueue promises, with the installed version."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_simulate(commands)
    add_explore(commands)
    arguments = parser.parse_args(argv)
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
