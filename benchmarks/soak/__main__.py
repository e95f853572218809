"""The command: see the package."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import soak as package
from benchmarks.machine import machine
from benchmarks.soak.stage import LEASE_S, RUNNERS, Soak
from benchmarks.soak.verdict import draw, verdicts
from tests.pages import table, write_part

__all__ = ["main"]

PAGE: Final = Path(__file__).parents[2] / "docs/explanation/speed.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit code: 0 if everything held."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults (default: 5)")
    parser.add_argument("--rate", type=float, help="jobs per second (default: half of what the runners drain)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the faults (default: 1)")
    parser.add_argument("--svg", type=Path, help="draw the curves into this file")
    parser.add_argument("--write", action="store_true", help=f"write the part of {PAGE.name}, and soak.svg beside it")
    given = parser.parse_args(argv)
    if not (0 < given.minutes <= 600 and given.every > 0 and (given.rate is None or given.rate > 0)):
        parser.error("--minutes is more than 0 and at most 600; --every and --rate are more than 0")
    say: Callable[[str], None] = lambda words: print(words, file=sys.stderr, flush=True)  # noqa: E731
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, given.seed)
    try:
        full = soak.warm_up()
        rate = full / 2 if given.rate is None else given.rate
        say(f"{rate:,.0f} jobs/s for {given.minutes:g} minutes")
        soak.run(rate, given.minutes * 60, given.every, say)
        left = soak.left()
        soak.supervisor.send_signal(signal.SIGTERM)
        ended = soak.supervisor.wait(60)
    finally:
        soak.close()
        shutil.rmtree(folder, ignore_errors=True)
    found = verdicts(soak.ledger, soak.accepted, soak.samples, left=left, ended=ended)
    what = machine()
    faults = Counter(name for _, name in soak.faults)
    notes = (
        f"{what['machine']} · Python {what['Python']} · {what['date']}",
        f"{RUNNERS} supervised runners of 4 threads, lease {LEASE_S} s · {rate:,.0f} jobs/s · {len(soak.faults)} faults",
    )
    report = "\n\n".join([
        f"{notes[0]}. {notes[1]}. {soak.accepted:,} jobs, {soak.ledger.again():,} runs were a second run of a job.",
        table(
            ("what has to hold", "does it", "numbers"),
            [(name, "yes" if held else "NO", told) for name, held, told in found],
        ),
        table(("fault", "times"), sorted(faults.items())),
    ])  # fmt: skip
    print(report)
    if given.svg is not None:
        given.svg.write_text(draw(soak.samples, soak.faults, notes))
    if given.write:
        PAGE.with_name("soak.svg").write_text(draw(soak.samples, soak.faults, notes))
        write_part(PAGE, "soak", report)
    return 0 if all(held for _, held, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
