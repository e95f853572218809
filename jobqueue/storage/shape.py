"""What a batch must look like before any storage sees it: mistakes of the caller, told before anything is sent.

Shared by all storages, so that none of them half-applies a batch that the other refuses. Types and forbidden keys are
checked where the operations are made (`jobqueue.storage.ops`); here stands what needs more than one attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jobqueue.storage.ops import (
    Absent,
    Batch,
    Due,
    Empty,
    FieldIs,
    HashAdd,
    HashDelete,
    HashSet,
    Head,
    Key,
    ListKey,
    ListPush,
    LockDrop,
    LockTake,
    Member,
    Mend,
    Move,
    Op,
    Put,
    Ring,
    SetAdd,
    SetKey,
    SetRemove,
    Stamp,
    These,
)

__all__ = ["LIST_SEARCH_MAX", "check_shape"]

LIST_SEARCH_MAX: Final = 10
"""How many ids one `These` may search in a list: each costs a walk along it."""


def check_shape(batch: Batch) -> None:
    """Raise `ValueError` if the batch makes no sense on any storage.

    * Every key belongs to the scope of the batch.
    * What is placed in a sorted set has a score: one for all, or one for each. A score for each needs a `Put`, or a
      `Move` that picks `These`. Only a move within one sorted set may leave the scores as they are.
    * `These` in a list are at most `LIST_SEARCH_MAX`; limits are not negative.
    * Only a `Put` into a list is bounded.
    * `Once` numbers a claim: it needs a `Stamp` and a sorted set as target.
    * A move that is ``whole`` expects something of each id or nothing of any. It, and every move beside it, picks `These`
      and is no numbered claim. No two operations of its batch name the same id.
    """
    for guard in batch.guards:
        if isinstance(guard, Absent | FieldIs):
            _same_scope(batch, guard.hash)
        else:
            _same_scope(batch, guard.set if isinstance(guard, Member | Empty) else guard.lock)
    whole = False
    for op in batch.ops:
        _check_op(batch, op)
        whole = whole or (isinstance(op, Move) and op.whole)
    if whole:
        _check_whole(batch)


def _check_op(batch: Batch, op: Op) -> None:
    match op:
        case Move():
            _check_move(batch, op)
        case Put():
            _same_scope(batch, op.target)
            if isinstance(op.target, SetKey):
                _check_score(op, op.score, op.records)
            if op.most is not None and (op.most < 0 or isinstance(op.target, SetKey)):
                raise ValueError(f"{op.target.full}: only a list is bounded, by 0 or more, not by {op.most}")
        case ListPush():
            _same_scope(batch, op.list)
        case SetAdd() | SetRemove():
            _same_scope(batch, op.set)
        case HashSet() | HashAdd() | HashDelete():
            _same_scope(batch, op.hash)
        case LockTake() | LockDrop():
            _same_scope(batch, op.lock)
        case Mend():
            _same_scope(batch, op.target)
        case Ring():
            pass


def _check_move(batch: Batch, op: Move) -> None:
    _same_scope(batch, op.source)
    if op.count is not None:
        _same_scope(batch, op.count[0])
    match op.pick:
        case These(ids):
            if isinstance(op.source, ListKey) and len(ids) > LIST_SEARCH_MAX:
                raise ValueError(
                    f"{op.source.full}: at most {LIST_SEARCH_MAX} ids can be searched in a list, not {len(ids)}"
                )
        case Head(limit) | Due(_, limit):
            if isinstance(op.pick, Head) is not isinstance(op.source, ListKey):
                raise ValueError(f"{op.source.full}: Head picks from a list, Due from a sorted set")
            if limit < 0:
                raise ValueError(f"{op.source.full}: a limit of {limit} makes no sense")
    if op.once is not None and not (isinstance(op.stamp, Stamp) and isinstance(op.target, SetKey)):
        raise ValueError(f"{op.source.full}: once numbers a claim, which needs a stamp and a sorted set as target")
    if op.target is None:
        return
    _same_scope(batch, op.target)
    if isinstance(op.target, SetKey) and not (op.score is None and op.source == op.target):
        if isinstance(op.score, Mapping) and not isinstance(op.pick, These):
            raise ValueError(f"{op.target.full}: a score for each needs a pick of These, not {op.pick}")
        _check_score(op, op.score, op.pick.ids if isinstance(op.pick, These) else ())


def _check_whole(batch: Batch) -> None:
    named: list[bytes] = []
    for op in batch.ops:
        match op:
            case Move(source, _, pick):
                if not isinstance(pick, These) or op.once is not None:
                    raise ValueError(
                        f"{source.full}: beside a move that is whole, moves pick These, and none is numbered"
                    )
                ids = dict.fromkeys(pick.ids)
                if op.whole and isinstance(op.expect, Mapping) and not op.expect.keys() >= ids.keys():
                    lacking = next(id_ for id_ in ids if id_ not in op.expect)
                    raise ValueError(
                        f"{source.full}: a move that is whole expects something of each, not of {lacking!r}"
                    )
                named += ids
            case Put():
                named += op.records
            case Mend():
                named.append(op.id)
            case _:
                pass
    if len({*named}) != len(named):
        twice = next(id_ for index, id_ in enumerate(named) if id_ in named[:index])
        raise ValueError(f"{batch.scope}: beside a move that is whole, {twice!r} is named by two operations")


def _check_score(
    op: Put | Move, score: int | Mapping[bytes, int] | None, ids: Mapping[bytes, bytes] | tuple[bytes, ...]
) -> None:
    assert op.target is not None
    if score is None:
        raise ValueError(f"{op.target.full}: a sorted set needs a score")
    if isinstance(score, Mapping) and not score.keys() >= set(ids):
        lacking = next(id_ for id_ in ids if id_ not in score)
        raise ValueError(f"{op.target.full}: no score for {lacking!r}")


def _same_scope(batch: Batch, key: Key) -> None:
    if key.scope != batch.scope:
        raise ValueError(f"{key.full} is not of the scope {batch.scope!r}: a batch has one scope")
