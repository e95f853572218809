"""What every runner does besides running jobs, as a table: each duty is safe to be done by all runners at once.

No leader is elected: two runners that do the same duty waste a call, and cannot do harm, because every move they make
names what it expects. A new duty is a new row; its flow is in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.flows import Flow
from jobqueue.keys import NamespaceKeys, QueueKeys
from jobqueue.runner.attempts import Attempts
from jobqueue.runner.discovery import Discovery
from jobqueue.runner.patrol import Patrol
from jobqueue.runner.prune import Pruning
from jobqueue.runner.rescue import Rescued

__all__ = ["Duties", "Duty", "Reports"]

PRUNE_EVERY_MS: Final = 300_000.0
LOOK_EVERY_MS: Final = 5_000
"""How often the queues are looked at if a beat takes longer: a notification may be lost."""
REST_MS: Final = 1.0
"""How long a runner rests for each queue that it has looked at, which takes about a tenth of that."""


@attrs.frozen
class Duty:
    """A row of the table.

    Attributes:
        name: What it is called.
        every: At least so many ms pass between two times, 0 to do it in each round.
        flow: Does it.
        urgent: Whether it is done in the first round, and again in the next one after it failed. Others wait for their time.
    """

    name: str
    every: float
    flow: Callable[[], Flow[None]]
    urgent: bool = False


@attrs.frozen
class Reports:
    """Where a duty tells what it found.

    Attributes:
        rescued: Jobs came back from a runner that is gone.
        queue: A queue exists.
        work: A queue has jobs that are ready, or due soon. Whoever waits to be notified may have missed it.
    """

    rescued: Callable[[list[Rescued]], None]
    queue: Callable[[str], None]
    work: Callable[[QueueKeys], None]


class Duties:
    """The duties of one runner.

    Args:
        keys: The namespace.
        queues: Answers the queues that the runner serves.
        lease: Its own lease in ms.
        beat: Its own beat in ms.
        keep_dead: How long dead jobs are kept, in ms.
        moment: Reads the clocks.
        reports: Where to tell.
        discover: Whether to look for queues that are not served yet.
        max_bytes: Of records that one step of a rescue reads; a longer one goes to dead unread.

    Attributes:
        every: How much time passes between two rounds at most, in ms.
        table: Its duties, in the order in which a round does them.
    """

    def __init__(
        self,
        keys: NamespaceKeys,
        queues: Callable[[], list[QueueKeys]],
        *,
        lease: int,
        beat: int,
        keep_dead: int,
        moment: Callable[[], Moment],
        reports: Reports,
        discover: bool,
        max_bytes: int = transitions.BYTES,
    ) -> None:
        self.every = min(beat, LOOK_EVERY_MS)
        self._moment = moment
        discovery = Discovery(
            keys, queues, lease=lease, moment=moment, tell=reports.queue if discover else lambda _: None
        )
        self._patrol = patrol = Patrol(
            queues, discovery.leases, every=self.every, moment=moment, rescued=reports.rescued, work=reports.work,
            max_bytes=max_bytes,
        )  # fmt: skip
        pruning = Pruning(keys, queues, discovery.all_queues, keep_dead=keep_dead, moment=moment)
        # In every second round: both seldom change. A runner with a longer lease than any known is missed for less than two
        # beats, and nothing is taken from it sooner than after two of its own.
        seldom = 1.5 * self.every
        self.table: tuple[Duty, ...] = (
            Duty("ask leases", seldom, discovery.ask_leases, urgent=True),
            Duty("ask queues", seldom, discovery.ask_queues, urgent=True),
            Duty("patrol", 0, patrol.round),
            Duty("prune dead jobs", PRUNE_EVERY_MS, pruning.dead_jobs),
            Duty("prune runners", PRUNE_EVERY_MS, pruning.runners),
            Duty("prune requests", PRUNE_EVERY_MS, pruning.requests),
            Duty("prune leases", PRUNE_EVERY_MS, pruning.leases),
        )
        start = moment().local
        self._due = {duty.name: start + (0 if duty.urgent else duty.every) for duty in self.table}
        self._poked: set[str] = set()
        self._rested = start

    def poke(self, name: str) -> None:
        """Let the next round do this duty, and come at once. Any thread may; the driver asks `next_due` anew."""
        assert name in self._due
        self._poked.add(name)

    def next_due(self, after: float) -> float:
        """When (local ms) there is something to do: a beat after ``after``, or when a watched lease is ripe.

        Not before the runner has rested from a round, by as much as there was to do in it: with very many queues the next
        round begins later, and the interpreter has time for jobs.
        """
        ripe = self._patrol.watch.next_look(after)
        due = after if self._poked else after + self.every
        return max(due if ripe is None else min(due, ripe), self._rested)

    def round(self) -> Flow[None]:
        """Do what is due now, in every queue that answers; raises the first error at the end.

        What something else spoiled, or whose node is away, keeps none of the other duties, and no other queue, waiting.
        """
        at = self._moment()
        attempts = Attempts()
        for duty in self.table:
            if at.local < self._due[duty.name] and duty.name not in self._poked:
                continue
            self._poked.discard(duty.name)  # whoever pokes from here on wants it done once more
            done = yield from attempts.make(duty.flow())
            self._due[duty.name] = at.local + (duty.every if done or not duty.urgent else 0)
        end = self._moment().local
        self._rested = end + max(min(end - at.local, self.every), REST_MS * self._patrol.looked)
        attempts.end()
