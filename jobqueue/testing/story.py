"""What was sent to a storage, made as short as it can be while it still shows the mistake.

Hypothesis could shrink it too, but the batches are drawn from seeds (see `jobqueue.testing.batches`), and a smaller seed
is no smaller batch: it took minutes and left thirty batches where two would do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from jobqueue.storage.ops import Batch, Key, Put, Query

__all__ = ["Step", "Story", "rescoped", "shortest", "show"]

TRIES: Final = 3000


class Step(msgspec.Struct, frozen=True):
    """One call of a storage."""

    what: Literal["apply", "read"]
    of: tuple[Batch | Query, ...]

    def __str__(self) -> str:
        return f"{self.what} {', '.join(map(show, self.of))}"


Story: TypeAlias = tuple[Step, ...]


def shortest(story: Story, is_wrong: Callable[[Story], bool]) -> Story:
    """A story as short as can be found that is still wrong: first with fewer steps, then with smaller ones."""
    tries = TRIES
    found = True
    while found and tries > 0:
        found = False
        for shorter in _shorter(story):
            tries -= 1
            if is_wrong(shorter):
                story, found = shorter, True
                break
            if tries <= 0:
                break
    return story


def _shorter(story: Story) -> Iterator[Story]:
    size = len(story) // 2
    while size:
        for at in range(0, len(story), size):
            yield story[:at] + story[at + size :]
        size //= 2
    for at, step in enumerate(story):
        for smaller in _smaller(step):
            yield (*story[:at], smaller, *story[at + 1 :])


def _smaller(step: Step) -> Iterator[Step]:
    for index, each in enumerate(step.of):
        before, after = step.of[:index], step.of[index + 1 :]
        if before or after:
            yield Step(step.what, (*before, *after))
        if isinstance(each, Batch):
            for batch in _smaller_batch(each):
                yield Step(step.what, (*before, batch, *after))


def _smaller_batch(batch: Batch) -> Iterator[Batch]:
    for at in range(len(batch.guards)):
        yield msgspec.structs.replace(batch, guards=(*batch.guards[:at], *batch.guards[at + 1 :]))
    for at, op in enumerate(batch.ops):
        before, after = batch.ops[:at], batch.ops[at + 1 :]
        if before or after:
            yield msgspec.structs.replace(batch, ops=(*before, *after))
        if isinstance(op, Put) and len(op.records) > 1:
            for id_ in op.records:
                rest = {other: record for other, record in op.records.items() if other != id_}
                yield msgspec.structs.replace(batch, ops=(*before, msgspec.structs.replace(op, records=rest), *after))


def rescoped(value: Any, scopes: Mapping[str, str]) -> Any:
    """The same in other scopes."""
    if isinstance(value, str):
        return scopes.get(value, value)
    if isinstance(value, tuple):
        return tuple([rescoped(each, scopes) for each in value])
    if isinstance(value, Key):
        return type(value)(scopes[value.scope], value.name)
    if not isinstance(value, msgspec.Struct):
        return value
    changed = copy.copy(value)
    for name in value.__struct_fields__:
        # Past the checks, because what was smuggled past them has to be again.
        msgspec.structs.force_setattr(changed, name, rescoped(getattr(value, name), scopes))
    return changed


def show(value: object) -> str:
    """A value as it would be written, without what is as usual."""
    if isinstance(value, Key):
        return value.full
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))}{',' if len(value) == 1 else ''})"
    if not isinstance(value, msgspec.Struct):
        return repr(value)
    told = [
        f"{field.name}={show(getattr(value, field.name))}"
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != field.default and not (isinstance(value, Batch) and field.name == "scope")
    ]
    return f"{type(value).__name__}({', '.join(told)})"
