"""Which server is the primary: sentinels are asked, one after the other, over connections like those to the server itself.

So with ``rediss+sentinel://`` they are verified as well. What they name is only an address: the server there has to show a
certificate for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis import exceptions

from jobqueue.clock import monotonic_s
from jobqueue.errors import NotApplied, StorageRefused
from jobqueue.storage.redis.faults import REFUSALS, refused, untrusted
from jobqueue.storage.redis.link import AsyncConnection, Connection, left, pack, raise_thrown
from jobqueue.storage.url import Address, shown

__all__ = ["address_in", "afind_primary", "find_primary"]

_ASK: Final = pack([(b"SENTINEL", b"MASTERS")])
_AWAY: Final = frozenset({b"s_down", b"o_down"})
_HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
_PORT: Final = re.compile(rb"[0-9]{1,5}")


def find_primary(
    label: str, nodes: Sequence[Address], service: str, connect: Callable[[Address, float], Connection], end: float
) -> Address:
    """Where the primary is.

    Args:
        label: What to call all this in messages.
        nodes: The sentinels.
        service: What they call the primary.
        connect: Makes a connection to one of them, not yet connected, until then.
        end: When to give up; any of them may hang.

    Raises:
        NotApplied: None of them says it.
    """
    failed: list[tuple[Address, Exception | None]] = []
    for node in nodes:
        connection = connect(node, monotonic_s() + _share(nodes, end))
        try:
            connection.connect()
            connection.send_packed_command([_ASK], check_health=False)
            primary = _primary_in(connection.read_response(), service)
        except (exceptions.RedisError, OSError) as error:
            raise_thrown(error)
            failed.append((node, error))
            continue
        finally:
            connection.disconnect()
        if primary is not None:
            return primary
        failed.append((node, None))
    raise _unknown(label, failed)


async def afind_primary(
    label: str, nodes: Sequence[Address], service: str, connect: Callable[[Address], AsyncConnection], end: float
) -> Address:
    """See `find_primary`."""
    failed: list[tuple[Address, Exception | None]] = []
    for node in nodes:
        connection = connect(node)
        try:
            async with asyncio.timeout(_share(nodes, end)):
                await connection.connect()
                await connection.send_packed_command([_ASK], check_health=False)
                primary = _primary_in(await connection.read_response(), service)
        except (exceptions.RedisError, OSError) as error:
            failed.append((node, error))
            continue
        finally:
            await connection.disconnect(nowait=True)
        if primary is not None:
            return primary
        failed.append((node, None))
    raise _unknown(label, failed)


def _share(nodes: Sequence[Address], end: float) -> float:
    """Seconds for one of them: half of the time is for the server itself."""
    return max(left(end) / (2 * len(nodes)), 0.001)


def _primary_in(reply: Any, service: str) -> Address | None:
    """The address in an answer to SENTINEL MASTERS; None if the service is unknown or away, or the answer makes no sense."""
    for one in reply if isinstance(reply, list) else ():
        if not isinstance(one, list) or not all(isinstance(word, bytes) for word in one):
            continue
        facts: dict[bytes, bytes] = dict(zip(one[::2], one[1::2], strict=False))
        flags = facts.get(b"flags", b"").split(b",")
        if facts.get(b"name") == service.encode() and b"master" in flags and _AWAY.isdisjoint(flags):
            return address_in(facts.get(b"ip", b""), facts.get(b"port", b""))
    return None


def address_in(host: bytes, port: bytes) -> Address | None:
    """An address that a server has named; None if it is none."""
    name = host.decode("ascii", "replace")
    if not (_HOST.fullmatch(name) and _PORT.fullmatch(port)):
        return None
    number = int(port)
    return (name, number) if 0 < number < 65_536 else None


def _unknown(label: str, failed: Sequence[tuple[Address, Exception | None]]) -> NotApplied:
    refusals = [
        refusal for node, error in failed if (refusal := _refusal(f"the sentinel {shown(*node)}", label, error))
    ]
    if len(refusals) == len(failed):
        return refusals[0]
    # The others may come back.
    first = f" ({refusals[0]})" if refusals else ""
    return NotApplied(
        f"no sentinel of {label} names a primary{first}; nothing was changed. Do the sentinels run, and know this service?"
    )


def _refusal(sentinel: str, label: str, error: Exception | None) -> StorageRefused | None:
    """What was refused, by a sentinel or by us; None if it was away, or does not know the service."""
    if isinstance(error, REFUSALS):
        refusal = refused(f"{sentinel} of {label}", error)
        return StorageRefused(f"{refusal}: as sentinel_username= and sentinel_password=", passes=refusal.passes)
    return None if error is None else untrusted(f"{sentinel} of {label}", error)
