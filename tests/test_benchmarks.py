"""The benchmarks run, tell what they measured, and leave nothing behind."""

from __future__ import annotations

import json

import pytest

from benchmarks import drain, kit
from jobqueue.embedded import server_binary
from jobqueue.errors import StorageError
from tests.servers import Server


def test_drain_on_a_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    drain.main(["--url", server.url, "--jobs", "120", "--rounds", "1", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["single enqueue", "bulk enqueue", "drain"]
    for line in told.values():
        assert line["jobs_per_second"] > 0
        assert line["bare"] > 0
        assert line["ratio"] > 0
    client = server.client()
    assert client.keys() == []
    client.close()


def test_drain_on_the_embedded_server(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        server_binary()
    except StorageError:
        pytest.skip("the embedded server is not installed")
    drain.main(["--jobs", "50", "--rounds", "1"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["jobs", "per", "second", "jobqueue", "bare", "loop", "ratio"]
    assert [line[:14].strip() for line in lines] == ["single enqueue", "bulk enqueue", "drain"]


def test_kit_in_memory_and_on_a_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kit.main(["--url", server.url, "--rounds", "2"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith("  ")] == ["in memory", "on a server"]
    assert len(told) == 10
    with server.client() as client:
        assert client.keys() == []


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--rounds", "-1"], ["--threads", "0"]])
def test_drain_refuses_nothing(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        drain.main(arguments)
    assert caught.value.code == 2
