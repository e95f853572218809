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


def test_an_observer_that_stood_still_does_not_count_that_as_patience() -> None:
    # Its clock was read before its question was held up, so the claim it then saw was ripe 51 ms after it had been made.
    Simulation(seed=20021, runners=4, producers=2, jobs=8, threads=3, coroutines=3).run()


def test_a_job_whose_bytes_were_unreadable_is_not_requeued() -> None:
    # It became a job of a kind without a name, which was put off for a day before it was dead again.
    Simulation(seed=10, runners=1, lock_users=0, jobs=1, threads=1, coroutines=1, faults=Faults.none()).run()


def test_what_the_network_kept_back_is_no_sign_of_life() -> None:
    # The rule was too strict, not the queue: the holder stood still, and all that arrived of it since was an extension
    # that had left before the one that counted.
    Simulation(
        seed=50944,
        jobs=30,
        coroutines=3,
        only=[
            "locker1.lock#4", "locker2.lock#4", "producer1.enqueue#1", "producer1.enqueue#9", "runner1.duty#9",
            "runner1.pump#28", "runner1.pump#29", "runner1.pump#3", "runner1.pump#44", "runner1.pump#56",
            "runner2.beat#1", "runner2.beat#14", "runner2.beat#7", "runner2.duty#12", "runner2.duty#18",
            "runner2.duty#2", "runner2.duty#24", "runner2.pump#7", "runner2.pump#8",
        ],
    ).run()  # fmt: skip
