"""From a URL to a storage: what cannot be opened is refused when the JobQueue is made, not in the middle of the night."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import DeclarationError, JobQueue
from jobqueue.backend import embedded_folder, open_backend


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("embedded://data", "absolute path"),
        ("embedded://./data", "absolute path"),
        ("embedded://", "absolute path"),
        ("embedded:///", "absolute path"),
        ("localhost:6379", "must begin with one of redis://"),
        ("amqp://localhost", "must begin with one of redis://"),
        ("", "must begin with one of redis://"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str, advice: str) -> None:
    with pytest.raises(DeclarationError, match=advice):
        JobQueue(url)


URLS = (
    "memory://", "embedded://{folder}/shop", "redis://127.0.0.1:{port}", "rediss://127.0.0.1:{port}/2", "unix://{folder}/s",
    "redis+sentinel://127.0.0.1:{port}/shop", "redis+cluster://127.0.0.1:{port}",
)  # fmt: skip
OPENED = """
import os, sys
events = []
def note(event, args):
    outside = ("socket.", "subprocess.", "os.mkdir", "os.fork", "os.posix_spawn")
    if event.startswith(outside) or (event == "open" and args[1] not in ("r", "rb", None)):
        events.append(event)
import jobqueue
sys.addaudithook(note)
jobs = jobqueue.JobQueue(sys.argv[1])
print(len(events), os.listdir(sys.argv[2]), sorted({"redis", "jobqueue.embedded"} & sys.modules.keys()), *events)
try:
    jobs.counts()
except jobqueue.StorageError:
    pass
print(len(events))
jobs.close()
"""


@pytest.mark.parametrize("url", URLS)
def test_nothing_is_opened_before_the_first_use(url: str, tmp_path: Path) -> None:
    """In a process of its own: the hook that sees sockets, processes and files cannot be taken out again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen, so whoever connects is refused
        named = url.format(folder=tmp_path, port=nobody.getsockname()[1])
        words = [sys.executable, "-c", OPENED, named, str(tmp_path)]
        told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    before, after = told.splitlines()
    assert before == "0 [] []", "something was opened, made or imported"
    if url != "memory://":
        assert int(after) > 0, "the hook sees nothing, so it proves nothing"


PASSWORD = "s3cret"


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("embedded:///srv/what?", "%3F"),
        ("embedded:///srv/a#1", "%23"),
        ("embedded:///srv/a?x=1", "no settings"),
        ("embedded:///srv/a%00b", "control character"),
        ("embedded:///srv/a%0ab", "control character"),
        (f"embedded://me:{PASSWORD}@/srv/a", "absolute path"),
        ("embedded://:1/srv/a", "absolute path"),
        ("memory://x", "nothing behind it"),
        ("memory:///x", "nothing behind it"),
        ("memory://?x=1", "nothing behind it"),
        ("memory://#x", "%23"),
        (f"memory://me:{PASSWORD}@", "nothing behind it"),
        (f"redis://me:{PASSWORD}@h/0#x", "%23"),
        (f"redis://me:{PASSWORD}#x@h/0", "%23"),
        (f"redis://me:{PASSWORD}@h/shop", "number of a database"),
        (f"redis://me:{PASSWORD}@h/0/1", "number of a database"),
        (f"redis://me:{PASSWORD}@a,b/0", "names one server"),
        (f"redis://me:{PASSWORD}@h:port", "no number from 1 to 65535"),
        (f"redis://me:{PASSWORD}@h/0?db=3", "is its path"),
        (f"redis://me:{PASSWORD}@h/0?socket_timeout=", "no value"),
        (f"redis://me:{PASSWORD}@h/0?socket_timeout=1&socket_timeout=2", "twice"),
        (f"redis://me:{PASSWORD}@h/0?protocol=3", "RESP2"),
        (f"redis://me:{PASSWORD}@h/0?retry_on_timeout=yes", "never sent twice|ever sent twice"),
        (f"redis://me:{PASSWORD}@h/0?health_check_interval=3", "before each use"),
        (f"unix://me:{PASSWORD}@host/run/s", "path of a socket"),
        (f"unix://me:{PASSWORD}@", "path of a socket"),
        ("unix:///run/s#1", "%23"),
        (f"redis+sentinel://me:{PASSWORD}@a,b:1/", "name of the service"),
        (f"redis+sentinel://me:{PASSWORD}@a,b:1/shop/x", "number of a database"),
        (f"redis+sentinel://me:{PASSWORD}@a,b:1/shop/0/1", "number of a database"),
        (f"redis+sentinel://me:{PASSWORD}@a,b:x/shop", "no number from 1 to 65535"),
        (f"redis+cluster://me:{PASSWORD}@a/1", "only the database 0"),
        (f"redis+cluster://me:{PASSWORD}@a/shop", "only the database 0"),
        (f"rediss://me:{PASSWORD}@[::1/0", "cannot be read"),
        (f"redis://me:{PASSWORD}@h\u2100/0", "cannot be read"),
        (f"amqp://me:{PASSWORD}@h", "must begin with"),
    ],
)
def test_no_part_of_a_url_is_dropped_silently(url: str, advice: str) -> None:
    """One line that says what to write instead, without the password; said when the JobQueue is made."""
    with pytest.raises(DeclarationError, match=advice) as caught:
        JobQueue(url)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("embedded:///srv/a%23b", "/srv/a#b"),
        ("embedded:///srv/what%3F", "/srv/what?"),
        ("embedded:///srv/100%25", "/srv/100%"),
        ("embedded:///srv/with space/ä", "/srv/with space/ä"),
        ("embedded:///srv/%E4", "/srv/\udce4"),
    ],
)
def test_a_folder_may_have_any_name(url: str, folder: str) -> None:
    JobQueue(url)
    assert str(embedded_folder(url)) == folder


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:p%23w@h:1/2?socket_timeout=3", "redis://h/", "rediss://[::1]:7/1?ssl_min_version=772", "unix://me:pw@/s?db=2",
        "redis+sentinel://a,b:1/shop", "redis+sentinel://me:pw@a:1,b/shop/3", "rediss+cluster://a:1,b:2/0", "redis+cluster://a",
    ],
)  # fmt: skip
def test_urls_that_say_what_they_mean(url: str) -> None:
    open_backend(url).close()


def test_no_url_names_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQUEUE_URL", raising=False)
    with pytest.raises(DeclarationError, match="JOBQUEUE_URL"):
        JobQueue().counts()
    monkeypatch.setenv("JOBQUEUE_URL", "memory://")
    assert JobQueue().counts() == {}


def test_only_one_place_is_taken() -> None:
    from jobqueue.testing import MemoryStorage

    with pytest.raises(DeclarationError, match="only one"):
        JobQueue("memory://", storage=MemoryStorage())
