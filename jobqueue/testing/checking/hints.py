"""What to do about it."""

from __future__ import annotations

from jobqueue.testing.checking.history import Played
from jobqueue.testing.checking.report import Verdict
from jobqueue.testing.checking.schedules import Overlap, Stop

__all__ = ["hint"]


def hint(verdict: Verdict, culprit: str, played: Played, clean: Played) -> str:
    """One sentence of advice for a history that went wrong.

    Args:
        verdict: The verdict.
        culprit: The call that is to blame, ``enqueue``, or nothing.
        played: The history.
        clean: The one to compare with.
    """
    overlaps = isinstance(played.schedule, Overlap)
    if verdict == "stuck":
        return (
            "a run after a crash finds what the crashed one left: it has to go on from there, or to return if all is done, "
            "instead of raising"
        )
    if culprit == "enqueue":
        return (
            "enqueue other jobs only if the world says that this is still to be done; or, if those are idempotent "
            'themselves, say enqueued="distinct"'
        )
    if isinstance(played.schedule, Stop) and len(played.passed) == played.schedule.run + 1:
        return (
            "the job ended early and did not run again, since it called ctx.complete() or asked for a Discard: do so only "
            "when all of its work is done; any other end of a job that saw that it should stop hands it back"
        )
    name = _name(culprit)
    if verdict == "duplicates" and overlaps:
        return (
            f"a look whether it was done and `{name}` have to be one step: pass it record.id (the same in all runs) as an "
            "idempotency key, or compare ctx.fence where it happens and refuse a smaller one than the last"
        )
    if verdict == "duplicates":
        return f"use record.id, which is the same in all runs, as an idempotency key of `{name}`"
    usual = {_name(call) for call in clean.calls}
    others = [_name(call) for call in played.calls if call not in clean.calls and _name(call) in usual]
    if others and not overlaps:
        return (
            f"`{others[0]}` is called with other arguments than in the clean run: what is computed from the world and then "
            "written to it has to be one step, which record.id lets happen once; and a key has to be the same in all runs"
        )
    if overlaps:
        return (
            "a runner writes what it read before the other one wrote: compare ctx.fence where the world is read and where "
            "it is written, and refuse a smaller one than the last"
        )
    return "let each run bring the world to the same end, whatever an earlier one has done: use record.id to tell"


def _name(call: str) -> str:
    return call.partition("(")[0]
