"""``python -m benchmarks [measurement …]``: how fast jobqueue is, beside other queues and a bare loop, in one run.

``python -m benchmarks setup`` makes a virtual environment for each of the other queues; one that has none is left out, with
a word. ``--write`` puts what was measured into docs/explanation/speed.md and speed.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.contenders import CEILING, CONTENDERS, OTHERS, Contender, set_up
from benchmarks.distance import distance
from benchmarks.figures import Row, as_full_table, as_table
from benchmarks.latency import latency
from benchmarks.machine import machine
from benchmarks.many import many
from benchmarks.measure import Plan
from benchmarks.rough import killed, mixture
from benchmarks.scale import scale
from benchmarks.stand import raise_priority
from benchmarks.svg import bars
from benchmarks.throughput import throughput
from tests.pages import table, write_part

__all__ = ["MEASUREMENTS", "PAGE", "main"]

PAGE: Final = Path(__file__).parents[1] / "docs/explanation/speed.md"
ENVIRONMENTS: Final = "JOBQUEUE_BENCH_ENVS"
MEASUREMENTS: Final[Mapping[str, Callable[[Plan], list[Row]]]] = {
    "throughput": throughput, "latency": latency, "distance": distance, "killed": killed, "mixture": mixture,
    "scale": scale, "many": many,
}  # fmt: skip


def write(page: Path, what: Mapping[str, str], found: Mapping[str, list[Row]]) -> None:
    """Write the parts that were measured, and the figure of throughput and latency if both were."""
    versions = table(("what", "version"), what.items())
    for name, rows in found.items():
        body = (f"Measured on {what['date']}.", as_table(rows), "Every contender, medians:", as_full_table(rows))
        write_part(page, name, "\n\n".join(body))
    write_part(page, "versions", versions)
    if {"throughput", "latency"} <= found.keys():
        notes = (
            f"{what['machine']} · Python {what['Python']} · Redis {what['Redis']}",
            f"measured together on {what['date']}; each row has a scale of its own",
        )
        rows = [*found["throughput"], *found["latency"]]
        page.with_suffix(".svg").write_text(bars("How fast jobqueue is", notes, rows))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = ", ".join(MEASUREMENTS)
    parser.add_argument("what", nargs="*", help=f"setup [queue …], or some of {choices} (default: all of these)")
    parser.add_argument("--queues", help=f"only these, comma-separated: {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="how often; medians count (default: 3)")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the jobs, to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON document with all values instead of tables")
    parser.add_argument("--write", type=Path, nargs="?", const=PAGE, metavar="PAGE", help=f"write {PAGE.name} too")
    parser.add_argument(
        "--envs",
        type=Path,
        default=Path(os.environ.get(ENVIRONMENTS, Path(tempfile.gettempdir()) / "jobqueue-bench-envs")),
        help=f"where the virtual environments are (default: ${ENVIRONMENTS}, or in the temporary folder)",
    )
    given = parser.parse_args(argv)
    if given.what[:1] == ["setup"]:
        if unknown := set(given.what[1:]) - {one.name for one in OTHERS}:
            parser.error(f"nothing is to be installed for {', '.join(sorted(unknown))}")
    elif unknown := set(given.what) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; there are setup, {choices}")
    given.queues = list(CONTENDERS) if given.queues is None else [name.strip() for name in given.queues.split(",")]
    if unknown := set(given.queues) - set(CONTENDERS):
        parser.error(f"there is no queue {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if given.rounds < 1:
        parser.error("--rounds is at least 1")
    if given.quick and given.write == PAGE:
        parser.error("--quick numbers mean little: name another page after --write")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit code."""
    given = _arguments(argv)
    if given.what[:1] == ["setup"]:
        set_up(given.envs, given.what[1:])
        return 0
    contenders: list[Contender] = []
    for contender in (CONTENDERS[name] for name in given.queues):
        if contender.installed(given.envs):
            contenders.append(contender)
        else:
            print(f"{contender.name} is left out: python -m benchmarks setup {contender.name}", file=sys.stderr)
    if not given.quick and not raise_priority(os.getpid()):
        print("the priority could not be raised: other processes may disturb the numbers", file=sys.stderr)
    plan = Plan(tuple(contenders), given.envs, 1 if given.quick else given.rounds, given.quick)
    what = machine({one.name: one.version(given.envs) for one in contenders if one.packages or one is CEILING})
    what = {("redis-py" if name == CEILING.name else name): version for name, version in what.items()}
    found = {name: MEASUREMENTS[name](plan) for name in given.what or MEASUREMENTS}
    if given.json:
        print(json.dumps({"on": what, **{name: [row.as_dict() for row in rows] for name, rows in found.items()}}))
    else:
        print("\n\n".join([table(("what", "version"), what.items()), *(as_table(rows) for rows in found.values())]))
    if given.write is not None:
        write(given.write, what, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
