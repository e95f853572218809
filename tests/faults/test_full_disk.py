"""[F27] A disk that is full: the server cannot write its append-only file any more, says so, and is given room again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobqueue import NotApplied
from tests.conftest import MakeServer
from tests.faults.ledger import await_that
from tests.faults.stage import Stage
from tests.servers import kinds

MEGABYTE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    yield folder
    # Lazily: the server may still have its files open.
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("kind", kinds())
def test_fault(kind: str, own_server: MakeServer, disk: Path, tmp_path: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2 * MEGABYTE))
    keeps = ["--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
    server = own_server(kind, args=[*keeps, "--dir", str(disk)])
    stage = Stage(server.client(), server.url, tmp_path)
    jobs = stage.jobs()
    keys = {"held", "later"}
    with stage.worker(jobs, lease=3), stage.worker(stage.jobs(), lease=3):
        jobs.enqueue(stage.deed("held", gate=str(stage.gate())))
        await_that(lambda: stage.ledger.runs("start")["held"], "a job that runs while the disk is full")
        refusal = fill(stage.client)
        with pytest.raises(NotApplied, match="No space left on device"):
            jobs.enqueue(stage.deed("refused"))
        stage.gate().touch()
        await_that(lambda: stage.ledger.runs("end")["held"], "the end of the held job, whose result is refused")
        assert "held" not in stage.ledger.runs("lost")
        ballast.unlink()

        def enqueued() -> bool:
            with contextlib.suppress(NotApplied):
                jobs.enqueue(stage.deed("later"))
                return True
            return False

        await_that(enqueued, f"a server that writes again after {refusal}")
        stage.settle()
    stage.ledger.check(keys)
    server.restart()
    assert not stage.client.exists("{faults:q}:records"), "what the disk has is what was acknowledged"
    stage.close()


def fill(client: redis.Redis) -> str:
    """Write until the server refuses; answers what it says."""
    said: list[str] = []

    def refused() -> bool:
        try:
            client.set("filling", bytes(MEGABYTE // 4))
        except redis.ResponseError as error:
            said.append(str(error))
        return bool(said)

    await_that(refused, "a full disk")
    return said[0]
