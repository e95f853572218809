"""From a URL to a storage: what cannot be opened is refused when the JobQueue is made, not in the middle of the night."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    "url", ["memory://", "embedded:///var/lib/shop", "redis://localhost", "rediss://h:1/2", "unix:///s"]
)
def test_nothing_is_opened_before_the_first_use(url: str) -> None:
    JobQueue(url).close()


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
