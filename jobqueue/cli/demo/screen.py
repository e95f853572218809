"""What the demo shows while it runs, and what it prints at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobqueue.cli.demo.play import Outcome, QueueState, Scene
from jobqueue.cli.demo.verdict import Totals
from jobqueue.cli.text import clean

__all__ = ["live", "print_outcome"]

PLACES: Final = ("waiting", "ready", "working", "done", "dead")
WORST: Final = 5
"""How many wrong files are named."""


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


@contextmanager
def live() -> Iterator[Callable[[Scene], None]]:
    """A screen that is drawn anew with each scene; where the output is no terminal, only the last one is printed."""
    # Drawn from here alone, not from a thread of its own: there is something new only when there is a scene.
    with Live(console=_console(), auto_refresh=False) as screen:

        def show(scene: Scene) -> None:
            screen.update(_picture(scene), refresh=screen.console.is_terminal)

        yield show


def _picture(scene: Scene) -> Group:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_footer=True)
    states = scene.queues.values()
    table.add_column("queue", "both")
    for place in PLACES:
        total = sum(getattr(state, place) for state in states)
        table.add_column(place, str(total), justify="right", min_width=8)
    for name, state in scene.queues.items():
        table.add_row(name, *(_number(place, state) for place in PLACES))
    return Group(
        *(Text(f"· {clean(sentence)}", style="dim") for sentence in scene.news),
        table,
        ProgressBar(total=max(1, scene.jobs), completed=scene.done, width=60),
    )


def _number(place: str, state: QueueState) -> Text:
    value: int = getattr(state, place)
    style = {"done": "green", "dead": "red"}.get(place, "") if value else "dim"
    return Text(str(value), style=style)


def print_outcome(outcome: Outcome) -> None:
    """Print what it comes to."""
    console, verdict = _console(), outcome.verdict
    after_kill = verdict.repeated - verdict.stumbled
    lines = [
        ("files processed", f"{verdict.counted} of {verdict.jobs} in {outcome.seconds:.1f} s"),
        (
            "runs repeated",
            f"{verdict.repeated}: {verdict.stumbled} had failed, {after_kill} were not reported when the runner was killed",
        ),
        ("jobs lost", str(len(verdict.lost))),
        ("by the jobs", _sums(verdict.by_jobs)),
        ("by a plain loop", f"{_sums(verdict.by_loop)}, in {outcome.loop_seconds:.1f} s"),
        ("equal", "yes, file by file" if verdict.equal else f"NO: {len(verdict.different)} files differ"),
    ]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in lines:
        table.add_row(name, value)
    console.print()
    console.print(table)
    for complaint in _complaints(outcome):
        console.print(Text(clean(complaint), style="red"))


def _sums(totals: Totals) -> str:
    text = f"{totals.lines:,} lines, {totals.words:,} words"
    return f"{text}, {totals.unreadable} unreadable" if totals.unreadable else text


def _complaints(outcome: Outcome) -> Iterator[str]:
    verdict = outcome.verdict
    for what, names in (("differs", verdict.different), ("lost", verdict.lost), ("not done", verdict.unfinished)):
        for name in names[:WORST]:
            yield f"{what}: {name}"
        if len(names) > WORST:
            yield f"{what}: and {len(names) - WORST} more"
    if verdict.foreign:
        yield f"{verdict.foreign} entries in the ledger belong to no job of this demo"
    if outcome.dead:
        yield f"{outcome.dead} jobs went to the dead place"
    if outcome.killed is None:
        yield "no runner was killed: the job half-way waited in vain"
    if any(outcome.exit_codes):
        yield f"the other runners ended with exit codes {', '.join(map(str, outcome.exit_codes))} instead of 0"
