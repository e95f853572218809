"""What `Put` means, and how ids get into a place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from jobqueue.storage.contents import Contents, full_name
from jobqueue.storage.ops import COUNTERS, RECORDS, REGISTERED, ListKey, Placed, PlaceKey, Put

__all__ = ["Placing"]

_NONCE: Final = 8  # bytes in front of a record that name its enqueue

PutState: TypeAlias = Literal["stored", "same", "different"]


class Placing(Contents):
    """Contents of a storage into which jobs are put."""

    __slots__ = ()

    def _is_full(self, op: Put) -> bool:
        """Whether the list would hold more than it may with those of the ids that are new."""
        if op.most is None:
            return False
        records = self.hashes.get(full_name(op.target.scope, RECORDS), {})
        new = sum(id_ not in records for id_ in op.records)
        return new > 0 and len(self.lists.get(op.target.full, ())) + new > op.most

    def _put(self, op: Put) -> tuple[Placed, bool]:
        records = self.hashes.get(full_name(op.target.scope, RECORDS), {})
        known = records.keys() & op.records.keys()
        registered = REGISTERED in self.hashes.get(full_name(op.target.scope, COUNTERS), {})
        if known:
            new = {id_: record for id_, record in op.records.items() if id_ not in known}
            states: list[PutState] = [
                "stored" if id_ in new else _known_as(records[id_], record) for id_, record in op.records.items()
            ]
            placed = Placed(tuple(states), registered)
        else:
            new = dict(op.records)
            stored: PutState = "stored"
            placed = Placed((stored,) * len(new), registered)
        if not new:
            return placed, False
        self.hash_set(full_name(op.target.scope, RECORDS), new)
        self._place(op.target, new, op.score)
        return placed, op.wake and self._heads(op.target, new)

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        if isinstance(target, ListKey):
            values = self.lists.setdefault(target.full, deque())
            if front:
                values.extendleft(reversed(list(ids)))
            else:
                values.extend(ids)
        else:
            assert score is not None  # check_shape saw to it
            scores = {id_: score[id_] for id_ in ids} if isinstance(score, Mapping) else dict.fromkeys(ids, score)
            self.set_add(target.full, scores)

    def _heads(self, target: PlaceKey, ids: Iterable[bytes]) -> bool:
        """Whether a list got something, or one of the ids is now the head of the sorted set."""
        return isinstance(target, ListKey) or self.sets[target.full].first()[1] in ids


def _known_as(stored: bytes, record: bytes) -> PutState:
    return "same" if stored[:_NONCE] == record[:_NONCE] else "different"
