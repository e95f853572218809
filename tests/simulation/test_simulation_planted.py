"""Known-wrong variants of the queue, each caught by the simulation within a few histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
import pytest

from jobqueue import flows, judge, transitions
from jobqueue.clock import Moment
from jobqueue.context import Context
from jobqueue.record import Stored
from jobqueue.runner import beat, core, execute, leases, rescue, shares
from jobqueue.runner import task as tasks
from jobqueue.runner.packing import Sent
from jobqueue.storage import interpreter
from jobqueue.storage.contents import full_name
from jobqueue.storage.ops import RECORDS, Batch, Move, Placed
from jobqueue.testing import InvariantBroken, Simulation
from jobqueue.testing.simulation.suite import _varied

Plant = Callable[[pytest.MonkeyPatch], None]
HISTORIES = 150


def _changed(name: str, **changes: Any) -> Plant:
    """One transition with other attributes."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(transitions, name)

        def wrong(*args: Any, **kwargs: Any) -> Batch:
            batch: Batch = original(*args, **kwargs)
            [move] = batch.ops
            assert isinstance(move, Move)
            return msgspec.structs.replace(batch, ops=(msgspec.structs.replace(move, **changes),))

        patch.setattr(transitions, name, wrong)

    return plant


def _without_guards(name: str) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(transitions, name)
        patch.setattr(
            transitions, name, lambda *args, **kwargs: msgspec.structs.replace(original(*args, **kwargs), guards=())
        )

    return plant


def _taken_as_if_unseen(patch: pytest.MonkeyPatch) -> None:
    """Whoever held the lock since it was looked at."""
    original: Callable[..., Batch] = transitions.take_lock
    patch.setattr(transitions, "take_lock", lambda *args: original(*args[:-1], 2**53))


def _dying_as_before(patch: pytest.MonkeyPatch) -> None:
    """Deaths in one millisecond have one score, so that a late requeue of the first finds the second."""
    patch.setattr(judge, "death", lambda _, now: now // 10_000 * 10_000)


def _one_look(patch: pytest.MonkeyPatch) -> None:
    original = rescue._first_sight
    patch.setattr(rescue, "_first_sight", lambda *args: attrs.evolve(original(*args), patience=0.0))


def _lowering(patch: pytest.MonkeyPatch) -> None:
    original = interpreter.Interpreter._leave

    def wrong(self: interpreter.Interpreter, op: Move, moved: list[bytes], missing: list[bytes]) -> None:
        if op.source == op.target and isinstance(op.score, int):
            self.set_add(op.source.full, dict.fromkeys(moved, op.score))
        else:
            original(self, op, moved, missing)

    patch.setattr(interpreter.Interpreter, "_leave", wrong)


def _judged(**changes: Callable[[Stored], object]) -> Plant:
    """Wrong fields after a failed run."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        def wrong(stored: Stored, *args: Any) -> judge.Verdict:
            verdict = judge.after_run(stored, *args)
            wrongly = {name: change(stored) for name, change in changes.items() if name in verdict.changes}
            return attrs.evolve(verdict, changes={**verdict.changes, **wrongly})

        patch.setattr(tasks, "after_run", wrong)

    return plant


def _sooner(patch: pytest.MonkeyPatch) -> None:
    original = transitions.promote
    patch.setattr(transitions, "promote", lambda queue, now: original(queue, now + 60))


def _shorter_pause(patch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> judge.Verdict:
        verdict = judge.after_run(*args)
        if verdict.step != "retry" or verdict.score is None:
            return verdict
        return attrs.evolve(verdict, score=verdict.score - 1, changes={**verdict.changes, "due": verdict.score - 1})

    patch.setattr(tasks, "after_run", wrong)


def _leaving_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(core.Core, "_over", lambda self, at: True)


def _forgetting_results(patch: pytest.MonkeyPatch) -> None:
    original = core.Core._unanswered

    def wrong(self: core.Core, entry: Sent, unknown: bool) -> None:
        if entry.step != "finish":
            original(self, entry, unknown)

    patch.setattr(core.Core, "_unanswered", wrong)


def _forgetting_claims(patch: pytest.MonkeyPatch) -> None:
    """Asks under a new number what was not answered."""
    original = core.Core._unanswered

    def wrong(self: core.Core, entry: Sent, unknown: bool) -> None:
        original(self, entry, unknown)
        if entry.step == "claim":
            self._queues[entry.queue.queue].claim = None

    patch.setattr(core.Core, "_unanswered", wrong)


def _no_beats(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases.Leases, "extend", lambda self, at: [])


def _blaming_neighbours(patch: pytest.MonkeyPatch) -> None:
    def wrong(stored: Stored | None, fence: int, now: int) -> judge.Verdict:
        blamed = None if stored is None else msgspec.structs.replace(stored, started=fence)
        return judge.after_crash(blamed, fence, now)

    patch.setattr(rescue, "after_crash", wrong)


def _suspects_in_company(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(core, "is_suspect", lambda stored, isolated: False)


def _no_recovery_counted(patch: pytest.MonkeyPatch) -> None:
    def wrong(stored: Stored | None, fence: int, now: int) -> judge.Verdict:
        verdict = judge.after_crash(stored, fence, now)
        if stored is None or verdict.step != "rescue":
            return verdict
        return attrs.evolve(verdict, changes={"recoveries": stored.recoveries, "started": 0})

    patch.setattr(rescue, "after_crash", wrong)


def _unfair(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: shares.Shares, units: int, queues: Any) -> dict[str, int]:
        taking = [queue for queue in self.weights if queue in queues]
        return {taking[0]: units} if taking and units > 0 else {}

    patch.setattr(shares.Shares, "split", wrong)


def _deadline_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    original = core.Core.answered

    def wrong(self: core.Core, outcomes: Any, at: Any) -> None:
        for queue in self._queues.values():
            if queue.claim is not None:
                queue.claim.sent = at.local
        original(self, outcomes, at)

    patch.setattr(core.Core, "answered", wrong)


def _beat_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    original = beat.Beats.once

    def wrong(self: beat.Beats) -> Any:
        extended: Callable[..., Any] = self._leases.extended
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._leases, "extended", lambda *args: extended(*args[:2], self._moment().local))
            return (yield from original(self))

    patch.setattr(beat.Beats, "once", wrong)


def _put_twice(patch: pytest.MonkeyPatch) -> None:
    def wrong(self: interpreter.Interpreter, op: Any) -> Any:
        self.hash_set(full_name(op.target.scope, RECORDS), op.records)
        self._place(op.target, op.records, op.score)
        return Placed(tuple("stored" for _ in op.records)), op.wake

    patch.setattr(interpreter.Interpreter, "_put", wrong)


def _torn_promotion(patch: pytest.MonkeyPatch) -> None:
    """Leaves waiting, and only then, in another step, would enter ready."""
    original = interpreter.Interpreter._place

    def wrong(self: interpreter.Interpreter, target: Any, ids: Any, score: Any, *, front: bool = False) -> None:
        if not (target.name == "ready" and len(ids) > 1 and not front):
            original(self, target, ids, score, front=front)

    patch.setattr(interpreter.Interpreter, "_place", wrong)


def _forgetting_its_numbers(patch: pytest.MonkeyPatch) -> None:
    """A runner that stops forgets its requests, though a copy of one may still be under way."""
    patch.setattr(
        transitions, "close_requests", lambda queue, name, unsure=True: transitions.prune_requests(queue, (name,))
    )


def _registering_at_its_leisure(patch: pytest.MonkeyPatch) -> None:
    """Whatever became of the registration, the job is acknowledged."""
    original = flows.register

    def wrong(*args: Any) -> Any:
        yield from original(*args)
        return {}

    patch.setattr(flows, "register", wrong)


def _believing_the_clock(patch: pytest.MonkeyPatch) -> None:
    """After the server's clock was set back, extensions do not raise the ends of leases."""
    original = leases.Leases.extend

    def wrong(self: leases.Leases, at: Moment) -> Any:
        self._latest = 0
        return original(self, at)

    patch.setattr(leases.Leases, "extend", wrong)


def _an_end_is_an_end(patch: pytest.MonkeyPatch) -> None:
    """However a run ends that saw that it should stop, it counts."""
    patch.setattr(execute, "told_to_stop", lambda task: None)


def _nobody_is_complete(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Context, "complete", lambda self: None)


def _told_is_seen(patch: pytest.MonkeyPatch) -> None:
    """Also a function that never looked, and did all of its work, is taken for broken off."""
    original = core.Core._interrupt

    def wrong(self: core.Core, at: Moment) -> Any:
        tasks = original(self, at)
        for task in tasks:
            task.seen = True
        return tasks

    patch.setattr(core.Core, "_interrupt", wrong)


def _trusting_old_looks(patch: pytest.MonkeyPatch) -> None:
    """A runner that is to leave when nothing is left does not ask its queues once more."""

    def wrong(self: core.Core) -> None:
        self._has_looked = True

    patch.setattr(core.Core, "looked_around", wrong)


PLANTED: dict[str, tuple[Plant, set[str]]] = {
    "finish without expect": (_changed("finish", expect=None), {"I18", "I5"}),
    "move out without expect": (_changed("move_out", expect=None), {"I18", "I5"}),
    "release without expect": (_changed("release", expect=None), {"I18", "I5"}),
    "release at the tail": (_changed("release", front=False), {"I1"}),
    "rescue at the tail": (_changed("rescue", front=False), {"I1"}),
    "claim from a claim without a number": (_changed("claim", once=None), {"I18"}),
    "claim stays after a rescue": (_changed("rescue", stamp=None), {"I1", "I2"}),
    "a lock without owner check": (_without_guards("take_lock"), {"I15"}),
    "a rescue after one look": (_one_look, {"I6"}),
    "a lock is taken as if nobody had held it since": (_taken_as_if_unseen, {"I18"}),
    "two deaths of one job cannot be told apart": (_dying_as_before, {"I18", "I22", "I10"}),
    "extensions that go by the clock alone": (_believing_the_clock, {"I6"}),
    "an extension that lowers": (_lowering, {"I18", "extend"}),
    "a retry that counts twice": (_judged(attempt=lambda stored: stored.attempt + 2), {"I11"}),
    "a retry that is not counted": (_judged(attempt=lambda stored: stored.attempt), {"I11"}),
    "recoveries survive an orderly end": (_judged(recoveries=lambda stored: stored.recoveries + 1), {"I11"}),
    "promotion before its time": (_sooner, {"I9"}),
    "a retry a millisecond too early": (_shorter_pause, {"I10"}),
    "a runner that leaves with jobs": (_leaving_early, {"clean stop"}),
    "a result without an answer is forgotten": (_forgetting_results, {"progress", "I7", "clean stop"}),
    "a claim without an answer is forgotten": (_forgetting_claims, {"I7", "I6", "I18", "clean stop"}),
    "no beats": (_no_beats, {"I6"}),
    "neighbours of a poison job are blamed": (_blaming_neighbours, {"I10b", "I11"}),
    "suspects run in company": (_suspects_in_company, {"I10b"}),
    "a rescue that counts no recovery": (_no_recovery_counted, {"I11"}),
    "an unfair split": (_unfair, {"I13"}),
    "a deadline that counts from the answer": (_deadline_from_the_answer, {"I16"}),
    "a beat that counts from its answer": (_beat_from_the_answer, {"I16"}),
    "an enqueue that stores twice": (_put_twice, {"I18", "I1", "I3"}),
    "an early return at a stop counts": (_an_end_is_an_end, {"told to stop"}),
    "a job cannot say that it is complete": (_nobody_is_complete, {"told to stop"}),
    "a stop that nobody saw interrupts": (_told_is_seen, {"told to stop"}),
    "the numbers of claims that may still arrive are forgotten": (_forgetting_its_numbers, {"I18"}),
    "a job is acknowledged before its queue is registered": (_registering_at_its_leisure, {"registered"}),
    "a burst that trusts what it saw before": (_trusting_old_looks, {"empty"}),
    "a torn promotion": (_torn_promotion, {"I1", "I2"}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, expected = PLANTED[name]
    plant(monkeypatch)

    with pytest.raises(InvariantBroken) as caught:
        _play()

    assert caught.value.invariant in expected


def _play() -> None:
    for seed in range(HISTORIES):
        Simulation(seed=seed, **_varied(seed)).play(None)


def test_a_failure_shows_seed_history_and_a_test_that_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _judged(attempt=lambda stored: stored.attempt + 2)(monkeypatch)

    with pytest.raises(InvariantBroken) as caught:
        Simulation(seed=3).run()

    text = str(caught.value)
    assert caught.value.seed is not None
    assert f"seed {caught.value.seed}" in text
    assert "storage" in text
    source = text[text.index("    from jobqueue.testing") :]
    lines = [line[4:] for line in source.splitlines()]
    assert lines[2].startswith("def test_i11_seed_")
    pasted: dict[str, Any] = {}
    exec("\n".join(lines), pasted)
    [test] = [value for key, value in pasted.items() if key.startswith("test_")]
    with pytest.raises(InvariantBroken) as again:
        test()
    assert again.value.invariant == "I11"
    assert Simulation(seed=1).jobs > text.count("starts j"), "the history was not shortened"
