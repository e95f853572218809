"""Variants that find something else than what is broken, or mend it otherwise."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["AUDITS"]

_AUDIT: Final = "audit.py"
_MEMORY: Final = "storage/mending.py"
_SCRIPT: Final = "storage/redis/interpret/mend.lua"
_READ: Final = "storage/redis/read.lua"

AUDITS: Final = (
    Variant(
        "audit-believes-the-first-look",
        "takes a job for broken because it moved between two looks",
        _AUDIT,
        "Read((Where(queue.scope, part, search=True), Records(",
        "Read((Where(queue.scope, part), Records(",
    ),
    Variant(
        "audit-reads-one-page",
        "looks at the first page of records alone",
        _AUDIT,
        "        report.look(len(page.ids))\n        after = page.next\n",
        "        report.look(len(page.ids))\n        after = None\n",
    ),
    Variant(
        "audit-overlooks-claims",
        "does not see a claim of which no job is left",
        _AUDIT,
        "            yield from _look_at_claims(queue, report)\n",
        "",
    ),
    Variant(
        "audit-gives-no-reason",
        "takes a broken job to dead without saying why",
        _AUDIT,
        "rewrite(kept.record, error=text)",
        "rewrite(kept.record)",
    ),
    Variant(
        "audit-forgets-the-last-death",
        "gives a mended job the time of an earlier death, so that a late delete finds it",
        _AUDIT,
        "rewrite(kept.record, error=text), death(stored, now))",
        "rewrite(kept.record, error=text), now)",
    ),
    Variant(
        "mends-any-record",
        "mends a job whose record is not the one that was seen",
        _MEMORY,
        "    if (Unread(len(stored)) if stored is not None and isinstance(op.seen, Unread) else stored) != op.seen:\n",
        "    if False:\n",
    ),
    Variant(
        "mends-the-whole",
        "takes a job to dead that is where it should be",
        _MEMORY,
        "whole = len(sets) + times == (op.seen is not None)",
        "whole = False",
    ),
    Variant(
        "script-mends-any-record",
        "mends a job whose record is not the one that was seen, on the server",
        _SCRIPT,
        "elseif call('HGET', RECORDS, id) ~= (op.had == '1' and op.seen) then",
        "elseif false then",
    ),
    Variant(
        "script-leaves-an-entry",
        "leaves a job in the list that it takes to dead, on the server",
        _SCRIPT,
        "call('LREM', op.ready, 0, id)",
        "call('LREM', op.ready, 1, id)",
    ),
    Variant(
        "script-ends-a-walk",
        "says that the first page of ids was the last, on the server",
        _READ,
        "return { cursor ~= '0' and cursor, ids }",
        "return { false, ids }",
    ),
    Variant(
        "script-finds-one-entry",
        "does not see that an id is in the list twice, on the server",
        _READ,
        "call('LPOS', ready, id, 'COUNT', 2)",
        "call('LPOS', ready, id, 'COUNT', 1)",
    ),
)
