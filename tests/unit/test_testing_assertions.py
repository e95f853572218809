"""What a test sees of enqueued jobs, and what it is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from jobqueue import JobQueue, JobRecord, PayloadError, UnknownJob, current_context
from jobqueue.testing import Testing
from tests.unit.kit_jobs import NEW_YEAR, Address, Colour, Resize, add, broken, jobs, mail, typed, urgent


@attrs.define(eq=False)
class Point:
    x: int
    y: int


def test_a_job_is_found_by_some_of_its_arguments(t: Testing) -> None:
    mail.enqueue("a@example.org")
    expected = mail.enqueue("b@example.org", subject="news")

    assert t.assert_enqueued(mail, to="b@example.org").id == expected.id
    assert t.assert_enqueued(mail, subject="news").id == expected.id
    assert t.assert_enqueued(mail, to="b@example.org", subject="news") == expected


def test_a_default_counts_as_what_the_job_receives(t: Testing) -> None:
    mail.enqueue("a@example.org")

    t.assert_enqueued(mail, subject="hello")
    t.refute_enqueued(mail, subject="news")


def test_without_arguments_the_kind_decides(t: Testing) -> None:
    first, second = mail.enqueue("a"), mail.enqueue("b")
    urgent.enqueue(1)

    assert t.assert_enqueued(mail).id == first.id
    assert [record.id for record in t.enqueued(mail)] == [first.id, second.id]
    with pytest.raises(AssertionError, match=r"no job add\(\) is enqueued"):
        t.assert_enqueued(add)


@pytest.mark.parametrize("what", ["resize", Resize])
def test_a_kind_is_a_name_or_a_class_as_well(t: Testing, what: Any) -> None:
    record = jobs.enqueue(Resize("x.png"))

    assert t.assert_enqueued(what, path="x.png", width=640).id == record.id
    t.refute_enqueued(what, width=1)


def test_stored_values_are_compared_as_the_job_receives_them(t: Testing) -> None:
    noon = datetime(2030, 5, 1, 12, tzinfo=UTC)
    typed.enqueue(noon, Address("High Street"), frozenset({"x", "y"}), Colour.BLUE, date(2031, 2, 3))

    t.assert_enqueued(typed, at=noon.astimezone(timezone(timedelta(hours=5))))
    t.assert_enqueued(typed, address=Address("High Street", "Ulm"), tags=frozenset({"y", "x"}))
    t.assert_enqueued(typed, colour=Colour.BLUE, day=date(2031, 2, 3))
    t.refute_enqueued(typed, address=Address("High Street", "Bonn"))
    t.refute_enqueued(typed, address=None)
    t.refute_enqueued(typed, tags=frozenset({"x"}))
    t.refute_enqueued(typed, at=noon + timedelta(milliseconds=1))


def test_jobs_of_all_queues_are_seen_in_the_order_of_enqueueing(t: Testing) -> None:
    made: list[JobRecord[Any]] = [
        mail.opts(delay=50).enqueue("1"),
        urgent.enqueue(2),
        mail.enqueue("3"),
        mail.opts(delay=10).enqueue("4"),
        mail.opts(queue="elsewhere").enqueue("5"),
    ]
    t.clock.advance(5)
    made.append(urgent.enqueue(6))

    assert [record.id for record in t.enqueued()] == [record.id for record in made]


def test_what_has_run_is_held_or_is_dead_is_not_enqueued(t: Testing) -> None:
    mail.enqueue("done")
    t.drain()
    broken.opts(retry=0).enqueue(1)
    t.drain(reraise=False)
    mail.enqueue("held")
    t.crash_runner()

    assert t.enqueued() == []
    assert [record.name for record in t.dead()] == ["broken"]


def test_a_job_that_waits_for_its_retry_is_enqueued(t: Testing) -> None:
    broken.enqueue(1)
    t.drain(reraise=False)

    assert t.assert_enqueued(broken, number=1).attempt == 1


@pytest.mark.parametrize("wanted", [{"too": "a"}, {"to": 1}, {"to": None}, {"to": "a", "subject": 2}])
def test_an_unknown_or_wrong_argument_is_an_error_everywhere(t: Testing, wanted: dict[str, Any]) -> None:
    mail.enqueue("a")

    for ask in (t.enqueued, t.assert_enqueued, t.refute_enqueued):
        with pytest.raises(PayloadError, match="mail"):
            ask(mail, **wanted)


def test_a_misspelt_argument_is_answered_with_the_right_one(t: Testing) -> None:
    with pytest.raises(
        PayloadError, match=r"mail has no argument 'subjet', only to, subject; did you mean 'subject'\?"
    ):
        t.refute_enqueued(mail, subjet="x")


def test_an_unknown_kind_is_an_error_and_not_an_absence(t: Testing) -> None:
    elsewhere = JobQueue(namespace="elsewhere")

    @elsewhere.job(name="other")
    def other() -> None: ...

    @elsewhere.job(name="mail")
    def namesake() -> None: ...

    class NotRegistered(Resize, name="not registered"):
        pass

    for what in ("mial", other, namesake, NotRegistered, NotRegistered("x"), other.call()):
        with pytest.raises(UnknownJob):
            t.refute_enqueued(what)
    with pytest.raises(UnknownJob, match="did you mean 'mail'"):
        t.refute_enqueued("mial")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (7, "7 is no kind of job"),
        (int, "<class 'int'> is no kind of job"),
        (mail.opts(delay=1), r"opts\(…\) names no job yet"),
        (lambda: None, "<lambda> at .* is no kind of job"),
    ],
)
def test_what_names_no_kind_is_a_type_error(t: Testing, what: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        t.assert_enqueued(what)


def test_arguments_need_a_kind_and_an_exact_job_takes_none(t: Testing) -> None:
    with pytest.raises(TypeError, match="name the kind first"):
        t.enqueued(to="a")
    with pytest.raises(TypeError, match="exact"):
        t.assert_enqueued(mail.call("a"), subject="x")


def test_a_call_is_exact(t: Testing) -> None:
    record = mail.enqueue("a", subject="news")

    assert t.assert_enqueued(mail.call("a", subject="news")).id == record.id
    with pytest.raises(AssertionError, match="other subject"):
        t.assert_enqueued(mail.call("a"))


def test_a_call_spells_out_defaults_or_not(t: Testing) -> None:
    mail.enqueue("a")

    t.assert_enqueued(mail.call("a", "hello"))
    t.assert_enqueued(mail.call("a"))


def test_an_instance_is_exact(t: Testing) -> None:
    record = jobs.enqueue(Resize("x.png", 320))

    assert t.assert_enqueued(Resize("x.png", 320)).id == record.id
    with pytest.raises(AssertionError, match="other width"):
        t.assert_enqueued(Resize("x.png"))


def test_the_options_of_a_call_are_compared_where_it_has_any(t: Testing) -> None:
    at = NEW_YEAR + timedelta(days=1)
    mail.opts(queue="high", retry=3).enqueue("a")
    mail.opts(delay=60).enqueue("b")
    mail.opts(at=at).enqueue("c")

    t.assert_enqueued(mail.call("a"))
    t.assert_enqueued(mail.opts(queue="high", retry=3).call("a"))
    t.assert_enqueued(mail.opts(delay=60).call("b"))
    t.assert_enqueued(mail.opts(at=at).call("c"))
    for call, other in (
        (mail.opts(queue="low").call("a"), "queue"),
        (mail.opts(retry=4).call("a"), "retry"),
        (mail.opts(delay=61).call("b"), "delay"),
        (mail.opts(at=at + timedelta(seconds=1)).call("c"), "at"),
    ):
        t.refute_enqueued(call)
        with pytest.raises(AssertionError, match=f"← other {other}\n"):
            t.assert_enqueued(call)


def test_the_message_lists_what_is_enqueued_nearest_first(t: Testing) -> None:
    mail.opts(delay=3600).enqueue("a@example.org")
    broken.opts(retry=1).enqueue(1)
    t.drain(reraise=False)
    mail.enqueue("d@example.org", subject="x" * 500)

    with pytest.raises(AssertionError) as caught:
        t.assert_enqueued(mail, to="a@example.org", subject="news")

    lines = str(caught.value).split("\n")
    assert lines[0] == ("no job mail(to='a@example.org', subject='news', …) is enqueued; what is enqueued:")
    assert lines[1] == "  mail(to='a@example.org') in low, waiting, due in 1:00:00  ← other subject"
    assert lines[2].startswith("  mail(to='d@example.org', subject='xxx")
    assert lines[2].endswith("') in low, ready  ← other to, subject")
    assert len(lines[2]) < 250
    assert lines[3] == "  broken(number=1) in low, waiting, due in 0:02:00, failed 1×"
    assert lines[4].startswith("what happened to jobs of mail in this block")


def test_the_message_says_that_nothing_is_enqueued_and_where_jobs_are_instead(t: Testing) -> None:
    with pytest.raises(
        AssertionError, match=r"no job mail\(\) is enqueued; what is enqueued:\n  nothing\nwhat happened"
    ):
        t.assert_enqueued(mail)
    broken.opts(retry=0).enqueue(1)
    t.drain(reraise=False)
    mail.enqueue("a")
    t.crash_runner()

    with pytest.raises(AssertionError, match=r"\(besides 1 working and 1 dead\):\n  nothing\nwhat happened"):
        t.assert_enqueued(mail)


def test_the_message_is_cut_at_twenty_jobs(t: Testing) -> None:
    for number in range(30):
        urgent.enqueue(number)

    with pytest.raises(AssertionError) as caught:
        t.refute_enqueued(urgent)

    listed, _, past = str(caught.value).partition("\nwhat happened")
    assert len(listed.split("\n")) == 22
    assert listed.split("\n")[-1] == "  … and 10 more"
    assert past.split("\n")[1] == "  … 10 jobs earlier"
    assert past.split("\n")[2].startswith("  urgent(number=10) ")
    assert len(past.split("\n")) == 2 + 2 * 20


def test_refute_names_what_should_not_be_there(t: Testing) -> None:
    t.refute_enqueued()
    mail.enqueue("a")

    t.refute_enqueued(mail, to="b")
    t.refute_enqueued(urgent)
    with pytest.raises(
        AssertionError, match=r"mail\(to='a', …\) is enqueued, and should not be:\n  mail\(to='a'\) in low, ready"
    ):
        t.refute_enqueued(mail, to="a")
    with pytest.raises(AssertionError, match="any job is enqueued"):
        t.refute_enqueued()


def test_a_payload_that_does_not_fit_any_more_is_listed_and_never_matches(t: Testing) -> None:
    other = JobQueue(namespace=jobs.namespace, storage=t._backend.direct, clock=t.clock)

    @other.job(name="mail")
    def earlier(address: str) -> None: ...

    earlier.enqueue("a")

    with pytest.raises(AssertionError, match=r"""mail\(b'{"address":"a"}'\) in low, ready  ← other payload"""):
        t.assert_enqueued(mail)


def test_a_renamed_kind_is_found_by_either_name() -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="new", aliases=("old",))
    def renamed(number: int) -> None: ...

    with queue.testing() as t:
        record = renamed.enqueue(1)

        assert t.assert_enqueued("old", number=1) == t.assert_enqueued("new") == record


def test_a_job_stored_under_an_earlier_name_is_found(t: Testing) -> None:
    before = JobQueue(namespace=jobs.namespace, storage=t._backend.direct, clock=t.clock)

    @before.job(name="post")
    def post(to: str) -> None: ...

    record = post.enqueue("a")

    assert t.assert_enqueued(mail, to="a").id == record.id


def test_values_without_equality_are_compared_by_their_fields(t: Testing) -> None:
    queue = JobQueue(namespace="kit")

    @queue.job(name="point")
    def point(at: Point) -> None: ...

    with queue.testing() as inner:
        point.enqueue(Point(1, 2))

        inner.assert_enqueued(point, at=Point(1, 2))
        inner.refute_enqueued(point, at=Point(1, 3))


def test_a_field_that_was_not_stored_is_another_and_no_accident(t: Testing) -> None:
    before = JobQueue(namespace=jobs.namespace, storage=t._backend.direct, clock=t.clock)

    @before.job(name="resize")
    def resize(path: str) -> None: ...

    resize.enqueue("x.png")

    t.assert_enqueued(Resize, path="x.png")
    t.refute_enqueued(Resize, width=7)


def test_dead_jobs_are_listed_longest_dead_first(t: Testing) -> None:
    broken.opts(retry=0).enqueue(1)
    t.drain(reraise=False)
    t.clock.advance(1)
    broken.opts(retry=0, queue="high").enqueue(2)
    t.drain(reraise=False)

    first, second = t.dead()
    assert {first.queue, second.queue} == {"high", "low"}
    assert first.error is not None
    assert first.error.startswith("tests.unit.kit_jobs.Broken: ")
    assert (first.place, first.attempt) == ("dead", 1)


def test_a_context_for_plain_calls(t: Testing) -> None:
    context = t.context()

    assert (context.attempt, context.fence, context.lease_lost, context.cancelled) == (1, 1, False, False)
    assert context.record.place == "working"
    assert context.logger.name == "jobqueue.job"

    context = t.context(attempt=3, fence=9, lease_lost=True, cancelled=True)

    assert (context.attempt, context.fence, context.lease_lost, context.cancelled) == (3, 9, True, True)
    context.complete()  # a job may say so in a plain call, too
    assert (context.record.attempt, context.record.fence) == (2, 9)
    with pytest.raises(LookupError, match="no job is running here"):
        current_context()
    with pytest.raises(ValueError, match="the first run is attempt 1"):
        t.context(attempt=0)


async def test_a_plain_call_takes_the_context(t: Testing) -> None:
    assert await add(t.context(attempt=2), 1, 2) == 3


def test_a_function_that_was_called_by_mistake_names_no_job(t: Testing) -> None:
    mail.enqueue("a")
    answer: Any = None  # of a function that was called where its `call` was meant

    with pytest.raises(TypeError, match=r"None is no kind of job.*\.call\("):
        t.assert_enqueued(answer)


def test_in_a_block_inside_of_another_it_says_which_is_looked_at(t: Testing) -> None:
    mail.enqueue("a")
    with (
        jobs.testing() as inner,
        pytest.raises(AssertionError, match=r"in the innermost of the blocks that are open:\n  nothing"),
    ):
        inner.assert_enqueued(mail)
