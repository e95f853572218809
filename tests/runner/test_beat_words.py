"""What the beat and the duties say in the log: the truth, each thing once, and that it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import redis

from jobqueue import JobQueue, NotApplied, OutcomeUnknown, Runner, StorageRefused, transitions
from jobqueue.clock import Moment
from jobqueue.keys import QueueKeys, queue_keys
from jobqueue.record import Stored, encode
from jobqueue.runner.duties import Duties
from jobqueue.runner.events import DutiesEnded
from jobqueue.runner.journal import REMIND_MS, Journal, RunnerStatus
from jobqueue.runner.leases import Leases
from jobqueue.runner.rehearsal import NAMED
from jobqueue.runner.report import Reporter
from jobqueue.runner.task import Task
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, claim_mark
from jobqueue.storage.protocol import Outcome
from jobqueue.testing import FakeClock
from tests.faults.ledger import await_that
from tests.runner.beats import BEAT, LEASE, SPACE, Slow, beats, heart_of
from tests.runner.running import running
from tests.servers import Server

LOW: Final = queue_keys("runner", "low")
LOG: Final = logging.getLogger("beats")


@pytest.fixture
def storage() -> Slow:
    return Slow(FakeClock())


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: list(caplog.messages)


Lines = Callable[[], list[str]]

# ------------------------------------------------------------------------------------------------------------ late beats


def test_beats_are_on_time_from_the_first(storage: Slow, lines: Lines) -> None:
    beats(storage, 3)
    assert storage.beats == [BEAT, 2 * BEAT, 3 * BEAT]
    assert lines() == []


def test_a_storage_that_takes_its_time_is_not_taken_for_a_thread_that_was_held(storage: Slow, lines: Lines) -> None:
    storage.takes = [12, 12, 0, 12]
    beats(storage, 5)
    assert storage.beats == [5_000, 17_000, 29_000, 34_000, 46_000], "the next is due when the one before has ended"
    assert lines() == ["the storage took 12.0 s to answer a beat; leases last 30.0 s"] * 2, (
        "said again after a quick one"
    )


def test_a_silent_storage_is_not_taken_for_a_thread_that_was_held(storage: Slow, lines: Lines) -> None:
    storage.takes, storage.answers = [12, 12], [OutcomeUnknown("no answer"), OutcomeUnknown("no answer")]
    beats(storage, 3)
    assert lines() == [
        "the storage does not answer beats; they are sent again and again: no answer", "the storage answers beats again",
    ]  # fmt: skip


def test_a_thread_that_was_held_is_said_with_how_long(storage: Slow, lines: Lines) -> None:
    beats(storage, 3, late={2: 12})
    assert lines() == [
        "a beat came 12.0 s late: something held this process, or its interpreter's lock; leases last 30.0 s"
    ]


@pytest.mark.parametrize("takes", [0, 25])
def test_what_a_beat_extends_counts_from_its_sending(owner: Owner, takes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes after 25 s leaves five of a lease of 30: the server may have counted from the question."""
    owner.clock.advance(milliseconds=BEAT)
    sent = owner.clock.monotonic()
    apply = owner.storage.apply

    def slowly(batches: Any, /) -> Any:
        outcomes = apply(batches)
        owner.clock.advance(takes)
        return outcomes

    monkeypatch.setattr(owner.storage, "apply", slowly)
    owner.heart.beat()

    assert owner.clock.monotonic() == sent + takes * 1000
    assert owner.task.deadline == sent + LEASE
    assert not owner.leases.overdue(owner.at)
    owner.clock.advance(milliseconds=LEASE - takes * 1000)
    assert owner.leases.overdue(owner.at) == [owner.task]


# ---------------------------------------------------------------------------------------------------------- said once


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NotApplied("away"), "the storage does not answer beats; they are sent again and again: away"),
        (StorageRefused("NOPERM"), "the storage refuses beats; they are sent again and again: NOPERM"),
    ],
)
def test_what_lasts_is_said_once_and_again_after_minutes(
    storage: Slow, lines: Lines, answer: Outcome, words: str
) -> None:
    tries = int(1.5 * REMIND_MS / (BEAT / 4))
    storage.answers = [answer] * tries
    beats(storage, tries + 2)
    assert lines() == [words, words, "the storage answers beats again"]


def test_what_nobody_expected_is_said_once_and_again_after_minutes(
    storage: Slow, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batches: Any, /) -> Any:
        raise RuntimeError("no storage should")

    monkeypatch.setattr(storage, "apply", broken)
    beats(storage, int(1.5 * REMIND_MS / (BEAT / 4)))
    assert lines() == ["a beat met something unexpected; it is tried again"] * 2


@pytest.fixture
def journal() -> Journal:
    return Journal(RunnerStatus(), Reporter(LOG))


def test_refused_duties_are_said_once_and_again_after_minutes(journal: Journal, lines: Lines) -> None:
    journal.observe(DutiesEnded(None, 0))
    for local in range(0, int(1.5 * REMIND_MS), BEAT):
        # The registry is asked in every second round: the two refusals take turns.
        journal.observe(DutiesEnded(StorageRefused("a" if local % (2 * BEAT) else "b"), local))
    words = "the duties of this runner were refused; they are tried again: "
    assert lines() == [f"{words}b", f"{words}a", f"{words}b", f"{words}a"]

    journal.observe(DutiesEnded(NotApplied("away"), 1.5 * REMIND_MS))
    for _ in range(3):
        journal.observe(DutiesEnded(None, 1.5 * REMIND_MS))
    journal.observe(DutiesEnded(StorageRefused("a"), 1.5 * REMIND_MS + 1))
    assert lines()[4:] == ["the duties of this runner are done again", f"{words}a"]


def test_what_nobody_expected_of_the_duties_is_said_once_with_its_place(
    journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    for local in range(0, int(REMIND_MS), BEAT):
        try:
            raise RuntimeError("of a foreign writer")
        except RuntimeError as error:
            journal.observe(DutiesEnded(error, local))
    [record] = caplog.records
    assert record.getMessage() == "the duties of this runner met something unexpected; they are tried again"
    assert record.exc_info


def test_a_runner_says_once_that_its_duties_are_refused(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign writer has put a string where the dead jobs of a runner would be watched."""
    caplog.set_level(logging.INFO)
    rounds: list[int] = []
    original = Duties.round

    def counted(self: Duties) -> Any:
        rounds.append(1)
        return original(self)

    monkeypatch.setattr(Duties, "round", counted)
    client = server.client()
    with JobQueue(server.url, namespace="runner") as jobs:
        jobs.job(name="work")(lambda: None)
        client.set(LOW.working.full, b"spoiled")
        with running(jobs, queues=["low", "high"]):
            await_that(lambda: len(rounds) > 5, "its duties were refused some times")
            client.delete(LOW.working.full)
            await_that(lambda: "the duties of this runner are done again" in caplog.messages, "it is said")
    client.close()
    assert sum("duties of this runner were refused" in line for line in caplog.messages) == 1
    [told] = [line for line in caplog.messages if line.startswith("queue low cannot be served now")]
    assert "{runner:low}:working holds a string" in told


def test_a_queue_that_is_spoiled_hides_no_warning_of_another(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with JobQueue(server.url, namespace="runner") as jobs, server.client() as client:
        work = jobs.job(name="work")(lambda: None)
        work.opts(queue="third").enqueue()
        work.opts(queue="spoiled").enqueue()
        client.set("{runner:spoiled}:working", "x")
        with running(jobs, queues=["low"]):
            pass
    assert "queue 'third' has 1 job and no runner serves it" in caplog.messages
    assert not [line for line in caplog.messages if "could not look" in line]


def test_of_very_many_spoiled_queues_some_are_named(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with JobQueue(server.url, namespace="runner") as jobs, server.client() as client:
        jobs.job(name="work")(lambda: None)
        for number in range(NAMED + 5):
            client.set(f"{{runner:bad{number}}}:working", "x")
            client.hset("{runner}:queues", f"bad{number}", 1)
        with running(jobs):
            pass
    assert sum("cannot be served now, it is" in line for line in caplog.messages) == NAMED
    assert "5 more queues cannot be served now, they are tried again and again" in caplog.messages


def test_a_runner_none_of_whose_queues_can_be_served_does_not_start(server: Server) -> None:
    client = server.client()
    with JobQueue(server.url, namespace="runner") as jobs:
        jobs.job(name="work")(lambda: None)
        client.set(LOW.working.full, b"spoiled")
        with pytest.raises(StorageRefused, match=r"\{runner:low\}:working holds a string"):
            Runner(jobs, queues=["low"]).run(signals=False)
    client.close()


# ---------------------------------------------------------------------------------------------------- claims that are gone


class Owner:
    """A runner that holds one job of a queue, on a storage of any kind, and what others do to it."""

    def __init__(self, jobs: JobQueue) -> None:
        self.jobs = jobs
        self.clock = FakeClock()
        self.storage = jobs.access.opened().backend.storage()
        self.storage.apply([transitions.create_meta(SPACE, b"epoch")])
        self.leases = Leases(LEASE)
        stored = Stored("work", b"{}", 13, 0, 0, 0, 0)
        self.record = encode(b"nonce...", stored)
        self.storage.apply([transitions.put(LOW, {b"job-1": self.record}, {}, {})])
        self.claim = self.take(b"owner")
        task = Task(LOW, b"job-1", self.claim, 1, self.record, stored, None, self.clock.monotonic() + LEASE)
        self.task = task
        self.leases.hold(task)
        self.heart = heart_of(self.storage, self.clock, self.leases)

    @property
    def at(self) -> Moment:
        return Moment(self.clock.now(), self.clock.monotonic())

    def take(self, incarnation: bytes) -> bytes:
        batch = transitions.claim(LOW, incarnation, 1, limit=1, now=self.clock.now(), lease=LEASE, beat=BEAT)
        [outcome] = self.storage.apply([batch])
        assert isinstance(outcome, Applied)
        assert outcome.moved.ids == (b"job-1",)
        return claim_mark(incarnation, outcome.moved.fence, BEAT)

    def rescue(self) -> None:
        """Another runner takes it back, since the lease was over."""
        self.clock.advance(milliseconds=LEASE)
        end = self.clock.now()
        self.storage.apply([transitions.rescue(LOW, {b"job-1": (self.claim, end)}, {b"job-1": self.record})])

    def remove(self, *keys: str) -> None:
        """Remove keys of the queue, as an operator might."""
        if self.jobs.url is not None and not self.jobs.url.startswith("memory:"):
            client = redis.Redis.from_url(self.jobs.url)
            client.delete(*keys)
            client.close()
            return
        assert isinstance(self.storage, MemoryStorage)
        contents = self.storage._shared.contents
        for key in keys:
            for table in (contents.lists, contents.sets, contents.hashes):
                table.pop(key, None)

    def told(self, caplog: pytest.LogCaptureFixture) -> str:
        """What its next beat says of the job's end."""
        with caplog.at_level(logging.INFO):
            self.heart.beat()
        assert self.task.lease_lost
        return caplog.messages[-1]


@pytest.fixture
def owner(jobs: JobQueue) -> Iterator[Owner]:
    owner = Owner(jobs)
    yield owner
    owner.storage.close()


def keys_of(queue: QueueKeys, *names: str) -> list[str]:
    return [f"{{{queue.scope}}}:{name}" for name in names]


GONE = "job work job-1: its claim is gone: something other than jobqueue removed or changed the keys of the job; "


@pytest.mark.parametrize(
    "names", [("records",), ("claims",), ("working",), ("records", "claims", "working", "requests")]
)
def test_keys_that_were_removed_are_not_taken_for_another_runner(
    owner: Owner, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    owner.clock.advance(milliseconds=BEAT)
    owner.remove(*keys_of(LOW, *names))
    if names == ("records",):
        # An extension needs no record; the claim stands, and it is told when the result is refused.
        owner.heart.beat()
        assert not owner.task.lease_lost
        return
    assert owner.told(caplog) == f"{GONE}what this run ends with will be refused"


def test_a_job_that_another_runner_has_is_told_as_such(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    owner.rescue()
    owner.take(b"other")
    assert "another runner saw it expired and took it; it runs a second time" in owner.told(caplog)


def test_a_job_that_another_runner_took_back_or_has_ended_is_told_as_such(
    owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    owner.rescue()
    words = (
        "job work job-1: its lease was lost, it had expired and another runner took the job back; it runs a second time"
    )
    assert owner.told(caplog).startswith(words)


def test_a_job_that_another_runner_has_ended_is_told_as_such(owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    owner.rescue()
    owner.storage.apply([transitions.finish(LOW, {b"job-1": owner.take(b"other")})])
    assert "another runner took the job back" in owner.told(caplog)


def test_why_a_claim_is_gone_may_be_unknown(
    owner: Owner, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(queries: Any, /) -> Any:
        raise NotApplied("away")

    owner.rescue()
    monkeypatch.setattr(owner.storage, "read", away)
    assert owner.told(caplog) == "job work job-1: its lease was lost; what this run ends with is discarded"
