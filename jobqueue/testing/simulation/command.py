"""``python -m jobqueue.testing simulate``: play many histories and say what they saw."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from jobqueue.testing.simulation.books import InvariantBroken
from jobqueue.testing.simulation.suite import Report, simulate
from jobqueue.version import __version__

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of an argument parser."""
    parser = commands.add_parser(
        "simulate",
        help="play histories with faults, and check every promise after every step",
        description="Play one history per seed with the installed version of jobqueue, and check every promise after every "
        "step. Exit code 0: all held; 1: one was broken (its seed, its history and a test are printed); "
        "3: all held, but some promise was never put to the test.",
    )
    parser.add_argument("--seeds", type=int, default=300, help="how many histories (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, help="jobs of each history (by default drawn from the seed)")
    parser.add_argument("--runners", type=int, help="runners of each history (by default drawn from the seed)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    settings = {name: getattr(arguments, name) for name in ("jobs", "runners") if getattr(arguments, name) is not None}
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    shown = sys.stderr.isatty()

    def progress(report: Report) -> None:
        if shown and (report.histories % 10 == 0 or report.histories == len(seeds)):
            share = report.histories / len(seeds)
            bar = "█" * int(30 * share)
            print(f"\r{bar:<30} {report.histories}/{len(seeds)} histories", end="", file=sys.stderr, flush=True)

    try:
        report = simulate(seeds, progress=progress, vacuous=True, **settings)
    except InvariantBroken as broken:
        print(f"\njobqueue {__version__} broke a promise: {broken}", file=sys.stderr)
        return 1
    if shown:
        print(file=sys.stderr)
    if arguments.json:
        print(json.dumps({"version": __version__, **report.as_dict()}))
    else:
        print(f"jobqueue {__version__}: every promise held in {report}")
    return 3 if report.vacuous else 0
