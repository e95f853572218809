"""What each simulated job does in each of its runs, drawn from the seed."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from jobqueue.context import Context
from jobqueue.job import Declared, Kind, function_kind
from jobqueue.retry import Discard, Retry, RetryPolicy, Snooze

__all__ = ["BACKOFF_MS", "KINDS", "Act", "Script", "What", "bound", "draw_scripts"]

Heeds: TypeAlias = Literal["ignores", "returns", "raises", "retries", "snoozes", "discards", "completes"]
"""What a run does once it sees that it should stop. A function that ignores it never looks, a coroutine lets it through;
one that completes says so and then ends as if nothing had been.
"""
HEEDS: Final[tuple[Heeds, ...]] = get_args(Heeds)
What: TypeAlias = Literal["succeed", "raise", "snooze", "discard", "retry", "die"]
"""``die`` takes the runner down."""
Saw: TypeAlias = Callable[[Context], None]
"""Told by a run that it has seen that it should stop."""


@attrs.frozen
class Act:
    """What one run does, and for how long (ms)."""

    what: What
    ms: float
    after: float = 0.0
    heeds: Heeds = "ignores"

    def perform(self, context: Context, saw: Saw) -> None:
        """What a function does at its end."""
        if self.heeds != "ignores" and (context.cancelled or context.lease_lost):
            self._stop(context, saw)
        else:
            self._end()

    async def aperform(self, context: Context, saw: Saw) -> None:
        """What a coroutine does: it waits, and may be cancelled."""
        try:
            await _Wait()
        except asyncio.CancelledError:
            if self.heeds == "ignores":
                saw(context)
                raise
            self._stop(context, saw)
        else:
            self.perform(context, saw)

    def _stop(self, context: Context, saw: Saw) -> None:
        saw(context)
        match self.heeds:
            case "raises":
                raise RuntimeError("it was broken off")
            case "retries":
                raise Retry(self.after / 1000)
            case "snoozes":
                raise Snooze(self.after / 1000)
            case "discards":
                raise Discard("it was broken off")
            case "completes":
                context.complete()
                self._end()
            case _:
                pass

    def _end(self) -> None:
        match self.what:
            case "raise":
                raise RuntimeError("it raised, by its script")
            case "snooze":
                raise Snooze(self.after / 1000)
            case "retry":
                raise Retry(self.after / 1000)
            case "discard":
                raise Discard("by its script")
            case _:
                pass


class _Wait:
    """Something to wait for; whoever drives the coroutine says when it is over."""

    def __await__(self) -> Generator[None, None, None]:
        yield


@attrs.frozen
class Script:
    """One job.

    Attributes:
        number: Which.
        kind: The name of its kind.
        queue: Its queue.
        retry: How many retries it may have.
        delay: Milliseconds from its enqueue, if it is delayed.
        acts: What its runs do; the last one is repeated.
        foreign: Its bytes are no record (``record``) or its payload does not fit (``payload``).
    """

    number: int
    kind: str
    queue: str
    retry: int
    delay: int | None
    acts: tuple[Act, ...]
    foreign: Literal["", "record", "payload"] = ""

    def act(self, run: int) -> Act:
        """What its run does; the first is 0."""
        return self.acts[min(run, len(self.acts) - 1)]

    def payload(self) -> bytes:
        """Its arguments."""
        return b'{"job":"%d"}' % self.number if self.foreign == "payload" else b'{"job":%d}' % self.number


def _work(job: int) -> None:
    """A function: what it does is bound by the simulated runner."""


async def _wait(job: int) -> None:
    """A coroutine function."""


BACKOFF_MS: Final = (300, 600, 1200, 1200, 1200)
"""The pauses of the kinds that are not to take hours."""


def _quick(n: int) -> float:
    return BACKOFF_MS[min(n, len(BACKOFF_MS)) - 1] / 1000


def _kind(target: Any, name: str, retry: RetryPolicy) -> Kind[Any]:
    return function_kind(target, name, Declared(name, "low", retry), ("simulation", name), None)


_QUICK: Final = RetryPolicy(limit=5, backoff=_quick)
KINDS: Final = {
    kind.name: kind
    for kind in (
        _kind(_work, "work", _QUICK),
        _kind(_wait, "wait", _QUICK),
        _kind(_work, "steady", RetryPolicy()),  # the table of minutes
        _kind(_work, "rare", _QUICK),  # one runner alone knows it
    )
}


def bound(kind: Kind[Any], act: Callable[[], Act], saw: Saw) -> Kind[Any]:
    """The kind with its payload checked as ever, and what ``act`` answers run in place of its function."""
    check = kind.bind

    def bind(payload: bytes, context: Context) -> Any:
        check(payload, context)
        return functools.partial(act().aperform if kind.is_coroutine else act().perform, context, saw)

    return attrs.evolve(kind, bind=bind)


def draw_scripts(
    seed: int, jobs: int, queues: Sequence[str], lease: float, *, plain: bool, heeding: bool
) -> list[Script]:
    """The scripts of all jobs; those of the first ones do not depend on how many there are.

    Args:
        seed: Where chance comes from.
        jobs: How many.
        queues: Queues they go to.
        lease: The unit of long durations, in ms.
        plain: All of them succeed at once, in order.
        heeding: They may look whether they should stop, and answer that in any way.
    """
    if plain:
        return [Script(number, "work", queues[number % len(queues)], 5, None, (Act("succeed", 0.01),))
                for number in range(jobs)]  # fmt: skip
    rng = random.Random(f"{seed}:scripts")  # noqa: S311 - repeatable on purpose
    scripts = [_draw(rng, number, queues, lease) for number in range(jobs)]
    if not heeding:
        return scripts
    heeds = random.Random(f"{seed}:heeds")  # noqa: S311 - as above
    return [_heeding(heeds, script) for script in scripts]


def _heeding(rng: random.Random, script: Script) -> Script:
    """The script, with runs that see that they should stop."""
    acts = tuple(attrs.evolve(act, heeds=rng.choice(HEEDS)) for act in script.acts)
    return attrs.evolve(script, acts=acts)


def _draw(rng: random.Random, number: int, queues: Sequence[str], lease: float) -> Script:
    kind = rng.choices(("work", "wait", "steady", "rare"), (72, 22, 3, 3))[0]
    queue = rng.choice(queues)
    delay = rng.choice((0, 40, 500, 3000)) if rng.random() < 0.25 else None
    foreign: Literal["", "record", "payload"] = rng.choices(("", "record", "payload"), (94, 3, 3))[0]
    character = rng.choices(("good", "fails", "hopeless", "odd", "poison", "killer"), (55, 20, 6, 10, 4, 5))[0]
    if foreign:
        character = "good"
    good = Act("succeed", _duration(rng, lease))
    retry = 5
    if character == "good":
        acts: tuple[Act, ...] = (good,)
    elif character == "fails":
        fails = 1 if kind == "steady" else rng.randint(1, 3)
        acts = (*(Act("raise", _duration(rng, lease) / 4) for _ in range(fails)), good)
    elif character == "hopeless":
        retry = rng.choice((0, 1, 2)) if kind != "steady" else 1
        acts = (Act("raise", _duration(rng, lease) / 4),)
    elif character == "odd":
        what: What = rng.choice(("snooze", "retry", "discard"))
        acts = (Act(what, _duration(rng, lease) / 4, rng.choice((0, 50, 700))), good)
    elif character == "poison":
        acts = (Act("die", 1 + 20 * rng.random()),)
    else:
        acts = (*(Act("die", 1 + 20 * rng.random()) for _ in range(rng.randint(1, 2))), good)
    return Script(number, kind, queue, retry, delay, acts, foreign)


def _duration(rng: random.Random, lease: float) -> float:
    """Mostly short, sometimes longer than a lease (ms)."""
    return float(0.02 * (60 * lease) ** rng.random() if rng.random() < 0.95 else lease * (0.8 + rng.random()))
