"""``python -m jobqueue.testing explore``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

import attrs

from jobqueue.testing.explore import SCENARIOS, Exploration, Totals, explore
from jobqueue.version import __version__

__all__ = ["add_parser", "as_json", "main"]

_BAR: Final = 24


def add_parser(commands: Any) -> None:
    """Add the subcommand to those of ``python -m jobqueue.testing``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "explore",
        help="walk through every interleaving of a few runners and jobs with a few faults",
        description="Walk through every interleaving of a few runners and jobs with a few faults, with all checks. "
        "Exit code 1: an invariant is broken, and the shortest way there is printed.",
        epilog="scenarios: " + "; ".join(f"{one.name} ({one.about})" for one in SCENARIOS.values()),
    )
    parser.add_argument(
        "--runners",
        type=int,
        default=2,
        help="runners, or users of the lock (default: 2). With 3 and one fault, all but rescue end within five minutes; "
        "rescue has 16 million states with --jobs 1",
    )
    parser.add_argument("--jobs", type=int, default=3, help="jobs, or rounds with the lock (default: 3)")
    parser.add_argument(
        "--faults",
        type=int,
        default=1,
        help="faults on each way, at most (default: 1). With 2, all but rescue end within a quarter of an hour; rescue has "
        "42 million states with --jobs 1, which takes an hour and 14 GB, and is sized for larger machines with more jobs",
    )
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument("--most", type=int, help="stop each scenario after so many states")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Explore, print, and answer the exit code."""
    if not arguments.json:
        print(
            f"jobqueue {__version__}: {arguments.runners} runners × {arguments.jobs} jobs, up to {arguments.faults} faults, "
            "every interleaving"
        )
        print(f"{'scenario':<10}{'states':>12}{'transitions':>14}{'leaves':>10}{'seconds':>10}  verdict")
    found = []
    for name in arguments.scenario or SCENARIOS:
        [one] = explore(
            [name], runners=arguments.runners, jobs=arguments.jobs, faults=arguments.faults, most=arguments.most,
            progress=_progress if sys.stderr.isatty() else _silent,
        )  # fmt: skip
        found.append(one)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if not arguments.json:
            totals = one.totals
            print(
                f"{one.scenario:<10}{totals.states:>12,}{totals.transitions:>14,}{totals.leaves:>10,}"
                f"{totals.seconds:>10.1f}  {one.verdict}{f': {one.broken}' if one.broken else ''}",
                flush=True,
            )
            if one.trace:
                print(one.trace)
    if arguments.json:
        print(json.dumps({"version": __version__, "scenarios": [as_json(one) for one in found]}, indent=2))
    elif len(found) > 1:
        states, seconds = sum(one.totals.states for one in found), sum(one.totals.seconds for one in found)
        print(
            f"{'together':<10}{states:>12,}{'':>24}{seconds:>10.1f}  {states / max(seconds, 1e-9):,.0f} states a second"
        )
    return 1 if any(one.broken for one in found) else 0


def as_json(one: Exploration) -> dict[str, Any]:
    """One scenario's result as ``--json`` prints it."""
    return {**attrs.asdict(one), "verdict": one.verdict}


def _progress(scenario: str, totals: Totals, left: int) -> None:
    """Of what is known by now, how much has been visited: nobody knows beforehand how much there is."""
    filled = _BAR * totals.states // (totals.states + left)
    bar = "█" * filled + "·" * (_BAR - filled)
    told = f"{totals.states:,} states, {left:,} to visit, {totals.depth} steps deep, {totals.seconds:.0f} s"
    print(f"\r\x1b[K{scenario:<8} {bar} {told}", end="", file=sys.stderr, flush=True)


def _silent(_scenario: str, _totals: Totals, _left: int) -> None:
    """Nobody looks."""
