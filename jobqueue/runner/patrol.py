"""The duty that brings back what dead runners had, in all queues that a runner serves: which of them it looks at, and when.

What becomes of the jobs of one queue is said in `jobqueue.runner.rescue`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from jobqueue.clock import Moment
from jobqueue.flows import Flow
from jobqueue.keys import QueueKeys
from jobqueue.runner.attempts import GROUP, Attempts, groups
from jobqueue.runner.rescue import Look, Rescued, Watch, follow, look_at

__all__ = ["Patrol"]

APART: Final = 10
"""So many of the queues that could not be looked at are tried again in one round, in turn and each by itself."""


class Patrol:
    """What one runner knows of leases that have ended.

    Args:
        queues: Answers the queues that the runner serves.
        leases: Answers the shortest and the longest lease in use, in ms.
        every: How much time passes between two rounds at most, in ms.
        moment: Reads the clocks.
        rescued: Called with jobs that came back.
        work: Called with a queue that has jobs that are ready, or due soon.
        max_bytes: Of records that one step of a rescue reads; a longer one goes to dead unread.

    Attributes:
        watch: The expired leases it has seen.
        looked: How many queues the last round looked at.
    """

    def __init__(
        self,
        queues: Callable[[], list[QueueKeys]],
        leases: Callable[[], tuple[int, int]],
        *,
        every: int,
        moment: Callable[[], Moment],
        rescued: Callable[[list[Rescued]], None],
        work: Callable[[QueueKeys], None],
        max_bytes: int,
    ) -> None:
        self._queues = queues
        self._leases = leases
        self._every = every
        self._moment = moment
        self._rescued = rescued
        self._work = work
        self._max_bytes = max_bytes
        self._empty: dict[str, None] = {}  # scopes of queues that held nothing at the last look, the oldest look first
        self._apart: dict[str, None] = {}  # scopes of queues that could not be looked at, those tried last at the end
        self.watch = Watch()
        self.looked = 0

    def round(self) -> Flow[None]:
        """Look at the queues whose turn it is, and rescue there; raises the first error at the end."""
        shortest, longest = self._leases()
        queues = self._to_look_at(shortest)
        self.looked = len(queues)
        attempts = Attempts()
        for group in groups(queues):
            yield from self._look(group, longest, attempts)
        attempts.end()

    def _to_look_at(self, shortest: int) -> list[QueueKeys]:
        """The queues to look at in this round: those that held something at the last look, and some empty ones in turn.

        An empty queue is looked at again before a lease that began right after the last look can end. So all are rescued in
        time, and what is looked at grows with the work and not with the queues.
        """
        queues = self._queues()
        served = {queue.scope for queue in queues}
        empty = [scope for scope in self._empty if scope in served]
        share = max(GROUP, math.ceil(len(empty) * self._every / shortest))
        later = {*empty[share:], *[*self._apart][APART:]}
        # Until a look has shown again that they are empty they count as not looked at: one may go without an answer.
        for scope in empty[:share]:
            del self._empty[scope]
        # Those that could not be looked at come last: each is asked by itself.
        return sorted([queue for queue in queues if queue.scope not in later], key=lambda one: one.scope in self._apart)

    def _look(self, queues: Sequence[QueueKeys], longest: int, attempts: Attempts) -> Flow[None]:
        """Look at some queues and rescue there."""
        together = [queue for queue in queues if queue.scope not in self._apart]
        alone = [queue for queue in queues if queue.scope in self._apart]
        looks: list[Look] = []
        try:
            if together:
                looks = yield from look_at(together, longest, self._moment, self._every)
        except Exception as error:  # noqa: BLE001 - see `Attempts`
            # One of them does not answer. Each is asked by itself, so that the others are looked at.
            if len(together) == 1:
                attempts.failed(error)
                self._apart[together[0].scope] = None
            else:
                alone += together
        for look in looks:
            yield from attempts.make(self._follow(look))
        for queue in alone:
            self._apart.pop(queue.scope, None)
            yield from self._look((queue,), longest, attempts)

    def _follow(self, look: Look) -> Flow[None]:
        """Rescue in a queue that was looked at."""
        if look.is_empty:
            self._empty[look.queue.scope] = None
        rescued = yield from follow(look, self.watch, self._moment, self._max_bytes)
        if rescued:
            self._rescued(rescued)
        if look.has_work:
            self._work(look.queue)
