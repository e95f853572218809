"""Typed arguments travel as JSON: what is enqueued is what the job receives, and nothing else passes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import string
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID, uuid4

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.codec import REQUIRED, Codec, Parameter
from jobqueue.errors import DeclarationError, PayloadError
from jobqueue.job import Declared, function_kind


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mood(StrEnum):
    GOOD = "good"


class Movie(TypedDict, total=False):
    title: str
    year: int


class Pair(NamedTuple):
    left: int
    right: str


@attrs.frozen
class Point:
    x: int
    y: float | None = None


@attrs.define
class Path:
    points: list[Point]
    name: str = "path"
    tags: set[str] = attrs.Factory(set)


@attrs.frozen
class Point3(Point):
    z: int = 0


def _is_even(_: object, __: object, value: int) -> None:
    if value % 2:
        raise ValueError("odd")


@attrs.frozen
class Even:
    number: int = attrs.field(validator=_is_even)


@attrs.define(eq=False)
class Incomparable:
    x: int


@dataclasses.dataclass
class Node:
    value: int
    children: list[Node] = dataclasses.field(default_factory=list)


UserId = NewType("UserId", int)
Positive = Annotated[int, msgspec.Meta(gt=0)]


def receive(hint: Any, *values: Any) -> Any:
    """What a job of one parameter receives, when it is given this value."""

    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": hint}
    kind = function_kind(take, "shop.take", Declared(), (), None)
    payload = kind.encode(dict.fromkeys(("value",), *values))
    return kind.bind(payload, None)()  # type: ignore[arg-type] # it takes no context


# ------------------------------------------------------------------------------------------------------------ property

texts = st.text(max_size=8)
keys = st.text(string.ascii_letters, min_size=1, max_size=5)
offsets = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(minutes=1)), None])
points = st.builds(Point, st.integers(), st.none() | st.floats(allow_nan=False, allow_infinity=False))

leaves: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (str, texts),
    (None, st.none()),
    (bytes, st.binary(max_size=8)),
    (datetime, st.datetimes(timezones=offsets)),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mood, st.sampled_from(Mood)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (UserId, st.integers()),
    (Positive, st.integers(min_value=1)),
    (Movie, st.fixed_dictionaries({}, optional={"title": texts, "year": st.integers()})),
    (Pair, st.builds(Pair, st.integers(), texts)),
    (Point, points),
    (Path, st.builds(Path, st.lists(points, max_size=2), texts, st.sets(texts, max_size=2))),
    (
        Node,
        st.recursive(
            st.builds(Node, st.integers()), lambda s: st.builds(Node, st.integers(), st.lists(s)), max_leaves=3
        ),
    ),
]
HASHABLE = {int, bool, str, bytes, date, UUID, Colour, Mood}
SIMPLE = {int, float, bool, str, bytes, UUID, date, datetime, Colour}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 2) -> tuple[Any, st.SearchStrategy[Any]]:
    """An annotation, and a strategy of values that fit it."""
    shape = draw(st.sampled_from(["leaf", "list", "tuple", "pair", "set", "dict", "optional"] if depth else ["leaf"]))
    if shape == "leaf":
        leaf: tuple[Any, st.SearchStrategy[Any]] = draw(st.sampled_from(leaves))
        return leaf
    if shape in ("set", "dict", "optional"):
        wanted = SIMPLE if shape == "optional" else HASHABLE
        hint, values = draw(st.sampled_from([leaf for leaf in leaves if leaf[0] in wanted]))
        if shape == "set":
            make = draw(st.sampled_from([set, frozenset]))
            return GenericAlias(make, hint), st.sets(values, max_size=3).map(make)
        if shape == "optional":
            return hint | None, values | st.none()
        inner, items = draw(typed_values(depth=depth - 1))
        key, names = draw(st.sampled_from([(str, keys), (int, st.integers()), (UUID, st.uuids())]))
        return GenericAlias(dict, (key, inner)), st.dictionaries(names, items, max_size=3)
    hint, values = draw(typed_values(depth=depth - 1))
    if shape == "list":
        return GenericAlias(list, hint), st.lists(values, max_size=3)
    if shape == "tuple":
        return GenericAlias(tuple, (hint, ...)), st.lists(values, max_size=3).map(tuple)
    return GenericAlias(tuple, (hint, int)), st.tuples(values, st.integers())


@given(st.data())
def test_a_job_receives_what_was_enqueued(data: st.DataObject) -> None:
    hint, values = data.draw(typed_values())
    value = data.draw(values)

    assert receive(hint, value) == value


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "1"), (int, 1.0), (int, True), (int, None), (bool, 1), (float, "1"), (float, True), (str, 1), (str, b"a"),
        (str, uuid4()), (str, Colour.RED), (bytes, "aGk="), (date, "2030-01-01"), (date, datetime(2030, 1, 1, tzinfo=UTC)),
        (datetime, 0), (timedelta, 5), (UUID, str(UUID(int=7))), (Decimal, 1.5), (Literal["a"], "b"), (Positive, 0),
        (Colour, "green"), (list[int], [1, "2"]), (tuple[int, str], (1,)), (dict[str, int], {"a": "b"}), (set[int], {"a"}),
        (int | None, "x"), (Point, {"x": "a"}), (Point, Node(1)), (Movie, {"year": "x"}), (list[int], object()),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(hint: Any, value: Any) -> None:
    with pytest.raises(PayloadError, match=r"^shop\.take: argument `value") as caught:
        receive(hint, value)

    assert caught.value.__cause__ is caught.value.__context__ is None  # they would quote the value


@pytest.mark.parametrize(
    ("hint", "value", "where"),
    [
        (Point, Point("1"), "value.x"),  # type: ignore[arg-type]
        (Point, Point(True), "value.x"),
        (Path, Path([Point(1), Point(2.5)]), "value.points[...].x"),  # type: ignore[arg-type]
        (Path, Path([Point(1)], name=uuid4()), "value.name"),  # type: ignore[arg-type]
        (Incomparable, Incomparable("1"), "value.x"),  # type: ignore[arg-type]
        (list[Node], [Node(1, [Node("2")])], "value[...].children[...].value"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_type_inside_of_an_instance_is_refused(hint: Any, value: Any, where: str) -> None:
    with pytest.raises(PayloadError) as caught:
        receive(hint, value)

    assert f"argument `{where}`".replace("[...]", "[0]") in str(caught.value).replace("[...]", "[0]").replace(
        "[1]", "[0]"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("hint", "make", "where"),
    [
        (float, lambda bad: bad, "value"),
        (float | None, lambda bad: bad, "value"),
        (Any, lambda bad: {"a": [bad]}, "value[...][0]"),
        (list[float], lambda bad: [1.0, bad], "value[1]"),
        (list[float | None], lambda bad: [1.0, bad], "value[1]"),
        (dict[str, float | None], lambda bad: {"a": bad}, "value[...]"),
        (frozenset[float], lambda bad: frozenset({bad}), "value[0]"),
        (Point, lambda bad: Point(1, bad), "value.y"),
        (dict[str, list[Point]], lambda bad: {"k": [Point(1, bad)]}, "value[...][0].y"),
        (Movie, lambda bad: {"title": "x", "year": bad}, "value[...]"),
    ],
)
def test_numbers_that_json_has_not_are_refused(hint: Any, make: Any, where: str, bad: float) -> None:
    with pytest.raises(PayloadError) as caught:
        receive(hint, make(bad))

    assert str(caught.value) == f"shop.take: argument `{where}`: {bad} has no form in JSON; give a finite number"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_json_has_not_is_refused_as_a_key(bad: float) -> None:
    with pytest.raises(PayloadError, match=f"argument `value`: {bad} has no form in JSON"):
        receive(dict[float, int], {bad: 1})


def test_what_would_arrive_changed_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"`value\.points\[0\]`: a Point3 would arrive as a Point"):
        receive(Path, Path([Point3(1)]))
    with pytest.raises(PayloadError, match=r"a key of type str would not arrive"):
        receive(Movie, {"title": "M", "director": "Lang"})
    with pytest.raises(PayloadError, match=r"`value`: a Colour would arrive as a str"):
        receive(Any, Colour.RED)
    with pytest.raises(PayloadError, match=r"`value\[...\]`: an? UUID would arrive as a str"):
        receive(dict[str, Any], {"id": uuid4()})
    with pytest.raises(PayloadError, match="would arrive as"):
        receive(Any, Point(1))
    with pytest.raises(PayloadError, match="would arrive as"):
        receive(Any, {1, 2})


def test_what_an_annotation_allows_is_accepted() -> None:
    assert receive(float, 1) == 1.0
    assert receive(Sequence[int], [1, 2]) == [1, 2]
    assert receive(Mapping[str, int], {"a": 1}) == {"a": 1}
    assert receive(list[Point], [Point(1, 2)]) == [Point(1, 2.0)]
    assert receive(Any, {"a": [1, None, "x", 2.5, True]}) == {"a": [1, None, "x", 2.5, True]}
    assert receive(Incomparable, Incomparable(1)).x == 1


def test_validators_of_instances_run_again() -> None:
    codec = Codec("shop.take", [Parameter("value", Even)])

    assert codec.decode(b'{"value":{"number":2}}') == (Even(2),)
    with pytest.raises(PayloadError, match="ValueError in _is_even"):
        codec.decode(b'{"value":{"number":3}}')


def test_what_has_no_form_in_json_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(
            PayloadError, match=r"shop\.take: argument `value`: it is nested too deep, or contains itself"
        ):
            receive(Any, value)
    with pytest.raises(PayloadError, match="half of a surrogate pair"):
        receive(str, "\ud800")
    with pytest.raises(PayloadError, match="digits"):
        receive(int, 10**5000)
    with pytest.raises(PayloadError, match=r"Encoding objects of type object is unsupported|no form in JSON"):
        receive(Any, object())
    with pytest.raises(PayloadError, match=r"a key of type tuple has no form in JSON"):
        receive(Any, {(1, 2): 3})


# ------------------------------------------------------------------------------------------------------------ decoding

CODEC = Codec(
    "shop.send",
    [Parameter("to", str), Parameter("cc", list[str], []), Parameter("size", int, 640), Parameter("__class__", int, 0)],
)


def test_only_what_was_given_is_stored() -> None:
    assert CODEC.encode({"to": "a"}) == b'{"to":"a"}'
    assert CODEC.encode({"to": "a", "size": 640}) == b'{"to":"a","size":640}'
    assert CODEC.arguments(b'{"size":640,"to":"a"}') == {"to": "a", "size": 640}


def test_defaults_are_filled_in_at_the_end() -> None:
    assert CODEC.decode(b'{"to":"a"}') == ("a", [], 640, 0)
    assert CODEC.decode(b'{"to":"a","__class__":5}') == ("a", [], 640, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Object missing required field `to`"),
        ({"to": "a", "bcc": "b"}, "an argument that is not declared; declared: `to`, `cc`, `size`"),
        ({"to": "a", "p1": []}, "an argument that is not declared"),
    ],
)
def test_a_missing_or_unknown_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CODEC.encode(arguments)


def written(*calls: dict[str, Any], together: bool) -> list[bytes] | str:
    """The payloads, or what the refusal says."""
    try:
        return CODEC.encode_all(calls) if together else [CODEC.encode(arguments) for arguments in calls]
    except PayloadError as error:
        return str(error)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"to": texts | st.none()},
            optional={"cc": st.lists(texts, max_size=2), "size": st.floats(), "bcc": st.none()},
        ),
        max_size=4,
    )
)
def test_many_calls_are_written_and_refused_like_each_alone(calls: list[dict[str, Any]]) -> None:
    assert written(*calls, together=True) == written(*calls, together=False)


def test_what_would_arrive_changed_is_found_among_many() -> None:
    codec = Codec("shop.send", [Parameter("at", Any)])
    with pytest.raises(PayloadError, match=r"shop\.send: argument `at`: a key of type int would not arrive") as caught:
        codec.encode_all([{"at": 1}, {"at": {1: 2}}])
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"null", b"[]", b'"a"', b"{", b"{}", b'{"to":1}', b'{"to":null}', b'{"to":"a","ctx":1}', b'{"to":"a","self":1}',
        b'{"to":"a","p1":[]}', b'{"to":"a","size":NaN}', b'{"to":"a","size":1e400}', b"\xff\xfe", b'{"to":"\xff"}',
        b'{"to":"a","size":' + b"9" * 5000 + b"}", b"\x80\x04\x95", b'{"to":"a"} x', b'{"to":"a","cc":' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_bytes_that_do_not_fit_are_a_payload_error(payload: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^shop\.send: "):
        CODEC.decode(payload)
    with pytest.raises(PayloadError, match=r"^shop\.send: "):
        CODEC.arguments(payload)


def test_depth_bombs_are_a_payload_error() -> None:
    codec = Codec("shop.any", [Parameter("value", Any)])

    with pytest.raises(PayloadError, match="nested too deep"):
        codec.decode(b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@given(st.binary())
def test_no_bytes_make_another_error(payload: bytes) -> None:
    with contextlib.suppress(PayloadError):
        CODEC.decode(payload)


class Interruption(Exception):
    """What a signal handler raises wherever its thread is: a limit of time, say."""


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("always", [False, True])
def test_what_is_thrown_in_from_outside_is_no_fault_of_the_arguments(many: bool, always: bool) -> None:
    interruptions = [Interruption()]

    @attrs.define
    class Slow:
        number: int

        def __attrs_post_init__(self) -> None:
            if interruptions and self.number == 1:
                raise interruptions[0] if always else interruptions.pop()

    codec = Codec("shop.take", [Parameter("value", Slow)])
    calls = [{"value": object.__new__(Slow)} for _ in range(1 + many)]
    for number, call in enumerate(calls):
        call["value"].number = number if many else 1

    with pytest.raises(PayloadError if always else Interruption):
        codec.encode_all(calls)
    if not always:
        assert codec.encode_all(calls)[-1] == b'{"value":{"number":1}}'


def test_some_of_the_arguments_can_be_checked_alone() -> None:
    assert CODEC.partial({"size": 3}) == {"size": 3}
    assert CODEC.partial({}) == {}
    with pytest.raises(PayloadError, match="argument `size`: Expected `int`, got `str`"):
        CODEC.partial({"size": "3"})
    with pytest.raises(PayloadError, match="an argument that is not declared"):
        CODEC.partial({"colour": 3})


def test_a_required_parameter_may_follow_one_with_a_default() -> None:
    codec = Codec("shop.f", [Parameter("a", int, 1), Parameter("b", int, REQUIRED)])

    assert codec.decode(b'{"b":2}') == (1, 2)


# --------------------------------------------------------------------------------------------------------- declaration


class Opaque:
    pass


@attrs.frozen
class Private:
    x: int
    _secret: int = 0


@dataclasses.dataclass
class PrivateData:
    _secret: int = 0


@attrs.frozen
class Converted:
    x: int = attrs.field(converter=int)


@attrs.frozen
class Outer:
    inner: dict[str, list[Converted]]


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Opaque, "cannot be stored as Opaque"),
        (list[Opaque], "cannot be stored as Opaque"),
        (object, "cannot be stored as object"),
        (complex, "cannot be stored as complex"),
        (type[int], "cannot be stored as"),
        (memoryview, "cannot be stored as memoryview"),
        (Private, "the field `_secret` of Private is private"),
        (PrivateData, "the field `_secret` of PrivateData is private"),
        (Converted, "the field `x` of Converted has a converter"),
        (Outer, "the field `x` of Converted has a converter"),
        (Point | Path, "cannot be stored as .*more than one dataclass or attrs type"),
        (list[Point | Node], "more than one dataclass or attrs type"),
        (str | bytes, "more than one str-like type"),
    ],
)
def test_a_type_that_cannot_travel_is_refused_at_declaration(hint: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=rf"shop\.take: parameter `value` ?.*{message}"):
        receive(hint, None)
