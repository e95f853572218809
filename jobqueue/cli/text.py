"""Text for a terminal: what is stored may hold anything, and a terminal obeys some of it."""

from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobqueue.record import timestamp
from jobqueue.safe_text import printable

if TYPE_CHECKING:
    from jobqueue.record import JobRecord

__all__ = [
    "as_json", "claimed_at", "clean", "clean_lines", "died_at", "moment", "moment_or_none", "payload_start", "payload_value",
    "shortened",
]  # fmt: skip


def clean(text: str) -> str:
    """Answer the text in one line, whole, with everything that is not printable written as an escape."""
    return printable(text, None)


def clean_lines(text: str) -> str:
    """Answer the text with its line ends kept and everything else as in `clean`."""
    return "\n".join(clean(line.replace("\t", "    ")) for line in text.split("\n"))


def shortened(text: str, width: int) -> str:
    """Answer the first line, cleaned, in at most ``width`` characters."""
    line = clean(text.split("\n", 1)[0])
    return line if len(line) <= width else f"{line[: width - 1]}…"


def as_json(value: Any) -> str:
    """Answer JSON in one line of printable ASCII, so that it is harmless on a terminal as well."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def moment(time: datetime) -> str:
    """Answer a time in UTC to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def moment_or_none(time: datetime | None) -> str | None:
    """Answer a time as ISO 8601 in UTC, for machines."""
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")


def claimed_at(record: JobRecord[Any]) -> datetime | None:
    """About when the runner that holds the job claimed it, of which the fence is made; None if nobody holds it."""
    return timestamp(record.fence) if record.fence else None


def died_at(record: JobRecord[Any]) -> datetime | None:
    """When the job was given up; None if it is not dead."""
    return timestamp(record.score) if record.place == "dead" else None


def payload_start(payload: bytes, width: int) -> str:
    """Answer the beginning of stored arguments, cleaned, in one line of at most ``width`` characters."""
    return shortened(payload[: 4 * width + 4].decode(errors="backslashreplace"), width)


def payload_value(payload: bytes) -> dict[str, Any]:
    """Answer the stored arguments under the key ``arguments``, or bytes that are no JSON as ``payload_base64``."""
    try:
        value = json.loads(payload, parse_constant=_refuse, parse_float=_finite)
        as_json(value)  # what is too deep to be written is seen here
        return {"arguments": value}
    except (ValueError, RecursionError):
        return {"payload_base64": base64.b64encode(payload).decode("ascii")}


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(number, 20)} is larger than any number here")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
