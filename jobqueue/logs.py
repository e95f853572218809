"""The loggers of this library, and what every record of the standard logging says of the job that it was made for.

A record says so by the attributes in `FIELDS`. They are set in `logging.Logger.makeRecord`, the one place that all loggers
share and that comes after ``extra=``. Rejected: a record factory, which comes before it: an application that logs
``extra={"queue": …}`` in a job would get a `KeyError`. And a factory that an application sets later would lose ours.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias

from jobqueue.safe_text import LINE, printable

__all__ = [
    "FIELDS",
    "About",
    "AnyLogger",
    "Careful",
    "Subject",
    "about",
    "counted",
    "extra_of",
    "library_logger",
    "name_jobs",
    "subject",
]

FIELDS: Final = ("job_id", "kind", "queue", "attempt", "runner", "fence")
"""The attributes that records about a job have, and those that a job makes."""

AnyLogger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


def counted(number: int, what: str, more: str = "s") -> str:
    """``1 job``, ``2 jobs``; ``more`` is what the plural ends with."""
    return f"{number} {what}" if number == 1 else f"{number} {what}{more}"


class Subject(Protocol):
    """What records are about."""

    @property
    def log_fields(self) -> Mapping[str, object]:
        """Attribute → value."""
        ...


subject: Final[ContextVar[Subject]] = ContextVar("jobqueue.subject")
"""What the code that runs here is about: the context of a job, or an `About`."""


class About:
    """What the library logs of a job, where that does not run or has just ended.

    Attributes:
        log_fields: What its records say.
        before: What the code was about before.
    """

    __slots__ = ("before", "log_fields")

    def __init__(self, log_fields: Mapping[str, object], before: Subject | None) -> None:
        self.log_fields = log_fields
        self.before = before


@contextlib.contextmanager
def about(fields: Mapping[str, object]) -> Iterator[None]:
    """Let the records that are made inside have these attributes."""
    token = subject.set(About(fields, subject.get(None)))
    try:
        yield
    finally:
        subject.reset(token)


_naming: Final = threading.Lock()
_named = False


def name_jobs() -> None:
    """From now on records say which job they are about. What an application says itself, by ``extra=`` or otherwise, wins.

    A runner calls this at its start. It is done once in a process and stays: outside of jobs it changes nothing.
    """
    global _named
    with _naming:
        if _named:
            return
        _named = True
        make = logging.Logger.makeRecord

        @functools.wraps(make)
        def make_record(self: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(self, *args, **kwargs)
            found = subject.get(None)
            if found is not None:
                values = record.__dict__
                for name, value in found.log_fields.items():
                    values.setdefault(name, value)
            return record

        logging.Logger.makeRecord = make_record  # type: ignore[method-assign]


_OWN: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def extra_of(record: logging.LogRecord) -> str:
    """What a record says besides what every record says, as a JSON object: of its job, and by ``extra=``.

    Values that have no form in JSON are written as their ``repr``. This raises nothing that such a value raises.
    """
    extra = {name: value for name, value in vars(record).items() if name not in _OWN}
    try:
        return _json(extra)
    except Exception:  # noqa: BLE001 - NaN, a value inside of itself, a key that is no text
        return _json({str(name): _plain(value) for name, value in extra.items()})


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, default=_shown)


def _plain(value: object) -> object:
    try:
        _json(value)
    except Exception:  # noqa: BLE001 - as above
        return _shown(value)
    return value


def _shown(value: object) -> str:
    try:
        return "".join((repr(value),))
    except Exception as error:  # noqa: BLE001 - the object's own code
        return f"<{type(value).__name__}: its repr raised {type(error).__name__}>"


def library_logger(name: str) -> logging.Logger:
    """One of this library's own loggers, enabled.

    `logging.config.dictConfig` disables every logger that it is not told of, unless it is told not to. That is meant for
    loggers of an earlier configuration; here it would hide the errors of jobs. Who wants silence sets a level.
    """
    logger = logging.getLogger(name)
    logger.disabled = False
    return logger


@contextlib.contextmanager
def carefully(msg: object, args: tuple[object, ...] = ()) -> Iterator[None]:
    """Log inside of this, where a filter or a handler of the user's may raise: then the line goes to standard error."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - foreign code
        with contextlib.suppress(Exception):
            text, why = str(msg) % args if args else str(msg), repr(error)
            sys.stderr.write(f"{text}\n(the line above could not be logged: {why})\n")


class Careful(logging.Logger):
    """Logs elsewhere. Filters and handlers there may raise: that must not end a thread of the runner.

    Every message of the library comes by here, and is one short printable line: names, ids and errors may be made of what
    something else has written to the storage. What stands in ``exc_info`` is told as it is.

    Args:
        to: A logger or an adapter; or the name of one of the library's own, see `library_logger`.
    """

    def __init__(self, to: AnyLogger | str) -> None:
        self._is_own = isinstance(to, str)
        self._to = logging.getLogger(to) if isinstance(to, str) else to
        super().__init__(self._to.name)

    @property
    def _target(self) -> AnyLogger:
        if self._is_own:
            self._to.disabled = False  # type: ignore[union-attr] # see `library_logger`
        return self._to

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is that of the standard library
        """See `logging.Logger`."""
        return self._target.isEnabledFor(level)

    def _log(  # what all methods of a logger come to
        self, level: int, msg: object, args: Any, exc_info: Any = None, extra: Any = None, stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:  # fmt: skip
        with carefully(msg, args):
            told = map(_told, args)
            self._target.log(
                level,
                msg if args else _told(msg),
                *told,
                exc_info=exc_info,
                extra=extra,
                stack_info=stack_info,
                stacklevel=stacklevel + 1,
            )


def _told(value: object) -> object:
    """What a message says of a value: a number is itself."""
    return value if isinstance(value, int | float) else printable(str(value), LINE)
