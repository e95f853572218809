"""From a URL to a storage: what cannot be opened is refused when the JobQueue is made, not in the middle of the night."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobqueue import DeclarationError, JobQueue


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
