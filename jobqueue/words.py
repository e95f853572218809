"""What other libraries call things, and what to write here instead: for the errors of whoever comes from one of them."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from jobqueue.names import suggestion

__all__ = [
    "CALL",
    "FUNCTION",
    "OPTS",
    "QUEUE",
    "RECORD",
    "article",
    "belongs_to",
    "described",
    "explains",
    "no_attribute",
    "option_hint",
    "refuse",
]

T = TypeVar("T", bound=Callable[..., Any])

_WORDS: Final = {
    "delay": "after countdown defer_by delay delay_seconds enqueue_in in_ run_in schedule_in seconds time_delta",
    "moment": "at date_time defer_until enqueue_at eta execute_at run_at schedule_at scheduled_at when",
    "limit": "attempts limit max max_attempts max_retries max_tries number_of_retries retries retry tries",
    "backoff": "backoff default_retry_delay interval intervals max_backoff min_backoff retry_backoff retry_delay wait",
    "errors": "autoretry_for give_up_on on retry_exceptions retry_on retry_when throws",
    "queue": "lane priority queue queue_name routing_key task_queue",
    "timeout": "hard_time_limit job_timeout max_duration soft_time_limit time_limit timeout",
    "context": "bind ctx pass_context",
    "threads": "concurrency max_concurrency max_jobs max_workers n_workers num_workers worker_threads workers",
    "processes": "n_processes num_processes processes worker_processes",
    "burst": "burst until_empty",
    "url": "backend broker broker_url connection dsn host redis redis_url",
    "namespace": "key_prefix name prefix",
}
"""What is meant, and the names of options that mean it, ours among them: they may stand in the wrong place."""

_MEANT: Final = {word: meant for meant, words in _WORDS.items() for word in words.split()}

OPTS: Final = {
    "delay": "delay=…, in seconds",
    "moment": "at=…, an aware datetime",
    "limit": "retry=…, a number",
    "backoff": "retry=RetryPolicy(backoff=…) where the kind is declared",
    "errors": "retry=RetryPolicy(on=…, give_up_on=…) where the kind is declared",
    "queue": "queue=…, a name",
    "timeout": "timeout=… where the kind is declared",
}
"""What to write in the options of one job."""

JOB: Final = {
    "delay": "function.opts(delay=…).enqueue(…) for each job",
    "moment": "function.opts(at=…).enqueue(…) for each job",
    "limit": "retry=…, a number or a RetryPolicy",
    "backoff": "retry=RetryPolicy(backoff=…)",
    "errors": "retry=RetryPolicy(on=…, give_up_on=…)",
    "queue": "queue=…, a name",
    "timeout": "timeout=…, in seconds",
    "context": "a first parameter `ctx: Context`, which needs no option",
}
"""What to write where a kind is declared."""

_PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    "jobs.job": JOB,
    "class …(Job)": JOB,
    "RetryPolicy": {
        "limit": "limit=…, a number",
        "backoff": "backoff=…, a function of the retry's number",
        "delay": "backoff=…, a function of the retry's number",
        "errors": "on=… and give_up_on=…, tuples of exceptions",
    },
    "Retry": {
        "delay": "Retry(after=…), in seconds",
        "backoff": "Retry(after=…), or retry=RetryPolicy(backoff=…) where the kind is declared",
        "limit": "@jobs.job(retry=…), where the kind is declared",
        "errors": "@jobs.job(retry=RetryPolicy(on=…)), where the kind is declared",
    },
    "Snooze": {"delay": "Snooze(…), the seconds alone"},
    "Runner": {
        "*": "Runner(jobs, queues=…)",
        "threads": "threads=… for functions, coroutines=… for coroutines",
        "processes": "jobqueue run --processes N, or job_processes=… for kinds with process=True",
        "burst": "run(until_empty=True)",
        "queue": "queues=…, names or a mapping of name to weight",
        "url": "Runner(jobs), where jobs = JobQueue(url)",
    },
    "Runner.run": {"burst": "run(until_empty=True)"},
    "Runner.arun": {"burst": "arun(until_empty=True)"},
    "JobQueue": {
        "*": "JobQueue(url, namespace=…)",
        "url": "JobQueue(url), or client=… for a client of redis-py",
        "namespace": "namespace=…, a name",
        "queue": "queues=…, a list of names",
        "limit": "@jobs.job(retry=…), where a kind is declared",
    },
}
"""Class or function → what is meant → what to write; "*" stands for arguments that must have a name."""

_ENQUEUE: Final = "{}.enqueue(…)"
FUNCTION: Final = {
    **dict.fromkeys(("delay", "send", "defer", "push", "perform_async", "kiq", "submit"), _ENQUEUE),
    **dict.fromkeys(("defer_async", "asend", "delay_async", "enqueue_async"), "await {}.aenqueue(…)"),
    **dict.fromkeys(("apply_async", "send_with_options", "configure", "options", "using"), "{}.opts(…).enqueue(…)"),
    **dict.fromkeys(("enqueue_in", "schedule", "perform_in"), "{}.opts(delay=…).enqueue(…)"),
    **dict.fromkeys(("enqueue_at", "perform_at"), "{}.opts(at=…).enqueue(…)"),
    **dict.fromkeys(("s", "si", "signature", "message", "subtask"), "{}.call(…)"),
    "map": "jobs.enqueue_many([{}.call(…), …])",
    "retry": "return Retry(after=…), in the job",
}
"""Methods of declared functions elsewhere; the braces stand for the function."""

_OF_FUNCTION: Final = "function.enqueue(…), or jobs.enqueue(function.call(…))"
QUEUE: Final = {
    **dict.fromkeys(("task", "actor", "shared_task", "function", "tasks"), "@jobs.job"),
    **dict.fromkeys(
        ("delay", "send", "send_task", "apply_async", "enqueue_call", "enqueue_job", "push", "put"), _OF_FUNCTION
    ),
    **dict.fromkeys(("enqueue_in", "schedule"), "function.opts(delay=…).enqueue(…)"),
    "enqueue_at": "function.opts(at=…).enqueue(…)",
    **dict.fromkeys(("worker", "run", "run_worker", "start"), "Runner(jobs).run()"),
}
"""Methods of queues and applications elsewhere."""


CALL: Final = dict.fromkeys(("enqueue", "aenqueue", "delay", "send", "apply_async"), "jobs.enqueue(call)")
"""Methods of calls elsewhere."""

RECORD: Final = {
    **dict.fromkeys(
        ("result", "return_value", "get_result", "latest_result"),
        "what a job returns to a store of your own: it is not kept",
    ),
    **dict.fromkeys(
        ("get_status", "status", "state", "get_state"), "jobs.get(record).place; get answers None at its end"
    ),
    **dict.fromkeys(("refresh", "reload", "info"), "jobs.get(record), which answers a new record"),
    **dict.fromkeys(("delete", "cancel", "abort", "revoke", "forget"), "jobs.delete(record)"),
    "requeue": "jobs.requeue(record)",
    **dict.fromkeys(("args", "kwargs", "arguments"), "jobs.decode(record).arguments"),
}
"""Methods and attributes of stored jobs elsewhere."""

_ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "Runner": {
        **dict.fromkeys(("work", "start", "main", "run_forever"), "runner.run()"),
        "async_run": "await runner.arun()",
        **dict.fromkeys(("close", "shutdown", "terminate", "request_stop"), "runner.stop()"),
    }
}
"""Class → its methods elsewhere."""


def option_hint(word: str, parameters: Container[str]) -> str:
    """Answer what to write instead of an option among the arguments of a call, or nothing if it is none."""
    ours = None if word in parameters else OPTS.get(_MEANT.get(word, ""))
    if ours is None:
        return ""
    write = ours if "where" in ours else f".opts({ours.partition(',')[0]}).enqueue(…)"
    return f"; an option is no argument: write {write}"


def article(name: str) -> str:
    """Answer the name of a class behind the article that it has."""
    return f"an {name}" if name[0] in "AEIOaeio" else f"a {name}"


def described(thing: object) -> str:
    """Answer what something is that a user gave, without its contents: they may be the arguments of a job."""
    if isinstance(thing, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"{'the class' if isinstance(thing, type) else 'the function'} {thing.__qualname__}"
    return "None" if thing is None else article(type(thing).__qualname__)


def refuse(where: str, word: str, known: Iterable[str], place: Mapping[str, str]) -> NoReturn:
    """Refuse an option that there is not.

    Raises:
        TypeError: Always; it says what to write instead.
    """
    names = sorted(known)
    ours = place.get(_MEANT.get(word, ""))
    hint = suggestion(word, names) if ours is None else f"; write {ours}"
    raise TypeError(f"{where} has no option {word!r}{hint} (it takes {', '.join(names)})")


def explains(where: str) -> Callable[[T], T]:
    """Make a function, or the ``__init__`` of a class, say what to write instead of an option that it has not.

    A class does so for those of its methods, and for attributes, of which this module has words.
    """

    def decorate(target: Any) -> Any:
        if isinstance(target, type):
            _explain_class(target, where)
            return target
        options = [
            name for name, parameter in inspect.signature(target).parameters.items()
            if parameter.kind is not parameter.POSITIONAL_ONLY and name not in ("self", "cls")
        ]  # fmt: skip

        place = _PLACES[where]

        def check(args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
            for word in given:
                if word not in options:
                    refuse(where, word, options, place)
            if "*" in place and len(args) > 2:
                raise TypeError(f"{where} takes one argument without a name; write {place['*']}")

        @functools.wraps(target)
        def explained(*args: Any, **given: Any) -> Any:
            check(args, given)
            return target(*args, **given)

        @functools.wraps(target)
        async def awaited(*args: Any, **given: Any) -> Any:
            check(args, given)
            return await target(*args, **given)

        return awaited if inspect.iscoroutinefunction(target) else explained

    return decorate


def _explain_class(cls: Any, name: str) -> None:
    for method in list(vars(cls)):
        where = name if method == "__init__" else f"{name}.{method}"
        if where in _PLACES:
            setattr(cls, method, explains(where)(getattr(cls, method)))
    if name in _ATTRIBUTES:

        def unknown(self: object, attribute: str) -> Any:
            raise no_attribute(self, attribute, _ATTRIBUTES[name].get(attribute))

        cls.__getattr__ = unknown


def belongs_to(name: str) -> Callable[[T], T]:
    """Make the methods of a base class bear the name of the class that users know, which Python's own errors then tell."""

    def decorate(cls: T) -> T:
        for method in vars(cls).values():
            if inspect.isfunction(method):
                method.__qualname__ = inspect.unwrap(method).__qualname__ = f"{name}.{method.__name__}"
        return cls

    return decorate


def no_attribute(thing: object, name: str, ours: str | None) -> AttributeError:
    """Answer the error of an attribute that there is not.

    Args:
        thing: What was asked for it.
        name: The attribute.
        ours: What to write instead, if that is known.
    """
    hint = "" if ours is None else f"; write {ours}"
    return AttributeError(f"{type(thing).__name__} has no {name!r}{hint}", name=name, obj=thing)
