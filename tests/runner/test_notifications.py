"""Who is waiting for work is notified, on every storage: what has to be told is asserted, not how soon it was done.

An idle runner looks every few seconds by itself, which hides a notification that is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import msgspec
import pytest

from jobqueue import JobQueue, transitions
from jobqueue.clock import Moment
from jobqueue.drive import run
from jobqueue.flows import Flow
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.record import Stored, encode
from jobqueue.runner.aftermath import settle
from jobqueue.runner.duties import Duties
from jobqueue.runner.rescue import Watch, patrol
from jobqueue.runner_info import Beat
from jobqueue.storage.ops import Applied, Batch, claim_mark
from jobqueue.storage.protocol import Storage
from jobqueue.testing import FakeClock
from tests.faults.ledger import PATIENCE, await_that
from tests.runner.running import running

LOW = queue_keys("runner", "low")
LEASE, BEAT = 30_000, 5_000
CLOCK = FakeClock()


def moment() -> Moment:
    return Moment(CLOCK.now(), CLOCK.monotonic())


class Listening:
    """A storage of any kind, and whether those who wait at it are notified."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.number = 0

    def apply(self, batch: Batch) -> Applied:
        [outcome] = self.storage.apply([batch])
        assert isinstance(outcome, Applied)
        return outcome

    def put(self, *ids: bytes, recoveries: int = 0) -> None:
        stored = Stored("work", b"{}", 13, 0, recoveries, 0, 0)
        self.apply(transitions.put(LOW, {id: encode(id.ljust(8), stored) for id in ids}, {}, {}))

    def claim(self, incarnation: bytes, limit: int = 1) -> dict[bytes, bytes]:
        self.number += 1
        batch = transitions.claim(
            LOW, incarnation, self.number, limit=limit, now=CLOCK.now(), lease=LEASE, beat=BEAT
        )  # fmt: skip
        moved = self.apply(batch).moved
        return dict.fromkeys(moved.ids, claim_mark(incarnation, moved.fence, BEAT))

    def hear(self) -> bool:
        """Whether somebody who waits now is notified; takes the token."""
        return self.storage.wait((LOW.scope,), 0.05) == LOW.scope


@pytest.fixture
def listening(jobs: JobQueue) -> Iterator[Listening]:
    storage = jobs.access.opened().backend.storage()
    yield Listening(storage)
    storage.close()


def test_a_rescue_by_a_supervisor_notifies(listening: Listening) -> None:
    space = namespace_keys("runner")
    listening.apply(transitions.register_queue(space, "low", CLOCK.now()))
    now = CLOCK.now()
    beat = Beat(
        host="h", pid=1, started=now, seen=now, lease=LEASE, queues={"low": 1}, threads=1, coroutines=1, version=""
    )  # fmt: skip
    listening.storage.apply([transitions.create_meta(space, b"epoch")])
    listening.storage.apply(
        [transitions.register_runner(space, b"gone", msgspec.json.encode(beat), b"epoch", seen=now, lease=LEASE)]
    )
    listening.put(b"1", b"2")
    assert listening.claim(b"gone", 2)
    while listening.hear():
        pass
    assert len(run(settle(space, b"gone", moment), listening.storage, CLOCK)) == 2
    assert listening.hear()


def test_a_rescue_by_a_runner_notifies(listening: Listening) -> None:
    listening.put(b"1")
    assert listening.claim(b"gone")
    while listening.hear():
        pass
    watch = Watch()
    for wait in (LEASE, 2 * BEAT):
        CLOCK.advance(milliseconds=wait)
        found = run(patrol(LOW, watch, LEASE, moment), listening.storage, CLOCK)
    assert [one.id for one in found] == [b"1"]
    assert listening.hear()


def test_a_delayed_job_notifies_if_it_is_the_earliest(jobs: JobQueue, listening: Listening) -> None:
    """Those who wait rest until the earliest that they know of."""
    work = jobs.job(name="work")(lambda: None)
    heard = []
    for delay in (60, 120, 30, 45):
        work.opts(delay=delay).enqueue()
        heard.append(listening.hear())
    assert heard == [True, False, True, False]


def test_a_retry_notifies_if_it_is_the_earliest(listening: Listening) -> None:
    listening.put(b"1", b"2", b"3")
    claims = listening.claim(b"owner", 3)
    while listening.hear():
        pass
    heard = []
    for id, due in ((b"1", 60_000), (b"2", 120_000), (b"3", 30_000)):
        record = encode(id.ljust(8), Stored("work", b"{}", 13, 1, 0, 0, due))
        listening.apply(transitions.move_out("retry", LOW, {id: claims[id]}, {id: record}, {id: due}))
        heard.append(listening.hear())
    assert heard == [True, False, True]


def test_what_is_handed_back_notifies(listening: Listening) -> None:
    listening.put(b"1")
    claims = listening.claim(b"owner")
    while listening.hear():
        pass
    listening.apply(transitions.release(LOW, claims))
    assert listening.hear()


@pytest.mark.parametrize("delay", [0, 0.05], ids=["ready", "delayed"])
def test_an_idle_runner_acts_on_the_notification(jobs: JobQueue, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone: its duties, which would find the job as well, do nothing here."""

    def nothing(self: Duties) -> Flow[None]:
        return
        yield

    monkeypatch.setattr(Duties, "round", nothing)
    ran = threading.Event()
    work = jobs.job(name="work")(lambda: ran.set())
    with running(jobs) as runner:
        await_that(lambda: hasattr(runner, "_listener") and runner._listener.listening, "it is idle")
        work.opts(delay=delay).enqueue()
        assert ran.wait(PATIENCE)


def test_single_enqueues_are_first_in_first_out(jobs: JobQueue, listening: Listening) -> None:
    """A server has a shorter way for one job alone."""
    work = jobs.job(name="work")(lambda: None)
    ids = [work.enqueue().id for _ in range(3)]
    ids += [record.id for record in jobs.enqueue_many([work.call(), work.call()])]
    ids += [work.enqueue().id for _ in range(3)]
    assert [record.id for record in jobs.find(place="ready")] == ids
    claimed = [id.decode() for _ in ids for id in listening.claim(b"owner")]
    assert claimed == ids
