"""The page with the numbers: every part has its markers and was written by the command, whatever the numbers are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.variants import VARIANTS
from tests.pages import parts_of, replaced
from tests.proof import PAGE, PARTS, main


def test_every_part_has_its_markers_once_and_in_order() -> None:
    text = PAGE.read_text()
    assert tuple(parts_of(text)) == PARTS
    assert text.count("<!-- generated: ") == text.count("<!-- end -->") == len(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_a_table(part: str) -> None:
    lines = [line for line in parts_of(PAGE.read_text())[part].splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"`python -m tests.proof {part}` has not been run"
    assert set(lines[1]) <= set("|- ")


def test_the_page_knows_every_variant() -> None:
    body = parts_of(PAGE.read_text())["mutants"]
    assert [name for name in VARIANTS if f"| `{name}` |" not in body] == [], "run `python -m tests.proof mutants`"


def test_one_part_is_written_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- generated: simulation -->\n1\n<!-- end -->\nb\n<!-- generated: versions -->\n<!-- end -->\nc\n"
    )

    assert main(["versions", "--page", str(page)]) == 0

    assert parts_of(page.read_text())["simulation"] == "1\n"
    assert "| Python | " in parts_of(page.read_text())["versions"]
    assert page.read_text().startswith("a\n")
    assert page.read_text().endswith("c\n")


def test_a_page_without_markers_is_told() -> None:
    with pytest.raises(ValueError, match="no markers of 'lockstep'"):
        replaced("nothing", "lockstep", "1")
