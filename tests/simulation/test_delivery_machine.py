"""The delivery machine, in memory and on real servers, and wrong variants of the library that it has to find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from jobqueue import JobQueue, Snooze, transitions
from jobqueue.runner import rescue
from jobqueue.runner import task as tasks
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Batch, Move
from jobqueue.storage.protocol import Storage
from jobqueue.storage.redis import open_redis
from jobqueue.testing.machine import DeliveryMachine
from tests.servers import Server

GATE = 2_000
"""Machines in the gate; ``--hypothesis-profile=long`` runs twenty times as many."""


def run_machines(machine: type[DeliveryMachine], machines: int, *, shrink: bool = True) -> Counter[str]:
    """Run so many machines; answers how often what happened in all of them. To shrink takes longer than to find."""
    happened: Counter[str] = Counter()

    class Counting(machine):  # type: ignore[misc, valid-type]
        def teardown(self) -> None:
            super().teardown()
            happened.update(self.counted)

    long = settings.get_current_profile_name() == "long"
    run_state_machine_as_test(
        Counting,
        settings=settings(
            max_examples=machines * (20 if long else 1), stateful_step_count=30, deadline=None, database=None,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        ),
    )  # fmt: skip
    return happened


@pytest.mark.timeout(3_600)
def test_in_memory() -> None:
    happened = run_machines(DeliveryMachine, GATE)

    vacuous = [
        what
        for what in (
            "runs again", "rescued", "ok", "refused", "request lost", "reply lost", "sent twice", "stalled",
            "delivered late",
        )
        if not happened[what]
    ]  # fmt: skip
    assert vacuous == [], f"never happened, so nothing was proved about it: {happened}"


@pytest.mark.timeout(3_600)
def test_on_a_real_server(server: Server) -> None:
    class OnServer(DeliveryMachine):
        def open_storage(self) -> Storage:
            server.flush()
            return open_redis(server.url).storage()

    happened = run_machines(OnServer, GATE // 40)

    assert happened["runs"]


# --------------------------------------------------------------------------------------------------------- planted bugs


def changed(make: Callable[..., Batch], **changes: Any) -> Callable[..., Batch]:
    """The same transition with other attributes of its move."""

    def wrong(*args: Any, **kwargs: Any) -> Batch:
        batch = make(*args, **kwargs)
        ops = tuple(msgspec.structs.replace(op, **changes) if isinstance(op, Move) else op for op in batch.ops)
        return msgspec.structs.replace(batch, ops=ops)

    return wrong


def torn(self: Interpreter, op: Move, real: Any = Interpreter._move) -> Any:
    """A promotion that forgets the last of what it took."""
    answer = real(self, op)
    if op.source.name == "waiting" and op.target is not None and answer[0].ids:
        self.lists[f"{{{op.source.scope}}}:ready"].pop()
    return answer


def forgetful(judge: Callable[..., Any]) -> Callable[..., Any]:
    """A retry that does not count."""

    def wrong(stored: Any, *args: Any) -> Any:
        verdict = judge(stored, *args)
        return attrs.evolve(verdict, changes={**verdict.changes, "attempt": stored.attempt})

    return wrong


PLANTS: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "a retry that is not counted": (tasks, "after_run", forgetful),
    "a rescue that keeps the claim": (transitions, "rescue", lambda f: changed(f, stamp=None)),
    "a job that is nowhere after its retry": (Interpreter, "_move", lambda _: torn),
    "leases that nobody looks after": (rescue, "_all_pages", lambda _: nobody_looks),
}  # fmt: skip


def nobody_looks(*_: Any) -> Any:
    return []
    yield


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, make = PLANTS[bug]
    monkeypatch.setattr(where, name, make(getattr(where, name)))

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - an assertion, or several in a group
        run_machines(DeliveryMachine, 1_000, shrink=False)

    assert isinstance(caught.value, (AssertionError, ExceptionGroup)), repr(caught.value)


# ------------------------------------------------------------------------------------------------------ users' mistakes

theirs = JobQueue(namespace="theirs")


@theirs.job(name="poll")
def poll(number: int) -> None:
    raise Snooze(600)


@theirs.job(name="broken", retry=-1)
def broken(number: int) -> None:
    raise ValueError(number)


@theirs.job(name="again")
def again(number: int) -> None:
    again.opts(delay=60).enqueue(number)


class Theirs(DeliveryMachine):
    kind: Any = poll

    def open_queue(self) -> JobQueue:
        return theirs

    def calls(self) -> Any:
        return st.just(self.kind.call(7))


@pytest.mark.parametrize("kind", [poll, broken, again])
def test_a_job_that_never_ends_is_named(kind: Any) -> None:
    machine = type("Mine", (Theirs,), {"kind": kind})

    said = rf'do not end:\n  {kind.kind.name}\({{"number":7}}\) is waiting after \d+ runs'
    with pytest.raises(AssertionError, match=said):
        run_machines(machine, 1, shrink=False)


def test_a_machine_without_its_queue_is_a_mistake() -> None:
    class Forgetful(DeliveryMachine):
        def open_queue(self) -> Any:
            theirs.load()

    with pytest.raises(TypeError, match=r"open_queue answers None, and not a JobQueue"):
        run_machines(Forgetful, 1, shrink=False)
