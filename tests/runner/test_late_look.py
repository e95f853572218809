"""What counts as a look at a lease: not what the storage answers late, nor what a jump of its clock has changed since."""

from __future__ import annotations

from typing import Any

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.flows import Read
from jobqueue.keys import queue_keys
from jobqueue.record import Stored, encode
from jobqueue.runner.rescue import Rescued, Watch, patrol
from jobqueue.storage.memory import MemoryStorage

KEYS = queue_keys("test", "low")
LEASE, BEAT = 6_000, 1_000


class Observer:
    """Somebody who looks for jobs of runners that are gone, at a storage that takes its time."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.local = 0.0
        self.ahead = 0
        self.signs: dict[str, int] = {"owner": 0}
        self.watch = Watch()
        record = encode(b"nonce...", Stored("kind", b"{}", 0, 0, 0, 1, 1))
        claim = transitions.claim(KEYS, b"owner", 1, limit=1, now=1_000_000, lease=LEASE, beat=BEAT)
        self.storage.apply([transitions.put(KEYS, {b"1": record}, {}, {}), claim])

    def moment(self) -> Moment:
        """Now."""
        return Moment(1_000_000 + self.ahead + int(self.local), self.local)

    def look(self, takes: float = 0.0) -> list[Rescued]:
        """Look once; the first answer comes after ``takes`` ms."""
        flow = patrol(KEYS, self.watch, LEASE, self.moment, dict(self.signs))
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


def test_a_clock_that_is_set_back_and_forward_again_begins_a_new_watch() -> None:
    # Its owner beats, but cannot raise an end that lies further away than any lease. Its last beat came between the last
    # look at the far end and the jump, so nothing that the next looks see tells that it lives.
    observer = Observer()
    observer.ahead = -2 * LEASE
    assert observer.look() == []
    observer.local += 900
    observer.signs["owner"] += 900
    observer.ahead = 2 * LEASE
    observer.local += 100
    assert observer.look() == []
    observer.local += BEAT
    assert observer.look() == [], "1,100 ms after its last beat"
    observer.local += BEAT
    assert [job.id for job in observer.look()] == [b"1"]
