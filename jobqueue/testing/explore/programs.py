"""Actors as generators that can be put back to any of their states.

A program yields what it waits for and is sent the answer. A state of it is its name, its arguments and what it was
answered so far: replaying these answers brings the generator back, so states can be compared and stored, and the flows of
production (which are generators too) run inside of a program unchanged. States reached by different ways are to meet: a
program that answers `Next` goes on under other arguments with its answers forgotten, and clocks and a memory that it has not
looked at are no part of its state.

Every step is done once and remembered: what a program does depends on its state, the answer, the time and the memory of
its process, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from jobqueue import flows
from jobqueue.clock import Moment
from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.flows import Apply, Flow, Read
from jobqueue.loops import within
from jobqueue.storage.ops import Answer, Batch, Query

__all__ = [
    "NOT_APPLIED", "UNKNOWN", "Ask", "Env", "Idle", "Look", "Next", "Node", "Part", "Program", "Programs", "Run", "Told",
    "carry_out",
]  # fmt: skip

T = TypeVar("T")

UNKNOWN: Final = "no answer"
NOT_APPLIED: Final = "refused"


@attrs.frozen
class Part:
    """Batches of one scope that travel together.

    Attributes:
        sender: The number of the process that sends them.
        batches: The batches.
        meant: Id → claim under which the sender holds, or believes to hold, what it moves out of working or extends.
        until: The end of the leases that it asks for, by the server's clock; 0 if it asks for none.
    """

    sender: int
    batches: tuple[Batch, ...]
    meant: tuple[tuple[bytes, bytes], ...] = ()
    until: int = 0

    @property
    def steps(self) -> tuple[str, ...]:
        """What each batch does."""
        return tuple(batch.step for batch in self.batches)


@attrs.frozen
class Ask:
    """Apply these; answered with a tuple of outcomes for each part, `UNKNOWN` or `NOT_APPLIED` in place of a tuple."""

    parts: tuple[Part, ...]


@attrs.frozen
class Look:
    """Ask these queries; answered at once, with a tuple."""

    queries: tuple[Query, ...]


@attrs.frozen
class Idle:
    """Wait until something is so.

    Attributes:
        until: Which condition of the scenario.
        args: Its arguments.
    """

    until: str
    args: tuple[Hashable, ...] = ()


@attrs.frozen
class Run:
    """Something that takes any time, such as a job.

    Attributes:
        what: What, for whoever reads a trace.
    """

    what: str


@attrs.frozen
class Told:
    """Something that only those who watch from outside know.

    Attributes:
        what: Its name.
        args: What else.
    """

    what: str
    args: tuple[Any, ...] = ()


@attrs.frozen
class Next:
    """Go on as this program, with these arguments and nothing remembered."""

    program: Program
    args: tuple[Hashable, ...] = ()


class Env:
    """What a program sees of the world. What it has not looked at makes no difference to it, so that is noted.

    Attributes:
        process: The number of its process.
        kept: The memory of its process as it leaves it.
        told: What it tells those who watch.
    """

    __slots__ = ("_at", "_given", "_read", "kept", "process", "told")

    def __init__(self, process: int) -> None:
        self.process = process
        self.told: list[Told] = []
        self.kept: Any = None
        self._at = Moment(0, 0.0)
        self._given: Any = None
        self._read: set[str] = set()

    def step(self, at: Moment, memory: Any) -> None:
        """The world as it is before the next step."""
        self._at, self._given, self.kept, self._read, self.told = at, memory, memory, set(), []

    def read(self) -> tuple[Any, ...]:
        """What the step has looked at."""
        return (
            self._at.now if "now" in self._read else None,
            self._at.local if "local" in self._read else None,
            self._given if "memory" in self._read else None,
        )

    @property
    def now(self) -> int:
        """Milliseconds since 1970 by the server's clock."""
        self._read.add("now")
        return self._at.now

    @property
    def local(self) -> float:
        """Milliseconds by the process's own clock."""
        self._read.add("local")
        return self._at.local

    @property
    def at(self) -> Moment:
        """Both clocks."""
        return Moment(self.now, self.local)

    @property
    def memory(self) -> Any:
        """What the programs of its process share; replaced, never changed."""
        self._read.add("memory")
        return self.kept

    @memory.setter
    def memory(self, value: Any) -> None:
        self.kept = value

    def tell(self, what: str, *args: Any) -> None:
        """Tell those who watch from outside."""
        self.told.append(Told(what, args))


Request: TypeAlias = Ask | Look | Idle | Run
Steps: TypeAlias = Generator[Request, Any, T]
Program: TypeAlias = Callable[..., Steps[Next | None]]


def carry_out(env: Env, flow: Flow[T], known: Callable[[Query], Answer] = lambda _query: None) -> Steps[T]:
    """Drive a flow of production inside of a program. Nothing waits before it repeats a request: that is time.

    Args:
        env: The program's world.
        flow: The flow.
        known: Answers a query that always has the same answer, else None.
    """

    def ask(request: flows.Request) -> Steps[Any]:
        if isinstance(request, Apply):
            scopes: dict[str, list[Batch]] = {}
            for batch in request.batches:
                scopes.setdefault(batch.scope, []).append(batch)
            parts = [Part(env.process, tuple(batches)) for batches in scopes.values()]
            told = yield Ask(tuple(parts))
            outcomes = {
                id(batch): outcome
                for part, answers in zip(parts, told, strict=True)
                for batch, outcome in zip(part.batches, spread(part, answers), strict=True)
            }
            return [outcomes[id(batch)] for batch in request.batches]
        if isinstance(request, Read):
            answers = [known(query) for query in request.queries]
            return answers if None not in answers else list((yield Look(request.queries)))
        return None

    return within(flow, ask)


def spread(part: Part, answers: Any) -> list[Any]:
    """One outcome per batch, as a storage answers them."""
    if answers == UNKNOWN:
        return [OutcomeUnknown("the reply was lost") for _ in part.batches]
    if answers == NOT_APPLIED:
        return [NotApplied("the storage refused") for _ in part.batches]
    return list(answers)


# ----------------------------------------------------------------------------------------------------------- the table


@attrs.frozen
class Node:
    """A state of a program.

    Attributes:
        process: The number of its process.
        program: The program; None if it has ended.
        args: Its arguments.
        trace: What it was answered, with the clocks and the memory at that time.
        request: What it waits for; None if it has ended.
    """

    process: int
    program: Program | None = None
    args: tuple[Hashable, ...] = ()
    trace: tuple[tuple[Any, Moment, Any], ...] = ()
    request: Request | None = None


class Programs:
    """Every state of a program that was met, by number."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def start(self, process: int, program: Program, args: tuple[Hashable, ...], at: Moment, memory: Any) -> int:
        """A new actor."""
        number, _, _ = self._run(process, program, args, ((None, at, memory),))
        return number

    def resume(self, number: int, answer: Any, at: Moment, memory: Any) -> tuple[int, Any, tuple[Told, ...]]:
        """Answer an actor: its new state, the memory of its process, and what it told."""
        node = self.nodes[number]
        assert node.program is not None
        return self._run(node.process, node.program, node.args, (*node.trace, (answer, at, memory)))

    def waiting(self, number: int, args: tuple[Hashable, ...]) -> int:
        """An actor that first of all waits, with other arguments."""
        node = self.nodes[number]
        assert node.program is not None
        number, _, _ = self._run(node.process, node.program, args, node.trace)
        return number

    def ended(self, process: int) -> int:
        """An actor that does nothing any more."""
        return self._number((process,), Node(process))

    def _run(
        self, process: int, program: Program, args: tuple[Hashable, ...], trace: tuple[tuple[Any, Moment, Any], ...]
    ) -> tuple[int, Any, tuple[Told, ...]]:
        told: tuple[Told, ...] = ()
        while True:
            env = Env(process)
            steps = program(env, *args)
            seen: list[Any] = []
            request: Request | None = None
            try:
                for answer, at, memory in trace:
                    env.step(at, memory)
                    request = steps.send(answer)
                    seen.append((answer, env.read()))
            except StopIteration as end:
                then: Next | None = end.value
                told += tuple(env.told)
                if then is None:
                    return self.ended(process), env.kept, told
                program, args, trace = then.program, then.args, ((None, trace[-1][1], env.kept),)
                continue
            told += tuple(env.told)
            node = Node(process, program, args, trace, request)
            return self._number((process, program, args, tuple(seen)), node), env.kept, told

    def _number(self, key: tuple[Any, ...], node: Node) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.nodes)
            self.nodes.append(node)
        return number
