"""Matchers where a test could write a value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY

import attrs
import pytest

from jobqueue import JobQueue, PayloadError
from jobqueue.testing import Testing
from tests.unit.kit_jobs import Address, add, mail, typed

NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)


class Prefixed:
    """Equal to a text that begins so, as the matchers of other packages are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith(self.text)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Prefixed({self.text!r})"


def test_anything(t: Testing) -> None:
    mail.enqueue("a", subject="news")

    t.assert_enqueued(mail, to=ANY, subject="news")
    t.refute_enqueued(mail, to=ANY, subject="hello")


def test_an_object_that_is_equal(t: Testing) -> None:
    mail.enqueue("alice@example.org")

    t.assert_enqueued(mail, to=Prefixed("alice@"))
    t.refute_enqueued(mail, to=Prefixed("bob@"))


def test_about_a_number(t: Testing) -> None:
    add.enqueue(1_000_000)

    t.assert_enqueued(add, a=pytest.approx(1_000_000, abs=5))
    t.assert_enqueued(add, a=pytest.approx(1_000_004, abs=5))
    t.refute_enqueued(add, a=pytest.approx(1_000_006, abs=5))


def test_a_function_of_the_argument_as_the_job_receives_it(t: Testing) -> None:
    typed.enqueue(NOON, Address("High Street"), frozenset({"x"}))

    t.assert_enqueued(typed, at=lambda at: at.hour == 12, address=lambda address: address.city == "Ulm")
    t.assert_enqueued(typed, tags=frozenset({"x"}).issubset)
    t.refute_enqueued(typed, at=lambda at: at.hour == 11)
    t.refute_enqueued(typed, tags=frozenset({"y"}).issubset)


def test_a_default_that_was_not_given_is_matched_too(t: Testing) -> None:
    mail.enqueue("a")

    t.assert_enqueued(mail, subject=Prefixed("hel"))


def test_matchers_inside_of_lists_and_mappings() -> None:
    jobs = JobQueue(namespace="kit")

    @jobs.job(name="nested")
    def nested(rows: list[dict[str, int]], pair: tuple[str, int]) -> None: ...

    with jobs.testing() as t:
        nested.enqueue([{"a": 1, "b": 2}, {"a": 3}], ("x", 7))

        t.assert_enqueued(nested, rows=[{"a": ANY, "b": 2}, {"a": lambda a: a > 2}], pair=("x", ANY))
        for rows in ([{"a": ANY, "b": 2}], [{"a": ANY}, {"a": 3}], [ANY, {"a": lambda a: a > 3}], [ANY, {"b": ANY}]):
            t.refute_enqueued(nested, rows=rows)
        t.refute_enqueued(nested, pair=("y", ANY))


def test_an_exception_of_a_function_is_shown(t: Testing) -> None:
    mail.enqueue("a")

    def wrong(to: Any) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        t.assert_enqueued(mail, to=wrong)


@attrs.frozen
class Elsewhere:
    street: str


@pytest.mark.parametrize("wanted", [Elsewhere("x"), str, 1, ["a"], {"a": 1}, None, object()])
def test_a_value_of_another_type_stays_a_mistake(t: Testing, wanted: Any) -> None:
    mail.enqueue("a")

    with pytest.raises(PayloadError, match="argument `to`: Expected `str`, got"):
        t.refute_enqueued(mail, to=wanted)


def test_the_message_shows_the_matcher_and_what_it_did_not_match(t: Testing) -> None:
    mail.enqueue("a")

    with pytest.raises(AssertionError, match=r"no job mail\(to=Prefixed\('b'\), …\) is enqueued(.|\n)*← other to"):
        t.assert_enqueued(mail, to=Prefixed("b"))


def test_it_is_given_the_value_itself(t: Testing) -> None:
    typed.enqueue(NOON, Address("High Street"))
    given: list[object] = []

    def is_some(address: object) -> bool:
        given.append(address)
        return True

    t.assert_enqueued(typed, address=is_some)

    assert given == [Address("High Street")]
