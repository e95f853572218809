"""What to say when the user of a connection lacks a right: which command, on which keys, and what its ACL lacks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobqueue.errors import StorageRefused

__all__ = ["forbidden", "patterns"]

_LIST = "all rights that jobqueue needs are in docs/how-to/deploy.md"


def forbidden(rights: Sequence[str]) -> StorageRefused:
    """The script found out before its first write that the user lacks these rights, each as ``COMMAND key``."""
    lacking = [right.partition(" ")[::2] for right in dict.fromkeys(rights)]
    told = ", ".join(f"{command} on {_pattern(key).removeprefix('~')}" for command, key in lacking)
    commands = " ".join(f"+{command.lower()}" for command in dict.fromkeys([command for command, _ in lacking]))
    keys = " ".join(dict.fromkeys([_pattern(key) for _, key in lacking]))
    return StorageRefused(
        f"the user of this connection may not run {told}; nothing was changed: add {commands} {keys} to its ACL ({_LIST})"
    )


def patterns(scopes: Iterable[str]) -> str:
    """What a user who may not use all keys of these scopes has to be given."""
    keys = " ".join([f"~{{{scope}}}:*" for scope in scopes if scope])
    asked = f"it needs the keys {keys}, to read and to write, and" if keys else "it needs"
    return (
        f"the user of this connection lacks a right: extend its ACL; {asked} the commands that are named here ({_LIST})"
    )


def _pattern(key: str) -> str:
    """The pattern of all keys that share the hash tag of this one."""
    tag, end, _ = key.partition("}:")
    return f"~{tag}{end}*"
