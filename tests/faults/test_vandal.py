"""Random values of every kind in every key, while a runner, its duties and all commands work."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Iterator

import pytest

from jobqueue import JobQueue, Runner
from jobqueue.cli.app import run
from jobqueue.safe_text import id_text
from tests.faults.vandal import CANARY, Vandal
from tests.servers import Server

STEPS = 300
ROUND = 10
"""Steps between two looks at everything."""
LOG_LINE = 2_000
OUTPUT = 2_000_000
PATIENCE = 20.0
SEEDS = range(int(os.environ.get("VANDAL_SEEDS", "3")))


class Clean:
    """The queue ``clean``: its jobs are enqueued and run as if there were no other.

    Attributes:
        done: The jobs that have run.
    """

    def __init__(self, jobs: JobQueue) -> None:
        self.done: set[int] = set()
        self._changed = threading.Condition()
        self._enqueued = 0

        @jobs.job(name="clean", queue="clean", retry=-1)
        def clean(number: int) -> None:
            with self._changed:
                self.done.add(number)
                self._changed.notify_all()

        self._clean = clean

    def enqueue(self) -> None:
        self._clean.enqueue(self._enqueued)
        self._enqueued += 1

    def all_done(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: len(self.done) == self._enqueued, PATIENCE)


class Commands:
    """All commands on the spoiled queue, each with what must be true of any output."""

    def __init__(self, chance: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
        self._chance = chance
        self._capsys = capsys

    def all(self, ids: list[bytes]) -> None:
        shown = [id_text(id) for id in self._chance.sample(ids, min(2, len(ids)))]
        for words in (
            ["stats"],
            ["jobs", "--no-arguments", "--limit", "50"],
            ["jobs", "--no-arguments", "--place", self._chance.choice(["waiting", "ready", "working", "dead"])],
            ["audit", "--queue", "spoiled"],
            ["audit", "--mend", "--queue", "spoiled"],
            *(["show", "--queue", "spoiled", "--", id] for id in shown),
            *(["requeue", "--queue", "spoiled", "--", id] for id in shown[:1]),
            *(["delete", "--queue", "spoiled", "--", id] for id in shown[1:]),
        ):
            self._one([words[0], *(["--json"] if self._chance.random() < 0.5 else []), *words[1:]])

    def _one(self, words: list[str]) -> None:
        code = run(words)
        out, err = self._capsys.readouterr()
        assert code in (0, 1, 3), (words, code, err)
        assert all(line.isprintable() for line in (out + err).split("\n")), (words, out, err)
        assert "Traceback" not in out + err
        assert len(err.splitlines()) <= 3, (words, err)
        assert len(out) < OUTPUT
        if "--json" in words:
            for line in out.splitlines() if words[0] == "jobs" else [out] if out else []:
                json.loads(line, parse_constant=pytest.fail)
        if words[0] not in ("show", "delete", "requeue"):  # these show arguments
            assert CANARY not in out + err, (words, out, err)


@pytest.fixture
def jobs(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    monkeypatch.setenv("JOBQUEUE_URL", server.url)
    monkeypatch.setenv("JOBQUEUE_NAMESPACE", "shop")
    with JobQueue(server.url, namespace="shop", queues=["clean", "spoiled"]) as made:

        @made.job(name="spoiled", queue="spoiled")
        def spoiled(text: str) -> None: ...

        @made.job(name="strict", queue="spoiled")
        def strict(number: int, *, flag: bool = False) -> None: ...

        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_is_written_ends_or_stops_anything(
    seed: int,
    jobs: JobQueue,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One writer spoils a queue and what its namespace shares; the other queue goes on, and everything can be looked at."""
    caplog.set_level(logging.DEBUG, "jobqueue")
    clean = Clean(jobs)
    runner = Runner(jobs, threads=2, lease=1.2, grace=5)
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            runner.run(signals=False)
        except BaseException as error:  # noqa: BLE001 - told below
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=work)
    with server.client() as client:
        vandal = Vandal(client, seed)
        commands = Commands(random.Random(seed), capsys)
        clean.enqueue()
        thread.start()
        try:
            assert clean.all_done()
            told: list[str] = []
            for step in range(STEPS):
                told.append(vandal.once())
                if step % ROUND == 0:
                    clean.enqueue()
                    commands.all(vandal.ids())
                if step % (5 * ROUND) == 0:
                    assert clean.all_done(), (told, ended)
            assert clean.all_done(), (told, ended)
            assert ended == []
        finally:
            runner.stop()
            thread.join(PATIENCE)
    assert not thread.is_alive()
    assert ended == [None]
    for record in caplog.records:
        line = record.getMessage()
        assert line.isprintable(), line
        assert CANARY not in line, line
        assert len(line) < LOG_LINE, line[:200]
