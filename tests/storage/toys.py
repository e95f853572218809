"""Storages that are wrong in one way each. The conformance suite must catch every one, by the case named for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from jobqueue.errors import NotApplied, StorageRefused
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    FENCE,
    Answer,
    Applied,
    Batch,
    Expect,
    Found,
    Guard,
    Head,
    Held,
    IdPage,
    Ids,
    Kept,
    Key,
    LockTake,
    Match,
    Mend,
    Move,
    Moved,
    Once,
    Op,
    Page,
    Placed,
    PlaceKey,
    Put,
    Query,
    Records,
    Refused,
    Ring,
    ScopePage,
    Sizes,
    Unlocked,
    Where,
)
from jobqueue.storage.protocol import Outcome, Storage


class OneOpAtATime(MemoryStorage):
    """Rule 1 broken: a batch is torn apart, its operations are sent one by one."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return [self._torn(batch) for batch in batches]

    def _torn(self, batch: Batch) -> Outcome:
        guards = super().apply([Batch(batch.scope, (), batch.guards)])[0]
        if not isinstance(guards, Applied):
            return guards
        answers: list[Placed | Moved | int | None] = []
        for index, op in enumerate(batch.ops):
            [outcome] = super().apply([Batch(batch.scope, (op,))])
            if isinstance(outcome, Refused):
                return Refused((len(batch.guards) + index,))
            if not isinstance(outcome, Applied):
                return outcome
            answers += outcome.answers
        return Applied(tuple(answers))


class TornMove(Interpreter):
    """Rule 1 broken: a move takes out and puts in, and finds out afterwards that it cannot count."""

    def _check_integers(self, batch: Batch) -> None:
        pass

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        try:
            return super().apply(batch)
        except ValueError as error:
            return StorageRefused(str(error)), False


class TornRead(MemoryStorage):
    """Rule 10 broken: each query is answered by itself, and somebody may write in between."""

    def __init__(self) -> None:
        super().__init__()
        self._applied = threading.Event()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes = super().apply(batches)
        self._applied.set()
        return outcomes

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries[:1])
        self._applied.clear()
        self._applied.wait(0.005)  # for another thread, where there is one that writes
        return answers + super().read(queries[1:])


class KindsOfRequestsUnchecked(Interpreter):
    """Rule 1 broken: it finds out after the move that it cannot write the request down."""

    def check_kinds(self, keys: Iterable[Key]) -> None:
        super().check_kinds(key for key in keys if key.name != "requests")


class SumsUnchecked(Interpreter):
    """Rule 1 broken: a sum may grow past what a number of the server holds."""

    def _check_integers(self, batch: Batch) -> None:
        with contextlib.suppress(StorageRefused):
            super()._check_integers(batch)


class FencesUnchecked(Interpreter):
    """Rule 1 broken: fences may grow past what a number of the server holds."""

    def _check_sum(self, written: Any, name: str, field: bytes, amount: int = 0, least: int = 0) -> None:
        super()._check_sum(written, name, field, 0 if field == FENCE else amount)


class CountsChecked(Interpreter):
    """Rule 1 broken: a count that something else spoiled keeps jobs from moving."""

    def _check_integers(self, batch: Batch) -> None:
        super()._check_integers(batch)
        for op in batch.ops:
            if isinstance(op, Move) and op.count is not None:
                self._check_sum({}, op.count[0].full, op.count[1], 1)


class FirstFailureOnly(Interpreter):
    """Rule 1 broken: only the first failing guard is named."""

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        outcome, ring = super().apply(batch)
        return (Refused(outcome.failed[:1]) if isinstance(outcome, Refused) else outcome), ring


class OneGuardOnly(Interpreter):
    """Rule 1 broken: guards behind the first are not looked at."""

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        return super().apply(msgspec.structs.replace(batch, guards=batch.guards[:1]))


class LastBatchFirst(MemoryStorage):
    """Rule 2 broken: the batches of a scope are applied in another order."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        return super().apply(batches[::-1])[::-1]


class AllOrNoBatch(MemoryStorage):
    """Rule 2 broken: one refused batch takes the others with it."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        saved = self.copy()
        outcomes = super().apply(batches)
        if not all(isinstance(outcome, Applied) for outcome in outcomes):
            self.restore(saved)
        return outcomes


class OwnClock(Interpreter):
    """Rule 3 broken: whether a lock is held is asked of the computer's clock."""

    def _holds(self, guard: Guard) -> bool:
        if isinstance(guard, Unlocked):
            guard = msgspec.structs.replace(guard, now=time.time_ns() // 1_000_000)
        return super()._holds(guard)


class NewestFirst(Interpreter):
    """Rule 4 broken: a list is last in, first out."""

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        super()._place(target, ids, score, front=not front)


class OrderOfText(MemoryStorage):
    """Rule 4 broken: equal scores are ordered by text, not by bytes."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        for index, query in enumerate(queries):
            if isinstance(query, Page):
                page = cast("tuple[tuple[bytes, int], ...]", answers[index])
                answers[index] = tuple(sorted(page, key=lambda entry: (entry[1], entry[0].decode("latin-1").strip())))
        return answers


class FrontReversed(Interpreter):
    """Rule 4 broken: each id is pushed to the head in turn, so the last one stands first."""

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        super()._place(target, list(ids)[::-1] if front else ids, score, front=front)


class EmptyStays(Interpreter):
    """Rule 5 broken: an emptied hash still exists."""

    def hash_delete(self, name: str, deleted: Iterable[bytes]) -> None:
        super().hash_delete(name, deleted)
        self.hashes.setdefault(name, {})


class MissingIsSilent(Interpreter):
    """Rule 6 broken: an id without a record disappears without a word."""

    def _move(self, op: Move) -> tuple[Moved, bool]:
        moved, ring = super()._move(op)
        return msgspec.structs.replace(moved, missing=()), ring


class ScoreIgnored(Interpreter):
    """Rule 6 broken: of an expected (claim, score) only the claim is compared."""

    def _as_expected(self, op: Move, expect: Expect, ids: list[bytes]) -> list[bytes]:
        if isinstance(expect, Mapping):
            expect = {id_: value[0] if isinstance(value, tuple) else value for id_, value in expect.items()}  # type: ignore[assignment]
        return super()._as_expected(op, expect, ids)


class BytesIgnored(Interpreter):
    """Rule 6 broken: a claim may be as large as it likes."""

    def _move(self, op: Move) -> tuple[Moved, bool]:
        if isinstance(op.pick, Head):
            op = msgspec.structs.replace(op, pick=Head(op.pick.limit, 2**40))
        return super()._move(op)


class CountsPicked(Interpreter):
    """Rule 6 broken: a count is of what was asked for, not of what moved."""

    def _move(self, op: Move) -> tuple[Moved, bool]:
        moved, ring = super()._move(msgspec.structs.replace(op, count=None))
        if op.count is not None:
            self.hash_add(op.count[0].full, op.count[1], len(getattr(op.pick, "ids", moved.ids)))
        return moved, ring


class OneScoreForAll(Interpreter):
    """Rule 6 broken: what moves together gets one score."""

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        super()._place(target, ids, max(score.values()) if isinstance(score, Mapping) else score, front=front)


class EverythingIsReady(MemoryStorage):
    """Rule 6 broken: where a job is is guessed."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        for index, query in enumerate(queries):
            if isinstance(query, Records):
                kept = cast("tuple[Kept | None, ...]", answers[index])
                answers[index] = tuple(
                    [each and msgspec.structs.replace(each, place="ready", score=0) for each in kept]
                )
        return answers


class ThousandAtMost(Interpreter):
    """Rule 6 broken: what does not fit into one call to the server is left out."""

    def _pick(self, op: Move, records: Mapping[bytes, bytes]) -> list[bytes]:
        return super()._pick(op, records)[:1000]


class RaisesRefusals(MemoryStorage):
    """Rule 7 broken: what one batch met is raised, so that nobody knows how the others ended."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes = super().apply(batches)
        for outcome in outcomes:
            if isinstance(outcome, NotApplied):
                raise outcome
        return outcomes


class SendsAgain(MemoryStorage):
    """Rule 7 broken: it repeats on its own account, as client libraries do."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        super().apply(batches)
        return super().apply(batches)


class AnyJobIsTheSame(Interpreter):
    """Rule 8 broken: another job under a known id counts as the one stored."""

    def _put(self, op: Put) -> tuple[Placed, bool]:
        placed, ring = super()._put(op)
        return Placed(tuple(["same" if state == "different" else state for state in placed.states])), ring


class Overwrites(Interpreter):
    """Rule 8 broken: a Put that is sent twice places the job twice."""

    def _put(self, op: Put) -> tuple[Placed, bool]:
        self.hash_delete(f"{{{op.target.scope}}}:records", op.records)
        return super()._put(op)


class NumbersIgnored(Interpreter):
    """Rule 8 broken: a claim sent again takes more jobs."""

    def _known(self, scope: str, once: Once) -> Sequence[bytes] | None:
        return ()


class LateClaimsTaken(Interpreter):
    """Rule 8 broken: a claim that arrives after the next one still takes jobs, for nobody."""

    def _known(self, scope: str, once: Once) -> Sequence[bytes] | None:
        known = super()._known(scope, once)
        return () if known is None else known


class NothingForgotten(Interpreter):
    """Rule 8 broken: a claim that took nothing is not remembered."""

    def _move(self, op: Move) -> tuple[Moved, bool]:
        moved, ring = super()._move(op)
        if op.once is not None and not moved.ids:
            self.hash_delete(f"{{{op.source.scope}}}:requests", (op.once.incarnation,))
        return moved, ring


class LeasesShrink(Interpreter):
    """Rule 8 broken: an extension that arrives late shortens the lease."""

    def _leave(self, op: Move, moved: list[bytes], missing: list[bytes]) -> None:
        super()._leave(op, moved, missing)
        if op.source == op.target and isinstance(op.score, int):
            self.set_add(op.source.full, dict.fromkeys(moved, op.score))


class FenceIsTheTime(Interpreter):
    """Rule 8 broken: fences run backwards with the clock."""

    def _stamp(self, op: Move, moved: list[bytes]) -> int:
        self.hash_delete(f"{{{op.source.scope}}}:counters", (b"fence",))
        return super()._stamp(op, moved)


class ClaimsStay(Interpreter):
    """Rule 8 broken: a job that was handed back still has its old claim."""

    def _stamp(self, op: Move, moved: list[bytes]) -> int:
        return super()._stamp(
            msgspec.structs.replace(op, stamp=None) if op.stamp and not hasattr(op.stamp, "beat") else op, moved
        )


class FenceIgnored(Interpreter):
    """Rule 8 broken: every claim of one runner is as good as another."""

    def _as_expected(self, op: Move, expect: Expect, ids: list[bytes]) -> list[bytes]:
        claims = self.hashes.get(f"{{{op.source.scope}}}:claims", {})
        if isinstance(expect, Mapping):
            found = {id_: value for id_, value in expect.items() if isinstance(value, bytes)}
            owners = {id_: value.split(b":")[0] for id_, value in found.items()}
            if len(found) == len(expect):
                return [id_ for id_ in ids if id_ in owners and claims.get(id_, b"").startswith(owners[id_])]
        return super()._as_expected(op, expect, ids)


class DropForgets(Interpreter):
    """Rule 8 broken: the first sending of a lock's taking, arriving late, locks it for nobody."""

    def _holds(self, guard: Guard) -> bool:
        if isinstance(guard, Unlocked) and self.locks.get(guard.lock.full, Held(b"", 1, 0)).until == 0:
            return True
        return super()._holds(guard)


class LocksForgetWhoHeldThem(Interpreter):
    """Rule 8 broken: a taking that arrives late, when somebody else has held the lock since, locks it for nobody."""

    def _holds(self, guard: Guard) -> bool:
        if isinstance(guard, Unlocked):
            guard = msgspec.structs.replace(guard, fence=2**53)
        return super()._holds(guard)


class ShorterLocks(Interpreter):
    """Rule 8 broken: an extension of a lock that arrives late shortens it."""

    def _plain(self, op: Op) -> int | None:
        fence = super()._plain(op)
        if isinstance(op, LockTake):
            self.locks[op.lock.full] = msgspec.structs.replace(self.locks[op.lock.full], until=op.until)
        return fence


class PoliteLocks(Interpreter):
    """Rule 8 broken: taking a lock that another holds does nothing, though no guard asked for that."""

    def _plain(self, op: Op) -> int | None:
        if isinstance(op, LockTake):
            held = self.locks.get(op.lock.full)
            if held is not None and held.token != op.token and held.until > op.now:
                return held.fence
        return super()._plain(op)


class NeverRings(MemoryStorage):
    """Rule 9 broken: nobody is told."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes = super().apply(batches)
        self._shared.bell._tokens.clear()
        return outcomes


class RingIsNotKept(MemoryStorage):
    """Rule 9 broken: a wake-up before the wait is lost."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        self._shared.bell._tokens.clear()
        return super().wait(channels, timeout)


class InterruptIsNotKept(MemoryStorage):
    """Rule 9 broken: an interrupt before the wait is lost."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        self._shared.bell._interrupted.clear()
        return super().wait(channels, timeout)


class WaitsTooLong(MemoryStorage):
    """Rule 9 broken: milliseconds are taken for seconds, or nearly."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        return super().wait(channels, timeout * 50)


class FirstScopeOnly(MemoryStorage):
    """Rule 9 broken: it waits for the first scope alone."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        return super().wait(channels[:1], timeout)


class AnswersTheFirstScope(MemoryStorage):
    """Rule 9 broken: it says that the first scope was rung, whichever it was."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        return super().wait(channels, timeout) and channels[0]


class WaitsInItsOwnOrder(MemoryStorage):
    """Rule 9 broken: whichever comes first by name is answered first."""

    def wait(self, channels: Sequence[str], timeout: float, /) -> str | None:
        return super().wait(sorted(channels), timeout)


class ReadsAReplica(MemoryStorage):
    """Rule 10 broken: what is read is a step behind."""

    def __init__(self) -> None:
        super().__init__()
        self._behind = self.copy()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        self._behind = self.copy()
        return super().apply(batches)

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        sizes = [isinstance(query, Sizes) and len(queries) == 1 for query in queries]
        return self._behind.read(queries) if all(sizes) else super().read(queries)


class HasRoomForAll(Interpreter):
    """Rule 1 broken: a list takes more than a Put allows."""

    def _is_full(self, op: Put) -> bool:
        return False


class AlwaysRegistered(Interpreter):
    """Rule 10 broken: a Put says that somebody registered its queue, though nobody has."""

    def _put(self, op: Put) -> tuple[Placed, bool]:
        placed, ring = super()._put(op)
        return Placed(placed.states, registered=True), ring


class FirstPageOnly(MemoryStorage):
    """Rule 10 broken: who looks for scopes is told that there are no more behind the first."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        return [ScopePage(each.scopes[:1], b"") if isinstance(each, ScopePage) else each for each in answers]


class AllBytesAtOnce(MemoryStorage):
    """Rule 10 broken: records are answered however large they are."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return super().read(
            [Records(query.scope, query.ids) if isinstance(query, Records) else query for query in queries]
        )


def _meet(barrier: threading.Barrier) -> None:
    """Wait for another thread at the same place; once nobody else came, the barrier is broken and nobody waits again."""
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(0.5)


class Races(MemoryStorage):
    """Rule 10 broken: two threads change a copy each, and the last one wins."""

    def __init__(self) -> None:
        super().__init__()
        self._two_copied = threading.Barrier(2)

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        mine = self.copy()
        outcomes = mine.apply(batches)
        if threading.current_thread() is not threading.main_thread():
            _meet(self._two_copied)
        self.restore(mine)
        return outcomes


class GuardsFirst(MemoryStorage):
    """Rule 1 broken: guards are looked at in a step of their own, and others write before the batch does."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = threading.Barrier(2)

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for batch in batches:
            [looked] = super().apply([Batch(batch.scope, (), batch.guards)])
            if batch.guards and threading.current_thread() is not threading.main_thread():
                _meet(self._looked)
            if isinstance(looked, Applied):
                outcomes += super().apply([msgspec.structs.replace(batch, guards=())])
            else:
                outcomes.append(looked)
        return outcomes

    def share(self) -> MemoryStorage:
        other = type(self)()
        other._shared, other._looked = self._shared, self._looked
        return other


class GuardsFirstAcrossHandles(GuardsFirst):
    """Rule 1 broken: what keeps others out is a mutex of the handle, not of the store."""

    def __init__(self) -> None:
        super().__init__()
        self._mutex = threading.Lock()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        with self._mutex:
            return super().apply(batches)


class LongIdsCut(Interpreter):
    """Rule 1 broken: an id has a longest length, as a column of a table has."""

    def _place(
        self, target: PlaceKey, ids: Iterable[bytes], score: int | Mapping[bytes, int] | None, *, front: bool = False
    ) -> None:
        super()._place(
            target, [id_[:65_535] for id_ in ids], max(score.values()) if isinstance(score, Mapping) else score
        )


class FewBatches(MemoryStorage):
    """Rule 2 broken: one trip has room for a thousand batches."""

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        rest = [NotApplied("too many") for _ in batches[1000:]]
        return [*super().apply(batches[:1000]), *rest]


class TenThousandAtMost(Interpreter):
    """Rule 6 broken: what does not fit into one call to the server is left out."""

    def _pick(self, op: Move, records: Mapping[bytes, bytes]) -> list[bytes]:
        return super()._pick(op, records)[:10_000]


class StoreOfItsOwn(MemoryStorage):
    """Rule 10 broken: another handle has a cache of its own."""

    def share(self) -> MemoryStorage:
        return self.copy()


class RacesAcrossHandles(Races):
    """Rule 10 broken: each handle changes a copy, and the last one to write it back wins."""

    def __init__(self) -> None:
        super().__init__()
        self._mutex = threading.Lock()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        with self._mutex:
            return super().apply(batches)

    def share(self) -> MemoryStorage:
        other = RacesAcrossHandles()
        other._shared, other._two_copied = self._shared, self._two_copied
        return other


class BellOfItsOwn(MemoryStorage):
    """Rule 9 broken: only those who wait on the same handle are woken."""

    def share(self) -> MemoryStorage:
        other = MemoryStorage()
        other._shared.version.contents = self._shared.contents
        return other


class WritesLater(MemoryStorage):
    """Rule 7 broken: a batch is acknowledged before it is where a crash cannot reach it."""

    def __init__(self) -> None:
        super().__init__()
        self._before = self.copy()

    def apply(self, batches: Sequence[Batch], /) -> list[Outcome]:
        self._before = self.copy()
        return super().apply(batches)

    def crash(self) -> MemoryStorage:
        return self._before


class TornByCrash(MemoryStorage):
    """Rule 1 broken: of the batch that a crash met, a half is there."""

    def crash(self) -> MemoryStorage:
        left = self.copy()
        for name, values in left._shared.contents.lists.items():
            if name.endswith(":log") and len(values) > 100:  # a batch of which nobody has heard yet
                values.append(b"1-999:0")
        return left


class ForgetsAnId(Interpreter):
    """Rule 6 broken, where no case looks: a Put that stores two of three ids says it stored the third as well."""

    def _put(self, op: Put) -> tuple[Placed, bool]:
        placed, ring = super()._put(op)
        if placed.states == ("different", "stored", "stored"):
            placed = Placed(("different", "stored", "same"))
        return placed, ring


class PagesByPosition(MemoryStorage):
    """Rule 10 broken: the cursor of ids is a position, which moves when an id before it goes."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        for index, query in enumerate(queries):
            if isinstance(query, Ids):
                start = int(query.after or 0)
                ids = sorted(self._shared.contents.hashes.get(query.hash.full, ()))
                more = start + query.limit < len(ids)
                page = tuple(ids[start : start + query.limit])
                answers[index] = IdPage(page, b"%d" % (start + query.limit) if more else None)
        return answers


class AllIdsAtOnce(MemoryStorage):
    """Rule 10 broken: an answer grows with what is stored."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return super().read([msgspec.structs.replace(q, limit=10**9) if isinstance(q, Ids) else q for q in queries])


class FindsTheFirstPlace(MemoryStorage):
    """Rule 6 broken: an id that was found in one place is not looked for in the others."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        answers = super().read(queries)
        for index, query in enumerate(queries):
            if isinstance(query, Where):
                found = cast("tuple[Found, ...]", answers[index])
                answers[index] = tuple([msgspec.structs.replace(each, places=each.places[:1]) for each in found])
        return answers


class MovesSome(Interpreter):
    """Rule 1 broken: a move of all or none moves those that it can."""

    def _lacking(self, op: Move) -> list[bytes]:
        return []


class AnyNeedle(MemoryStorage):
    """Rule 6 broken: a record is found that holds one of the needles."""

    def read(self, queries: Sequence[Query], /) -> list[Answer]:
        return super().read(
            [msgspec.structs.replace(q, needles=q.needles[:1]) if isinstance(q, Match) else q for q in queries]
        )


class SilentRing(Interpreter):
    """Rule 9 broken: a scope is rung only by what it holds."""

    def apply(self, batch: Batch) -> tuple[Applied | Refused | StorageRefused, bool]:
        outcome, ring = super().apply(batch)
        return outcome, ring and not any(isinstance(op, Ring) for op in batch.ops)


class MendsNothing(Interpreter):
    """Rule 6 broken: it says that it mended."""

    def _plain(self, op: Op) -> int | None:
        return 1 if isinstance(op, Mend) else super()._plain(op)


class BuriesWhatIsWhole(Interpreter):
    """Rule 6 broken: what is mended is given up, broken or not."""

    def _plain(self, op: Op) -> int | None:
        if isinstance(op, Mend):
            for place in ("waiting", "working", "dead"):
                self.set_remove(f"{{{op.target.scope}}}:{place}", (op.id,))
        return super()._plain(op)


class MendsWhateverIsThere(Interpreter):
    """Rule 8 broken: a mending that arrives late overwrites another record."""

    def _plain(self, op: Op) -> int | None:
        if isinstance(op, Mend):
            records = self.hashes.get(f"{{{op.target.scope}}}:records", {})
            op = msgspec.structs.replace(op, seen=records.get(op.id))
        return super()._plain(op)


def _with(contents: type[Interpreter]) -> Callable[[], Storage]:
    def make() -> Storage:
        storage = MemoryStorage()
        storage._shared.version.contents = contents()
        return storage

    make.__name__ = contents.__name__
    return make


TOYS: Final[tuple[tuple[int, Callable[[], Storage], str], ...]] = (
    (1, OneOpAtATime, "a key of another kind refuses the whole batch"),
    (1, _with(TornMove), "adding to no integer refuses the whole batch"),
    (1, _with(KindsOfRequestsUnchecked), "a claim whose bookkeeping is of another kind moves nothing"),
    (1, _with(SumsUnchecked), "sums stay exact"),
    (1, _with(FencesUnchecked), "fences stay exact"),
    (1, _with(CountsChecked), "counts keep nothing from moving"),
    (1, _with(FirstFailureOnly), "every failing guard is named"),
    (1, _with(OneGuardOnly), "a refused batch changes nothing"),
    (1, GuardsFirst, "nothing comes between a guard and its batch"),
    (1, GuardsFirstAcrossHandles, "no other handle comes between a guard and its batch"),
    (1, _with(LongIdsCut), "every byte is kept everywhere"),
    (1, TornByCrash, "a crash tears no batch"),
    (1, _with(MovesSome), "a move of all or none moves all or none"),
    (2, FewBatches, "many batches and many operations travel together"),
    (2, LastBatchFirst, "batches of one scope are applied in order"),
    (2, AllOrNoBatch, "scopes end alone"),
    (3, _with(OwnClock), "times are what the caller says"),
    (4, _with(NewestFirst), "a list is first in first out"),
    (4, OrderOfText, "a sorted set is ordered by score and member bytes"),
    (4, _with(FrontReversed), "front keeps the order picked"),
    (5, _with(EmptyStays), "what is empty does not exist"),
    (6, _with(MissingIsSilent), "an id without record is removed and reported"),
    (6, _with(ScoreIgnored), "expect skips what is otherwise"),
    (6, _with(BytesIgnored), "head takes at most its limit and bytes"),
    (6, _with(CountsPicked), "counts are of what really moved"),
    (6, _with(OneScoreForAll), "a score for each or for all"),
    (6, EverythingIsReady, "records are found wherever their job is"),
    (6, _with(ThousandAtMost), "thousands of jobs move at once"),
    (6, _with(TenThousandAtMost), "more jobs than any chunk holds move at once"),
    (6, FindsTheFirstPlace, "every place of an id is found"),
    (6, _with(MendsNothing), "what is broken is mended"),
    (6, _with(BuriesWhatIsWhole), "what is whole is not mended"),
    (7, WritesLater, "what was answered survives a crash"),
    (7, RaisesRefusals, "outcomes are values one per batch"),
    (7, SendsAgain, "an answered batch was applied once"),
    (8, _with(AnyJobIsTheSame), "a put tells the same job from another"),
    (8, _with(Overwrites), "a put tells the same job from another"),
    (8, _with(CountsPicked), "batches sent twice change nothing more"),
    (8, _with(NumbersIgnored), "a numbered claim sent again answers the same"),
    (8, _with(LateClaimsTaken), "a late numbered claim is refused"),
    (8, _with(NothingForgotten), "a numbered claim that took nothing is remembered"),
    (8, _with(LeasesShrink), "an extension only raises"),
    (8, _with(FenceIsTheTime), "a stamp writes one new fence"),
    (8, _with(ClaimsStay), "a claim is cleared kept or written"),
    (8, _with(FenceIgnored), "a late finish does not touch the next claim"),
    (8, _with(DropForgets), "a dropped lock cannot be taken by a late sending"),
    (8, _with(LocksForgetWhoHeldThem), "a lock that somebody held since cannot be taken by a late sending"),
    (8, _with(ShorterLocks), "a lock is extended by its holder only"),
    (8, _with(PoliteLocks), "an unguarded taking overrules"),
    (8, _with(MendsWhateverIsThere), "only what was seen is mended"),
    (9, WaitsTooLong, "a wait ends with its timeout"),
    (9, NeverRings, "what can be run or comes first rings"),
    (9, _with(SilentRing), "an operation rings its scope"),
    (9, RingIsNotKept, "a wake up is kept for the next wait"),
    (9, InterruptIsNotKept, "an interrupt ends the next wait"),
    (9, FirstScopeOnly, "any of several scopes ends a wait"),
    (9, AnswersTheFirstScope, "a wait answers the scope that was rung or none"),
    (9, WaitsInItsOwnOrder, "a wait answers the scope that was rung or none"),
    (9, BellOfItsOwn, "another handle is woken"),
    (10, PagesByPosition, "a walk over ids misses none that stayed"),
    (10, AnyNeedle, "a slice of a place is searched"),
    (10, AllIdsAtOnce, "a walk over ids misses none that stayed"),
    (10, StoreOfItsOwn, "what one handle wrote another reads"),
    (10, RacesAcrossHandles, "many handles lose and repeat nothing"),
    (10, ReadsAReplica, "reading sees what was answered"),
    (1, _with(HasRoomForAll), "a bounded put finds room for what is new or is refused"),
    (10, _with(AlwaysRegistered), "a put says whether its scope is marked as registered"),
    (10, FirstPageOnly, "a scope that has records or counters is found by its own keys"),
    (10, AllBytesAtOnce, "records are answered up to a number of bytes"),
    (10, TornRead, "answers of one read are one snapshot"),
    (10, Races, "many threads lose and repeat nothing"),
)
"""(rule, maker, the case that must catch it)"""

only_lockstep = _with(ForgetsAnId)
"""What no case catches, but the comparison with the memory storage does."""


def another(storage: Storage) -> Storage:
    """One more handle of a toy's store."""
    return cast("MemoryStorage", storage).share()


def crash(storage: Storage) -> Storage:
    """What is left of a toy's store after a crash: all of it, unless the toy says otherwise."""
    left: Storage = getattr(storage, "crash", cast("MemoryStorage", storage).share)()
    return left
