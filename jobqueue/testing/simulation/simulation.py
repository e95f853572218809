"""One history: a world of actors on one storage, from a seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from jobqueue.testing.simulation.books import InvariantBroken
from jobqueue.testing.simulation.diagram import Trace
from jobqueue.testing.simulation.faults import Faults

__all__ = ["History", "Simulation"]


@attrs.frozen
class History:
    """What a simulation saw.

    Attributes:
        seed: Its seed.
        steps: Batches that arrived at the storage.
        jobs: Jobs that were stored.
        runs: Runs of jobs.
        ended: How jobs ended → how many.
        ms: Virtual time it took.
        faults: Fault → how often.
        fired: The faults: (name of the decision, fault).
        seen: Invariant → how often it was checked and not vacuous.
        digest: The same for the same history.
    """

    seed: int
    steps: int
    jobs: int
    runs: int
    ended: Mapping[str, int]
    ms: float
    faults: Mapping[str, int]
    fired: tuple[tuple[str, str], ...]
    seen: Mapping[str, int]
    digest: int


def _is_count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < (attribute.name in ("runners", "jobs")):
        raise ValueError(f"{attribute.name} is a whole number, not {value!r}")


def _names(value: Iterable[str] | None) -> frozenset[str] | None:
    return None if value is None else frozenset(value)


@attrs.frozen(kw_only=True)
class Simulation:
    """A simulated world with one storage, in which everything is checked after every step.

    The same arguments give the same history, in any process. Producers, runners, an operator and users of a lock run the
    production rules on the memory storage; only threads, sockets and clocks are replaced.

    Attributes:
        seed: Where all chance comes from.
        runners: How many runners; each that crashes is started again under a new incarnation.
        producers: How many producers.
        operators: How many look at jobs, requeue and delete them.
        bursts: How many of the runners leave when nothing is ready or due, and are started again some time later.
        deployers: How many stop runners while they run jobs; each is started again under a new incarnation.
        lock_users: How many compete for one lock.
        jobs: How many jobs; what each does in each of its runs is drawn from the seed.
        faults: What goes wrong during the storm, and how often.
        only: Names of the faults that may happen (`History.fired`); None for all.
        storm: For how long there are faults, in seconds of virtual time. Then everything has to come to its end.
        lease: Length of a lease, in seconds.
        queues: Queue → weight.
        threads: Functions that a runner runs at a time.
        coroutines: Coroutines that a runner runs at a time.
        burst: Jobs that a producer enqueues at a time, at most.
        plain: All jobs are functions that succeed at once: for measuring.
        check: Look at every step. Without, nothing is checked but that everything ends.
    """

    seed: int
    runners: int = attrs.field(default=2, validator=_is_count)
    bursts: int = attrs.field(default=0, validator=_is_count)
    producers: int = attrs.field(default=1, validator=_is_count)
    operators: int = attrs.field(default=1, validator=_is_count)
    deployers: int = attrs.field(default=1, validator=_is_count)
    lock_users: int = attrs.field(default=2, validator=_is_count)
    jobs: int = attrs.field(default=12, validator=_is_count)
    faults: Faults = attrs.field(factory=Faults)
    only: frozenset[str] | None = attrs.field(default=None, converter=_names)
    storm: float = 9.0
    lease: float = 3.0
    queues: Mapping[str, int] = attrs.field(factory=lambda: {"high": 2, "low": 1})
    threads: int = 2
    coroutines: int = 2
    burst: int = 5
    plain: bool = False
    check: bool = True

    def run(self) -> History:
        """Let the history happen.

        Raises:
            InvariantBroken: Something that must hold did not. Its text has the seed, the shortened history as a
                space–time diagram, and a test to paste.
        """
        try:
            return self.play(None)
        except InvariantBroken as broken:
            from jobqueue.testing.simulation.shrink import explain

            raise explain(self, broken) from broken.__cause__

    def play(self, trace: Trace | None) -> History:
        """Let the history happen once, without explaining a failure.

        Args:
            trace: Where to note what happens; None for nowhere.

        Raises:
            InvariantBroken: Something that must hold did not.
        """
        from jobqueue.testing.simulation.stage import Stage

        try:
            return Stage(self, trace).play()
        except InvariantBroken:
            raise
        except Exception as error:
            # A rule that raises has broken the promise that the runner goes on.
            raise InvariantBroken("no surprise", f"{type(error).__name__}: {error}") from error
