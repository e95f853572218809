"""Enqueueing that is interrupted at any line: by a signal handler or finalizer that enqueues too, and by an exception.

A longer run: ``python -m tests.unit.test_interrupted 10000``.
"""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from jobqueue import JobQueue
from jobqueue.storage.redis.pool import Pool
from jobqueue.uninterrupted import uninterrupted
from tests.conftest import MakeServer
from tests.servers import Server, kinds, start_server

COUNT = 1_000


def declared(jobs: JobQueue) -> Any:
    """A kind of job."""

    @jobs.job(name="interrupted")
    def job(number: int) -> None: ...

    return job


def storm(jobs: JobQueue, count: int) -> tuple[int, int]:
    """Enqueue until so many signals have interrupted it, each of which enqueues; answers how many there should be."""
    job, chance = declared(jobs), random.Random(7)
    handled = made = 0

    def handler(*_: object) -> None:
        nonlocal handled
        job.enqueue(handled)
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.000_01, 0.000_5))

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0001)
        while handled < count:
            job.enqueue(made)
            made += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return handled + made, jobs.length("low")


def links_of(jobs: JobQueue) -> Any:
    """The links of a `JobQueue` on one server."""
    storage: Any = jobs.access.opened().storage()
    pool: Pool = storage._nodes
    return pool._links


@pytest.mark.parametrize("most", [1, 10])
def test_a_signal_handler_that_enqueues(server: Server, most: int) -> None:
    """Both are stored, from the first use on; no more connections stay than there may be."""
    with JobQueue(server.url, namespace="storm", max_connections=most, timeout=5) as jobs:
        expected, stored = storm(jobs, COUNT)
        assert stored == expected
        assert len(links_of(jobs)) <= most


def test_a_signal_handler_that_enqueues_in_memory() -> None:
    jobs = JobQueue("memory://", namespace="storm")
    expected, stored = storm(jobs, COUNT // 2)
    assert stored == expected


def test_a_finalizer_that_enqueues(server: Server) -> None:
    """Run by the garbage collector at an allocation, in the middle of an exchange too."""
    jobs = JobQueue(server.url, namespace="finalizers", max_connections=1, timeout=5)
    job = declared(jobs)
    ended = 0

    class Careless:
        def __init__(self) -> None:
            self.me = self  # only the collector ends it

        def __del__(self) -> None:
            nonlocal ended
            job.enqueue(0)
            ended += 1

    usual = gc.get_threshold()
    gc.set_threshold(20, 1_000, 1_000)
    try:
        for _ in range(300):
            Careless()
            job.enqueue(1)
    finally:
        gc.set_threshold(*usual)
    gc.collect()
    assert ended == 300
    assert jobs.length("low") == 600
    jobs.close()


def test_no_finalizer_runs_on_the_thread_that_opens_a_storage() -> None:
    """It would wait for the lock of the thread that waits for this one."""
    ran: list[int] = []

    class Careless:
        def __init__(self) -> None:
            self.me = self  # only the collector ends it

        def __del__(self) -> None:
            ran.append(threading.get_ident())

    def work() -> list[list[int]]:
        Careless()
        return [[number] for number in range(100_000)]

    uninterrupted(work, "a test")
    gc.collect()

    assert ran == [threading.get_ident()]
    assert gc.isenabled()


class Alarm:
    """A handler that is no function."""

    def __call__(self, *_: object) -> None:
        raise TimeoutError("the alarm")


def ring(*_: object) -> None:
    raise TimeoutError("the alarm")


def refuse(error: type[Exception], *_: object) -> None:
    raise error("the alarm")


HANDLERS: dict[str, Any] = {
    "a function": ring,
    "an object": Alarm(),
    "a method": Alarm().__call__,
    "a partial": functools.partial(refuse, ConnectionError),
}


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_that_throws_what_sockets_throw(own_server: MakeServer, name: str, connected: bool) -> None:
    """It bounds the call, as it was meant to, and is no trouble of the connection."""
    server = own_server(kinds()[0])
    jobs = JobQueue(server.url, namespace="alarm", max_connections=1, timeout=30)
    job = declared(jobs)
    job.enqueue(0)
    if not connected:
        links_of(jobs).idle.clear()
        gc.collect()
    before = signal.signal(signal.SIGALRM, HANDLERS[name])
    os.kill(server.pid, signal.SIGSTOP)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises((TimeoutError, ConnectionError), match=r"^the alarm$"):
            job.enqueue(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.kill(server.pid, signal.SIGCONT)
    job.enqueue(2)
    assert jobs.length("low") in (2, 3)
    jobs.close()


def at_line(at: int, call: Callable[[], object], act: Callable[[], object]) -> bool:
    """Make a call, and do something at its n-th line; answers whether it had that many."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == at:
                act()
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return seen >= at


class Thrown(BaseException):
    """What is thrown into a call."""


def throwing(at: int, call: Callable[[], object]) -> bool:
    """Make a call and throw an exception at its n-th line; answers whether it had that many.

    It is made on a thread of its own. What is thrown at the end of an ``except`` block leaves the exception of that block
    as the one that the thread handles, and later tests would find it as the context of theirs. And no garbage is collected
    meanwhile: the callbacks of others would be thrown at as well.
    """
    reached = False

    def throw() -> None:
        raise Thrown

    def traced() -> None:
        nonlocal reached
        try:
            reached = at_line(at, call, throw)
        except Thrown:
            reached = True
        except BaseException as error:  # noqa: BLE001 - it is raised again below
            errors.append(error)

    errors: list[BaseException] = []
    thread = threading.Thread(target=traced)
    gc.disable()
    try:
        thread.start()
        thread.join()
    finally:
        gc.enable()
    if errors:
        raise errors[0]
    return reached


@pytest.mark.parametrize("fresh", [False, True], ids=["connected", "connecting"])
def test_an_exception_at_any_line(server: Server, fresh: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever line it meets, the next call works, on a connection with nothing left to read, and no place is lost."""
    # That of pytest keeps what a `__del__` has met, with its frames.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    jobs = JobQueue(server.url, namespace="thrown", max_connections=1, timeout=5)
    job = declared(jobs)
    job.enqueue(0)
    made, at = 1, 1
    while True:
        if fresh:
            links_of(jobs).idle.clear()
        before = jobs.length("low") if not fresh else 0
        reached = throwing(at, functools.partial(job.enqueue, at))
        began = time.monotonic()
        job.enqueue(-at)
        assert time.monotonic() - began < 4, f"after line {at}"
        if not fresh:
            assert jobs.length("low") - before in (1, 2), f"after line {at}"
        made += 2
        if not reached:
            break
        at += 1 + fresh * 2
    gc.collect()
    assert len(links_of(jobs)) == 1
    assert 1 + (made - 1) // 2 <= jobs.length("low") <= made
    assert at > 100, "it was not traced"
    jobs.close()


def test_an_exception_at_any_line_in_memory() -> None:
    """A batch is applied whole or not at all, also then."""
    jobs = JobQueue("memory://", namespace="thrown")
    job = declared(jobs)
    at, stored = 1, 0
    while throwing(at, lambda: jobs.enqueue_many([job.call(1), job.call(2), job.opts(delay=9).call(3)])):
        ready, waiting = jobs.length("low"), len(jobs.find(queue="low", place="waiting", limit=10_000))
        assert ready + waiting - stored in (0, 3), f"after line {at}"
        assert ready == 2 * waiting
        assert not jobs.audit(queue="low").broken
        at, stored = at + 1, ready + waiting
    assert at > 100, "it was not traced"


def test_a_call_inside_of_another_at_any_line(server: Server) -> None:
    """The same without signals: at each line of a call, once, another call is made."""
    for url in ("memory://", server.url):
        jobs = JobQueue(url, namespace="inside", max_connections=1, timeout=5)
        job = declared(jobs)
        job.enqueue(0)
        at, made = 1, 1
        while at_line(at, functools.partial(job.enqueue, 1), functools.partial(job.enqueue, 2)):
            at, made = at + 1, made + 2
        assert at > 100, "it was not traced"
        assert jobs.length("low") == made + 1
        assert not jobs.audit().broken
        jobs.close()


@pytest.fixture(autouse=True)
def never_for_ever() -> Iterator[None]:
    """A call that waits for itself would end no test."""
    watch = threading.Timer(60, os._exit, (70,))
    watch.daemon = True
    watch.start()
    yield
    watch.cancel()


def test_a_finalizer_at_the_end_of_the_interpreter_waits_for_nothing() -> None:
    """It is the first call, for which the storage would have to be imported."""
    program = """
from jobqueue import JobQueue
jobs = JobQueue("redis://127.0.0.1:1")
@jobs.job(name="last")
def last() -> None: ...
class Late:
    def __del__(self, enqueue=last.enqueue, print=print):
        try:
            enqueue()
        except Exception as error:
            print("refused")
late = Late()
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout == "refused\n"


if __name__ == "__main__":
    long = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for kind in kinds():
        started = start_server(kind)
        for most in (1, 10):
            print(kind, most, storm(JobQueue(started.url, namespace=f"s{most}", max_connections=most), long))
        started.stop()
    print("memory", storm(JobQueue("memory://"), long))
