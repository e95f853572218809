"""Declaring classes: attrs classes and dataclasses whose instances are the payload."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest

from jobqueue import Context, Job, JobQueue, RetryPolicy
from jobqueue.errors import DeclarationError, DuplicateJob, PayloadError, UnknownJob
from jobqueue.job import Kind

if TYPE_CHECKING:
    from fractions import Fraction


@pytest.fixture
def jobs() -> JobQueue:
    return JobQueue("memory://")


def context() -> Context:
    return Context(lambda: pytest.fail("nobody asked for the record"), attempt=3)


def kind_of(jobs: JobQueue, cls: type[Job]) -> Kind[Any]:
    kind = jobs.registry.of_class(cls)
    assert kind is not None
    return kind


class Resize(Job, name="images.resize", queue="high", retry=3, aliases=("resize",)):
    """Not decorated: each test makes its own of it."""

    path: str
    width: int = 640

    def perform(self, ctx: Context) -> Any:
        return self, ctx.attempt


def decorated(decorator: Callable[[type[Any]], type[Any]]) -> type[Any]:
    """A subclass of `Job` with two fields, made by this decorator."""

    class Made(Job, name="images.resize", queue="high", retry=3, aliases=("resize",)):
        path: str
        width: int = 640

        def perform(self, ctx: Context) -> Any:
            return self, ctx.attempt

    return decorator(Made)


@pytest.mark.parametrize(
    "decorator",
    [attrs.frozen, attrs.define, attrs.define(slots=False), attrs.define(kw_only=True), attrs.define(eq=True, hash=True),
     dataclasses.dataclass, dataclasses.dataclass(slots=True), dataclasses.dataclass(frozen=True, slots=True, kw_only=True)],
)  # fmt: skip
def test_an_instance_is_the_payload(jobs: JobQueue, decorator: Any) -> None:
    cls = jobs.register(decorated(decorator))
    kind = kind_of(jobs, cls)

    record = jobs.enqueue(cls(path="x.png"))
    job, attempt = kind.bind(record.payload, context())()

    assert (kind.name, kind.queue, kind.retry, kind.aliases) == (
        "images.resize",
        "high",
        RetryPolicy(limit=3),
        ("resize",),
    )
    assert (record.name, record.queue, record.retry) == ("images.resize", "high", 3)
    assert record.payload == b'{"path":"x.png","width":640}'
    assert (job, attempt) == (cls(path="x.png", width=640), 3)
    assert jobs.decode(record).arguments == {"path": "x.png", "width": 640}


def test_a_new_field_with_a_default_does_not_harm_stored_jobs(jobs: JobQueue) -> None:
    made: list[str] = []

    def make_width() -> int:
        made.append("now")
        return 7

    @jobs.register
    @attrs.define
    class Later(Job):
        path: str
        width: int = attrs.field(factory=make_width)
        size: int = attrs.field(default=attrs.Factory(lambda self: self.width * 2, takes_self=True))

        def perform(self, ctx: Context) -> Any:
            return self.path, self.width, self.size

    assert kind_of(jobs, Later).bind(b'{"path":"x"}', context())() == ("x", 7, 14)
    assert made == ["now"]


def test_a_coroutine_perform(jobs: JobQueue) -> None:
    @jobs.register
    @attrs.frozen
    class Fetch(Job):
        url: str

        async def perform(self, ctx: Context) -> int:
            return len(self.url)

    kind = kind_of(jobs, Fetch)

    assert kind.is_coroutine
    assert asyncio.run(kind.bind(b'{"url":"abc"}', context())()) == 3


def test_the_default_name_is_module_and_qualname(jobs: JobQueue) -> None:
    cls = jobs.register(attrs.frozen(Nightly))

    assert kind_of(jobs, cls).name == f"{__name__}.Nightly"


class Nightly(Job):
    def perform(self, ctx: Context) -> None: ...


def test_options_are_inherited_and_names_are_not(jobs: JobQueue) -> None:
    policy = RetryPolicy(limit=1)

    class Base(Job, name="base", queue="high", retry=policy, aliases=("b",)):
        pass

    @jobs.register
    @attrs.frozen
    class Child(Base):
        def perform(self, ctx: Context) -> None: ...

    @jobs.register
    @attrs.frozen
    class Grandchild(Child, queue="low", name="grand"):
        pass

    child, grandchild = kind_of(jobs, Child), kind_of(jobs, Grandchild)
    assert child.name.endswith("<locals>.Child")
    assert (child.queue, child.retry, child.aliases) == ("high", policy, ())
    assert (grandchild.name, grandchild.queue, grandchild.retry) == ("grand", "low", policy)


def test_an_abstract_base_needs_no_decoration(jobs: JobQueue) -> None:
    @attrs.define
    class Image(Job, queue="high"):
        path: str

    @jobs.register
    @dataclasses.dataclass
    class Unrelated(Job):
        limit: ClassVar[int] = 3
        x: int

        def perform(self, ctx: Context) -> int:
            return self.limit * self.x

    @jobs.register
    @attrs.define
    class Rotate(Image):
        degrees: int = 90

        def perform(self, ctx: Context) -> Any:
            return self.path, self.degrees

    assert kind_of(jobs, Rotate).bind(b'{"path":"x"}', context())() == ("x", 90)
    assert kind_of(jobs, Unrelated).bind(b'{"x":2}', context())() == 6


def test_the_instance_is_checked_when_it_is_enqueued(jobs: JobQueue) -> None:
    cls = jobs.register(decorated(attrs.frozen))

    for wrong in (cls(path=3), cls(path="x", width="640"), cls(path="x", width=float("nan"))):
        with pytest.raises(PayloadError, match=r"images\.resize: argument `(path|width)`"):
            jobs.enqueue(wrong)
    assert jobs.counts() == {}


def test_what_does_not_fit_is_a_payload_error(jobs: JobQueue) -> None:
    @jobs.register
    @attrs.frozen
    class Even(Job, name="even"):
        number: int = attrs.field(default=0)

        def __attrs_post_init__(self) -> None:
            if self.number % 2:
                raise RuntimeError("odd")

        def perform(self, ctx: Context) -> None: ...

    for payload in (b"{", b"[]", b'{"number":"2"}', b'{"other":2}', b'{"self":2}', b'{"__class__":"x"}', b'{"ctx":1}'):
        with pytest.raises(PayloadError, match=r"^even: "):
            kind_of(jobs, Even).bind(payload, context())
    with pytest.raises(
        PayloadError, match=r"even: .*Even refuses its stored fields: .* raised RuntimeError in __attrs_"
    ):
        kind_of(jobs, Even).bind(b'{"number":3}', context())


# ------------------------------------------------------------------------------------------------------------- refused


def define(cls: type[Any]) -> type[Any]:
    return attrs.define(cls)


class NoPerform(Job):
    x: int


class PerformIsAttribute(Job):
    perform = 3  # type: ignore[assignment]


class GeneratorPerform(Job):
    def perform(self, ctx: Context) -> Iterator[int]:
        yield 1


class PerformTakesNothing(Job):
    def perform(self) -> None: ...  # type: ignore[override]


class PerformTakesMore(Job):
    def perform(self, ctx: Context, x: int) -> None: ...  # type: ignore[override]


class Private(Job):
    _secret: int = 0

    def perform(self, ctx: Context) -> None: ...


class Converted(Job):
    x: int = attrs.field(converter=int)

    def perform(self, ctx: Context) -> None: ...


class NoAnnotation(Job):
    x = attrs.field()

    def perform(self, ctx: Context) -> None: ...


class ContextField(Job):
    ctx: Context

    def perform(self, ctx: Context) -> None: ...


class Opaque(Job):
    x: object

    def perform(self, ctx: Context) -> None: ...


class OwnInit(Job):
    x: int

    def __init__(self, y: int) -> None:
        self.x = y

    def perform(self, ctx: Context) -> None: ...


class WithInitVar(Job):
    x: int
    y: dataclasses.InitVar[int]

    def perform(self, ctx: Context) -> None: ...


def hidden(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, ctx: Context) -> Any:
        return function(self, ctx)

    return wrapper


class WrappedPerform(Job):
    @hidden
    async def perform(self, ctx: Context) -> None: ...


class ManagerPerform(Job):
    @contextlib.contextmanager
    def perform(self, ctx: Context) -> Iterator[None]:
        yield


class CoroutinePerform(Job):
    def perform(self, ctx: Context) -> Coroutine[Any, Any, None]: ...  # type: ignore[empty-body]


class UnknownPerform(Job):
    def perform(self, ctx: Context) -> Fraction: ...  # type: ignore[empty-body]


def test_what_a_type_checker_alone_knows_may_be_returned(jobs: JobQueue) -> None:
    assert jobs.register(define(UnknownPerform)) is not None


@pytest.mark.parametrize(
    ("make", "cls", "message"),
    [
        (define, NoPerform, "needs a method `def perform"),
        (define, PerformIsAttribute, "needs a method `def perform"),
        (define, GeneratorPerform, "needs a method `def perform"),
        (define, WrappedPerform, "perform wraps a coroutine function but is none itself"),
        (define, ManagerPerform, "perform is a context manager, so calling it would run nothing"),
        (define, CoroutinePerform, "perform is annotated to return an awaitable"),
        (define, PerformTakesNothing, "perform is called with the Context alone"),
        (define, PerformTakesMore, "perform is called with the Context alone"),
        (define, Private, "the field `_secret` of Private is private"),
        (dataclasses.dataclass, Private, "the field `_secret` of Private is private"),
        (define, Converted, "the field `x` of Converted has a converter"),
        (attrs.define(auto_attribs=False), NoAnnotation, "field `x` has no annotation"),
        (define, ContextField, "field `ctx` cannot be stored as Context"),
        (define, Opaque, "field `x` cannot be stored as object"),
        (define, OwnInit, "__init__ and the fields do not agree on `[xy]`"),
        (dataclasses.dataclass, WithInitVar, "__init__ and the fields do not agree on `y`"),
        (lambda cls: cls, Resize, "is neither an attrs class nor a dataclass: put @attrs.frozen or @dataclass"),
    ],
)
def test_what_cannot_be_a_job_is_refused_at_declaration(jobs: JobQueue, make: Any, cls: Any, message: str) -> None:
    made = make(cls)

    with pytest.raises(DeclarationError, match=message):
        jobs.register(made)
    assert jobs.registry.names() == []


def test_what_is_no_job_class_is_refused(jobs: JobQueue) -> None:
    several: list[Any] = [int, 3, "Resize", dataclasses.make_dataclass("Plain", ["x"])]
    for wrong in several:
        with pytest.raises(DeclarationError, match="is no subclass of Job"):
            jobs.register(wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "'' is no name of a kind of job"),
        ({"name": "a\nb"}, "'a.*' is no name of a kind of job"),
        ({"queue": "a:b"}, "'a:b' is no name of a queue"),
        ({"retry": "3"}, "retry='3' is no number of retries"),
        ({"retry": True}, "retry=True is no number of retries"),
        ({"aliases": "old"}, "aliases must be a tuple of names"),
        ({"aliases": (1,)}, "1 is no name of a kind of job"),
    ],
)
def test_options_of_the_class_line_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        type("Wrong", (Job,), {}, **options)


def test_an_unknown_option_of_the_class_line_is_refused() -> None:
    with pytest.raises(TypeError, match="quee"):
        type("Wrong", (Job,), {}, quee="low")


def test_a_queue_that_is_not_declared_is_refused() -> None:
    jobs = JobQueue("memory://", queues=["mail"])

    class Mail(Job, queue="mial"):
        def perform(self, ctx: Context) -> None: ...

    with pytest.raises(DeclarationError, match="no queue 'mial'; did you mean 'mail'"):
        jobs.register(attrs.define(Mail))


def test_a_second_kind_of_the_same_name_is_refused(jobs: JobQueue) -> None:
    jobs.register(decorated(attrs.frozen))

    @attrs.frozen
    class Other(Job, name="resize"):
        def perform(self, ctx: Context) -> None: ...

    with pytest.raises(DuplicateJob, match=r"'resize' is declared twice, by .*Made and by .*Other"):
        jobs.register(Other)


def test_a_class_declared_again_takes_the_place_of_the_old_one(jobs: JobQueue) -> None:
    old = jobs.register(decorated(attrs.frozen))
    new = jobs.register(decorated(attrs.frozen))

    assert jobs.call_of(new(path="x")).kind.target is new
    with pytest.raises(UnknownJob, match="after a reload, instances of the old class are not known"):
        jobs.enqueue(old(path="x"))


def test_a_subclass_is_not_registered_with_its_base(jobs: JobQueue) -> None:
    base = jobs.register(decorated(attrs.define))
    better = attrs.make_class("Better", {"height": attrs.field(default=480)}, bases=(base,))

    with pytest.raises(UnknownJob, match=r"Better is not registered on this JobQueue.*put @jobs\.register above"):
        jobs.enqueue(better(path="x"))


def test_one_class_on_two_queues() -> None:
    cls = decorated(attrs.frozen)
    first, second = JobQueue("memory://"), JobQueue("memory://", namespace="other")

    assert first.register(second.register(cls)) is cls
    assert first.call_of(cls(path="x")).kind is not second.call_of(cls(path="x")).kind
