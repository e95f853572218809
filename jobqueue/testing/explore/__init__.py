"""Every interleaving of a few runners and jobs with a few faults, walked through with all checks.

    python -m jobqueue.testing explore

What is walked through are the production rules, `transitions`, `judge` and `lifecycle`, on the interpreter that is the
specification of a storage; and the actors of production: the flows of producers, operators and locks, and the runner's
`Engine` with its core and its timers (`claim`, `retry`, `shares`). Where a runner beats, patrols or stops meanwhile
(`rescue`, `clock`, `stop`), a model stands for its core, around the production packing, leases and rescue. A call is cut
into sending, taking effect, and the reply; between any two of them anything else may happen. Not part of it: threads and
sockets, jobs that are claimed ahead, and notifications that are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from jobqueue.testing.explore.scenarios import SCENARIOS, Scenario
from jobqueue.testing.explore.states import Found, Totals
from jobqueue.testing.explore.trace import describe

__all__ = ["SCENARIOS", "Exploration", "Scenario", "Totals", "explore"]


@attrs.frozen
class Exploration:
    """What was found in one scenario.

    Attributes:
        scenario: Its name.
        runners: How many runners took part.
        jobs: How many jobs.
        faults: How many faults could happen on each way.
        totals: What was walked through.
        broken: Which invariant does not hold; None if all do.
        trace: The shortest way there, a line per step; empty if all hold.
    """

    scenario: str
    runners: int
    jobs: int
    faults: int
    totals: Totals
    broken: str | None = None
    trace: str = ""

    @property
    def verdict(self) -> str:
        """``holds``, ``broken``, or ``cut`` if it was stopped before the end."""
        return "broken" if self.broken else "holds" if self.totals.complete else "cut"


def explore(
    scenarios: Iterable[str] | None = None,
    *,
    runners: int = 2,
    jobs: int = 3,
    faults: int = 1,
    most: int | None = None,
    progress: Callable[[str, Totals, int], None] = lambda _scenario, _totals, _left: None,
) -> list[Exploration]:
    """Walk through every state of the scenarios.

    Args:
        scenarios: Names out of `SCENARIOS`; all of them by default.
        runners: How many runners (or users of a lock) take part.
        jobs: How many jobs (or rounds with a lock).
        faults: How many faults may happen on each way.
        most: Stop after so many states of a scenario.
        progress: Called now and then with the scenario, its totals so far and how many states are still to be visited.

    Raises:
        ValueError: A scenario is unknown, or there are no runners, no jobs or a negative number of faults.
    """
    names = list(SCENARIOS if scenarios is None else scenarios)
    for name in names:
        if name not in SCENARIOS:
            raise ValueError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    if not (1 <= runners <= 9 and 1 <= jobs <= 26 and faults >= 0):
        raise ValueError(
            f"{runners} runners, {jobs} jobs, {faults} faults: use 1–9 runners, 1–26 jobs, no fault or more"
        )
    return [_walk(SCENARIOS[name], runners, jobs, faults, most, progress) for name in names]


def _walk(
    scenario: Scenario,
    runners: int,
    jobs: int,
    faults: int,
    most: int | None,
    progress: Callable[[str, Totals, int], None],
) -> Exploration:
    search, first = scenario.build(runners, jobs, faults)
    totals = Totals()
    try:
        search.walk(first, totals, lambda totals, left: progress(scenario.name, totals, left), most)
    except Found as found:
        who = "user" if scenario.name == "lock" else "runner"
        names = [f"{who} {number + 1}" for number in range(runners)] + [
            "producer" if scenario.name == "claim" else "operator"
        ]
        trace = describe(search, found.path, names)
        return Exploration(scenario.name, runners, jobs, faults, totals, found.why, trace)
    return Exploration(scenario.name, runners, jobs, faults, totals)
