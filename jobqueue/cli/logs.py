"""How ``jobqueue run`` writes its log: one line a record, for people or for programs."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from jobqueue.cli.text import as_json, clean, clean_lines

__all__ = ["HumanFormatter", "JsonFormatter", "set_up_logging"]


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """The traceback of a record; one that comes from a worker process has the text alone."""
    return formatter.formatException(record.exc_info) if record.exc_info else record.exc_text


class HumanFormatter(logging.Formatter):
    """``time level logger: message``; a traceback follows, indented, so that no text in it can look like a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Answer the record's line."""
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        line = f"{time} {record.levelname:<7} {clean(record.name)}: {clean(record.getMessage())}"
        if trace := _trace(self, record):
            trace = clean_lines(trace)
            line += "".join(f"\n    {part}" for part in trace.split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line with ``time``, ``level``, ``logger``, ``message``, and ``exception`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Answer the record's line."""
        value: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := _trace(self, record):
            value["exception"] = trace
        return as_json(value)


def set_up_logging(level: str, *, json_output: bool) -> None:
    """Send all logging of this process to standard error.

    Args:
        level: The name of the least level to be written.
        json_output: JSON lines instead of text.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_output else HumanFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
