"""How ``jobqueue run`` writes its log: one line a record, for people or for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from jobqueue.cli.text import as_json, clean, clean_lines
from jobqueue.logs import extra_of

__all__ = ["HumanFormatter", "JsonFormatter", "set_up_logging"]


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The traceback of a record; that of one from a worker process is a text, beside an exception without frames."""
    return record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else None)


class HumanFormatter(logging.Formatter):
    """``time level logger: message``; a traceback follows, indented, so that no text in it can look like a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Answer the record's line."""
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        line = f"{time} {record.levelname:<7} {clean(record.name)}: {clean(record.getMessage())}"
        for trace in filter(None, (_trace(self, record), record.stack_info)):
            line += "".join(f"\n    {part}" for part in clean_lines(trace).split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger`` and ``message``; then whatever else the record says.

    That are the fields of a job, ``outcome`` and ``duration`` (seconds) at its end, and what the application passed as
    ``extra=``; a name that is taken already gets ``extra_`` before it. ``exception`` holds a traceback, and
    ``stack`` where ``stack_info=True`` was logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Answer the record's line."""
        value: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = _trace(self, record)
        taken = {*value, "exception", "stack"}
        for name, said in json.loads(extra_of(record)).items():
            value[f"extra_{name}" if name in taken else name] = said
        if trace:
            value["exception"] = trace
        if record.stack_info:
            value["stack"] = record.stack_info
        return as_json(value)


class _Left(logging.Filter):
    """Lets pass what no handler of the application takes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether there is none between the record's logger and the root."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None and logger.parent is not None:
            if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
                return False
            logger = logger.parent
        return True


def set_up_logging(level: str, *, json_output: bool) -> bool:
    """Send to standard error what the application does not send anywhere itself.

    To be called when the modules of the application are imported. One that has given the root a handler has set up logging,
    and nothing is changed. One that has given handlers to loggers of its own keeps what these take to itself.

    Args:
        level: The name of the least level to be written.
        json_output: JSON lines instead of text.

    Returns:
        Whether there was something to set up.
    """
    root = logging.getLogger()
    if any(not isinstance(handler, logging.NullHandler) for handler in root.handlers):
        return False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_output else HumanFormatter())
    handler.addFilter(_Left())
    root.addHandler(handler)
    root.setLevel(level.upper())
    return True
