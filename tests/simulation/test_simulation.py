"""The simulation itself: that it is repeatable, tells what it saw, and that all promises hold in a few hundred histories."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobqueue.testing import Faults, InvariantBroken, Simulation, simulate
from jobqueue.testing.simulation import VacuousInvariant
from jobqueue.testing.simulation.books import MEANINGS


@pytest.mark.timeout(300)  # about 15 s of processor time, on a machine that may have other work
def test_every_promise_holds_in_many_histories() -> None:
    report = simulate(range(240))

    assert report.histories == 240
    assert not report.vacuous
    assert report.ended["finished"] > 2000


def test_without_faults_every_promise_holds_too() -> None:
    report = simulate(range(40), faults=Faults.none(), vacuous=True)

    assert not report.faults


def test_the_same_seed_is_the_same_history() -> None:
    first, second, other = (Simulation(seed=seed).run() for seed in (5, 5, 6))

    assert first == second
    assert first.fired
    assert first.digest != other.digest


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_a_history_does_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    code = "from jobqueue.testing import Simulation; print([Simulation(seed=s).run().digest for s in (1, 2, 3, 8)])"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}

    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert printed.strip() == str([Simulation(seed=seed).run().digest for seed in (1, 2, 3, 8)])


def test_only_the_named_faults_happen() -> None:
    everything = Simulation(seed=7).run()
    kept = [name for name, fault in everything.fired if fault == "reply lost"][:1]

    history = Simulation(seed=7, only=kept).run()

    assert [name for name, _ in history.fired] == kept


def test_a_run_that_leaves_an_invariant_vacuous_fails() -> None:
    with pytest.raises(VacuousInvariant, match="I15"):
        simulate(range(3), lock_users=0)


def test_without_a_referee_everything_ends_just_the_same() -> None:
    for seed in range(5):
        looked_at, alone = Simulation(seed=seed).run(), Simulation(seed=seed, check=False).run()

        assert (alone.steps, alone.runs, alone.ms, alone.fired) == (
            looked_at.steps, looked_at.runs, looked_at.ms, looked_at.fired,
        )  # fmt: skip


def test_a_simulation_is_imported_only_when_it_is_used() -> None:
    code = "import sys, jobqueue.testing; print([m for m in sys.modules if 'simulation' in m or m == 'hypothesis'])"

    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert printed.strip() == "[]"


def test_a_wrong_number_is_refused() -> None:
    with pytest.raises(ValueError, match="jobs"):
        Simulation(seed=1, jobs=0)
    with pytest.raises(ValueError, match="paused"):
        Faults(paused=1.5)


def test_every_invariant_has_a_meaning() -> None:
    numbered = {*(f"I{number}" for number in (*range(1, 20), 22)), "I10b"}
    assert MEANINGS.keys() - numbered == {
        "extend", "rescue in time", "lock in time", "told to stop", "registered", "clean stop", "empty", "no surprise",
        "progress",
    }  # fmt: skip
    assert numbered <= MEANINGS.keys()
    assert "" not in MEANINGS.values()
    with pytest.raises(InvariantBroken, match="fence"):
        raise InvariantBroken("I4", "…")
