"""`Declaring`: the decorators of a `JobQueue` that declare kinds of job, and the functions they make."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from types import CodeType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack, final, overload

from jobqueue.context import Context
from jobqueue.errors import DeclarationError, UnknownJob
from jobqueue.job import Call, Declared, Job, Kind, class_kind, function_kind
from jobqueue.names import default_kind_name, is_found_elsewhere, suggestion, unwrapped
from jobqueue.options import NO_OPTIONS, EnqueueOptions, Options, check_known_queue
from jobqueue.record import JobRecord, R
from jobqueue.registry import Registry
from jobqueue.retry import RetryPolicy
from jobqueue.words import FUNCTION, QUEUE, belongs_to, described, explains, no_attribute

if TYPE_CHECKING:
    from jobqueue.access import Access
    from jobqueue.flows import Flow

__all__ = ["BoundFunction", "Declaring", "JobFunction"]

C = ParamSpec("C")
P = ParamSpec("P")
Ret = TypeVar("Ret")
J = TypeVar("J", bound=Job)
T = TypeVar("T")


def _origin(target: Any) -> tuple[object, ...]:
    """The file and qualified name of a declaration.

    In a notebook every cell is a file of its own, so there the module's name takes its place.
    """
    extra: tuple[object, ...] = ()
    while isinstance(target, functools.partial):
        extra += (repr(target.args), repr(target.keywords))
        target = target.func
    if getattr(target, "__qualname__", "").endswith("<lambda>"):
        extra += (target.__code__.co_firstlineno,)  # all lambdas of a module have one name
    module = getattr(target, "__module__", None) or "?"
    file = getattr(sys.modules.get(module), "__file__", None)
    return (file or module, getattr(target, "__qualname__", repr(target)), *extra)


def _name(function: Any) -> str:
    """What the user's code calls a declared function."""
    return str(getattr(unwrapped(function.kind.target), "__name__", "function"))


def _instead(function: Any, attribute: str) -> str | None:
    ours = FUNCTION.get(attribute)
    return None if ours is None else ours.format(_name(function))


def _advice(thing: object) -> str:
    if isinstance(thing, type):
        return "pass an instance of it" if issubclass(thing, Job) else "a class that is one derives from Job"
    if callable(thing):
        return "declare it with @jobs.job, and write function.enqueue(…), with the arguments in the brackets"
    return "pass an instance of a registered class, or function.call(…) of a declared function"


class BoundFunction(Generic[P, R]):
    """A declared function with options: `JobFunction.opts` makes it."""

    __slots__ = ("_options", "kind", "queue")

    def __init__(self, queue: Declaring, kind: Kind[R], options: Options) -> None:
        self.queue = queue
        self.kind = kind
        self._options = options

    def __repr__(self) -> str:
        return f"<job {self.kind.name!r} with {self._options}>"

    # How it is pickled stands in `jobqueue.declared`, which knows all that are declared.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Answer the call, to be enqueued later (`JobQueue.enqueue_many`).

        Raises:
            PayloadError: An argument is missing, unknown or given twice.
        """
        kind = self.kind
        return Call(kind, kind.arguments_of(args, kwargs), self._options)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobRecord[R]:
        """Store a job that calls the function with these arguments. Returning means stored.

        Raises:
            PayloadError: The arguments do not fit; nothing was stored.
            NotApplied: Nothing was stored.
            OutcomeUnknown: It may have been stored.
        """
        queue, kind = self.queue, self.kind
        call = Call(kind, kind.arguments_of(args, kwargs), self._options)
        return queue.access.run(queue._enqueue((call,)), prepare=False)[0]  # noqa: SLF001 - its other half

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobRecord[R]:
        """See `enqueue`."""
        queue, kind = self.queue, self.kind
        call = Call(kind, kind.arguments_of(args, kwargs), self._options)
        return (await queue.access.arun(queue._enqueue((call,)), prepare=False))[0]  # noqa: SLF001 - its other half

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, _instead(self, name))


class JobFunction(Generic[C, Ret, P, R]):
    """A declared function: calling it calls it, ``enqueue`` stores a job that does.

    Attributes:
        queue: The `JobQueue` that it is declared on.
        kind: What its name stands for.
    """

    __wrapped__: Callable[..., Any]
    __name__: str
    __qualname__: str
    # With these three `inspect` takes it for a function, and tells that it is a coroutine function.
    __code__: CodeType
    __defaults__: tuple[Any, ...] | None
    __kwdefaults__: dict[str, Any] | None

    def __init__(self, queue: Declaring, kind: Kind[R], function: Callable[C, Ret]) -> None:
        functools.update_wrapper(self, function)
        inner = unwrapped(function)
        for name in ("__code__", "__defaults__", "__kwdefaults__", "__module__", "__name__", "__qualname__"):
            setattr(self, name, getattr(inner, name))
        self.queue = queue
        self.kind = kind
        self._function = function

    def __call__(self, *args: C.args, **kwargs: C.kwargs) -> Ret:
        """Call the function here and now, without any queue."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.kind.name!r}>"

    def __reduce__(self) -> str:
        """Copy and pickle it like a function: it is the name by which its module knows it."""
        known = vars(sys.modules[self.__module__]) if self.__module__ in sys.modules else {}
        return next(
            (name for name, thing in known.items() if thing is self), vars(self).get("__qualname__", self.kind.name)
        )

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, _instead(self, name))

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Answer the call, to be enqueued later (`JobQueue.enqueue_many`).

        Raises:
            PayloadError: An argument is missing, unknown or given twice.
        """
        kind = self.kind
        return Call(kind, kind.arguments_of(args, kwargs))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobRecord[R]:
        """Store a job that calls the function with these arguments. Returning means stored.

        Raises:
            PayloadError: The arguments do not fit; nothing was stored.
            NotApplied: Nothing was stored.
            OutcomeUnknown: It may have been stored.
        """
        queue, kind = self.queue, self.kind
        call = Call(kind, kind.arguments_of(args, kwargs))
        return queue.access.run(queue._enqueue((call,)), prepare=False)[0]  # noqa: SLF001 - its other half

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobRecord[R]:
        """See `enqueue`."""
        queue, kind = self.queue, self.kind
        call = Call(kind, kind.arguments_of(args, kwargs))
        return (await queue.access.arun(queue._enqueue((call,)), prepare=False))[0]  # noqa: SLF001 - its other half

    def opts(self, **options: Unpack[EnqueueOptions]) -> BoundFunction[P, R]:
        """Answer the same function with options for its jobs.

        Args:
            options: See `EnqueueOptions`.

        Raises:
            DeclarationError: A queue that does not exist, or a ``retry`` that is no whole number.
            TypeError: An unknown option, or a value of the wrong type.
            ValueError: A naive ``at``, ``delay`` with ``at``, a negative or non-finite delay.
        """
        return BoundFunction(self.queue, self.kind, NO_OPTIONS.updated(options, self.kind.queues))


@final
class _Nothing:
    """No parameter is annotated with it, so a function takes it only where its first parameter is Any or object."""


class _Decorator:
    """``@jobs.job(…)``, waiting for its function."""

    def __init__(self, queue: Declaring, declared: Declared) -> None:
        self._queue = queue
        self._declared = declared

    # The overloads are those of `Declaring.job`.
    @overload
    def __call__(
        self, function: Callable[Concatenate[_Nothing, P], Coroutine[Any, Any, T]], /
    ) -> JobFunction[..., Coroutine[Any, Any, T], ..., T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[_Nothing, P], T], /) -> JobFunction[..., T, ..., T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> JobFunction[Concatenate[Context, P], Coroutine[Any, Any, T], P, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, P], T], /
    ) -> JobFunction[Concatenate[Context, P], T, P, T]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> JobFunction[P, Coroutine[Any, Any, T], P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> JobFunction[P, T, P, T]: ...

    def __call__(self, function: Callable[..., Any], /) -> JobFunction[..., Any, ..., Any]:
        return self._queue._declare(function, self._declared)  # noqa: SLF001 - its other half


@belongs_to("JobQueue")
class Declaring:
    """Declares kinds of job; `JobQueue` adds what is done with them."""

    registry: Registry
    _queue_names: frozenset[str] | None
    if TYPE_CHECKING:  # what the functions ask for; it stands in `Enqueueing`
        access: Access

        def _enqueue(self, calls: Sequence[Call[R]]) -> Flow[list[JobRecord[R]]]: ...

    # A copy of an object that has jobs on it, as of settings, means the same kinds and the same connections.
    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, QUEUE.get(name))

    # A first parameter annotated Any would also take a Context; so functions whose first parameter takes anything at
    # all are caught first, by a class that nothing else takes. Their arguments are not checked: Concatenate[Any, P]
    # would lose the parameter's name, and refuse correct calls by keyword.
    @overload
    def job(
        self, function: Callable[Concatenate[_Nothing, P], Coroutine[Any, Any, T]], /
    ) -> JobFunction[..., Coroutine[Any, Any, T], ..., T]: ...
    @overload
    def job(self, function: Callable[Concatenate[_Nothing, P], T], /) -> JobFunction[..., T, ..., T]: ...
    @overload
    def job(
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, T]], /
    ) -> JobFunction[Concatenate[Context, P], Coroutine[Any, Any, T], P, T]: ...
    @overload
    def job(
        self, function: Callable[Concatenate[Context, P], T], /
    ) -> JobFunction[Concatenate[Context, P], T, P, T]: ...
    @overload
    def job(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> JobFunction[P, Coroutine[Any, Any, T], P, T]: ...
    @overload
    def job(self, function: Callable[P, T], /) -> JobFunction[P, T, P, T]: ...
    @overload
    def job(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: int | RetryPolicy | None = None,
        aliases: tuple[str, ...] = (),
        process: bool = False,
        timeout: float | timedelta | None = None,
    ) -> _Decorator: ...

    @explains("jobs.job")
    def job(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: int | RetryPolicy | None = None,
        aliases: tuple[str, ...] = (),
        process: bool = False,
        timeout: float | timedelta | None = None,
    ) -> Any:
        """Declare a function or coroutine function as a kind of job; a decorator, with or without brackets.

        A first parameter annotated `Context` is filled in when the job runs and is not part of its arguments.

        Args:
            function: The function, where there are no brackets.
            name: What the kind is stored as; by default ``module.qualname``. Lambdas and partials need one.
            queue: The queue of its jobs, by default ``"low"``.
            retry: How many retries (negative without end), by default 13, or a whole policy.
            aliases: Earlier names, under which jobs may still be stored.
            process: Run the function in a process: for what computes, and for what must end in time.
            timeout: How long a run may take, in seconds or as a `timedelta`: the process is killed, a coroutine is
                cancelled, and the attempt has failed with a `TimeoutError`. A function on a thread cannot have one.

        Returns:
            The function as a `JobFunction`.

        Raises:
            DuplicateJob: Another kind has this name.
            DeclarationError: The function cannot be run as a job, or a parameter cannot be stored.
        """
        declared = Declared.of(name, queue, retry, aliases, process, timeout)
        return _Decorator(self, declared) if function is None else self._declare(function, declared)

    def register(self, cls: type[J], /) -> type[J]:
        """Declare a class as a kind of job; a decorator, above that of attrs or dataclass.

        Raises:
            DuplicateJob: Another kind has its name.
            DeclarationError: The class cannot be run as a job, or a field cannot be stored.
        """
        if not isinstance(cls, type) or not issubclass(cls, Job):
            raise DeclarationError(f"{cls!r} is no subclass of Job: write `class Name(Job)`, or use @jobs.job")
        declared = cls.__jobqueue_declared__
        self._check_queue(declared.queue)
        name = declared.name or default_kind_name(cls)
        self.registry.add(class_kind(cls, name, _origin(cls), self._queue_names))
        self._look_elsewhere(declared, name, cls)
        return cls

    def call_of(self, thing: object) -> Call[Any]:
        """Answer the call that a user means by a `Call` or an instance of a registered class.

        Raises:
            UnknownJob: Its kind is not declared on this `JobQueue`.
            TypeError: It is neither.
        """
        if isinstance(thing, Call):
            if self.registry.get(thing.kind.name) is None:
                raise UnknownJob(f"{thing.kind.name!r} is declared on another JobQueue, not on this one")
            return thing
        if isinstance(thing, JobFunction | BoundFunction):
            name = _name(thing)
            raise TypeError(
                f"{thing!r} is a function without arguments: write {name}.enqueue(…), or jobs.enqueue({name}.call(…))"
            )
        if not isinstance(thing, Job):
            if isinstance(thing, JobRecord):  # not shown: its payload may be a secret
                raise TypeError(f"the record of {thing.id} is no job: write requeue(…), or enqueue_records([…])")
            raise TypeError(f"{described(thing)} is no job: {_advice(thing)}")
        cls = type(thing)
        kind = self.registry.of_class(cls)
        if kind is None:
            raise UnknownJob(
                f"{cls.__module__}.{cls.__qualname__} is not registered on this JobQueue"
                f"{suggestion(cls.__qualname__, self.registry.names())}: put @jobs.register above the class "
                "(a subclass needs its own; after a reload, instances of the old class are not known)"
            )
        return Call(kind, {name: getattr(thing, name) for name in kind.codec.parameters})

    def _declare(self, function: Callable[..., Any], declared: Declared) -> JobFunction[..., Any, ..., Any]:
        if isinstance(function, JobFunction):
            raise DeclarationError(f"{function!r} is declared already: one function is one kind")
        if isinstance(function, str):
            raise DeclarationError(f"{function!r} is no function: a queue is named as in @jobs.job(queue={function!r})")
        self._check_queue(declared.queue)
        name = declared.name
        if name is None:
            if not getattr(function, "__qualname__", None) or function.__qualname__.endswith("<lambda>"):
                raise DeclarationError(f"{function!r} has no name of its own: declare it with @jobs.job(name=…)")
            name = default_kind_name(function)
        kind = function_kind(function, name, declared, _origin(function), self._queue_names)
        self.registry.add(kind)
        self._look_elsewhere(declared, name, function)
        return JobFunction(self, kind, function)

    def _look_elsewhere(self, declared: Declared, name: str, target: Any) -> None:
        if declared.name is None and not is_found_elsewhere(target):
            self.registry.private.setdefault(name, True)

    def _check_queue(self, queue: str | None) -> None:
        if queue is not None:
            check_known_queue(queue, self._queue_names)
