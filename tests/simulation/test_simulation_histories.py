"""Histories that once showed a bug of the queue, as the simulation printed them."""

from __future__ import annotations

from jobqueue.testing import Faults, Simulation


def test_a_living_holder_is_not_robbed_after_the_clock_was_set_back() -> None:
    # Its leases ended further away than any lease, so they counted as expired, and its extensions could not raise them.
    Simulation(
        seed=59,
        operators=0,
        lock_users=0,
        jobs=4,
        only=["runner1.duty#6", "runner1.pump#1", "runner1.pump#7"],
    ).run()


def test_a_job_whose_bytes_were_unreadable_is_not_requeued() -> None:
    # It became a job of a kind without a name, which was put off for a day before it was dead again.
    Simulation(seed=10, runners=1, lock_users=0, jobs=1, threads=1, coroutines=1, faults=Faults.none()).run()
