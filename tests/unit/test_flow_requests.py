"""What the flows ask for, one request after the other: how often, when, and with what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from jobqueue import (
    JobNotFound,
    JobQueue,
    JobRecord,
    NotApplied,
    OutcomeUnknown,
    StorageRefused,
    flows,
    lookup,
    meta,
    transitions,
)
from jobqueue.flows import Apply, Flow, Pause, Read, Refresh
from jobqueue.ids import Chance, SeededChance
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Absent, Applied, Batch, HashSet, Kept, Page, Put, Refused, claim_mark
from jobqueue.testing import FakeClock

KEYS = namespace_keys("test")
LOW = queue_keys("test", "low")
FAR = datetime(2100, 1, 1, tzinfo=UTC)
PAST = datetime(1970, 1, 1, tzinfo=UTC)


class Play:
    """Drives a flow over a storage in memory, and notes what it asks for.

    Attributes:
        asked: All requests.
        meanwhile: What somebody else does after the request of this number was answered.
        lost: How many of the next calls go without an answer; they are carried out.
    """

    def __init__(self, *, lost: int = 0) -> None:
        self.storage = MemoryStorage()
        self.asked: list[Any] = []
        self.lost = lost
        self.meanwhile: dict[int, Batch] = {}

    def __call__(self, flow: Flow[Any]) -> Any:
        answer: Any = None
        while True:
            try:
                request = flow.send(answer)
            except StopIteration as end:
                return end.value
            self.asked.append(request)
            answer = None
            if isinstance(request, Apply):
                answer = self.storage.apply(request.batches)
                if self.lost:
                    self.lost -= 1
                    answer = [OutcomeUnknown("no answer")] * len(answer)
            elif isinstance(request, Read):
                answer = self.storage.read(request.queries)
            other = self.meanwhile.pop(len(self.asked), None)
            if other is not None:
                self.storage.apply([other])

    @property
    def pauses(self) -> list[float]:
        return [one.seconds for one in self.asked if isinstance(one, Pause)]


def records_of(
    *delays: int, queue: str = "low", payload: bytes = b"{}", chance: Chance | None = None, seed: int = 1
) -> list[JobRecord]:
    """New jobs, one for each delay."""
    now = FakeClock().now()
    jobs = [(queue, Stored("kind", payload, 3, 0, 0, now, now + delay)) for delay in delays]
    return flows.new_records(jobs, now, chance or SeededChance(seed))


# --------------------------------------------------------------------------------------------------------------- sending


@pytest.mark.parametrize(("lost", "pauses"), [(0, []), (1, [0.05]), (2, [0.05, 0.2])])
def test_a_request_is_repeated_after_a_pause_and_only_while_it_is_unknown(lost: int, pauses: list[float]) -> None:
    play = Play(lost=lost)

    [outcome] = play(flows.send([Batch("test", (HashSet(KEYS.meta, {b"a": b"1"}),))]))

    assert not isinstance(outcome, OutcomeUnknown)
    assert play.pauses == pauses
    assert len([one for one in play.asked if isinstance(one, Apply)]) == lost + 1


def test_after_the_last_repetition_it_stays_unknown() -> None:
    play = Play(lost=3)

    [outcome] = play(flows.send([Batch("test", (HashSet(KEYS.meta, {b"a": b"1"}),))]))

    assert isinstance(outcome, OutcomeUnknown)
    assert play.pauses == [0.05, 0.2]


def test_a_guard_that_fails_is_no_lack_of_room() -> None:
    """A repetition that is refused for another reason is an answer."""
    play = Play(lost=1)
    keys = queue_keys("test", "low")
    guards = (Absent(keys.counters, b"a"), Absent(keys.counters, b"b"))
    batch = Batch(
        keys.scope, (HashSet(keys.counters, {b"b": b"1"}), Put(keys.ready, {b"id": b"nonce--1"}, most=5)), guards
    )

    assert play(flows.send([batch])) == [Refused((1,))]


@pytest.mark.parametrize("newer", [1, 2, 98])
def test_any_newer_schema_is_refused_and_the_present_one_is_not(newer: int) -> None:
    play = Play()
    epoch = play(meta.prepare(KEYS, SeededChance(1)))
    assert play(meta.prepare(KEYS, SeededChance(2))) == epoch, "made once"

    play.storage.apply([Batch("test", (HashSet(KEYS.meta, {b"schema": b"%d" % (transitions.SCHEMA + newer)}),))])

    with pytest.raises(StorageRefused, match=f"schema {transitions.SCHEMA + newer}, this version"):
        play(meta.prepare(KEYS, SeededChance(1)))


# --------------------------------------------------------------------------------------------------------------- records


def test_the_time_is_asked_for_where_one_is_to_be_kept_and_only_if_it_is_old() -> None:
    play = Play()

    assert play(flows.time_to_keep(FakeClock())) == FakeClock().now()

    assert play.asked == [Refresh(60_000)]


@pytest.mark.parametrize(
    ("options", "asked"), [({"delay": 5}, True), ({"at": FAR}, True), ({"at": PAST}, True), ({}, False)]
)
def test_who_enqueues_asks_for_the_time_where_one_is_to_be_kept(options: Any, asked: bool) -> None:
    jobs = JobQueue("memory://")
    calls = [jobs.job(name="kind")(lambda: None).call()]
    flow = jobs._enqueue([*calls, calls[0].opts(**options)])

    assert (next(flow) == Refresh(60_000)) is bool(options)


def test_a_time_is_told_although_it_cannot_be_asked_for() -> None:
    """Storing will fail as well, and then there are records to send again."""
    flow = flows.time_to_keep(FakeClock())
    assert next(flow) == Refresh(60_000)

    with pytest.raises(StopIteration) as end:
        flow.throw(NotApplied("nobody is there"))

    assert end.value.value == FakeClock().now()


def test_when_jobs_are_due_and_where_they_go() -> None:
    now = FakeClock().now()

    made = records_of(0, 1, -1, -now)

    assert [record.place for record in made] == ["ready", "waiting", "ready", "ready"]
    assert [record.score for record in made] == [0, now + 1, 0, 0]
    assert [record.stored.due for record in made] == [now, now + 1, now - 1, 0]
    assert made[-1].due == datetime(1970, 1, 1, tzinfo=UTC)
    assert {record.stored.created for record in made} == {now}


class Counting(SeededChance):
    """Chance whose bytes can be told apart."""

    def entropies(self, count: int, size: int) -> list[bytes]:
        return [bytes(range(start, start + size)) for start in range(0, count * size, size)]


def test_a_nonce_is_other_chance_than_the_id_of_its_job() -> None:
    [one, other] = records_of(0, 0, chance=Counting(0))

    assert one.nonce == bytes(range(10, 18))
    assert other.nonce == bytes(range(28, 36))
    assert one.id < other.id


# --------------------------------------------------------------------------------------------------------------- storing


def test_a_record_is_stored_with_all_that_it_says() -> None:
    """Also one that has a past: ``enqueue_records`` takes any."""
    play = Play()
    [made] = records_of(7, payload=b'{"a":1}')
    stored = msgspec.structs.replace(made.stored, attempt=2, recoveries=1, error="it failed")
    past = msgspec.structs.replace(made, stored=stored)

    play(flows.store("test", [past], FakeClock()))

    [[found, kept]] = [play(lookup.locate([LOW], made.id.encode(), 1_000))]
    assert found is LOW
    ms = FakeClock().now()
    assert stored == Stored("kind", b'{"a":1}', 3, 2, 1, ms, ms + 7, "it failed")
    assert kept == Kept(encode(made.nonce, stored), "waiting", ms + 7, None)


def test_what_is_stored_in_one_call() -> None:
    """A part of every queue, of no more jobs than a script should take; a queue is registered once, before anything else."""
    play = Play()
    made = records_of(*[0] * 1001) + records_of(0, queue="high", seed=3)

    play(flows.store("test", made, FakeClock()))
    play(flows.store("test", records_of(1, seed=2), FakeClock()))

    calls = [one.batches for one in play.asked if isinstance(one, Apply)]
    puts = [
        [(batch.scope, len(op.records)) for batch in batches for op in batch.ops if isinstance(op, Put)]
        for batches in calls
    ]
    assert [call for call in puts if call] == [
        [("test:low", 500), ("test:high", 1)], [("test:low", 500)], [("test:low", 1)], [("test:low", 1)],
    ]  # fmt: skip
    assert [bool(call) for call in puts] == [True, False, False, True, True, True], (
        "entered and marked behind the first"
    )
    assert all(batch.ops for batches in calls for batch in batches), "a batch of nothing is sent by nobody"
    registered = [batch.ops for batches in calls for batch in batches if batch.scope == "test"]
    assert len(registered) == 2


def test_only_what_belongs_to_another_job_was_not_stored() -> None:
    play = Play()
    first, second, third, late = records_of(0, 0, 0, 9)
    play(flows.store("test", [first, late], FakeClock()))
    play(flows.store("test", [msgspec.structs.replace(second, nonce=b"another!")], FakeClock()))

    with pytest.raises(StorageRefused, match="holds another job with this id") as caught:
        play(flows.store("test", [first, second, second, third, late], FakeClock()))

    assert list(caught.value.records) == [second, second]
    assert list(caught.value.stored) == [first, third, late]


def test_a_queue_whose_registration_is_unknown_is_registered_again() -> None:
    play = Play(lost=3)
    made = records_of(0)
    with pytest.raises(OutcomeUnknown) as caught:
        play(flows.store("test", made, FakeClock()))

    play(flows.store("test", caught.value.records, FakeClock()))

    assert play(lookup.queues(namespace_keys("test"), FakeClock().now())) == ["low"]


def test_the_cause_of_an_error_is_the_error_of_the_storage() -> None:
    play = Play(lost=3)
    with pytest.raises(OutcomeUnknown, match="no answer") as caught:
        play(flows.store("test", records_of(0), FakeClock()))
    assert type(caught.value.__cause__) is OutcomeUnknown
    assert str(caught.value.__cause__) == "no answer"


# ---------------------------------------------------------------------------------------------------------------- looking


def test_names_in_the_registry_are_sorted_and_what_is_no_name_is_passed_over() -> None:
    assert lookup.queue_names([b"low", b"a:b", b"\xff", b"", b"high", b"x" * 65, b"{a}"]) == ["high", "low"]


def _filled(play: Play, count: int, delay: int = 0) -> list[JobRecord]:
    made = records_of(*[delay] * count)
    play(flows.store("test", made, FakeClock()))
    play.asked.clear()
    return made


@pytest.mark.parametrize("options", [{}, {"delay": 9}])
def test_a_page_on_which_a_record_is_missing_is_not_the_last(options: dict[str, int]) -> None:
    play = Play()
    made = _filled(play, lookup.PAGE + 2, **options)
    del play.storage._shared.contents.hashes["{test:low}:records"][made[7].id.encode()]

    found = play(lookup.find([LOW], lookup.PLACES_IN_ORDER, None, 999, None))

    assert [record.id for record in found] == [record.id for record in made if record is not made[7]]


def test_pages_end_where_nothing_is_left() -> None:
    play = Play()
    made = _filled(play, lookup.PAGE)

    found = play(lookup.find([LOW], ("ready",), None, 999, None))

    assert [record.id for record in found] == [record.id for record in made]
    assert len(play.asked) == 3, "a page, its records, and a page that is empty"


def test_a_job_that_moves_on_between_a_page_and_its_records_is_found_once() -> None:
    play = Play()
    first, second = _filled(play, 2)
    play.meanwhile[1] = transitions.claim(LOW, b"r", 1, limit=1, now=5, lease=5, beat=5)

    found = play(lookup.find([LOW], ("ready", "working"), None, 999, None))

    assert [(record.id, record.place) for record in found] == [(second.id, "ready"), (first.id, "working")]


@pytest.mark.parametrize("options", [{}, {"delay": 9}])
def test_it_goes_on_behind_a_job_and_in_the_places_behind_its_own(options: dict[str, int]) -> None:
    play = Play()
    claimed, *others = _filled(play, lookup.PAGE + 3)
    play.storage.apply([transitions.claim(LOW, b"r", 1, limit=1, now=5, lease=5, beat=5)])
    made = others
    if options:
        made = records_of(*[9] * (lookup.PAGE + 2), seed=2)
        play(flows.store("test", made, FakeClock()))
    for at in (0, lookup.PAGE - 1, lookup.PAGE, len(made) - 1):
        found = play(lookup.find([LOW], lookup.PLACES_IN_ORDER, None, 9_999, made[at].id))
        assert [record.id for record in found] == [record.id for record in made[at + 1 :]], at
    assert claimed.id not in {record.id for record in found}
    assert [record.id for record in play(lookup.find([LOW], ("ready",), None, 2, others[0].id))] == [
        record.id for record in others[1:3]
    ]


def test_behind_a_job_that_leaves_while_its_list_is_walked_comes_the_head() -> None:
    play = Play()
    first, second = _filled(play, 2)
    play.meanwhile[1] = transitions.claim(LOW, b"r", 1, limit=1, now=5, lease=5, beat=5)

    assert [record.id for record in play(lookup.find([LOW], ("ready",), None, 999, first.id))] == [second.id]


def test_a_job_elsewhere_than_asked_for_is_no_place_to_go_on_from() -> None:
    play = Play()
    first, _ = _filled(play, 2)

    with pytest.raises(JobNotFound, match=f"no job {first.id} to continue behind"):
        play(lookup.find([LOW], ("working", "dead"), None, 999, first.id))


# --------------------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize("operate", [lookup.requeue, lookup.delete])
@pytest.mark.parametrize("options", [{}, {"delay": 9}])
def test_what_somebody_else_deleted_just_before_was_done_by_nobody_here(operate: Any, options: dict[str, int]) -> None:
    play = Play()
    [made] = _filled(play, 1, **options)
    id = made.id.encode()
    if not options:  # requeue leaves what is ready, so it is to be dead
        play.storage.apply([transitions.claim(LOW, b"r", 1, limit=1, now=5, lease=5, beat=5)])
        held = {id: claim_mark(b"r", 5, 5)}
        play.storage.apply([transitions.move_out("bury", LOW, held, {}, {id: 7})])
    place, score = (LOW.waiting, FakeClock().now() + 9) if options else (LOW.dead, 7)
    assert len(play.storage.read([Page(place, 9)])[0]) == 1  # type: ignore[arg-type]
    play.meanwhile[1] = transitions.delete(place, [id], {id: score})

    with pytest.raises(JobNotFound, match=made.id):
        play(operate([LOW], made.id.encode()))


@pytest.mark.parametrize("operate", [lookup.requeue, lookup.delete])
def test_what_may_have_been_done_by_a_request_without_an_answer_is_answered_as_done(operate: Any) -> None:
    play = Play()
    [made] = _filled(play, 1, delay=9)
    play.lost = 1

    done = play(operate([LOW], made.id.encode()))

    assert done.id == made.id
    assert play(lookup.locate([LOW], made.id.encode())) is None or operate is lookup.requeue


@pytest.mark.parametrize("operate", [lookup.requeue, lookup.delete])
def test_a_move_that_is_refused_says_so(operate: Any) -> None:
    play = Play()
    [made] = _filled(play, 1, delay=9)
    flow = operate([LOW], made.id.encode())
    looked = play.storage.read(next(flow).queries)
    assert isinstance(flow.send(looked), Apply)

    with pytest.raises(NotApplied, match="read only"):
        flow.send([NotApplied("read only")])


# -------------------------------------------------------------------------------------------------- the start of a runner


def test_a_queue_that_passes_decides_over_one_that_does_not() -> None:
    """One queue is spoiled and the node of the other is away: it is worth waiting."""
    flow = flows.rehearse(KEYS, [LOW, queue_keys("test", "high")])
    next(flow)
    flow.send([Applied(())])
    with pytest.raises(NotApplied, match="away") as caught:
        flow.send([StorageRefused("spoiled"), NotApplied("away")])
    assert caught.value.passes
