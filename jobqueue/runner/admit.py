"""From what a claim brought to jobs that can be started, or whose end is clear at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from jobqueue.doors import is_beyond
from jobqueue.errors import PayloadError
from jobqueue.job import Kind
from jobqueue.judge import unknown_kind, unreadable
from jobqueue.record import Stored, decode, wrap_raw
from jobqueue.runner.packing import Landed
from jobqueue.runner.task import Task
from jobqueue.storage.ops import Moved, Unread

__all__ = ["admitted"]

_UNREAD: Final = Stored("", b"", 0, 0, 0, 0, 0)


def admitted(landed: Landed, moved: Moved, kind: Callable[[str], Kind[Any] | None], now: int) -> Iterator[Task]:
    """The jobs of a claim; those that cannot be run have their verdict."""
    queue, mark, fence, deadline = landed.entry.queue, landed.mark, moved.fence, landed.deadline
    for order, (id, record) in enumerate(zip(moved.ids, moved.records, strict=True)):
        stored = b"" if isinstance(record, Unread) else record
        task = Task(queue, id, mark, fence, stored, _UNREAD, None, deadline, order)
        try:
            task.stored = decode(record)
        except PayloadError as error:
            if not isinstance(record, Unread):
                # Its bytes become the payload of a record that can be read, so that they can be looked at.
                task.record = wrap_raw(record, str(error), now)
            task.verdict = unreadable(now)
            task.text = str(error)
        else:
            task.kind = None if is_beyond(task.stored) else kind(task.stored.name)
            if task.kind is None:
                task.verdict = unknown_kind(task.stored, now)
        yield task
