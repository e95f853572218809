"""Whatever something other than jobqueue writes into the keys: it is shown as it is, and can be operated on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from jobqueue import Call, JobQueue, StorageRefused
from jobqueue.cli.app import run
from jobqueue.record import Stored, encode, timestamp
from jobqueue.runner_info import read_beats
from tests.servers import Server

STRANGE = [b"", b"\xff\xfe", b"a b\n\x1b[2J", b"low/dead/5/x", b"a\\x41", b"-x", "\u202e".encode(), b"y" * 1000]
"""Ids that jobqueue does not make."""
SCORES = ["inf", "-inf", "1.5", "-3", "1e300"]
Q = "{shop:low}:"


@pytest.fixture
def jobs(server: Server) -> Iterator[JobQueue]:
    """A queue in the namespace ``shop`` with the kind ``send``."""
    with JobQueue(server.url, namespace="shop") as queue:

        @queue.job(name="send")
        def send(to: str) -> None: ...

        yield queue


def stored(jobs: JobQueue, server: Server, id: bytes) -> None:
    """A dead job with this id."""
    kind = jobs.registry.get("send")
    assert kind is not None
    record = jobs.enqueue(Call(kind, {"to": "a"}))
    with server.client() as client:
        client.hset(f"{Q}records", id, client.hget(f"{Q}records", record.id))
        client.hdel(f"{Q}records", record.id)
        client.lrem(f"{Q}ready", 0, record.id)
        client.zadd(f"{Q}dead", {id: 5})


def test_a_job_with_any_id_is_found_requeued_and_deleted(jobs: JobQueue, server: Server) -> None:
    for id in STRANGE:
        stored(jobs, server, id)
    found = jobs.dead()
    assert len({record.id for record in found}) == len(STRANGE)
    assert {record.id for record in jobs.scan(place="dead")} == {record.id for record in found}
    for record in found:
        assert record.id.isprintable()
        for named in (record, record.id):
            assert jobs.get(named) == record
        assert jobs.requeue(record.id).place == "ready"
        assert jobs.delete(record.id).id == record.id
    assert jobs.find() == []


def test_a_cursor_leads_on_behind_any_id(jobs: JobQueue, server: Server) -> None:
    for id in STRANGE:
        stored(jobs, server, id)
    found = jobs.dead()
    for position, record in enumerate(found):
        assert jobs.dead(after=record.cursor) == found[position + 1 :]
        assert jobs.dead(after=record) == found[position + 1 :]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("place", ["waiting", "dead"])
def test_a_job_with_any_score_is_shown_and_operated_on(place: str, score: str, jobs: JobQueue, server: Server) -> None:
    for id in (b"one", b"two", b"three"):
        stored(jobs, server, id)
    with server.client() as client:
        client.delete(f"{Q}dead")
        client.zadd(f"{Q}{place}", {"one": score, "two": score, "three": "7"})
    found = jobs.find()
    assert sorted(record.id for record in found) == ["one", "three", "two"]
    for position, record in enumerate(found):
        assert jobs.find(after=record.cursor) == found[position + 1 :]
    one = jobs.get("one")
    assert one is not None
    assert (one.place, float(one.score)) == (place, float(score))

    requeued = jobs.requeue(one)
    assert requeued.place == "ready"
    again = jobs.get("one")
    assert again is not None
    assert again.name == "send", "its record can still be read"
    assert jobs.delete("two").id == "two"


@pytest.mark.parametrize("score", SCORES)
def test_a_held_job_with_any_end_of_its_lease_is_shown(score: str, jobs: JobQueue, server: Server) -> None:
    stored(jobs, server, b"one")
    with server.client() as client:
        client.delete(f"{Q}dead")
        client.zadd(f"{Q}working", {"one": score})
    assert [record.id for record in jobs.find(place="working")] == ["one"]
    assert [record.id for record in jobs.scan()] == ["one"]
    assert jobs.audit().broken == 0


def test_times_beyond_the_calendar_are_cut_to_its_ends() -> None:
    for ms in (float("inf"), 10**400, 1e300):
        assert timestamp(ms) == datetime.max.replace(tzinfo=UTC)
    for ms in (float("-inf"), -(10**400)):
        assert timestamp(ms) == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize("field", ["schema", "epoch"])
def test_a_schema_or_epoch_that_is_too_long_is_refused(field: str, jobs: JobQueue, server: Server) -> None:
    jobs.counts()
    with server.client() as client, JobQueue(server.url, namespace="shop") as other:
        client.hset("{shop}:meta", field, "9" * 300_000)
        with pytest.raises(StorageRefused, match=r"schema and epoch of the key \{shop\}:meta cannot be read"):
            other.counts()
        client.hdel("{shop}:meta", field)
        assert other.counts() == {}


@pytest.mark.parametrize("schema", ["abc", "", "9" * 400, "9" * 5000, "-1", "1.0", "\x1b[2J\n"])
def test_a_schema_that_is_no_number_is_refused_in_one_line(schema: str, jobs: JobQueue, server: Server) -> None:
    jobs.counts()
    jobs.close()
    with server.client() as client:
        client.hset("{shop}:meta", "schema", schema)
    with pytest.raises(StorageRefused, match=r"field schema of the key \{shop\}:meta") as refused:
        jobs.counts()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500
    with pytest.raises(StorageRefused, match="field schema"):
        asyncio.run(jobs.acounts())
    with server.client() as client:
        client.hdel("{shop}:meta", "schema")
    assert jobs.counts() == {}


def test_an_epoch_that_was_removed_is_written_anew(jobs: JobQueue, server: Server) -> None:
    jobs.counts()
    jobs.close()
    with server.client() as client:
        client.hdel("{shop}:meta", "epoch")
        jobs.counts()
        assert client.hget("{shop}:meta", "epoch")
        client.hdel("{shop}:meta", "epoch")
        client.hset("{shop}:meta", "schema", "99")
        jobs.close()
        with pytest.raises(StorageRefused, match="newer version"):
            jobs.counts()
        assert client.hget("{shop}:meta", "epoch") is None, "nothing is written where a newer version is at home"


@pytest.mark.parametrize(
    "beat",
    [b"", b"\xff", b"[" * 100_000, b'{"host":"' + b"\xff" + b'"}', b"NaN", b"9" * 5000,
     json.dumps({"host": "h", "pid": 1, "started": 10**400, "seen": 1, "lease": 1, "queues": {}, "threads": 1,
                 "coroutines": 1, "version": "1"}).encode()],
)  # fmt: skip
def test_what_is_no_beat_is_passed_over(beat: bytes, jobs: JobQueue, server: Server) -> None:
    assert read_beats({b"abc": beat}) == {}
    with server.client() as client:
        client.hset("{shop}:runners", "abc", beat)
        client.zadd("{shop}:seen", {"abc": "inf"})
        client.zadd("{shop}:leases", {"9" * 5000: 1, "\xff": 1, "30000": "inf"})
    assert jobs.runners() == []


@pytest.mark.parametrize("field", ["until", "fence"])
@pytest.mark.parametrize("value", ["abc", "", "nan", "inf", "1e999", "9" * 400, "1.5", "\xff"])
def test_a_lock_with_a_broken_field_can_be_taken(field: str, value: str, jobs: JobQueue, server: Server) -> None:
    """Every lock ends: one whose end cannot be read has ended."""
    with server.client() as client:
        client.hset("{shop}:lock:nightly", mapping={"token": "t", "until": "1", "fence": "1", field: value})
    with jobs.lock("nightly", ttl=60) as lease:
        assert lease.fence > 0
        assert not jobs.lock("nightly", ttl=60).run(print)
        lease.extend(90)
    assert jobs.lock("nightly", ttl=60).run(bool)


@pytest.mark.parametrize("mark", [b"", b"done:", b"done:abc", b"done:" + b"9" * 5000, b"\xff", b"x y 5", b"9" * 400])
def test_a_search_for_queues_with_a_broken_mark_begins_again(mark: bytes, jobs: JobQueue, server: Server) -> None:
    stored(jobs, server, b"one")
    with server.client() as client:
        client.hset("{shop}:queues", mapping={":searched": mark, b"\xff/x": b"1", "a\nb": "1"})
        client.hdel("{shop}:queues", "low")
        client.hset("{shop:\xff}:records", "x", "y")
        client.set(b"{shop:x}:r\xff", "y")
        assert jobs.counts()["low"].dead == 1
        noted = client.hget("{shop}:queues", ":searched")
        assert isinstance(noted, bytes)
        assert noted.startswith(b"done:")


@pytest.mark.parametrize("key", ["records", "claims", "ready", "waiting", "working", "dead"])
def test_a_queue_with_a_key_of_another_type_hides_no_other(
    key: str, jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = jobs.registry.get("send")
    assert kind is not None
    kept, other = (jobs.enqueue(Call(kind, {"to": "a"}), queue=queue, delay=900) for queue in ("high", "mid"))
    jobs.enqueue(Call(kind, {"to": "a"}))
    with server.client() as client:
        client.delete(f"{Q}{key}")
        client.set(f"{Q}{key}", "\x1b[2J")
    where = ["--url", server.url, "--namespace", "shop"]
    if key not in ("records", "claims"):  # these are not counted
        assert run(["stats", *where]) == 3
        out, err = capsys.readouterr()
        assert [line.split() for line in out.splitlines() if line.startswith((" high", " low", " mid"))] == [
            ["high", "1", "0", "0", "0", "0"], ["low", "?", "?", "?", "?", "0"], ["mid", "1", "0", "0", "0", "0"]
        ]  # fmt: skip
        assert err.startswith("jobqueue: queue low: ")
        assert f"key {{shop:low}}:{key} holds a string" in err
        assert err.count("\n") == 1
        assert run(["stats", *where, "--json"]) == 3
        told = json.loads(capsys.readouterr().out)
        assert [*told["queues"]] == ["high", "mid"]
        assert [*told["refused"]] == ["low"]
    assert run(["jobs", *where, "--queue", "nobody"]) == 0
    if key != "ready":  # which is not asked
        assert jobs.get(kept.id) is not None
        assert jobs.requeue(kept.id).place == "ready"
        assert jobs.delete(kept.id).id == kept.id
        assert run(["show", *where, other.id]) == 0
        for operation in (jobs.get, jobs.requeue, jobs.delete):
            with pytest.raises(StorageRefused, match=f"key {{shop:low}}:{key} holds a string"):
                operation("nobody")  # it may be there


def test_where_all_queues_are_spoiled_stats_is_refused_in_one_line(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = jobs.registry.get("send")
    assert kind is not None
    for queue in ("high", "low"):
        jobs.enqueue(Call(kind, {"to": "a"}), queue=queue)
        with server.client() as client:
            client.set(f"{{shop:{queue}}}:working", "x")
    assert run(["stats", "--url", server.url, "--namespace", "shop"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jobqueue: ")
    assert err.count("\n") == 1


def test_a_job_with_a_megabyte_of_small_values_is_shown(
    jobs: JobQueue, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library that makes the tables takes minutes for so many lines, and indents what is nested deep a hundredfold."""
    payload = b'{"to":' + b"[" * 50 + b"0," * 300_000 + b"0" + b"]" * 50 + b"}"
    error = "boom\n" + "place  ready\n" * 20_000
    with server.client() as client:
        client.hset(f"{Q}records", "x", encode(b"12345678", Stored("send", payload, 0, 0, 0, 0, 0, error)))
        client.zadd(f"{Q}dead", {"x": 5})
    assert run(["show", "--url", server.url, "--namespace", "shop", "--queue", "low", "x"]) == 0
    out = capsys.readouterr().out
    assert len(out) < 3_000_000
    assert [line.split() for line in out.splitlines() if line.startswith("place")] == [["place", "dead"]]
    [arguments] = [line for line in out.splitlines() if line.startswith("arguments")]
    assert arguments.count("0") == 300_001
    assert "error        boom" in out
