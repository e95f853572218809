"""Whatever is given for whatever is declared: it arrives as it was, in value and type, or the refusal names the argument."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import types
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from types import GenericAlias
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobqueue.codec import Codec, Parameter
from jobqueue.errors import DeclarationError, PayloadError
from jobqueue.job import Declared, function_kind

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = datetime(1890, 1, 1)  # noqa: DTZ001 - with every zone


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Mood(StrEnum):
    GOOD = "good"


class Right(Flag):
    READ = 1
    WRITE = 2


class IntRight(IntFlag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: int
    right: str


class Movie(TypedDict, total=False):
    title: str
    at: datetime


@attrs.frozen
class Item:
    price: float
    note: Any = None


@attrs.frozen
class Rare(Item):
    since: int = 0


@attrs.frozen
class Order:
    items: list[Item]
    at: datetime | None = None


@dataclasses.dataclass(frozen=True)
class Box:
    content: Any


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Row(dict[str, Any]):
    pass


class Later(datetime):
    pass


def receive(hint: Any, value: Any) -> Any:
    """What a job of one parameter receives, when it is given this value."""

    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": hint}
    kind = function_kind(take, "shop.take", Declared(), (), None)
    return kind.bind(kind.encode({"value": value}), None)()  # type: ignore[arg-type] # it takes no context


def same(given: Any, got: Any) -> bool:
    """Whether two values are the same in value and type, all the way down; an int may have become that very float."""
    if type(given) is int and type(got) is float:
        return got.is_integer() and int(got) == given
    if type(given) is not type(got):
        return False
    if isinstance(given, float):
        return given == got and math.copysign(1, given) == math.copysign(1, got)
    if isinstance(given, dict):
        return len(given) == len(got) and same([*given.items()], [*got.items()])
    if isinstance(given, list | tuple):
        return len(given) == len(got) and all(same(a, b) for a, b in zip(given, got, strict=True))
    if isinstance(given, set | frozenset):
        return len(given) == len(got) and all(any(same(a, b) for b in got) for a in given)
    if isinstance(given, Item | Order):
        return same(attrs.astuple(given, recurse=False), attrs.astuple(got, recurse=False))
    if isinstance(given, Box):
        return same(given.content, got.content)
    if isinstance(given, datetime):
        half_a_year = timedelta(days=182)
        return (
            given == got
            and given.utcoffset() == got.utcoffset()
            and _offset(given, half_a_year) == _offset(got, half_a_year)
        )
    if isinstance(given, time):
        return given == got and (given.tzinfo is None) == (got.tzinfo is None)
    return bool(given == got)


def _offset(moment: datetime, later: timedelta) -> timedelta | None:
    return (moment.replace(year=2000) + later).utcoffset()


zones: Any = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=5, minutes=45)), BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")]
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.decimals(),
    st.uuids(),
    st.datetimes(min_value=FIRST, timezones=zones),
    st.times(timezones=zones),
    st.dates(),
    st.timedeltas(),
    st.sampled_from(
        [
            Colour.RED,
            Level.LOW,
            Mood.GOOD,
            Text("a"),
            Whole(3),
            Later(2030, 1, 1),
            IntRight.READ,
            "good",
            "red",
            "a",
            1,
            -0.0,
            2**53,
            2**70,
            Pair(1, "a"),
            bytearray(b"a"),
            "\ud800",
            object(),
        ]
    ),
    st.builds(Item, st.floats() | st.integers()),
    st.builds(Rare, st.just(1.0)),
)
keys = st.one_of(
    st.text(max_size=2),
    st.integers(0, 3),
    st.booleans(),
    st.none(),
    st.sampled_from([Mood.GOOD, Text("k"), "1", (1, 2), 1.5, b"k"]),
)
values = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=2),
        st.lists(parts, max_size=2).map(tuple),
        st.dictionaries(keys, parts, max_size=2),
        st.dictionaries(st.text(max_size=2), parts, max_size=2).map(Row),
        st.builds(Box, parts),
        st.builds(Item, st.just(1), parts),
        st.dictionaries(st.sampled_from(["title", "at"]), parts),
    ),
    max_leaves=4,
)
flat = st.sets(
    st.one_of(
        st.integers(0, 3),
        st.text(max_size=2),
        st.floats(0, 3),
        st.sampled_from([Mood.GOOD, (1, "a"), Pair(1, "a"), Level.LOW]),
    ),
    max_size=2,
)
hints = st.sampled_from(
    [
        Any,
        int,
        float,
        bool,
        str,
        bytes,
        bytearray,
        datetime,
        date,
        time,
        timedelta,
        UUID,
        Decimal,
        None,
        Colour,
        Level,
        Mood,
        Pair,
        Movie,
        Item,
        Box,
        Order,
        Literal["a", 1],
        Annotated[int, msgspec.Meta(ge=0)],
        int | None,
        float | None,
        int | float,
        float | str,
        datetime | None,
        list,
        dict,
        tuple,
        set,
        frozenset,
        list[Any],
        list[int],
        list[float],
        list[Item],
        list[Any] | None,
        dict[str, Any],
        dict[str, float],
        dict[int, Any],
        dict[Mood, Any],
        dict[float, int],
        dict[bytes, int],
        dict[int | date, Any],
        tuple[Any, ...],
        tuple[Any, int],
        set[int],
        set[float],
        set[Any],
        frozenset[str],
        set[tuple[int, str]],
        Sequence[Any],
        Mapping[str, Any],
        list[dict[str, Any]],
        dict[str, list[Box]],
    ]
)


@settings(max_examples=300)
@given(hints, values | flat | flat.map(frozenset))
def test_a_value_arrives_as_it_was_or_the_refusal_names_the_argument(hint: Any, value: Any) -> None:
    try:
        got = receive(hint, value)
    except PayloadError as error:
        assert str(error).startswith("shop.take: argument `value")  # noqa: PT017 - it may arrive as well
    else:
        assert same(value, got)


plain = st.sampled_from([int, float, float | None, int | None, str, bytes, bytearray, bool, UUID, date, Mood])
odd = [
    math.nan,
    math.inf,
    2**53 + 1,
    2,
    1.0,
    True,
    None,
    Level.LOW,
    Mood.GOOD,
    Text("a"),
    Whole(3),
    Later(2030, 1, 1),
    "a",
]
containers: list[tuple[Any, Any]] = [  # of a type, and of values
    (lambda part: GenericAlias(list, part), list), (lambda part: GenericAlias(tuple, (part, ...)), tuple),
    (lambda part: GenericAlias(tuple, (part, part)), tuple), (lambda part: GenericAlias(set, part), set),
    (lambda part: GenericAlias(frozenset, part), frozenset), (lambda part: GenericAlias(list, part), set),
    (lambda part: GenericAlias(dict, (str, part)), lambda items: dict(zip("abc", items, strict=False))),
    (lambda part: GenericAlias(dict, (part, int)), lambda items: dict.fromkeys(items, 1)),
    (lambda part: GenericAlias(dict, (str, GenericAlias(list, part))), lambda items: {"a": items}),
    (lambda part: GenericAlias(dict, (str, GenericAlias(list, part))), lambda items: Row({"a": items})),
    (lambda part: GenericAlias(list, GenericAlias(list, part)), lambda items: [[], items]),
    (lambda part: GenericAlias(list, GenericAlias(list, part)), lambda items: [tuple(items)]),
    (lambda part: GenericAlias(list, GenericAlias(list, part)), lambda items: (items,)),
]  # fmt: skip


@functools.cache
def codec_of(part: Any, shape: int) -> Codec | None:
    try:
        return Codec("shop.take", [Parameter("value", containers[shape][0](part))])
    except TypeError:  # a set or a dict cannot have such a part
        return None


@settings(max_examples=200)
@given(st.data(), plain, st.integers(0, len(containers) - 1))
def test_so_do_containers_of_plain_values(data: st.DataObject, part: Any, shape: int) -> None:
    items = data.draw(st.lists(st.sampled_from(odd) | st.from_type(part), max_size=3))
    codec = codec_of(part, shape)
    if codec is None:
        return
    try:
        value = containers[shape][1](items)
        got = codec.arguments(codec.encode({"value": value}))["value"]
    except PayloadError as error:
        assert str(error).startswith("shop.take: argument `value")  # noqa: PT017 - it may arrive as well
    except TypeError:  # a set was made of what has no hash
        assert bytearray in map(type, items)
    else:
        assert same(value, got)


simple = st.sampled_from([
    int, float, bool, str, bytes, bytearray, date, timedelta, UUID, Mood, Level, None,
    str | None, int | None, float | None, int | bool,
])  # fmt: skip


@settings(max_examples=300)
@given(st.data(), st.lists(simple, min_size=1, max_size=3))
def test_so_do_several_arguments(data: st.DataObject, types: list[Any]) -> None:
    names = "abc"[: len(types)]
    codec = Codec("shop.take", [Parameter(name, hint) for name, hint in zip(names, types, strict=True)])
    fitting = [leaves | st.from_type(type(None) if hint is None else hint) for hint in types]
    calls = [dict(zip(names, data.draw(st.tuples(*fitting)), strict=True)) for _ in range(data.draw(st.integers(1, 2)))]
    try:
        payloads = codec.encode_all(calls)
    except PayloadError as error:
        assert str(error).startswith("shop.take: argument `")  # noqa: PT017 - they may arrive as well
    else:
        assert same(calls, [codec.arguments(payload) for payload in payloads])


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (float, 2**53 + 1, "`value`: an int would arrive as a float that is another number"),
        (list[float], [1, 2**53 + 1], r"`value\[1\]`: an int would arrive as a float"),
        (set[float], {2**53 + 1}, "`value`: "),
        (dict[float, int], {2**53 + 1: 1}, "`value`: a key of type int would not arrive"),
        (Order, Order([Item(2**53 + 1)]), r"`value\.items\[0\]\.price`: an int would arrive as"),
        (Any, (1,), r"`value`: a tuple would arrive as a list"),
        (dict, {"a": [(1,)]}, r"`value\[\.\.\.\]\[0\]`: a tuple would arrive as a list"),
        (list, [(1,)], r"`value\[0\]`: a tuple would arrive as a list"),
        (Order, Order([Item(1, (1,))]), r"`value\.items\[0\]\.note`: a tuple would arrive as a list"),
        (list[int], (1,), r"`value`: a tuple would arrive as a list"),
        (list[int], {1}, r"`value`: a set would arrive as a list"),
        (tuple[int, ...], [1], r"`value`: a list would arrive as a tuple"),
        (tuple[int, str], Pair(1, "a"), "a Pair would arrive as a tuple"),
        (Pair, (1, "a"), r"a tuple would arrive as a Pair"),
        (Any, Mood.GOOD, "a Mood would arrive as a str"),
        (str, Mood.GOOD, "a Mood would arrive as a str"),
        (int, Level.LOW, "a Level would arrive as an int"),
        (list[Mood], ["good"], r"`value\[0\]`: a str would arrive as a Mood"),
        (dict[str, Mood], {"a": "good"}, r"`value\[\.\.\.\]`: a str would arrive as a Mood"),
        (dict[Mood, int], {"good": 1}, "`value`: a str would arrive as a Mood"),
        (Mood, "good", "a str would arrive as a Mood"),
        (int, Whole(3), "a Whole would arrive as an int"),
        (str, Text("a"), "Text has no form in JSON; give a plain str"),
        (datetime, Later(2030, 1, 1), "Expected `datetime`, got `Later`"),
        (bytes, bytearray(b"a"), r"a bytearray would arrive as a bytes"),
        (dict[str, int], collections.Counter("a"), "a Counter would arrive as a dict"),
        (dict[str, int], collections.OrderedDict(a=1), "an OrderedDict would arrive as a dict"),
        (Mapping[str, int], types.MappingProxyType({"a": 1}), "a mappingproxy would arrive as a dict"),
        (Decimal, Decimal("NaN77"), "`: NaN has no form in JSON"),
        (list[Decimal], [Decimal("sNaN77")], r"`value\[0\]`: sNaN has no form in JSON"),
        (datetime, datetime(2030, 7, 1, tzinfo=BERLIN), r"its zone would arrive as the fixed offset .*\(UTC\)"),
        (Order, Order([], datetime(2030, 7, 1, tzinfo=BERLIN)), r"`value\.at`: its zone"),
        (set[datetime], {datetime(2030, 7, 1, tzinfo=BERLIN)}, "its zone"),
        (dict[datetime, int], {datetime(2030, 7, 1, tzinfo=BERLIN): 1}, "its zone"),
        (time, time(12, tzinfo=BERLIN), "its zone would not arrive"),
        (datetime, datetime(1893, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28))),
            r": the seconds of its offset from UTC would not arrive: give the moment, \.astimezone\(UTC\)$"),
        (dict[str, Any], {"a": {(1, 2): 3}}, r"`value\[\.\.\.\]`: a key of type tuple has no form in JSON"),
        (dict[int, int], {True: 1}, "`value`: a key: Expected `int`, got `bool`"),
        (list[Any], [1, [object()]], r"`value\[1\]\[0\]`: object has no form in JSON"),
        (list[str], ["a", "\udc00"], r"`value\[1\]`: .*half of a surrogate pair"),
        (set[Any], {(1, 2)}, r"`value`: unhashable type: 'list'|`value\[0\]`: Expected a hashable value"),
        (Box, Box("x" * 1000 + "\udc00"), r"`value\.content`: "),
        (list[Any], ("x" * 1000,), "^.{0,300}$"),
    ],
)  # fmt: skip
def test_the_refusal_says_which_part_of_the_argument(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(PayloadError, match=words) as caught:
        receive(hint, value)

    assert str(caught.value).startswith("shop.take: argument `value")


def test_a_refusal_names_the_argument_among_several() -> None:
    def take(a: int, b: set[Any], c: Any = None) -> None: ...

    kind = function_kind(take, "shop.take", Declared(), (), None)
    loop: list[Any] = []
    loop.append(loop)
    for arguments, words in (
        ({"a": 1, "b": {(1, 2)}}, r"argument `b(\[0\])?`: (unhashable type|Expected a hashable value)"),
        ({"a": 1, "b": {1}, "c": {None: 1}}, "argument `c`: a key of type NoneType has no form in JSON"),
        ({"a": 1, "b": {1}, "c": loop}, "argument `c`: it is nested too deep, or contains itself"),
        ({"b": {1}, "a": 10**5000}, "argument `a`: .*digits"),
        ({"c": (1,), "b": {1}, "a": 1}, "argument `c`: "),
    ):
        with pytest.raises(PayloadError, match=rf"^shop\.take: {words}"):
            kind.encode(arguments)


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        (float, int, 2**53 + 1),
        (bytes, bytearray, bytearray(b"a")),
        (str, Mood, Mood.GOOD),
        (Mood, str, "good"),
        (date, int, FIRST),
    ],
)
def test_the_type_of_one_argument_excuses_no_other(first: Any, second: Any, wrong: Any) -> None:
    right = wrong if isinstance(wrong, second) else 1
    codec = Codec("shop.take", [Parameter("first", first), Parameter("second", second)])

    for calls in ([{"first": wrong, "second": right}], [{"second": right, "first": wrong}] * 2):
        with pytest.raises(PayloadError, match=r"^shop\.take: argument `first`: "):
            codec.encode_all(calls)


def test_a_moment_in_a_zone_of_one_offset_arrives() -> None:
    for zone in (UTC, ZoneInfo("UTC"), ZoneInfo("Etc/GMT-5"), timezone(timedelta(hours=1), "CET")):
        moment = datetime(2030, 7, 1, 12, tzinfo=zone)

        assert same(moment, receive(datetime, moment))
        assert same(moment.timetz(), receive(time, moment.timetz()))


@dataclasses.dataclass
class Loose:
    size: int


def test_sets_of_what_has_a_hash_are_declared() -> None:
    for hint in (set[frozenset[int]], frozenset[tuple[int, str]], set[Any], set[int | str], dict[int | date, int]):
        empty = hint()
        assert same(empty, receive(hint, empty))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Right, "cannot be stored as Right: flags .* take an int"),
        (IntRight | None, "cannot be stored as IntRight: flags"),
        (list[IntRight], "cannot be stored as IntRight: flags"),
        (dict[tuple[int, int], int], "JSON has no keys of type tuple; take a list of pairs"),
        (dict[tuple[int, ...], int], "JSON has no keys of type vartuple|JSON has no keys of type tuple"),
        (list[dict[bool, int]], "JSON has no keys of type bool"),
        (dict[None, int], "JSON has no keys of type None|JSON has no keys of type none"),
        (dict[str | None, int], "JSON has no keys of type none"),
        (dict[frozenset[int], int], "JSON has no keys of type frozenset"),
        (dict[Pair, int], "JSON has no keys of type Pair"),
        (dict[Item, int], "JSON has no keys of type Item"),
        (dict[Annotated[tuple[int, int], "x"], int], "JSON has no keys of type tuple"),
        (dict[str, dict[Right, int]], "cannot be stored as Right|no keys of type Right"),
        (dict[bytearray, int], "JSON has no keys of type bytearray"),
        (dict[int | str, int], "the number 1 and the text '1' are one key"),
        (dict[Annotated[float, "x"] | str, int], "the number 1 and the text '1' are one key"),
        (set[list[int]], "a set can hold nothing of type list, which has no hash; take a list"),
        (frozenset[dict[str, int]], "a set can hold nothing of type dict"),
        (list[set[set[int]]], "a set can hold nothing of type set"),
        (set[bytearray], "a set can hold nothing of type bytearray"),
        (set[tuple[int, list[int]]], "a set can hold nothing of type list"),
        (set[int | list[int]], "a set can hold nothing of type list"),
        (set[Loose], "a set can hold nothing of type .*Loose"),
    ],
)
def test_what_no_value_could_pass_is_refused_at_declaration(hint: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=rf"^shop\.take: parameter `value`.*({words})"):
        receive(hint, None)


def test_a_declaration_that_is_refused_names_the_field_as_well() -> None:
    @attrs.frozen
    class Grant:
        right: Right

    with pytest.raises(
        DeclarationError, match=r"parameter `value`: field `right` of .*Grant cannot be stored as Right"
    ):
        receive(list[Grant], [])
