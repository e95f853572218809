"""What a storage has to do: five methods and ten rules.

1. **All or nothing.** Guards are evaluated first, against the state before the batch; if any fails nothing changes and
   `Refused` lists every failing index. So do a claim's number, the room for a `Put`, and a move that is ``whole``.
2. **One scope, one trip.** The batches of one scope travel together, in order, each atomic, in one step of the server;
   between scopes there is no order, and each ends alone. Where their records are large, a server may take several steps.
3. **No clock, no chance.** A backend reads neither. Expiry on the server may collect garbage; it never decides anything.
4. **Order is total.** Lists are first in first out, sorted sets are ordered by (score, member bytes).
5. **Empty is absent.** An empty list, set or hash does not exist.
6. **`Move` skips** what is not there or does not match, and answers what moved. An id without a record is removed and
   reported by the move that meets it when it changes place.
7. **Three endings**: an outcome (`Applied` or `Refused`), `NotApplied` (certainly nothing happened), `OutcomeUnknown` (it
   may have). They are returned as values, one per batch. A backend never repeats `apply` by itself.
8. **Every batch may be sent twice, and the first sending may arrive after the second**: it is guarded, fenced, numbered
   (`Once`), monotonic or idempotent. Ids, tokens and request numbers are made by the client before the first sending.
9. **`wait` is a hint.** It may return early, late or for nothing; losing every wake-up costs latency, never correctness.
   A wake-up after the previous `wait` returned ends the next one.
10. **`read` sees** every batch the same caller has had answered; what one scope answers in one `read` is one snapshot.

`jobqueue.testing.check_storage` has a case for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.storage.ops import Answer, Applied, Batch, Query, Refused

__all__ = [
    "AsyncBounded",
    "AsyncStorage",
    "Bounded",
    "Outcome",
    "Overlapping",
    "Storage",
]

Outcome: TypeAlias = Applied | Refused | NotApplied | OutcomeUnknown
"""How a batch ended. The two errors are returned here, not raised, because other batches may have ended otherwise."""


class Storage(Protocol):
    """Keeps lists, sorted sets, hashes and locks; safe to use from many threads. See the rules above."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """Apply each batch whole or not at all (rules 1, 2, 7, 8); answers one outcome per batch, in order."""
        ...

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """Answer each query (rule 10), in order. Raises `NotApplied` when the storage cannot be asked."""
        ...

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        """Return when one of the scopes is rung, `interrupt` is called, or ``timeout`` seconds are over (rule 9).

        Answers the scope that was rung, the first of ``channels`` if several were, for the caller to look there alone and
        to name it last the next time. None after anything else, and from a storage that does not know.

        Raises `NotApplied` when the storage cannot be reached.
        """
        ...

    def interrupt(self) -> None:
        """End the `wait` of this storage that is under way, or the next one; callable from any thread."""
        ...

    def close(self) -> None:
        """Give back connections. Calls after it may open new ones."""
        ...


@runtime_checkable
class Overlapping(Protocol):
    """What a storage over a network may offer besides, for its callers to work while it does.

    A runner that is busy asks it for this, and works before each `apply` where it is not offered.
    """

    def apply_while(self, batches: Sequence[Batch], work: Callable[[], None], /) -> list[Outcome]:
        """`Storage.apply`, with ``work`` called by this thread after the batches were sent, before the answer is read.

        ``work`` is called at least once, and may be called again.
        """
        ...


class Bounded(Protocol):
    """What a storage that may keep its callers waiting offers besides: a call of it has an end.

    The end is in seconds of `clock.monotonic_s`. What was not sent by then is `NotApplied`, what was not answered by then
    `OutcomeUnknown`.
    """

    def apply(self, batches: Sequence[Batch], end_s: float, /) -> list[Outcome]:
        """See `Storage.apply`."""
        ...

    def read(self, queries: Sequence[Query], end_s: float, /) -> list[Answer]:
        """See `Storage.read`."""
        ...


class AsyncStorage(Protocol):
    """The same as `Storage`, awaited on one event loop."""

    async def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        """See `Storage.apply`. A cancelled call may have been carried out."""
        ...

    async def read(self, queries: Sequence[Query], /) -> list[Answer]:
        """See `Storage.read`."""
        ...

    async def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:  # noqa: ASYNC109 - the seam's own bound
        """See `Storage.wait`."""
        ...

    async def interrupt(self) -> None:
        """See `Storage.interrupt`."""
        ...

    async def close(self) -> None:
        """See `Storage.close`."""
        ...


class AsyncBounded(Protocol):
    """The same as `Bounded`."""

    async def apply(self, batches: Sequence[Batch], end_s: float, /) -> list[Outcome]:
        """See `Bounded.apply`."""
        ...

    async def read(self, queries: Sequence[Query], end_s: float, /) -> list[Answer]:
        """See `Bounded.read`."""
        ...
