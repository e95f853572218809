"""What can go wrong between an actor and the storage, and how often."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["FATES", "Fate", "Fates", "Faults"]

Fate: TypeAlias = Literal[
    "refused", "request lost", "reply lost", "sent twice", "late", "stalled", "crash before", "crash after", "paused",
    "clock jump",
]  # fmt: skip
"""
``refused``: nothing happens and the caller knows. ``request lost``: nothing happens, the caller cannot know. ``reply lost``:
it happens, the caller cannot know. ``sent twice``: it happens two times, with others in between, and the caller gets the
second answer. ``late``: the caller hears nothing and goes on; the request arrives long after, when its repetition was
answered. ``stalled``: it happens, and is answered, after a long time. ``crash before`` and ``crash after``: the caller dies
before its request leaves, or after it has been carried out. ``paused``: the caller stands still, often past its lease.
``clock jump``: the server's clock is set forward or back.
"""
FATES: Final[tuple[Fate, ...]] = (
    "refused", "request lost", "reply lost", "sent twice", "late", "stalled", "crash before", "crash after", "paused",
    "clock jump",
)  # fmt: skip


def _is_rate(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} is the share of calls that this happens to, from 0 to 1, not {value!r}")


@attrs.frozen(kw_only=True)
class Faults:
    """How often each fault happens, as a share of the calls of the storage (0 to 1); see `Fate`.

    Attributes:
        wake_lost: How often a wake-up gets lost, as a share of the wake-ups.
    """

    refused: float = attrs.field(default=0.02, validator=_is_rate)
    request_lost: float = attrs.field(default=0.02, validator=_is_rate)
    reply_lost: float = attrs.field(default=0.03, validator=_is_rate)
    sent_twice: float = attrs.field(default=0.02, validator=_is_rate)
    late: float = attrs.field(default=0.03, validator=_is_rate)
    stalled: float = attrs.field(default=0.01, validator=_is_rate)
    crash_before: float = attrs.field(default=0.004, validator=_is_rate)
    crash_after: float = attrs.field(default=0.006, validator=_is_rate)
    paused: float = attrs.field(default=0.006, validator=_is_rate)
    clock_jump: float = attrs.field(default=0.002, validator=_is_rate)
    wake_lost: float = attrs.field(default=0.1, validator=_is_rate)

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong."""
        return cls(**dict.fromkeys([field.name for field in attrs.fields(cls)], 0.0))

    def scaled(self, by: float) -> Faults:
        """The same mixture, more or less often."""
        return Faults(**{name: min(1.0, rate * by) for name, rate in attrs.asdict(self).items()})

    def rate(self, fate: Fate) -> float:
        """How often one of them happens."""
        return float(getattr(self, fate.replace(" ", "_")))


class Fates:
    """Decides for each call of each process what becomes of it.

    A decision is named after its place, ``runner1.pump#17``: the 17th call of that process. So a history can be run again
    with some of its faults only, and those keep their places as far as possible.

    Args:
        seed: Where chance comes from.
        faults: The rates.
        only: Names of the decisions that may be faults; None for all.
    """

    def __init__(self, seed: int, faults: Faults, only: frozenset[str] | None) -> None:
        self.fired: list[tuple[str, Fate]] = []
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._only = only
        self._edges: list[tuple[float, Fate]] = []
        total = 0.0
        for fate in FATES:
            total += faults.rate(fate)
            if faults.rate(fate):
                self._edges.append((total, fate))
        self._total = total
        self._streams: dict[str, tuple[random.Random, list[int]]] = {}

    @property
    def quiet(self) -> bool:
        """Whether nothing ever goes wrong."""
        return not self._edges

    def decide(self, process: str) -> Fate | None:
        """What becomes of the next call of a process; None: nothing special."""
        stream = self._streams.get(process)
        if stream is None:
            # Seeded by text: such seeds do not depend on PYTHONHASHSEED.
            chance = random.Random(f"{self._seed}:{process}")  # noqa: S311 - repeatable on purpose
            stream = self._streams[process] = (chance, [0])
        rng, number = stream
        number[0] += 1
        drawn = rng.random()
        if drawn >= self._total:
            return None
        name = f"{process}#{number[0]}"
        if self._only is not None and name not in self._only:
            return None
        for edge, fate in self._edges:
            if drawn < edge:
                self.fired.append((name, fate))
                self.counts[fate] += 1
                return fate
        return None
