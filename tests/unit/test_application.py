"""Two applications in one namespace are told, once, in one line; one alone, or two that agree, are not."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from jobqueue import DeclarationError, JobQueue, Runner
from jobqueue.application import application_name, users
from jobqueue.cli.app import run
from tests.servers import Server


def enqueue(app: str | None, server: Server, login: str = "") -> None:
    """What a process of the application does, twice."""
    with JobQueue(f"unix://{login}{server.socket}", namespace="shop", app=app) as jobs:

        @jobs.job(name="ok")
        def ok() -> None: ...

        ok.enqueue()
        ok.enqueue()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if "was the last to use it" in record.getMessage()]
    caplog.clear()
    assert not any("\n" in line for line in found)
    return found


def test_two_applications_are_told_once_each_and_one_is_not(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """[S11]"""
    enqueue("shop", server)
    enqueue("shop", server)
    assert warnings(caplog) == []
    enqueue("blog", server)
    [told] = warnings(caplog)
    assert told.startswith("namespace 'shop': this is application 'blog', and 'shop' was the last to use it. ")
    assert "namespace=" in told
    assert "app=" in told
    enqueue("blog", server)
    assert warnings(caplog) == [], "an application with a new name is told once"
    enqueue("shop", server)
    assert len(warnings(caplog)) == 1


async def test_what_only_looks_is_no_user_and_a_runner_is(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    enqueue("shop", server)
    async with JobQueue(server.url, namespace="shop", app="looker") as jobs:
        await jobs.acounts()
        found = await jobs.access.arun(users(jobs.access.keys))
        assert found is not None
        assert (found.name, found.before) == ("shop", None)
    assert warnings(caplog) == []
    jobs = JobQueue(server.url, namespace="shop", app="blog")

    @jobs.job(name="ok")
    def ok() -> None: ...

    async with Runner(jobs, threads=1).background():
        pass
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("app", [None, "blog"])
def test_stats_says_who_uses_a_namespace(app: str | None, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("stats", "--url", f"unix://{server.socket}", "--namespace", "shop")
    enqueue("shop", server)
    assert run(words) == 0
    told = capsys.readouterr().out
    assert "namespace shop, application shop\n" in told
    assert "before" not in told
    enqueue(app, server)
    server.client().hset("{shop}:meta", "app_before", b"\x1b[2J\n'x'")
    assert run(words) == 0
    told = capsys.readouterr().out
    assert f"application '{app or 'tests'}' uses this namespace, before it " in told
    assert "\x1b" not in told
    assert run((*words, "--json")) == 0
    assert f'"name": "{app or "tests"}"' in capsys.readouterr().out


def test_one_that_may_not_say_its_name_is_told_all_the_same(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    enqueue("shop", server)
    enqueue("shop", server)
    with server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "app", "on", ">pw", "+@all", "-hset", "~*")
        operator.hset("{shop}:meta", "app", "a" * 5_000)
        operator.hset("{shop}:meta", "app_since", "9" * 400)
    enqueue("blog", server, "app:pw@")
    [told] = warnings(caplog)
    assert len(told) < 1_000
    enqueue("blog", server, "app:pw@")
    assert len(warnings(caplog)) == 1, "nothing was written"


def test_an_application_is_called_as_others_import_it(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "work.py").write_text("from jobqueue import JobQueue\njobs = JobQueue('memory://')\n")
    assert runpy.run_path(str(tmp_path / "shop" / "work.py"), run_name="shop.work")["jobs"].app == "shop"
    assert JobQueue("memory://").app == "tests"
    assert application_name(None, {}) is None
    assert application_name(None, {"__name__": "no name"}) is None
    assert application_name("blog", {"__name__": "shop.work"}) == "blog"
    with pytest.raises(DeclarationError, match="'my shop' is no name of an application"):
        JobQueue(app="my shop")
