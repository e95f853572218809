"""The beat's thread: nothing ends it but its close, and it tells when the storage lost its data."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import pytest

from jobqueue import transitions
from jobqueue.clock import SystemClock
from jobqueue.errors import OutcomeUnknown
from jobqueue.keys import namespace_keys
from jobqueue.runner.beat import Heart
from jobqueue.runner.journal import Journal, RunnerStatus
from jobqueue.runner.leases import Leases
from jobqueue.runner.report import Reporter
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch, Fields
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.wrappers import Over
from tests.faults.ledger import await_that
from tests.runner.sim import Sim, World

KEYS: Final = namespace_keys("test")
PATIENCE: Final = 20.0


class Bad(MemoryStorage):
    """Tells of every call; one of them raises what no storage should."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.bad = bad
        self.calls = 0
        self.went_on = threading.Event()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        self.calls += 1
        if self.calls == self.bad:
            raise RuntimeError("no storage should")
        outcomes = super().apply(batches)
        if self.calls > self.bad:
            self.went_on.set()
        return outcomes


def heart(
    storage: Storage,
    epoch: bytes,
    data_lost: Callable[[], tuple[bytes, bytes] | None],
    leases: Leases | None = None,
) -> Heart:
    return Heart(
        storage, SystemClock(), KEYS, leases or Leases(60), threading.Lock(), every=10.0, incarnation=b"first",
        info=lambda now: b"alive", epoch=epoch, data_lost=data_lost,
        observe=Journal(RunnerStatus(), Reporter(logging.getLogger("jobqueue.runner"))).observe,
    )  # fmt: skip


def test_nothing_ends_the_beats(caplog: pytest.LogCaptureFixture) -> None:
    """A runner without beats loses everything it holds."""
    storage = Bad(bad=3)
    storage.apply([transitions.create_meta(KEYS, b"epoch")])
    beats = heart(storage, b"epoch", lambda: None)
    beats.start()
    try:
        assert storage.went_on.wait(PATIENCE), "the beats ended with the first error that nobody expected"
    finally:
        beats.close()
    assert "no storage should" in caplog.text


def test_a_beat_notices_that_the_data_were_lost_and_goes_on_under_another_name() -> None:
    storage = MemoryStorage()
    storage.apply([transitions.create_meta(KEYS, b"new")])
    lost: list[str] = []

    def data_lost() -> tuple[bytes, bytes] | None:
        lost.append("once")
        return b"new", b"second"

    beats = heart(storage, b"old", data_lost)
    assert beats.beat()
    assert lost == ["once"]
    registered = {b"second": b"alive"}
    assert storage.dump()[KEYS.runners.full] == registered, "before its next claim, and not under the name of before"
    assert beats.beat()
    assert lost == ["once"]
    assert storage.dump()[KEYS.runners.full] == {b"second": b"alive"}


def test_a_job_hears_of_its_lost_lease_while_a_beat_waits_for_a_silent_server() -> None:
    """Its lease is over by the clock of its own runner. That does not wait for the end of a call."""
    silent, asked = threading.Event(), threading.Event()

    world = World()

    class Silent(Over):
        def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
            if not silent.is_set():
                return super().apply(batches)
            asked.set()
            assert released.wait(PATIENCE)
            return [OutcomeUnknown("no answer")] * len(batches)

    released = threading.Event()
    world.enqueue(1)
    storage = Silent(world.memory)
    [meta] = storage.read([Fields(KEYS.meta)])
    assert isinstance(meta, dict)
    owner = Sim(world, lease=600)
    owner.settle()
    [task] = owner.given
    clock = SystemClock()
    leases = Leases(600)
    task.deadline = clock.monotonic() + 600
    leases.hold(task)
    beats = heart(storage, meta[b"epoch"], lambda: None, leases)
    beats.start()
    try:
        assert not task.lease_lost
        silent.set()
        assert asked.wait(PATIENCE)
        await_that(lambda: task.lease_lost, "the job is told", seconds=PATIENCE / 2)
        assert not released.is_set()
    finally:
        released.set()
        beats.close()
