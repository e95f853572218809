"""The conformance suite passes on the storages of this package, and fails on every storage that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from jobqueue.errors import NotApplied
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Batch
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.redis import open_redis
from jobqueue.storage.wrappers import AsyncFromSync
from jobqueue.testing import ConformanceError, check_async_storage, check_storage
from jobqueue.testing.cases.bench import cases
from jobqueue.testing.faulty import Fault, FaultyStorage
from tests.conftest import MakeServer
from tests.servers import Server, kinds
from tests.storage.toys import TOYS, another, crash, only_lockstep


def test_memory_keeps_the_rules() -> None:
    report = check_storage(MemoryStorage, another=another, crash=crash)

    assert not report.failures
    assert len(report.passed) == len(cases())


def test_what_a_storage_does_not_offer_is_not_claimed() -> None:
    nothing = check_storage(MemoryStorage)
    handles = check_storage(MemoryStorage, another=another, wakes_others=False)

    assert {case.name for case in cases() if case.needs} == {name for _, name in nothing.not_claimed}
    assert len(nothing.passed) == len(cases()) - len(nothing.not_claimed)
    assert [name for _, name in handles.not_claimed] == [
        "a crash tears no batch", "what was answered survives a crash", "another handle is woken",
    ]  # fmt: skip


def test_a_failure_says_what_is_not_claimed() -> None:
    with pytest.raises(ConformanceError, match=r"not claimed: .*another handle is woken"):
        check_storage(lambda: next(make for _, make, _ in TOYS)())


def test_the_lockstep_tells_the_shortest_story() -> None:
    check_storage(only_lockstep, another=another, crash=crash)  # no case sees it

    with pytest.raises(ConformanceError, match=r"rule 1 to 10: in lockstep") as caught:
        check_storage(only_lockstep, lockstep=500)

    [failure] = caught.value.report.failures
    steps = [line for line in failure.reason.splitlines() if line.startswith("    ")]
    assert len(steps) <= 2, failure.reason
    assert "'different', 'stored', 'stored'" in failure.reason


def test_memory_keeps_the_rules_awaited() -> None:
    shared = MemoryStorage()  # other scopes in every case
    again = lambda _: AsyncFromSync(shared.share())  # noqa: E731

    report = check_async_storage(lambda: AsyncFromSync(shared.share()), another=again, crash=again, lockstep=10)

    assert len(report.passed) == len(cases()) + 1


def test_storages_over_the_same_contents_keep_the_rules() -> None:
    shared = MemoryStorage()

    check_storage(shared.share)


def test_redis_keeps_the_rules(server: Server) -> None:
    redis = open_redis(server.url)

    report = check_storage(redis.storage, another=lambda _: redis.storage(), lockstep=20)

    assert {case.name for case in cases() if case.needs == "surviving a crash"} == {
        name for _, name in report.not_claimed
    }
    assert len(report.passed) == len(cases()) - len(report.not_claimed) + 1


@pytest.mark.parametrize("kind", kinds())
def test_redis_with_a_log_survives_being_killed(own_server: MakeServer, kind: str) -> None:
    server = own_server(kind, args=["--appendonly", "yes", "--appendfsync", "always"])
    redis = open_redis(server.url)

    def kill(_: Storage) -> Storage:
        server.kill()
        server.restart()
        return redis.storage()

    report = check_storage(redis.storage, another=lambda _: redis.storage(), crash=kill)

    assert len(report.passed) == len(cases())


def test_redis_keeps_the_rules_awaited(server: Server) -> None:
    redis = open_redis(server.url)

    report = check_async_storage(redis.async_storage, another=lambda _: redis.async_storage())

    assert len(report.passed) == len(cases()) - len(report.not_claimed)


def test_a_faulty_storage_without_faults_keeps_the_rules() -> None:
    check_storage(lambda: FaultyStorage(MemoryStorage(), lambda _scope, _batches: Fault.OK))


def test_every_rule_has_a_case_and_a_storage_that_breaks_it() -> None:
    assert {case.rule for case in cases()} == set(range(1, 11))
    assert {rule for rule, _, _ in TOYS} == set(range(1, 11))


def test_cases_have_different_names() -> None:
    names = [case.name for case in cases()]

    assert len(set(names)) == len(names)


@cache
def _failures(make: Callable[[], Storage]) -> frozenset[tuple[int, str]]:
    with pytest.raises(ConformanceError) as caught:
        check_storage(make, another=another, crash=crash, patience=0.05)
    assert all(failure.case in str(caught.value) for failure in caught.value.report.failures)
    return frozenset((failure.rule, failure.case) for failure in caught.value.report.failures)


@pytest.mark.parametrize(("rule", "make", "case"), [pytest.param(*toy, id=toy[1].__name__) for toy in TOYS])
def test_a_broken_storage_is_caught_by_the_case_for_its_rule(rule: int, make: Callable[[], Storage], case: str) -> None:
    assert (rule, case) in _failures(make)


def test_every_case_can_fail() -> None:
    failed = frozenset[tuple[int, str]]().union(*(_failures(make) for _, make, _ in TOYS))

    assert {(case.rule, case.name) for case in cases()} == failed


def test_a_failure_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(ConformanceError, match=r"expected: Refused\(failed=\(0, 2, 4, 5\)\)") as caught:
        check_storage(next(make for _, make, _ in TOYS if make.__name__ == "FirstFailureOnly"))

    assert "got:      Refused(failed=(0,))" in str(caught.value)
    claimed = [case for case in cases() if case.needs is None]
    assert f"of {len(claimed)} cases failed" in str(caught.value)


class Halved:
    def apply(self) -> None: ...
    def read(self) -> None: ...


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (MemoryStorage(), "make is a function that makes a storage"),
        (Halved, "no wait, interrupt, close"),
        (lambda: None, "no apply"),
    ],
)
def test_what_is_no_storage_is_said_before_anything_is_checked(make: Any, said: str) -> None:
    for check in (check_storage, check_async_storage):
        with pytest.raises(TypeError, match=said):
            check(make)


class Raises(MemoryStorage):
    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        raise NotApplied("the disk is away")


def test_an_ending_that_is_raised_is_to_be_answered() -> None:
    with pytest.raises(ConformanceError, match="the disk is away\nwhat becomes of each batch is to be answered"):
        check_storage(Raises, patience=0.05)
