from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from images import files, pgm
from images.steps import publish, receive, shrink
from jobqueue import Call
from jobqueue.testing import Testing, check_job

PICTURE = pgm.encode([bytes(range(200)) * 4] * 10)  # 800 × 10


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "ROOT", tmp_path)
    (tmp_path / "cat.pgm").write_bytes(PICTURE)
    return tmp_path


def test_each_step_enqueues_the_next(jobqueue: Testing, folder: Path) -> None:
    receive.enqueue("cat.pgm")
    jobqueue.run_one()
    for width in (320, 64):
        jobqueue.assert_enqueued(shrink, name="cat.pgm", width=width)
    jobqueue.run_one()
    jobqueue.assert_enqueued(publish, name="cat.pgm")


def test_the_whole_pipeline(jobqueue: Testing, folder: Path) -> None:
    receive.enqueue("cat.pgm")
    assert jobqueue.drain() == {"done": 5}  # one, two, two
    assert len(pgm.decode((folder / "320-cat.pgm").read_bytes())[0]) == 267  # every third point
    assert "64-cat.pgm 64w, 320-cat.pgm 320w" in (folder / "cat.pgm.html").read_text()
    assert not list(folder.glob("*.part"))


def test_nothing_is_published_before_all_widths_are_there(jobqueue: Testing, folder: Path) -> None:
    shrink.enqueue("cat.pgm", 64)
    assert jobqueue.drain() == {"done": 2}
    assert not (folder / "cat.pgm.html").exists()


def test_an_upload_that_comes_late(jobqueue: Testing, folder: Path) -> None:
    receive.enqueue("dog.pgm")
    with pytest.raises(FileNotFoundError):
        jobqueue.drain()
    (folder / "dog.pgm").write_bytes(PICTURE)
    assert jobqueue.run_until_idle() == {"done": 5}


@pytest.mark.parametrize("data", [b"GIF89a...", PICTURE[:-1], b"P5 0 0 255\n"])
def test_an_upload_that_is_no_picture_is_given_up_at_once(data: bytes, jobqueue: Testing, folder: Path) -> None:
    (folder / "cat.pgm").write_bytes(data)
    receive.enqueue("cat.pgm")
    assert jobqueue.run_until_idle(reraise=False) == {"dead": 1}
    jobqueue.refute_enqueued(shrink)


def test_a_runner_that_dies_before_it_publishes(jobqueue: Testing, folder: Path) -> None:
    receive.enqueue("cat.pgm")
    jobqueue.run_one()
    jobqueue.crash_runner()  # it had claimed what was ready
    assert jobqueue.run_until_idle()["done"] == 4
    assert (folder / "cat.pgm.html").exists()


class Folder:
    """The files of a test that is played many times: a dict."""

    def __init__(self) -> None:
        self.files = {"cat.pgm": PICTURE, "320-cat.pgm": b"", "64-cat.pgm": b""}

    def read(self, name: str) -> bytes:
        return self.files[name]

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def exists(self, name: str) -> bool:
        return name in self.files


@pytest.mark.parametrize(
    "call",
    [receive.call("cat.pgm"), shrink.call("cat.pgm", 64), publish.call("cat.pgm")],
    ids=lambda call: call.kind.name,
)
def test_every_step_may_run_twice(call: Call[Any]) -> None:
    report = check_job(
        call,
        world=Folder,
        use=lambda folder: mock.patch.multiple(files, read=folder.read, write=folder.write, exists=folder.exists),
        effects=["read", "write", "exists"],
        state=lambda folder: folder.files,
        enqueued="distinct",  # the next step may be enqueued twice, and may run twice itself
    )
    assert report.ok, report.explain()
