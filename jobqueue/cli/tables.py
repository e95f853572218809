"""Tables on the terminal. The only module besides the demo's screen that imports rich."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobqueue.cli.text import clean_lines
from jobqueue.safe_text import LINE, printable

__all__ = ["print_fields", "print_table", "terminal_width"]

LONG = 20_000
"""Characters of a value that is not fitted into columns: rich takes minutes for a megabyte of short lines."""
PIPE_WIDTH = 200
"""Columns where the output is no terminal: nobody there can make the window wider."""


def console() -> Console:
    """A console on standard output that takes no markup from text."""
    out = Console(highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out = Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH)
    return out


def terminal_width() -> int:
    """How many columns the terminal has."""
    return console().width


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str, cut: Collection[str] | None = None
) -> None:
    """Print a table, or the sentence ``empty`` where there is no row.

    Args:
        columns: The headings; one that begins with ``>`` is aligned to the right.
        rows: The cells; cleaned here.
        empty: What to say instead of an empty table.
        cut: The columns that a narrow terminal shortens; by default all but the first.
    """
    out = console()
    if not rows:
        out.print(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        heading = column.removeprefix(">")
        table.add_column(
            heading,
            justify="right" if column.startswith(">") else "left",
            no_wrap=index == 0 if cut is None else column not in cut,  # ids and names are copied from here
            min_width=len(heading),
        )
    for row in rows:
        # One line each, cut where the terminal is narrow: wrapped cells of several columns cannot be read.
        table.add_row(*(Text(printable(cell, LINE), no_wrap=True, overflow="ellipsis") for cell in row))
    out.print(table)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values below each other; values may have several lines, and be long."""
    out = console()
    width = max(len(name) for name, _ in fields)
    for is_long, group in itertools.groupby(fields, lambda field: len(field[1]) > LONG):
        if is_long:
            for name, value in group:
                text = clean_lines(value).replace("\n", f"\n{'':{width}}  ")  # no line of a value looks like a name
                click.echo(f"{name:{width}}  {text}")
            continue
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True, min_width=width)
        table.add_column(overflow="fold")
        for name, value in group:
            table.add_row(Text(name), Text(clean_lines(value)))
        out.print(table)
