"""What an error of the client library means for what was asked: certainly not done, or unknown; and whether it passes.

Whether a request can have been carried out is decided by *when* it failed. No connection: certainly not. The server
answered that it will not: certainly not. Anything else that happens after the first byte was sent: unknown.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from redis import exceptions

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageRefused
from jobqueue.safe_text import LINE, printable
from jobqueue.storage.redis.rights import forbidden, patterns

__all__ = [
    "broke_off",
    "broken",
    "code_of",
    "exhausted",
    "harmless",
    "lost",
    "passes",
    "refused",
    "told",
    "unreachable",
    "untrusted",
]


class Answer(NamedTuple):
    """What a refusal means: whether it passes without anybody changing settings, so that waiting helps; what to do."""

    passes: bool
    advice: str


_MOVING: Final = (
    "the key is moving to another node of the cluster: try again; a move that was given up half-way is ended by "
    "redis-cli --cluster fix"
)
ANSWERS: Final = {
    "LOADING": Answer(True, "the server is still loading its data: try again"),
    "BUSY": Answer(True, "another client's script keeps the server busy: wait, or end it with SCRIPT KILL"),
    "READONLY": Answer(True, "this server is a replica: connect to its primary, or through redis+sentinel://"),
    "MASTERDOWN": Answer(True, "this replica has lost its primary: try again, or connect to the primary"),
    "CLUSTERDOWN": Answer(True, "the cluster does not serve this key at the moment: try again"),
    "TRYAGAIN": Answer(True, _MOVING),
    "ASK": Answer(True, _MOVING),
    "MOVED": Answer(True, "the key moved to another node of the cluster: try again, and connect with redis+cluster://"),
    "MISCONF": Answer(True, "the server cannot write to its disk: free space, then see its log"),
    "OOM": Answer(True, "the server is full: raise maxmemory, or let the runners drain it (they still can)"),
    "NOREPLICAS": Answer(True, "too few replicas are connected for min-replicas-to-write: bring them back"),
    "MAXCLIENTS": Answer(
        True,
        "no connection is left. Raise the server's maxclients, or use fewer processes or a smaller max_connections=: a "
        "runner takes six, all that enqueues in a process up to max_connections, again for each event loop, and one",
    ),
    "NOPERM": Answer(False, ""),  # see `patterns`
    "NOAUTH": Answer(False, "the server wants a password: put user and password into the URL"),
    "WRONGPASS": Answer(False, "user or password are wrong: correct the URL"),
    "DENIED": Answer(False, "the server runs in protected mode: give it a password, or bind it to this host"),
    "WRONGTYPE": Answer(
        False, "something other than jobqueue writes to these keys: look at the key, and rename it or delete it"
    ),
    "ERR": Answer(False, "see the server's log"),
}
"""Code of the server's answer → what it means. The one table of what passes: docs/reference/errors.md shows it.

A code that is not here is treated as ``ERR``. The advice is what an operator reads at three in the morning.
"""
_REPEATED: Final = ", with args beginning with:"
"""What follows in an answer to a command that the server does not know was sent to it: user and password, if it is AUTH."""
REFUSALS: Final = (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError)
"""Errors that are an answer of the server."""
_CODES: Final[tuple[tuple[type[exceptions.RedisError], str], ...]] = (
    (exceptions.BusyLoadingError, "LOADING"), (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.MasterDownError, "MASTERDOWN"), (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.TryAgainError, "TRYAGAIN"), (exceptions.MovedError, "MOVED"), (exceptions.AskError, "ASK"),
    (exceptions.OutOfMemoryError, "OOM"), (exceptions.NoPermissionError, "NOPERM"),
)  # fmt: skip
"""redis-py before its release 7 takes the code away, and leaves the class."""


def code_of(error: BaseException) -> str:
    """The code of the server's answer; ``MAXCLIENTS``, which has none of its own, is made up here."""
    text = str(error)
    if "max number of clients" in text:
        return "MAXCLIENTS"
    code: str = getattr(error, "status_code", None) or text.partition(" ")[0]
    if code in ANSWERS:
        return code
    if isinstance(error, exceptions.AuthenticationError):
        return "WRONGPASS" if "username-password" in text else "NOAUTH"
    return next((name for kind, name in _CODES if isinstance(error, kind)), code)


def passes(error: BaseException) -> bool:
    """Whether the server's refusal passes by itself."""
    return ANSWERS.get(code_of(error), ANSWERS["ERR"]).passes


def unreachable(
    label: str, error: BaseException, scopes: Iterable[str] = (), waited: float | None = None
) -> NotApplied:
    """There was no connection, so nothing was sent.

    Args:
        label: The server.
        error: What happened.
        scopes: Whose keys were meant.
        waited: For how long one was waited for, in seconds.
    """
    if isinstance(error.__cause__, REFUSALS):
        error = error.__cause__  # the asyncio client wraps what the server answers while it connects
    if isinstance(error, REFUSALS) or code_of(error) == "MAXCLIENTS":
        return refused(label, error, scopes)
    if (refusal := untrusted(label, error)) is not None:
        return refusal
    tls = "does it speak TLS there, " if label.startswith("rediss") else ""  # one that does not says nothing at all
    return NotApplied(
        f"{label} cannot be reached ({told(error, waited)}); nothing was changed. Is the server running, is the "
        f"address right, {tls}and is its maxclients high enough?"
    )


def untrusted(label: str, error: BaseException) -> StorageRefused | None:
    """Its certificate was not accepted, so nothing was sent, no password either; None if something else happened."""
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return StorageRefused(
                f"{label} shows a certificate that cannot be trusted ({one.verify_message.rstrip('.')}); nothing was sent. "
                "Name the certificates to trust with ssl_ca_certs=, and the server as its certificate does"
            )
    return None


def harmless(error: BaseException) -> BaseException:
    """The error, and what it came from, as they may be shown: without their frames, and without what was sent.

    A traceback shows the frames, with their variables where a tool is set to do that. Those of the client library hold the
    password.
    """
    for one in _chain(error):
        one.__traceback__ = None
        if _REPEATED in str(one):
            one.args = (told(one),)
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        yield following
        following = following.__cause__ or following.__context__


def exhausted(label: str, waited: float, most: int | None = None) -> NotApplied:
    """The time of the call was over before anything was sent; with ``most`` because so many connections were in use."""
    if most is None:
        return NotApplied(
            f"no time was left to ask {label}; nothing was changed. Raise timeout=, or look at the server"
        )
    return NotApplied(
        f"no connection to {label} became free within {waited:.1f} s: all {most} of this process were in use; nothing was "
        "changed. Raise max_connections= (JobQueue, or ?max_connections= in the URL) or timeout=, or use fewer threads"
    )


def refused(label: str, error: BaseException, scopes: Iterable[str] = ()) -> StorageRefused:
    """The server answered that it will not.

    Args:
        label: The server.
        error: Its answer.
        scopes: Whose keys the command named.
    """
    code = code_of(error)
    if code == "NOPERM" and broke_off(error):
        return forbidden(_said(error).split(", "))  # by `read.lua`, which says which rights
    answer = ANSWERS.get(code, ANSWERS["ERR"])
    text = told(error)
    said = text if text.startswith(code) else f"{code} {text}"
    advice = patterns(scopes) if code == "NOPERM" else answer.advice
    return StorageRefused(f"{label} refused ({said}); nothing was changed: {advice}", passes=answer.passes)


def lost(label: str, error: BaseException) -> OutcomeUnknown:
    """The request was sent, or part of it, and no answer came."""
    return OutcomeUnknown(
        f"no answer from {label} ({told(error)}): what was asked may have been done. Sending the same again is safe"
    )


def broken(label: str, error: BaseException) -> OutcomeUnknown:
    """The script was stopped by this error. That should not happen, because it checks everything before its first write."""
    return OutcomeUnknown(
        f"a script broke off on {label} ({told(error)}): a part of what was asked may have been done. See the server's log"
    )


def broke_off(error: BaseException) -> bool:
    """Whether the script itself was stopped by this error, so that some of its writes may have been done."""
    return isinstance(error, exceptions.ResponseError) and "@user_script" in str(error)


def told(error: BaseException, waited: float | None = None) -> str:
    """What an error says, in one short printable line."""
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return "no answer in time" if waited is None else f"no answer within {waited:.1f} s, see timeout="
    return printable(_said(error), LINE) or type(error).__name__


def _said(error: BaseException) -> str:
    return str(error).partition(" script: ")[0].partition(_REPEATED)[0].rstrip(".")
