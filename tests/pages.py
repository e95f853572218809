"""Pages that commands write: parts between markers, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["parts_of", "replaced", "table", "write_part"]

_PART: Final = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)


def parts_of(text: str) -> dict[str, str]:
    """What stands between the markers of a page, by part."""
    return {name: body for _, name, body, _ in _PART.findall(text)}


def replaced(text: str, part: str, body: str) -> str:
    """The page with one part written anew.

    Raises:
        ValueError: The page has no markers of this part.
    """
    if part not in parts_of(text):
        raise ValueError(f"the page has no markers of {part!r}: add <!-- generated: {part} --> and <!-- end -->")
    return _PART.sub(lambda found: f"{found[1]}\n{body.strip()}\n\n{found[4]}" if found[2] == part else found[0], text)


def write_part(page: Path, part: str, body: str) -> None:
    """Write one part of a page. The page is read anew, for another run may have written another part meanwhile."""
    page.write_text(replaced(page.read_text(), part, body))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers get thin separators, and what would end a cell is escaped."""

    def cell(value: object) -> str:
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|")

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)
