"""Hypothesis strategies for the jobs of a `JobQueue`: calls with valid arguments, options, policies and faults.

Needs the package ``hypothesis``; ``from jobqueue.testing import strategies`` loads it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as types

from jobqueue import models
from jobqueue.codec import REQUIRED
from jobqueue.declared import QUEUES
from jobqueue.declaring import JobFunction
from jobqueue.durations import LONGEST_MS
from jobqueue.errors import PayloadError
from jobqueue.job import Call, Job, Kind
from jobqueue.names import suggestion
from jobqueue.options import EnqueueOptions
from jobqueue.queue import JobQueue
from jobqueue.retry import RetryPolicy
from jobqueue.signatures import init_fields
from jobqueue.testing.faulty import Fault
from jobqueue.testing.simulation import Faults

__all__ = ["calls", "faults", "jobs", "plans", "retry_policies", "schedules"]

Declared: TypeAlias = JobFunction[..., Any, ..., Any] | type[Job] | str

_INT64: Final = 2**63
_MANY: Final = 3
"""Items of a collection, unless its type asks for more."""
_STEPS: Final = 1000
"""How many multiples of a float's step are drawn from a side that has no bound."""
_YEARS: Final = {"min_value": datetime(1970, 1, 2), "max_value": datetime(2200, 1, 1)}  # noqa: DTZ001 - bounds are naive
_ZONES: Final = st.just(UTC) | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def jobs(queue: JobQueue, *which: Declared) -> st.SearchStrategy[Any]:
    """Calls of the kinds declared on a `JobQueue`, or only of those named, with arguments that fit their types.

    Give them to `JobQueue.enqueue`, `JobQueue.enqueue_many` or `JobQueue.testing` sessions: they never raise `PayloadError`.
    Arguments with a default are sometimes left out. Classes are made through their ``__init__``, and instances that their
    own validators refuse are drawn again.

    Args:
        queue: The `JobQueue`; what `imports` names has to be imported (`JobQueue.load`).
        which: Declared functions, classes or names of kinds; none for all.

    Raises:
        ValueError: There is no kind, or none of a given name.
        TypeError: One of ``which`` names no kind.
    """
    names = {one if isinstance(one, str) else _kind(one).name for one in which}
    kinds = [kind for kind in queue.registry if not names or kind.name in names]
    unknown = sorted(names - {kind.name for kind in kinds})
    if unknown or not kinds:
        declared = queue.registry.names()
        meant = suggestion(unknown[0], declared) if unknown else ""
        raise ValueError(
            f"no kind of job is named {', '.join(unknown) or 'anything'}{meant} "
            f"(declared: {', '.join(declared) or 'none; import the modules that declare them first'})"
        )
    return st.one_of([calls(kind) for kind in sorted(kinds, key=lambda kind: kind.name)])


def calls(what: Kind[Any] | JobFunction[..., Any, ..., Any] | type[Job]) -> st.SearchStrategy[Any]:
    """Calls of one kind (a `Call`), or instances of its class; see `jobs`.

    Args:
        what: A declared function, or a class.

    Raises:
        TypeError: It is neither.
    """
    kind = _kind(what)
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, parameter in kind.codec.parameters.items():
        strategy = _of(types.type_info(parameter.type), frozenset())
        shape = kind.signature.parameters.get(name)
        if shape is not None and shape.kind is shape.VAR_KEYWORD:
            taken = kind.reserved | kind.signature.parameters.keys()
            strategy = strategy.map(partial(_without, taken))
        (required if parameter.default is REQUIRED else optional)[name] = strategy
    arguments = st.fixed_dictionaries(required, optional=optional)
    if inspect.isclass(kind.target):
        return _with_arguments(_instance, kind, arguments).filter(lambda job: job is not None)
    return _with_arguments(Call, kind, arguments).filter(_fits)


@st.composite
def _with_arguments(
    draw: st.DrawFn, make: Callable[..., Any], kind: Kind[Any], arguments: st.SearchStrategy[dict[str, Any]]
) -> Any:
    # Not `arguments.map(partial(make, kind))`: a failed test would print that, instead of what was made.
    return make(kind, draw(arguments))


def _kind(what: object) -> Kind[Any]:
    if isinstance(what, Kind):
        return what
    if isinstance(what, JobFunction):
        return what.kind
    if isinstance(what, type) and issubclass(what, Job):
        for queue in QUEUES:
            if (kind := queue.registry.of_class(what)) is not None:
                return kind
    raise TypeError(
        f"{what!r} is no kind of job: pass a declared function, or a class that is registered on a JobQueue"
    )


def retry_policies() -> st.SearchStrategy[RetryPolicy]:
    """Policies for ``retry=``: with every kind of limit, backoffs from nothing to days, and exceptions to give up on."""
    backoffs = st.integers(0, 3 * 86_400).map(lambda seconds: lambda _n: seconds)
    growing = st.floats(0, 60).map(lambda base: lambda n: timedelta(seconds=base * min(n, 100)))
    errors = st.lists(st.sampled_from([ValueError, LookupError, OSError]), max_size=2, unique=True).map(tuple)
    return st.builds(
        RetryPolicy, limit=st.integers(-1, 20), backoff=backoffs | growing, on=st.just((Exception,)), give_up_on=errors
    )


def schedules(now: datetime | None = None) -> st.SearchStrategy[EnqueueOptions]:
    """Options for ``opts(**options)`` that say when: at once, after a ``delay``, or ``at`` a time.

    Args:
        now: Where times are drawn around, from a year before to a year after; by default 2030.
    """
    middle = now or datetime(2030, 1, 1, tzinfo=UTC)
    seconds = st.integers(0, 365 * 86_400)
    delays = seconds | st.floats(0, 3600) | seconds.map(lambda value: timedelta(seconds=value))
    moments = st.builds(
        lambda offset, zone: (middle + timedelta(seconds=offset)).astimezone(zone),
        st.integers(-365 * 86_400, 365 * 86_400), _ZONES,
    )  # fmt: skip
    options: st.SearchStrategy[Any] = (
        st.just({}) | st.fixed_dictionaries({"delay": delays}) | st.fixed_dictionaries({"at": moments})
    )
    return options


def faults() -> st.SearchStrategy[Faults]:
    """Rates of faults for `jobqueue.testing.Simulation`; the simplest is that nothing goes wrong."""
    rates = {name: st.sampled_from([0.0, 0.01, 0.05]) for name in Faults.__annotations__}
    return st.fixed_dictionaries(rates).map(lambda given: Faults(**given))


def plans() -> st.SearchStrategy[Any]:
    """Plans for `jobqueue.testing.FaultyStorage`: what happens to each call in turn, then nothing any more."""

    def plan(fates: list[Fault]) -> Any:
        rest = iter(fates)
        return lambda _scope, _batches: next(rest, Fault.OK)

    return st.lists(st.sampled_from(list(Fault)), max_size=20).map(plan)


# --------------------------------------------------------------------------------------------------------------- types


def _instance(kind: Kind[Any], arguments: Mapping[str, object]) -> Any:
    aliases = dict(zip(kind.codec.parameters, kind.signature.parameters, strict=True))
    try:
        job = kind.target(**{aliases[name]: value for name, value in arguments.items()})
        kind.encode({name: getattr(job, name) for name in kind.codec.parameters})
    except Exception:  # noqa: BLE001 - its own validators have the last word on what fits
        return None
    return job


def _fits(call: Call[Any]) -> bool:
    """Whether it can be enqueued: what classes inside of the arguments refuse, no type tells."""
    try:
        call.kind.encode(call.arguments)
    except PayloadError:
        return False
    return True


def _without(taken: frozenset[str], value: Mapping[str, object]) -> dict[str, object]:
    return {name: item for name, item in value.items() if name not in taken}


def _of(node: types.Type, inside: frozenset[Any]) -> st.SearchStrategy[Any]:  # noqa: C901 - one line for each type
    """Values of a type, as `msgspec.inspect` describes it; ``inside`` are the classes around it."""
    match node:
        case types.Metadata(type=inner):
            return _of(inner, inside)
        case types.AnyType():
            return st.recursive(
                _PLAIN, lambda part: st.lists(part, max_size=2) | st.dictionaries(_text(), part, max_size=2)
            )
        case types.NoneType():
            return st.none()
        case types.BoolType():
            return st.booleans()
        case types.IntType():
            return _integers(node)
        case types.FloatType():
            return _floats(node)
        case types.StrType():
            if node.pattern is not None:
                return st.from_regex(node.pattern).filter(partial(_has_length, node))
            return _text(node.min_length or 0, node.max_length)
        case types.BytesType():
            return st.binary(min_size=node.min_length or 0, max_size=_most(node))
        case types.ByteArrayType():
            return st.binary(min_size=node.min_length or 0, max_size=_most(node)).map(bytearray)
        case types.DateTimeType(tz=aware):
            zones: Any = _ZONES if aware else st.none() if aware is False else _ZONES | st.none()
            return st.datetimes(**_YEARS, timezones=zones)
        case types.DateType():
            return st.dates()
        case types.TimeType(tz=aware):
            return st.times(timezones=_ZONES if aware else st.none())
        case types.TimeDeltaType():
            return st.timedeltas(-timedelta(milliseconds=LONGEST_MS), timedelta(milliseconds=LONGEST_MS))
        case types.UUIDType():
            return st.uuids()
        case types.DecimalType():
            return st.decimals(allow_nan=False, allow_infinity=False, places=3) | st.integers().map(Decimal)
        case types.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case types.LiteralType(values=values):
            return st.sampled_from(list(values))
        case types.UnionType(types=members):
            return st.one_of([_of(each, inside) for each in _ending(members, inside)])
        case types.VarTupleType():
            return _items(node, inside).map(tuple)
        case types.SetType() | types.FrozenSetType():
            make: Any = set if isinstance(node, types.SetType) else frozenset
            return _items(node, inside, unique=True).map(make)
        case types.CollectionType():
            return _items(node, inside)
        case types.TupleType(item_types=items):
            return st.tuples(*[_of(each, inside) for each in items])
        case types.DictType(key_type=key, value_type=value):
            if not _ending((value,), inside):
                return st.just({})
            # A key of any type is written as a string, and would not arrive as anything else.
            keys = _text() if isinstance(key, types.AnyType) else _of(key, inside)
            return st.dictionaries(keys, _of(value, inside), min_size=node.min_length or 0, max_size=_most(node))
        case types.CustomType(cls=cls) if models.is_model(cls):
            return _models(cls)
        case types.TypedDictType() | types.DataclassType() | types.StructType() | types.NamedTupleType():
            return _objects(node, inside)
    raise TypeError(f"no value can be made of {node}; give the job a strategy of your own: st.builds(job.call, …)")


def _integers(node: types.IntType) -> st.SearchStrategy[int]:
    low, high, step = -_INT64, _INT64 - 1, node.multiple_of or 1
    low = max(low, node.ge if node.ge is not None else low, node.gt + 1 if node.gt is not None else low)
    high = min(high, node.le if node.le is not None else high, node.lt - 1 if node.lt is not None else high)
    return st.integers(-(-low // step), high // step).map(lambda number: number * step)


def _floats(node: types.FloatType) -> st.SearchStrategy[float]:
    low, high = (node.gt if node.ge is None else node.ge), (node.lt if node.le is None else node.le)
    if node.multiple_of is not None:
        step = node.multiple_of
        least = None if low is None else math.ceil(low / step)
        most = None if high is None else math.floor(high / step)
        least = least if least is not None else -_STEPS if most is None else most - _STEPS
        multiples = st.integers(least, least + 2 * _STEPS if most is None else most)
        return multiples.map(lambda number: number * step).filter(partial(_is_between, node))
    return st.floats(
        low, high, exclude_min=node.ge is None and low is not None, exclude_max=node.le is None and high is not None,
        allow_nan=False, allow_infinity=False,
    )  # fmt: skip


def _is_between(node: types.FloatType, value: float) -> bool:
    return (
        (node.ge is None or value >= node.ge)
        and (node.gt is None or value > node.gt)
        and (node.le is None or value <= node.le)
        and (node.lt is None or value < node.lt)
    )


def _text(shortest: int = 0, longest: int | None = None) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=["Cs"])  # half a pair of surrogates has no form in UTF-8
    return st.text(characters, min_size=shortest, max_size=longest)


_PLAIN: Final = (
    st.none()
    | st.booleans()
    | st.integers(-_INT64, _INT64 - 1)
    | _text()
    | st.floats(allow_nan=False, allow_infinity=False)
)


def _most(node: Any) -> int | None:
    if node.max_length is not None:
        return int(node.max_length)
    return max(_MANY, node.min_length or 0) + 2


def _has_length(node: types.StrType, value: str) -> bool:
    return (node.min_length or 0) <= len(value) and (node.max_length is None or len(value) <= node.max_length)


def _items(node: Any, inside: frozenset[Any], *, unique: bool = False) -> st.SearchStrategy[list[Any]]:
    if not _ending((node.item_type,), inside):
        return st.just([])
    items = _PLAIN if unique and isinstance(node.item_type, types.AnyType) else _of(node.item_type, inside)
    return st.lists(items, min_size=node.min_length or 0, max_size=_most(node), unique=unique)


def _ending(members: Any, inside: frozenset[Any]) -> list[Any]:
    """Those that are not a class which is being made already: one of the others ends a tree."""
    return [each for each in members if getattr(each, "cls", None) not in inside or isinstance(each, types.EnumType)]


def _objects(node: Any, inside: frozenset[Any]) -> st.SearchStrategy[Any]:
    required: dict[str, Any] = {}
    optional: dict[str, Any] = {}
    taken = {name: alias for name, alias, _ in init_fields(node.cls)}
    for field in node.fields:
        if taken and field.name not in taken:
            continue  # its class sets it
        strategy = _of(field.type, inside | {node.cls})
        needed = field.required and not (field.default is not msgspec.NODEFAULT)
        (required if needed else optional)[taken[field.name] if taken else field.name] = strategy
    if isinstance(node, types.TypedDictType):
        return st.fixed_dictionaries(required, optional=optional)
    return st.fixed_dictionaries(required, optional=optional).map(partial(_make, node.cls)).filter(_is_made)


class _Refused:
    """The class refused these values: its own validators have the last word."""


def _make(make: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    try:
        return make(**values)
    except Exception:  # noqa: BLE001 - as above
        return _Refused


def _is_made(value: object) -> bool:
    return value is not _Refused


def _models(cls: Any) -> st.SearchStrategy[Any]:
    """Models of pydantic, field by field by their annotations."""
    fields = {name: _field(field) for name, field in cls.model_fields.items()}
    required = {name: each for name, each in fields.items() if cls.model_fields[name].is_required()}
    optional = {name: each for name, each in fields.items() if name not in required}
    return (
        st.fixed_dictionaries(required, optional=optional)
        .map(partial(_make, partial(models.build, cls)))
        .filter(_is_made)
    )


def _field(field: Any) -> st.SearchStrategy[Any]:
    """Hypothesis itself knows the constraints of annotated-types, in which pydantic keeps those of a field."""
    hint: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return st.from_type(hint)
