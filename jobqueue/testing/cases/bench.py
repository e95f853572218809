"""What a case of the conformance suite works with: a storage, a scope of its own, and readable comparisons."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeAlias, TypeVar

import attrs
import msgspec

from jobqueue.clock import monotonic_s
from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    RECORDS,
    REQUESTS,
    Answer,
    Applied,
    Batch,
    Fields,
    Guard,
    HashDelete,
    HashKey,
    Holder,
    ListKey,
    LockKey,
    Move,
    Moved,
    Op,
    Page,
    Peek,
    Placed,
    Put,
    Query,
    SetKey,
    Sizes,
)
from jobqueue.storage.protocol import Outcome, Storage

__all__ = ["NOW", "Bench", "Case", "CaseFailed", "Need", "Offers", "case", "cases", "in_threads", "record"]

T = TypeVar("T")

NOW: Final = 1_700_000_000_000
"""A time in ms, long gone: no storage may compare it with a clock of its own."""
_ALL: Final = 100_000


class CaseFailed(AssertionError):
    """A storage did not do what a case expects."""


Need: TypeAlias = Literal["another handle", "wake-ups between handles", "surviving a crash"]
"""What a case needs besides the five methods. A storage need not offer it: then the case is not claimed."""


@attrs.frozen
class Offers:
    """What a storage offers besides the five methods; see `jobqueue.testing.check_storage`.

    Attributes:
        another: Opens one more handle of the store that a handle belongs to.
        crash: Ends whatever keeps a handle's store, without warning, and answers a handle of what is left.
        wakes_others: Whether a batch through one handle ends the wait of another.
    """

    another: Callable[[Storage], Storage] | None = None
    crash: Callable[[Storage], Storage] | None = None
    wakes_others: bool = True

    def has(self, need: Need | None) -> bool:
        """Whether a case that needs this can be run."""
        match need:
            case "another handle":
                return self.another is not None
            case "wake-ups between handles":
                return self.another is not None and self.wakes_others
            case "surviving a crash":
                return self.crash is not None
            case None:
                return True


class Bench:
    """A storage and names of keys in a scope that nothing else uses.

    Attributes:
        storage: What is tested.
        scope: The scope.
        patience: How long a wait may take in seconds; one that returns in less than half of it returned early.
        offers: What the storage offers besides the five methods.
    """

    def __init__(self, storage: Storage, patience: float, offers: Offers = Offers(), scope: str | None = None) -> None:
        self.storage = storage
        self.patience = patience
        self.offers = offers
        self._more: list[Bench] = []
        self.scope = scope or f"conformance:{secrets.token_hex(8)}"
        self.ready = ListKey(self.scope, "ready")
        self.waiting = SetKey(self.scope, "waiting")
        self.working = SetKey(self.scope, "working")
        self.dead = SetKey(self.scope, "dead")
        self.records = HashKey(self.scope, RECORDS)
        self.claims = HashKey(self.scope, CLAIMS)
        self.requests = HashKey(self.scope, REQUESTS)
        self.counters = HashKey(self.scope, COUNTERS)
        self.log = ListKey(self.scope, "log")
        self.index = SetKey(self.scope, "index")
        self.notes = HashKey(self.scope, "notes")
        self.duty = LockKey(self.scope, "duty")

    def another(self) -> Bench:
        """The same storage with another scope."""
        return Bench(self.storage, self.patience, self.offers)

    def handle(self) -> Bench:
        """The same scope through one more handle of the store. For cases that need ``another handle``."""
        assert self.offers.another is not None
        more = Bench(self.offers.another(self.storage), self.patience, self.offers, self.scope)
        self._more.append(more)
        return more

    def crash(self) -> None:
        """Let the store crash, and go on with what is left. For cases that need ``surviving a crash``."""
        assert self.offers.crash is not None
        self.storage = self.offers.crash(self.storage)

    def close(self) -> None:
        """Close the storage and its other handles."""
        for each in (*self._more, self):
            each.storage.close()

    # ------------------------------------------------------------------------------------------------------- sending

    def batch(self, *ops: Op, guards: Sequence[Guard] = ()) -> Batch:
        """A batch of this scope."""
        return Batch(self.scope, ops, tuple(guards))

    def outcome(self, *ops: Op, guards: Sequence[Guard] = ()) -> Outcome:
        """Apply one batch; how it ended."""
        [outcome] = self.storage.apply([self.batch(*ops, guards=guards)])
        return outcome

    def do(self, *ops: Op, guards: Sequence[Guard] = ()) -> tuple[Placed | Moved | int | None, ...]:
        """Apply one batch that must be applied; its answers."""
        outcome = self.outcome(*ops, guards=guards)
        if not isinstance(outcome, Applied):
            raise CaseFailed(f"{_short(ops)}\n  expected: Applied\n  got:      {_short(outcome)}")
        if len(outcome.answers) != len(ops):
            raise CaseFailed(f"{len(ops)} operations have {len(outcome.answers)} answers: {_short(outcome)}")
        return outcome.answers

    def put(self, op: Put) -> tuple[str, ...]:
        """Apply a `Put`; what became of each record."""
        [answer] = self.do(op)
        if not isinstance(answer, Placed):
            raise CaseFailed(f"{_short(op)} answers {_short(answer)}, no Placed")
        return answer.states

    def move(self, op: Move) -> Moved:
        """Apply a `Move`; its answer."""
        [answer] = self.do(op)
        if not isinstance(answer, Moved):
            raise CaseFailed(f"{_short(op)} answers {_short(answer)}, no Moved")
        return answer

    def fill(self, *ids: bytes) -> None:
        """Put jobs into ``ready``, in order."""
        self.put(Put(self.ready, {id_: record(id_) for id_ in ids}))

    def lose_record(self, id_: bytes) -> None:
        """Delete the record of a job that keeps its place, as a server that lost writes might."""
        delete = HashDelete(self.notes, (id_,))
        # No operation can do this, by construction; so it is smuggled past the check of HashDelete.
        msgspec.structs.force_setattr(delete, "hash", self.records)
        self.do(delete)

    # ------------------------------------------------------------------------------------------------------- looking

    def read(self, query: Query) -> Answer:
        """The answer to one query."""
        [answer] = self.storage.read([query])
        return answer

    def places(self) -> dict[str, list[Any]]:
        """Where jobs are: ids of ``ready``, (id, score) of the others; empty places are left out."""
        return {name: value for name, value in self.state().items() if name in {"ready", "waiting", "working", "dead"}}

    def state(self) -> dict[str, Any]:
        """Everything in this scope that queries can see; what is empty is left out."""
        lists, sets = [self.ready, self.log], [self.waiting, self.working, self.dead, self.index]
        hashes = [self.records, self.claims, self.requests, self.counters, self.notes]
        keys: tuple[ListKey | SetKey | HashKey, ...] = (*lists, *sets, *hashes)
        *answers, held, sizes = self.storage.read(
            [
                *(Peek(key, 0, _ALL) for key in lists),
                *(Page(key, _ALL) for key in sets),
                *(Fields(key, None, None) for key in hashes),
                Holder(self.duty),
                Sizes(keys),
            ]
        )
        values = [value if isinstance(value, dict) else list(value) for value in answers]  # type: ignore[arg-type]
        self.check(sizes, tuple(map(len, values)), "Sizes and the contents of " + ", ".join(key.name for key in keys))
        state: dict[str, Any] = {key.name: value for key, value in zip(keys, values, strict=True) if value}
        if held is not None:
            state["duty"] = held
        return state

    # ----------------------------------------------------------------------------------------------------- comparing

    def check(self, got: object, expected: object, what: str) -> None:
        """Fail with both values unless they are equal, types included."""
        if got != expected or type(got) is not type(expected):
            raise CaseFailed(f"{what}\n  expected: {_short(expected)}\n  got:      {_short(got)}")

    def unchanged(self, act: Callable[[], object], what: str) -> None:
        """Fail unless everything in this scope is after ``act`` as it was before."""
        before = self.state()
        act()
        self.check(self.state(), before, what)

    def returns_early(
        self,
        scopes: Sequence[str],
        what: str,
        meanwhile: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> str | None:
        """Fail unless a wait for the scopes returns early, with ``meanwhile`` called by another thread.

        Answers what the wait did.
        """
        started = monotonic_s()
        with ThreadPoolExecutor(1) as helper:
            done = helper.submit(meanwhile if meanwhile is not None else lambda: None)
            scope = self.storage.wait(scopes, self.patience if timeout is None else timeout)
            took = monotonic_s() - started
            done.result()
        if took > self.patience / 2:
            raise CaseFailed(f"{what}\n  expected: wait returns early\n  got:      it took {took:.1f} s")
        return scope


def record(id_: bytes, nonce: bytes = b"nonce-01", body: bytes = b"a job ") -> bytes:
    """A record: 8 bytes of nonce and something opaque."""
    return nonce + body + id_


def in_threads(works: Sequence[Callable[[], T]]) -> list[T]:
    """Call all of them at once, each in a thread, and answer what they answer; raises the first error."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]


@attrs.frozen
class Case:
    """One case of the suite.

    Attributes:
        rule: The rule of `jobqueue.storage.protocol` that it checks.
        name: What it says, as words.
        run: Raises `CaseFailed` if the storage does otherwise.
        needs: What the storage has to offer for it, besides the five methods.
    """

    rule: int
    name: str
    run: Callable[[Bench], None]
    needs: Need | None = None


_cases: list[Case] = []


def case(rule: int, needs: Need | None = None) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Make a function a case; its name is what it says."""

    def register(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
        _cases.append(Case(rule, function.__name__.replace("_", " "), function, needs))
        return function

    return register


def cases() -> tuple[Case, ...]:
    """All cases of the modules imported so far, by rule."""
    return tuple(sorted(_cases, key=lambda each: each.rule))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} … {text[-180:]}"
