"""Actors as generators that can be put back to any of their states.

A program yields what it waits for and is sent the answer. A state of it is its name, its arguments and what it was
answered so far: replaying these answers brings the generator back, so states can be compared and stored, and the flows of
production (which are generators too) run inside of a program unchanged. A program that answers `Next` goes on under
other arguments with its answers forgotten, so that states reached by different ways meet.

Every step is done once and remembered: what a program does depends on its state, the answer, the time and the memory of
its process, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from jobqueue.clock import Moment
from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.flows import Apply, Flow, Read
from jobqueue.storage.ops import Answer, Batch, Move, Put, Query

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
        steps: What each batch is meant to do, in the words of `lifecycle`.
        batches: The batches.
        meant: Id → claim under which the sender holds, or believes to hold, what it moves out of working or extends.
    """

    sender: int
    steps: tuple[str, ...]
    batches: tuple[Batch, ...]
    meant: tuple[tuple[bytes, bytes], ...] = ()


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
    """What a program sees of the world.

    Attributes:
        process: The number of its process.
        at: The clocks.
        memory: What the programs of its process share; replaced, never changed.
        told: What it tells those who watch.
    """

    __slots__ = ("at", "memory", "process", "told")

    def __init__(self, process: int, at: Moment, memory: Any) -> None:
        self.process = process
        self.at = at
        self.memory = memory
        self.told: list[Told] = []

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
    answer: Any = None
    while True:
        try:
            request = flow.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = None
        if isinstance(request, Apply):
            scopes: dict[str, list[Batch]] = {}
            for batch in request.batches:
                scopes.setdefault(batch.scope, []).append(batch)
            parts = [
                Part(env.process, tuple(step_of(batch) for batch in batches), tuple(batches))
                for batches in scopes.values()
            ]
            told = yield Ask(tuple(parts))
            outcomes = {
                id(batch): outcome
                for part, answers in zip(parts, told, strict=True)
                for batch, outcome in zip(part.batches, spread(part, answers), strict=True)
            }
            answer = [outcomes[id(batch)] for batch in request.batches]
        elif isinstance(request, Read):
            answers = [known(query) for query in request.queries]
            answer = answers if None not in answers else list((yield Look(request.queries)))


def spread(part: Part, answers: Any) -> list[Any]:
    """One outcome per batch, as a storage answers them."""
    if answers == UNKNOWN:
        return [OutcomeUnknown("the reply was lost") for _ in part.batches]
    if answers == NOT_APPLIED:
        return [NotApplied("the storage refused") for _ in part.batches]
    return list(answers)


_BETWEEN: Final = {
    ("waiting", "ready"): "hurry", ("dead", "ready"): "requeue", ("working", "ready"): "rescue",
    ("working", "dead"): "condemn", ("waiting", None): "delete", ("ready", None): "delete", ("dead", None): "delete",
}  # fmt: skip


def step_of(batch: Batch) -> str:
    """What a batch of a flow is meant to do."""
    [op, *_] = batch.ops
    if isinstance(op, Move):
        return _BETWEEN[op.source.name, op.target.name if op.target else None]
    return "enqueue" if isinstance(op, Put) else "lock"


# ----------------------------------------------------------------------------------------------------------- the table


@attrs.frozen
class Node:
    """A state of a program.

    Attributes:
        process: The number of its process.
        program: The program.
        args: Its arguments.
        trace: What it was answered, with the clocks and the memory at that time.
        request: What it waits for; None if it has ended.
    """

    process: int
    program: Program
    args: tuple[Hashable, ...]
    trace: tuple[tuple[Any, Moment, Any], ...]
    request: Request | None = attrs.field(eq=False)


class Programs:
    """Every state of a program that was met, by number."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[tuple[Any, ...], int] = {}

    def start(self, process: int, program: Program, args: tuple[Hashable, ...], at: Moment, memory: Any) -> int:
        """A new actor. A program that waits first of all must not look at the clocks or the memory before it does."""
        number, _, _ = self._run(process, program, args, ((None, at, memory),))
        return number

    def resume(self, number: int, answer: Any, at: Moment, memory: Any) -> tuple[int, Any, tuple[Told, ...]]:
        """Answer an actor: its new state, the memory of its process, and what it told."""
        node = self.nodes[number]
        return self._run(node.process, node.program, node.args, (*node.trace, (answer, at, memory)))

    def _run(
        self, process: int, program: Program, args: tuple[Hashable, ...], trace: tuple[tuple[Any, Moment, Any], ...]
    ) -> tuple[int, Any, tuple[Told, ...]]:
        told: tuple[Told, ...] = ()
        while True:
            env = Env(process, trace[0][1], trace[0][2])
            steps = program(env, *args)
            request: Request | None = None
            then: Next | None = None
            first = True
            idle = False
            try:
                for answer, at, memory in trace:
                    env.at, env.memory, env.told = at, memory, []
                    request = steps.send(answer)
                    if first:
                        first, idle = False, isinstance(request, Idle)
            except StopIteration as end:
                then, request = end.value, None
            told += tuple(env.told)
            if request is not None or then is None:
                # A program that first of all waits has looked at nothing yet: since when it waits does not matter.
                key = (process, program, args, trace[1:] if idle else trace) if request is not None else (process,)
                return self._number(key, Node(process, program, args, trace, request)), env.memory, told
            program, args, trace = then.program, then.args, ((None, env.at, env.memory),)

    def _number(self, key: tuple[Any, ...], node: Node) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.nodes)
            self.nodes.append(node)
        return number
