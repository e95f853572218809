"""The nodes of a cluster: each scope is one slot, and goes to the node that owns it.

The topology is asked for at the first use and again after anything went wrong. A node that answers MOVED has certainly
not carried out the request, so it is sent once more to the right one; everything else is told to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

from redis import exceptions
from redis.crc import key_slot

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.loops import adrive, drive
from jobqueue.storage.limits import Limits
from jobqueue.storage.redis.bell import AsyncBell, Bell, Interrupts
from jobqueue.storage.redis.faults import code_of
from jobqueue.storage.redis.flow import Request
from jobqueue.storage.redis.guarded import Guarded
from jobqueue.storage.redis.link import AsyncConnect, Connect, Work, nothing
from jobqueue.storage.redis.pool import AsyncPool, Pool
from jobqueue.storage.redis.sentinels import address_in
from jobqueue.storage.url import Address, shown

__all__ = ["AsyncClusterBell", "AsyncClusterNodes", "ClusterBell", "ClusterNodes"]

C = TypeVar("C")
P = TypeVar("P")

Ask: TypeAlias = tuple[Address, Request]

SHARED_WAIT_SECONDS: Final = 1.0
"""How long a wait for several scopes lasts at most: only the first of them can end it, since each has a slot of its own."""

_OUTDATED: Final = frozenset({"MOVED", "ASK", "CLUSTERDOWN", "READONLY"})
"""Refusals after which the topology is asked for again."""
_SCRIPTS: Final = frozenset({b"EVAL", b"EVALSHA"})


class Topology:
    """Which node owns which slots, as far as known."""

    def __init__(self, label: str, first: Sequence[Address]) -> None:
        self.label = label
        self._first = tuple(first)
        self._ranges: tuple[tuple[int, int, Address], ...] = ()
        self.known = False
        """Whether what is known need not be asked for again."""

    def candidates(self) -> list[Address]:
        """Nodes that may be asked for the topology, those in use last: they may be the ones that are gone."""
        return list(dict.fromkeys([*self._first, *[address for _, _, address in self._ranges]]))

    def learn(self, asked: Address, slots: list[list[Any]]) -> None:
        """Take over what a node answered to CLUSTER SLOTS. Raises `ValueError` or `TypeError`: that makes no sense."""
        ranges: list[tuple[int, int, Address]] = []
        for low, high, primary, *_ in slots:
            host = asked[0].encode() if primary[0] in (None, b"", b"?") else primary[0]
            address = address_in(host, b"%d" % primary[1])
            if address is None:
                raise ValueError
            ranges.append((low, high, address))
        self._ranges = tuple(ranges)  # at once, since others look at it meanwhile
        self.known = True

    def forget(self) -> None:
        """Ask again before the next use. Who found its node already goes on with what was known."""
        self._first = tuple(self.candidates())
        self.known = False

    def nodes(self) -> list[Address]:
        """All nodes that own slots, in the order of their names."""
        return sorted({address for _, _, address in self._ranges}, key=_named)

    def node(self, address: Address) -> str:
        """What to call a node in messages."""
        return f"{self.label.partition('+')[0]}://{shown(*address)}"

    def owner(self, scope: str) -> Address | None:
        """The node that owns the scope; any node for the empty scope."""
        slot = key_slot(f"{{{scope}}}".encode())
        return next((address for low, high, address in self._ranges if not scope or low <= slot <= high), None)


def discover(topology: Topology) -> Generator[Ask, list[Any], NotApplied | None]:
    """Find the topology if it is not known; answers what went wrong, or None."""
    problem: NotApplied | None = None
    for address in topology.candidates() if not topology.known else ():
        (reply,) = yield address, [("", (b"CLUSTER", b"SLOTS"))]
        if isinstance(reply, list) and reply:
            try:
                topology.learn(address, reply)
            except (TypeError, ValueError):
                reply = "it names a node without address or port"
            else:
                return None
        if isinstance(reply, NotApplied):
            problem = reply
        else:
            problem = NotApplied(
                f"{topology.label} does not answer as a cluster ({reply}); nothing was changed. Has it been created, "
                "and all slots been assigned? For a single server use redis://"
            )
    return problem


def _unbroken(scope: str, words: tuple[bytes, ...]) -> tuple[str, tuple[bytes, ...]]:
    """The call of a script with one key more, which nobody ever writes.

    While a slot is moving, its node refuses to touch keys that are not there: they may be on the other node already. So a
    script would break off as soon as it asked again for a list that it had emptied, with half of a batch done. One key that
    is missing from the beginning makes the node refuse the whole call (TRYAGAIN), before the script runs.

    What was rejected is in docs/decisions/0050.
    """
    if words[0] not in _SCRIPTS:
        return scope, words
    keys = int(words[2])
    nobodys = f"{{{scope}}}:nobody".encode()
    return scope, (*words[:2], b"%d" % (keys + 1), *words[3 : 3 + keys], nobodys, *words[3 + keys :])


def route(topology: Topology, request: Request) -> Generator[Ask, list[Any], list[Any]]:
    """Send each command to its node; answers as `Pool.exchange`."""
    if [words[0] for _, words in request] == [b"SCAN"]:
        return [(yield from _scan(topology, request[0][1]))]
    replies: list[Any] = [None] * len(request)
    left = [*range(len(request))]
    for attempt in (0, 1):
        problem = yield from discover(topology)
        groups: dict[Address, list[int]] = {}
        for index in left:
            address = None if problem else topology.owner(request[index][0])
            if address is None:
                replies[index] = problem or _unowned(topology, request[index][0])
            else:
                groups.setdefault(address, []).append(index)
        for address, indexes in groups.items():
            answers = yield address, [_unbroken(*request[index]) for index in indexes]
            for index, answer in zip(indexes, answers, strict=True):
                replies[index] = answer
        codes = [code_of(reply) if isinstance(reply, exceptions.RedisError) else "" for reply in replies]
        if any(isinstance(reply, NotApplied | OutcomeUnknown) for reply in replies) or not _OUTDATED.isdisjoint(codes):
            topology.forget()
        left = [index for index, code in enumerate(codes) if code == "MOVED"]
        if not left or attempt:
            break
    return replies


def _scan(topology: Topology, words: tuple[bytes, ...]) -> Generator[Ask, list[Any], Any]:
    """Go through the keys of all nodes, one node after the other: the cursor says which, and the node's own cursor."""
    problem = yield from discover(topology)
    if problem is not None:
        return problem
    node, _, cursor = words[1].decode().rpartition(" ")
    nodes = {_named(address): address for address in topology.nodes()}
    name = node if node in nodes else next((other for other in nodes if other > node), None)
    if name is None:
        return [b"0", []]  # the last node has left
    # A node that came in the place of the one it was begun on is gone through from its beginning.
    [reply] = yield nodes[name], [("", (words[0], (cursor if name == node else "0").encode(), *words[2:]))]
    if not isinstance(reply, list):
        topology.forget()
        return reply
    if reply[0] != b"0":
        return [f"{name} {reply[0].decode()}".encode(), reply[1]]
    following = next((other for other in nodes if other > name), None)
    return [b"0" if following is None else f"{following} 0".encode(), reply[1]]


def _named(address: Address) -> str:
    return f"redis://{shown(*address)}"


def find(topology: Topology, scope: str) -> Generator[Ask, list[Any], Address]:
    """Answer the node of the scope. Raises `NotApplied`."""
    problem = yield from discover(topology)
    if problem is not None:
        raise problem
    address = topology.owner(scope)
    if address is None:
        raise _unowned(topology, scope)
    return address


def _unowned(topology: Topology, scope: str) -> NotApplied:
    return NotApplied(
        f"no node of {topology.label} owns the slot of {scope!r}; nothing was changed. See CLUSTER INFO on its nodes"
    )


class _NodePools(Generic[C, P]):
    """The connections to each node, as far as they were needed.

    Args:
        server: What the cluster is called in messages, and what each of its nodes has to be.
        first: Nodes to begin with.
        connect: Makes what connects to a node.
        limits: Those of each node.
    """

    _kind: ClassVar[Any]

    def __init__(
        self, server: Guarded, first: Sequence[Address], connect: Callable[[Address], C], limits: Limits
    ) -> None:
        self._server = server
        self.topology = Topology(server.label, first)
        self._connect = connect
        self._limits = limits
        self._pools: dict[Address, P] = {}

    def pool(self, address: Address) -> P:
        """The connections to a node."""
        pool = self._pools.get(address)
        if pool is None:
            made = self._kind(self._server, self.topology.node(address), self._connect(address), self._limits)
            pool = self._pools.setdefault(address, made)
        return pool


class ClusterNodes(_NodePools[Connect, Pool]):
    """See `Nodes`."""

    _kind = Pool

    def exchange(self, request: Request, work: Work = nothing, end: float | None = None) -> list[Any]:
        """See `Nodes.exchange`."""
        asked = False

        def ask(ask: Ask) -> list[Any]:
            nonlocal asked
            asked = True
            address, commands = ask
            return self.pool(address).exchange(commands, work, end)

        replies = drive(route(self.topology, request), ask)
        if not asked:
            work()
        return replies

    def owner(self, scope: str) -> Address:
        """The node of the scope. Raises `NotApplied`."""
        return drive(find(self.topology, scope), lambda ask: self.pool(ask[0]).exchange(ask[1]))

    def close(self) -> None:
        """See `Nodes.close`."""
        for pool in [*self._pools.values()]:
            pool.close()


class ClusterBell:
    """See `Bell`: waits at the node of the first scope."""

    def __init__(self, nodes: ClusterNodes) -> None:
        self._nodes = nodes
        self._interrupts = Interrupts()
        self._bells: dict[Address, Bell] = {}

    def wait(self, scopes: Sequence[str], timeout: float) -> str | None:
        """See `Bell.wait`."""
        bell = self._bell(self._nodes.owner(scopes[0]))
        try:
            if len(scopes) == 1:
                return bell.wait(scopes, timeout)
            bell.wait(scopes[:1], min(timeout, SHARED_WAIT_SECONDS))
            return None  # others may have been rung, and nobody listens there
        except NotApplied:
            self._nodes.topology.forget()
            raise

    def _bell(self, address: Address) -> Bell:
        bell = self._bells.get(address)
        if bell is None:
            bell = self._bells[address] = Bell(self._nodes.pool(address), self._interrupts)
        return bell

    def interrupt(self) -> None:
        """See `Bell.interrupt`."""
        self._interrupts.interrupt()

    def close(self) -> None:
        """See `Bell.close`."""
        for bell in [*self._bells.values()]:
            bell.close()


class AsyncClusterNodes(_NodePools[AsyncConnect, AsyncPool]):
    """See `AsyncNodes`."""

    _kind = AsyncPool

    async def exchange(self, request: Request, end: float | None = None) -> list[Any]:
        """See `Nodes.exchange`."""
        return await adrive(route(self.topology, request), lambda ask: self.pool(ask[0]).exchange(ask[1], end))

    async def owner(self, scope: str) -> Address:
        """See `ClusterNodes.owner`."""
        return await adrive(find(self.topology, scope), lambda ask: self.pool(ask[0]).exchange(ask[1]))

    async def close(self) -> None:
        """See `Nodes.close`."""
        for pool in [*self._pools.values()]:
            await pool.close()


class AsyncClusterBell:
    """See `ClusterBell`."""

    def __init__(self, nodes: AsyncClusterNodes) -> None:
        self._nodes = nodes
        self._rung = asyncio.Event()
        self._bells: dict[Address, AsyncBell] = {}

    async def wait(self, scopes: Sequence[str], timeout: float) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `Bell.wait`."""
        bell = self._bell(await self._nodes.owner(scopes[0]))
        try:
            if len(scopes) == 1:
                return await bell.wait(scopes, timeout)
            await bell.wait(scopes[:1], min(timeout, SHARED_WAIT_SECONDS))
            return None
        except NotApplied:
            self._nodes.topology.forget()
            raise

    def _bell(self, address: Address) -> AsyncBell:
        bell = self._bells.get(address)
        if bell is None:
            bell = self._bells[address] = AsyncBell(self._nodes.pool(address), self._rung)
        return bell

    def interrupt(self) -> None:
        """See `Bell.interrupt`."""
        self._rung.set()

    async def close(self) -> None:
        """See `Bell.close`."""
        for bell in [*self._bells.values()]:
            await bell.close()
