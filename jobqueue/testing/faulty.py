"""A storage that goes wrong on purpose, wherever a plan says so."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TypeAlias

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.wrappers import Over

__all__ = ["Fault", "FaultyStorage", "Plan"]


class Fault(enum.Enum):
    """What happens to the batches of one scope in one `apply`."""

    OK = "ok"
    """They are applied and answered."""
    REFUSED = "refused"
    """They are not applied, and the caller knows: `NotApplied`."""
    REQUEST_LOST = "request lost"
    """They are not applied, and the caller cannot know: `OutcomeUnknown`."""
    REPLY_LOST = "reply lost"
    """They are applied, and the caller cannot know: `OutcomeUnknown`."""
    SENT_TWICE = "sent twice"
    """They are applied two times, and the caller gets the second answer, as if it had sent them again."""
    STALLED = "stalled"
    """They are kept back until `FaultyStorage.deliver`, and the caller cannot know: `OutcomeUnknown`."""


Plan: TypeAlias = Callable[[str, Sequence[Batch]], Fault]
"""Decides, from a scope and its batches, what happens to them. Called once per scope and `apply`, in order."""


class FaultyStorage(Over):
    """A `Storage` over another one that loses, repeats and delays what it is told to.

    The batches of one scope share their fate, because they travel together; those of different scopes do not.
    Everything but `apply` goes to the storage below unchanged.

    Attributes:
        stalled: What was kept back and not delivered yet, oldest first. It stays there when this is closed.
    """

    def __init__(self, storage: Storage, plan: Plan) -> None:
        super().__init__(storage)
        self.stalled: list[tuple[Batch, ...]] = []
        self._plan = plan

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """Apply as the plan says; see `Storage.apply`."""
        scopes: dict[str, list[int]] = {}
        for index, batch in enumerate(batches):
            scopes.setdefault(batch.scope, []).append(index)
        outcomes: dict[int, Outcome] = {}
        for scope, indices in scopes.items():
            together = [batches[index] for index in indices]
            outcomes.update(zip(indices, self._apply(scope, together), strict=True))
        return [outcomes[index] for index in range(len(batches))]

    def deliver(self, index: int = 0) -> None:
        """Let something stalled arrive after all; nobody gets its answer.

        Raises:
            IndexError: Nothing stands there in ``stalled``.
        """
        self._storage.apply(self.stalled.pop(index))

    def _apply(self, scope: str, batches: Sequence[Batch]) -> Sequence[Outcome]:
        match fault := self._plan(scope, batches):
            case Fault.OK:
                return self._storage.apply(batches)
            case Fault.REFUSED:
                return [NotApplied(f"{scope}: planned fault: {fault.value}") for _ in batches]
            case Fault.REQUEST_LOST:
                pass
            case Fault.REPLY_LOST:
                self._storage.apply(batches)
            case Fault.SENT_TWICE:
                self._storage.apply(batches)
                return self._storage.apply(batches)
            case Fault.STALLED:
                self.stalled.append(tuple(batches))
        return [OutcomeUnknown(f"{scope}: planned fault: {fault.value}") for _ in batches]
