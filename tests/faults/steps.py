"""Which step of a job's life a batch is, and which steps a request on the wire carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from jobqueue.storage.ops import Batch, HashDelete, HashSet, LockDrop, LockTake, Move, Put, These

__all__ = ["STEPS", "carries", "step_of", "steps_on_wire"]

STEPS: Final = ("ENQ", "PRO", "CLM", "RUN", "ACK", "RTY", "DLQ", "REC", "HB", "CRN", "LCK", "SHD")
"""The columns of the grid: enqueue, promote, claim, the user's code, finish, retry, bury, rescue, extend, cron tick, lock,
stop. There is no cron yet, so its column stays empty."""

_MOVES: Final = {
    ("waiting", "ready"): "PRO",
    ("ready", "working"): "CLM",
    ("working", None): "ACK",
    ("working", "waiting"): "RTY",
    ("working", "dead"): "DLQ",
    ("working", "working"): "HB",
}


def step_of(batch: Batch) -> str | None:
    """The step that a batch takes; None for one that is in no column (registering, counting, pruning)."""
    for op in batch.ops:
        match op:
            case Put():
                return "ENQ"
            case LockTake():
                return "LCK"
            case LockDrop():
                return "UNL"
            case HashSet(key, fields) if key.name == "requests" and b"closed" in fields.values():
                return "CLO"
            case HashDelete(key) if key.name == "requests":
                return "CLO"
            case Move(pick=These(())):
                continue  # a runner tries what it may do, with no job
            case Move(source, target):
                if (source.name, target.name if target else None) == ("working", "ready"):
                    return "SHD" if op.count is not None and op.count[1] == b"released" else "REC"
                return _MOVES.get((source.name, target.name if target else None))
            case _:
                continue
    return None


def steps_on_wire(words: Sequence[bytes]) -> set[str]:
    """The steps that a request carries.

    The words are searched for what `compile_batches` writes, rather than parsed: the arguments of the jobs of these tests
    look like nothing of it.
    """
    if not words or words[0] not in (b"EVALSHA", b"EVAL") or len(words) < 4:
        return set()
    count = int(words[2])
    names = [name.rpartition(b"}:")[2].decode() for name in words[3 : 3 + count]]
    args = words[3 + count :]

    def name(index: bytes) -> str | None:
        number = int(index) if index.isdigit() else 0
        return names[number - 1] if 0 < number <= len(names) else None

    found: set[str] = set()
    for at, word in enumerate(args):
        if word == b"V" and args[at + 6 : at + 8] == [b"T", b"0"]:
            continue
        if word == b"V" and len(args) > at + 5:
            places = (name(args[at + 2]), name(args[at + 3]))
            if places == ("working", "ready"):
                found.add("SHD" if args[at + 5] == b"released" else "REC")
            elif places in _MOVES:
                found.add(_MOVES[places])
        elif word == b"S" and len(args) > at + 2 and name(args[at + 2]) in ("ready", "waiting"):
            found.add("ENQ")
        elif word in (b"T", b"D") and len(args) > at + 1 and (name(args[at + 1]) or "").startswith("lock:"):
            found.add("LCK" if word == b"T" else "UNL")
        elif word == b"closed" or (word == b"h" and len(args) > at + 1 and name(args[at + 1]) == "requests"):
            found.add("CLO")
    return found


def carries(step: str) -> Callable[[Sequence[bytes]], bool]:
    """Matches requests that carry the step."""
    return lambda words: step in steps_on_wire(words)
