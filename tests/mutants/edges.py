"""Variants that are wrong at an edge: beside a writer, at the last number, at the end of a test."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["EDGES"]

_BELL: Final = "storage/redis/bell.py"
_CONTENTS: Final = "storage/memory.py"
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
        "self._shared.look(lambda contents: [answer(contents, query) for query in queries])",
        "[answer(self._shared.version.contents, query) for query in queries]",
    ),
    Variant(
        "read-query-by-query",
        "lets others write between the queries of one read",
        _CONTENTS,
        "self._shared.look(lambda contents: [answer(contents, query) for query in queries])",
        "[self._shared.look(lambda contents: answer(contents, query)) for query in queries]  # noqa: B023",
    ),
    Variant(
        "dump-beside-writers",
        "dumps half of a batch that another thread applies",
        _CONTENTS,
        "self._shared.look(lambda contents: contents.dump())",
        "self._shared.version.contents.dump()",
    ),
    Variant(
        "copy-beside-writers",
        "copies half of a batch that another thread applies",
        _CONTENTS,
        "other._shared.version = Version(self._shared.look(lambda contents: contents.copy()))",
        "other._shared.version = Version(self._shared.version.contents.copy())",
    ),
    Variant(
        "restore-under-readers",
        "replaces the contents in the middle of what another thread reads",
        _CONTENTS,
        "self._shared.bell.alone(work)",
        "work()",
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
        "claims.get(id_) == claim and id_ in records]\n",
        "claims.get(id_) == claim]\n",
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
        "for name in Stored.__struct_fields__[len(fields) : needed]:",
        "fields = fields[:11]\n    for name in Stored.__struct_fields__[len(fields) : needed]:",
    ),
    # ------------------------------------------------------------------------------------------- what a server says
    Variant(
        "script-leaves-what-it-moves",
        "leaves a job where it was when it moves within a list, so that it is there twice, on the server",
        "storage/redis/interpret/move.lua",
        "if op.source ~= op.target or op.from_list then",
        "if op.source ~= op.target then",
    ),
    Variant(
        "full-server-called-away",
        "says that a server cannot be reached which has no connection left",
        "storage/redis/faults.py",
        'if "max number of clients" in text:',
        "if False:",
    ),
    Variant(
        "old-servers",
        "accepts a server of the version before the oldest",
        "storage/redis/guarded.py",
        'if int(version.partition(".")[0]) < oldest:',
        'if int(version.partition(".")[0]) < oldest - 1:',
    ),
    Variant(
        "checks-every-time",
        "keeps no connection, so that it asks a server about itself before every call",
        "storage/redis/pool.py",
        "        links.idle.append(link)\n",
        "        self._drop(links, link)\n",
    ),
    Variant(
        "some-evictions",
        "refuses one of the policies that throw jobs away, and not the others",
        "storage/redis/guarded.py",
        'elif policy != "noeviction" and not',
        'elif policy == "allkeys-lru" and not',
    ),
    Variant(
        "persistence-inverted",
        "tells that a server keeps a log where it keeps none",
        "storage/redis/guarded.py",
        '"yes" if facts["aof_enabled"] == "1"',
        '"yes" if facts["aof_enabled"] != "1"',
    ),
    # ----------------------------------------------------------------------------------------------- what is too long
    Variant(
        "long-records-are-answered",
        "answers a record in memory that is longer than was asked for",
        "storage/within.py",
        "max_bytes is None or len(record) <= max_bytes",
        "True",
    ),
    Variant(
        "watch-reads-records",
        "reads whole records, only to see whose leases have expired",
        "runner/rescue.py",
        "Records(queue.scope, tuple(fresh), 0)",
        "Records(queue.scope, tuple(fresh))",
    ),
)
