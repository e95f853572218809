"""What is done for a runner whose process was seen to end: its jobs go back at once, and nobody takes it for alive.

Pure: the flow yields what to ask and apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import StorageError
from jobqueue.flows import Flow, Read, Refresh, send_one
from jobqueue.keys import NamespaceKeys, queue_keys
from jobqueue.lookup import queue_names, registry
from jobqueue.runner.rescue import Rescued, hand_back
from jobqueue.runner_info import LONGEST_BEAT, read_beats
from jobqueue.storage.ops import Fields

__all__ = ["settle"]


def settle(
    keys: NamespaceKeys, incarnation: bytes, moment: Callable[[], Moment], max_bytes: int = transitions.BYTES
) -> Flow[list[Rescued]]:
    """Hand back what a dead runner holds in all queues; answers the jobs that came back.

    Safe to be done again after an error, and for a runner that ended in order: then there is nothing to hand back.

    Args:
        keys: The namespace.
        incarnation: The runner. Its process must have been reaped by the caller.
        moment: Reads the clocks.
        max_bytes: Of records that one step reads; a longer one goes to dead unread.

    Raises:
        StorageError: It could not be done, or not all of it; ask again. What a queue refuses for good is left as it is: its
            jobs come back when somebody has mended the queue and their leases have ended.
    """
    yield Refresh(60_000)
    [runners, meta] = yield Read((Fields(keys.runners, (incarnation,), LONGEST_BEAT), Fields(keys.meta, (b"epoch",))))
    beat = read_beats(runners).get(incarnation)
    if beat is None:
        return []  # it registers before its first claim, and leaves the registry when it holds nothing more
    # It registers its queues a little later than itself.
    names = {*queue_names((yield from registry(keys)).fields), *_named(beat.queues)}
    if not beat.stopped and b"epoch" in meta:
        info = msgspec.json.encode(msgspec.structs.replace(beat, stopped=True))
        yield from send_one(
            transitions.register_runner(keys, incarnation, info, meta[b"epoch"], seen=beat.seen, lease=beat.lease)
        )
    rescued: list[Rescued] = []
    failed: StorageError | None = None
    for name in sorted(names):
        try:
            rescued += yield from hand_back(queue_keys(keys.scope, name), incarnation, moment, max_bytes)
        except StorageError as error:
            # A queue that was spoiled, or whose node is away, keeps no other waiting.
            failed = error if failed is None or not failed.passes else failed
    if failed is not None and failed.passes:
        raise failed
    return rescued


def _named(queues: Iterable[str]) -> list[str]:
    """Those that are names: of others, which something else wrote, no runner can hold anything."""
    return queue_names(name.encode("utf-8", "replace") for name in queues)
