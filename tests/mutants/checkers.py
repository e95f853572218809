"""Variants whose `check_job` forgets something that can go wrong, or does not see that it did."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["CHECKERS"]

CHECK: Final = "testing/checking/check.py"
HISTORY: Final = "testing/checking/history.py"

CHECKERS: Final = (
    # --------------------------------------------------------------------------------------------------- what happens
    Variant(
        "check-no-crash-after",
        "lets a job under check crash only before its effects, never after one",
        CHECK,
        "[Crash(number, point) for number, point in points]",
        "[Crash(number, point) for number, point in points if point % 2 == 1]",
    ),
    Variant(
        "check-no-crash-before",
        "lets a job under check crash only after its effects, never before one",
        CHECK,
        "[Crash(number, point) for number, point in points]",
        "[Crash(number, point) for number, point in points if point % 2 == 0]",
    ),
    Variant(
        "check-first-run-only",
        "lets only the first run of a job under check crash, not the one after a snooze",
        CHECK,
        "for number, passed in enumerate(clean.passed) for point in range(len(passed))]",
        "for number, passed in enumerate(clean.passed[:1]) for point in range(len(passed))]",
    ),
    Variant(
        "check-no-redelivery",
        "never runs a job under check again after its end",
        CHECK,
        "singles += [Redelivery(number), LostReply(number)]",
        "singles += [LostReply(number)]",
    ),
    Variant(
        "check-no-stop",
        "stops no runner of a job under check",
        CHECK,
        "        singles += [Stop(number, point) for number, point in points]\n",
        "",
    ),
    Variant(
        "check-stop-untold",
        "stops the runner of a job under check without telling the job",
        "testing/checking/lane.py",
        "        self.task.cancelled = True\n",
        "",
    ),
    Variant(
        "check-stop-uncancelled",
        "stops the runner of a coroutine under check without cancelling it",
        "testing/checking/lane.py",
        "        self._to_cancel = self._running is not None\n",
        "",
    ),
    Variant(
        "check-no-zombie",
        "checks no job beside itself",
        CHECK,
        "        while overlaps:\n",
        "        while overlaps and not points:\n",
    ),
    Variant(
        "check-one-pause",
        "lets the successor of a zombie always run to its end",
        CHECK,
        "for point in played.further\n",
        "for point in played.further[:0]\n",
    ),
    Variant(
        "check-zombie-stays",
        "never lets a zombie go on when its successor has ended",
        HISTORY,
        "        self._finish(other)\n",
        "        _ = other\n",
    ),
    Variant(
        "check-zombie-keeps-its-lease",
        "lets a runner that pauses store its result before others take the job",
        HISTORY,
        "        self._go(first, stops[0])\n",
        "        self._go(first)\n        self._store(first)\n        return\n",
    ),
    Variant(
        "check-crash-stores",
        "stores the result of a run under check that dies",
        HISTORY,
        "        held.work.close()\n",
        "        self._store(held)\n",
    ),
    Variant(
        "check-reads-after-the-fact",
        "reads the state when dead runs have been unwound, with their cleaning up in it",
        HISTORY,
        "                history.happen()\n",
        "                history.happen()\n                history.unwind()\n",
    ),
    Variant(
        "check-effects-of-the-dead",
        "lets a run that died go on with its effects while it is unwound",
        "testing/checking/lane.py",
        "        if not self._dying:\n            return\n",
        "        if self._until != -1:\n            return\n",
    ),
    # -------------------------------------------------------------------------------------------------- what is seen
    Variant(
        "check-blind-to-state",
        "does not compare the state",
        HISTORY,
        "        elif state != self._clean.state:\n",
        "        elif state is None:\n",
    ),
    Variant(
        "check-blind-to-jobs",
        "does not compare how often a job was enqueued",
        CHECK,
        "return played.enqueued == clean.enqueued",
        "return set(played.enqueued) == set(clean.enqueued)",
    ),
    Variant(
        "check-blind-to-death",
        "takes a job that is dead for one that has ended",
        HISTORY,
        '                self.played.end = "dead"\n',
        '                self.played.end = "ended"\n',
    ),
    Variant(
        "check-takes-repeats-for-harm",
        "says duplicates of an effect that does no harm when it is repeated",
        CHECK,
        " and self._does_harm_twice(call, clean):",
        ":",
    ),
    Variant(
        "check-never-doubles",
        "tries out whether an effect does harm when it is repeated, without repeating it",
        HISTORY,
        "yield doubled and not self.played.calls[call]",
        "yield doubled and bool(self.played.calls[call])",
    ),
    Variant(
        "check-one-clean-run",
        "compares with a clean run that another clean run does not repeat",
        CHECK,
        "        if lines:\n            found",
        "        if lines and not clean.calls:\n            found",
    ),
    Variant(
        "check-longest",
        "shows the longest history that goes wrong",
        CHECK,
        "self._wrong(min(wrong,",
        "self._wrong(max(wrong,",
    ),
    Variant(
        "check-by-address",
        "takes a call with another object of the same kind for another call",
        "testing/checking/effects.py",
        '_ADDRESS.sub("", f"',
        'str(f"',
    ),
)
