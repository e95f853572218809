"""Locks: one holder, a growing fence, an end, and late or lost requests."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from jobqueue import LockTaken, NotApplied, OutcomeUnknown, transitions
from jobqueue.flows import Flow, Refresh
from jobqueue.lock import Lock
from jobqueue.storage.ops import Held, Holder
from jobqueue.testing import Fault
from tests.unit.queue_bench import Bench


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.jobs.counts()
    return made


def held(bench: Bench, name: str = "a") -> bool:
    """Whether somebody holds the lock, asked without it."""
    [holder] = bench.memory.read([Holder(bench.jobs.access.keys.lock(name))])
    return isinstance(holder, Held) and holder.until > bench.clock.now()


def test_one_holder_at_a_time(bench: Bench) -> None:
    first, second = bench.jobs.lock("a", ttl=60), bench.jobs.lock("a", ttl=60)
    with first as lease:
        assert held(bench)
        assert not lease.lost
        with pytest.raises(LockTaken, match="'a'"), second:
            raise AssertionError("it was taken")
    assert not held(bench)
    with second as later:
        assert later.fence > lease.fence


def test_locks_of_other_names_and_namespaces_are_others(bench: Bench) -> None:
    other = Bench()
    with bench.jobs.lock("a", ttl=60), bench.jobs.lock("b", ttl=60), other.jobs.lock("a", ttl=60):
        assert held(bench, "a")
        assert held(bench, "b")
        assert held(other, "a")


def test_it_is_given_back_when_the_block_raises(bench: Bench) -> None:
    with pytest.raises(KeyError), bench.jobs.lock("a", ttl=60):
        raise KeyError
    assert not held(bench)


def test_it_ends_by_itself_and_the_late_holder_is_told(bench: Bench) -> None:
    with bench.jobs.lock("a", ttl=60) as late:
        bench.clock.advance(59.999)
        assert not late.lost
        bench.clock.advance(milliseconds=1)
        assert late.lost
        with bench.jobs.lock("a", ttl=60) as lease:
            assert lease.fence > late.fence
            with pytest.raises(LockTaken, match="not held any more"):
                late.extend()
            assert not lease.lost
        bench.clock.advance(1)
    with bench.jobs.lock("a", ttl=60):
        pass


def test_leaving_late_does_not_give_back_somebody_elses(bench: Bench) -> None:
    first, second = bench.jobs.lock("a", ttl=60), bench.jobs.lock("a", ttl=600)
    with first:
        bench.clock.advance(60)
        second.__enter__()
    assert held(bench), "the second still holds it"
    second.__exit__(None, None, None)
    assert not held(bench)


def test_one_lock_object_in_two_threads(bench: Bench) -> None:
    """Each gives back what it took itself, though the second entered while the first was inside, late."""
    lock = bench.jobs.lock("a", ttl=60)
    inside, leave = threading.Event(), threading.Event()

    def late() -> None:
        with lock:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=late)
    thread.start()
    assert inside.wait(10)
    bench.clock.advance(60)
    with lock as lease:
        leave.set()
        thread.join(10)
        assert held(bench), "the late one gave back its own, which is nothing any more"
        lease.extend()
    assert not held(bench)


async def test_one_lock_object_in_two_tasks(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def late() -> None:
        async with lock:
            inside.set()
            await leave.wait()

    task = asyncio.create_task(late())
    await inside.wait()
    bench.clock.advance(60)
    async with lock as lease:
        leave.set()
        await task
        assert held(bench)
        await lease.aextend()
    assert not held(bench)


def test_extending(bench: Bench) -> None:
    with bench.jobs.lock("a", ttl=10) as lease:
        fence = lease.fence
        for _ in range(5):
            bench.clock.advance(9)
            lease.extend()
        assert not lease.lost
        assert lease.fence == fence
        lease.extend(100)
        bench.clock.advance(99)
        assert not lease.lost
        lease.extend(0.5)
        bench.clock.advance(0.5)
        assert not lease.lost, "an extension never shortens it"
        bench.clock.advance(0.5)
        assert lease.lost
        with pytest.raises(LockTaken):
            lease.extend()


def test_the_fence_grows_with_every_holder_and_with_time(bench: Bench) -> None:
    fences = []
    for _ in range(5):
        with bench.jobs.lock("a", ttl=1) as lease:
            fences.append(lease.fence)
    assert fences == sorted(set(fences))
    bench.clock.advance(days=1)
    with bench.jobs.lock("a", ttl=1) as lease:
        assert lease.fence == bench.clock.now(), "so it does not run backwards when the server lost its last writes"


# ----------------------------------------------------------------------------------------------------------------- run


def test_run(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    calls: list[tuple[int, str]] = []

    def function(number: int, *, word: str) -> None:
        assert held(bench)
        calls.append((number, word))

    assert lock.run(function, 1, word="x") is True
    assert not held(bench)
    with bench.jobs.lock("a", ttl=60):
        assert lock.run(function, 2, word="y") is False
    assert calls == [(1, "x")]
    with pytest.raises(ZeroDivisionError):
        lock.run(lambda: 1 // 0)
    assert not held(bench)


def test_a_function_that_meets_another_lock_that_is_taken_has_run(bench: Bench) -> None:
    def function() -> None:
        raise LockTaken("another one")

    with pytest.raises(LockTaken, match="another one"):
        bench.jobs.lock("a", ttl=60).run(function)


async def test_arun(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    calls: list[int] = []

    async def function(number: int) -> None:
        await asyncio.sleep(0)
        assert held(bench)
        calls.append(number)

    with pytest.raises(TypeError, match=r"await lock\.arun"):
        lock.run(function, 1)
    assert await lock.arun(function, 2) is True
    async with bench.jobs.lock("a", ttl=60):
        assert await lock.arun(function, 3) is False
    assert calls == [2]
    assert not held(bench)


async def test_arun_gives_the_lock_back_where_its_function_fails(bench: Bench) -> None:
    async def fails() -> None:
        assert held(bench)
        raise KeyError("planned")

    with pytest.raises(KeyError, match="planned"):
        await bench.jobs.lock("a", ttl=60).arun(fails)
    assert not held(bench)


def test_the_time_is_asked_for_before_a_lock_is_taken_or_extended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is old: the end of a lock is a time of the server's clock, which is the one that others compare it with."""
    asked: list[object] = []

    def note(flow: Flow[Any]) -> object:
        asked.append(next(flow))
        raise NotApplied("enough")

    with bench.jobs.lock("a", ttl=60) as lease, monkeypatch.context() as patch:
        patch.setattr(bench.jobs.access, "run", note)
        for ask in (lease.extend, bench.jobs.lock("b", ttl=60).__enter__):
            with pytest.raises(NotApplied, match="enough"):
                ask()
    assert asked == [Refresh(60_000)] * 2


# ---------------------------------------------------------------------------------------------------------- lost calls


@pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.SENT_TWICE])
def test_a_lost_request_is_made_again(bench: Bench, fault: Fault) -> None:
    bench.fail(fault, fault, scope="test")
    with bench.jobs.lock("a", ttl=60) as lease:
        assert held(bench)
        bench.fail(fault, scope="test")
        lease.extend()
        bench.fail(fault, fault, scope="test")
    assert not held(bench)


def test_a_request_that_arrives_after_the_lock_was_given_back_does_not_take_it_for_nobody(bench: Bench) -> None:
    bench.fail(Fault.STALLED, scope="test")
    with bench.jobs.lock("a", ttl=60):
        pass
    bench.storage.deliver()
    assert not held(bench)
    with bench.jobs.lock("a", ttl=60):
        pass


def test_one_that_cannot_be_asked_for(bench: Bench) -> None:
    bench.fail(Fault.REFUSED, scope="test")
    with pytest.raises(NotApplied), bench.jobs.lock("a", ttl=60):
        raise AssertionError("entered")
    bench.fail(*[Fault.REPLY_LOST] * 3, scope="test")
    with pytest.raises(OutcomeUnknown), bench.jobs.lock("a", ttl=60):
        raise AssertionError("entered")
    assert held(bench), "it may be held now, for nobody"
    bench.clock.advance(60)
    with bench.jobs.lock("a", ttl=60):
        assert held(bench)


@pytest.mark.parametrize(
    ("name", "ttl", "error", "said"),
    [
        ("", 1, ValueError, "1 to 200 printable characters, not ''"),
        ("x" * 201, 1, ValueError, "1 to 200 printable characters, not 'xxx"),
        ("a\nb", 1, ValueError, "1 to 200 printable characters, not 'a"),
        ("a\0", 1, ValueError, "1 to 200 printable characters, not 'a"),
        (7, 1, TypeError, "the name of a lock is a string, not 7"),
        ("a", 0, ValueError, "the lock 'a' needs a ttl of at least a millisecond"),
        ("a", 0.0004, ValueError, "the lock 'a' needs a ttl of at least a millisecond"),
        ("a", -1, ValueError, "ttl must be between 0 seconds and 100 years; -1 is negative"),
        ("a", float("nan"), ValueError, "ttl must be between 0 seconds and 100 years; nan is not finite"),
        ("a", "soon", TypeError, "ttl must be a timedelta or a number of seconds, not 'soon'"),
    ],
)
def test_what_is_no_lock(bench: Bench, name: str, ttl: float, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        bench.jobs.lock(name, ttl=ttl)


def test_the_longest_name_and_the_shortest_time_are_a_lock(bench: Bench) -> None:
    with bench.jobs.lock("x" * 200, ttl=0.001) as lease:
        assert held(bench, "x" * 200)
        bench.clock.advance(0.001)
        assert lease.lost


@pytest.mark.parametrize("name", ["a:b", "{x}", "ready", "meta", "nightly report · ü"])
def test_no_name_reaches_another_key(bench: Bench, name: str) -> None:
    bench.work.enqueue(1)
    before = bench.jobs.find()
    with bench.jobs.lock(name, ttl=60):
        assert held(bench, name)
    assert bench.jobs.find() == before


def test_left_by_another_thread_than_entered_it(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    thread = threading.Thread(target=lock.__enter__)
    thread.start()
    thread.join()
    assert held(bench)
    lock.__exit__(None, None, None)
    assert not held(bench)


def test_left_by_another_task_than_entered_it(bench: Bench) -> None:
    async def main() -> None:
        lock = bench.jobs.lock("a", ttl=60)
        await asyncio.create_task(lock.__aenter__())
        assert held(bench)
        await lock.__aexit__(None, None, None)

    asyncio.run(main())
    assert not held(bench)


# ------------------------------------------------------------------------------------------------------- slow answers


def test_the_time_of_a_lock_counts_from_the_request_and_not_from_the_answer(bench: Bench) -> None:
    """The storage counts from there as well: who believes longer shares the lock with its next holder."""
    bench.jobs.counts()
    bench.meddle = lambda: bench.clock.advance(25)

    with bench.jobs.lock("a", ttl=60) as lease:
        bench.clock.advance(34.999)
        assert not lease.lost
        bench.clock.advance(0.001)
        assert lease.lost
        with bench.jobs.lock("a", ttl=60):
            pass


def test_an_extension_counts_from_the_request_and_not_from_the_answer(bench: Bench) -> None:
    with bench.jobs.lock("a", ttl=60) as lease:
        bench.clock.advance(10)
        bench.meddle = lambda: bench.clock.advance(25)
        lease.extend()

        bench.clock.advance(34.999)
        assert not lease.lost
        bench.clock.advance(0.001)
        assert lease.lost
        with bench.jobs.lock("a", ttl=60):
            pass


def test_who_was_refused_an_extension_has_lost_the_lock(bench: Bench) -> None:
    with bench.jobs.lock("a", ttl=60) as lease:
        bench.memory.apply([transitions.drop_lock(bench.jobs.access.keys, "a", lease.token)])
        assert not lease.lost, "nobody has told it yet"

        with pytest.raises(LockTaken, match="the lock 'a' is not held any more"):
            lease.extend()

        assert lease.lost


# -------------------------------------------------------------------------------------------- one object, entered often


def entered_elsewhere(lock: Lock) -> None:
    thread = threading.Thread(target=lock.__enter__)
    thread.start()
    thread.join()


def test_entered_again_after_its_time_it_gives_back_what_it_took_last(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    with lock:
        bench.clock.advance(60)
        with lock:
            assert held(bench)
        assert not held(bench)


def test_left_where_two_others_entered_it_gives_back_the_later(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    entered_elsewhere(lock)
    bench.clock.advance(60)
    lock._held = {-1: lock._held.popitem()[1]}  # a thread may get the number of one that has ended
    entered_elsewhere(lock)

    lock.__exit__(None, None, None)

    assert not held(bench)


def test_who_left_it_can_leave_it_for_another(bench: Bench) -> None:
    lock = bench.jobs.lock("a", ttl=60)
    with lock:
        pass
    entered_elsewhere(lock)

    lock.__exit__(None, None, None)

    assert not held(bench)
