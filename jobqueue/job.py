"""Kinds of job, calls of them, and the base of those that are classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Literal, Self, TypeAlias, Unpack, get_args

import attrs
import msgspec

from jobqueue.codec import Codec
from jobqueue.context import Context
from jobqueue.durations import milliseconds
from jobqueue.errors import DeclarationError, PayloadError
from jobqueue.names import check_kind_name, check_queue_name, is_importable
from jobqueue.options import NO_OPTIONS, EnqueueOptions, Options
from jobqueue.record import R
from jobqueue.refusals import reason
from jobqueue.retry import RetryPolicy, check_limit
from jobqueue.signatures import FunctionShape, class_shape, function_shape
from jobqueue.words import CALL, explains, no_attribute, option_hint

__all__ = ["DEFAULT_QUEUE", "LANES", "Call", "Declared", "Job", "Kind", "Lane", "class_kind", "function_kind"]

DEFAULT_QUEUE: Final = "low"
Lane: TypeAlias = Literal["thread", "loop", "process"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""Where jobs of a kind run: functions on threads, coroutines on an event loop, functions that ask for it in processes."""
_LONGEST: Final = 200
"""Characters of what Python says of a call that does not fit."""


@attrs.frozen
class Declared:
    """What a declaration says of a kind, checked; None where it says nothing.

    Attributes:
        name: The kind's name; it is never inherited.
        queue: The queue of its jobs.
        retry: When they are retried.
        aliases: Earlier names; they are never inherited.
        process: Whether its jobs run in processes.
        timeout: How long a run may take, in ms.
    """

    name: str | None = None
    queue: str | None = None
    retry: RetryPolicy | None = None
    aliases: tuple[str, ...] = ()
    process: bool | None = None
    timeout: int | None = None

    @classmethod
    def of(
        cls, name: object, queue: object, retry: object, aliases: object, process: object, timeout: object
    ) -> Declared:
        """Check what a user typed.

        Raises:
            DeclarationError: One of them cannot work.
        """
        if isinstance(aliases, str) or not isinstance(aliases, tuple | list | set | frozenset):
            raise DeclarationError(f'aliases must be a tuple of names, as in aliases=("old.name",), not {aliases!r}')
        return cls(
            name=None if name is None else check_kind_name(name),
            queue=None if queue is None else check_queue_name(queue),
            retry=None if retry is None else _policy(retry),
            aliases=tuple(check_kind_name(alias) for alias in aliases),
            process=_switch(process),
            timeout=None if timeout is None else _limit(timeout),
        )


def _policy(retry: object) -> RetryPolicy:
    if isinstance(retry, RetryPolicy):
        return retry
    if not isinstance(retry, int | float | str):
        raise DeclarationError(f"retry is a number or a RetryPolicy(…), not {retry!r}")
    return RetryPolicy(limit=check_limit(retry))


def _switch(process: object) -> bool | None:
    if process is None or isinstance(process, bool):
        return process
    raise DeclarationError(f"process is True or False, not {process!r}")


def _limit(timeout: Any) -> int:
    try:
        limit = milliseconds(timeout, "timeout")
    except (TypeError, ValueError) as error:
        raise DeclarationError(str(error)) from error
    if limit == 0:
        raise DeclarationError(f"timeout={timeout!r} leaves no time at all: use seconds above 0, or leave it out")
    return limit


def _lane(name: str, target: Any, declared: Declared, *, is_coroutine: bool) -> Lane:
    """Where jobs of this kind run. Refuses what cannot be done there."""
    if declared.process and is_coroutine:
        raise DeclarationError(
            f"{name} is a coroutine function, which runs on the event loop: process=True is for plain functions"
        )
    if declared.process and not is_importable(target):
        raise DeclarationError(
            f"{name} cannot be found by another process: declare a kind with process=True at the top of a module "
            "that is in a file"
        )
    if declared.timeout is not None and not (declared.process or is_coroutine):
        raise DeclarationError(
            f"{name} is a function that runs on a thread, and a thread cannot be stopped: "
            "add process=True, or leave timeout out"
        )
    return "loop" if is_coroutine else "process" if declared.process else "thread"


def _positional(kind: Kind[Any]) -> tuple[str, ...] | None:
    """The names of a kind's parameters if all of them can be given by position and by name."""
    parameters = kind.signature.parameters
    simple = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters.values())
    return tuple(parameters) if simple else None


def _least(kind: Kind[Any]) -> int:
    """How many of its parameters have no default; where all are positional, those are the first."""
    return sum(parameter.default is parameter.empty for parameter in kind.signature.parameters.values())


class _Default:
    def __repr__(self) -> str:
        return "…"


def _without_defaults(signature: inspect.Signature) -> inspect.Signature:
    """How a call is written; defaults are values, which may be long, or secrets from a configuration."""
    parameters = [
        parameter if parameter.default is parameter.empty else parameter.replace(default=_Default())
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


def _check_keywords(kind: str, keywords: AbstractSet[str], reserved: frozenset[str]) -> None:
    if not reserved.isdisjoint(keywords):
        taken = min(reserved & keywords)
        raise PayloadError(f"{kind}: `{taken}` cannot be among its keyword arguments: a parameter has that name")


@attrs.frozen(eq=False)
class Kind(Generic[R]):
    """What a name stands for: something to run, and the arguments it takes.

    Attributes:
        name: What it is stored as.
        aliases: Earlier names, under which jobs may still be stored.
        queue: Where its jobs go unless an option says otherwise.
        retry: When its jobs are retried.
        lane: Where its jobs run.
        target: The declared function or class.
        codec: Its arguments as JSON and back.
        queues: The queues that options may name; None for any.
        signature: How its arguments are typed by a caller; the context is not among them.
        bind: Takes a payload and a context, and answers a function without parameters that runs the job (what a coroutine
            function answers is left to the caller to await). Raises `PayloadError` where the payload does not fit. An
            attribute and not a method, because a runner calls it for every job.
        reserved: Names that keyword arguments must not have: for a function that takes a context and ``**kwargs``.
        timeout: How long a run may take, in ms; None without end.
        origin: The file and qualified name of the declaration: the same again is a reload, not a duplicate.
    """

    name: str
    aliases: tuple[str, ...]
    queue: str
    retry: RetryPolicy
    lane: Lane
    target: Callable[..., Any] = attrs.field(repr=False)
    codec: Codec = attrs.field(repr=False)
    queues: frozenset[str] | None = attrs.field(repr=False)
    signature: inspect.Signature = attrs.field(repr=False)
    reserved: frozenset[str] = attrs.field(repr=False)
    origin: tuple[object, ...] = attrs.field(repr=False)
    bind: Callable[[bytes, Context], Callable[[], Any]] = attrs.field(repr=False)
    timeout: int | None = None
    _positional: tuple[str, ...] | None = attrs.field(init=False, repr=False, default=attrs.Factory(_positional, True))
    _least: int = attrs.field(init=False, repr=False, default=attrs.Factory(_least, True))

    def __copy__(self) -> Self:
        return self  # calls of it are copied, as parts of what holds them: it is the same declaration

    def __deepcopy__(self, memo: object) -> Self:
        return self

    @property
    def is_coroutine(self) -> bool:
        """Whether calling what `bind` answers gives something to await."""
        return self.lane == "loop"

    def encode(self, arguments: Mapping[str, object]) -> bytes:
        """Check arguments and write them as JSON, only those given.

        Raises:
            PayloadError: One is missing, unknown, of the wrong type, has no form in JSON, or would arrive changed.
        """
        return self.codec.encode(arguments)

    def decode(self, payload: bytes) -> Call[R]:
        """Answer the call in a payload.

        Raises:
            PayloadError: The bytes are no JSON, or do not fit the declaration.
        """
        return Call(self, self.codec.arguments(payload))

    def arguments_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, object]:
        """Name the arguments of a call like Python would, only those given.

        Raises:
            PayloadError: One is missing, unknown or given twice.
        """
        simple = self._positional
        if simple is not None and len(args) <= len(simple):
            arguments = dict(zip(simple, args))  # noqa: B905 - to say that the two may differ costs a third of the call
            if kwargs:
                arguments.update(kwargs)
                known, given = self.codec, arguments.keys()
                if len(given) == len(args) + len(kwargs) and known.required <= given <= known.parameters.keys():
                    return arguments
            elif len(args) >= self._least:
                return arguments
        try:  # it is wrong, or not simple: the slow way has the better words
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            hint = next((found for word in kwargs if (found := option_hint(word, self.signature.parameters))), "")
            # Without the cause, whose frames are those of `inspect`.
            raise PayloadError(
                f"{self.name}{_without_defaults(self.signature)}: {str(error)[:_LONGEST]}; nothing was stored{hint}"
            ) from None
        _check_keywords(self.name, kwargs.keys() - self.signature.parameters.keys(), self.reserved)
        return dict(bound.arguments)


class Call(msgspec.Struct, Generic[R], frozen=True):
    """One use of a kind: what to run with which arguments, not stored yet.

    Attributes:
        kind: The kind.
        arguments: By name, only those given.
        options: How it is to be enqueued.
    """

    kind: Kind[R]
    arguments: Mapping[str, object]
    options: Options = NO_OPTIONS

    def __repr__(self) -> str:
        options = "" if self.options == NO_OPTIONS else f" with {self.options}"
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"<call {self.kind.name}({arguments}){options}>"

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, CALL.get(name))

    def opts(self, **options: Unpack[EnqueueOptions]) -> Call[R]:
        """Answer the same call with these options.

        Args:
            options: See `EnqueueOptions`.

        Raises:
            DeclarationError: A queue that does not exist, or a ``retry`` that is no whole number.
            TypeError: An unknown option, or a value of the wrong type.
            ValueError: A naive ``at``, ``delay`` with ``at``, a negative or non-finite delay.
        """
        return Call(self.kind, self.arguments, self.options.updated(options, self.kind.queues))


class Job:
    """The base of kinds that are classes: the instance is the payload, `perform` is what is run.

    ```python
    @jobs.register
    @attrs.frozen
    class Resize(Job, name="images.resize", queue="low", retry=13):
        path: str

        def perform(self, ctx: Context) -> None: ...
    ```

    ``queue``, ``retry``, ``process`` and ``timeout`` are inherited by subclasses, ``name`` and ``aliases`` are not. A
    subclass of a registered class is a kind of its own and has to be registered too.
    """

    __slots__ = ()
    __jobqueue_declared__: ClassVar[Declared] = Declared()

    @explains("class …(Job)")
    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: int | RetryPolicy | None = None,
        aliases: tuple[str, ...] = (),
        process: bool | None = None,
        timeout: float | timedelta | None = None,
    ) -> None:
        """Take the options of the class line.

        Args:
            name: What the kind is stored as; by default ``module.qualname``.
            queue: The queue of its jobs; by default that of the base class, then ``"low"``.
            retry: How many retries, or a policy; by default that of the base class, then 13.
            aliases: Earlier names, under which jobs may still be stored.
            process: Run ``perform`` in a process; by default what the base class says, then not.
            timeout: How long a run may take, in seconds or as a `timedelta`; needs ``process=True`` or an ``async``
                ``perform``. By default that of the base class, then no limit.

        Raises:
            DeclarationError: One of them cannot work.
        """
        super().__init_subclass__()
        if "__jobqueue_declared__" in vars(cls):
            return  # the second class that attrs and dataclass make for slots: a copy of this one, without the options
        declared = Declared.of(name, queue, retry, aliases, process, timeout)
        above = cls.__jobqueue_declared__
        cls.__jobqueue_declared__ = attrs.evolve(
            declared,
            queue=declared.queue or above.queue,
            retry=declared.retry or above.retry,
            process=above.process if declared.process is None else declared.process,
            timeout=declared.timeout or above.timeout,
        )

    def perform(self, ctx: Context, /) -> Any:
        """Do the work; `async def` is fine too.

        Args:
            ctx: What the job can ask about its own run.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no perform")


def function_kind(
    target: Callable[..., Any], name: str, declared: Declared, origin: tuple[object, ...], queues: frozenset[str] | None
) -> Kind[Any]:
    """Make the kind of a function.

    Raises:
        DeclarationError: It cannot be run as a job, or a parameter cannot be stored.
    """
    shape = function_shape(target, name)
    lane = _lane(name, target, declared, is_coroutine=shape.is_coroutine)
    codec = Codec(name, shape.parameters)
    return Kind(
        name=name,
        aliases=declared.aliases,
        queue=declared.queue or DEFAULT_QUEUE,
        retry=declared.retry or RetryPolicy(),
        lane=lane,
        target=target,
        codec=codec,
        queues=queues,
        signature=shape.signature,
        reserved=shape.reserved,
        origin=origin,
        bind=_function_binder(target, name, codec, shape),
        timeout=declared.timeout,
    )


def _function_binder(
    target: Callable[..., Any], kind_name: str, codec: Codec, shape: FunctionShape
) -> Callable[[bytes, Context], Callable[[], Any]]:
    decode, partial, takes_context = codec.decode, functools.partial, shape.takes_context
    kinds = [parameter.kind for parameter in shape.signature.parameters.values()]
    # A runner does this for every job: the two usual shapes have no test and no loop in them.
    if all(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds):
        if takes_context:
            return lambda payload, context: partial(target, context, *decode(payload))
        return lambda payload, _: partial(target, *decode(payload))
    names = tuple(shape.signature.parameters)

    def bind(payload: bytes, context: Context) -> Callable[[], Any]:
        args: list[Any] = [context] if takes_context else []
        kwargs: dict[str, Any] = {}
        for name, kind, value in zip(names, kinds, decode(payload), strict=True):
            if kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                _check_keywords(kind_name, value.keys(), shape.reserved)
                kwargs.update(value)
            else:
                args.append(value)
        # partial() takes its own first parameter by position only, so no keyword can collide with it.
        return partial(target, *args, **kwargs)

    return bind


def class_kind(cls: type[Job], name: str, origin: tuple[object, ...], queues: frozenset[str] | None) -> Kind[Any]:
    """Make the kind of a class.

    Raises:
        DeclarationError: It cannot be run as a job, or a field cannot be stored.
    """
    if cls.perform is Job.perform:
        raise DeclarationError(f"{name} needs a method `def perform(self, ctx: Context)`, or `async def`")
    shape = class_shape(cls, name)
    codec = Codec(name, shape.parameters)
    declared = cls.__jobqueue_declared__
    lane = _lane(name, cls, declared, is_coroutine=shape.is_coroutine)
    aliases = shape.aliases

    def bind(payload: bytes, context: Context) -> Callable[[], Any]:
        values = zip(aliases, codec.decode(payload), strict=True)
        try:
            job = cls(**{alias: value for alias, value in values if value is not msgspec.UNSET})
        except Exception as error:  # noqa: BLE001 - its validators and __post_init__ have the last word on what fits
            problem = reason(error)
        else:
            return functools.partial(job.perform, context)
        # Without the cause, whose message may quote arguments.
        raise PayloadError(f"{name}: {cls.__qualname__} refuses its stored fields: {problem}")

    return Kind(
        name=name,
        aliases=declared.aliases,
        queue=declared.queue or DEFAULT_QUEUE,
        retry=declared.retry or RetryPolicy(),
        lane=lane,
        target=cls,
        codec=codec,
        queues=queues,
        signature=inspect.signature(cls),
        reserved=frozenset(),
        origin=origin,
        bind=bind,
        timeout=declared.timeout,
    )
