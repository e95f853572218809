"""Every job that `strategies.jobs` builds can be enqueued, and its arguments are what the types ask for."""

from __future__ import annotations

import enum
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from jobqueue import Context, Job, JobQueue
from jobqueue.testing import FaultyStorage, MemoryStorage, strategies

jobs = JobQueue("memory://")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(TypedDict):
    street: str
    number: NotRequired[int]


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)
    parent: Tree | None = None


@attrs.frozen
class Folder:
    size: int = attrs.field(alias="octets")
    depth: int = attrs.field(init=False, default=1)
    folders: dict[str, Folder] = attrs.field(factory=dict)


def is_even(_self: object, _attribute: object, value: int) -> None:
    if value % 2:
        raise ValueError("odd")


@attrs.frozen
class Even:
    number: int = attrs.field(validator=is_even)


class Model(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0, le=150, default=3)
    tags: list[str] = []


UserId = NewType("UserId", int)


@jobs.job(name="plain")
def plain(a: str, b: int, c: float, d: bool, e: None, f: bytes, g: UserId, h: Any) -> None: ...


@jobs.job(name="times")
def times(a: datetime, b: date, c: timedelta, d: UUID, e: Decimal, f: Color, g: Literal["x", 1]) -> None: ...


@jobs.job(name="constrained")
def constrained(
    a: Annotated[int, msgspec.Meta(ge=3, lt=9)],
    b: Annotated[str, msgspec.Meta(min_length=2, max_length=4)],
    c: Annotated[float, msgspec.Meta(gt=0, le=1)],
    d: Annotated[str, msgspec.Meta(pattern="^[a-c]+$")],
    e: Annotated[list[int], msgspec.Meta(min_length=5)],
    f: Annotated[datetime, msgspec.Meta(tz=True)],
    g: Annotated[int, msgspec.Meta(multiple_of=7, gt=0)],
    h: Annotated[bytes, msgspec.Meta(max_length=1)] = b"",
) -> None: ...


@jobs.job(name="collections")
def collections(
    a: list[int],
    b: tuple[int, ...],
    c: tuple[str, int],
    d: set[int],
    e: frozenset[str],
    f: dict[str, list[int]],
    g: int | str | None,
    h: dict[int, str],
    i: list[list[bytes]],
) -> None: ...


@jobs.job(name="objects")
def objects(a: Point, b: Tree, c: Address, d: Model, e: Even, f: Point | None = None) -> None: ...


@jobs.job(name="folders")
def folders(a: Folder) -> None: ...


@jobs.job(name="bare")
def bare(a: dict, b: list, c: set, d: dict[Any, int]) -> None: ...  # type: ignore[type-arg]


@jobs.job(name="far")
def far(
    a: Annotated[float, msgspec.Meta(multiple_of=0.5, ge=5_000)],
    b: Annotated[float, msgspec.Meta(multiple_of=0.5, lt=-5_000)],
) -> None: ...


@jobs.job(name="many")
async def many(ctx: Context, first: int, *args: float, key: str = "k", **kwargs: int) -> None: ...


@jobs.job(name="nothing")
def nothing() -> None: ...


@jobs.register
@attrs.frozen
class Resize(Job, name="resize"):
    path: str
    width: Annotated[int, msgspec.Meta(ge=1)] = 640
    even: Even = Even(2)

    def perform(self, ctx: Context) -> None: ...


@pytest.mark.parametrize("name", jobs.registry.names())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(data=st.data())
def test_a_job_of_every_kind_can_be_enqueued(name: str, data: Any) -> None:
    jobs.enqueue(data.draw(strategies.jobs(jobs, name)))


def is_of(name: str, job: Any) -> bool:
    return jobs.call_of(job).kind.name == name


def found(jobs: Any, wanted: Any) -> None:
    """Fail unless some draw is as wanted; without a deadline, since the machine may be busy."""
    find(jobs, wanted, settings=settings(max_examples=2_000, deadline=None, phases=[Phase.generate]))


def test_all_kinds_are_drawn_and_defaults_are_left_out_and_given() -> None:
    for name in jobs.registry.names():
        found(strategies.jobs(jobs), partial(is_of, name))
    found(strategies.jobs(jobs, "many"), lambda call: "key" in call.arguments and call.arguments.get("args"))
    found(strategies.jobs(jobs, "many"), lambda call: "key" not in call.arguments)
    found(strategies.jobs(jobs, "constrained"), lambda call: "h" not in call.arguments)
    found(strategies.jobs(jobs, "resize"), lambda job: job.width != 640)


def test_no_such_kind() -> None:
    with pytest.raises(ValueError, match=r"no kind of job is named nope \(declared: bare, collections, "):
        strategies.jobs(jobs, "nope")
    with pytest.raises(ValueError, match="none; import the modules"):
        strategies.jobs(JobQueue("memory://"))
    with pytest.raises(ValueError, match="is named nothin; did you mean 'nothing'"):
        strategies.jobs(jobs, "nothin")


@given(call=strategies.calls(nothing), resize=strategies.calls(Resize), one=strategies.jobs(jobs, nothing, Resize))
def test_a_kind_is_named_by_its_function_or_class(call: Any, resize: Any, one: Any) -> None:
    assert is_of("nothing", call)
    assert is_of("resize", resize)
    assert is_of("nothing", one) or is_of("resize", one)


def test_a_failed_test_prints_the_call_itself() -> None:
    @given(strategies.calls(nothing) | strategies.calls(Resize))
    def fails(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    [said] = [line for line in caught.value.__notes__ if "_=" in line]
    assert "Kind(" not in said
    assert "<call nothing(" in said or "Resize(" in said


@pytest.mark.parametrize("what", [7, int, nothing.opts(delay=1), None])
def test_what_names_no_kind_is_a_type_error(what: Any) -> None:
    for draw in (strategies.calls, partial(strategies.jobs, jobs)):
        with pytest.raises(TypeError, match="is no kind of job"):
            draw(what)


@given(options=strategies.schedules())
def test_schedules_are_valid_options(options: Any) -> None:
    nothing.opts(**options).enqueue()


@given(policy=strategies.retry_policies(), n=st.integers(1, 50))
def test_policies_answer_delays(policy: Any, n: int) -> None:
    assert policy.next_delay(n) >= 0


@given(rates=strategies.faults(), plan=strategies.plans())
def test_faults_and_plans(rates: Any, plan: Any) -> None:
    assert rates.scaled(0.5)
    outcomes = [FaultyStorage(MemoryStorage(), plan).apply([]) for _ in range(3)]
    assert outcomes == [[], [], []]


PROGRAM = """
import sys
import jobqueue, jobqueue.testing
assert "hypothesis" not in sys.modules and "multiprocessing" not in sys.modules
sys.modules["hypothesis"] = None
for name in ("strategies", "DeliveryMachine"):
    try:
        getattr(jobqueue.testing, name)
    except ModuleNotFoundError as error:
        assert "pip install hypothesis" in str(error), error
    else:
        raise AssertionError(name)
try:
    jobqueue.testing.check_storage(jobqueue.testing.MemoryStorage, lockstep=1)
except ModuleNotFoundError as error:
    assert "pip install hypothesis" in str(error), error
"""


def test_hypothesis_is_loaded_by_those_who_use_it_and_its_lack_is_told() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
