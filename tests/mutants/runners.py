"""Variants whose runners do the right moves at the wrong time, or forget what they were about."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["RUNNERS"]

RUNNERS: Final = (
    # ------------------------------------------------------------------------------------------ answers that do not come
    Variant(
        "result-forgotten",
        "drops the result of a job if storing it went unanswered",
        "runner/core.py",
        "            self._results.extend(entry.tasks)\n",
        "            pass\n",
    ),
    Variant(
        "hand-back-forgotten",
        "drops a hand-back that went unanswered",
        "runner/core.py",
        "            self._back.extend(entry.tasks)\n",
        "            pass\n",
    ),
    Variant(
        "claim-forgotten",
        "asks under a new number after a claim that went unanswered, and never runs what that one took",
        "runner/core.py",
        "                if not queue.claim.unsure:\n",
        "                if True:\n",
    ),
    Variant(
        "due-forgotten",
        "forgets the waiting jobs behind the first page of those that are due",
        "runner/core.py",
        "queue.next_due = NEVER if moved.next is None else moved.next",
        "queue.next_due = NEVER",
    ),
    Variant(
        "ring-swallowed",
        "keeps a wake-up that it has no room for",
        "runner/core.py",
        "            self._ring = True  # pass it on",
        "            self._ring = False  # pass it on",
    ),
    # ------------------------------------------------------------------------------------------------- start and stop
    Variant(
        "lease-believed-too-long",
        "believes in a lease for longer than the storage does",
        "runner/core.py",
        "Landed(entry, outcome, mark, claim.sent + self.config.lease)",
        "Landed(entry, outcome, mark, claim.sent + 2 * self.config.lease)",
    ),
    Variant(
        "starts-too-late",
        "starts a job that waited for a thread until its lease was over",
        "runner/execute.py",
        "if task.lease_lost or task.deadline <= monotonic():",
        "if task.lease_lost:",
    ),
    Variant(
        "own-process-never-killed",
        "lets a job in a process of its own run on when its time is over",
        "runner/processes.py",
        "self._answer(task, task.kind.timeout)",
        "self._answer(task, None)",
    ),
    Variant(
        "jobs-wait-behind-jobs",
        "keeps what it has not started while another runner has room",
        "runner/outstanding.py",
        "HAND_BACK_MS: Final = 50.0",
        "HAND_BACK_MS: Final = 50_000.0",
    ),
    Variant(
        "leaves-with-jobs",
        "leaves before what it hands back is stored",
        "runner/core.py",
        "if self._results or self._back or any(queue.claim for",
        "if self._results or any(queue.claim for",
    ),
    Variant(
        "no-grace",
        "interrupts running jobs as soon as it is asked to stop",
        "runner/core.py",
        "self._grace_until = at.local + self.config.grace",
        "self._grace_until = at.local",
    ),
    Variant(
        "handed-back-reversed",
        "hands back the last of a claim before the first",
        "runner/packing.py",
        "key=lambda task: (task.fence, task.order)",
        "key=lambda task: (task.fence, -task.order)",
    ),
    Variant(
        "suspect-not-noted",
        "starts a suspect without a note, so that it takes runners down for ever",
        "runner/core.py",
        "task.record = rewrite(task.record, started=task.fence)",
        "task.record = rewrite(task.record, started=0)",
    ),
    Variant(
        "suspect-not-alone",
        "starts a suspect while other jobs run",
        "runner/core.py",
        "        if self._outstanding.tasks or self._results or self._back or self._sent",
        "        if self._results or self._back or self._sent",
    ),
    Variant(
        "company-for-a-suspect",
        "starts what a late claim brings beside a suspect that is to run alone",
        "runner/core.py",
        "        if self._stopping or self._suspects:\n            # Also",
        "        if self._stopping or (self._suspects and self._alone is None):\n            # Also",
    ),
    # ----------------------------------------------------------------------------------------------------------- beats
    Variant(
        "no-beats",
        "never extends a lease",
        "runner/leases.py",
        "        for queue, tasks in queues.items():\n            for start",
        "        for queue, tasks in {}.items():\n            for start",
    ),
    Variant(
        "beats-stop-at-the-return",
        "stops extending when a job returns, though its result is not stored yet",
        "runner/leases.py",
        "            if task not in self._taken:\n",
        "            if task not in self._taken and not task.returned:\n",
    ),
    Variant(
        "beats-stop-when-overdue",
        "stops extending what is overdue, so that a server that stood still costs everybody their jobs",
        "runner/leases.py",
        "            if task not in self._taken:\n",
        "            if task not in self._taken and not task.lease_lost:\n",
    ),
    Variant(
        "beat-from-the-answer",
        "believes in an extension for longer than the storage does",
        "runner/leases.py",
        "task.deadline = max(task.deadline, sent + self.lease)",
        "task.deadline = max(task.deadline, sent + 2 * self.lease)",
    ),
    Variant(
        "loss-not-told",
        "tells a job nothing when its lease was taken",
        "runner/leases.py",
        "                    task.lease_lost = True\n                    self._taken.add(task)",
        "                    self._taken.add(task)",
    ),
    Variant(
        "few-beats",
        "beats once per lease",
        "runner/settings.py",
        "BEATS_PER_LEASE: Final = 6",
        "BEATS_PER_LEASE: Final = 1",
    ),
    Variant(
        "one-error-ends-the-beats",
        "ends the thread of the beats with the first thing that was not expected",
        "runner/beat.py",
        "                answered = False\n",
        "                return\n",
    ),
    # ---------------------------------------------------------------------------------------------------------- rescue
    Variant(
        "one-look",
        "takes a job at the first sight of a lease that has ended",
        "runner/rescue.py",
        "2.0 * (beat or FOREIGN_BEAT)",
        "0.0 * (beat or FOREIGN_BEAT)",
    ),
    Variant(
        "hasty-rescuer",
        "waits for two short beats of its own instead of the owner's, and steals after a jump of the clock",
        "runner/rescue.py",
        "2.0 * (beat or FOREIGN_BEAT)",
        "2.0 * 100",
    ),
    Variant(
        "one-beat",
        "waits for one beat of the owner instead of two",
        "runner/rescue.py",
        "2.0 * (beat or FOREIGN_BEAT)",
        "1.0 * (beat or FOREIGN_BEAT)",
    ),
    Variant(
        "look-from-the-question",
        "counts two beats from the question, so that a server that stood still looks like dead owners",
        "runner/rescue.py",
        "sight = Moment(at.now, moment().local)",
        "sight = at",
    ),
    Variant(
        "extends-by-the-clock",
        "extends nothing after the server's clock was set back, so that living holders look like dead ones",
        "runner/leases.py",
        "max(at.now + self.lease, self._latest + 1)",
        "at.now + self.lease",
    ),
    Variant(
        "claim-not-outdone",
        "extends no further than its claims went before the server's clock was set back",
        "runner/core.py",
        "        self.leases.ask(at)\n        queue.claim",
        "        queue.claim",
    ),
    Variant(
        "late-requeue-finds-a-new-death",
        "buries a requeued job under the very score of its last death, where a late requeue finds it",
        "judge.py",
        "return max(now, stored.died + 1)",
        "return now",
    ),
    Variant(
        "far-ends-believed",
        "waits an hour for the jobs of a dead runner after the server's clock was set back by one",
        "runner/rescue.py",
        "before=now), Page(queue.working, PAGE, after=(now + longest, _LAST)))",
        "before=now),)",
    ),
    Variant(
        "first-page-only",
        "looks at the first page of leases that have ended",
        "runner/rescue.py",
        "while len(entries) == PAGE:",
        "while len(entries) > PAGE:",
    ),
    Variant(
        "rescued-out-of-order",
        "puts the second part of what a dead runner held before the first",
        "runner/rescue.py",
        "for ids in reversed(parts):",
        "for ids in parts:",
    ),
    Variant(
        "only-its-own-lease",
        "takes a lease longer than its own for a jump of the clock",
        "runner/duties.py",
        "longest = max([self._lease, *(beat.lease for beat in self._runners.values())])",
        "longest = self._lease",
    ),
    # ----------------------------------------------------------------------------------------------------- other duties
    Variant(
        "prunes-everything",
        "forgets dead jobs at once",
        "runner/duties.py",
        "transitions.prune(queue, now - self._keep_dead)",
        "transitions.prune(queue, now)",
    ),
    Variant(
        "forgets-the-living",
        "forgets the numbers of living runners' claims",
        "runner/duties.py",
        "for incarnation in requests if incarnation not in alive or incarnation in gone]",
        "for incarnation in requests]",
    ),
    # ---------------------------------------------------------------------------------------------------------- shares
    Variant(
        "weights-ignored",
        "gives every queue the same share",
        "runner/shares.py",
        "positions[chosen] += _TURN // weights[chosen]",
        "positions[chosen] += _TURN",
    ),
    Variant(
        "heaviest-first",
        "gives the rest of every claim to the heaviest queue, and starves the others when it claims one at a time",
        "runner/shares.py",
        "key=lambda queue: (positions[queue], -weights[queue])",
        "key=lambda queue: -weights[queue]",
    ),
    Variant(
        "turns-saved",
        "lets a queue that was empty make up for all the turns it missed",
        "runner/shares.py",
        "            positions[queue] = max(positions[queue], self._last)\n",
        "            pass\n",
    ),
)
