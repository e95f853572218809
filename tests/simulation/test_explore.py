"""The scope that fits into a gate, and wrong variants of the library that the exploration has to find."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import flows, transitions
from jobqueue.runner import rescue
from jobqueue.runner import task as tasks
from jobqueue.runner.core import Core
from jobqueue.runner.leases import Leases
from jobqueue.runner.packing import Sent
from jobqueue.runner.shares import Shares
from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.ops import Batch, Due, Move
from jobqueue.testing.__main__ import main
from jobqueue.testing.explore import explore, runners

FAULTS = {"reply lost", "sent twice", "delayed", "refused", "crash"}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", ["claim", "stop", "retry", "shares", "lock"])
def test_every_interleaving_of_two_runners_three_jobs_and_a_fault_holds(scenario: str) -> None:
    [found] = explore([scenario])

    assert found.verdict == "holds", f"{found.broken}\n{found.trace}"
    assert found.totals.leaves > 100
    jumps = {"jump ahead", "jump back"} if scenario in ("retry", "lock") else set()
    assert found.totals.faults.keys() >= FAULTS | jumps, "a fault that never happened proves nothing"


@pytest.mark.parametrize("scenario", ["retry", "lock"])
def test_two_jumps_that_nearly_cancel_out_are_no_false_alarm(scenario: str) -> None:
    """The history sees the clock as it is now, but a request may stem from between the jumps."""
    [found] = explore([scenario], faults=2, most=8_000)

    assert found.verdict == "cut", f"{found.broken}\n{found.trace}"


def test_no_living_holder_is_robbed_when_the_clock_is_set() -> None:
    [found] = explore(["clock"])

    assert found.verdict == "holds", f"{found.broken}\n{found.trace}"
    assert found.totals.faults.keys() >= {"jump ahead", "jump back", "delayed", "reply lost"}


@pytest.mark.timeout(400)
def test_rescue_holds() -> None:
    """The largest: about 700,000 states, half a minute on a core of its own."""
    [found] = explore(["rescue"])

    assert found.verdict == "holds", f"{found.broken}\n{found.trace}"
    assert found.totals.faults.keys() >= FAULTS | {"pause", "jump ahead"}


def test_the_same_states_every_time() -> None:
    [one], [other] = explore(["claim"], jobs=2), explore(["claim"], jobs=2)

    assert attrs.evolve(one.totals, seconds=0) == attrs.evolve(other.totals, seconds=0)


def test_the_command_prints_a_table_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--scenario", "shares", "--jobs", "2"]) == 0
    assert "holds" in capsys.readouterr().out
    assert main(["explore", "--scenario", "shares", "--jobs", "2", "--json"]) == 0
    [one] = json.loads(capsys.readouterr().out)["scenarios"]
    assert one["verdict"] == "holds"
    assert one["totals"]["states"] > 100


def test_what_it_cannot_do_is_told() -> None:
    with pytest.raises(ValueError, match="no scenario 'tea'"):
        explore(["tea"])
    with pytest.raises(ValueError, match="0 runners"):
        explore(runners=0)


# --------------------------------------------------------------------------------------------------------- planted bugs


def changed(make: Callable[..., Batch], **changes: Any) -> Callable[..., Batch]:
    """The same transition with other attributes of its move."""

    def wrong(*args: Any, **kwargs: Any) -> Batch:
        batch = make(*args, **kwargs)
        ops = tuple(msgspec.structs.replace(op, **changes) if isinstance(op, Move) else op for op in batch.ops)
        return msgspec.structs.replace(batch, ops=ops)

    return wrong


def unguarded(make: Callable[..., Batch]) -> Callable[..., Batch]:
    """The same transition without its guards."""
    return lambda *args: msgspec.structs.replace(make(*args), guards=())


def early(make: Callable[..., Batch]) -> Callable[..., Batch]:
    """Promotes what is due within a millisecond."""

    def wrong(queue: Any, now: int) -> Batch:
        return changed(make, pick=Due(now + 1, 500))(queue, now)

    return wrong


def forgetful(judge: Callable[..., Any]) -> Callable[..., Any]:
    """A retry that does not count."""

    def wrong(stored: Any, *args: Any) -> Any:
        verdict = judge(stored, *args)
        return attrs.evolve(verdict, changes={**verdict.changes, "attempt": stored.attempt})

    return wrong


def no_registration(*_: Any) -> Any:
    return {}
    yield


def hasty(see: Callable[..., Any]) -> Callable[..., Any]:
    """A rescuer that takes what it sees expired, at once."""
    return lambda *args: attrs.evolve(see(*args), patience=0.0)


def same_fence(self: Interpreter, op: Move, moved: list[bytes], real: Any = Interpreter._stamp) -> int:
    fence: int = real(self, op, moved)
    if fence:
        self.hashes[f"{{{op.source.scope}}}:counters"][b"fence"] = b"7"
    return fence


def by_the_clock(extend: Callable[..., Any]) -> Callable[..., Any]:
    """Extensions that raise nothing after the server's clock was set back."""

    def wrong(self: Any, at: Any) -> Any:
        self._latest = 0
        return extend(self, at)

    return wrong


def forgets_claims(unanswered: Callable[..., None]) -> Callable[..., None]:
    """A core that asks under a new number what was not answered."""

    def wrong(self: Core, entry: Sent, unknown: bool) -> None:
        unanswered(self, entry, unknown)
        if entry.step == "claim":
            self._queues[entry.queue.queue].claim = None

    return wrong


def forgets_results(unanswered: Callable[..., None]) -> Callable[..., None]:
    """A core that sends no result a second time."""

    def wrong(self: Core, entry: Sent, unknown: bool) -> None:
        if entry.step != "finish":
            unanswered(self, entry, unknown)

    return wrong


THEFT = "was taken from a runner whose lease was certain until later (I6)"
PLANTS: dict[str, tuple[Any, str, Callable[[Any], Any], str, int, str]] = {
    "a claim without a number": (
        transitions, "claim", lambda f: changed(f, once=None), "claim", 2, "stays in working for ever",
    ),
    "a claim without an answer is forgotten": (
        Core, "_unanswered", forgets_claims, "claim", 2, "stays in working for ever",
    ),
    "a result without an answer is forgotten": (
        Core, "_unanswered", forgets_results, "claim", 2, "stays in working for ever",
    ),
    "a late result is stored": (
        transitions, "finish", lambda f: changed(f, expect=None), "rescue", 1, "sent twice it changes more than once",
    ),
    "a beat extends what others hold": (
        transitions, "extend", lambda f: changed(f, expect=None), "rescue", 1, "a claim that is not the sender's (I5, I17)",
    ),
    "a rescue that does not compare": (transitions, "rescue", lambda f: changed(f, expect=None), "rescue", 1, THEFT),
    "a rescue at first sight": (rescue, "_first_sight", hasty, "rescue", 1, THEFT),
    "extensions that go by the clock alone": (Leases, "extend", by_the_clock, "clock", 1, THEFT),
    "a rescue that leaves the claim": (
        transitions, "rescue", lambda f: changed(f, stamp=None), "rescue", 1,
        "after rescue: job b'job-a' is in ready, its claim",
    ),
    "a job is acknowledged before its queue is registered": (
        flows, "register", lambda _: no_registration, "register", 2,
        "was acknowledged in a queue that is not in the registry",
    ),
    "an early return at a stop counts": (runners, "told_to_stop", lambda _: lambda _task: None, "stop", 2, "broken off"),
    "a retry that is not counted": (
        tasks, "after_run", forgetful, "retry", 3, "changed the attempts of job job-a from 0 to 0 (I11)",
    ),
    "a job that starts early": (transitions, "promote", early, "retry", 3, "was promoted before it was due (I9)"),
    "a requeue that takes what it did not see": (
        transitions, "requeue", lambda f: changed(f, expect=None), "retry", 3,
        "requeue changed the attempts of job job-a from 2 to 1 (I11)",
    ),
    "a fence that stands still": (
        Interpreter, "_stamp", lambda _: same_fence, "claim", 2, "got the fence 1000000 after 1000000 (I4)",
    ),
    "the first queue takes it all": (
        Shares, "split", lambda _: lambda _self, units, queues: {min(queues): units}, "shares", 7,
        "shares of weights (2, 1) differ by 4 of 3 parts (I13)",
    ),
    "a lock that is taken unasked": (transitions, "take_lock", unguarded, "lock", 2, "who still holds it (I15)"),
    "a lock that is extended after its end": (transitions, "extend_lock", unguarded, "lock", 3, "who still holds it (I15)"),
}  # fmt: skip
"""A bug, and what the exploration has to say of it: another reason would be luck, or a false alarm."""


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, make, scenario, jobs, why = PLANTS[bug]
    monkeypatch.setattr(where, name, make(getattr(where, name)))

    [found] = explore([scenario], jobs=jobs, most=100_000)

    assert found.verdict == "broken", f"{bug} survived {found.totals}"
    assert found.broken is not None
    assert why in found.broken
    assert len(found.trace.splitlines()) > 2
