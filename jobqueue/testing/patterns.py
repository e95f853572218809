"""Which jobs a test means, and what it is told when there are none."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from jobqueue.declaring import BoundFunction, JobFunction
from jobqueue.errors import PayloadError, UnknownJob
from jobqueue.job import Call, Job, Kind
from jobqueue.names import suggestion
from jobqueue.queue import JobQueue
from jobqueue.record import JobRecord, timestamp
from jobqueue.safe_text import LINE, printable
from jobqueue.testing.history import Story
from jobqueue.testing.matching import differs, is_matcher

__all__ = ["Pattern", "What", "describe", "listing", "pattern", "told"]

What: TypeAlias = JobFunction[..., Any, ..., Any] | type[Job] | str | Call[Any] | Job
"""What a test can name jobs by: a kind (its function, class or name), or one exact job (a `Call`, an instance)."""

MOST: Final = 20
"""Jobs that a message lists."""
_short: Final = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = 10


@attrs.frozen
class Pattern:
    """Which jobs are meant.

    Attributes:
        kind: Of this kind; None for any.
        arguments: With these arguments, as the job receives them, or matchers of them; others do not matter.
        call: Enqueued with the options of this call, where it has any.
    """

    kind: Kind[Any] | None = None
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    call: Call[Any] | None = None

    def __str__(self) -> str:
        if self.kind is None:
            return "any job"
        text = f"{self.kind.name}({_arguments(self.arguments)}{'' if self.call or not self.arguments else ', …'})"
        options = [] if self.call is None else _options(self.call)
        return f"{text} with {', '.join(options)}" if options else text

    def differences(self, jobs: JobQueue, record: JobRecord[Any]) -> list[str] | None:
        """The arguments and options in which a job is another one; None if it is of another kind."""
        if self.kind is None:
            return []
        if jobs.registry.get(record.name) is not self.kind:
            return None
        try:
            received = _received(self.kind, record.payload)
        except PayloadError:
            return ["payload"]
        different = [
            name
            for name, value in self.arguments.items()
            if name not in received or differs(value, received[name], name)
        ]
        return different if self.call is None else different + _other_options(self.call, record)


def pattern(jobs: JobQueue, what: What | None, partial: Mapping[str, Any]) -> Pattern:
    """Which jobs a test means.

    Raises:
        UnknownJob: The kind is not declared on this `JobQueue`.
        PayloadError: An argument that the kind does not have, or of another type.
        TypeError: ``what`` names no kind, or arguments are given where there is no place for them.
    """
    if what is None:
        if partial:
            raise TypeError(f"whose arguments are {', '.join(partial)}? name the kind first, as in (send_email, to=…)")
        return Pattern()
    if isinstance(what, Call | Job):
        call = jobs.call_of(what)
        if partial:
            raise TypeError(f"a Call or an instance is exact: {', '.join(partial)} belong into it")
        return Pattern(call.kind, _received(call.kind, call.kind.encode(call.arguments)), call)
    kind = _kind(jobs, what)
    for name in partial:
        if name not in kind.codec.parameters:
            raise PayloadError(
                f"{kind.name} has no argument {name!r}, only {', '.join(kind.codec.parameters) or 'none at all'}"
                f"{suggestion(name, kind.codec.parameters)}"
            )
    matchers = {name: value for name, value in partial.items() if is_matcher(value)}
    plain = kind.codec.partial({name: value for name, value in partial.items() if name not in matchers})
    return Pattern(kind, {name: matchers.get(name, plain.get(name)) for name in partial})


def _kind(jobs: JobQueue, what: object) -> Kind[Any]:
    if isinstance(what, JobFunction):
        kind, name = jobs.registry.get(what.kind.name), what.kind.name
        if kind is not what.kind:
            raise UnknownJob(
                f"{name!r} was declared again, or on another JobQueue: this is not the function in use here"
            )
    elif isinstance(what, str):
        kind, name = jobs.registry.get(what), what
    elif isinstance(what, type) and issubclass(what, Job):
        kind, name = jobs.registry.of_class(what), what.__qualname__
        if kind is None:
            raise UnknownJob(f"the class {name} is not registered on this JobQueue: put @jobs.register above it")
    elif isinstance(what, BoundFunction):
        raise TypeError("opts(…) names no job yet: pass the function itself, or opts(…).call(…) for one exact job")
    else:
        raise TypeError(f"{what!r} is no kind of job: pass a declared function, a class, a name, a Call or an instance")
    if kind is None:
        raise UnknownJob(f"no kind {name!r} is declared on this JobQueue{suggestion(name, jobs.registry.names())}")
    return kind


def _received(kind: Kind[Any], payload: bytes) -> dict[str, Any]:
    """The arguments as the job receives them, defaults filled in."""
    values = zip(kind.codec.parameters, kind.codec.decode(payload), strict=True)
    return {name: value for name, value in values if value is not msgspec.UNSET}


def _options(call: Call[Any]) -> list[str]:
    options = call.options
    return [
        *([f"queue={options.queue!r}"] if options.queue is not None else []),
        *[f"{name}={value!r}" for name, value in options.stored.items()],
        *([f"delay={timedelta(milliseconds=options.delay_ms)}"] if options.delay_ms else []),
        *([f"at={timestamp(options.at_ms)}"] if options.at_ms is not None else []),
    ]


def _other_options(call: Call[Any], record: JobRecord[Any]) -> list[str]:
    options, stored = call.options, record.stored
    return [
        *(["queue"] if options.queue is not None and options.queue != record.queue else []),
        *[name for name, value in options.stored.items() if getattr(stored, name) != value],
        *(["delay"] if options.delay_ms and options.delay_ms != stored.due - stored.created else []),
        *(["at"] if options.at_ms is not None and options.at_ms != stored.due else []),
    ]


# ------------------------------------------------------------------------------------------------------------ messages


def describe(jobs: JobQueue, record: JobRecord[Any], now: datetime) -> str:
    """One line that tells a job from others."""
    where = f"{record.queue}, {record.place}"
    if record.place == "waiting":
        where += f", due in {record.due - now}" if record.due > now else ", due"
    if record.attempt:
        where += f", failed {record.attempt}×"
    return f"{_job(jobs, record.name, record.payload)} in {where}"


def _job(jobs: JobQueue, name: str, payload: bytes) -> str:
    kind = jobs.registry.get(name)
    try:
        arguments = _arguments(kind.decode(payload).arguments) if kind is not None else _short.repr(payload)
    except Exception:  # noqa: BLE001 - it is only shown; classes of users may raise anything
        arguments = _short.repr(payload)
    return printable(f"{name or '(unreadable)'}({arguments})", LINE)


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short.repr(value)}" for name, value in arguments.items())


def listing(jobs: JobQueue, wanted: Pattern, records: Sequence[JobRecord[Any]], now: datetime) -> Iterable[str]:
    """A line for each job, those nearest to what was wanted first, with what is different about them."""
    found = [(wanted.differences(jobs, record), record) for record in records]
    found.sort(key=lambda one: (one[0] is None, len(one[0] or ())))
    for different, record in found[:MOST]:
        note = f"  ← other {', '.join(different)}" if different else ""
        yield f"  {describe(jobs, record, now)}{note}"
    if len(found) > MOST:
        yield f"  … and {len(found) - MOST} more"


def told(jobs: JobQueue, stories: Sequence[Story]) -> Iterable[str]:
    """What happened to each job, those enqueued last if there are many, and the latest of what happened."""
    if len(stories) > MOST:
        yield f"  … {len(stories) - MOST} jobs earlier"
    for story in stories[-MOST:]:
        id = printable(story.id)
        yield f"  {_job(jobs, story.stored.name, story.stored.payload)} {id}:"
        if len(story.events) > MOST:
            yield f"    … {len(story.events) - MOST} steps earlier"
        yield from (f"    +{event.after}  {printable(event.what, LINE)}" for event in story.events[-MOST:])
