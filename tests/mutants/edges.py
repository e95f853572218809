"""Variants that are wrong at an edge: beside a writer, at the last number, in the page behind the first, at a test's end."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["EDGES"]

_BELL: Final = "storage/redis/bell.py"
_CONTENTS: Final = "storage/memory.py"
_FLOWS: Final = "flows.py"
_LOOKUP: Final = "lookup.py"
_MEMORY: Final = "storage/interpreter.py"
_PLUGIN: Final = "../jobqueue_pytest.py"

EDGES: Final = (
    # ------------------------------------------------------------------------------------------------ threads and waits
    Variant(
        "short-wait-is-endless",
        "waits for ever on a server if it is to wait for less than half a millisecond",
        _BELL,
        'b"%.3f" % max(timeout, 0.001)',
        'b"%.3f" % timeout',
    ),
    Variant(
        "negative-wait-blocks",
        "cannot wait for a time that is over already",
        _BELL,
        "if timeout <= 0 or not self",
        "if not self",
    ),
    Variant(
        "short-wait-is-endless-in-memory",
        "waits for ever in memory if it is to wait for less than half a millisecond",
        "storage/bell.py",
        "self._take(scopes), timeout)",
        "self._take(scopes), round(timeout, 3) or None)",
    ),
    Variant(
        "read-beside-writers",
        "reads one key before, and the next after, what another thread writes to both",
        _CONTENTS,
        "        with self._shared.bell.mutex:\n            return [answer(",
        "        if True:\n            return [answer(",
    ),
    Variant(
        "read-query-by-query",
        "lets others write between the queries of one read",
        _CONTENTS,
        "        with self._shared.bell.mutex:\n"
        "            return [answer(self._shared.contents, query) for query in queries]",
        "        answers = []\n        for query in queries:\n            with self._shared.bell.mutex:\n"
        "                answers.append(answer(self._shared.contents, query))\n        return answers",
    ),
    Variant(
        "dump-beside-writers",
        "dumps half of a batch that another thread applies",
        _CONTENTS,
        "        with self._shared.bell.mutex:\n            return self._shared.contents.dump()",
        "        if True:\n            return self._shared.contents.dump()",
    ),
    Variant(
        "copy-beside-writers",
        "copies half of a batch that another thread applies",
        _CONTENTS,
        "        with self._shared.bell.mutex:\n            other._shared.contents = self",
        "        if True:\n            other._shared.contents = self",
    ),
    Variant(
        "restore-under-readers",
        "replaces the contents in the middle of what another thread reads",
        _CONTENTS,
        "        with self._shared.bell.mutex:\n            self._shared.contents = contents",
        "        if True:\n            self._shared.contents = contents",
    ),
    # ------------------------------------------------------------------------------------------------ the pytest plugin
    Variant(
        "tear-down-without-a-past",
        "shows the past of its jobs only where a test fails in its body, not in its tear-down",
        _PLUGIN,
        "    if report.failed:",
        '    if report.failed and report.when == "call":',
    ),
    # -------------------------------------------------------------------------------------------------- in the storage
    Variant(
        "sum-of-a-foreign-number",
        "does not see that one batch writes a word where it adds a number afterwards",
        _MEMORY,
        "written.update({(op.hash.full, field): value for field, value in op.fields.items()})",
        "pass",
    ),
    Variant(
        "sum-of-what-was-deleted",
        "adds to what the same batch has deleted",
        _MEMORY,
        "written.update({(op.hash.full, field): None for field in op.fields})",
        "pass",
    ),
    Variant(
        "sum-of-a-request",
        "adds to the number of a request in the batch that writes it",
        _MEMORY,
        'written[full_name(batch.scope, REQUESTS), op.once.incarnation] = b""',
        "pass",
    ),
    Variant(
        "leaves-only-with-a-record",
        "answers that a job is missing which leaves and needs no record for it",
        _MEMORY,
        "if op.target not in (None, op.source) and",
        "if op.target != op.source and",
    ),
    Variant(
        "answers-without-a-record",
        "answers a repeated claim with a job whose record is gone",
        _MEMORY,
        "claims.get(id_) == claim and id_ in records])",
        "claims.get(id_) == claim])",
    ),
    Variant(
        "count-of-what-cannot-move",
        "refuses to count jobs that could not have moved",
        _MEMORY,
        "len(ids & op.expect.keys() if isinstance(op.expect, Mapping) else ids)",
        "len(ids)",
    ),
    Variant(
        "claims-of-another-kind",
        "finds out half-way that the claims of a queue are no hash",
        _MEMORY,
        "_hash(batch.scope, RECORDS), _hash(batch.scope, CLAIMS))",
        "_hash(batch.scope, RECORDS))",
    ),
    Variant(
        "request-cut-off",
        "believes in a remembered request that was cut off",
        _MEMORY,
        'if value[end : end + 1] != b",":',
        "if False:",
    ),
    Variant(
        "looks-at-foreign-keys",
        "takes a key of another kind for an empty one where it looks for records",
        "storage/queries.py",
        "    contents.check_kinds((HashKey(scope, RECORDS), HashKey(scope, CLAIMS), *sets))\n",
        "",
    ),
    Variant(
        "foreign-scope-put",
        "stores jobs of one scope in a batch of another",
        "storage/shape.py",
        "            _same_scope(batch, op.target)\n            if",
        "            if",
    ),
    Variant(
        "foreign-scope-move",
        "moves jobs of one scope in a batch of another",
        "storage/shape.py",
        "    _same_scope(batch, op.source)\n    if op.count",
        "    if op.count",
    ),
    Variant(
        "nine-ids-at-most",
        "refuses the last number of ids that may be searched in a list",
        "storage/shape.py",
        "len(ids) > LIST_SEARCH_MAX",
        "len(ids) >= LIST_SEARCH_MAX",
    ),
    Variant(
        "claim-in-lines",
        "does not know the owner of a claim whose name has two lines",
        "record.py",
        '([0-9]{1,9})", re.DOTALL',
        '([0-9]{1,9})"',
    ),
    Variant(
        "newest-field-lost",
        "forgets when a job died last as soon as anything of its record changes",
        "record.py",
        "for name in Stored.__struct_fields__[len(fields) :]:",
        "fields = fields[:11]\n    for name in Stored.__struct_fields__[len(fields) :]:",
    ),
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
        _FLOWS,
        "> transitions.SCHEMA:",
        "> transitions.SCHEMA + 1:",
    ),
    Variant(
        "absolute-time-unasked",
        "compares an absolute time with a clock that was never set by the server's",
        _FLOWS,
        "job.delay is not None or job.at is not None for",
        "job.delay is not None for",
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
        "record.retry, record.attempt, record.recoveries, since",
        "record.retry, 0, 0, since",
    ),
    Variant(
        "same-is-not-stored",
        "says of a job that was stored before that it was not stored, because its neighbour was not",
        _FLOWS,
        'if states[record.id] == "different"]',
        'if states[record.id] != "stored"]',
    ),
    Variant(
        "empty-puts",
        "sends batches of nothing to the shorter queues of a long enqueue",
        _FLOWS,
        "for queue, jobs in queues.items() if len(jobs) > start}",
        "for queue, jobs in queues.items()}",
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
        "elif kept.place == place:",
        "else:",
    ),
    Variant(
        "silent-end-of-a-search",
        "answers that nothing is behind a job that has left its list meanwhile",
        _LOOKUP,
        "        if skipping:\n            raise _no_anchor(after)  # it",
        "        if False:\n            raise _no_anchor(after)  # it",
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
        "if now - since >= PARK_END:",
        "if now - since > PARK_END:",
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
        'id=id.decode("utf-8", "backslashreplace"),',
        'id=id.decode("utf-8", "replace"),',
    ),
)
