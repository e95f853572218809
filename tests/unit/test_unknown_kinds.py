"""Jobs of a kind that a runner does not know: why they wait, what was meant, and a warning where nobody can know it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import Context, Job, JobQueue, UnknownElsewhere
from jobqueue.cli.app import run
from jobqueue.names import suggestion, unknown_kind
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.wrappers import Over
from tests.faults.ledger import await_that
from tests.runner.running import running
from tests.servers import Server

# ---------------------------------------------------------------------------------------------------- what was meant


@pytest.mark.parametrize("name", ["mail.send_email", "src.shop.mail.send_email", "__main__.send_email", "send_email"])
def test_a_kind_that_ends_alike_is_meant(name: str) -> None:
    known = ["shop.mail.send_mail", "shop.mail.send_email", "main.send_emails", "shop.web.mail"]
    assert suggestion(name, known) == "; did you mean 'shop.mail.send_email'?"


def test_the_more_alike_one_is_meant() -> None:
    known = ["shop.texts.send", "shop.mail.send", "mail.web.send"]
    assert suggestion("mail.send", known) == "; did you mean 'shop.mail.send'?"
    assert suggestion("shop.mail.sned", known) == "; did you mean 'shop.mail.send'?"
    assert suggestion("other", known) == ""
    assert suggestion("", []) == ""


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shop.mail.send_mail", "; did you mean 'shop.mail.send_email'?"),
        ("shop.mail.zzzzzzzzzzzzzzzz", ""),  # its module is imported, and declares it no more
        ("shop.pdf.Report", "; is the module that declares it, such as 'shop.pdf', named by imports=[…] or --import?"),
        ("shop.web.view.<locals>.f", "; it is declared inside of a function: only who has called that knows it"),
        ("parse", ""),
    ],
)
def test_what_is_missing_where_a_kind_is_unknown(name: str, hint: str) -> None:
    assert unknown_kind(name, ["shop.mail.send_email", "shop.mail.remind"]) == hint


@given(st.lists(st.text("ab.", max_size=6), max_size=5), st.text("ab.", max_size=6))
def test_what_is_meant_is_known(known: list[str], name: str) -> None:
    meant = suggestion(name, known)
    assert meant == "" or meant.removeprefix("; did you mean '").removesuffix("'?") in known
    ends = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    assert not ends or meant.removesuffix("'?").rpartition(".")[2].rpartition("'")[2] == name.rpartition(".")[2]


# -------------------------------------------------------------------------------------------------------- why it waits


@pytest.fixture
def producer(server: Server) -> Iterator[JobQueue]:
    """What enqueues: it has reached the module under another name."""
    with JobQueue(server.url, namespace="shop") as jobs:

        @jobs.job(name="mail.send")
        def send(to: str) -> None: ...

        yield jobs


@pytest.fixture
def other(server: Server) -> Iterator[JobQueue]:
    """What runs jobs."""
    with JobQueue(server.url, namespace="shop") as jobs:

        @jobs.job(name="shop.mail.send")
        def send(to: str) -> None: ...

        yield jobs


def call(jobs: JobQueue, name: str) -> Any:
    from jobqueue import Call

    kind = jobs.registry.get(name)
    assert kind is not None
    return Call(kind, {"to": "a"})


def test_the_log_the_list_and_the_record_say_why_a_job_waits(
    producer: JobQueue,
    other: JobQueue,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("shop_work", "shop_mail"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    record = producer.enqueue(call(producer, "mail.send"))
    assert record.parked_since is None
    with running(other) as runner:
        await_that(lambda: runner.status.parked, "it is put back")
    assert (
        f"job mail.send {record.id}: this runner does not know the kind; it is put back for one that does; "
        "did you mean 'shop.mail.send'?"
    ) in caplog.messages
    parked = producer.get(record.id)
    assert parked is not None
    assert parked.parked_since is not None
    since = parked.parked_since.strftime("%Y-%m-%d %H:%M:%SZ")

    where = ["--url", server.url, "--namespace", "shop"]
    assert run(["jobs", *where]) == 0
    assert f"unknown to its runners since {since}" in capsys.readouterr().out
    assert run(["show", record.id, *where]) == 0
    told = f"waits for a runner that knows its kind; it is unknown to its runners since {since}"
    assert told in " ".join(capsys.readouterr().out.split())
    work = 'from jobqueue import JobQueue\njobs = JobQueue(imports=["shop_mail", "no_such"])\n'
    (tmp_path / "shop_work.py").write_text(work)
    mail = "from shop_work import jobs\n@jobs.job(name='web.send')\ndef send() -> None: ...\n"
    (tmp_path / "shop_mail.py").write_text(mail)
    assert run(["show", "shop_work:jobs", record.id, "--app-dir", str(tmp_path), *where]) == 0
    assert f"{told}; did you mean 'web.send'?" in " ".join(capsys.readouterr().out.split())
    assert run(["show", record.id, "--json", *where]) == 0
    assert f'"parked_since": "{parked.parked_since.isoformat(timespec="milliseconds")}"' in capsys.readouterr().out

    with running(producer) as runner:
        producer.delete(record.id)
        again = producer.enqueue(call(producer, "mail.send"))
        await_that(lambda: runner.status.done, "it runs where it is known")
    assert producer.get(again.id) is None


# ------------------------------------------------------------------------------------------------ where nobody knows it


@pytest.fixture
def shared() -> JobQueue:
    """A queue on a storage that other processes might share."""
    return JobQueue(storage=Over(MemoryStorage()))


def program(monkeypatch: pytest.MonkeyPatch, file: str | None) -> None:
    """Let this be another program."""
    monkeypatch.setattr("__main__.__spec__", None)
    if file is None:
        monkeypatch.delattr("__main__.__file__", raising=False)
    else:
        monkeypatch.setattr("__main__.__file__", file, raising=False)


def declare(jobs: JobQueue, **options: Any) -> Any:
    def send(to: str) -> None: ...

    send.__module__, send.__qualname__ = "__main__", "send"
    return jobs.job(**options)(send)


def test_a_kind_of_a_session_is_warned_of_once(shared: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, None)
    send = declare(shared)
    with pytest.warns(UnknownElsewhere, match=r"no other process can run the jobs of '__main__\.send'") as caught:
        send.enqueue("a")
    assert [warning.filename for warning in caught] == [__file__], "the line that enqueues"
    send.enqueue("b")
    declare(shared).enqueue("c")  # the cell again
    shared.enqueue_many([send.call("d")])
    assert shared.length("low") == 4


async def test_a_coroutine_that_enqueues_is_warned_as_well(shared: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, None)
    with pytest.warns(UnknownElsewhere) as caught:
        await declare(shared).aenqueue("a")
    assert [warning.filename for warning in caught] == [__file__]


def test_a_class_of_a_session_is_warned_of(shared: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, None)

    @attrs.frozen
    class Resize(Job):
        width: int

        def perform(self, ctx: Context) -> None: ...

    Resize.__module__, Resize.__qualname__ = "__main__", "Resize"
    shared.register(Resize)
    with pytest.warns(UnknownElsewhere, match="__main__.Resize"):
        shared.enqueue_many([Resize(1)])


async def test_a_kind_inside_of_a_function_is_warned_of(shared: JobQueue) -> None:
    @shared.job
    def send(to: str) -> None: ...

    with pytest.warns(UnknownElsewhere, match="send': it is declared inside of a function") as caught:
        await send.aenqueue("a")
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @shared.job(name="told")
        def told() -> None: ...

        told.enqueue()
        send.enqueue("b")  # it has been said
        memory = JobQueue("memory://")
        memory.job(send.__wrapped__).enqueue("a")


def test_no_warning_where_another_process_may_know_it(shared: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(monkeypatch, "/srv/shop/mail.py")
        declare(shared).enqueue("a")
        program(monkeypatch, None)
        declare(shared, name="send").enqueue("a")
        with shared.testing():
            declare(shared).enqueue("a")
        declare(JobQueue("memory://")).enqueue("a")


@pytest.mark.parametrize("file", ["/srv/send-mails.py", "/usr/bin/sendmails", "/srv/shop/mail.txt", "/dev/fd/63"])
def test_a_program_whose_name_no_import_finds_is_warned_of(
    file: str, shared: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, file)
    with pytest.warns(UnknownElsewhere):
        declare(shared).enqueue("a")


PROGRAM = """
import multiprocessing
from jobqueue import JobQueue

jobs = JobQueue("memory://")


@jobs.job
def send() -> None: ...


def told(_: int) -> str:
    return f"{send.kind.name} {jobs.registry.private}"


if __name__ == "__main__":
    print(told(0))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(*pool.map(told, [0]))
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mail.py"], ["mail.send {}"] * 2),
        (["-m", "mail"], ["mail.send {}"] * 2),
    ],
)
def test_a_program_and_the_processes_of_its_pools_have_one_name(
    tmp_path: Path, arguments: list[str], told: list[str]
) -> None:
    (tmp_path / "mail.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == told


@pytest.mark.parametrize("argument", ["-", "folder"])
def test_a_program_that_has_no_name(tmp_path: Path, argument: str) -> None:
    source = PROGRAM.split("if __name__")[0] + "print(told(0))"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(source)
    done = subprocess.run(
        [sys.executable, argument], cwd=tmp_path, input=source, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "__main__.send {'__main__.send': True}"
