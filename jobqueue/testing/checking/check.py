"""`check_job`: is a job safe to run twice?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

from jobqueue.declared import declared_on
from jobqueue.job import Call, Job
from jobqueue.testing.checking.differences import cut
from jobqueue.testing.checking.effects import NoSuchEffect
from jobqueue.testing.checking.hints import hint
from jobqueue.testing.checking.history import Experiment, Played, Unrepeatable, play
from jobqueue.testing.checking.report import JobReport, Verdict, describe_fault, draw
from jobqueue.testing.checking.schedules import Clean, Crash, Doubled, LostReply, Overlap, Redelivery, Schedule, Stop

__all__ = ["check_job"]

W = TypeVar("W")
Enqueued: TypeAlias = Literal["each", "distinct", "ignored"]

LIMIT: Final = 500
PATIENCE: Final = 10.0


class _NotChecked(Exception):
    """There is nothing to compare with; the text says why."""


def check_job(
    job: Call[Any] | Job,
    *,
    world: Callable[[], W],
    use: Callable[[W], AbstractContextManager[Any]],
    effects: Iterable[str],
    state: Callable[[W], Any],
    enqueued: Enqueued = "each",
    limit: int = LIMIT,
    patience: float = PATIENCE,
) -> JobReport:
    """Run a job under every crash, under redelivery and overlapping itself, and compare with a clean run.

    The job runs on the production rules in memory, under a fake clock, once for each thing that can go wrong, always in a
    new world of your fakes. Calls of ``effects`` are the points at which it does: the runner dies before and after each of
    them, and after the job's end before that is stored; the runner stops there and tells the job to end, which may notice
    or not; the reply to its end is lost; the runner pauses before and after each effect for longer than its lease, another
    one takes the job, and both go on in turns. `Context.lease_lost` stays False meanwhile, as it does for a runner that has
    just woken up. A dead runner does nothing more: neither ``except`` nor ``finally`` of its job run before the outcome is
    read. Nothing runs at the same time as anything else.

    The verdicts:

    ``"idempotent"``
        In every history the state and the enqueued jobs were those of the clean run. What was called how often does not
        matter: an effect that does nothing the second time may be called a second time.
    ``"duplicates"``
        The outcome differs, an effect was carried out more often than in the clean run with the same arguments, and carrying
        it out twice in a row does harm without any fault: a mail in the list twice, money taken twice. Also: other jobs were
        enqueued more often.
    ``"diverges"``
        The outcome differs otherwise: something was computed from what an earlier run had changed, an old value was written
        over a new one, an idempotency key was not the same in all runs.
    ``"stuck"``
        After a fault the job raises until it is dead, or does not end within 30 runs more than the clean one took.
    ``"not checked"``
        There was nothing to compare: the clean run raised or two of them differ, no effect was called or one does not exist,
        ``state`` answered the same before and after the job, an effect came from a thread that the job started by itself, or
        ``limit`` is too small.

    Of several faults the one with the shortest history is reported, those with a single runner at a time first.

    Args:
        job: What to run: ``function.call(…)`` or an instance of a registered class.
        world: Makes the world, anew for every history.
        use: Answers a context manager that puts a world where the job finds it.
        effects: Names of its methods, plain or async, that are effects; ``mailer.send`` is a method of its attribute.
        state: Reads what counts of a world, as something that can be compared with ``==``. Leave out what may differ from
            run to run, such as times and fences. It is called before the first clean run as well.
        enqueued: The jobs that this one enqueues are not run; they belong to the outcome by kind, arguments and queue, not
            by time. ``"each"``: the same ones as often as in the clean run. ``"distinct"``: the same ones, however often,
            for those that are idempotent themselves. ``"ignored"``: they do not matter.
        limit: How many histories to play. Interleavings are added by the number of pauses: all with one pause more, or none
            of them if they do not fit.
        patience: Seconds of real time that the job may take from one effect to the next.

    Returns:
        The report; the same for the same arguments.

    Raises:
        TestingError: The job hangs, or ``world`` answers the same object again.
        UnknownJob: Its kind is not declared, or declared anew since.
        TypeError: An argument is of the wrong type; or several `JobQueue` know the class (pass ``jobs.call_of(job)``).
        ValueError: ``enqueued`` is none of the three; ``limit`` or ``patience`` is not positive.
    """
    if isinstance(effects, str):
        raise TypeError(f"effects is a list of names: effects=[{effects!r}]")
    effects = tuple(effects)
    if wrong := [each for each in effects if not isinstance(each, str)]:
        raise TypeError(f"effects are names of methods of the world, as in ['send'], not {wrong[0]!r}")
    if enqueued not in get_args(Enqueued):
        raise ValueError(f"enqueued is one of {', '.join(map(repr, get_args(Enqueued)))}, not {enqueued!r}")
    if not limit > 0 or not patience > 0:
        raise ValueError(f"limit and patience must be positive, not {limit!r} and {patience!r}")
    for name, given in (("world", world), ("use", use), ("state", state)):
        if not callable(given):
            raise TypeError(f"{name} is a function, not {given!r}")
    jobs = declared_on(job)
    experiment = Experiment(jobs, jobs.call_of(job), world, use, effects, state, patience)
    return _Check(experiment, enqueued, limit).report()


class _Check:
    def __init__(self, experiment: Experiment, enqueued: Enqueued, limit: int) -> None:
        self._experiment = experiment
        self._name = experiment.call.kind.name
        self._enqueued = enqueued
        self._limit = limit
        self._played = 0
        self._pauses = 0
        self._left = 0

    def report(self) -> JobReport:
        """Play everything."""
        try:
            clean = self._clean()
            for histories in self._families(clean):
                wrong = [played for played in histories if self._is_wrong(played, clean)]
                if wrong:
                    return self._wrong(min(wrong, key=lambda played: len(played.events)), len(wrong), clean)
            self._experiment.refuse_strays()
        except (NoSuchEffect, Unrepeatable, _NotChecked) as why:
            return self._reported("not checked", 0, [str(why)])
        calls = sum(clean.calls.values())
        return self._reported("idempotent", 0, [f"effects: {calls}; histories with the same outcome: {self._played}"])

    def _clean(self) -> Played:
        """The history that all others are compared with."""
        effects = ", ".join(self._experiment.effects)
        clean = play(self._experiment, Clean())
        if clean.raised:
            raise _NotChecked(f"the clean run failed, so there is nothing to compare with:\n{clean.raised[0]}")
        if clean.end != "ended":
            raise _NotChecked(f"without any fault the job did not end within {len(clean.passed)} runs")
        if not clean.calls:
            raise _NotChecked(
                f"no effect was called (of: {effects}). Does use= put the world where the job finds it, and do effects= "
                "name what the job calls?"
                if effects
                else "effects= is empty: name the methods of the world with which the job does something to it"
            )
        again = play(self._experiment, Clean(), clean)
        lines = self._differences(again, clean)
        if clean.passed != again.passed:
            lines.append(f"  effects: {_flat(again)}\n     instead of {_flat(clean)}")
        if lines:
            found = "\n".join(lines)
            raise _NotChecked(
                f"two clean runs differ, so nothing can be compared:\n{found}\nleave out of state= what may differ (times, "
                "random ids), give objects an __eq__, and let world= make everything anew"
            )
        if not clean.is_changed and (not clean.enqueued or self._enqueued == "ignored"):
            raise _NotChecked(
                "state= sees nothing of what the effects do: it answers the same before and after the job; let it read what "
                "they change"
            )
        return clean

    def _families(self, clean: Played) -> Iterator[list[Played]]:
        """The histories: those with one runner at a time, then those of two by their number of pauses."""
        points = [(number, point) for number, passed in enumerate(clean.passed) for point in range(len(passed))]
        singles: list[Schedule] = [Crash(number, point) for number, point in points]
        for number in range(len(clean.passed)):
            singles += [Redelivery(number), LostReply(number)]
        singles += [Stop(number, point) for number, point in points]
        overlaps = [Overlap(number, (point,)) for number, point in points]
        least = len(singles) + len(overlaps)
        if least > self._limit:
            raise _NotChecked(
                f"{sum(map(len, clean.passed)) // 2} effects need {least} histories at least, more than limit={self._limit}"
                ": let the job do less in this test, or say limit=…"
            )
        yield self._play(singles, clean)
        while overlaps:
            if self._played + len(overlaps) > self._limit:
                self._left = len(overlaps)
                return
            self._pauses += 1
            histories = self._play(overlaps, clean)
            yield histories
            overlaps = [
                Overlap(overlap.run, (*overlap.stops, point))
                for overlap, played in zip(overlaps, histories, strict=True)
                for point in played.further
            ]

    def _play(self, schedules: Sequence[Schedule], clean: Played) -> list[Played]:
        self._played += len(schedules)
        return [play(self._experiment, schedule, clean) for schedule in schedules]

    # -------------------------------------------------------------------------------------------------------- judging

    def _is_wrong(self, played: Played, clean: Played) -> bool:
        return played.end != "ended" or bool(played.difference) or not self._has_same_jobs(played, clean)

    def _has_same_jobs(self, played: Played, clean: Played) -> bool:
        if self._enqueued == "each":
            return played.enqueued == clean.enqueued
        return self._enqueued == "ignored" or set(played.enqueued) == set(clean.enqueued)

    def _differences(self, played: Played, clean: Played) -> list[str]:
        """Lines that tell how the outcome differs from the clean one."""
        lines = list(played.difference)
        if not self._has_same_jobs(played, clean):
            for text in [*clean.enqueued, *(text for text in played.enqueued if text not in clean.enqueued)]:
                here, there = played.enqueued[text], clean.enqueued[text]
                if here != there:
                    lines.append(f"  enqueued {_times(here)} instead of {_times(there)}: {cut(text)}")
        return lines

    def _wrong(self, played: Played, wrong: int, clean: Played) -> JobReport:
        verdict, culprit, what = self._judge(played, clean)
        lines = [f"{what} {describe_fault(played)}:", "", *draw(played.events), ""]
        lines += self._differences(played, clean)
        lines.append(f"hint: {hint(verdict, culprit, played, clean)}")
        lines.append(f"{wrong} of {self._played} histories went wrong; this is the shortest of them")
        return self._reported(verdict, wrong, lines)

    def _judge(self, played: Played, clean: Played) -> tuple[Verdict, str, str]:
        """The verdict, the effect to blame, and a few words."""
        if played.end == "dead":
            return "stuck", "", f"the job is dead after {len(played.passed)} runs"
        if played.end == "endless":
            return "stuck", "", f"the job has not ended after {len(played.passed)} runs"
        if not played.difference:
            return self._judge_jobs(played.enqueued, clean.enqueued)
        for call, count in played.calls.items():
            if count > clean.calls[call] > 0 and self._does_harm_twice(call, clean):
                return "duplicates", call, f"{cut(call)} happens {_times(count)} instead of {_times(clean.calls[call])}"
        return "diverges", "", "the outcome differs"

    def _judge_jobs(self, here: Counter[str], clean: Counter[str]) -> tuple[Verdict, str, str]:
        if set(here) == set(clean) and here >= clean:
            [text, *_] = [text for text in here if here[text] > clean[text]]
            return "duplicates", "enqueue", f"{cut(text)} is enqueued {_times(here[text])}"
        return "diverges", "", "other jobs are enqueued"

    def _does_harm_twice(self, call: str, clean: Played) -> bool:
        """Whether carrying out this call twice in a row changes the outcome although nothing fails."""
        return self._is_wrong(play(self._experiment, Doubled(call), clean), clean)

    def _reported(self, verdict: Verdict, wrong: int, lines: Sequence[str]) -> JobReport:
        is_complete = verdict == "idempotent" and not self._left
        text = [f"{verdict}: {self._name}", *lines]
        if verdict == "idempotent":
            text.append(
                "every interleaving of a runner and its successor was played"
                if is_complete
                else f"interleavings of a runner and its successor: all with up to {self._pauses} pauses; one more would "
                f"be {self._left} more histories, too many for limit={self._limit}"
            )
        return JobReport(verdict, self._name, self._played, wrong, is_complete, "\n".join(text))


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _flat(played: Played) -> str:
    return ", ".join(point.removeprefix("before ") for run in played.passed for point in run if point[0] == "b")
