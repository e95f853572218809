"""Whether this version may use a namespace, and the epoch by which a loss of its data is noticed."""

from __future__ import annotations

import re
from typing import Final

from jobqueue import transitions
from jobqueue.errors import StorageRefused
from jobqueue.flows import Flow, Read, send_one
from jobqueue.ids import Chance
from jobqueue.keys import NamespaceKeys
from jobqueue.safe_text import printable
from jobqueue.storage.ops import Fields

__all__ = ["prepare"]

_SCHEMA: Final = re.compile(rb"[0-9]{1,9}")


def prepare(keys: NamespaceKeys, chance: Chance) -> Flow[bytes]:
    """Check at first use that this version may use the namespace; answers its epoch.

    Raises:
        StorageRefused: A newer version of the library wrote there.
    """
    for _ in range(3):
        [meta] = yield Read((Fields(keys.meta, (b"epoch", b"schema")),))
        schema, epoch = meta.get(b"schema"), meta.get(b"epoch")
        if schema is not None:
            _check_schema(keys, schema)
        if schema is not None and epoch is not None:
            return bytes(epoch)
        # Something else may have removed one of the two. A runner takes a new epoch for a loss of data, and starts anew.
        written = transitions.create_meta if schema is None else transitions.renew_epoch
        yield from send_one(written(keys, chance.entropy(16).hex().encode()))
    raise StorageRefused(
        f"the fields schema and epoch of the key {keys.meta.full} cannot be read: something other than jobqueue wrote what "
        "is too long; nothing was changed. Delete that field: it is written again"
    )


def _check_schema(keys: NamespaceKeys, schema: bytes) -> None:
    if not _SCHEMA.fullmatch(schema):
        raise StorageRefused(
            f"the field schema of the key {keys.meta.full} is '{printable(schema, 40)}', which is not a number: something "
            "other than jobqueue wrote it, and which version wrote these jobs is not known; nothing was changed. If no "
            "newer version of jobqueue uses this namespace, delete that field: it is written again"
        )
    if int(schema) > transitions.SCHEMA:
        raise StorageRefused(
            f"namespace {keys.scope!r} was written by a newer version of jobqueue (schema {int(schema)}, this "
            f"version knows up to {transitions.SCHEMA}); nothing was changed: upgrade this process, or use another namespace"
        )
