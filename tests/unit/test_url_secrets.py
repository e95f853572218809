"""A password in a URL: it reaches the server letter by letter, or an error says what to write and shows no part of it."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue import DeclarationError, JobQueue, JobQueueError, StorageError
from jobqueue.backend import RedisBackend, embedded_folder, named_url, open_backend
from jobqueue.storage.redis import open_redis
from jobqueue.storage.url import Url, redacted, without_secrets
from tests.conftest import MakeServer

CANARY: Final = "sEcReT"
SPECIAL: Final = "[]#?/@%: &=+,;'\"\\!$~*()|<>^`{}.-_\n\t\x00ä℀\ud800"
URLS: Final = (
    "redis://{login}@h:7/2", "rediss://{login}@h:7/2", "unix://{login}@/run/s", "redis+sentinel://{login}@h:7,i/shop/2",
    "rediss+sentinel://{login}@h:7/shop", "redis+cluster://{login}@h:7,i:8", "rediss+cluster://{login}@h:7/0",
    "redis://{login}@[::1]:7/2", "embedded://{login}@/srv/shop", "memory://{login}@",
)  # fmt: skip
LABELS: Final = {
    "redis://h:7/2", "rediss://h:7/2", "unix:///run/s", "redis+sentinel://h:7,i:26379/shop/2", "rediss+sentinel://h:7/shop",
    "redis+cluster://h:7,i:8", "rediss+cluster://h:7", "redis://[::1]:7/2",
}  # fmt: skip

# The canary stands in several pieces, so that a part of the password shows as well.
passwords = st.lists(st.sampled_from([*SPECIAL, CANARY, "7", "0", "%41", "%ff"]), max_size=6).map(
    lambda pieces: "".join([CANARY, *pieces, CANARY])
)


def chain(error: BaseException) -> Iterator[BaseException]:
    while True:
        yield error
        following = error.__cause__ or error.__context__
        if following is None:
            return
        error = following


def checked(error: BaseException) -> str:
    """The text of an error that shows nothing, nor does what it carries along."""
    assert isinstance(error, DeclarationError), repr(error)
    for one in chain(error):
        assert CANARY.lower() not in f"{one} {one!r} {one.__dict__!r}".lower()
    frames = traceback.format_exception(error)
    assert CANARY.lower() not in "".join(line for line in frames if not line.lstrip().startswith("File")).lower()
    assert "\n" not in str(error)
    return str(error)


def settings_of(backend: object) -> dict[str, Any]:
    assert isinstance(backend, RedisBackend)
    return dict(backend._server._place.settings)


@given(st.sampled_from(URLS), passwords, st.sampled_from(["me", ""]))
@example("redis://{login}@h:7/2", f"{CANARY}[1", "me")
@example("redis://{login}@h:7/2", f"[::1]{CANARY}", "me")
@example("redis://{login}@h:7/2", f"7/{CANARY}", "me")
@example("redis://{login}@h:7/2", f"7?db=1/{CANARY}", "")
@example("redis://{login}@h:7/2", f"x@7/{CANARY}", "")
@example("unix://{login}@/run/s", f"x@/{CANARY}", "")
@example("redis://{login}@h:7/2", f"a+b {CANARY}", "")
def test_a_raw_password_arrives_or_is_refused(url: str, password: str, user: str) -> None:
    whole = url.format(login=f"{user}:{password}")
    try:
        JobQueue(whole)
    except DeclarationError as error:
        told = checked(error)
        if url.startswith("redis"):
            assert "%2F" in told or "line break" in told or "UTF-8" in told
        for opener in (open_redis, open_backend, named_url):
            with pytest.raises(DeclarationError) as caught:
                opener(whole)
            checked(caught.value)
        assert CANARY not in redacted(whole)
        return
    backend = open_backend(whole)
    settings = settings_of(backend)
    if "%" not in password:
        assert settings["password"] == password
        assert settings.get("username", "") == user
    assert backend.url in LABELS
    assert redacted(whole) == backend.url
    backend.close()


@given(st.sampled_from(URLS[:8]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_an_encoded_password_always_arrives(url: str, password: str) -> None:
    backend = open_backend(url.format(login=f"me:{quote(password, safe='')}"))
    assert settings_of(backend)["password"] == password
    assert backend.url in LABELS
    backend.close()
    backend = open_backend(f"redis://h:7/2?password={quote(password, safe='')}")
    assert settings_of(backend)["password"] == password
    backend.close()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://h/0?password=a&{CANARY}", f"redis://h/0?password=a&{CANARY}=1", f"redis://h/0?pass={CANARY}",
        f"redis://h/0?password=a+{CANARY}", f"redis://h/0?password=a%{CANARY}", f"redis://me:x@h/0?password={CANARY}",
        f"redis://h/0?socket_timeout={CANARY}", f"redis://h/{CANARY}", f"redis://h/0;password={CANARY}", f"redis://h:{CANARY}",
        f"redis://h/0?a={CANARY}&a={CANARY}", f"redis+cluster://h/{CANARY}", f"redis+sentinel://h/shop/{CANARY}",
        f"rediss://h/0?ssl_cert_reqs={CANARY}", f"rediss://h/0?ssl_min_version={CANARY}", f"redis://h/0?db={CANARY}",
        f"unix:///s?db={CANARY}", f"redis://h/0?ssl_password={CANARY}", f"redis://h/0?decode_responses=yes&password={CANARY}",
        f"{CANARY}@redis://h", f"redis//me:{CANARY}@h", f"redis:/me:{CANARY}@h", f"{CANARY}:me@h:1", f"me:{CANARY}://x@h",
        f"http://me:{CANARY}@h", CANARY, f"redis://me:x@{CANARY}@h/0/{CANARY}", f"redis://[{CANARY}]:1/0", f" redis://:{CANARY}@h",
    ],
)  # fmt: skip
def test_no_other_part_of_a_url_is_repeated_either(url: str) -> None:
    """What is wrong may be the password, wherever it stands."""
    with pytest.raises(DeclarationError) as caught:
        open_backend(url)
    checked(caught.value)
    assert CANARY not in redacted(url)


@pytest.mark.parametrize("url", [f"redis://:{CANARY}@h".encode(), Path(CANARY), {"password": CANARY}])
def test_what_is_no_string_is_not_repeated(url: Any) -> None:
    with pytest.raises(DeclarationError, match="is a string") as caught:
        JobQueue(url)
    checked(caught.value)


def test_a_misspelt_setting_is_answered_with_the_right_one() -> None:
    with pytest.raises(DeclarationError, match="did you mean 'socket_keepalive'"):
        open_backend("redis://h/0?socket_keepaliv=1")
    with pytest.raises(DeclarationError, match=r"write JobQueue\(url, namespace=…\)"):
        JobQueue("redis://h?namespace=shop").access.opened()


RAW: Final = (
    f"redis://me:{CANARY}[x@h:1/0",
    f"redis://me:{CANARY}/x@h:1/0",
    f"redis://me:{CANARY}#x@h",
    f"redis://me:7/{CANARY}@h",
)


@pytest.mark.parametrize("url", RAW)
@pytest.mark.parametrize(
    ("how", "command"),
    [
        *[(how, words) for how in ("--url", "JOBQUEUE_URL") for words in ("stats", "jobs", "audit", "run place:jobs")],
        ("--url", "demo"),  # which does not look at the environment
    ],
)
def test_the_command_line_says_one_line(
    url: str,
    how: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from jobqueue.cli.app import run

    (tmp_path / "place.py").write_text(
        "from jobqueue import JobQueue\njobs = JobQueue()\n@jobs.job\ndef ok() -> None: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "place", raising=False)
    monkeypatch.setenv("JOBQUEUE_URL", url if how != "--url" else "memory://")

    code = run([*command.split(), *(("--url", url) if how == "--url" else ())])

    told = capsys.readouterr()
    assert code == 2
    assert told.err.count("\n") == 1, told.err
    assert "%2F" in told.err
    assert CANARY not in told.out + told.err


def test_a_target_that_declares_such_a_url_shows_no_line_of_it(tmp_path: Path) -> None:
    (tmp_path / "place.py").write_text(f'from jobqueue import JobQueue\njobs = JobQueue("{RAW[1]}")\n')
    words = [sys.executable, "-m", "jobqueue", "run", "place:jobs"]
    ended = subprocess.run(
        words, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert CANARY not in ended.stdout + ended.stderr
    assert "%2F" in ended.stderr
    assert "place.py:2: " in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.filterwarnings("ignore:Pickle, copy, and deepcopy support will be removed from itertools")
def test_nothing_that_is_printed_of_a_queue_shows_its_password(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    jobs = JobQueue(f"redis://me:{CANARY}@127.0.0.1:1/0")
    backend = open_backend(f"redis://me:{CANARY}@127.0.0.1:1/0")
    shown = [repr(jobs), str(jobs), repr(backend), repr(vars(backend)), backend.url]
    for thing in (jobs, backend):
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as refused:
            pickle.dumps(thing)
        shown.append(f"{refused.value} {refused.value!r}")
    with pytest.raises(Exception, match="cannot be reached") as caught:
        jobs.counts()
    shown += [f"{one} {one!r}" for one in chain(caught.value)]
    assert CANARY not in " ".join(shown) + caplog.text
    backend.close()
    jobs.close()


def test_the_environment_is_checked_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBQUEUE_URL", RAW[0])
    with pytest.raises(DeclarationError) as caught:
        named_url(None)
    checked(caught.value)
    assert embedded_folder(RAW[0]) is None


# ------------------------------------------------------------------------------------------------ wherever one may be shown

WRONG: Final = (
    f"redis://me:{CANARY}@127.0.0.1:1/0", f"redis://{CANARY}:@127.0.0.1:1", f"redis://127.0.0.1:1?username={CANARY}&password={CANARY}",
    f"redis+sentinel://me:{CANARY}@127.0.0.1:1/shop?sentinel_username={CANARY}&sentinel_password={CANARY}",
    f"redis+sentinel://me:x@a:1,me:{CANARY}@b:1/shop", f"redis+cluster://me:{CANARY}@127.0.0.1:1", f"redis+cluster://u:{CANARY}@h:1,i",
    f"rediss://me:%73{CANARY}@127.0.0.1:1?ssl_cert_reqs=none", f"rediss://h?ssl_certfile=/no&ssl_password={CANARY}",
    f"rediss://h?ssl_ca_certs={CANARY}", f"rediss://h?ssl_ca_data={CANARY}", f"rediss://h?ssl_ciphers={CANARY}",
    f"unix://me:{CANARY}@/no/such/socket", f"embedded://me:{CANARY}@/srv/shop", f"embedded://{CANARY}", f"embedded:///s?password={CANARY}",
    f"memory://{CANARY}@", f"redis://h?timeout={CANARY}", f"redis://h?max_connections={CANARY}", f"redis://h?allow_unverified_tls={CANARY}",
    f"redis://h?ssl_{CANARY}=1", f"rediss://h?ssl_{CANARY}=1", f"redis://me:a{CANARY}/b@h", f"mysql://me:{CANARY}@h",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG)))
@pytest.mark.parametrize("by", ["argument", "environment", "relocated", "client's twin"])
def test_no_traceback_shows_a_secret_not_even_with_its_variables(
    number: int, by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What collects errors, and `pytest --showlocals`, prints the variables of every frame."""
    caplog.set_level(logging.DEBUG)

    def use() -> None:
        if by == "relocated":
            jobs = JobQueue("memory://", timeout=0.1)
            jobs.relocate(url=WRONG[number])
        elif by == "environment":
            monkeypatch.setenv("JOBQUEUE_URL", WRONG[number])
            jobs = JobQueue(timeout=0.1)
        else:
            jobs = JobQueue(WRONG[number], timeout=0.1)
        assert CANARY not in repr(vars(jobs))
        try:
            jobs.counts() if by == "argument" else asyncio.run(jobs.acounts())
        finally:
            jobs.close()

    with pytest.raises(JobQueueError) as caught:
        use()
    frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    # What is left is what the caller has typed, and the frame that looks at the names of its arguments.
    lines = [line for line in "".join(frames.format()).splitlines() if not line.lstrip().startswith("args = ")]
    assert CANARY not in "\n".join(lines)
    assert CANARY not in caplog.text
    assert CANARY not in repr(Url(WRONG[number]))


@pytest.mark.parametrize(
    "url", ["redis://me:{}@{}", "redis+sentinel://{1}/shop?sentinel_username=me&sentinel_password={0}"]
)
def test_a_server_without_logins_repeats_a_password_to_nobody(url: str, own_server: MakeServer) -> None:
    """Its answer to a command that it does not know holds what was sent."""
    server = own_server(port=True, args=["--rename-command", "AUTH", ""])
    with JobQueue(url.format(CANARY, f"127.0.0.1:{server.port}")) as jobs:
        for use in (jobs.counts, lambda: asyncio.run(jobs.acounts())):
            with pytest.raises(StorageError, match="unknown command 'AUTH'") as caught:
                use()
            frames = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            assert CANARY not in "".join(frames.format())


@pytest.mark.parametrize(
    "words",
    [
        "stats redis://me:{}@h", "stats place:jobs redis://me:{}@h", "run redis://me:{}@h", "show redis://me:{}@h 1",
        "requeue place:jobs redis://me:{}@h", "delete redis://h?password={}", "jobs --place redis://me:{}@h",
        "jobs --queue redis://me:{}@h --url memory://", "stats --namespace redis://me:{}@h --url memory://",
        "demo redis://me:{}@h", "audit --jsn=redis://me:{}@h", "run place:jobs --queues redis://me:{}@h",
        "run place:jobs --import redis://me:{}@h", "run place:jobs --app-dir redis://me:{}@h", "redis://me:{}@h",
        "stats --url-file redis://me:{}@h", "run place:jobs --url-file redis://h?password={}", "demo --url-file redis://me:{}@h",
        "run place:jobs --queues redis://h?password={}", "stats --namespace redis://me:a'{}@h", "demo redis://me:a\"{}@h",
        "run place:jobs --import redis://me:'\"\\{}@h", "jobs --limit rediss+sentinel://h/s?sentinel_password=x'{}",
    ],
)  # fmt: skip
def test_a_url_in_the_wrong_place_of_a_command_line_is_not_repeated(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobqueue.cli.app import run

    (tmp_path / "place.py").write_text("from jobqueue import JobQueue\njobs = JobQueue('redis://127.0.0.1:1')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "place", raising=False)
    code = run(words.format(CANARY).split())
    told = capsys.readouterr()
    assert code == 2, told.err
    assert CANARY not in told.out + told.err


def test_a_module_that_fails_shows_no_url_of_its_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobqueue.cli.app import run

    line = f"jobs = JobQueue('redis://me:{CANARY} x@h/0', nmespace='shop')"
    (tmp_path / "failing.py").write_text(f"from jobqueue import JobQueue\n{line}\n")
    monkeypatch.chdir(tmp_path)
    assert run(["stats", "failing:jobs"]) == 2
    told = capsys.readouterr()
    assert "nmespace" in told.err
    assert "redis://h:6379" in told.err
    assert CANARY not in told.out + told.err


def test_a_runner_neither_stores_nor_logs_the_login_of_its_server(
    own_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from jobqueue.cli.app import run

    server = own_server()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "me", "on", f">{CANARY}", "~*", "&*", "+@all")
        monkeypatch.setenv("JOBQUEUE_URL", f"unix://me:{CANARY}@{server.socket}")
        (tmp_path / "working.py").write_text(
            "from jobqueue import JobQueue\njobs = JobQueue()\n@jobs.job\ndef ok() -> None: ...\nok.enqueue()\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.delitem(sys.modules, "working", raising=False)
        for words in ("run working:jobs --burst --log-level debug", "stats --json", "jobs --json", "audit", "stats"):
            assert run(words.split()) == 0
        told = capfd.readouterr()
        stored: list[Any] = [client.dump(key) for key in client.keys("*")]
    assert f"unix://{server.socket}" in told.out + told.err
    assert CANARY not in told.out + told.err
    assert stored
    assert not any(CANARY.encode() in value or b"unix:" in value for value in stored)


@pytest.mark.parametrize(
    "text", ["x" * 2_000_000, "a://" * 500_000, "'a://" * 400_000, "a://b " * 300_000], ids=range(4)
)
def test_a_secret_is_found_in_a_text_of_megabytes(text: str) -> None:
    """A search that looked at each character once for every other would not end within the timeout of the suite."""
    assert "Cy9pGbe" not in without_secrets(f"{text} redis://u:Cy9pGbe@h/0")
