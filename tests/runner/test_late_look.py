"""What counts as a look at a lease: not what the storage answers late, nor what its holder has changed since."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from jobqueue import transitions
from jobqueue.clock import Moment, SystemClock
from jobqueue.drive import run
from jobqueue.flows import Read
from jobqueue.keys import queue_keys
from jobqueue.record import Stored, encode
from jobqueue.runner.leases import Leases
from jobqueue.runner.rescue import Rescued, Watch, patrol
from jobqueue.runner.task import Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Move, claim_mark
from tests.runner.sim import LEASE as SIM_LEASE
from tests.runner.sim import Sim, World

KEYS = queue_keys("test", "low")
LEASE, BEAT = 6_000, 1_000


class Observer:
    """Somebody who looks for jobs of runners that are gone, at a storage that takes its time."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.local = 0.0
        self.ahead = 0
        self.watch = Watch()
        stored = Stored("kind", b"{}", 0, 0, 0, 1, 1)
        record = encode(b"nonce...", stored)
        self.leases = Leases(LEASE)
        self.leases.ask(self.moment())
        mark = claim_mark(b"owner", 1_000_000, BEAT)
        self.leases.hold(Task(KEYS, b"1", mark, 1_000_000, record, stored, None, LEASE))
        claim = transitions.claim(KEYS, b"owner", 1, limit=1, now=1_000_000, lease=LEASE, beat=BEAT)
        self.storage.apply([transitions.put(KEYS, {b"1": record}, {}, {}), claim])

    def moment(self) -> Moment:
        """Now."""
        return Moment(1_000_000 + self.ahead + int(self.local), self.local)

    def beat(self) -> None:
        """The owner says that it lives."""
        self.storage.apply([batch for batch, _ in self.leases.extend(self.moment())])

    def look(self, takes: float = 0.0) -> list[Rescued]:
        """Look once; the first answer comes after ``takes`` ms."""
        flow = patrol(KEYS, self.watch, LEASE, self.moment)
        answer: Any = None
        try:
            while True:
                request = flow.send(answer)
                self.local, takes = self.local + takes, 0.0
                answer = (
                    self.storage.read(request.queries)
                    if isinstance(request, Read)
                    else self.storage.apply(request.batches)  # type: ignore[union-attr]
                )
        except StopIteration as end:
            found: list[Rescued] = end.value
            return found


def test_after_a_server_that_stood_still_an_owner_has_two_beats() -> None:
    observer = Observer()
    observer.local = LEASE + 100  # it has stood still since the claim: nobody could extend anything
    assert observer.look(takes=4_000) == []
    observer.local += 2 * BEAT - 1
    assert observer.look() == []
    observer.local += 1
    assert [job.id for job in observer.look()] == [b"1"]


def test_a_living_owner_is_seen_to_live_after_the_clock_was_set_back() -> None:
    observer = Observer()
    observer.ahead = -2 * LEASE
    for _ in range(5):
        assert observer.look() == [], "its end lies further away than any lease"
        observer.local += BEAT
        observer.beat()
    assert observer.look() == []
    observer.local += 2 * BEAT
    assert [job.id for job in observer.look()] == [b"1"], "two beats without a sign of life"


def test_a_beat_between_the_last_look_and_the_taking_saves_its_job() -> None:
    observer = Observer()
    observer.ahead = -2 * LEASE
    assert observer.look() == []
    observer.local += 2 * BEAT
    flow = patrol(KEYS, observer.watch, LEASE, observer.moment)
    request = next(flow)
    while isinstance(request, Read):
        request = flow.send(observer.storage.read(request.queries))
    observer.beat()  # while the request of the observer is on its way
    with pytest.raises(StopIteration) as end:
        flow.send(observer.storage.apply(request.batches))  # type: ignore[union-attr]
    assert end.value.value == []


def test_a_beat_outdoes_the_end_that_a_claim_asked_for() -> None:
    """Or who watches would not see it, when the server's clock was set back since the claim."""
    world = World()
    world.enqueue(1)
    owner = Sim(world, "owner")
    owner.settle()
    claimed = owner.at
    [(batch, _)] = owner.core.leases.extend(Moment(claimed.now - 3_600_000, claimed.local))
    [move] = batch.ops
    assert isinstance(move, Move)
    assert isinstance(move.score, int)
    assert move.score > claimed.now + SIM_LEASE


def test_what_left_between_the_two_questions_of_a_look_has_not_been_seen() -> None:
    """Found by the exploration: the next claim ended at the same time, and was watched as one that nobody had written."""
    queue, storage, watch = queue_keys("n", "low"), MemoryStorage(), Watch()
    record = encode(b"nonce...", Stored("ok", b"{}", 0, 0, 0, 0, 0))
    storage.apply([transitions.put(queue, {b"a": record}, {}, {})])
    claims = [
        transitions.claim(queue, incarnation, 1, limit=1, now=0, lease=300, beat=100)
        for incarnation in (b"one", b"two")
    ]
    [first] = storage.apply(claims[:1])
    assert isinstance(first, Applied)
    mark = claim_mark(b"one", first.moved.fence, 100)

    look = patrol(queue, watch, 300, lambda: Moment(700, 700.0))
    expired = next(look)
    assert isinstance(expired, Read)
    answers = storage.read(expired.queries)
    storage.apply([transitions.release(queue, {b"a": mark})])
    records = look.send(answers)
    assert isinstance(records, Read)
    with pytest.raises(StopIteration):
        look.send(storage.read(records.queries))
    storage.apply(claims[1:])  # of a runner that has died: it arrives late

    taken: list[Rescued] = []
    for at in (800, 900, 1000):
        moment = Moment(at, float(at))
        taken += run(patrol(queue, watch, 300, partial(lambda moment: moment, moment)), storage, SystemClock())
    assert [one.incarnation for one in taken] == ["two"]
