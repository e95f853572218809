"""What becomes of a job after a run, and after its runner died: pure rules over its stored fields. All verdicts are here.

An orderly end, good or bad, sets the count of recoveries back to 0. A crash is no failed attempt.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import attrs

from jobqueue.doors import is_beyond
from jobqueue.endings import checked_ms
from jobqueue.lifecycle import COUNTED, Ending, Step
from jobqueue.record import Stored, clean
from jobqueue.retry import Discard, Retry, RetryPolicy, Snooze
from jobqueue.texts import one_line

__all__ = [
    "FINISHED",
    "SUSPECT",
    "TOO_OFTEN",
    "RaisedElsewhere",
    "Verdict",
    "abridged",
    "after_crash",
    "after_own_crash",
    "after_run",
    "death",
    "is_retried",
    "is_suspect",
    "is_wanted",
    "pause_ms",
    "released",
    "unfit",
    "unknown_kind",
    "unreadable",
]

SUSPECT: Final = 2
"""With so many recoveries a job is run alone, so that it takes no neighbours down and the next crash is proved its own."""
TOO_OFTEN: Final = 5
"""With so many recoveries a job is given up."""
PARK_FIRST: Final = 60_000
PARK_LONGEST: Final = 3_600_000
PARK_END: Final = 24 * 3_600_000


@attrs.frozen
class Verdict:
    """What to do with a job.

    Attributes:
        step: The move.
        changes: Fields of its record that change.
        score: When it is due again, or when it died (ms); None if it leaves.
    """

    step: Step
    changes: dict[str, object]
    score: int | None = None

    @property
    def ending(self) -> Ending:
        """What the job is called afterwards: as it is counted, and ``crashed`` if it goes back since its process died."""
        return "crashed" if self.step == "release" and "recoveries" in self.changes else COUNTED[self.step]


FINISHED: Final = Verdict("finish", {})
_AS_IT_WAS: Final = Verdict("release", {})


class RaisedElsewhere(Exception):
    """Stands for what a job raised in another process, where its class was compared with the retry policy.

    Also for what it raised in this one, once its line is logged: an exception keeps alive what its frames hold.

    Attributes:
        wanted: Whether the policy retries it.
        after_ms: After how long, where the backoff was asked already.
    """

    def __init__(self, wanted: bool, after_ms: int | None = None) -> None:
        super().__init__(wanted, after_ms)
        self.wanted = wanted
        self.after_ms = after_ms


def after_run(stored: Stored, outcome: BaseException, text: str, policy: RetryPolicy, now: int) -> Verdict:
    """Judge a run that raised, or returned one of `Snooze`, `Discard`, `Retry`.

    Args:
        stored: The fields of its record.
        outcome: What it raised or returned.
        text: The error as it is to be kept (see `record.clean`).
        policy: The retry policy of its kind; how many retries it may have is in ``stored``.
        now: Milliseconds since 1970.
    """
    try:
        return _after_run(stored, outcome, text, policy, now)
    except BaseException as error:  # noqa: BLE001 - foreign code has its say here, and must not end the runner
        text = _noted(text, f"the run could not be judged: {one_line(error)}")
        return _after_run(stored, RaisedElsewhere(wanted=True), text, RetryPolicy(), now)


def _after_run(stored: Stored, outcome: BaseException, text: str, policy: RetryPolicy, now: int) -> Verdict:
    orderly: dict[str, object] = {"recoveries": 0, "started": 0, "parked": 0, "parked_since": 0}
    if isinstance(outcome, Snooze):
        due = now + checked_ms(outcome.delay_ms)
        return Verdict("snooze", {**orderly, "due": due}, due)
    if isinstance(outcome, Discard):
        return Verdict("discard", {})
    attempt = stored.attempt + 1
    outcome, text = abridged(outcome, text, policy)
    if is_retried(stored, outcome):
        after, text = pause_ms(stored, outcome, text, policy)
        due = now + after
        return Verdict("retry", {**orderly, "attempt": attempt, "error": text, "due": due}, due)
    return Verdict("bury", {**orderly, "attempt": attempt, "error": text}, death(stored, now))


def abridged(outcome: BaseException, text: str, policy: RetryPolicy) -> tuple[RaisedElsewhere | Retry, str]:
    """What a failed run is judged by, without the frames that its exception holds, and the text of the error."""
    if isinstance(outcome, RaisedElsewhere):
        return RaisedElsewhere(outcome.wanted, outcome.after_ms), text
    if isinstance(outcome, Retry):
        after = outcome.after_ms
        return Retry(None if after is None else timedelta(milliseconds=checked_ms(after))), text
    wanted, text = is_wanted(policy, outcome, text)
    return RaisedElsewhere(wanted), text


def is_retried(stored: Stored, outcome: RaisedElsewhere | Retry) -> bool:
    """Whether a run that failed is followed by another one."""
    wanted = isinstance(outcome, Retry) or outcome.wanted
    return wanted and (stored.retry < 0 or stored.attempt + 1 <= stored.retry)


def pause_ms(
    stored: Stored, outcome: RaisedElsewhere | Retry, text: str, policy: RetryPolicy
) -> tuple[int, str]:  # fmt: skip
    """After how long a run that failed is followed by another one, and the text of its error: noted where that failed."""
    after, attempt = outcome.after_ms, stored.attempt + 1
    if after is None:
        try:
            after = policy.next_delay(attempt)
        except BaseException as error:  # noqa: BLE001 - it is a user's function, and must not take the runner down
            after = RetryPolicy().next_delay(attempt)
            text = _noted(text, f"its backoff failed, the default was used: {one_line(error)}")
    return checked_ms(after), text


def is_wanted(policy: RetryPolicy, error: BaseException, text: str) -> tuple[bool, str]:
    """Whether the policy retries this error, and the text of the error: with a note where the policy itself failed."""
    try:
        return policy.wants(error), text
    except BaseException as broken:  # noqa: BLE001 - a class decides for itself what is an instance of it
        return True, _noted(text, f"its retry policy failed, so it is retried: {one_line(broken)}")


def _noted(text: str, note: str) -> str:
    """An error's text with a note in its first line, which is the one that is logged."""
    first, *rest = text.split("\n")
    note = note.replace("\n", " ")
    return clean("\n".join([f"{first} ({note})".lstrip(), *rest]))


def death(stored: Stored, now: int) -> int:
    """The score of a job that dies now: above that of each of its earlier deaths, whatever became of the clock.

    An operator's request names the death that it saw. One that the network kept back must not find it again.
    """
    return max(now, stored.died + 1)


def unfit(stored: Stored, text: str, now: int) -> Verdict:
    """Give up a job whose payload does not fit its kind: no attempt would fare better, and none was made."""
    return Verdict("bury", {"error": text, "recoveries": 0}, death(stored, now))


def unreadable(now: int) -> Verdict:
    """Give up a job whose record cannot be read; its error is in the record that replaces it, if one does."""
    return Verdict("bury", {}, now)


def released(stored: Stored, fence: int) -> Verdict:
    """Hand a job back as if it had not been claimed, for it did not run, or saw that its runner told it to stop.

    A suspect was started alone under this claim, as its record says, and did not take its runner down.
    """
    return Verdict("release", {"started": 0}) if stored.started == fence else _AS_IT_WAS


def unknown_kind(stored: Stored, now: int) -> Verdict:
    """Put a job of a kind that this runner does not know back for one that does; after a day it is dead.

    One that needs a later version of the library is put back without end.
    """
    since = stored.parked_since or now
    if now - since >= PARK_END and not is_beyond(stored):
        error = f"no runner knew the kind {stored.name!r} for a day"
        return Verdict("bury", {"error": error}, death(stored, now))
    due = now + min(PARK_FIRST << min(stored.parked, 10), PARK_LONGEST)
    return Verdict("park", {"parked": stored.parked + 1, "parked_since": since, "due": due}, due)


def is_suspect(stored: Stored, *, isolated: bool = False) -> bool:
    """Whether a job has to be run alone, because runners died while they held it.

    One that runs in a process of its own (``isolated``) endangers nobody as long as it was this process that died; it is a
    suspect like any other when the last to die was a runner: it may have taken that down by the memory it used.
    """
    return stored.recoveries >= SUSPECT and not (isolated and stored.started)


def after_crash(stored: Stored | None, fence: int, now: int) -> Verdict:
    """Judge a job whose runner is gone; None is one whose record cannot be read: whoever claims it would bury it.

    The whole claim of a dead runner comes back, so up to `SUSPECT` recoveries prove nothing. Above that, only the one
    that was started alone under this very claim is to blame.
    """
    if stored is None:
        return Verdict("condemn", {}, now)
    blamed = stored.recoveries < SUSPECT or stored.started == fence
    recoveries = stored.recoveries + blamed
    if recoveries >= TOO_OFTEN and not is_beyond(stored):
        error = f"{recoveries} runners in a row died while they ran this job"
        return Verdict("condemn", {"recoveries": recoveries, "error": error}, death(stored, now))
    return Verdict("rescue", {"recoveries": recoveries, "started": 0})


def after_own_crash(stored: Stored, fence: int, text: str, now: int) -> Verdict:
    """Judge a job whose own process died while its runner lives: nobody else was in there, so nothing has to be proved.

    Args:
        stored: The fields of its record.
        fence: The fence of the claim under which it ran.
        text: How the process died.
        now: Milliseconds since 1970.
    """
    recoveries = stored.recoveries + 1
    if recoveries >= TOO_OFTEN:
        error = clean(f"{text}; that was its crash number {recoveries} in a row")
        return Verdict("bury", {"recoveries": recoveries, "error": error}, death(stored, now))
    return Verdict("release", {"recoveries": recoveries, "started": fence, "error": text})
