"""What is typed, each as the user whose line is in `docs/how-to/deploy.md`, on a server that knows no script yet."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from jobqueue import JobQueue, JobRecord, OutcomeUnknown, Runner, StorageRefused
from jobqueue.cli.app import run
from tests.servers import Server, kinds, start_server

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/deploy.md"
ROLES: Final = dict(re.findall(r"^ACL SETUSER (\w+) on >secret (.+)$", PAGE.read_text(), re.MULTILINE))
SHOP: Final = """
from jobqueue import JobQueue, JobRecord, OutcomeUnknown, Runner, StorageRefused

jobs = JobQueue(namespace="shop")


@jobs.job(retry=0)
def ok(number: int) -> None:
    if number < 0:
        raise ValueError(number)
"""
As = Callable[..., Any]


@pytest.fixture(scope="module", params=kinds())
def secured(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = start_server(request.param)
    with server.client() as operator:
        for name, rules in ROLES.items():
            operator.execute_command("ACL", "SETUSER", name, "on", ">secret", *rules.split())
    yield server
    server.stop()


@pytest.fixture
def typed(
    secured: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[As]:
    """Run a command as a role; answers what it printed as JSON, or as text. Nobody has loaded a script before."""
    (tmp_path / "work_of_rights.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    with secured.client() as operator:
        operator.flushall()

        def command(role: str, *words: str, code: int = 0) -> Any:
            operator.script_flush()
            monkeypatch.delitem(sys.modules, "work_of_rights", raising=False)
            monkeypatch.setenv("JOBQUEUE_URL", f"unix://{role}:secret@{secured.socket}")
            capsys.readouterr()
            assert run(words) == code
            told = capsys.readouterr()
            if code:
                return told.err
            assert "refused" not in told.err, told.err
            return json.loads(told.out) if "--json" in words else told.out

        yield command
        monkeypatch.delitem(sys.modules, "work_of_rights", raising=False)


def test_enqueue_run_stats_and_audit(secured: Server, typed: As) -> None:
    looks = ("--namespace", "shop", "--json")
    producer = JobQueue(f"unix://producer:secret@{secured.socket}", namespace="shop")

    @producer.job(name="work_of_rights.ok", retry=0)
    def ok(number: int) -> None: ...

    failing = ok.enqueue(-1)
    ok.enqueue(2)
    ok.opts(delay=3600).enqueue(3)
    producer.enqueue_many([ok.call(4), ok.call(5)])
    producer.close()
    places = {"waiting": 1, "ready": 4, "working": 0, "dead": 0}
    assert typed("reader", "stats", *looks)["queues"]["low"] == places

    typed("runner", "run", "work_of_rights:jobs", "--burst", "--threads", "2")

    places = {"waiting": 1, "ready": 0, "working": 0, "dead": 1}
    assert typed("reader", "stats", *looks)["queues"]["low"] == places
    assert {one["place"] for one in typed("reader", "jobs", *looks)["jobs"]} == {"waiting", "dead"}
    assert typed("reader", "show", failing.id, *looks)["place"] == "dead"
    assert "2 jobs looked at, 0 broken" in typed("reader", "audit", "--namespace", "shop")
    typed("runner", "audit", "--mend", "--namespace", "shop")
    typed("runner", "requeue", failing.id, "--namespace", "shop")
    typed("runner", "delete", failing.id, "--namespace", "shop")

    assert typed("reader", "stats", *looks)["queues"]["low"] == {"waiting": 1, "ready": 0, "working": 0, "dead": 0}


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("reader", ("delete", "{id}", "--namespace", "shop")),
        ("reader", ("run", "work_of_rights:jobs", "--burst")),
        ("producer", ("run", "work_of_rights:jobs", "--burst")),
        ("reader", ("stats", "--namespace", "other")),
    ],
)
def test_nobody_may_do_more(secured: Server, typed: As, role: str, words: tuple[str, ...]) -> None:
    """And what is missing is named, in one line, before anything was changed."""
    producer = JobQueue(f"unix://producer:secret@{secured.socket}", namespace="shop")

    @producer.job(name="work_of_rights.ok", retry=0)
    def ok(number: int) -> None: ...

    record = ok.enqueue(1)
    producer.close()
    told = typed(role, *(word.format(id=record.id) for word in words), code=3)
    assert "nothing was changed" in told
    assert "ACL" in told or "+" in told
    looked = typed("reader", "stats", "--namespace", "shop", "--json")
    assert looked["queues"]["low"]["ready"] == 1


# ------------------------------------------------------------------------------------------------------ one right less


def restrict(operator: Any, role: str, lacking: str = "") -> None:
    """Give the user ``app`` the rights of the role from now on, all but one."""
    rules = [rule for rule in ROLES[role].split() if rule != lacking]
    operator.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rules)
    operator.script_flush()


def placed(operator: Any) -> list[bytes]:
    """The jobs of the queue ``low``: each has a record and is in one place."""
    jobs: list[bytes] = operator.lrange("{shop:low}:ready", 0, -1)
    for name in ("waiting", "working", "dead"):
        jobs += operator.zrange(f"{{shop:low}}:{name}", 0, -1)
    assert sorted(jobs) == sorted(operator.hkeys("{shop:low}:records"))
    return jobs


def names(error: StorageRefused, right: str) -> None:
    """The refusal is one line, which names this right and no other that the user has."""
    told = str(error)
    assert "\n" not in told
    assert "nothing was changed" in told
    assert {*re.findall(r"\+([a-z|]+)", told)} <= {right[1:]}, (right, told)
    assert ("~{shop" if right.startswith("~") else right[1:]) in told.replace("+", "").lower(), (right, told)


@pytest.mark.parametrize("new", [True, False], ids=["new", "used"])
async def test_a_producer_without_one_right_is_refused_or_stores(secured: Server, new: bool) -> None:
    """[F28] Never half: what a call says of its jobs is what became of them, whichever right is missing."""
    refused = set()
    with secured.client() as operator:
        for right in [rule for rule in ROLES["producer"].split() if rule[0] in "+~"]:
            operator.flushall()
            restrict(operator, "producer")
            async with JobQueue(f"unix://app:secret@{secured.socket}", namespace="shop") as producer:

                @producer.job(name="ok")
                def ok(number: int) -> None: ...

                if not new:
                    ok.enqueue(0)
                restrict(operator, "producer", right)
                stored = [] if new else placed(operator)
                left: list[JobRecord[Any]] = []
                for calls in ([ok.call(1)], [ok.opts(delay=60).call(2)], [ok.call(3), ok.opts(delay=60).call(4)]):
                    try:
                        stored += [record.id.encode() for record in await producer.aenqueue_many(calls)]
                        stored += [record.id.encode() for record in producer.enqueue_many(calls)]
                    except StorageRefused as error:
                        names(error, right)
                        refused.add(right)
                        left += error.records
                    assert sorted(placed(operator)) == sorted(stored)
                restrict(operator, "producer")
                producer.enqueue_records(left)
                assert sorted(placed(operator)) == sorted([*stored, *(record.id.encode() for record in left)])
    assert {"+rpush", "+zadd", "+hset", "+hmget", "+hexists", "+type", "+evalsha", "~{shop:*}:*"} <= refused
    assert "+eval" in refused, "the server knew no script"


def test_a_job_that_was_sent_before_needs_the_rights_to_be_looked_for(secured: Server) -> None:
    with secured.client() as operator:
        operator.flushall()
        restrict(operator, "producer")
        with JobQueue(f"unix://app:secret@{secured.socket}", namespace="shop") as producer:

            @producer.job(name="ok")
            def ok(number: int) -> None: ...

            records = [ok.enqueue(1), ok.opts(delay=60).enqueue(2)]
            assert producer.enqueue_records(records) == records
            operator.lrem("{shop:low}:ready", 1, records[0].id)
            with pytest.raises(OutcomeUnknown, match="none of the places") as caught:
                producer.enqueue_records(records)
            assert list(caught.value.records) == records[:1]
            restrict(operator, "producer", "+lpos")
            with pytest.raises(OutcomeUnknown, match=r"may not run LPOS on \S+; nothing was changed: add \+lpos "):
                producer.enqueue_records(records)


def test_a_runner_without_one_right_runs_all_or_is_refused_at_its_start(secured: Server) -> None:
    refused = set()
    ran: list[int] = []

    def stocked() -> JobQueue:
        jobs = JobQueue(f"unix://app:secret@{secured.socket}", namespace="shop")

        @jobs.job(name="ok")
        def ok(number: int) -> None:
            ran.append(number)

        jobs.enqueue_many([ok.call(number) for number in range(3)])
        return jobs

    with secured.client() as operator:
        for right in [rule for rule in ROLES["runner"].split() if rule[0] in "+~"]:
            operator.flushall()
            restrict(operator, "runner")
            ran.clear()
            jobs = stocked()
            jobs.close()
            restrict(operator, "runner", right)
            try:
                Runner(jobs, threads=1).run(until_empty=True, signals=False)
            except StorageRefused as error:
                names(error, right)
                refused.add(right)
                assert len(placed(operator)) == 3
                assert not ran
            else:
                assert sorted(ran) == [0, 1, 2]
                assert placed(operator) == []
            jobs.close()
    assert {"+blpop", "+zadd", "+hdel", "+rpush", "+lpush", "+evalsha", "~{shop}:*"} <= refused
