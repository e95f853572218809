"""Variants whose calls ask too often, too late or for the wrong thing: enqueues, searches, locks, notifications."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["CALLS"]

_FLOWS: Final = "flows.py"
_LOOKUP: Final = "lookup.py"

CALLS: Final = (
    # ------------------------------------------------------------------------------------------------------ in the flows
    Variant(
        "pauses-for-nothing",
        "pauses before it returns although every outcome is known",
        _FLOWS,
        "        if not unknown:\n            break\n",
        "",
    ),
    Variant(
        "next-schema-accepted",
        "uses a namespace that the next version of the library has written",
        "meta.py",
        "> transitions.SCHEMA:",
        "> transitions.SCHEMA + 1:",
    ),
    Variant(
        "absolute-time-unasked",
        "compares an absolute time with a clock that was never set by the server's",
        "enqueueing.py",
        "if options.delay_ms or options.at_ms is not None:",
        "if options.delay_ms:",
    ),
    Variant(
        "time-asked-for-each-job",
        "asks the server for its time at every delayed enqueue",
        _FLOWS,
        "yield Refresh(60_000)",
        "yield Refresh(0)",
    ),
    Variant(
        "nonce-from-the-id",
        "takes the nonce of an enqueue from the same chance as its id",
        _FLOWS,
        "nonce = entropy[10:]",
        "nonce = entropy[:8]",
    ),
    Variant(
        "past-forgotten",
        "forgets what a job has behind it when its record is enqueued again",
        _FLOWS,
        "            waiting[id] = encode(record.nonce, record.stored)\n",
        "            waiting[id] = encode(record.nonce, msgspec.structs.replace(record.stored, attempt=0, recoveries=0))\n",
    ),
    Variant(
        "same-is-not-stored",
        "says of a job that was stored before that it was not stored, because its neighbour was not",
        _FLOWS,
        'if states[id_bytes(record.id)] == "different"]',
        'if states[record.id] != "stored"]',
    ),
    Variant(
        "empty-puts",
        "sends batches of nothing to the shorter queues of a long enqueue",
        _FLOWS,
        "for queue, part in filter(None, wave):",
        "for (queue, _), part in [(parts[0], one[1] if one else ()) for parts, one in zip(waves, wave)]:",
    ),
    # ------------------------------------------------------------------------------------------------------- in a search
    Variant(
        "search-ends-at-a-gap",
        "ends a search on the first page on which a record is missing",
        _LOOKUP,
        "cursor if len(ids) == PAGE else None",
        "cursor if len(found) == PAGE else None",
    ),
    Variant(
        "found-twice",
        "finds a job twice that moves on while it is looked for",
        _LOOKUP,
        "if kept is not None and kept.place == place:",
        "if kept is not None:",
    ),
    Variant(
        "silent-end-of-a-search",
        "answers that nothing is behind a job that has left its list meanwhile",
        _LOOKUP,
        "            break\n    return None\n\n\ndef _no_anchor",
        '            break\n    return start + len(ids), b""\n\n\ndef _no_anchor',
    ),
    Variant(
        "requeued-by-another",
        "answers that it requeued a job that somebody else deleted just before",
        _LOOKUP,
        "perhaps = None if sure else requeued",
        "perhaps = requeued",
    ),
    Variant(
        "deleted-by-another",
        "answers that it deleted a job that somebody else deleted just before",
        _LOOKUP,
        "perhaps = None if sure else was",
        "perhaps = was",
    ),
    Variant(
        "refusal-of-an-operator",
        "breaks down where the storage refuses what an operator asked for",
        _LOOKUP,
        "    if isinstance(outcome, NotApplied):\n        raise outcome\n",
        "",
    ),
    Variant(
        "foreign-names",
        "stumbles over what a foreign writer left in the registry of queues",
        _LOOKUP,
        "except (UnicodeDecodeError, DeclarationError):",
        "except UnicodeDecodeError:",
    ),
    # ----------------------------------------------------------------------------------------------------- of a lock
    Variant(
        "lock-from-the-answer",
        "believes in a lock for longer than the storage does, because the answer took its time",
        "lock.py",
        "return Lease(self, token, fence, sent + self.ttl)",
        "return Lease(self, token, fence, clock.monotonic() + self.ttl)",
    ),
    Variant(
        "lock-extended-from-the-answer",
        "believes in an extended lock for longer than the storage does",
        "lock.py",
        "self._until = max(self._until, sent + length)",
        "self._until = max(self._until, clock.monotonic() + length)",
    ),
    Variant(
        "refused-extension-forgotten",
        "does not say that a lock is lost whose extension was refused",
        "lock.py",
        "            self._lost = True\n",
        "",
    ),
    Variant(
        "lock-by-an-old-clock",
        "takes a lock by a clock that was compared with the server's long ago",
        "lock.py",
        "        yield Refresh(60_000)\n        keys",
        "        keys",
    ),
    Variant(
        "awaited-failure-keeps-the-lock",
        "keeps a lock whose coroutine function failed until its time is over",
        "lock.py",
        "        finally:\n            await self",
        "        except ZeroDivisionError:\n            raise\n        else:\n            await self",
    ),
    Variant(
        "lock-left-first-first",
        "gives back the first of two holds, not the last",
        "lock.py",
        "lease = leases.pop()",
        "lease = leases.pop(0)",
    ),
    Variant(
        "lock-left-for-the-wrong-thread",
        "gives back the hold of the thread that entered first where another one leaves",
        "lock.py",
        "who = next(reversed(self._held))",
        "who = next(iter(self._held))",
    ),
    Variant(
        "lock-remembers-everybody",
        "remembers every thread that ever entered a lock",
        "lock.py",
        "        if not leases:\n            del self._held[who]\n",
        "",
    ),
    # ------------------------------------------------------------------------------------------------- in a judgement
    Variant(
        "day-and-a-bit",
        "parks a job of an unknown kind once more when its day is over to the millisecond",
        "judge.py",
        "if now - since >= PARK_END and",
        "if now - since > PARK_END and",
    ),
    Variant(
        "pause-by-a-foreign-count",
        "raises two to the power of whatever a record says",
        "judge.py",
        "PARK_FIRST << min(stored.parked, 10)",
        "PARK_FIRST << stored.parked",
    ),
    Variant(
        "ids-in-question-marks",
        "shows two ids that are no text as the same",
        "record.py",
        "JobRecord(id_text(id), ",
        'JobRecord(id.decode("utf-8", "replace"), ',
    ),
    # ------------------------------------------------------------------------------------------------- notifications
    Variant(
        "enqueue-in-silence",
        "notifies nobody of a job that is ready",
        "transitions.py",
        'Put(_target("enqueue", queue), ready, wake=True',
        'Put(_target("enqueue", queue), ready',
    ),
    Variant(
        "promote-in-silence",
        "notifies nobody of jobs that are due",
        "transitions.py",
        "Due(now, LIMIT), wake=True)",
        "Due(now, LIMIT))",
    ),
    Variant(
        "claim-swallows-the-notification",
        "does not pass a notification on to others if a claim leaves jobs",
        "transitions.py",
        "Once(requester or incarnation, number), give=True, wake=True,",
        "Once(requester or incarnation, number), give=True,",
    ),
    Variant(
        "release-in-silence",
        "notifies nobody of jobs that were handed back",
        "transitions.py",
        "These(tuple(claims)), expect=claims, stamp=CLEAR, records=records, count=True,\n        front=True, wake=True,",
        "These(tuple(claims)), expect=claims, stamp=CLEAR, records=records, count=True,\n        front=True,",
    ),
    Variant(
        "requeue-in-silence",
        "notifies nobody of a job that was requeued",
        "transitions.py",
        "records=records, wake=True)",
        "records=records)",
    ),
    Variant(
        "hurry-in-silence",
        "notifies nobody of a waiting job that an operator made ready",
        "transitions.py",
        "expect={id: due}, wake=True)",
        "expect={id: due})",
    ),
    Variant(
        "two-megabytes",
        "takes twice as many bytes in one claim as is said",
        "transitions.py",
        "Head(limit, max_bytes)",
        "Head(limit, 2 * max_bytes)",
    ),
    Variant(
        "note-unfenced",
        "notes in the record of a job that somebody else holds by now that it is about to be started",
        "transitions.py",
        "expect={id: claimed}, records={id: record}",
        "records={id: record}",
    ),
    Variant(
        "condemned-uncounted",
        "does not count a job among the dead that took too many runners down",
        "transitions.py",
        "score=died, expect=leases, stamp=CLEAR, records=records, count=True",
        "score=died, expect=leases, stamp=CLEAR, records=records",
    ),
    Variant(
        "registered-again",
        "forgets when a queue was first used",
        "transitions.py",
        'now}),), (Absent(keys.queues, field),), "register queue"',
        'now}),), (), "register queue"',
    ),
)
