"""What an error of the client library means for what was asked: certainly not done, or unknown.

Whether a request can have been carried out is decided by *when* it failed. No connection: certainly not. The server
answered that it will not: certainly not. Anything else that happens after the first byte was sent: unknown.
"""

from __future__ import annotations

from typing import Final

from redis import exceptions

from jobqueue.errors import NotApplied, OutcomeUnknown, StorageRefused

__all__ = ["lost", "refused", "unreachable"]

_MOVING: Final = (
    "the key is moving to another node of the cluster: try again; a move that was given up half-way is ended by "
    "redis-cli --cluster fix"
)
# Code of the server's answer → what to do about it. Longest story first: what an operator reads at three in the morning.
_ADVICE: Final = {
    "OOM": "the server is full: raise maxmemory, or let the runners drain it (they still can)",
    "READONLY": "this server is a replica: connect to its primary, or through redis+sentinel://",
    "LOADING": "the server is still loading its data: try again",
    "BUSY": "another client's script keeps the server busy: wait, or end it with SCRIPT KILL",
    "MISCONF": "the server cannot write to its disk: free space, then see its log",
    "NOPERM": "the user of this connection lacks a permission: extend its ACL",
    "NOAUTH": "the server wants a password: put user and password into the URL",
    "WRONGPASS": "user or password are wrong: correct the URL",
    "CLUSTERDOWN": "the cluster does not serve this key at the moment: try again",
    "MASTERDOWN": "this replica has lost its primary: try again, or connect to the primary",
    "NOREPLICAS": "too few replicas are connected for min-replicas-to-write: bring them back",
    "MOVED": "the key moved to another node of the cluster: try again, and connect with redis+cluster://",
    "ASK": _MOVING,
    "TRYAGAIN": _MOVING,
    "WRONGTYPE": "something other than jobqueue writes to these keys: look at the key, and rename it or delete it",
    "ERR": "see the server's log",
}

REFUSALS: Final = (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError)
"""Errors that are an answer of the server."""


def unreachable(label: str, error: BaseException) -> NotApplied:
    """There was no connection, so nothing was sent."""
    if isinstance(error, REFUSALS):
        return refused(label, error)
    if "max number of clients" in str(error):
        return StorageRefused(
            f"{label} has no connection left ({error}); nothing was changed. Raise its maxclients, or use fewer "
            "processes: a runner takes three connections"
        )
    return NotApplied(
        f"{label} cannot be reached ({_text(error)}); nothing was changed. Is the server running, is the "
        "address right, and is its maxclients high enough?"
    )


def refused(label: str, error: BaseException) -> StorageRefused:
    """The server answered that it will not."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    text = _text(error)
    said = text if text.startswith(code) else f"{code} {text}"
    return StorageRefused(f"{label} refused ({said}); nothing was changed: {_ADVICE.get(code, _ADVICE['ERR'])}")


def lost(label: str, error: BaseException) -> OutcomeUnknown:
    """The request was sent, or part of it, and no answer came."""
    return OutcomeUnknown(
        f"no answer from {label} ({_text(error)}): what was asked may have been done. Sending the same again is safe"
    )


def broke_off(error: BaseException) -> bool:
    """Whether the script itself was stopped by this error, so that some of its writes may have been done.

    That should not happen, because it checks everything first; a permission that is missing for one command can do it.
    """
    return isinstance(error, exceptions.ResponseError) and "@user_script" in str(error)


def _text(error: BaseException) -> str:
    return str(error).partition(" script: ")[0].rstrip(".") or type(error).__name__
