"""The simulated world: virtual time, a server with its clock, a network that may fail, and the actors' processes.

Everything happens at events of one heap, ordered by (virtual time, number of the event), so a seed fixes the history. A
process is a generator that yields what it waits for: a call of the storage, a moment, or being woken.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol, TypeAlias

import attrs

from jobqueue.clock import Moment
from jobqueue.errors import NotApplied, OutcomeUnknown, StorageError
from jobqueue.flows import Apply, Flow, Pause, Read, Refresh, Request
from jobqueue.ids import SeededChance
from jobqueue.loops import within
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Batch, Query
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.queries import answer
from jobqueue.storage.shape import check_shape
from jobqueue.testing.simulation.faults import Fates, Faults

__all__ = ["Actor", "Idle", "Observer", "Process", "Sleep", "Steps", "World"]

EPOCH_MS: Final = 1_900_000_000_000
"""What the server's clock shows at first."""
BUDGET_MS: Final = (40.0, 400.0)
"""After so long a caller gives up waiting for an answer."""
TICK_MS: Final = 0.001
SLOW_SAMPLE_MS: Final = 100.0
TRIES: Final = 5


@attrs.frozen
class Sleep:
    """A process waits for some milliseconds."""

    ms: float


@attrs.frozen
class Idle:
    """A process waits until a moment (virtual ms), or until `Process.wake`."""

    until: float


@attrs.frozen
class Sample:
    """A process asks for the server's time."""


Steps: TypeAlias = Generator[Any, Any, Any]


class Observer(Protocol):
    """Whoever looks at every step."""

    def applied(self, process: Process, batch: Batch, outcome: Outcome) -> None:
        """A batch arrived at the storage."""
        ...

    def told(self, who: str, what: str, ids: Sequence[bytes] = ()) -> None:
        """Something happened that a reader of the history wants to know."""
        ...


class World:
    """Time, server and network.

    Args:
        seed: Where all chance comes from.
        faults: What goes wrong while `stormy`.
        only: Names of the faults that may happen; None for all.
        lease: The unit of long delays, in ms.
        latency: Shortest and longest way to the server or back, in ms.
    """

    def __init__(
        self, seed: int, faults: Faults, only: frozenset[str] | None, lease: float, latency: tuple[float, float]
    ) -> None:
        self.seed = seed
        self.now = 0.0
        self.jump = 0
        self.jumped = -1e18
        self.back = 0
        self._most = 0
        self.steps = 0
        self.contents = Interpreter()
        self.rng = random.Random(f"{seed}:world")  # noqa: S311 - repeatable on purpose
        self.fates = Fates(seed, faults, only)
        self.stormy = not self.fates.quiet
        self.lease = lease
        self.observer: Observer | None = None
        self._wake_lost = faults.wake_lost
        self._latency = latency
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        self._number = 0
        self._tokens: dict[str, None] = {}
        self._listeners: dict[Any, tuple[Actor, Sequence[str], Callable[[str], None]]] = {}

    # ------------------------------------------------------------------------------------------------- time and events

    def at(self, time: float, do: Callable[..., None], what: Any = None) -> None:
        """Let something happen at a virtual time (ms)."""
        self._number += 1
        heapq.heappush(self._events, (time, self._number, do, what))

    def run(self, until: float, over: Callable[[], bool] | None = None) -> None:
        """Let events happen until a virtual time, until none is left, or until ``over`` says so after one."""
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            self.now, _, do, what = pop(events)
            do(what)
            if over is not None and over():
                return
        self.now = max(self.now, until) if not events else self.now

    def server_now(self) -> int:
        """What the server's clock shows, in ms."""
        return int(EPOCH_MS + self.now + self.jump)

    def latest(self) -> int:
        """What the clock shows to those at most who have not heard of its last jumps back, in ms."""
        return int(EPOCH_MS + self.now + self._most)

    def jump_clock(self) -> None:
        """Set the server's clock forward or back."""
        by = int(self.rng.choice((0.5, 2, 8, -0.5, -2, -6)) * self.lease * (0.8 + 0.4 * self.rng.random()))
        self.jump += by
        self._most = max(self._most, self.jump)
        self.back += max(0, -by)
        self.jumped = self.now
        self.tell("server", f"clock set {by:+d} ms")

    def latency(self) -> float:
        """How long one way takes, in ms."""
        low, high = self._latency
        return low + (high - low) * self.rng.random()

    def tell(self, who: str, what: str, ids: Sequence[bytes] = ()) -> None:
        """Note something for the reader of the history."""
        if self.observer is not None:
            self.observer.told(who, what, ids)

    # ------------------------------------------------------------------------------------------------------ the storage

    def apply(self, process: Process, batches: Sequence[Batch]) -> None:
        """A process applies batches; it is resumed with their outcomes."""
        if not self.stormy:
            there, back = self.latency(), self.latency()
            call = _Call(process, len(batches), 1)
            self.at(self.now + there, self._arrive, (process, batches, range(len(batches)), call, back))
            return
        scopes: dict[str, list[int]] = {}
        for index, batch in enumerate(batches):
            scopes.setdefault(batch.scope, []).append(index)
        call = _Call(process, len(batches), len(scopes))
        for indices in scopes.values():
            if process.actor.alive:
                self._send(process, [batches[index] for index in indices], indices, call)

    def _send(self, process: Process, batches: Sequence[Batch], indices: Sequence[int], call: _Call) -> None:
        fate = self.fates.decide(process.name)
        there, back = self.latency(), self.latency()
        arrive = (process, batches, indices, call, back)
        match fate:
            case None:
                self.at(self.now + there, self._arrive, arrive)
                return
            case "refused":
                self._settle(call, indices, [NotApplied("refused by plan") for _ in indices], self.now + there)
            case "request lost" | "reply lost" | "late":
                self._settle(call, indices, [OutcomeUnknown("no answer, by plan") for _ in indices], self._give_up())
                if fate != "request lost":
                    delay = there if fate == "reply lost" else self.lease * (0.1 + 2.4 * self.rng.random() ** 2)
                    self.at(self.now + delay, self._arrive, (process, batches, indices, None, back))
            case "sent twice":
                self.at(self.now + there, self._arrive, (process, batches, indices, None, back))
                self.at(self.now + there + 4 * self.latency(), self._arrive, arrive)
            case "stalled":
                self.at(self.now + self.lease * (0.2 + 1.6 * self.rng.random()), self._arrive, arrive)
            case "crash before":
                process.actor.crash()
            case "crash after":
                self.at(self.now + there, self._arrive, arrive)
                self.at(self.now + there + back / 2, lambda _: process.actor.crash())
            case _:
                if fate == "paused":
                    process.actor.pause(self.lease * self.rng.choice((0.3, 1.2, 1.7, 2.5)))
                else:
                    self.jump_clock()
                self.at(self.now + there, self._arrive, arrive)
        self.tell(process.name, f"! {fate}: {_summary(batches)}")

    def _give_up(self) -> float:
        return self.now + BUDGET_MS[0] + (BUDGET_MS[1] - BUDGET_MS[0]) * self.rng.random()

    def _arrive(self, what: tuple[Process, Sequence[Batch], Sequence[int], _Call | None, float]) -> None:
        process, batches, indices, call, back = what
        outcomes: list[Outcome] = []
        rung: dict[str, None] = {}
        for batch in batches:
            check_shape(batch)
            outcome, rings = self.contents.apply(batch)
            self.steps += 1
            outcomes.append(outcome)
            if rings:
                rung[batch.scope] = None
            if self.observer is not None:
                self.observer.applied(process, batch, outcome)
        for scope in rung:
            self._ring(scope)
        if call is not None:
            self._settle(call, indices, outcomes, self.now + back)

    def _settle(self, call: _Call, indices: Sequence[int], outcomes: Sequence[Outcome], time: float) -> None:
        for index, outcome in zip(indices, outcomes, strict=True):
            call.outcomes[index] = outcome
        call.left -= 1
        call.time = max(call.time, time)
        if call.left == 0:
            self.at(call.time, call.process.resume, call.outcomes)

    def ask(self, process: Process, queries: Sequence[Query] | None) -> None:
        """A process asks queries, or (None) the server's time; it is resumed with the answers, or with `NotApplied`."""
        fate = self.fates.decide(process.name) if self.stormy else None
        there = self.latency()
        match fate:
            case "crash before" | "crash after":
                process.actor.crash()
            case "refused" | "request lost" | "reply lost" | "late":
                self.at(self._give_up(), process.resume, NotApplied("no answer, by plan"))
            case _:
                if fate == "stalled":
                    there = self.lease * (0.2 + 1.6 * self.rng.random())
                elif fate == "paused":
                    process.actor.pause(self.lease * self.rng.choice((0.3, 1.2, 1.7, 2.5)))
                elif fate == "clock jump":
                    self.jump_clock()
                self.at(self.now + there, self._answer, (process, queries, self.latency()))
        if fate is not None:
            self.tell(process.name, f"! {fate}: {'time' if queries is None else 'read'}")

    def _answer(self, what: tuple[Process, Sequence[Query] | None, float]) -> None:
        process, queries, back = what
        answers = self.server_now() if queries is None else [answer(self.contents, query) for query in queries]
        self.at(self.now + back, process.resume, answers)

    # -------------------------------------------------------------------------------------------------------- wake-ups

    def listen(self, key: Any, actor: Actor, scopes: Sequence[str], rung: Callable[[str], None]) -> None:
        """Call ``rung`` once with the scope when one of them is rung; at once if a token was left."""
        for scope in scopes:
            if scope in self._tokens:
                del self._tokens[scope]
                rung(scope)
                return
        self._listeners[key] = (actor, scopes, rung)

    def hush(self, key: Any) -> bool:
        """Listen no more; answers whether it did."""
        return self._listeners.pop(key, None) is not None

    def _ring(self, scope: str) -> None:
        if self.stormy and self._wake_lost and self.rng.random() < self._wake_lost:
            self.fates.counts["wake lost"] += 1
            return
        for key, (actor, scopes, rung) in self._listeners.items():
            if scope in scopes:
                del self._listeners[key]
                if actor.alive:  # else it went to a connection that nobody reads any more
                    rung(scope)
                return
        self._tokens[scope] = None


class _Call:
    """A call under way."""

    __slots__ = ("left", "outcomes", "process", "time")

    def __init__(self, process: Process, batches: int, scopes: int) -> None:
        self.process = process
        self.outcomes: list[Any] = [None] * batches
        self.left = scopes
        self.time = 0.0


def _summary(batches: Sequence[Batch]) -> str:
    from jobqueue.testing.simulation.diagram import describe

    return "; ".join(describe(batch) for batch in batches)


# --------------------------------------------------------------------------------------------------------------- actors


class Clock:
    """An actor's clocks, by the rules of `jobqueue.clock.ServerClock`: its own monotonic time plus a sampled offset."""

    def __init__(self, world: World, ahead: float, skew: float) -> None:
        self.offset: float | None = None
        self.sampled = 0.0
        self._world = world
        self._ahead = ahead
        self._skew = skew

    def now(self) -> int:
        """Milliseconds since 1970; before the first sample the machine's own idea of it."""
        if self.offset is None:
            return int(EPOCH_MS + self._world.now + self._skew)
        return int(self._world.now + self._ahead + self.offset)

    def monotonic(self) -> float:
        """Milliseconds since some moment in the past."""
        return self._world.now + self._ahead

    def refresh(self, max_age_ms: float) -> None:
        """Never called: `Process.refresh` takes the samples, because they take time."""
        raise AssertionError(f"a simulated clock was to be refreshed at once ({max_age_ms})")

    def virtual(self, local: float) -> float:
        """The virtual time of a local one."""
        return local - self._ahead


class Actor:
    """Somebody who uses the storage: a column of the diagram. After a crash another one takes its column."""

    def __init__(self, world: World, column: str, seed: int | str) -> None:
        self.world = world
        self.column = column
        self.alive = True
        self.paused_until = 0.0
        self.chance = SeededChance(seed)
        rng = world.rng
        self.clock = Clock(world, rng.uniform(0, 1e7), rng.choice((0, 0, 3_600_000, -86_400_000)))

    def moment(self) -> Moment:
        """Read both clocks."""
        return Moment(self.clock.now(), self.clock.monotonic())

    def crash(self) -> None:
        """Die on the spot."""
        if self.alive:
            self.alive = False
            self.world.tell(self.column, "CRASHES")
            self.died()

    def died(self) -> None:
        """What the world does about its death."""

    def pause(self, ms: float) -> None:
        """Stand still for some time: its monotonic clock goes on."""
        self.paused_until = max(self.paused_until, self.world.now + ms)
        self.world.tell(self.column, f"stands still for {ms:.0f} ms")


class Process:
    """Something an actor does, one step after the other: a thread, in production.

    Args:
        actor: Whose.
        name: Its name among the actor's processes.
    """

    __slots__ = ("_generator", "_idling", "_number", "_world", "actor", "name")

    def __init__(self, actor: Actor, name: str) -> None:
        self.actor = actor
        self.name = f"{actor.column}.{name}"
        self._world = actor.world
        self._number = 0
        self._idling = False
        self._generator: Steps | None = None

    def start(self, generator: Steps, after: float = 0.0) -> Process:
        """Begin, after some ms."""
        self._generator = generator
        self._world.at(self._world.now + after, self.resume)
        return self

    def resume(self, value: Any = None) -> None:
        """Go on with the answer to what was waited for."""
        actor, world = self.actor, self._world
        if not actor.alive:
            return
        if actor.paused_until > world.now:
            world.at(actor.paused_until, self.resume, value)
            return
        assert self._generator is not None
        try:
            request = self._generator.send(value)
        except StopIteration:
            return
        match request:
            case Apply(batches):
                world.apply(self, batches)
            case Read(queries):
                world.ask(self, queries)
            case Idle(until):
                self._number += 1
                self._idling = True
                # Never no time at all: a clock that reads a rounding error before ``until`` would stand still there.
                world.at(max(until, world.now + TICK_MS), self._timeout, self._number)
            case Sleep(ms):
                world.at(world.now + ms, self.resume)
            case Pause(seconds):
                world.at(world.now + 1000 * seconds, self.resume)
            case Sample():
                world.ask(self, None)
            case _:
                raise AssertionError(f"{self.name} yielded {request!r}")

    def _timeout(self, number: int) -> None:
        if self._idling and self._number == number:
            self._idling = False
            self.resume()

    def wake(self, after: float) -> None:
        """End an `Idle` that is under way, after some ms."""
        if self._idling:
            self._idling = False
            self._world.at(self._world.now + after, self.resume)

    def drive(self, flow: Flow[Any]) -> Steps:
        """Go through a flow, as `jobqueue.loops.drive` does."""
        return within(flow, self._ask)

    def _ask(self, request: Request) -> Steps:
        if isinstance(request, Refresh):
            return (yield from self.refresh(request.max_age_ms))
        answer = yield request
        if isinstance(answer, StorageError):
            raise answer
        return answer

    def refresh(self, max_age_ms: float) -> Steps:
        """Sample the server's time, as `ServerClock.refresh` does. Raises `NotApplied`."""
        clock = self.actor.clock
        if clock.offset is not None and clock.monotonic() - clock.sampled <= max_age_ms:
            return
        best: tuple[float, float] | None = None
        for _ in range(TRIES):
            sent = clock.monotonic()
            server = yield Sample()
            if isinstance(server, NotApplied):
                raise server
            received = clock.monotonic()
            took = received - sent
            if best is None or took < best[0]:
                best = (took, server - received)
            if took <= SLOW_SAMPLE_MS:
                break
        assert best is not None
        if best[0] <= SLOW_SAMPLE_MS or clock.offset is None:
            clock.offset = best[1]
        clock.sampled = clock.monotonic()
