"""Figures as plain SVG: bars that compare, and curves over time. No library: two hundred lines of text are all there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape

import attrs

from benchmarks.figures import Row, shown

__all__ = ["Curve", "bars", "curves"]

WIDTH = 960
OURS, OTHER, CEILING, INK, SOFT, GRID = "#2563eb", "#f59e0b", "#94a3b8", "#0f172a", "#475569", "#e2e8f0"
FONT = 'font-family="DejaVu Sans, Verdana, sans-serif"'
BAR, GAP, LEFT, RIGHT = 15, 26, 330, 130


def _text(
    x: float, y: float, words: str, *, size: int = 13, fill: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
        f"{escape(words, quote=False)}</text>"
    )


def _page(height: float, title: str, body: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" {FONT} role="img" '
        f'aria-labelledby="title">\n<title id="title">{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height:.0f}" rx="12" fill="#ffffff"/>\n'
    )
    return head + "\n".join(body) + "\n</svg>\n"


def bars(title: str, notes: Sequence[str], rows: Iterable[Row]) -> str:
    """For each row a bar of ours, of the best other and of the ceiling, as long as the values are; each row has a scale of
    its own. Rows where more is better come first."""
    rows = [row for row in rows if row.of(row.ours) is not None]
    parts = [_text(30, 38, title, size=19, bold=True)]
    y = 62.0
    for note in notes:
        parts.append(_text(30, y, note, size=12, fill=SOFT))
        y += 18
    y += 8
    x = 30.0
    for name, colour in (("jobqueue", OURS), ("the best other queue", OTHER), ("bare loop, the ceiling", CEILING)):
        parts.append(f'<rect x="{x:.0f}" y="{y - 11:.0f}" width="13" height="13" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 19, y, name, size=12))
        x += 42 + 7.2 * len(name)
    for more in (True, False):
        group = [row for row in rows if row.more is more]
        if not group:
            continue
        y += 40
        parts.append(_text(30, y, "more is better" if more else "less is better", size=14, fill=SOFT, bold=True))
        y += 8
        for row in group:
            y = _bars_of(parts, row, y + 10)
    return _page(y + 20, title, parts)


def _bars_of(parts: list[str], row: Row, y: float) -> float:
    best, ceiling = row.best_other(), row.of("ceiling")
    ours = row.of(row.ours) or 0.0
    found = [("", ours, OURS)]
    if best is not None:
        found.append((best[0], best[1], OTHER))
    if ceiling is not None:
        found.append(("", ceiling, CEILING))
    longest = max(value for _, value, _ in found) or 1.0
    parts.append(f'<path d="M30 {y:.0f}H{WIDTH - 30}" stroke="{GRID}"/>')
    y += 10
    lines = _wrapped(row.what, 44)
    for number, line in enumerate(lines):
        parts.append(_text(30, y + 12 + 16 * number, line))
    if row.goal:
        parts.append(_text(30, y + 11 + 16 * len(lines), f"wanted: {row.goal}", size=10, fill=SOFT))
    for name, value, colour in found:
        length = max(1.5, value / longest * (WIDTH - LEFT - RIGHT - 30))
        parts.append(f'<rect x="{LEFT}" y="{y:.1f}" width="{length:.1f}" height="{BAR - 2}" rx="2" fill="{colour}"/>')
        parts.append(_text(LEFT + length + 7, y + 11, f"{shown(value)}{f'  {name}' if name else ''}", size=12))
        y += BAR
    return y + max(0, 16 * len(lines) + GAP - 8 - BAR * len(found)) + 6


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


# ------------------------------------------------------------------------------------------------------------- curves


@attrs.frozen
class Curve:
    """One quantity over time.

    Attributes:
        name: What it is, with its unit.
        points: Seconds and values.
        colour: Of the line.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = OURS


PANEL, TOP, SIDE = 120, 44, 70


def curves(
    title: str, notes: Sequence[str], panels: Sequence[Sequence[Curve]], events: Sequence[tuple[float, str]]
) -> str:
    """Panels above each other with the same time, and a line through all of them for each event."""
    last = max((at for panel in panels for curve in panel for at, _ in curve.points), default=1.0) or 1.0
    parts = [_text(30, 38, title, size=19, bold=True)]
    y = 62.0
    for note in notes:
        parts.append(_text(30, y, note, size=12, fill=SOFT))
        y += 18
    top = y

    def across(at: float) -> float:
        return SIDE + at / last * (WIDTH - SIDE - 30)

    kinds = list(dict.fromkeys(name for _, name in events))
    marks = dict(zip(kinds, _COLOURS * (1 + len(kinds) // len(_COLOURS)), strict=False))
    bottom = top + len(panels) * (PANEL + TOP)
    for at, name in events:
        parts.append(
            f'<path d="M{across(at):.1f} {top + 14:.0f}V{bottom:.0f}" stroke="{marks[name]}" stroke-opacity="0.35"/>'
        )
    for number, panel in enumerate(panels):
        _panel(parts, panel, top + number * (PANEL + TOP) + TOP, across)
    parts += [
        _text(across(minute * 60), bottom + 18, f"{minute} min", size=11, fill=SOFT, anchor="middle")
        for minute in range(int(last // 60) + 1)
    ]
    x, y = float(SIDE), bottom + 44
    for name in kinds:
        if x + 30 + 6.6 * len(name) > WIDTH - 30:
            x, y = float(SIDE), y + 20
        parts.append(f'<path d="M{x:.0f} {y - 4:.0f}h16" stroke="{marks[name]}" stroke-width="3"/>')
        parts.append(_text(x + 22, y, name, size=11))
        x += 46 + 6.6 * len(name)
    return _page(y + 24, title, parts)


_COLOURS = ("#dc2626", "#d97706", "#16a34a", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


def _panel(parts: list[str], panel: Sequence[Curve], top: float, across: Callable[[float], float]) -> None:
    highest = max((value for curve in panel for _, value in curve.points), default=1.0) or 1.0
    for part in (0.0, 0.5, 1.0):
        y = top + PANEL * (1 - part)
        parts.append(f'<path d="M{SIDE} {y:.1f}H{WIDTH - 30}" stroke="{GRID}"/>')
        parts.append(_text(SIDE - 8, y + 4, shown(highest * part), size=11, fill=SOFT, anchor="end"))
    x = float(SIDE)
    for curve in panel:
        parts.append(f'<path d="M{x:.0f} {top - 13:.0f}h16" stroke="{curve.colour}" stroke-width="3"/>')
        parts.append(_text(x + 22, top - 9, curve.name, size=12))
        x += 46 + 7.2 * len(curve.name)
        line = "L".join(f"{across(at):.1f} {top + PANEL * (1 - value / highest):.1f}" for at, value in curve.points)
        if line:
            parts.append(f'<path d="M{line}" fill="none" stroke="{curve.colour}" stroke-width="1.6"/>')
