"""``python -m tests.proof [part …]``: run what proves the promise, and write what it saw into docs/explanation/proof.md.

Each part stands between two markers and can be written anew by itself. The parts ``mutants`` and ``wider`` are by far the
longest: ``--mutants FILE`` takes what ``python -m tests.mutants --json`` printed, and ``--explored FILE`` what
``python -m jobqueue.testing explore --json`` printed, instead of running it again; several files where it was shared out.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hypothesis import settings

from jobqueue import __version__
from jobqueue.storage.ops import Applied, Refused
from jobqueue.testing.explore import SCENARIOS, explore
from jobqueue.testing.explore.command import as_json
from jobqueue.testing.simulation import MEANINGS, simulate
from jobqueue.testing.simulation.suite import NEVER_SEEN
from tests.mutants.variants import VARIANTS
from tests.mutants.workshop import Workshop
from tests.pages import table, write_part
from tests.servers import kinds, start_server, version_of
from tests.storage.test_lockstep import OPS, WANTED, run_machine

__all__ = ["PAGE", "PARTS", "main"]

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/explanation/proof.md"


# ----------------------------------------------------------------------------------------------------------- the parts


def versions() -> str:
    """What everything else ran on."""
    rows = [
        ("jobqueue", __version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        *((kind.capitalize(), version_of(kind)) for kind in kinds()),
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
    ]
    return table(("what", "version"), rows)


def simulation(histories: int = 300) -> str:
    """Histories with faults, and how often each invariant was put to the test."""
    report = simulate(range(histories))
    told = (
        f"{report.histories:,} histories, {report.jobs:,} jobs, {report.runs:,} runs, {report.steps:,} steps of the "
        f"storage, {report.virtual / 3600:,.0f} hours of virtual time in {report.seconds:,.0f} s. Every invariant held."
    )
    seen = [(rule, MEANINGS[rule], report.seen[rule]) for rule in MEANINGS if rule not in NEVER_SEEN]
    return "\n\n".join(
        (
            told,
            table(("fault", "times"), sorted(report.faults.items())),
            table(("jobs ended", "times"), sorted(report.ended.items())),
            table(("invariant", "what has to hold", "times put to the test"), seen),
        )
    )


def exploration() -> str:
    """Every state of the scenarios."""
    rows = []
    for name in SCENARIOS:
        [one] = explore([name])
        if one.verdict != "holds":
            raise AssertionError(f"{name}: {one.broken}\n{one.trace}")
        totals = one.totals
        rows.append((name, totals.states, totals.transitions, totals.leaves, f"{totals.seconds:,.0f} s", one.verdict))
    return table(("scenario", "states", "transitions", "leaves", "took", "verdict"), rows)


WIDER: Final = tuple(
    (name, runners, 1 if name == "rescue" else 3, faults) for runners, faults in ((2, 2), (3, 1)) for name in SCENARIOS
)
"""Scenario, runners, jobs and faults of the longer walks. Of ``rescue`` a single job has 44 million states."""


def wider(printed: Sequence[Path]) -> str:
    """Every state with one fault more, or one runner more."""
    told: dict[tuple[str, int, int, int], dict[str, Any]] = {}
    for path in printed:
        for one in json.loads(path.read_text())["scenarios"]:
            told[one["scenario"], one["runners"], one["jobs"], one["faults"]] = one
    rows = []
    for name, runners, jobs, faults in WIDER:
        if printed:
            if (name, runners, jobs, faults) not in told:
                raise AssertionError(f"the files lack {name} with {runners} runners, {jobs} jobs and {faults} faults")
            one = told[name, runners, jobs, faults]
        else:
            one = as_json(explore([name], runners=runners, jobs=jobs, faults=faults)[0])
        totals = one["totals"]
        if one["verdict"] != "holds" or not totals["complete"]:
            raise AssertionError(f"{name}: {one['verdict']}\n{one['trace']}")
        took = f"{totals['seconds']:,.0f} s"
        rows.append((name, runners, jobs, faults, totals["states"], totals["transitions"], took, one["verdict"]))
    return table(("scenario", "runners", "jobs", "faults", "states", "transitions", "took", "verdict"), rows)


def lockstep(sequences: int = 200) -> str:
    """Operations × outcomes that memory and servers were compared in."""
    columns: list[tuple[str, Counter[Any]]] = []
    for kind in kinds():
        met: Counter[Any] = Counter()
        server = start_server(kind)
        try:
            run_machine(server, met, settings(max_examples=sequences, stateful_step_count=40, deadline=None))
        finally:
            server.stop()
        columns.append((f"{kind.capitalize()} {version_of(kind)}", met))
    rows = []
    for op in OPS:
        ended = [
            f"{met[op, Applied]:,} / {met[op, Refused]:,} / {sum(n for key, n in met.items() if _foreign(key, op)):,}"
            for _, met in columns
        ]
        rows.append((f"`{op.__name__}`", *ended))
    covered = [f"{sum(1 for what in WANTED if met[what])} of {len(WANTED)}" for _, met in columns]
    rows.append(("situations met", *covered))
    return table(("applied / refused / foreign key", *(name for name, _ in columns)), rows)


def _foreign(key: object, op: type) -> bool:
    return isinstance(key, tuple) and len(key) == 2 and key[0] is op and key[1] not in (Applied, Refused)


def faults() -> str:
    """Cells of the fault grid that passed, by file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-q", "tests/faults", f"--junitxml={report}", "-p", "no:cacheprovider"]
        started = time.monotonic()
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        took = time.monotonic() - started
        if ended.returncode != 0:
            raise AssertionError(f"the fault grid does not hold\n{ended.stdout[-3000:]}")
        cases = list(ET.parse(report).iter("testcase"))
    files: dict[str, Counter[str]] = {}
    for case in cases:
        file = case.get("classname", "").rpartition(".")[2]
        files.setdefault(file, Counter())["left out" if case.find("skipped") is not None else "passed"] += 1
    rows: list[tuple[object, ...]] = [
        (_about(file), f"`{file}.py`", count["passed"], count["left out"]) for file, count in files.items()
    ]
    rows.append(
        ("together", f"{took:,.0f} s", *(sum(n[what] for n in files.values()) for what in ("passed", "left out")))
    )
    return table(("faults", "tests", "cells passed", "left out"), rows)


def _about(file: str) -> str:
    """What a file of tests says of itself."""
    told = ast.get_docstring(ast.parse((ROOT / "tests/faults" / f"{file}.py").read_text())) or ""
    return " ".join(told.partition("\n\n")[0].split())


def mutants(printed: Sequence[Path], workers: int) -> str:
    """Planted bugs, and what caught them."""
    if printed:
        told = {one["variant"]: one for path in printed for one in json.loads(path.read_text())["variants"]}
        if other := told.keys() ^ VARIANTS.keys():
            raise AssertionError(f"the files are of other variants, or not of all: {', '.join(sorted(other))}")
        found = [told[name] for name in VARIANTS]
    else:
        found = [one.as_dict() for one in Workshop().hunt_all(list(VARIANTS.values()), workers=workers)]
    survivors = [one["variant"] for one in found if not one["test"]]
    if survivors:
        raise AssertionError(f"survived: {', '.join(survivors)}")
    parts = Counter(str(one["part"]) for one in found)
    where = ", ".join(f"{count} by the {part}" for part, count in parts.most_common())
    rows = [
        (f"`{one['variant']}`", one["sentence"], f"`{str(one['test']).rpartition('::')[2]}`", f"{one['seconds']:.0f} s")
        for one in found
    ]
    return f"{len(found)} of {len(found)} caught: {where}.\n\n" + table(
        ("variant", "a library that", "first test that fails", "after"), rows
    )


PARTS: Final = ("versions", "simulation", "exploration", "wider", "lockstep", "faults", "mutants")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; answers its exit code: 1 if something does not hold, and then nothing of that part is written."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"only these: {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--mutants",
        type=Path,
        metavar="FILE",
        nargs="+",
        default=[],
        help="what `python -m tests.mutants --json` printed",
    )
    parser.add_argument(
        "--explored",
        type=Path,
        metavar="FILE",
        nargs="+",
        default=[],
        help="what `python -m jobqueue.testing explore --json` printed, of all that the part `wider` has",
    )
    parser.add_argument("--workers", type=int, default=1, help="planted bugs that are tried at a time (default: 1)")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="the document to write (default: docs/explanation/proof.md)"
    )
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    make: dict[str, Callable[[], str]] = {
        "versions": versions, "simulation": simulation, "exploration": exploration,
        "wider": lambda: wider(arguments.explored), "lockstep": lockstep, "faults": faults,
        "mutants": lambda: mutants(arguments.mutants, arguments.workers),
    }  # fmt: skip
    broken = 0
    for part in arguments.parts or PARTS:
        started = time.monotonic()
        print(f"{part} … ", end="", file=sys.stderr, flush=True)
        try:
            body = make[part]()
        except AssertionError as error:
            broken += 1
            print(f"does not hold: {error}", file=sys.stderr)
            continue
        write_part(arguments.page, part, body)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
