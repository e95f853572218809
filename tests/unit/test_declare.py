"""Declaring functions and coroutine functions: names, signatures, and what is refused at once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import attrs
import msgspec
import pytest

from jobqueue import Context, JobQueue, Retry, RetryPolicy, current_context
from jobqueue.context import Flags, set_current
from jobqueue.errors import DeclarationError, DuplicateJob, PayloadError, UnknownJob
from jobqueue.job import Kind

if TYPE_CHECKING:
    from fractions import Fraction


@pytest.fixture
def jobs() -> JobQueue:
    return JobQueue("memory://")


def context(attempt: int = 1) -> Context:
    return Context(lambda: pytest.fail("nobody asked for the record"), attempt=attempt, fence=7)


def run(kind: Kind[Any], payload: bytes) -> Any:
    return kind.bind(payload, context())()


def module_function(x: int, y: str = "y") -> tuple[int, str]:
    return x, y


# ------------------------------------------------------------------------------------------------------------- calling


def test_a_declared_function_stays_a_plain_function(jobs: JobQueue) -> None:
    declared = jobs.job(module_function)

    assert declared(1) == (1, "y")
    assert declared.__name__ == "module_function"
    assert declared.__wrapped__ is module_function
    assert repr(declared) == f"<job '{__name__}.module_function'>"


def test_brackets_make_no_difference_but_for_options(jobs: JobQueue) -> None:
    bare = jobs.job(module_function).kind
    with_brackets = jobs.job()(module_function).kind
    with_options = jobs.job(queue="high", retry=-1, aliases=("old",))(module_function).kind

    assert (bare.queue, bare.retry, bare.aliases) == ("low", RetryPolicy(limit=13), ())
    assert (with_brackets.name, with_brackets.queue, with_brackets.retry) == (bare.name, bare.queue, bare.retry)
    assert (with_options.queue, with_options.retry.limit, with_options.aliases) == ("high", -1, ("old",))


def test_a_policy_is_kept_whole(jobs: JobQueue) -> None:
    policy = RetryPolicy(limit=2, on=(OSError,))

    assert jobs.job(retry=policy)(module_function).kind.retry is policy


def test_arguments_are_stored_by_name_and_only_those_given(jobs: JobQueue) -> None:
    declared = jobs.job(module_function)

    assert declared.enqueue(1).payload == b'{"x":1}'
    assert declared.enqueue(1, "y").payload == b'{"x":1,"y":"y"}'
    assert declared.opts(delay=3).enqueue(y="z", x=1).payload == b'{"x":1,"y":"z"}'
    assert declared.call(1).arguments == {"x": 1}
    assert run(declared.kind, b'{"x":1}') == (1, "y")


def test_every_sort_of_parameter(jobs: JobQueue) -> None:
    @jobs.job
    def everything(a: int, /, b: int, c: int = 3, *rest: str, d: int, e: int = 5, **more: float) -> Any:
        return a, b, c, rest, d, e, more

    payload = everything.enqueue(1, 2, 3, "x", "y", d=4, f=6, rest=7.5).payload

    assert payload == b'{"a":1,"b":2,"c":3,"rest":["x","y"],"d":4,"more":{"f":6.0,"rest":7.5}}'
    assert run(everything.kind, payload) == (1, 2, 3, ("x", "y"), 4, 5, {"f": 6.0, "rest": 7.5})
    assert run(everything.kind, everything.enqueue(1, b=2, d=4).payload) == (1, 2, 3, (), 4, 5, {})


class Headers(TypedDict, total=False):
    accept: str
    age: int


def test_keyword_arguments_typed_one_by_one(jobs: JobQueue) -> None:
    @jobs.job
    def fetch(**headers: Unpack[Headers]) -> Any:
        return headers

    assert run(fetch.kind, fetch.enqueue(accept="x", age=3).payload) == {"accept": "x", "age": 3}
    wrong: Any = {"age": "3"}
    with pytest.raises(PayloadError, match=r"argument `headers\.age`: Expected `int`, got `str`"):
        fetch.enqueue(**wrong)


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, "y", 2), {}, "too many positional arguments"),
        ((1,), {"x": 1}, "multiple values for argument 'x'"),
        ((1,), {"z": 1}, "got an unexpected keyword argument 'z'"),
        (("1",), {}, "argument `x`: Expected `int`, got `str`"),
        ((1, object()), {}, "argument `y`: Expected `str`, got `object`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_at_the_call(
    jobs: JobQueue, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    declared = jobs.job(name="shop.f")(module_function)

    with pytest.raises(PayloadError, match=f"shop.f.*{message}"):
        declared.enqueue(*args, **kwargs)
    assert jobs.counts() == {}


def test_a_default_is_that_of_the_code_which_runs_the_job(jobs: JobQueue) -> None:
    shared: list[int] = [1]

    @jobs.job
    def take(items: list[int] = shared, colour: Literal["red"] | None = None) -> Any:
        return items, colour

    assert run(take.kind, b"{}") == ([1], None)
    assert run(take.kind, b"{}")[0] is shared


# ------------------------------------------------------------------------------------------------------------- context


def test_a_first_parameter_annotated_context_is_filled_in(jobs: JobQueue) -> None:
    @jobs.job
    def attempt(ctx: Context, times: int) -> int:
        return ctx.attempt * times

    record = attempt.enqueue(5)

    assert record.payload == b'{"times":5}'
    assert attempt.kind.bind(record.payload, context(3))() == 15


@pytest.mark.parametrize("name", ["ctx", "times"])
def test_keyword_arguments_cannot_take_the_name_of_a_parameter(jobs: JobQueue, name: str) -> None:
    @jobs.job(name="shop.f")
    def f(ctx: Context, times: int = 1, **more: int) -> Any:
        return times, more

    assert run(f.kind, b'{"more":{"x":1}}') == (1, {"x": 1})
    with pytest.raises(PayloadError, match=rf"shop\.f: `{name}` cannot be among"):
        run(f.kind, b'{"more":{"%s":1}}' % name.encode())
    with pytest.raises(PayloadError, match=r"shop\.f: `ctx` cannot be among"):
        f.enqueue(ctx=1)


def test_a_context_is_not_to_be_had_from_the_payload(jobs: JobQueue) -> None:
    @jobs.job
    def f(ctx: Context, x: int = 0) -> Any:
        return ctx

    for payload in (b'{"ctx":1}', b'{"self":1}', b'{"__class__":"x"}'):
        with pytest.raises(PayloadError, match="an argument that is not declared"):
            f.kind.bind(payload, context())


def test_what_a_context_tells() -> None:
    flags = Flags()
    ctx = Context(lambda: pytest.fail("nobody asked for the record"), attempt=2, fence=9, flags=flags)

    assert (ctx.attempt, ctx.fence, ctx.lease_lost, ctx.cancelled) == (2, 9, False, False)
    assert ctx.logger is logging.getLogger("jobqueue.job")
    flags.lease_lost = True
    assert (ctx.lease_lost, ctx.cancelled) == (True, False)
    flags.cancelled = True
    assert ctx.cancelled


def test_the_record_of_a_context_is_made_once(jobs: JobQueue) -> None:
    record = jobs.job(module_function).enqueue(1)
    answers = [record]
    lazy = Context(answers.pop, attempt=1)

    assert lazy.record is record
    assert lazy.record is record
    assert Context(record).record is record


def test_the_current_context_is_that_of_the_task() -> None:
    async def job(ctx: Context) -> bool:
        set_current(ctx)
        await asyncio.sleep(0)
        return current_context() is ctx

    async def two() -> bool:
        return all(await asyncio.gather(job(context()), job(context())))

    assert asyncio.run(two())
    with pytest.raises(LookupError, match="no job is running here"):
        current_context()


# ---------------------------------------------------------------------------------------------------------- coroutines


def test_a_coroutine_function_answers_something_to_await(jobs: JobQueue) -> None:
    @jobs.job
    async def fetch(ctx: Context, url: str) -> int:
        return len(url) + ctx.attempt

    assert fetch.kind.is_coroutine
    assert not jobs.job(module_function).kind.is_coroutine
    assert asyncio.run(run(fetch.kind, b'{"url":"abc"}')) == 4
    assert asyncio.run(fetch(context(), "abc")) == 4


async def test_enqueueing_from_a_coroutine(jobs: JobQueue) -> None:
    @jobs.job
    async def fetch(url: str) -> int:
        return len(url)

    record = await fetch.aenqueue("abc")
    other = await fetch.opts(queue="high").aenqueue("abc")

    assert (record.payload, record.queue, other.queue) == (b'{"url":"abc"}', "low", "high")


def test_a_wrapper_that_nobody_would_await_is_refused(jobs: JobQueue) -> None:
    async def fetch(url: str) -> int:
        return len(url)

    @functools.wraps(fetch)
    def careless(*args: Any, **kwargs: Any) -> Any:
        return fetch(*args, **kwargs)

    @functools.wraps(fetch)
    async def careful(*args: Any, **kwargs: Any) -> Any:
        return await fetch(*args, **kwargs)

    with pytest.raises(DeclarationError, match="nobody would await"):
        jobs.job(careless)
    kind = jobs.job(careful).kind
    assert kind.is_coroutine
    assert asyncio.run(run(kind, b'{"url":"abc"}')) == 3


# --------------------------------------------------------------------------------------------------------------- names


def test_the_default_name_is_module_and_qualname(jobs: JobQueue) -> None:
    assert jobs.job(module_function).kind.name == f"{__name__}.module_function"
    assert jobs.job(name="mail.send")(module_function).kind.name == "mail.send"


def test_lambdas_and_partials_need_a_name(jobs: JobQueue) -> None:
    bound = functools.partial(module_function, y="z")

    for nameless in (lambda: 3, bound):
        with pytest.raises(DeclarationError, match=r"declare it with @jobs\.job\(name=…\)"):
            jobs.job(nameless)
    assert run(jobs.job(name="three")(lambda: 3).kind, b"{}") == 3
    partial: Any = jobs.job(name="partial")(bound)
    assert run(partial.kind, partial.enqueue(1).payload) == (1, "z")
    assert run(partial.kind, partial.enqueue(1, y="a").payload) == (1, "a")


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "\x1b[2J", "x" * 256, 3, b"x"])
def test_a_name_that_would_harm_a_log_is_refused(jobs: JobQueue, name: Any) -> None:
    with pytest.raises(DeclarationError, match="is no name of a kind of job"):
        jobs.job(name=name)
    with pytest.raises(DeclarationError, match="is no name of a kind of job"):
        jobs.job(aliases=(name,))


def test_aliases_are_a_tuple_of_names(jobs: JobQueue) -> None:
    with pytest.raises(DeclarationError, match="aliases must be a tuple of names"):
        jobs.job(aliases="old.name")  # type: ignore[call-overload]


def test_an_alias_finds_the_kind(jobs: JobQueue) -> None:
    kind = jobs.job(name="new", aliases=("old", "older"))(module_function).kind

    assert jobs.registry.get("old") is jobs.registry.get("older") is jobs.registry.get("new") is kind
    assert jobs.registry.get("oldest") is None
    assert list(jobs.registry) == [kind]
    assert (jobs.registry.names(), len(jobs.registry)) == (["new"], 1)


def test_a_second_kind_of_the_same_name_is_refused(jobs: JobQueue) -> None:
    jobs.job(name="a", aliases=("b",))(module_function)

    def other() -> None: ...

    declarations: list[Any] = [
        {"name": "a"},
        {"name": "b"},
        {"name": "c", "aliases": ("a",)},
        {"name": "c", "aliases": ("b",)},
    ]
    for declared in declarations:
        with pytest.raises(DuplicateJob, match=r"'[ab]' is declared twice, by .*module_function and by .*other"):
            jobs.job(**declared)(other)
    assert jobs.registry.names() == ["a"]


def test_a_kind_can_be_renamed_where_it_is_declared_again(jobs: JobQueue) -> None:
    jobs.job(name="a", aliases=("z",))(module_function)
    kind = jobs.job(name="b", aliases=("a",))(module_function).kind

    assert jobs.registry.get("a") is jobs.registry.get("b") is kind
    assert (jobs.registry.get("z"), jobs.registry.names()) == (None, ["b"])


def test_two_lambdas_of_one_name_are_two_kinds(jobs: JobQueue) -> None:
    jobs.job(name="a")(lambda: 1)

    with pytest.raises(DuplicateJob):
        jobs.job(name="a")(lambda: 2)


def test_two_partials_of_one_name_are_two_kinds(jobs: JobQueue) -> None:
    jobs.job(name="a")(functools.partial(module_function, 1))

    jobs.job(name="a")(functools.partial(module_function, 1))
    with pytest.raises(DuplicateJob):
        jobs.job(name="a")(functools.partial(module_function, 2))


def test_a_module_can_be_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "reloaded_queue.py").write_text("from jobqueue import JobQueue\njobs = JobQueue('memory://')\n")
    (tmp_path / "reloaded.py").write_text(
        "from reloaded_queue import jobs\n@jobs.job(aliases=('old',))\ndef f(x: int): return x\n"
    )
    module = importlib.import_module("reloaded")
    (tmp_path / "reloaded.py").write_text("from reloaded_queue import jobs\n@jobs.job\ndef f(x: int): return -x\n")
    importlib.reload(module)

    assert run(module.jobs.registry.get("reloaded.f"), b'{"x":1}') == -1
    assert module.jobs.registry.get("old") is None


PROGRAM = """
from jobqueue import JobQueue
jobs = JobQueue("memory://")
@jobs.job
def f() -> None: ...
print(f.kind.name)
"""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["plain.py"], "plain.f"),
        (["-m", "plain"], "plain.f"),
        (["shop/mail.py"], "shop.mail.f"),
        (["-m", "shop.mail"], "shop.mail.f"),
        (["-m", "shop"], "shop.__main__.f"),
        (["-m", "without_init.mail"], "without_init.mail.f"),
        (["-c", PROGRAM], "__main__.f"),
    ],
)
def test_in_the_started_program_the_name_is_that_for_importers(tmp_path: Path, arguments: list[str], name: str) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "without_init").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    for file in ("plain.py", "shop/mail.py", "shop/__main__.py", "without_init/mail.py"):
        (tmp_path / file).write_text(PROGRAM)

    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == name


# ------------------------------------------------------------------------------------------------------------- refused


def no_annotation(x, y: int = 1) -> None: ...  # type: ignore[no-untyped-def]
def no_annotation_star(*items) -> None: ...  # type: ignore[no-untyped-def]
def context_second(x: int, ctx: Context) -> None: ...
def context_star(*ctx: Context) -> None: ...
def context_maybe(ctx: Context | None) -> None: ...
def context_by_name(*, ctx: Context) -> None: ...
def type_checking_only(x: Fraction) -> None: ...
def generator(x: int) -> Iterator[int]:
    yield x


async def asynchronous_generator(x: int) -> AsyncIterator[int]:
    yield x


@contextlib.contextmanager
def manager(x: int) -> Iterator[int]:
    yield x


@contextlib.asynccontextmanager
async def async_manager(x: int) -> AsyncIterator[int]:
    yield x


def answers_a_coroutine(x: int) -> Coroutine[Any, Any, None]: ...  # type: ignore[empty-body]
def answers_an_awaitable(x: int) -> Awaitable[int]: ...  # type: ignore[empty-body]
def answers_a_future(x: int) -> asyncio.Future[int]: ...  # type: ignore[empty-body]
def answers_a_generator(x: int) -> Generator[int, None, None]: ...  # type: ignore[empty-body]
async def answers_another(x: int) -> Awaitable[int]: ...  # type: ignore[empty-body]
def answers_the_class(x: int) -> type[Retry]: ...  # type: ignore[empty-body]


class Shop:
    def method(self, x: int) -> None: ...
    @classmethod
    def of(cls, x: int) -> None: ...
    @staticmethod
    def static(x: int) -> None: ...
    def __call__(self, x: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_annotation, "parameter `x` has no annotation: say what it is, as in `x: int`"),
        (no_annotation_star, "parameter `items` has no annotation"),
        (context_second, "parameter `ctx` is a Context: only the first parameter is filled in"),
        (context_star, "the context `ctx` must be a positional parameter"),
        (context_by_name, "the context `ctx` must be a positional parameter"),
        (context_maybe, "parameter `ctx` cannot be stored as Context"),
        (type_checking_only, "an annotation speaks of `Fraction`, which is not known"),
        (generator, "has a `yield`"),
        (asynchronous_generator, "has a `yield`"),
        (manager, "is a context manager, so calling it would run nothing"),
        (async_manager, "is a context manager, so calling it would run nothing"),
        (functools.partial(manager, 1), "is a context manager, so calling it would run nothing"),
        (answers_a_coroutine, "is annotated to return an awaitable"),
        (answers_an_awaitable, "is annotated to return an awaitable"),
        (answers_a_future, "is annotated to return an awaitable"),
        (answers_another, "is annotated to return an awaitable"),
        (answers_a_generator, "is annotated to return a generator"),
        (answers_the_class, "is annotated to return the class Retry itself: return an instance"),
        (Shop, "is a class: declare it with @jobs.register"),
        (Shop().method, "is a method"),
        (Shop.of, "is a method"),
        (vars(Shop)["of"], "is a method"),
        (vars(Shop)["static"], "is a method"),
        (Shop.method, "is declared inside of the class Shop"),
        (Shop.static, "is declared inside of the class Shop"),
        (Shop(), "is no Python function"),
        (len, "is no Python function"),
        (3, "is no Python function"),
        (functools.partial(Shop().method, 1), "is a method"),
    ],
)
def test_what_cannot_be_a_job_is_refused_at_declaration(jobs: JobQueue, function: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=f"shop.f.*{message}"):
        jobs.job(name="shop.f")(function)
    assert jobs.registry.names() == []


def test_a_wrapper_may_run_what_the_function_below_it_only_returns(jobs: JobQueue) -> None:
    def runs(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(x: int) -> int:
            return sum(function(x))

        return wrapper

    declared = jobs.job(name="f")(runs(generator))
    assert run(declared.kind, b'{"x":3}') == 3


def test_a_function_is_declared_once(jobs: JobQueue) -> None:
    declared: Any = jobs.job(module_function)

    with pytest.raises(DeclarationError, match="is declared already"):
        jobs.job(name="again")(declared)


@pytest.mark.parametrize("queue", ["a:dead", "{x}", "*", "", "a\n", "\x00", "x" * 65, "grüße", "а", 3])
def test_a_queue_name_that_could_name_other_keys_is_refused(jobs: JobQueue, queue: Any) -> None:
    with pytest.raises(DeclarationError, match="is no name of a queue"):
        jobs.job(queue=queue)
    with pytest.raises(DeclarationError, match="is no name of a queue"):
        jobs.job(module_function).opts(queue=queue)


def test_where_queues_are_declared_another_is_refused_with_a_suggestion() -> None:
    jobs = JobQueue("memory://", queues=["mail"])
    declared = jobs.job(queue="mail")(module_function)

    with pytest.raises(DeclarationError, match=r"no queue 'mial'; did you mean 'mail'\? .*high, low, mail"):
        jobs.job(queue="mial")(lambda: 3)
    with pytest.raises(DeclarationError, match="no queue 'hihg'; did you mean 'high'"):
        declared.opts(queue="hihg")
    with pytest.raises(DeclarationError, match="no queue 'hihg'; did you mean 'high'"):
        declared.call(1).opts(queue="hihg")


@pytest.mark.parametrize("retry", ["3", 1.5, True, 2**31])
def test_a_number_of_retries_is_a_whole_number(jobs: JobQueue, retry: Any) -> None:
    with pytest.raises(DeclarationError, match="is no number of retries"):
        jobs.job(retry=retry)


# --------------------------------------------------------------------------------------------------------- local types


def test_a_local_type_is_found_where_annotations_are_postponed(jobs: JobQueue) -> None:
    @attrs.frozen
    class Local:
        x: int

    @jobs.job
    def direct(value: Local) -> Any:
        return value

    @jobs.job()
    def in_brackets(values: list[Local]) -> Any:
        return values

    assert run(direct.kind, direct.enqueue(Local(1)).payload) == Local(1)
    assert run(in_brackets.kind, in_brackets.enqueue([Local(1)]).payload) == [Local(1)]


def test_a_type_local_to_a_class_that_is_local_is_refused(jobs: JobQueue) -> None:
    @attrs.frozen
    class Inner:
        x: int

    @attrs.frozen
    class Outer:
        inner: Inner

    def f(value: Outer) -> None: ...

    with pytest.raises(DeclarationError, match="speaks of `Inner`, which its module does not know: move that class"):
        jobs.job(f)


# --------------------------------------------------------------------------------------------------------------- calls


def test_a_call_of_another_queue_is_refused(jobs: JobQueue) -> None:
    other = JobQueue("memory://", namespace="other")
    call = other.job(module_function).call(1)

    with pytest.raises(UnknownJob, match="module_function' is declared on another JobQueue"):
        jobs.enqueue(call)


def test_what_is_no_job_is_refused(jobs: JobQueue) -> None:
    declared: Any = jobs.job(module_function)

    with pytest.raises(TypeError, match=r"is a function without arguments: write module_function\.enqueue"):
        jobs.enqueue(declared)
    with pytest.raises(TypeError, match="a str is no job"):
        jobs.enqueue("module_function")  # type: ignore[arg-type]


def test_a_record_can_be_decoded_into_its_call(jobs: JobQueue) -> None:
    declared = jobs.job(module_function)
    record = declared.enqueue(1)

    assert jobs.decode(record) == declared.call(1)
    stored = msgspec.structs.replace(record.stored, payload=b'{"y":"z","x":2}')
    assert jobs.decode(msgspec.structs.replace(record, stored=stored)).arguments == {"x": 2, "y": "z"}


def test_who_looks_during_a_reload_finds_the_kind() -> None:
    jobs = JobQueue("memory://")
    registry = jobs.registry
    looks: list[object] = []

    class Seen(dict[str, Any]):
        """Somebody looks after each change."""

        def pop(self, *args: Any) -> Any:
            found = super().pop(*args)
            looks.append(registry.get("seen"))
            return found

        def update(self, *args: Any, **kwargs: Any) -> None:
            super().update(*args, **kwargs)
            looks.append(registry.get("seen"))

    registry._by_name = Seen()
    for aliases in (("old",), ()):

        @jobs.job(name="seen", aliases=aliases)
        def job() -> None: ...

    assert len(looks) > 1
    assert None not in looks
    assert registry.get("old") is None
