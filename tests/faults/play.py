"""One scene in memory for each step of a job's life, with the fault at the batch that takes the step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from jobqueue import JobRecord, LockTaken
from jobqueue.errors import StorageError
from tests.faults.world import LEASE, Actor, Crashed, Spec, Trip, World, orphan

__all__ = ["SCENES", "Play"]


@attrs.define
class Play:
    """One cell while it is played.

    Attributes:
        world: The world.
        step: The step.
        accepted: Jobs whose enqueueing returned.
        refused: What the producer was told before it was accepted.
        trip: What happens at the step.
        victim: The runner it happens to.
        fences: Of the holders of the lock, in order.
        dead: How many jobs are to end dead.
        runs: Runs that a job's own behaviour asks for.
    """

    world: World
    step: str
    accepted: set[str] = attrs.field(factory=set)
    refused: list[StorageError] = attrs.field(factory=list)
    trip: Trip | None = None
    victim: Actor | None = None
    fences: list[int] = attrs.field(factory=list)
    dead: int = 0
    runs: dict[str, int] = attrs.field(factory=dict)

    def enqueue(self, key: str, spec: Spec | None = None, *, cut: bool = False, **options: float) -> None:
        """Enqueue as a careful producer: until it is told that the job is stored."""
        self.world.specs[key] = Spec() if spec is None else spec
        jobs, wire, deed = self.world.process()
        wire.trip = self.trip if cut else None
        records: Sequence[JobRecord[Any]] = ()
        for _ in range(200):
            try:
                if records:
                    jobs.enqueue_records(records)
                else:
                    jobs.enqueue(deed.call(key), queue="q", **options)  # type: ignore[arg-type]
            except StorageError as error:
                self.refused.append(error)
                records = error.records
                self.world.spend(100)
            else:
                self.accepted.add(key)
                return
        raise AssertionError(f"never stored: {self.refused[-1]}")

    def start(self, *, grace: float = 60_000) -> Actor:
        """Start the runner that the fault happens to."""
        assert self.trip is not None
        self.world.spend(500)  # older than the lag of a copy
        self.victim = Actor(self.world, "victim", grace=grace)
        self.victim.wire.trip = self.trip
        self.world.until(lambda: self.trip is not None and self.trip.hit, "the fault")
        return self.victim


# --------------------------------------------------------------------------------------------------------------- steps


def enq(play: Play) -> None:
    with contextlib.suppress(Crashed):
        play.enqueue("a", cut=True)
    play.enqueue("b")


def pro(play: Play) -> None:
    for key in "ab":
        play.enqueue(key, delay=0.4)
    play.start()


def clm(play: Play) -> None:
    for key in "ab":
        play.enqueue(key)
    play.start()


def during(play: Play) -> None:
    """RUN: at the first beat while the job runs."""
    assert play.trip is not None
    play.trip.step = "HB"
    play.enqueue("a", Spec(takes=1500))
    play.start()


def rty(play: Play) -> None:
    play.enqueue("a", Spec(fails=1))
    play.runs["a"] = 2
    play.start()


def dlq(play: Play) -> None:
    play.enqueue("doomed", Spec(fails=99), retry=0)
    play.dead = 1
    play.start()


def rec(play: Play) -> None:
    for key in "abc":
        play.enqueue(key)
    orphan(play.world, 2)
    play.start()


def beat(play: Play) -> None:
    play.enqueue("a", Spec(gated=True))
    play.start()
    Actor(play.world, "watcher")
    play.world.spend(2 * LEASE)
    play.world.gate_open = True


def lck(play: Play) -> None:
    """Take the lock, let the fault happen, and see that the next holder comes in."""
    world = play.world
    jobs, wire, _ = world.process()
    wire.trip = play.trip
    lock = jobs.lock("report", ttl=4)
    with contextlib.suppress(Crashed):
        for _ in range(200):
            try:
                play.fences.append(lock.__enter__().fence)
            except StorageError as error:
                play.refused.append(error)
                world.spend(50)
            except LockTaken:  # by a request of ours whose outcome we were not told: it ends by itself
                assert play.refused
                world.spend(50)
            else:
                break
    world.spend(50)
    other = world.process()[0].lock("report", ttl=4)

    def next_one() -> bool:
        try:
            play.fences.append(other.__enter__().fence)
        except (LockTaken, StorageError):
            return False
        return True

    world.until(next_one, "the next holder of the lock")


def shd(play: Play) -> None:
    play.enqueue("a", Spec(gated=True))
    play.runs["a"] = 2
    play.world.spend(500)
    victim = Actor(play.world, "victim", grace=0)
    victim.wire.trip = play.trip
    play.victim = victim
    play.world.until(lambda: play.world.runs()["a"], "the job running")
    victim.stop()
    play.world.until(lambda: play.trip is not None and play.trip.hit, "the fault")


SCENES: Final[dict[str, Callable[[Play], None]]] = {
    "ENQ": enq, "PRO": pro, "CLM": clm, "RUN": during, "ACK": clm, "RTY": rty, "DLQ": dlq, "REC": rec, "HB": beat,
    "LCK": lck, "SHD": shd,
}  # fmt: skip
