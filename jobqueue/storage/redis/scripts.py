"""The Lua scripts: fixed texts, registered by the digest of their source. Data only ever travels as an argument."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

import attrs

__all__ = ["ALL", "DRAIN", "GROW", "PUT", "READ", "Script"]


@attrs.frozen
class Script:
    """A script: its source, and the digest by which a server knows it."""

    source: bytes
    sha: bytes


def _load(header: str, *names: str) -> Script:
    folder = files("jobqueue.storage.redis")
    source = b"".join([f"{header}\n".encode(), *(folder.joinpath(*name.split("/")).read_bytes() for name in names)])
    # The server's own name for a script; nothing is kept secret by it.
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


def _interpret(header: str) -> Script:
    return _load(
        header,
        *(
            f"interpret/{name}.lua"
            for name in ("bulk", "within", "store", "cursor", "words", "plain", "move", "mend", "batch")
        ),
    )


PUT: Final = _load("#!lua", "put_one.lua", "interpret/bulk.lua", "interpret/store.lua", "put.lua")
"""For a call that is one `Put` and nothing else."""
GROW: Final = _interpret("#!lua")
"""For other calls that store something new, too: a full server refuses them before they begin."""
DRAIN: Final = _interpret("#!lua flags=allow-oom")
"""For calls that only move, extend, finish and the like: a full server must let jobs drain."""
READ: Final = _load(
    "#!lua flags=no-writes",
    "interpret/bulk.lua",
    "running.lua",
    "interpret/within.lua",
    "interpret/cursor.lua",
    "read.lua",
)
ALL: Final = (PUT, GROW, DRAIN, READ)
