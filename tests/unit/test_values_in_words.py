"""What the library says of arguments holds none of them: no error, log line, dead record or command quotes a value."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, cast
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import Context, Job, JobQueue, Runner
from jobqueue.cli.app import run
from jobqueue.cli.logs import JsonFormatter
from jobqueue.errors import JobQueueError, PayloadError
from jobqueue.job import Declared, Kind, function_kind
from tests.servers import Server

CANARY = "terc3s"[::-1]  # not as such in a line of source that a traceback shows
NUMBER = 7_351_946 * 1000 + 41
MARKS = (CANARY, str(NUMBER), base64.b64encode(CANARY.encode()).decode().rstrip("="), UUID(int=NUMBER).hex[-10:])


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Open(Enum):
    A = "a"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise KeyError(f"no {value}")


def refuse(*values: Any) -> None:
    """Stands for what a validator says."""
    raise ValueError(f"{values} is wrong - at `$.{values[-1]}`")


@dataclasses.dataclass(frozen=True)
class Strict:
    x: str | int = 0

    def __post_init__(self) -> None:
        if self.x:
            refuse(self.x)


@dataclasses.dataclass(frozen=True)
class Stricter:
    x: str | int = 0

    def __post_init__(self) -> None:
        if self.x:
            raise KeyError(self.x)


@attrs.frozen
class Validated:
    x: Any = attrs.field(default="a", validator=attrs.validators.in_(["a"]))


class Cat(msgspec.Struct, tag="cat", forbid_unknown_fields=True, frozen=True):
    x: int = 0


class Dog(msgspec.Struct, tag="dog", frozen=True):
    x: dict[str, int] = {}

    def __post_init__(self) -> None:
        if self.x:
            refuse(*self.x)


class Pair(NamedTuple):
    x: int
    y: str


class Movie(TypedDict, total=False):
    x: int


class Inner(pydantic.BaseModel, extra="forbid"):
    x: int = 0


class Tagged(pydantic.BaseModel):
    kind: Literal["tagged"] = "tagged"


class Tagged2(pydantic.BaseModel):
    kind: Literal["second"] = "second"


class Model(pydantic.BaseModel, extra="allow"):
    x: list[Inner] = []
    y: dict[str, int] | UUID | None = None
    either: Tagged | Tagged2 | None = pydantic.Field(default=None, discriminator="kind")

    @pydantic.field_validator("y")
    @classmethod
    def _check(cls, y: Any) -> Any:
        refuse(y)

    @pydantic.field_serializer("x")
    def _write(self, x: list[Inner]) -> Any:
        refuse(x)


HINTS: list[Any] = [
    Any, None, bool, int, float, str, bytes, datetime, date, time, timedelta, UUID, Decimal, Colour, Level, Open,
    Literal["a", 1], Strict, Stricter, Validated, Cat | Dog, Pair, Movie, Model, Inner,
    Annotated[int, msgspec.Meta(lt=3)], Annotated[str, msgspec.Meta(pattern="^a$", max_length=3)],
]  # fmt: skip
HASHED: list[Any] = [int, str, bytes, UUID, Decimal, Colour, Strict, Stricter, datetime, tuple[int, str]]
types = st.recursive(
    st.sampled_from(HINTS),
    lambda inner: st.one_of(
        inner.map(lambda hint: list[hint]),  # type: ignore[valid-type]
        inner.map(lambda hint: tuple[hint, int]),  # type: ignore[valid-type]
        inner.map(lambda hint: dict[str, hint]),  # type: ignore[valid-type]
        st.sampled_from([int, UUID, Colour, Literal["a", "b"], Decimal]).flatmap(
            lambda key: inner.map(lambda hint: dict[key, hint])  # type: ignore[valid-type]
        ),
        st.sampled_from(HASHED).map(lambda hint: set[hint]),  # type: ignore[valid-type]
    ),
    max_leaves=3,
)

names = st.sampled_from(["x", "y", "type", "kind", "either", CANARY, str(NUMBER)])
scalars: list[Any] = [
    CANARY, f"a{CANARY}\n  File '{CANARY}', line 1, in {CANARY}", f"{CANARY} - at `$.{CANARY}`", NUMBER,
    NUMBER + 0.5, -NUMBER, f"1e{NUMBER}", f"P{NUMBER}D", "cat", "dog", "tagged", "a", "red", 0, 1, None, True, [], {},
]  # fmt: skip
trees = st.recursive(
    st.sampled_from(scalars),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def kind_of(hint: Any) -> Kind[Any]:
    def take(value: Any, /, *more: int, **others: int) -> None: ...

    take.__annotations__ = {"value": hint, "more": int, "others": int}
    return function_kind(take, "shop.take", Declared(), (), None)


def check(text: str) -> None:
    """Nothing of the arguments is in it."""
    assert [mark for mark in MARKS if mark in text] == []


def check_error(error: BaseException) -> None:
    """Nothing of the arguments is in an error, and it drags nothing along: a traceback of it has but lines of source."""
    check(repr(error))
    assert error.__cause__ is error.__context__ is None
    assert not hasattr(error, "__notes__")


def check_payload(kind: Kind[Any], payload: bytes) -> None:
    try:
        kind.bind(payload, cast("Context", None))
    except PayloadError as error:
        check_error(error)


@given(types, trees, st.sampled_from([b"", b"]", b"}", b",", b'"', b"\xff", b"{"]))
def test_what_is_said_of_any_payload(hint: Any, tree: Any, tail: bytes) -> None:
    kind = kind_of(hint)
    for arguments in ({"value": tree}, {"value": 1, "more": tree}, {"others": {CANARY: tree}}, tree):
        check_payload(kind, msgspec.json.encode(arguments) + tail)


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_said_of_payloads_that_nearly_fit(inside: bool) -> None:
    some = scalars[:5] if inside else scalars
    parts: list[Any] = [*some, *({name: part} for name in ("x", "y", "type", "kind", CANARY) for part in some)]
    parts += [{"type": "dog", "x": {CANARY: 1}}, {"y": {CANARY: 1}}, {"either": {"kind": CANARY}}, {"x": [{CANARY: 1}]}]
    for hint in HINTS:
        kind = kind_of(dict[str, list[hint]] if inside else hint)  # type: ignore[valid-type]
        for part in parts:
            value = {CANARY: [part]} if inside else part
            check_payload(kind, msgspec.json.encode({"value": value}))


class Text(str):
    """As frameworks have them."""

    __slots__ = ()


def instances(leaf: Any) -> Iterator[Any]:
    """What a caller may give instead of what is declared, each with something in it that nobody should read."""
    yield from (leaf, [leaf], {leaf}, (leaf,), {leaf: 1}, {"x": leaf}, {"a": {leaf: leaf}}, {leaf: (1,)})
    yield from (Text(CANARY), CANARY.encode(), bytearray(CANARY.encode()), UUID(int=NUMBER), Decimal(NUMBER))
    yield from (Decimal(f"NaN{NUMBER}"), timedelta(NUMBER % 10**6), f"{CANARY}\ud800", [f"{CANARY}\ud800"])
    yield from (Validated.__new__(Validated), Cat(x=leaf), Pair(leaf, leaf), object(), 10**5000, 2**70 + NUMBER)
    yield Inner.model_construct(x=leaf)
    yield Model.model_construct(x=[leaf])
    yield Model.model_construct(x=[], **{CANARY: {leaf}})
    for cls in (Strict, Stricter, Validated):
        broken = cls()
        object.__setattr__(broken, "x", leaf)
        yield broken


@pytest.mark.filterwarnings("ignore")  # of pydantic
@pytest.mark.parametrize("leaf", [CANARY, NUMBER, (CANARY, NUMBER)], ids=["text", "number", "tuple"])
def test_what_is_said_to_a_caller_whose_arguments_do_not_fit(leaf: Any) -> None:
    for hint in [*HINTS, list[Any], dict[str, Any], dict[UUID, int], set[Strict], list[Model], dict[Colour, list[int]]]:
        kind = kind_of(hint)
        calls: list[Mapping[str, Any]] = [{"value": value} for value in instances(leaf)]
        calls += [{"value": 1, CANARY: leaf}, {CANARY: leaf}, {"value": 1, "others": {CANARY: leaf}}]
        for arguments in calls:
            for count in (1, 2):
                try:
                    kind.codec.encode_all([arguments] * count)
                except PayloadError as error:
                    check_error(error)


def test_what_is_said_of_things_that_are_no_jobs() -> None:
    jobs = JobQueue("memory://")

    @jobs.job(name="send")
    def send(to: str, token: str = CANARY) -> None: ...

    call = send.call(CANARY)
    attempts: list[Any] = [
        lambda: send.enqueue(), lambda: send.enqueue(CANARY, CANARY, CANARY), lambda: send.enqueue(to=CANARY, bcc=CANARY),  # type: ignore[call-arg]
        lambda: send.enqueue(CANARY, to=CANARY), lambda: jobs.enqueue(call, 1), lambda: jobs.enqueue_many(call),  # type: ignore[misc, arg-type]
        lambda: jobs.enqueue([CANARY]), lambda: jobs.enqueue({CANARY: 1}), lambda: jobs.enqueue(Validated("a")),  # type: ignore[arg-type]
        lambda: jobs.enqueue_many([{CANARY: 1}]), lambda: jobs.get(call), lambda: JobQueue("memory://").enqueue(call),  # type: ignore[list-item, arg-type]
        lambda: call.missing, lambda: send.enqueue(CANARY).missing,  # type: ignore[attr-defined]
    ]  # fmt: skip
    for attempt in attempts:
        with pytest.raises((JobQueueError, TypeError, AttributeError)) as caught:
            attempt()
        check("".join(traceback.format_exception(caught.value)))


# ------------------------------------------------------------------------------------- all the way to logs and commands

PAYLOADS: list[Any] = [
    {"x": CANARY}, {"colour": CANARY}, {"either": {"type": CANARY}}, {"model": {"x": [{CANARY: NUMBER}]}}, {CANARY: 1},
    {"strict": {"x": CANARY}}, {"stricter": {"x": CANARY}}, {"model": {"y": {CANARY: 1}}}, {"word": CANARY}, CANARY,
]  # fmt: skip


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
def test_what_a_runner_logs_and_commands_show_of_payloads_that_do_not_fit(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    jobs = JobQueue(server.url, namespace="shop")

    @jobs.job(name="send")
    def send(
        x: int = 0,
        colour: Colour = Colour.RED,
        either: Cat | Dog | None = None,
        model: Model | None = None,
        strict: Strict | None = None,
        stricter: Stricter | None = None,
        word: Literal["a"] = "a",
    ) -> None: ...

    @jobs.register
    @attrs.frozen
    class Wrong(Job, name="wrong"):
        x: str = attrs.field(validator=attrs.validators.in_(["a"]))

        def perform(self, ctx: Context) -> None: ...

    made = [send.enqueue() for _ in PAYLOADS]
    other = jobs.enqueue(Wrong("a"))
    for record in [*made, other]:
        jobs.delete(record)
    jobs.enqueue_records(
        msgspec.structs.replace(
            record, stored=msgspec.structs.replace(record.stored, payload=msgspec.json.encode(payload))
        )
        for record, payload in zip([*made, other], [*PAYLOADS, {"x": CANARY}], strict=True)
    )
    logged = io.StringIO()
    handlers = [logging.StreamHandler(logged), logging.StreamHandler(logged)]
    handlers[1].setFormatter(JsonFormatter())
    logger = logging.getLogger("jobqueue")
    for handler in handlers:
        logger.addHandler(handler)
    try:
        Runner(jobs).run(signals=False, until_empty=True)
    finally:
        for handler in handlers:
            logger.removeHandler(handler)

    dead = list(jobs.dead())
    assert len(dead) == len(PAYLOADS) + 1
    for record in dead:
        check(record.error or "")
    assert logged.getvalue().count("failed (dead)") >= 2 * len(dead)
    check(logged.getvalue())
    for words in (["jobs", "--no-arguments"], ["jobs", "--no-arguments", "--json"], ["stats"], ["audit"]):
        assert run([*words, "--url", server.url, "--namespace", "shop"]) == 0
    shown = capsys.readouterr()
    check(shown.out + shown.err)
    for record in dead:  # the arguments themselves are shown, and nothing else of them
        assert run(["show", record.id, "--json", "--url", server.url, "--namespace", "shop"]) == 0
        value = json.loads(capsys.readouterr().out)
        check(json.dumps({name: part for name, part in value.items() if name not in ("arguments", "payload")}))
    jobs.close()
