"""What a check found, in words and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs

from jobqueue.testing.checking.differences import cut
from jobqueue.testing.checking.history import Event, Played
from jobqueue.testing.checking.schedules import LostReply, Overlap, Stop

__all__ = ["JobReport", "Verdict", "describe_fault", "draw"]

Verdict: TypeAlias = Literal["idempotent", "duplicates", "diverges", "stuck", "not checked"]

WIDEST: Final = 56
"""Characters of a column."""
HEAD: Final = 24
TAIL: Final = 8
"""Lines of a picture that are shown at its begin and its end."""


@attrs.frozen
class JobReport:
    """What `check_job` found.

    Attributes:
        verdict: See `check_job`.
        job: The name of its kind.
        histories: How many histories were compared with the clean one.
        wrong: How many of them went wrong.
        is_complete: Nothing went wrong, and every interleaving of a runner and its successor was among them; otherwise all
            up to some number of pauses, which `explain` tells.
    """

    verdict: Verdict
    job: str
    histories: int
    wrong: int
    is_complete: bool
    _text: str = attrs.field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the verdict is ``"idempotent"``."""
        return self.verdict == "idempotent"

    def explain(self) -> str:
        """The verdict in words; if there is one, the shortest history that goes wrong as a picture, and a hint."""
        return self._text


def describe_fault(played: Played) -> str:
    """When it happened, in a few words."""
    if isinstance(played.schedule, Overlap):
        return "when a runner that was out of touch for longer than its lease goes on beside its successor"
    if isinstance(played.schedule, LostReply):
        return "when the reply to its end is lost"
    if isinstance(played.schedule, Stop):
        [fault] = [event.text for event in played.events if event.text.startswith("■")]
        again = " and the job is run again" if len(played.passed) > played.schedule.run + 1 else ""
        return f"when a runner {fault.removeprefix('■ ')}{again}"
    [fault] = [event.text for event in played.events if event.text.startswith("✗")]
    return f"when a runner {fault.removeprefix('✗ ')} and the job is run again"


def draw(events: Sequence[Event]) -> list[str]:
    """The history as a picture: a column for each runner, time downwards."""
    texts = [cut(event.text, WIDEST) for event in events]
    runners = 1 + max(event.runner for event in events)
    widths = [
        max([9, *(len(text) for event, text in zip(events, texts, strict=True) if event.runner == runner)])
        for runner in range(runners)
    ]
    lines = [
        "  ".join(f"{f'runner {runner + 1}':<{width}}" for runner, width in enumerate(widths)),
        "  ".join("-" * width for width in widths),
    ]
    for event, text in zip(events, texts, strict=True):
        cells = [f"{text if runner == event.runner else '|':<{width}}" for runner, width in enumerate(widths)]
        lines.append("  ".join(cells))
    if len(lines) > HEAD + TAIL + 1:
        lines[HEAD:-TAIL] = [f"… {len(lines) - HEAD - TAIL} lines more"]
    return [f"  {line}".rstrip() for line in lines]
