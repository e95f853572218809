"""From a history that broke an invariant to a small one that breaks it too, and to a text that shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import attrs

from jobqueue.testing.simulation.books import InvariantBroken
from jobqueue.testing.simulation.diagram import Trace
from jobqueue.testing.simulation.faults import Faults
from jobqueue.testing.simulation.simulation import Simulation

__all__ = ["explain", "shrink"]

TRIES: Final = 250
"""Histories that are played to find a smaller one."""


def _breaks(plan: Simulation, invariant: str) -> tuple[InvariantBroken, Trace] | None:
    trace = Trace()
    try:
        plan.play(trace)
    except InvariantBroken as broken:
        return (broken, trace) if broken.invariant == invariant else None
    return None


def shrink(plan: Simulation, invariant: str, tries: int = TRIES) -> Simulation:
    """A simulation with fewer actors, jobs and faults that breaks the same invariant.

    Args:
        plan: One that breaks it.
        invariant: Its name.
        tries: How many histories may be played.
    """
    tried = {_key(plan)}
    smaller = _smaller(plan)
    while tries > 0:
        candidate = next(smaller, None)
        if candidate is None:
            break
        if _key(candidate) in tried:
            continue
        tried.add(_key(candidate))
        tries -= 1
        if _breaks(candidate, invariant):
            plan = candidate
            smaller = _smaller(plan)
    return plan


def _key(plan: Simulation) -> str:
    return repr(attrs.evolve(plan, only=None)) + repr(None if plan.only is None else sorted(plan.only))


def _with(plan: Simulation, **changes: Any) -> Simulation:
    return attrs.evolve(plan, **changes)


def _smaller(plan: Simulation) -> Iterator[Simulation]:
    """Simpler plans, the boldest first."""
    for name in ("operators", "bursts", "deployers", "lock_users"):
        if getattr(plan, name):
            yield _with(plan, **{name: 0})
    if plan.producers > 1:
        yield _with(plan, producers=1)
    for jobs in dict.fromkeys((1, plan.jobs // 2, 3 * plan.jobs // 4, plan.jobs - 1)):
        if 0 < jobs < plan.jobs:
            yield _with(plan, jobs=jobs)
    if plan.runners > 1:
        yield _with(plan, runners=plan.runners - 1)
    if plan.faults != Faults.none():
        yield _with(plan, faults=Faults.none(), only=None)
        names = sorted(plan.only if plan.only is not None else _fired(plan))
        size = len(names)
        while size:
            for start in range(0, len(names), size):
                yield _with(plan, only=frozenset(names[:start] + names[start + size :]))
            size //= 2
    for name in ("threads", "coroutines"):
        if getattr(plan, name) > 1:
            yield _with(plan, **{name: 1})


def _fired(plan: Simulation) -> frozenset[str]:
    from jobqueue.testing.simulation.stage import Stage

    stage = Stage(plan, None)
    with contextlib.suppress(Exception):
        stage.play()  # it breaks, which is why it is here; what fired until then is what counts
    return frozenset(name for name, _ in stage.world.fates.fired)


def _source(plan: Simulation) -> str:
    """The plan as Python."""
    standard = Simulation(seed=0)
    parts = [f"seed={plan.seed}"]
    for field in attrs.fields(Simulation):
        value = getattr(plan, field.name)
        if field.name not in ("seed", "faults", "only") and value != getattr(standard, field.name):
            parts.append(f"{field.name}={value!r}")
    if plan.faults == Faults.none():
        parts.append("faults=Faults.none()")
    elif plan.faults != standard.faults:
        rates = {
            name: rate
            for name, rate in attrs.asdict(plan.faults).items()
            if rate != getattr(standard.faults, name)
        }  # fmt: skip
        parts.append(f"faults=Faults({', '.join(f'{name}={rate!r}' for name, rate in rates.items())})")
    if plan.only is not None and plan.faults != Faults.none():
        parts.append(f"only={sorted(plan.only)!r}")
    return f"Simulation({', '.join(parts)})"


def explain(plan: Simulation, broken: InvariantBroken) -> InvariantBroken:
    """The same failure with seed, shortened history and a test to paste."""
    small = shrink(plan, broken.invariant)
    found = _breaks(small, broken.invariant)
    shown, trace = found if found is not None else (broken, Trace())
    name = "".join(letter if letter.isalnum() else "_" for letter in broken.invariant.lower())
    source = _source(small)
    faults = "no faults" if small.faults == Faults.none() else f"{len(_fired(small))} faults"
    text = f"""{shown.args[0]}

seed {plan.seed}; shortened to {small.jobs} jobs, {small.runners} runners, {faults}

{trace.render(shown.ids, shown.reason)}

The same as a test:

    from jobqueue.testing import {"Faults, " * ("Faults" in source)}Simulation

    def test_{name}_seed_{plan.seed}() -> None:
        {source}.run()
"""
    result = InvariantBroken(shown.invariant, shown.reason, shown.ids)
    result.args = (text,)
    result.seed = plan.seed
    return result
