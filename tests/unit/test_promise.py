"""The published promise, sentence by sentence, as a user can check it: through the public names, in a testing block.

`docs/explanation/delivery-guarantees.md` says which other tests take the same sentences further, on real servers and
real processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pytest

from jobqueue import Context, Discard, JobQueue, Retry, RetryPolicy, Snooze
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import PLACES, Batch
from jobqueue.storage.protocol import Outcome
from jobqueue.testing import Testing

jobs: Final = JobQueue(namespace="promise")
ran: Final[list[tuple[str, str, int]]] = []
"""(what, id, fence) of every run."""


class Broken(Exception):
    """A job failed."""


@jobs.job(name="work", retry=RetryPolicy(limit=1, backoff=lambda n: 60.0))
def work(ctx: Context, what: str, then: str = "done") -> None:
    ran.append((what, ctx.record.id, ctx.fence))
    if len([one for one in ran if one[0] == what]) > 1:
        return  # whatever it did first, its second run succeeds
    match then:
        case "raise":
            raise Broken(what)
        case "snooze":
            raise Snooze(60)
        case "retry":
            raise Retry(after=60)
        case "discard":
            raise Discard("enough")


@jobs.job(name="hopeless", retry=1)
def hopeless() -> None:
    raise Broken


@pytest.fixture
def t() -> Iterator[Testing]:
    ran.clear()
    with jobs.testing() as testing:
        yield testing
    ran.clear()


def order() -> list[str]:
    """What ran, in order."""
    return [what for what, _, _ in ran]


def test_returning_means_stored(t: Testing) -> None:
    record = work.enqueue("a")

    assert jobs.get(record.id) == record
    assert jobs.counts()["low"].ready == 1


def test_it_is_run_or_ends_in_the_dead_place(t: Testing) -> None:
    good, bad = work.enqueue("a"), hopeless.enqueue()

    t.run_until_idle()

    assert order() == ["a"]
    assert jobs.get(good.id) is None
    [dead] = jobs.dead()
    assert (dead.id, dead.attempt) == (bad.id, 2)


@pytest.mark.parametrize("then", ["done", "discard"])
def test_without_failures_a_job_runs_exactly_once(t: Testing, then: str) -> None:
    for number in range(20):
        work.opts(delay=number % 3).enqueue(str(number), then=then)

    t.run_until_idle()
    t.clock.advance(days=2)
    t.run_until_idle()

    assert sorted(order(), key=int) == [str(number) for number in range(20)]


@pytest.mark.parametrize("then", ["raise", "snooze", "retry"])
def test_it_runs_again_when_it_raised_or_asked(t: Testing, then: str) -> None:
    work.enqueue("a", then=then)

    t.run_until_idle()

    assert order() == ["a", "a"]


def test_it_runs_again_when_its_runner_died_and_only_then(t: Testing) -> None:
    work.enqueue("a")
    t.crash_runner()
    t.clock.advance(seconds=46)

    assert t.drain() == {"done": 1}
    assert jobs.counts()["low"].working == 0


def test_the_id_stays_and_the_fence_grows(t: Testing) -> None:
    record = work.enqueue("a", then="raise")

    t.run_until_idle()

    (_, first, low), (_, second, high) = ran
    assert first == second == record.id
    assert low < high


def test_first_runs_start_in_the_order_of_enqueueing(t: Testing) -> None:
    for what in "abcde":
        work.enqueue(what)

    t.drain()

    assert order() == list("abcde")


def test_retried_and_delayed_jobs_join_the_tail_when_due(t: Testing) -> None:
    work.enqueue("retried", then="raise")
    t.drain(reraise=False)
    work.opts(delay=60).enqueue("delayed")
    work.enqueue("first")
    t.clock.advance(seconds=61)

    t.drain()

    assert order() == ["retried", "first", "retried", "delayed"]


def test_rescued_jobs_return_to_the_head(t: Testing) -> None:
    work.enqueue("rescued")
    t.crash_runner()
    work.enqueue("a")
    work.enqueue("b")
    t.clock.advance(seconds=46)

    t.drain()

    assert order() == ["rescued", "a", "b"]


def test_delayed_jobs_never_start_early(t: Testing) -> None:
    work.opts(delay=60).enqueue("a")

    t.clock.advance(milliseconds=59_999)
    assert t.drain() == {}
    t.clock.advance(milliseconds=1)
    assert t.drain() == {"done": 1}


def test_every_change_of_state_is_one_step(monkeypatch: pytest.MonkeyPatch, t: Testing) -> None:
    """After every single batch each stored job is in exactly one place, so a crash between two finds it in one."""
    apply = MemoryStorage.apply
    steps: set[frozenset[str]] = set()

    def watched(self: MemoryStorage, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for batch in batches:
            outcomes += apply(self, [batch])
            dump = self.dump()
            held = {place: ids_in(dump, place) for place in PLACES}
            everywhere = [id for ids in held.values() for id in ids]
            assert sorted(everywhere) == sorted(ids_in(dump, "records"))
            steps.add(frozenset(place for place, ids in held.items() if ids))
        return outcomes

    monkeypatch.setattr(MemoryStorage, "apply", watched)
    work.enqueue("a", then="raise")
    t.crash_runner()
    work.opts(delay=5).enqueue("b", then="snooze")
    hopeless.enqueue()
    t.run_until_idle()

    assert frozenset.union(*steps) == PLACES  # all of them were seen, so the comparison was not of nothing


def ids_in(dump: Mapping[str, Any], name: str) -> list[bytes]:
    """The ids that a key of the queue holds, by its name."""
    entries = [entry for key, content in dump.items() if key.endswith(f":{name}") for entry in content]
    return [entry[0] if isinstance(entry, tuple) else entry for entry in entries]
