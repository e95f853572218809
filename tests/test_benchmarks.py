"""The benchmarks run, tell what they measured, and leave nothing behind; what they count with counts right."""

from __future__ import annotations

import json
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as bench
import benchmarks.soak.__main__ as soak
from benchmarks import kit
from benchmarks.figures import Row, as_table
from benchmarks.soak.jobs import Ledger
from benchmarks.soak.stage import Sample
from benchmarks.soak.verdict import draw, verdicts
from benchmarks.svg import bars
from benchmarks.tally import Tally
from tests.pages import parts_of
from tests.servers import Server, kinds

needs_redis = pytest.mark.skipif("redis" not in kinds(), reason="redis-server is not installed")


# ---------------------------------------------------------------------------------------------------------- the command


@needs_redis
def test_throughput_beside_the_ceiling(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- generated: {part} -->\n<!-- end -->\n" for part in ("throughput", "versions")))

    given = ["throughput", "--quick", "--json", "--queues", "jobqueue,ceiling,celery", "--write", str(page)]
    assert bench.main([*given, "--envs", str(tmp_path / "none")]) == 0

    told, word = capsys.readouterr()
    rows = {row["what"]: row["values"] for row in json.loads(told)["throughput"]}
    drained = rows["drain, one runner, functions, jobs/s"]
    assert set(drained) == {"jobqueue", "ceiling"}
    assert all(value > 100 for values in drained.values() for value in values)
    [trips] = rows["round trips per 100 jobs drained"]["jobqueue"]
    [size] = rows["bytes stored per queued no-op"]["jobqueue"]
    assert 0.3 < trips < 100
    assert 85 < size < 1000  # the record and the id have 85 bytes
    assert "celery is left out: python -m benchmarks setup celery" in word
    assert "| drain, one runner, functions, jobs/s |" in parts_of(page.read_text())["throughput"]
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"], "something was left behind"


def test_kit_in_memory_and_on_a_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kit.main(["--url", server.url, "--rounds", "2"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("  ")] == ["in memory", "on a server"]
    assert len(told) == 10
    with server.client() as client:
        assert client.keys() == []


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--rounds", "0"], ["--queues", "jobqueue,nobody"], ["setup", "jobqueue"], ["--quick", "--write"]],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main(arguments)
    assert caught.value.code == 2


def test_the_page_has_every_measurement_written() -> None:
    parts = parts_of(bench.PAGE.read_text())
    assert set(parts) == {"versions", *bench.MEASUREMENTS, "soak"}
    assert [name for name, body in parts.items() if "| --- |" not in body] == [], "run `python -m benchmarks --write`"
    for name in ("speed.svg", "soak.svg"):
        ET.parse(bench.PAGE.with_name(name))


# ------------------------------------------------------------------------------------------------------------- counting


def test_the_tally_counts_jobs_and_runs(tmp_path: Path) -> None:
    inside, outside = Tally(tmp_path / "tally", 5), Tally(tmp_path / "tally")
    for number in (0, 3, 3):
        inside.began(number)
    for number in (0, 0, 3):
        inside.ended(number)

    assert (len(outside), outside.begun(), outside.done(), outside.twice()) == (5, 2, 2, 1)
    assert [bool(at) for at in outside.begins()] == [True, False, False, True, False]
    assert [bool(at) for at in outside.ends()] == [True, False, False, True, False]


def test_the_rate_is_between_the_first_and_the_last_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr("benchmarks.tally.time.time", lambda: next(times))
    marks = Tally(tmp_path / "tally", 4)
    for number in (2, 0, 1):
        marks.ended(number)

    assert marks.rate() == pytest.approx(2 / 4)
    assert Tally(tmp_path / "one", 1).rate() == 0


def test_the_best_other_is_neither_ours_nor_the_ceiling() -> None:
    found = {"jobqueue": [50.0, 10.0, 30.0], "jobqueue (coroutines)": [1.0], "ceiling": [60.0], "a": [3.0], "b": [5.0]}

    more, less = Row("x", values=found, others=[0.1, 0.5]), Row("y", more=False, values=found)

    assert (more.best_other(), less.best_other()) == (("b", 5.0), ("a", 3.0))
    assert as_table([more]).splitlines()[2] == "| x | 30.0 | 5.00 (b) | 6.00 | 60.0 | 0.50 | – | 0.5 |"
    assert Row("z").best_other() is None


# ----------------------------------------------------------------------------------------------------------- the figure


def test_bars_are_as_long_as_their_values() -> None:
    row = Row("drain <fast>", values={"jobqueue": [50.0], "ceiling": [100.0], "huey": [25.0]})

    drawn = ET.fromstring(bars("title", ["a note"], [row, Row("nothing was measured")]))

    rectangles = [one.attrib for one in drawn.iter("{http://www.w3.org/2000/svg}rect")][4:]
    lengths = [float(one["width"]) for one in rectangles]
    assert lengths == [pytest.approx(lengths[2] * part) for part in (0.5, 0.25, 1.0)]
    assert "drain <fast>" in [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]


# ------------------------------------------------------------------------------------------------------------- the soak


@needs_redis
@pytest.mark.timeout(400)  # it waits for two minutes by itself before it says that something hangs
def test_a_short_soak_holds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    code = soak.main(["--minutes", "0.06", "--every", "1", "--rate", "300", "--svg", str(tmp_path / "soak.svg")])

    told = capsys.readouterr().out
    assert code == 0, told
    assert "| every accepted job ran to its end | yes |" in told
    assert " 0 faults" not in told
    ET.parse(tmp_path / "soak.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["soak.svg"], "something was left behind"


def _ledger(folder: Path, *numbers: int) -> Ledger:
    (folder / "1").write_bytes(b"".join(struct.pack("=q", number) for number in numbers))
    (folder / "2").write_bytes(b"\0\0\0")  # an entry that is being written
    ledger = Ledger(folder)
    ledger.look()
    ledger.look()
    return ledger


def _samples(grows: float = 0.0) -> list[Sample]:
    return [Sample(at, 40 + grows * at, 20, 2, at, 0) for at in range(200)]


@pytest.mark.parametrize(
    ("numbers", "grows", "left", "ended", "broken"),
    [
        ((0, 1, 2), 0, 0, 0, None),
        ((0, 1, 2, 1), 0, 0, 0, None),
        ((0, 2), 0, 0, 0, "every accepted job ran to its end"),
        ((0, 1), 0, 0, 0, "every accepted job ran to its end"),
        ((0, 1, 2, 7), 0, 0, 0, "nothing else ran"),
        ((0, 1, 2), 0.3, 0, 0, "flat: memory of the largest runner"),
        ((0, 1, 2), 0, 1, 0, "the storage is empty"),
        ((0, 1, 2), 0, 0, 1, "the supervisor ended well"),
    ],
)
def test_what_does_not_hold_is_told(
    tmp_path: Path, numbers: tuple[int, ...], grows: float, left: int, ended: int, broken: str | None
) -> None:
    found = verdicts(_ledger(tmp_path, *numbers), 3, _samples(grows), left=left, ended=ended)
    assert [name for name, held, _ in found if not held] == ([] if broken is None else [broken])


def test_the_ledger_counts_second_runs(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path, 0, 1, 1, 1)
    assert (ledger.runs, ledger.again(), ledger.missing(2)) == (4, 2, 0)


def test_curves_stay_inside_of_the_picture() -> None:
    drawn: Any = ET.fromstring(draw(_samples(), [(20.0, "a fault")], ["a note"]))
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    lines = [
        one.attrib["d"] for one in drawn.iter("{http://www.w3.org/2000/svg}path") if one.attrib.get("fill") == "none"
    ]
    points = [tuple(map(float, point.split())) for line in lines for point in line[1:].split("L")]
    assert len(points) > 5 * 190
    assert all(0 <= x <= width and 0 <= y <= height and not math.isnan(y) for x, y in points)
