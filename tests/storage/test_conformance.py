"""The conformance suite passes on the storages of this package, and fails on every storage that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.protocol import Storage
from jobqueue.storage.redis import open_redis
from jobqueue.storage.wrappers import AsyncFromSync
from jobqueue.testing import ConformanceError, check_async_storage, check_storage
from jobqueue.testing.cases.bench import cases
from jobqueue.testing.faulty import Fault, FaultyStorage
from tests.servers import Server
from tests.storage.toys import TOYS


def test_memory_keeps_the_rules() -> None:
    report = check_storage(MemoryStorage)

    assert not report.failures
    assert len(report.passed) == len(cases())


def test_memory_keeps_the_rules_awaited() -> None:
    report = check_async_storage(lambda: AsyncFromSync(MemoryStorage()))

    assert len(report.passed) == len(cases())


def test_storages_over_the_same_contents_keep_the_rules() -> None:
    shared = MemoryStorage()

    check_storage(shared.share)


def test_redis_keeps_the_rules(server: Server) -> None:
    redis = open_redis(server.url)

    report = check_storage(redis.storage)

    assert len(report.passed) == len(cases())


def test_redis_keeps_the_rules_awaited(server: Server) -> None:
    redis = open_redis(server.url)

    report = check_async_storage(redis.async_storage)

    assert len(report.passed) == len(cases())


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
        check_storage(make, patience=0.05)
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
    assert f"of {len(cases())} cases failed" in str(caught.value)
