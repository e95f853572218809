"""``python -m tests.mutants``: plant every known-wrong variant, and say which test caught it first.

A test counts if it fails twice with the variant and passes without it. Exit code 0: all were caught; 1: one survived.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.mutants.variants import VARIANTS
from tests.mutants.workshop import PARTS, Caught, Workshop

__all__ = ["main"]

_BAR = 24


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", choices=list(VARIANTS), help="may be repeated")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="run only this part of the tests")
    parser.add_argument("--limit", type=float, default=600, help="seconds per variant (default: 600)")
    parser.add_argument("--workers", type=int, default=1, help="variants that are tried at a time (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--list", action="store_true", help="only say which variants there are")
    arguments = parser.parse_args(argv)
    if arguments.list:
        for variant in VARIANTS.values():
            print(f"{variant.name:<32} {variant.sentence}")
        return 0
    chosen = [VARIANTS[name] for name in arguments.only or VARIANTS]
    found: list[Caught] = []
    workshop = Workshop()
    _progress(0, len(chosen), chosen[0].name)
    for one in workshop.hunt_all(chosen, arguments.part or tuple(PARTS), arguments.limit, workers=arguments.workers):
        found.append(one)
        _clear()
        if not arguments.json:
            print(f"{one.variant.name:<32} {one.seconds:>6.1f} s  {one.test or 'SURVIVED'}", flush=True)
        if len(found) < len(chosen):
            _progress(len(found), len(chosen), chosen[len(found)].name)
    survivors = [one.variant.name for one in found if one.test is None]
    if arguments.json:
        table = {"variants": [one.as_dict() for one in found], "doubted": sorted(workshop.doubted)}
        print(json.dumps(table, indent=2))
    else:
        caught = len(found) - len(survivors)
        print(f"{caught} of {len(found)} caught; {sum(one.seconds for one in found):.0f} s")
        for test in sorted(workshop.doubted):
            print(f"not counted, because it fails without a variant too, or only sometimes: {test}")
        for name in survivors:
            print(f"SURVIVED: {name}, a library that {VARIANTS[name].sentence}: a test is missing")
    return 1 if survivors else 0


def _progress(done: int, of: int, name: str) -> None:
    if sys.stderr.isatty():
        filled = _BAR * done // of
        bar = "█" * filled + "·" * (_BAR - filled)
        print(f"\r\x1b[K{bar} {done}/{of} {name}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
