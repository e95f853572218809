"""``python -m tests.mutants``: plant every known-wrong variant, and say which test caught it first.

Exit code 0: all were caught; 1: one survived, or was caught by a test that fails without it as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.mutants.variants import VARIANTS
from tests.mutants.workshop import PARTS, Caught, hunt_all, innocent

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
    _progress(0, len(chosen), chosen[0].name)
    for one in hunt_all(chosen, arguments.part or tuple(PARTS), arguments.limit, workers=arguments.workers):
        found.append(one)
        _clear()
        if not arguments.json:
            print(f"{one.variant.name:<32} {one.seconds:>6.1f} s  {one.test or 'SURVIVED'}", flush=True)
        if len(found) < len(chosen):
            _progress(len(found), len(chosen), chosen[len(found)].name)
    _progress(len(found), len(chosen), "the same tests without any of them")
    guilty = innocent([one.test for one in found if one.test is not None])
    _clear()
    survivors = [one.variant.name for one in found if one.test is None]
    if arguments.json:
        print(json.dumps({"variants": [one.as_dict() for one in found], "fail_anyway": guilty}, indent=2))
    else:
        caught = len(found) - len(survivors)
        print(f"{caught} of {len(found)} caught; {sum(one.seconds for one in found):.0f} s")
        for name in survivors:
            print(f"SURVIVED: {name}, a library that {VARIANTS[name].sentence}: a test is missing")
        for test in guilty:
            print(f"FAILS WITHOUT A VARIANT TOO: {test}")
    return 1 if survivors or guilty else 0


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
