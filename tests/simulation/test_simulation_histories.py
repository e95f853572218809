"""Histories that once showed a bug of the queue, as the simulation printed them."""

from __future__ import annotations

from jobqueue.testing import Faults, Simulation


def test_a_living_holder_is_not_robbed_after_the_clock_was_set_back() -> None:
    # Its leases ended further away than any lease, so they counted as expired, and its extensions could not raise them.
    Simulation(
        seed=59,
        deployers=0,
        operators=0,
        lock_users=0,
        jobs=4,
        only=["runner1.duty#6", "runner1.pump#1", "runner1.pump#7"],
    ).run()


def test_an_observer_that_stood_still_does_not_count_that_as_patience() -> None:
    # Its clock was read before its question was held up, so the claim it then saw was ripe 51 ms after it had been made.
    Simulation(seed=20021, deployers=0, runners=4, producers=2, jobs=8, threads=3, coroutines=3).run()


def test_a_job_whose_bytes_were_unreadable_is_not_requeued() -> None:
    # It became a job of a kind without a name, which was put off for a day before it was dead again.
    Simulation(
        seed=10, deployers=0, runners=1, lock_users=0, jobs=1, threads=1, coroutines=1, faults=Faults.none()
    ).run()


def test_what_the_network_kept_back_is_no_sign_of_life() -> None:
    # The rule was too strict, not the queue: the holder stood still, and all that arrived of it since was an extension
    # that had left before the one that counted.
    fired = """
        runner1.beat#10 runner1.duty#13 runner1.duty#14 runner1.duty#21 runner2.beat#14 runner2.beat#18
        runner2.beat#20 runner2.beat#27 runner2.beat#33 runner2.duty#37 runner2.duty#54 runner2.duty#6
        runner2.duty#73 runner2.duty#77 runner2.duty#8 runner2.pump#10 runner2.pump#16 runner2.pump#23
        runner2.pump#28 runner2.pump#6 runner3.beat#10 runner3.beat#6 runner3.duty#21 runner3.duty#24
        runner3.duty#7 runner3.pump#2 runner3.pump#9 runner4.beat#10 runner4.beat#2 runner4.beat#20
        runner4.duty#12 runner4.duty#16 runner4.duty#19 runner4.duty#23 runner4.duty#33 runner4.duty#39
        runner4.pump#12 runner4.pump#21 runner4.pump#27 runner4.pump#32
    """
    Simulation(
        seed=55121,
        deployers=0,
        runners=4,
        producers=2,
        operators=0,
        lock_users=0,
        jobs=6,
        threads=3,
        coroutines=3,
        only=fired.split(),
    ).run()


def test_a_suspect_keeps_no_company_that_a_late_answer_brings() -> None:
    # A queue did not answer when the suspect was started; asked again while it ran, it gave jobs, which were started too.
    Simulation(seed=1125899906843279, deployers=0, runners=4, producers=2, jobs=30, threads=3, coroutines=3).run()


def test_a_deleted_job_that_its_producer_sent_again_is_deleted_again() -> None:
    # The rule was too strict, not the queue: a copy of the enqueue arrived behind the deletion, and a copy of the deletion
    # behind that. What is seen by its due time is the same job in both lives.
    fired = """
        locker2.lock#10 locker2.lock#17 locker2.lock#21 locker2.lock#5 operator1.operate#14
        operator1.operate#22 operator1.operate#29 operator1.operate#7 producer1.enqueue#2
        producer1.enqueue#9 runner1.pump#1 runner1.pump#10 runner1.pump#17 runner1.pump#2
        runner1.pump#20 runner1.pump#24 runner2.beat#2 runner2.beat#7 runner2.duty#10 runner2.duty#13
        runner2.pump#10 runner2.pump#18 runner2.pump#20 runner2.pump#21 runner2.pump#25
        runner2.pump#28 runner2.pump#29 runner2.pump#3 runner2.pump#30 runner2.pump#31
    """
    Simulation(seed=700782, deployers=0, jobs=20, threads=1, coroutines=1, only=fired.split()).run()
