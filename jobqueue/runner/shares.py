"""How a runner splits its free capacity among queues.

Smooth weighted round robin: every unit goes to the queue with the most credit; each unit adds its weight to the credit of
every queue that takes part and takes their sum from the one chosen. The credits are kept from claim to claim, so a
runner with one slot shares as fairly as one with a hundred.

**The bound.** Of any n consecutive units during which the same queues have work, a queue of weight w out of W gets
more than n·w/W − 2 and fewer than n·w/W + 2. So no queue with work waits for more than 2·W/w units.

Rejected: fixed parts of every claim (a third of a claim of one starves somebody), and chance (no bound).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["Shares"]


class Shares:
    """The credits of the queues of one runner.

    Args:
        weights: Queue → weight, a positive integer.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self.weights = dict(weights)
        self._credit = dict.fromkeys(self.weights, 0)

    def add(self, queue: str, weight: int) -> None:
        """Let another queue take part."""
        self.weights[queue] = weight
        self._credit[queue] = 0

    def split(self, units: int, queues: Collection[str]) -> dict[str, int]:
        """Split ``units`` among the queues that may have work; those that get nothing are left out."""
        taking = [queue for queue in self.weights if queue in queues]
        if not taking or units <= 0:
            return {}
        # A queue that was away neither saved credit nor owes any.
        for queue in self._credit:
            if queue not in queues:
                self._credit[queue] = 0
        total = sum(self.weights[queue] for queue in taking)
        rounds, rest = divmod(units, total)
        parts = {queue: rounds * self.weights[queue] for queue in taking}
        for _ in range(rest):
            for queue in taking:
                self._credit[queue] += self.weights[queue]
            chosen = max(taking, key=self._credit.__getitem__)
            self._credit[chosen] -= total
            parts[chosen] += 1
        return {queue: part for queue, part in parts.items() if part}
