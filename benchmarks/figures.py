"""What was measured, as values: a row for each quantity, and in it a figure for each contender."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from benchmarks.stand import median
from tests.pages import table

__all__ = ["Row", "as_full_table", "as_table", "shown"]


@attrs.define
class Row:
    """One quantity.

    Attributes:
        what: The quantity, with its unit.
        more: Whether more is better.
        ours: Which of the contenders is ours in this row.
        goal: What is wanted, in words.
        values: Contender → one value for each round.
        others: How many cores other processes used in each of the runs.
    """

    what: str
    more: bool = True
    ours: str = "jobqueue"
    goal: str = ""
    values: dict[str, list[float]] = attrs.field(factory=dict)
    others: list[float] = attrs.field(factory=list)

    def add(self, contender: str, value: float) -> None:
        """One more value."""
        self.values.setdefault(contender, []).append(value)

    def of(self, contender: str) -> float | None:
        """The median of a contender's values."""
        found = self.values.get(contender)
        return median(found) if found else None

    def best_other(self) -> tuple[str, float] | None:
        """The best of those that are neither ours nor the ceiling."""
        found = [
            (name, median(values))
            for name, values in self.values.items()
            if values and name != "ceiling" and not name.startswith("jobqueue")
        ]
        if not found:
            return None
        return (max if self.more else min)(found, key=lambda pair: pair[1])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return attrs.asdict(self)


def shown(value: float | None) -> str:
    """A number with as many digits as say something."""
    if value is None:
        return "–"
    if not value:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(above: float | None, below: float | None) -> str:
    return "–" if above is None or not below else f"{above / below:.2f}"


def as_table(rows: Iterable[Row]) -> str:
    """Ours beside the best other and the ceiling; a ratio is ours divided by theirs, whichever way is better."""
    lines = []
    for row in rows:
        ours, best, ceiling = row.of(row.ours), row.best_other(), row.of("ceiling")
        lines.append((
            row.what, shown(ours), f"{shown(best[1])} ({best[0]})" if best else "–", _ratio(ours, best[1] if best else None),
            shown(ceiling), _ratio(ours, ceiling), row.goal or "–", f"{max(row.others):.1f}" if row.others else "–",
        ))  # fmt: skip
    head = ("what", "jobqueue", "best other", "ours / other", "ceiling", "ours / ceiling", "wanted", "others' cores")
    return table(head, lines)


def as_full_table(rows: Iterable[Row]) -> str:
    """Every contender's median."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    return table(("what", *names), [(row.what, *(shown(row.of(name)) for name in names)) for row in rows])
