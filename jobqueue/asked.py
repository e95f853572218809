"""What users name a job by, and the records they give: checked, with words for what was given instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from jobqueue.errors import DeclarationError
from jobqueue.job import Call, Job
from jobqueue.record import JobRecord
from jobqueue.safe_text import id_bytes
from jobqueue.words import article

__all__ = ["check_records", "named", "shown"]


def named(call: str, job: object, queue: str | None, *, what: str = "") -> tuple[bytes, str | None]:
    """The id of a job that a user named, and its queue if that is known.

    Raises:
        DeclarationError: It is neither an id nor a record.
    """
    if isinstance(job, JobRecord):
        return id_bytes(job.id), job.queue if queue is None else queue
    if isinstance(job, str):
        try:
            return id_bytes(job), queue
        except UnicodeEncodeError:
            raise DeclarationError(f"{call}({what}…): {shown(job)} is no id of a job: it is no text") from None
    instead = ""
    if isinstance(job, bytes):
        instead = ": an id is a str, write id.decode()"
    elif isinstance(job, UUID):
        instead = ": an id is a str, write id.hex"
    elif job is None:
        instead = ": was the job looked for, and not there?"
    elif isinstance(job, Call | Job):
        instead = ": it has no id until it is enqueued, which answers its record"
    raise DeclarationError(f"{call}({what}…) takes the id of a job or its record, not {shown(job)}{instead}")


def shown(value: object) -> str:
    """What was given instead, without its contents: they may be a job's arguments."""
    if value is None or isinstance(value, str):
        return ascii(value)[:60]
    return article(type(value).__name__)


def check_records(call: str, records: object) -> list[JobRecord[Any]]:
    """The records that a user gave, as a list.

    Raises:
        DeclarationError: It is one record, or something else is among them.
    """
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise DeclarationError(
            f"{call}(…) takes a list of records, such as the records of an error, not {shown(records)}"
        )
    found = list(records)
    for record in found:
        if not isinstance(record, JobRecord):
            raise DeclarationError(f"{call}(…) takes records, each with all that is to be stored, not {shown(record)}")
    return found
