"""What is done for a runner whose process was seen to end: its jobs go back at once, and nobody takes it for alive.

Pure: the flow yields what to ask and apply.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jobqueue import transitions
from jobqueue.clock import Moment
from jobqueue.errors import DeclarationError
from jobqueue.flows import Flow, Read, Refresh, send_one
from jobqueue.keys import NamespaceKeys, QueueKeys, queue_keys
from jobqueue.names import check_queue_name
from jobqueue.runner.rescue import Rescued, hand_back
from jobqueue.runner_info import read_beats
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
        StorageError: It could not be done, or not all of it; ask again.
    """
    yield Refresh(60_000)
    [queues, runners, meta] = yield Read((Fields(keys.queues), Fields(keys.runners, (incarnation,)), Fields(keys.meta)))
    beat = read_beats(runners).get(incarnation)
    if beat is None:
        return []  # it registers before its first claim, and leaves the registry when it holds nothing more
    # It registers its queues a little later than itself.
    names = {name.decode("ascii", "replace") for name in queues} | beat.queues.keys()
    if not beat.stopped and b"epoch" in meta:
        info = msgspec.json.encode(msgspec.structs.replace(beat, stopped=True))
        yield from send_one(
            transitions.register_runner(keys, incarnation, info, meta[b"epoch"], seen=beat.seen, lease=beat.lease)
        )
    rescued: list[Rescued] = []
    for queue in _queues(keys.scope, names):
        rescued += yield from hand_back(queue, incarnation, moment, max_bytes)
    return rescued


def _queues(namespace: str, names: set[str]) -> list[QueueKeys]:
    found = []
    for name in sorted(names):
        try:
            found.append(queue_keys(namespace, check_queue_name(name)))
        except DeclarationError:
            continue  # a foreign writer's: no runner of this library can hold anything there
    return found
