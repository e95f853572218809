"""How a runner splits its free capacity among queues.

Start-time fair queueing (Goyal, Vin, Cheng 1996): every queue has a position, every unit goes to the queue that is
furthest behind and moves it on by 1 / weight, and a queue that was away joins where the last of the others is. Positions
are kept from claim to claim, so a runner with one slot shares as fairly as one with a hundred.

**The bound.** Over any stretch of units during which two queues have work, a queue of weight v that got a units and one of
weight w that got b units differ by no more than one turn each::

    | a / v − b / w |  ≤  1 / v + 1 / w

whatever happened before, and whichever other queues came and went. So a queue of weight w among m queues of weights W in
all is served at least once in every (W − w) / w + m units: with ``high=2, low=1``, ``low`` gets one of every four at the
least, and one of three in the long run.

**Strictly by weight**, where that is wanted: all goes to the queues of the largest weight that may have work, and those of
one weight share among themselves as above. Then the others wait for as long as these have work: there is no bound for them.

Rejected: fixed parts of every claim (a third of a claim of one starves somebody); chance (no bound); smooth weighted round
robin, whose credits mean something else as soon as another queue comes or goes (its error reached seven units of a fair
share of seven, after a queue of weight 10 had left).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from heapq import heapify, heapreplace
from typing import Final

__all__ = ["Shares"]

# Positions are integers, so that two runners with the same history decide alike; 1 / weight is exact for weights to 16.
_TURN: Final = 720_720_000_000


class Shares:
    """The positions of the queues of one runner.

    Args:
        weights: Queue → weight, a positive integer.
        strict: Serve a queue only while none of a larger weight may have work.
    """

    def __init__(self, weights: Mapping[str, int], *, strict: bool = False) -> None:
        self.weights = dict(weights)
        self._strict = strict
        self._positions = dict.fromkeys(self.weights, 0)
        self._order = {queue: order for order, queue in enumerate(self.weights)}
        self._last = 0  # where the one furthest behind was, of those that had work

    def add(self, queue: str, weight: int) -> None:
        """Let another queue take part."""
        self.weights[queue] = weight
        self._positions[queue] = self._last
        self._order.setdefault(queue, len(self._order))

    def split(self, units: int, queues: Collection[str]) -> dict[str, int]:
        """Split ``units`` among the queues that may have work; those that get nothing are left out."""
        weights, positions = self.weights, self._positions
        taking = sorted([queue for queue in queues if queue in weights], key=self._order.__getitem__)
        if not taking or units <= 0:
            return {}
        if self._strict:
            largest = max(weights[queue] for queue in taking)
            taking = [queue for queue in taking if weights[queue] == largest]
        for queue in taking:
            positions[queue] = max(positions[queue], self._last)
        # Whole rounds give each its weight and change nobody's place.
        rounds, rest = divmod(units, sum(weights[queue] for queue in taking))
        parts = {queue: rounds * weights[queue] for queue in taking}
        for queue in taking:
            positions[queue] += rounds * _TURN
        if rest:
            # Of those equally far behind the larger weight comes first, then the order of the queues.
            behind = [(positions[queue], -weights[queue], order, queue) for order, queue in enumerate(taking)]
            heapify(behind)
            for _ in range(rest):
                position, weight, order, chosen = behind[0]
                position += _TURN // -weight
                positions[chosen] = position
                parts[chosen] += 1
                heapreplace(behind, (position, weight, order, chosen))
        self._last = max(self._last, min(positions[queue] for queue in taking))
        return {queue: part for queue, part in parts.items() if part}
