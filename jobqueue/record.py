"""What is stored of a job, and what a user sees of it.

A stored record is 8 bytes of nonce and a MessagePack array. MessagePack because it holds the payload as it is, whatever
bytes a foreign writer left there; an array because the names of the fields would be half of a small job. The payload
inside is JSON.

A newer version of the library may append fields. `rewrite` keeps fields that this version does not know, byte for byte.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeAlias

import msgspec

from jobqueue.errors import PayloadError
from jobqueue.safe_text import LINE, id_text, printable, quoted
from jobqueue.storage.ops import Kept, Place, Score, Unread
from jobqueue.words import RECORD, no_attribute

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

__all__ = [
    "NONCE_SIZE",
    "JobRecord",
    "R",
    "Stored",
    "clean",
    "decode",
    "encode",
    "job_record",
    "parse_claim",
    "record_of",
    "rewrite",
    "timestamp",
    "whole",
    "wrap_raw",
]

NONCE_SIZE: Final = 8
ERROR_LIMIT: Final = 16_000
"""Bytes of an error that are kept."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# Bounds, because whoever can write to the storage can write a record: a number that no storage could keep as a score, or
# that overflows when one is added, must make that record unreadable and not end the runner that claims it.
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Stored(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The stored fields of a job, in their order in the record. Times are milliseconds since 1970.

    Attributes:
        name: The kind.
        payload: The arguments as JSON.
        retry: How many retries it may have; negative without end.
        attempt: How many attempts failed.
        recoveries: How many runners ended without saying so while they held it.
        created: When it was enqueued.
        due: When it was or is to be run next.
        error: What the last failed attempt said.
        started: The fence under which it was started alone, as a suspect of having taken runners down, or under which its
            own process died.
        parked: How often it was put back because the runner does not know the kind.
        parked_since: Since when.
        died: When it died last, before it was requeued.
        needs: The level of the library that may run or end it; see `jobqueue.doors`.
        meta: What belongs to the job besides, as a MessagePack map with short names; empty for nothing.
        holds: What it holds besides its place, in the same way. These three stand at the end, and only where there is one.
    """

    name: str
    payload: bytes
    retry: Annotated[int, msgspec.Meta(gt=-(2**53), lt=2**53)]
    attempt: _Count
    recoveries: _Count
    created: _Count
    due: _Count
    error: str | None = None
    started: _Count = 0
    parked: _Count = 0
    parked_since: _Count = 0
    died: _Count = 0
    needs: _Count = 0
    meta: bytes = b""
    holds: bytes = b""


_decode: Final = msgspec.msgpack.Decoder(Stored).decode
_decode_raw: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_encode: Final = msgspec.msgpack.Encoder().encode
_POSITION: Final = {name: index for index, name in enumerate(Stored.__struct_fields__)}
_PLAIN: Final = _POSITION["needs"]
"""How many fields a job has that neither needs nor holds anything."""
_SHORT: Final = bytes([0x90 | _PLAIN])
_TAIL: Final = len(_encode(0) + _encode(b"") + _encode(b""))


def encode(nonce: bytes, stored: Stored) -> bytes:
    """The bytes to store."""
    packed = _encode(stored)
    if stored.needs or stored.meta or stored.holds:
        return nonce + packed
    return nonce + _SHORT + packed[1:-_TAIL]  # the array is as long as its head says


def decode(record: bytes | Unread) -> Stored:
    """The fields of a stored record. Raises `PayloadError` if the bytes are no record, or were too many to be read."""
    if isinstance(record, Unread):
        raise PayloadError(
            f"its record takes {record.size} bytes, more than max_payload allows, and was not read: delete the job, or "
            "raise max_payload of the JobQueue, for runners too, and requeue the job"
        )
    try:
        return _decode(record[NONCE_SIZE:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PayloadError(f"the stored bytes are not a job record: {error}") from error


def rewrite(record: bytes | Unread, **changes: object) -> bytes:
    """The record with some fields changed; all others, known or not, stay byte for byte.

    Raises:
        PayloadError: The bytes are no record, or were too many to be read.
    """
    stored = decode(record)
    assert isinstance(record, bytes)
    fields = _decode_raw(memoryview(record)[NONCE_SIZE:])
    needed = max([_PLAIN, *(_POSITION[name] + 1 for name in changes)])
    for name in Stored.__struct_fields__[len(fields) : needed]:
        fields.append(msgspec.Raw(_encode(getattr(stored, name))))
    for name, value in changes.items():
        fields[_POSITION[name]] = msgspec.Raw(_encode(value))
    return record[:NONCE_SIZE] + _encode(fields)


_CLAIM: Final = re.compile(rb"(.*):0*([0-9]{1,15}):([0-9]{1,9})", re.DOTALL)
CLAIM_LIMIT: Final = 200
"""Bytes of a claim at most; those of runners have about eighty."""


def parse_claim(claim: bytes) -> tuple[bytes, int, int]:
    """Incarnation, fence and beat (ms) in a claim; (the first of its bytes, 0, 0) where somebody else wrote it."""
    match = _CLAIM.fullmatch(claim) if len(claim) <= CLAIM_LIMIT else None
    return (match[1], int(match[2]), int(match[3])) if match else (claim[:CLAIM_LIMIT], 0, 0)


def clean(text: str) -> str:
    """An error's text as it is kept: cut, and without the lone surrogates that nothing could store."""
    return text[:ERROR_LIMIT].encode("utf-8", "backslashreplace")[:ERROR_LIMIT].decode("utf-8", "ignore")


def wrap_raw(record: bytes, reason: str, now: int) -> bytes:
    """A record that holds undecodable bytes as its payload, so that they can be looked at in the dead place."""
    stored = Stored("", record, 0, 0, 0, now, now, clean(reason))
    return encode(record[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0"), stored)


def whole(score: Score) -> int:
    """A score as a field of a record: what something other than jobqueue wrote is cut to what fits there."""
    return int(min(max(score, 0), 2**53 - 1))


@functools.lru_cache(maxsize=256)  # jobs that were enqueued together share their times
def timestamp(ms: Score) -> datetime:
    """Milliseconds since 1970 as an aware datetime; what lies beyond the calendar is cut to its end."""
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if ms > 0 else datetime.min.replace(tzinfo=UTC)


class JobRecord(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """What the storage knows of one job. A plain value: it does not change when the job does.

    What is stored of it is one value, ``stored``, and most attributes read from there.

    Attributes:
        id: The same for all runs of the job.
        queue: Its queue.
        stored: The fields of its record.
        place: ``waiting``, ``ready``, ``working`` or ``dead``.
        nonce: What tells this very job from another one with its id.
        score: Where it stands in its place, in ms since 1970: when it is due if it is waiting, when its lease ends if it is
            working, when it died if it is dead; 0 in ready, and in what a job sees of itself.
        fence: The number of its claim if a runner holds it, else 0. Grows with every claim.
        runner: The id of the runner that holds it, as in `RunnerInfo`; empty if none does, and in what a job sees of itself.
    """

    id: str
    queue: str
    stored: Stored
    place: Place
    nonce: bytes = b""
    score: Score = 0
    fence: int = 0
    runner: str = ""

    @property
    def name(self) -> str:
        """The name of its kind; empty if the stored bytes could not be read, or are too many to be read."""
        return self.stored.name

    @property
    def payload(self) -> bytes:
        """Its arguments as JSON, or the unreadable bytes; nothing of too many."""
        return self.stored.payload

    @property
    def attempt(self) -> int:
        """How many attempts have failed."""
        return self.stored.attempt

    @property
    def retry(self) -> int:
        """How many retries it may have; negative without end."""
        return self.stored.retry

    @property
    def created(self) -> datetime:
        """When it was enqueued."""
        return timestamp(self.stored.created)

    @property
    def due(self) -> datetime:
        """When it was or is to be run next."""
        return timestamp(self.stored.due)

    @property
    def error(self) -> str | None:
        """What the last failed attempt said, or None."""
        return self.stored.error

    @property
    def recoveries(self) -> int:
        """How many times its runner, or its own process, died with it; an orderly end sets it back to 0."""
        return self.stored.recoveries

    @property
    def parked_since(self) -> datetime | None:
        """Since when runners have put it back because they do not know its kind, or None."""
        return timestamp(self.stored.parked_since) if self.stored.parked_since else None

    @property
    def cursor(self) -> str:
        """Where it stands, as text: ``find(after=…)`` goes on behind it, as behind the record. Fits into a URL."""
        return f"{self.queue}/{self.place}/{self.score}/{self.id}"

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, RECORD.get(name))

    def __repr__(self) -> str:
        return f"JobRecord({', '.join([f'{name}={_shown(getattr(self, name))}' for name in SHOWN])})"


SHOWN: Final = (
    "id", "name", "queue", "payload", "attempt", "retry", "created", "due", "error", "place", "recoveries", "fence", "score",
    "parked_since", "runner",
)  # fmt: skip
"""What a record shows of itself."""


def _shown(value: object) -> str:
    return quoted(value, LINE) if isinstance(value, str) else printable(repr(value), LINE)


def job_record(
    id: bytes,
    queue: str,
    stored: Stored,
    place: Place,
    *,
    nonce: bytes = b"",
    score: Score = 0,
    fence: int = 0,
    runner: str = "",
) -> JobRecord[Any]:
    """The public value of stored fields, without those that only runners look at: what shows the same is equal."""
    if stored.started or stored.parked or stored.died:
        stored = msgspec.structs.replace(stored, started=0, parked=0, died=0)
    return JobRecord(id_text(id), queue, stored, place, nonce, score, fence, runner)


def record_of(id: bytes, queue: str, kept: Kept) -> JobRecord[Any]:
    """The public value of what a storage keeps; bytes that are no record become its payload, with the reason."""
    record = b"" if isinstance(kept.record, Unread) else kept.record
    try:
        stored = decode(kept.record)
    except PayloadError as error:
        stored = Stored("", record, 0, 0, 0, 0, 0, str(error))
    runner, fence, _ = parse_claim(kept.claim) if kept.claim else (b"", 0, 0)
    return job_record(
        id, queue, stored, kept.place, nonce=record[:NONCE_SIZE], score=kept.score, fence=fence,
        runner=printable(runner),
    )  # fmt: skip
