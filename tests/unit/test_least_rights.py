"""What is typed, each as the user whose line is in `docs/how-to/deploy.md`, on a server that knows no script yet."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from jobqueue import JobQueue
from jobqueue.cli.app import run
from tests.servers import Server, kinds, start_server

PAGE: Final = Path(__file__).parents[2] / "docs/how-to/deploy.md"
ROLES: Final = dict(re.findall(r"^ACL SETUSER (\w+) on >secret (.+)$", PAGE.read_text(), re.MULTILINE))
SHOP: Final = """
from jobqueue import JobQueue

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
