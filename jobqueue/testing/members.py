"""What a `DeliveryMachine` keeps: its runners, and what it knows of its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from jobqueue.job import LANES
from jobqueue.keys import queue_keys
from jobqueue.queue import JobQueue
from jobqueue.runner.core import Core
from jobqueue.runner.decisions import Config, Notice
from jobqueue.runner.rescue import Watch
from jobqueue.runner.task import Task

__all__ = ["BEAT_MS", "LEASE_MS", "Member", "Seen"]

LEASE_MS: Final = 600
BEAT_MS: Final = 100


class Member:
    """A runner without threads: the machine says when it does what."""

    def __init__(self, jobs: JobQueue, weights: Mapping[str, int], incarnation: bytes) -> None:
        self.asleep = False
        self.given: list[Task] = []
        self.running: list[Task] = []
        self.watch = Watch()
        self.notices: list[Notice] = []
        self.core = Core(
            Config(incarnation, LEASE_MS, BEAT_MS, grace=BEAT_MS, threads=2, coroutines=2, processes=2), weights,
            lambda queue: queue_keys(jobs.namespace, queue), jobs.registry.get, lambda: LANES, lambda: 0.5,
            self.notices.append,
        )  # fmt: skip


@attrs.define
class Seen:
    """What the machine knows of a job, whatever the storage says."""

    payload: bytes | None
    known: bool
    runs: set[int] = attrs.field(factory=set)
    fence: int = 0
    succeeded: bool = False
    touched: bool = False
