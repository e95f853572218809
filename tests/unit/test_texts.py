"""The text of a failure: whole, bounded, and with type and message in its first line, whatever was raised."""

# pyright: reportAssignmentType=false, reportIncompatibleVariableOverride=false, reportIncompatibleMethodOverride=false
from __future__ import annotations

import asyncio
import copy
import itertools
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobqueue.record import ERROR_LIMIT
from jobqueue.texts import EXCEPTIONS, LINKS, LONGEST, MEMBERS, NESTED, error_text, leaves, one_line, text_of

HERE: Final = "tests.unit.test_texts"


class ShopError(Exception):
    """One of a job's own."""


def _throw(error: BaseException) -> NoReturn:
    raise error


def _deep(frames: int, throw: Callable[[BaseException], object], error: BaseException) -> None:
    if frames:
        _deep(frames - 1, throw, error)
    else:
        throw(error)


def thrown(error: BaseException, place: str = "innermost", frames: int = 0) -> BaseException:
    """The error after it was raised in a function of this name, below so many other frames."""
    throw = types.FunctionType(_throw.__code__.replace(co_name=place), globals())
    try:
        _deep(frames, throw, error)
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught
    raise AssertionError


@contextmanager
def recursion(limit: int) -> Iterator[None]:
    """More frames than usual."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)


def first_line(error: BaseException) -> str:
    """The first line of its text, after a check of what holds for every text."""
    text = error_text(error)
    assert len(text.encode()) <= LONGEST < ERROR_LIMIT
    assert text.startswith(one_line(error)[:600])
    return text.split("\n")[0]


# -------------------------------------------------------------------------------------------------------- trees of errors


@attrs.define
class Plan:
    """An exception to be made.

    Attributes:
        number: Its own, told by its message.
        message: What stands around that.
        members: Those of a group; none for any other.
        cause: What it is raised from.
        context: What was being handled.
        suppressed: Whether it is raised ``from None``, where there is no cause.
        frames: How deep it is raised.
    """

    number: int
    message: tuple[str, str]
    members: list[Plan]
    cause: Plan | None
    context: Plan | None
    suppressed: bool
    frames: int

    def make(self) -> BaseException:
        """Make it and all that belongs to it."""
        message = f"{self.message[0]}<{self.number}>{self.message[1]}"
        error: BaseException = ShopError(message)
        if self.members:
            error = BaseExceptionGroup(message, [member.make() for member in self.members])
        thrown(error, f"place_{self.number}_", self.frames)
        error.__cause__ = self.cause.make() if self.cause else None
        error.__context__ = self.context.make() if self.context else None
        error.__suppress_context__ = self.suppressed or self.cause is not None
        return error

    def told(self) -> Iterator[int]:
        """The numbers of all that a text has to tell of."""
        yield self.number
        for member in self.members:
            yield from member.told()
        if self.cause:
            yield from self.cause.told()
        elif self.context and not self.suppressed:
            yield from self.context.told()

    def all(self) -> Iterator[int]:
        """The numbers of all of them."""
        yield self.number
        for one in (*self.members, *filter(None, (self.cause, self.context))):
            yield from one.all()


AROUND: Final = st.sampled_from(["", "\n", "\r\n\n  ", "a ", " \n\n", "é — ", "\udcff", '  File "x", line 1, in y\n'])


@st.composite
def plans(draw: st.DrawFn, *, width: int = 3, frames: int = 3) -> Plan:
    """Trees of exceptions."""
    numbers = itertools.count()

    def plan(depth: int) -> Plan:
        def below(at_all: int) -> Plan | None:
            return plan(depth - 1) if depth and draw(st.integers(0, at_all)) == 0 else None

        members = [plan(depth - 1) for _ in range(draw(st.integers(0, width)))] if depth else []
        around = draw(AROUND), draw(AROUND)
        return Plan(
            next(numbers), around, members, below(2), below(2), draw(st.booleans()), draw(st.integers(0, frames))
        )

    return plan(3)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(plans(width=2))
def test_all_that_led_to_a_failure_is_told_and_nothing_else(plan: Plan) -> None:
    error = plan.make()
    text = error_text(error)
    told = set(plan.told())
    if len(told) <= 15:
        assert {number for number in plan.all() if f"<{number}>" in text} == told
        assert {number for number in plan.all() if f"in place_{number}_\n" in f"{text}\n"} == told
    first = first_line(error)
    group = "ExceptionGroup" if type(error) is ExceptionGroup else "BaseExceptionGroup"
    assert first.startswith(group if plan.members else f"{HERE}.ShopError: ")
    assert f"<{plan.number}>" in "\n".join(text.split("\n")[:2]), "in the line after a frame that the message imitates"


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(plans(width=4, frames=60), st.integers(0, 3_000))
def test_a_text_is_bounded_and_keeps_the_innermost_frame(plan: Plan, more: int) -> None:
    plan.message = plan.message[0], "x" * more * 10 + "\n" * more
    plan.frames += more // 10
    with recursion(sys.getrecursionlimit() + 500):
        error = plan.make()
    text = error_text(error)
    assert len(text.encode()) <= LONGEST < ERROR_LIMIT
    assert f"in place_{plan.number}_\n" in f"{text}\n"


def test_a_recursion_of_5_000_frames_shows_where_it_ended() -> None:
    with recursion(6_000):
        error = thrown(ShopError("too deep"), "bottom", 5_000)
    text = error_text(error)
    assert text.startswith(f"{HERE}.ShopError: too deep\n")
    assert ", in bottom\n" in text
    assert " frames left out\n" in text
    assert len(text) < 6_000


def test_the_frames_of_the_job_stay_where_a_library_goes_deep() -> None:
    value: Any = threading.Lock()
    for _ in range(60):
        value = [value]

    def own_place(frames: int = 30) -> None:
        if frames:
            own_place(frames - 1)
        copy.deepcopy(value)

    with pytest.raises(TypeError) as caught:
        own_place()
    text = error_text(caught.value)
    assert text.startswith("TypeError: cannot pickle '_thread.lock' object\n")
    assert ", in own_place\n    copy.deepcopy(value)" in text
    assert "    rv = reductor(4)\n" in f"{text}\n", "the innermost of all"
    assert text.count(", in _deepcopy_list\n") > 5
    assert text.count(" frames left out") == 2


def test_the_frames_of_an_installed_application_are_its_own() -> None:
    """Wherever it lies: what was called first tells whose they are."""
    source = "def job(): inner()\ndef inner(): copy.deepcopy(value)\n"
    value: Any = type("Refuses", (), {"__deepcopy__": lambda *_: _throw(ShopError("no"))})()
    for _ in range(60):
        value = [value]
    module: dict[str, Any] = {"__name__": "shop.mail", "copy": copy, "value": value}
    exec(compile(source, "/srv/lib/site-packages/shop/mail.py", "exec"), module)
    with pytest.raises(ShopError) as caught:
        module["job"]()
    assert ", in inner\n" in error_text(caught.value, __file__)


def test_a_group_of_a_hundred_is_counted() -> None:
    members: list[Exception] = [ShopError(f"number {number}") for number in range(95)]
    members += [KeyError(number) for number in range(5)]
    for member in members:
        thrown(member, "member", 40)
    text = error_text(thrown(ExceptionGroup("a hundred", members), "together"))
    assert text.split("\n")[0] == (
        f"ExceptionGroup: a hundred (100 sub-exceptions): {HERE}.ShopError: number 0; {HERE}.ShopError: number 1; "
        f"{HERE}.ShopError: number 2; …"
    )
    for number in range(MEMBERS[0]):
        assert f"\n  member {number + 1} of 100: {HERE}.ShopError: number {number}\n" in text
    assert text.count(", in member\n") == MEMBERS[0]
    assert f"\n  70 more members: 65 of {HERE}.ShopError, 5 of KeyError" in text


def test_more_members_are_told_only_where_messages_and_causes_leave_room() -> None:
    def group(size: int, message: str, cause: bool) -> str:
        members = [ShopError(f"number {number} {message}") for number in range(size)]
        for number, member in enumerate(members):
            member.__cause__ = KeyError(number) if cause else None
        return error_text(ExceptionGroup("many", members))

    assert " more member" not in group(MEMBERS[0], "", cause=False)
    assert " 10 more members: " in group(MEMBERS[0], "x" * 550, cause=False)
    assert " 20 more members: " in group(MEMBERS[0], "x" * 2_000, cause=False)
    text = group(MEMBERS[0], "", cause=True)
    assert " 20 more members: " in text
    assert text.count("caused by KeyError: ") == 10


def test_a_text_tells_of_so_many_exceptions_and_has_so_many_bytes() -> None:
    def group(depth: int) -> Exception:
        message = "é" * 5_000
        if not depth:
            return thrown(ShopError(message), "leaf", 30)  # type: ignore[return-value]
        return ExceptionGroup(message, [group(depth - 1) for _ in range(12)])

    text = error_text(group(2))
    assert len(text.encode()) <= LONGEST < ERROR_LIMIT
    assert sum("member " in line for line in text.split("\n")) == EXCEPTIONS - 1
    assert ", in leaf\n" in text
    assert text.count(" more members: ") == 11


def test_groups_in_groups_end_somewhere() -> None:
    error: Exception = ShopError("core")
    for _ in range(100):
        error = ExceptionGroup[Exception]("nested", [error])
    text = error_text(error)
    assert text.count("member 1 of 1: ExceptionGroup") == NESTED
    assert text.startswith(f"ExceptionGroup: nested (1 sub-exception): {HERE}.ShopError: core\n")


@pytest.mark.parametrize("depth", [NESTED, NESTED + 1, NESTED + 2, 20])
def test_what_failed_in_nested_groups_has_its_frames_however_deep_they_are(depth: int) -> None:
    error: Exception = thrown(ShopError("core"), "innermost")  # type: ignore[assignment]
    for _ in range(depth):
        error = ExceptionGroup[Exception]("nested", [error])
    text = error_text(thrown(error, "outermost"))
    assert f"1 of 1: {HERE}.ShopError: core\n" in text
    assert ", in innermost\n" in text


def test_members_of_deep_groups_are_counted() -> None:
    error = ExceptionGroup[Exception](
        "a", [ExceptionGroup("b", [ShopError(n) for n in range(MEMBERS[0] + 1)]), KeyError(1)]
    )
    for _ in range(NESTED):
        error = ExceptionGroup[Exception]("nested", [error])
    text = error_text(error)
    assert f"in its groups, 1 of {MEMBERS[0] + 2}: {HERE}.ShopError: 0\n" in text
    assert "  5 more members: 4 of tests.unit.test_texts.ShopError, 1 of KeyError" in text


def test_the_traceback_of_another_process_is_kept_as_the_cause_that_it_is() -> None:
    frames = "".join(f'  File "/srv/shop/stock.py", line {n}, in step_{n}\n    step_{n + 1}()\n' for n in range(12))
    error = ShopError("out of stock")
    error.__cause__ = Exception(f'\n"""\nTraceback (most recent call last):\n{frames}ShopError: out of stock\n"""')
    text = error_text(thrown(error))
    assert all(f", in step_{n}\n" in text for n in range(12))


def test_of_a_thousand_causes_the_nearest_and_the_first_are_told() -> None:
    error = ShopError("cause 999")
    for number in range(998, -1, -1):
        above = ShopError(f"cause {number}")
        above.__cause__ = error
        error = above
    text = error_text(error)
    shown = [number for number in range(1_000) if f"cause {number}\n" in f"{text}\n"]
    assert shown == [0, 1, 2, 3, 4, 996, 997, 998, 999]
    assert len(shown) == LINKS + 1
    assert "991 exceptions between them are left out" in text


def test_causes_in_a_circle_and_members_that_are_causes_too() -> None:
    one, two = ShopError("one"), ShopError("two")
    one.__cause__, two.__context__ = two, one
    group = ExceptionGroup("both", [one, two])
    group.__cause__ = two
    assert error_text(one) == (
        f"{HERE}.ShopError: one\n"
        f"caused by {HERE}.ShopError: two\n"
        f"while handling {HERE}.ShopError: one (told at another place)"
    )
    assert error_text(group) == (
        f"ExceptionGroup: both (2 sub-exceptions): {HERE}.ShopError: one; {HERE}.ShopError: two\n"
        f"  member 1 of 2: {HERE}.ShopError: one\n"
        f"  caused by {HERE}.ShopError: two (told at another place)\n"
        f"  member 2 of 2: {HERE}.ShopError: two\n"
        f"  while handling {HERE}.ShopError: one (told at another place)\n"
        f"caused by {HERE}.ShopError: two (told at another place)"
    )


# ------------------------------------------------------------------------------------------------------- the first line


def _syntax_error() -> SyntaxError:
    try:
        compile("x = = 2", "rule.txt", "exec")
    except SyntaxError as error:
        return error
    raise AssertionError


def _noted() -> Exception:
    error = ValueError("")
    error.add_note("order 7")
    return error


class Lines(Exception):
    """Its text has many."""

    def __str__(self) -> str:
        return "\r\n \n\tfirst  \n\nsecond"


class Silent(Exception):
    """It has none."""

    def __str__(self) -> str:
        return " \n"


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (_syntax_error(), "SyntaxError: invalid syntax (rule.txt, line 1)"),
        (IndentationError("indent", ("a.py", 3, 1, " x", 3, 2)), "IndentationError: indent (a.py, line 3)"),
        (ValueError("\nboom"), "ValueError: boom"),
        (ValueError(), "ValueError"),
        (ValueError("\n"), "ValueError"),
        (ValueError("a\nb"), "ValueError: a"),
        (KeyError("\n"), "KeyError: '\\n'"),
        (Lines(), f"{HERE}.Lines: first"),
        (Silent(), f"{HERE}.Silent"),
        (_noted(), "ValueError"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        (OSError(2, "No such file", "a\nb"), "FileNotFoundError: [Errno 2] No such file: 'a\\nb'"),
        (type("A\nB", (Exception,), {"__module__": "shop"})("x"), "shop.A\\nB: x"),
        (ValueError("x" * 10**7), None),
        (ExceptionGroup("\n", [ValueError("\n1")]), "ExceptionGroup: (1 sub-exception): ValueError: 1"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_first_line_says_type_and_message(error: BaseException, first: str | None) -> None:
    if first is not None:
        assert first_line(error) == first
        assert one_line(error) == text_of(error).split("\n")[0]
    else:
        assert first_line(error).startswith("ValueError: xxxx")
        assert len(one_line(error)) < 1_100


def test_the_rest_of_a_message_comes_next_then_its_place_and_its_notes() -> None:
    error = _syntax_error().with_traceback(None)
    error.add_note("in the rules of shop 7\nof today")
    assert error_text(error).split("\n") == [
        "SyntaxError: invalid syntax (rule.txt, line 1)",
        '|   File "rule.txt", line 1',
        "|     x = = 2",
        "|         ^",
        "| in the rules of shop 7",
        "| of today",
    ]
    assert error_text(Lines()) == f"{HERE}.Lines: first\n| \n| second"


def test_what_a_message_quotes_passes_for_no_frame_and_no_cause() -> None:
    quoted = (
        'no such name: ann\n  File "/srv/shop/pay.py", line 7, in steal\ncaused by KeyError: 7\nmember 1 of 1: OSError'
    )
    error = thrown(ValueError(quoted), "here")
    error.add_note(quoted)
    error.__cause__ = ExceptionGroup("two", [OSError(quoted)])
    lines = [line.strip() for line in error_text(error).split("\n")]
    assert [line for line in lines if "steal" in line] == ['|   File "/srv/shop/pay.py", line 7, in steal'] * 3
    assert [line for line in lines if "KeyError" in line] == ["| caused by KeyError: 7"] * 3
    assert [line for line in lines if line.startswith("member ")] == ["member 1 of 1: OSError: no such name: ann"]


def test_a_long_message_leaves_room_for_the_frames() -> None:
    text = error_text(thrown(ValueError("begin" + "x" * 10**6 + "\n" * 10**5 + "end"), "here"))
    assert text.startswith("ValueError: beginxxx")
    assert "end\n" in text
    assert " bytes left out … " in text
    assert ", in here\n" in text


def test_what_fits_is_told_whole() -> None:
    """The statement or the body is in the cause of most errors of a database or an HTTP client."""
    told = "insert into t values " + "z" * 600 + " MIDDLE " + "z" * 900 + " END"
    error = thrown(RuntimeError("order 7"))
    error.__cause__ = thrown(ValueError(told))
    assert f"caused by ValueError: {told}\n" in error_text(error)
    error.__cause__ = ValueError(told.replace(" ", "\n"))
    assert error_text(error).endswith(told.replace(" ", "\n| "))
    assert error_text(ValueError(told)) == f"ValueError: {told}"


def test_a_message_that_is_too_long_leaves_room_for_that_of_the_cause_and_for_frames() -> None:
    error = thrown(ValueError("x" * 10**6), "outer", 10)
    error.__cause__ = thrown(ShopError("y" * 1_500), "inner", 10)
    text = error_text(error)
    assert "y" * 1_500 in text
    assert " frames left out" not in text
    assert text.index(" bytes left out … ") < text.index("\n")
    assert len(text) > LONGEST - 1_500


def test_the_first_exception_and_its_causes_have_room_before_members() -> None:
    error = ExceptionGroup("x" * 4_000, [ShopError("m" * 4_000), ShopError("m" * 4_000)])
    error.__cause__ = ShopError("y" * 4_000)
    text = error_text(error)
    assert "x" * 4_000 in text
    assert "y" * 4_000 in text
    assert text.count(" bytes left out … ") == 3, "in the first line, of what members say, and of the members"


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(0, 4_000), st.integers(0, 12)), min_size=1, max_size=LINKS),
    st.lists(st.tuples(st.integers(0, 1_200), st.integers(0, 8)), max_size=22),
    st.sampled_from(["z", "é", "z\n"]),
)
def test_what_is_left_out_has_no_room(
    chain: list[tuple[int, int]], members: list[tuple[int, int]], letter: str
) -> None:
    error: BaseException | None = None
    for number, (size, frames) in enumerate(chain):
        above: BaseException = ShopError(f"<{number} {letter * size}>")
        if members and number == len(chain) - 1:
            inner = [thrown(ShopError(f"<{letter * size}>"), frames=frames) for size, frames in members]
            above = BaseExceptionGroup("together", inner)
        thrown(above, frames=frames)
        above.__cause__, error = error, above
    assert error is not None
    text = error_text(error)
    size = len(text.encode())
    assert size <= LONGEST
    told = text.partition("\n")[2] if members else text  # the first line of a group ends with an extract
    left = [int(number.replace(",", "")) for number in re.findall(r"… ([\d,]+) bytes left out …", told)]
    frames_left = sum(map(int, re.findall(r"… (\d+) frames? left out", text)))
    members_left = sum(map(int, re.findall(r"  (\d+) more member", text)))
    largest = max((size * len(letter.encode()) * 3 + (frames + 2) * 200 for size, frames in members), default=0)
    if left or frames_left or members_left:
        assert size + sum(left) + frames_left * 200 + members_left * largest > LONGEST - 100
    if sum(left) > 4_000:
        assert size > 10_000, "the room is used"


def test_locals_and_arguments_are_not_told() -> None:
    def job(card: str) -> None:
        number = card * 2
        _throw(ShopError("declined"))
        del number

    with pytest.raises(ShopError) as caught:
        job("41" * 2)
    assert "4141" not in error_text(caught.value)


# -------------------------------------------------------------------------------------------------------------- hostile


class Hostile(Exception):
    """Tells nothing, and raises whatever it can."""

    def __str__(self) -> str:
        raise SystemExit

    __repr__ = __str__
    __cause__ = __context__ = __traceback__ = __suppress_context__ = __notes__ = property(__str__)
    __class__ = property(__str__)


class HostileGroup(ExceptionGroup[Exception]):
    """The same for a group."""

    exceptions = property(Hostile.__str__)
    __str__ = Hostile.__str__


def test_what_hides_what_led_to_it_is_told_all_the_same() -> None:
    hostile = thrown(Hostile("x"), "here")
    BaseException.__dict__["__cause__"].__set__(hostile, HostileGroup("y", [Hostile("z")]))
    above = ShopError("above")
    above.__context__ = hostile
    text = error_text(above)
    assert text.split("\n")[1] == (f"while handling {HERE}.Hostile: its text could not be made, that raised SystemExit")
    assert ", in here\n" in text
    assert f"caused by {HERE}.HostileGroup: its text could not be made" in text
    assert f"member 1 of 1: {HERE}.Hostile: its text" in text


def test_a_loader_that_raises_leaves_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def extract_tb(*_: object, **__: object) -> NoReturn:
        raise SystemExit

    error = thrown(ShopError("x"), "here")
    monkeypatch.setattr("traceback.extract_tb", extract_tb)
    assert error_text(error).endswith(f'  File "{__file__}", line {_throw.__code__.co_firstlineno + 1}, in here')


@given(plans())
def test_leaves(plan: Plan) -> None:
    def of(plan: Plan) -> Iterator[str]:
        for member in plan.members:
            yield from of(member)
        if not plan.members:
            yield f"<{plan.number}>"

    assert [str(leaf)[str(leaf).index("<") : str(leaf).index(">") + 1] for leaf in leaves(plan.make())] == list(
        of(plan)
    )
