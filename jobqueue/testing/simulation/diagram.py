"""A history as a space–time diagram in text: one column for each actor and one for the storage, time downwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jobqueue.storage.ops import (
    Applied,
    Batch,
    LockDrop,
    LockTake,
    Move,
    Moved,
    Op,
    Placed,
    Put,
    Refused,
    These,
)
from jobqueue.storage.protocol import Outcome

__all__ = ["Trace", "describe"]

STORAGE: Final = "storage"
WIDTH: Final = 46
MOST: Final = 70
"""Lines of a diagram."""


def describe(batch: Batch) -> str:
    """A batch in a few words."""
    return ", ".join(_what(batch.step, op) for op in batch.ops)


def _what(step: str, op: Op) -> str:
    if isinstance(op, Move) and op.once is not None:
        return f"{step} #{op.once.number}"
    return f"{step} to {op.target.name}" if isinstance(op, Put) else step


class Trace:
    """What happened, as far as a reader wants to know.

    Attributes:
        names: Id → short name.
        lines: (virtual ms, column, text, ids).
    """

    def __init__(self) -> None:
        self.names: dict[bytes, str] = {}
        self.lines: list[tuple[float, str, str, tuple[bytes, ...]]] = []

    def add(self, time: float, who: str, what: str, ids: Sequence[bytes] = ()) -> None:
        """Something an actor did or met."""
        self.lines.append((time, who, what, tuple(ids)))

    def storage(self, time: float, who: str, batch: Batch, outcome: Outcome, again: bool) -> None:
        """A batch arrived at the storage."""
        ids: dict[bytes, None] = {}
        parts = []
        for index, op in enumerate(batch.ops):
            done: Sequence[bytes] = ()
            asked: Sequence[bytes] = ()
            if isinstance(op, Put):
                asked = tuple(op.records)
            elif isinstance(op, Move) and isinstance(op.pick, These):
                asked = op.pick.ids
            answer = outcome.answers[index] if isinstance(outcome, Applied) else None
            if isinstance(answer, Moved):
                done = answer.ids
            elif isinstance(answer, Placed):
                done = [id for id, state in zip(asked, answer.states, strict=True) if state == "stored"]
            ids.update(dict.fromkeys((*asked, *done)))
            skipped = [id for id in asked if id not in done]
            text = f"{_what(batch.step, op)} {self._named(done)}".rstrip()
            parts.append(text + (f" (not {self._named(skipped)})" if skipped else ""))
        if isinstance(outcome, Refused):
            parts.append("REFUSED")
        if ids or isinstance(outcome, Refused) or any(isinstance(op, LockTake | LockDrop) for op in batch.ops):
            self.add(time, STORAGE, f"{who}: {', '.join(parts)}{' AGAIN' if again else ''}", tuple(ids))

    def _named(self, ids: Sequence[bytes]) -> str:
        return " ".join(self.names.get(id, id.decode("ascii", "replace")[:6]) for id in ids)

    def render(self, ids: Sequence[bytes], reason: str) -> str:
        """The lines about these jobs (all, if there are none), and every fault, as columns."""
        chosen = [
            line for line in self.lines if not ids or not line[3] or set(ids) & set(line[3]) or "!" in line[2]
        ]  # fmt: skip
        left_out = max(0, len(chosen) - MOST)
        chosen = chosen[left_out:]
        columns = list(dict.fromkeys([line[1].split(".")[0] for line in chosen if line[1] != STORAGE]))
        width = min(WIDTH, max(18, (150 - 10) // (len(columns) + 1)))
        head = " " * 10 + "".join(f" {name:<{width}}" for name in (*columns, STORAGE))
        rows = [head, " " * 10 + (" " + "-" * width) * (len(columns) + 1)]
        if left_out:
            rows.append(f"{'':10} … {left_out} earlier lines")
        for time, who, what, _ in chosen:
            column = len(columns) if who == STORAGE else columns.index(who.split(".")[0])
            process = who.partition(".")[2]
            text = f"{process}: {what}" if process else what
            bars = "".join(f" {'|':<{width}}" for _ in range(column))
            rows.append(f"{time:>9.1f} {bars} {text}")
        rows.append(f"{'':10} ✗ {self._rename(reason)}")
        return "\n".join(row.rstrip() for row in rows)

    def _rename(self, text: str) -> str:
        for id, name in self.names.items():
            text = text.replace(id.decode("ascii", "replace"), name)
        return text
