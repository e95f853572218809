"""What a `DeliveryMachine` keeps: its runners, and what it knows of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import attrs

from jobqueue.clock import Moment
from jobqueue.queue import JobQueue
from jobqueue.runner.decisions import Config
from jobqueue.runner.engine import Engine
from jobqueue.runner.events import Event
from jobqueue.runner.rescue import Watch
from jobqueue.runner.task import Task

__all__ = ["BEAT_MS", "LEASE_MS", "Member", "Seen"]

LEASE_MS: Final = 600
BEAT_MS: Final = 100


class Member:
    """A runner without threads: the machine says when it does what."""

    def __init__(
        self, jobs: JobQueue, weights: Mapping[str, int], incarnation: bytes, moment: Callable[[], Moment]
    ) -> None:
        self.asleep = False
        self.given: list[Task] = []
        self.running: list[Task] = []
        self.watch = Watch()
        self.events: list[Event] = []
        self.engine = Engine(
            Config(incarnation, LEASE_MS, BEAT_MS, grace=BEAT_MS, threads=2, coroutines=2, processes=2), jobs.namespace,
            weights, jobs.registry.get, moment=moment, start=self.given.extend, observe=self.events.append,
        )  # fmt: skip
        self.core = self.engine.core


@attrs.define
class Seen:
    """What the machine knows of a job, whatever the storage says."""

    payload: bytes | None
    known: bool
    runs: set[int] = attrs.field(factory=set)
    fence: int = 0
    succeeded: bool = False
    touched: bool = False
