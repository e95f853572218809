"""The Lua scripts: fixed texts, registered by the digest of their source. Data only ever travels as an argument."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

import attrs

__all__ = ["DRAIN", "GROW", "READ", "Script"]


@attrs.frozen
class Script:
    """A script: its source, and the digest by which a server knows it."""

    source: bytes
    sha: bytes


def _load(name: str, header: str) -> Script:
    source = f"{header}\n".encode() + files("jobqueue.storage.redis").joinpath(name).read_bytes()
    # The server's own name for a script; nothing is kept secret by it.
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


GROW: Final = _load("interpret.lua", "#!lua")
"""For calls that store something new: a full server refuses them before they begin."""
DRAIN: Final = _load("interpret.lua", "#!lua flags=allow-oom")
"""For calls that only move, extend, finish and the like: a full server must let jobs drain."""
READ: Final = _load("read.lua", "#!lua flags=no-writes")
