"""Enqueueing when calls fail: what returned is stored, what did not says so, and sending again stores each once."""

from __future__ import annotations

import msgspec
import pytest

from jobqueue import NotApplied, OutcomeUnknown, StorageRefused, transitions
from jobqueue.errors import StorageError
from jobqueue.keys import namespace_keys
from jobqueue.looking import Counts
from jobqueue.record import JobRecord
from jobqueue.safe_text import id_bytes
from jobqueue.storage.ops import Batch, HashSet, Put, claim_mark
from jobqueue.testing import Fault
from tests.unit.queue_bench import Bench

LOST = (Fault.REQUEST_LOST,) * 3


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.jobs.counts()  # prepares the namespace
    made.work.opts(queue="low").enqueue(-1)  # registers the queues
    made.work.opts(queue="high").enqueue(-1)
    for record in made.jobs.find():
        made.jobs.delete(record.id)
    made.calls.clear()
    return made


def ids(records: object) -> list[str]:
    return [record.id for record in records]  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- certain outcomes


def test_returning_means_stored(bench: Bench) -> None:
    record = bench.work.enqueue(1)
    assert bench.jobs.get(record.id) == record
    assert (record.place, record.attempt, record.retry, record.queue) == ("ready", 0, 3, "low")


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.SENT_TWICE])
@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_call_is_made_again_and_stores_once(bench: Bench, fault: Fault, times: int) -> None:
    bench.fail(*[fault] * times)
    record = bench.work.enqueue(1)
    assert ids(bench.jobs.find()) == [record.id]
    assert len(bench.calls) == (1 if fault is Fault.SENT_TWICE else times + 1)


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST])
async def test_a_lost_call_of_an_async_caller(bench: Bench, fault: Fault) -> None:
    bench.fail(fault)
    record = await bench.work.aenqueue(1)
    assert ids(await bench.jobs.afind()) == [record.id]


def test_a_refusal_is_not_repeated_and_stores_nothing(bench: Bench) -> None:
    bench.fail(Fault.REFUSED)
    with pytest.raises(NotApplied, match="not stored") as caught:
        bench.work.enqueue(1)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert len(bench.calls) == 1
    assert bench.jobs.find() == []
    [record] = caught.value.records
    assert caught.value.stored == ()
    assert bench.jobs.enqueue_records([record]) == [record]
    assert ids(bench.jobs.find()) == [record.id]


@pytest.mark.parametrize("how", ["refused", "unknown", "not prepared"])
@pytest.mark.parametrize("count", [1, 2])
async def test_an_error_names_the_job_and_carries_its_record(how: str, count: int) -> None:
    """Whatever went wrong, for threads and for coroutines."""
    bench = Bench()
    if how != "not prepared":
        bench.work.enqueue(0)
    faults = {"refused": [Fault.REFUSED], "unknown": [Fault.REPLY_LOST] * 3, "not prepared": [Fault.REFUSED]}[how]
    expected = OutcomeUnknown if how == "unknown" else NotApplied
    caught: list[StorageError] = []
    bench.fail(*faults, scope="test" if how == "not prepared" else "test:low")
    with pytest.raises(expected) as failed:
        bench.jobs.enqueue_many(bench.many(count))
    caught.append(failed.value)
    bench.fail(*faults, scope="test" if how == "not prepared" else "test:low")
    with pytest.raises(expected) as failed:
        await bench.jobs.aenqueue_many(bench.many(count))
    caught.append(failed.value)
    for error in caught:
        assert len(error.records) == count
        assert f"work {error.records[0].id}" in str(error)
        assert ("and 1 more" in str(error)) is (count == 2)


# ------------------------------------------------------------------------------------------------------ unknown outcomes


@pytest.mark.parametrize("arrived", [True, False])
def test_an_unknown_outcome_says_so_and_is_settled_by_the_same_records(bench: Bench, arrived: bool) -> None:
    bench.fail(*(Fault.REPLY_LOST if arrived else Fault.REQUEST_LOST,) * 3)
    with pytest.raises(OutcomeUnknown, match="enqueue_records") as caught:
        bench.work.enqueue(1)
    assert len(bench.jobs.find()) == arrived
    assert len(caught.value.records) == 1

    bench.jobs.enqueue_records(caught.value.records)
    bench.jobs.enqueue_records(caught.value.records)

    assert ids(bench.jobs.find()) == ids(caught.value.records)


def test_once_unknown_stays_unknown_though_the_storage_then_refuses(bench: Bench) -> None:
    """The first sending may still arrive."""
    bench.fail(Fault.STALLED, Fault.REFUSED, Fault.REFUSED)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.work.enqueue(1)
    bench.storage.deliver()
    assert ids(bench.jobs.find()) == ids(caught.value.records)


def test_a_first_sending_that_arrives_last_stores_nothing_twice(bench: Bench) -> None:
    bench.fail(Fault.STALLED)
    record = bench.work.enqueue(1)
    bench.storage.deliver()
    assert ids(bench.jobs.find()) == [record.id]


def test_sent_again_after_it_has_ended_it_is_stored_again(bench: Bench) -> None:
    """The documented exception: nobody remembers what has ended."""
    bench.fail(*(Fault.REPLY_LOST,) * 3)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.work.enqueue(1)
    moved = bench.claim()
    claims = {moved.ids[0]: claim_mark(b"runner", moved.fence, 5_000)}
    bench.memory.apply([transitions.finish(bench.keys(), claims)])
    bench.jobs.enqueue_records(caught.value.records)
    assert len(bench.jobs.find()) == 1


@pytest.mark.parametrize("place", ["ready", "waiting", "working", "dead"])
def test_sending_again_does_not_disturb_a_job_wherever_it_is(bench: Bench, place: str) -> None:
    record = bench.work.opts(delay=60 if place == "waiting" else 0).enqueue(1)
    if place == "working":
        bench.claim()
    elif place == "dead":
        bench.bury(record.id)
    before = bench.memory.dump()
    assert bench.jobs.enqueue_records([record]) == [record]
    assert bench.memory.dump() == before


@pytest.mark.parametrize("place", ["ready", "waiting"])
@pytest.mark.parametrize("count", [1, 25])
def test_a_record_without_a_place_does_not_count_as_stored(bench: Bench, place: str, count: int) -> None:
    """[F28] What a torn step left behind: nothing would ever run it, so who sends it again is told."""
    delay = 60 if place == "waiting" else 0
    records = bench.jobs.enqueue_many(bench.many(count, delay=delay) + bench.many(3))
    lost = records[count // 2]
    contents = bench.memory._shared.contents
    if place == "waiting":
        contents.set_remove(bench.keys().waiting.full, [lost.id.encode()])
    else:
        contents.lists[bench.keys().ready.full].remove(lost.id.encode())
    before = bench.memory.dump()

    with pytest.raises(OutcomeUnknown, match=r"none of the places.*jobqueue audit --mend") as caught:
        bench.jobs.enqueue_records(records)

    assert ids(caught.value.records) == [lost.id]
    assert ids(caught.value.stored) == [record.id for record in records if record is not lost]
    assert bench.memory.dump() == before


@pytest.mark.parametrize("id", ["\\xff", "a\\\\b"])
def test_nor_does_one_whose_id_has_another_form_as_text(bench: Bench, id: str) -> None:
    record = msgspec.structs.replace(bench.work.enqueue(1), id=id)
    bench.jobs.enqueue_records([record])
    bench.memory._shared.contents.lists[bench.keys().ready.full].remove(id_bytes(id))

    with pytest.raises(OutcomeUnknown, match="none of the places") as caught:
        bench.jobs.enqueue_records([record])

    assert ids(caught.value.records) == [id]


def test_two_texts_of_one_id_are_one_job(bench: Bench) -> None:
    record = bench.work.enqueue(1)
    twice = [msgspec.structs.replace(record, id=id) for id in ("A", "\\x41")]
    bench.jobs.enqueue_records(twice)
    assert ids(bench.jobs.enqueue_records(twice)) == ids(twice)
    assert ids(bench.jobs.find(place="ready")) == [record.id, "A"]


def test_sent_again_into_a_long_queue_it_is_found(bench: Bench) -> None:
    """Behind and before more jobs than are looked at without a search, and while others are stored and taken."""
    records = bench.jobs.enqueue_many(bench.many(1_200))
    bench.meddle = lambda: bench.claim(2)
    some = [records[0], records[1], records[3], *records[600:612], records[-1]]

    assert bench.jobs.enqueue_records(some) == some


def test_where_nobody_can_look_an_old_record_is_not_counted_as_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    record = bench.work.enqueue(1)

    def read(_queries: object) -> None:
        raise StorageRefused("the user of this connection may not run LPOS")

    monkeypatch.setattr(bench.storage, "read", read)
    with pytest.raises(OutcomeUnknown, match="whether it is in a place could not be seen") as caught:
        bench.jobs.enqueue_records([record])
    assert ids(caught.value.records) == [record.id]


# --------------------------------------------------------------------------------------------------------------- many


def test_many_travel_in_one_call(bench: Bench) -> None:
    records = bench.jobs.enqueue_many(bench.many(300) + bench.many(200, delay=9) + bench.many(3, queue="high"))
    assert [scope for scope, _ in bench.calls] == ["test:low", "test:high"], "one call, two scopes"
    assert all(len(batches) == 1 for _, batches in bench.calls)
    assert bench.jobs.counts() == {
        "low": Counts(waiting=200, ready=300, working=0, dead=0), "high": Counts(waiting=0, ready=3, working=0, dead=0),
    }  # fmt: skip
    assert len(set(ids(records))) == 503
    assert ids(records) == sorted(ids(records)), "what a dead runner held comes back in the order of ids"
    assert ids(bench.jobs.find(queue="low", place="ready", limit=999)) == ids(records[:300]), "in their order"


def test_no_jobs(bench: Bench) -> None:
    assert bench.jobs.enqueue_many([]) == []
    assert bench.jobs.enqueue_records([]) == []
    assert bench.calls == []


def test_beyond_500_in_chunks_in_order(bench: Bench) -> None:
    records = bench.jobs.enqueue_many(bench.many(1_203))
    assert [len(_put(batches)) for _, batches in bench.calls] == [500, 500, 203]
    assert ids(bench.jobs.find(queue="low", limit=9_999)) == ids(records)


def _put(batches: tuple[object, ...]) -> dict[bytes, bytes]:
    [op] = batches[0].ops  # type: ignore[attr-defined]
    assert isinstance(op, Put)
    return dict(op.records)


@pytest.mark.parametrize(
    ("faults", "error", "stored"),
    [
        ([Fault.OK, Fault.REFUSED], NotApplied, 500),
        ([Fault.OK, *LOST], OutcomeUnknown, 500),
        ([Fault.OK, *[Fault.REPLY_LOST] * 3], OutcomeUnknown, 500),
        ([Fault.OK, Fault.OK, Fault.REFUSED], NotApplied, 1_000),
    ],
)
def test_what_follows_a_chunk_that_failed_is_not_sent(
    bench: Bench, faults: list[Fault], error: type[StorageError], stored: int
) -> None:
    bench.fail(*faults)
    with pytest.raises(error) as caught:
        bench.jobs.enqueue_many(bench.many(1_203))
    assert type(caught.value) is error
    assert len(caught.value.stored) == stored
    assert len(caught.value.stored) + len(caught.value.records) == 1_203
    assert not set(ids(caught.value.stored)) & set(ids(caught.value.records))

    bench.jobs.enqueue_records(caught.value.records)

    everything = [*caught.value.stored, *caught.value.records]
    assert ids(bench.jobs.find(queue="low", limit=9_999)) == ids(everything), "each once, and in order"


def test_queues_end_each_alone(bench: Bench) -> None:
    bench.fail(Fault.REFUSED, scope="test:high")
    calls = [bench.work.opts(queue=queue).call(number) for number in range(4) for queue in ("low", "high")]
    with pytest.raises(NotApplied) as caught:
        bench.jobs.enqueue_many(calls)
    assert {record.queue for record in caught.value.stored} == {"low"}
    assert {record.queue for record in caught.value.records} == {"high"}
    assert bench.jobs.counts()["low"].ready == 4


@pytest.mark.parametrize("other", [Fault.OK, Fault.REFUSED, Fault.REQUEST_LOST])
def test_unknown_outweighs_refused(bench: Bench, other: Fault) -> None:
    bench.fail(*LOST, scope="test:low")
    bench.fail(*[other] * 3, scope="test:high")
    with pytest.raises(OutcomeUnknown) as caught:
        bench.jobs.enqueue_many(bench.many(2) + bench.many(2, queue="high"))
    assert len(caught.value.records) == (2 if other is Fault.OK else 4)


# ----------------------------------------------------------------------------------------------------- an id that is taken


def other_job(record: JobRecord[None]) -> JobRecord[None]:
    stored = msgspec.structs.replace(record.stored, payload=b'{"number":9}')
    return msgspec.structs.replace(record, nonce=b"another!", stored=stored)


def test_an_id_that_belongs_to_another_job_is_an_error_and_changes_nothing(bench: Bench) -> None:
    record = bench.work.enqueue(1)
    before = bench.memory.dump()
    with pytest.raises(StorageRefused, match="another job") as caught:
        bench.jobs.enqueue_records([other_job(record)])
    assert bench.memory.dump() == before
    assert ids(caught.value.records) == [record.id]
    assert caught.value.stored == ()


def test_it_hides_nothing_of_the_rest(bench: Bench) -> None:
    """The others of its chunk are stored, other queues too; later chunks are not sent, and named."""
    taken = bench.work.enqueue(1)
    fresh = bench.jobs.enqueue_many(bench.many(700) + bench.many(2, queue="high"))
    for record in fresh:
        bench.jobs.delete(record.id, queue=record.queue)
    records = [*fresh[:3], other_job(taken), *fresh[3:]]

    with pytest.raises(StorageRefused) as caught:
        bench.jobs.enqueue_records(records)

    assert len(caught.value.stored) == 499 + 2
    assert len(caught.value.records) == 1 + 201
    assert taken.id in ids(caught.value.records)
    assert ids(bench.jobs.find(queue="low", limit=9_999)) == [
        taken.id, *(record.id for record in caught.value.stored if record.queue == "low"),
    ]  # fmt: skip


def test_an_unknown_outcome_is_said_although_an_id_is_taken(bench: Bench) -> None:
    taken = bench.work.enqueue(1)
    [other] = bench.jobs.enqueue_many(bench.many(1, queue="high"))
    bench.jobs.delete(other.id)
    bench.fail(*LOST, scope="test:high")
    with pytest.raises(OutcomeUnknown) as caught:
        bench.jobs.enqueue_records([other_job(taken), other])
    assert set(ids(caught.value.records)) == {taken.id, other.id}


# ----------------------------------------------------------------------------------------------------------- registering


def registrations(bench: Bench) -> int:
    return sum(
        isinstance(op, HashSet) and op.hash.name == "queues"
        for _, batches in bench.calls for batch in batches for op in batch.ops
    )  # fmt: skip


def test_a_queue_is_registered_by_its_first_job_alone() -> None:
    """Whoever enqueues: the queue's own scope says that it was done, and each later job is one call."""
    bench = Bench()
    bench.work.enqueue(1)
    bench.open()
    bench.jobs.counts()
    bench.calls.clear()
    bench.work.enqueue(2)
    bench.work.enqueue(3)
    assert [scope for scope, _ in bench.calls] == ["test:low", "test:low"]
    assert registrations(bench) == 0
    assert list(bench.jobs.counts()) == ["low"]


@pytest.mark.parametrize("lost", ["all", "the queue's node", "the registry's node"])
def test_what_one_process_registered_does_not_survive_a_loss_of_data(lost: str) -> None:
    """In a cluster the node of the namespace and the node of the queue lose it separately."""
    bench = Bench()
    tenant = bench.work.opts(queue="tenant7")
    tenant.enqueue(1)
    contents = bench.memory._shared.contents
    for name in [*contents.hashes]:
        if lost == "all" or (name.startswith("{test:") is (lost == "the queue's node")):
            del contents.hashes[name]
    if lost != "the registry's node":
        contents.lists.clear()
    record = tenant.enqueue(2)
    assert bench.jobs.get(record.id) == record
    assert bench.jobs.counts()["tenant7"].ready == (2 if lost == "the registry's node" else 1)


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.REQUEST_LOST, Fault.REPLY_LOST])
def test_no_job_is_acknowledged_before_its_queue_is_registered(fault: Fault) -> None:
    bench = Bench()
    bench.jobs.counts()
    bench.fail(*[fault] * 3, scope="test")
    with pytest.raises(
        OutcomeUnknown, match=r"work .* may or may not have been stored: queue 'low' may not be in"
    ) as caught:
        bench.work.enqueue(1)
    [record] = caught.value.records
    assert record.id in str(caught.value)
    bench.faults.clear()
    assert bench.jobs.enqueue_records(caught.value.records) == [record]
    assert registrations(bench) >= 2, "the same job again registers its queue, though it is stored already"
    assert bench.jobs.counts()["low"].ready == 1


def test_a_mark_that_was_not_written_costs_a_registration_more() -> None:
    bench = Bench()
    bench.fail(Fault.OK, Fault.REFUSED)
    bench.work.enqueue(1)
    assert registrations(bench) == 1
    bench.work.enqueue(2)
    bench.work.enqueue(3)
    assert registrations(bench) == 2


def test_jobs_of_several_queues_are_registered_together() -> None:
    bench = Bench()
    bench.jobs.counts()
    bench.calls.clear()
    bench.jobs.enqueue_many([bench.work.opts(queue=f"q{number}").call(1) for number in range(3)])
    assert [scope for scope, _ in bench.calls] == [
        "test:q0",
        "test:q1",
        "test:q2",
        "test",
        "test:q0",
        "test:q1",
        "test:q2",
    ]
    assert [*bench.jobs.counts()] == ["q0", "q1", "q2"]


def test_the_namespace_is_prepared_once() -> None:
    bench = Bench()
    for number in range(3):
        bench.work.enqueue(number)
    metas = [op for _, batches in bench.calls for batch in batches for op in batch.ops if "meta" in str(op)]
    assert len(metas) == 1


async def test_the_namespace_is_prepared_once_async() -> None:
    bench = Bench()
    for number in range(3):
        await bench.work.aenqueue(number)
    metas = [op for _, batches in bench.calls for batch in batches for op in batch.ops if "meta" in str(op)]
    assert len(metas) == 1


def test_a_newer_schema_is_refused_before_anything_is_written() -> None:
    bench = Bench()
    meta = namespace_keys("test").meta
    bench.memory.apply([Batch("test", (HashSet(meta, {b"schema": b"99", b"epoch": b"e"}),))])
    before = bench.memory.dump()
    for call in (lambda: bench.work.enqueue(1), bench.jobs.counts, lambda: bench.jobs.find(limit=1)):
        with pytest.raises(StorageRefused, match=r"newer version.*99.*upgrade"):
            call()
    assert bench.memory.dump() == before


def test_two_processes_prepare_at_the_same_time() -> None:
    first, second = Bench(), Bench()
    second.storage = type(second.storage)(first.memory, second._plan)
    second.memory = first.memory
    second.open()
    first.meddle = lambda: second.jobs.counts()
    first.work.enqueue(1)
    assert first.jobs.access.opened().epoch == second.jobs.access.opened().epoch is not None
