"""The names of all keys. No other module builds one.

A queue is the scope ``namespace:queue``; what belongs to the whole namespace is the scope ``namespace``. Both are checked
names without a colon or a brace, so no queue can name another's keys.
"""

from __future__ import annotations

import functools

import attrs

from jobqueue.storage.ops import COUNTERS, REQUESTS, HashKey, ListKey, LockKey, SetKey

__all__ = ["NamespaceKeys", "QueueKeys", "namespace_keys", "queue_keys"]


@attrs.frozen(eq=False)
class QueueKeys:
    """The keys of one queue. There is one object per queue, so that it is cheap as a key of a dict.

    ``state`` is what operators say of the queue, and ``dead_holds`` has the dead jobs that hold something.
    """

    queue: str
    scope: str
    ready: ListKey
    waiting: SetKey
    working: SetKey
    dead: SetKey
    requests: HashKey
    counters: HashKey
    state: HashKey
    dead_holds: SetKey


@attrs.frozen
class NamespaceKeys:
    """The keys of a namespace.

    Attributes:
        scope: The scope of all of them.
        meta: ``schema`` and ``epoch``, and which application uses the namespace.
        queues: Queue → when it was first used.
        runners: Incarnation → what the runner says of itself, with the time of its last beat.
        seen: Incarnation → the time of its last beat.
        leases: Length of a lease → the last beat of a runner that has such leases.
    """

    scope: str
    meta: HashKey
    queues: HashKey
    runners: HashKey
    seen: SetKey
    leases: SetKey

    def lock(self, name: str) -> LockKey:
        """The key of a user's lock."""
        return LockKey(self.scope, f"lock:{name}")


@functools.cache
def queue_keys(namespace: str, queue: str) -> QueueKeys:
    """The keys of a queue; both names have been checked."""
    scope = f"{namespace}:{queue}"
    return QueueKeys(
        queue=queue,
        scope=scope,
        ready=ListKey(scope, "ready"),
        waiting=SetKey(scope, "waiting"),
        working=SetKey(scope, "working"),
        dead=SetKey(scope, "dead"),
        requests=HashKey(scope, REQUESTS),
        counters=HashKey(scope, COUNTERS),
        state=HashKey(scope, "state"),
        dead_holds=SetKey(scope, "dead_holds"),
    )


@functools.cache
def namespace_keys(namespace: str) -> NamespaceKeys:
    """The keys of a namespace; the name has been checked."""
    return NamespaceKeys(
        scope=namespace,
        meta=HashKey(namespace, "meta"),
        queues=HashKey(namespace, "queues"),
        runners=HashKey(namespace, "runners"),
        seen=SetKey(namespace, "seen"),
        leases=SetKey(namespace, "leases"),
    )
