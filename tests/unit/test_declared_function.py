"""A declared function behaves like the function that it wraps, for whoever asks what it is."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import doctest
import functools
import gc
import importlib
import inspect
import multiprocessing
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest

from jobqueue import Call, Context, DeclarationError, Job, JobQueue, PayloadError

if TYPE_CHECKING:
    from fractions import Fraction

jobs = JobQueue("memory://")


@jobs.job
def double(n: int, *, twice: bool = False) -> int:
    """Double a number.

    >>> double(3)
    6
    """
    return n * (4 if twice else 2)


@jobs.job
async def fetch(url: str, size: int = 3) -> str:
    """Fetch a page."""
    return url * size


@jobs.job
async def with_context(ctx: Context, /, url: str) -> int:
    """Fetch with a context."""
    return len(url)


def _plain(n: int, m: int = 1) -> int:
    return n * m


async def _coroutine(n: int) -> int:
    return n


triple = jobs.job(name="triple")(lambda: 3)
renamed = jobs.job(_plain)
partial: Any = jobs.job(name="partial")(functools.partial(_plain, m=2))
async_partial: Any = jobs.job(name="async_partial")(functools.partial(_coroutine, 3))

EVERY: Any = [double, fetch, with_context, triple, renamed, partial, async_partial]
ASYNC: Any = [fetch, with_context, async_partial]


@pytest.mark.parametrize("job", EVERY, ids=repr)
def test_it_is_copied_and_pickled_as_the_one_that_it_is(job: Any) -> None:
    assert copy.copy(job) is job
    assert copy.deepcopy({"job": [job]}) == {"job": [job]}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(job, protocol)) is job


def test_a_local_one_cannot_be_pickled_like_a_local_function() -> None:
    @jobs.job
    def local() -> None: ...

    assert copy.deepcopy(local) is local
    with pytest.raises((pickle.PicklingError, AttributeError), match="local"):
        pickle.dumps(local)


def test_what_holds_it_can_be_copied() -> None:
    later, call = copy.deepcopy((double.opts(delay=3), double.opts(delay=3).call(4)))

    assert later.call(4) == call == double.opts(delay=3).call(4)
    assert copy.deepcopy({"queue": jobs})["queue"] is jobs
    assert isinstance(copy.copy(call), Call)


@pytest.mark.parametrize("job", EVERY, ids=repr)
def test_whoever_asks_learns_whether_to_await_it(job: Any) -> None:
    for ask in (inspect.iscoroutinefunction, asyncio.iscoroutinefunction, as_a_web_framework_asks):
        for asked in (job, functools.partial(job), functools.partial(functools.partial(job), url="x")):
            assert ask(asked) is (job in ASYNC)
    assert not inspect.isgeneratorfunction(job)
    assert not inspect.isasyncgenfunction(job)


def as_a_web_framework_asks(function: Any) -> bool:
    """Starlette and anyio's users look into partials, and at `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return asyncio.iscoroutinefunction(function) or asyncio.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


async def test_a_background_task_awaits_it() -> None:
    async def run(function: Callable[..., Any], *args: Any) -> Any:
        if as_a_web_framework_asks(function):
            return await function(*args)
        return await asyncio.to_thread(function, *args)

    assert await run(fetch, "a") == "aaa"
    assert await run(functools.partial(fetch, size=1), "a") == "a"
    assert await run(double, 2) == 4


@pytest.mark.parametrize("job", EVERY, ids=repr)
def test_it_tells_of_itself_what_the_function_does(job: Any) -> None:
    inner = job.__wrapped__

    assert inspect.signature(job) == inspect.signature(inner)
    assert inspect.unwrap(job) is inner
    assert (job.__doc__, job.__module__) == (inner.__doc__, __name__)
    for name in ("__name__", "__qualname__", "__annotations__", "__code__", "__defaults__", "__kwdefaults__"):
        if hasattr(inner, name):
            assert getattr(job, name) == getattr(inner, name)
    if not isinstance(inner, functools.partial):
        assert typing.get_type_hints(job) == typing.get_type_hints(inner)


def test_its_signature_is_that_of_the_plain_call() -> None:
    assert list(inspect.signature(with_context).parameters) == ["ctx", "url"]
    assert inspect.getsource(double).startswith("@jobs.job\ndef double")
    assert inspect.getdoc(fetch) == "Fetch a page."


def test_it_is_an_object_like_others() -> None:
    other = jobs.job(double.__wrapped__)
    note: Any = double
    note.note = 3

    assert note.note == 3
    assert len({double, double, other}) == 2
    assert weakref.ref(double)() is double
    assert list(map(double, [1, 2])) == [2, 4]
    assert not hasattr(double, "__get__")
    del note.note


def test_its_examples_are_tests() -> None:
    module = types.ModuleType("shop")
    vars(module).update(double=double, jobs=jobs)
    double.__module__, module_before = "shop", double.__module__
    try:
        found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    finally:
        double.__module__ = module_before

    assert [test.name for test in found] == ["shop.double"]
    assert doctest.DocTestRunner().run(found[0]).failed == 0


PROGRAM = """
from jobqueue import JobQueue
jobs = JobQueue("memory://")
@jobs.job
def double(n: int) -> int:
    return 2 * n
"""


def test_processes_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "declared_elsewhere.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    from declared_elsewhere import double as elsewhere  # type: ignore[import-not-found]

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(elsewhere, 4).result() == 8
    del sys.modules["declared_elsewhere"]


@jobs.job
def halved(n: int) -> None: ...


@attrs.frozen
class Resized(Job):
    width: int

    def perform(self, ctx: Context) -> None: ...


jobs.register(Resized)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_and_a_function_with_options_are_pickled_by_the_name_of_what_they_call(protocol: int) -> None:
    for call in (halved.call(4), halved.opts(delay=3).call(4), jobs.call_of(Resized(3)).opts(queue="high")):
        again = pickle.loads(pickle.dumps(call, protocol))
        assert again == call
        assert again.kind is call.kind
    later = pickle.loads(pickle.dumps(halved.opts(delay=3), protocol))
    assert later.call(4) == halved.opts(delay=3).call(4)
    assert later.queue is jobs
    assert copy.copy(later) is later
    with jobs.testing():
        assert later.enqueue(4).name == halved.kind.name
        assert jobs.enqueue(pickle.loads(pickle.dumps(halved.call(4), protocol))).name == halved.kind.name


def test_a_call_that_no_other_process_could_read_is_not_pickled() -> None:
    @jobs.job
    def local(n: int) -> None: ...

    for thing in (local.call(1), local.opts(delay=3)):
        with pytest.raises(TypeError, match=r"local' cannot be pickled.*at the top of a module"):
            pickle.dumps(thing)
    other = JobQueue("memory://")
    other.register(Resized)
    with pytest.raises(TypeError, match="is declared on several JobQueues"):
        pickle.dumps(jobs.call_of(Resized(3)))


def test_other_processes_read_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "declared_elsewhere.py").write_text(PROGRAM + "def told(call): return f'{call!r} {jobs.counts()}'\n")
    monkeypatch.syspath_prepend(tmp_path)
    there: Any = importlib.import_module("declared_elsewhere")
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(there.told, there.double.call(4)).result() == "<call declared_elsewhere.double(n=4)> {}"
        sent = pickle.dumps(there.double.call(4))
    del sys.modules["declared_elsewhere"]
    del there
    gc.collect()
    assert pickle.loads(sent).arguments == {"n": 4}  # it imports the module
    before = sys.modules.pop("declared_elsewhere")
    again: Any = importlib.import_module("declared_elsewhere").double
    assert pickle.loads(pickle.dumps(again.call(4))).kind is again.kind
    with pytest.raises(TypeError, match="was declared anew since"):
        pickle.dumps(before.double.call(4))
    del sys.modules["declared_elsewhere"]


# --------------------------------------------------------------------------------- annotations that nobody needs to run


def returns_unknown(n: int) -> Fraction: ...  # type: ignore[empty-body]
async def returns_list(n: int) -> list[Fraction]: ...  # type: ignore[empty-body]
def returns_nonsense(n: int) -> list[3 + x]: ...  # type: ignore[valid-type,empty-body] # noqa: F821
def returns_broken(n: int) -> int: ...  # type: ignore[empty-body]


returns_broken.__annotations__["return"] = "int |"


def returns_attribute(n: int) -> sys.nothing: ...  # type: ignore[name-defined]


@pytest.mark.parametrize(
    "function", [returns_unknown, returns_list, returns_nonsense, returns_broken, returns_attribute]
)
def test_what_a_function_returns_need_not_be_known(function: Any) -> None:
    kind = JobQueue("memory://").job(name="f")(function).kind

    assert kind.encode({"n": 1}) == b'{"n":1}'
    with pytest.raises(PayloadError, match="argument `n`"):
        kind.encode({"n": "1"})


def parameter_unknown(n: int, x: Fraction) -> None: ...
def parameter_broken(n: int, x: int) -> None: ...
def parameter_attribute(n: int, x: sys.nothing) -> None: ...  # type: ignore[name-defined]


parameter_broken.__annotations__["x"] = "int |"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (parameter_unknown, "an annotation speaks of `Fraction`, which is not known where the job is declared"),
        (parameter_broken, "the annotation 'int |' cannot be read|the annotation .* cannot be read"),
        (parameter_attribute, "the annotation 'sys.nothing' cannot be read"),
    ],
)
def test_an_annotation_that_cannot_be_read_is_refused_with_its_parameter(function: Any, words: str) -> None:
    with pytest.raises(DeclarationError, match=rf"^f: parameter `x`: ({words})"):
        jobs.job(name="f")(function)


def test_only_annotations_of_fields_have_to_be_known() -> None:
    queue = JobQueue("memory://")

    @attrs.frozen
    class Base(Job):
        width: int = 3
        shared: ClassVar[Fraction]

        def perform(self, ctx: Context) -> Fraction: ...  # type: ignore[empty-body]

    @queue.register
    @attrs.frozen
    class Resize(Base, name="resize"):
        path: str = ""

    @attrs.frozen
    class Wrong(Base):
        ratio: Fraction | None = None

    assert queue.enqueue(Resize(path="a")).payload == b'{"width":3,"path":"a"}'
    with pytest.raises(DeclarationError, match=r"field `ratio`: an annotation speaks of `Fraction`"):
        queue.register(Wrong)
