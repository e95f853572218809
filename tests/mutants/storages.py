"""Variants whose storages, in memory or on the server, do something else than their operations say."""

from __future__ import annotations

from typing import Final

from tests.mutants.variant import Variant

__all__ = ["STORAGES"]

_MEMORY: Final = "storage/interpreter.py"
_PLACING: Final = "storage/placing.py"
_MOVES: Final = "storage/redis/interpret/move.lua"
_PLAIN: Final = "storage/redis/interpret/plain.lua"
_WORDS: Final = "storage/redis/interpret/words.lua"
_BATCH: Final = "storage/redis/interpret/batch.lua"
_PUT: Final = "storage/redis/put.lua"
_PUT_ONE: Final = "storage/redis/put_one.lua"
_GUARDED: Final = "storage/redis/guarded.py"

STORAGES: Final = (
    # ------------------------------------------------------------------------------------------------------- in memory
    Variant(
        "torn-page",
        "takes a page of jobs out of one place and puts the first hundred into the next",
        _PLACING,
        "                values.extend(ids)\n",
        "                values.extend(list(ids)[:100])\n",
    ),
    Variant(
        "torn-batch",
        "finds out half way through a batch that it cannot be done",
        _MEMORY,
        "            self._check_integers(batch)\n        except",
        "            pass\n        except",
    ),
    Variant(
        "guards-ignored",
        "applies what its guards refuse, unless it is a claim",
        _MEMORY,
        "        if failed:\n            return Refused",
        "        if failed and not batch.guards:\n            return Refused",
    ),
    Variant(
        "late-extension-shortens",
        "lets an extension that arrives late shorten a lease",
        _MEMORY,
        "max(scores[id_], each[id_])",
        "each[id_]",
    ),
    Variant(
        "fence-is-the-time",
        "gives two claims of one millisecond the same fence",
        _MEMORY,
        'fence = max(int(self.hashes.get(counters, {}).get(FENCE, b"0")) + 1, op.stamp.now)',
        "fence = op.stamp.now",
    ),
    Variant(
        "lock-fence-is-the-time",
        "gives two holders of a lock the same fence",
        _MEMORY,
        "max((lock.fence if lock else 0) + 1, now)",
        "now",
    ),
    Variant(
        "anybody-drops-a-lock",
        "gives back a lock that somebody else holds",
        _MEMORY,
        "if lock is not None and lock.token == token:\n                    self.locks[key.full] = Held(token, 0, ",
        "if lock is not None:\n                    self.locks[key.full] = Held(token, 0, ",
    ),
    Variant(
        "late-claim-taken",
        "carries out a claim that arrives after its successor",
        _MEMORY,
        "if number is None or number > once.number:",
        "if number is None:",
    ),
    Variant(
        "answers-what-it-gave-before",
        "answers a repeated claim with jobs that have been taken from it since",
        _MEMORY,
        "if id_ in entries.scores and claims.get(id_) == claim and id_ in records]",
        "if id_ in records]",
    ),
    Variant(
        "put-overwrites",
        "stores a job a second time where it is stored already",
        _PLACING,
        "known = records.keys() & op.records.keys()",
        "known = set[bytes]()",
    ),
    Variant(
        "any-job-is-the-same",
        "takes any job with the same id for the same job",
        _PLACING,
        'return "same" if stored[:_NONCE] == record[:_NONCE] else "different"',
        'return "same"',
    ),
    Variant(
        "room-for-one-more",
        "stores a job in a queue that holds as many as it may",
        _PLACING,
        "+ new > op.most",
        "+ new > op.most + 1",
    ),
    Variant(
        "orphans-stay",
        "leaves an id without a record at the head of the queue",
        _MEMORY,
        "for id_ in (*moved, *missing):",
        "for id_ in moved:",
    ),
    Variant(
        "due-is-excluded",
        "leaves out what is due in this very millisecond",
        "storage/sortedset.py",
        "if score > before:",
        "if score >= before:",
    ),
    # ---------------------------------------------------------------------------------------------------- on the server
    Variant(
        "script-shortens-leases",
        "lets an extension that arrives late shorten a lease, on the server",
        _MOVES,
        "'XX', 'GT'",
        "'XX'",
    ),
    Variant(
        "script-takes-late-claims",
        "carries out a claim that arrives after its successor, on the server",
        _MOVES,
        "mine < last",
        "mine + 1 < last",
    ),
    Variant(
        "script-drops-any-lock",
        "gives back a lock that somebody else holds, on the server",
        _PLAIN,
        "if lock_of(op.key) == op.token then",
        "if true then",
    ),
    Variant(
        "script-lock-boundary",
        "does not hand over a lock in the millisecond in which it ends, on the server",
        _PLAIN,
        "return till <= tonumber(guard[2]) and",
        "return till < tonumber(guard[2]) and",
    ),
    Variant(
        "script-lock-taken-late",
        "takes a lock for a request that was overtaken by another holder, on the server",
        _PLAIN,
        " and fence <= tonumber(guard[3])",
        "",
    ),
    Variant(
        "script-torn-batch",
        "notices a foreign key when half of a batch is written, on the server",
        _WORDS,
        "  if seen ~= kind then\n    problem",
        "  if false then\n    problem",
    ),
    Variant(
        "script-puts-blindly",
        "notices only half-way that what it puts jobs into is no queue, on the server",
        "storage/redis/put.lua",
        "kind_of(TARGET, to_list and 'list' or 'zset')\n",
        "",
    ),
    Variant(
        "script-puts-one-blindly",
        "notices only half-way that what it puts a single job into is no queue, on the server",
        "storage/redis/put_one.lua",
        "(seen == 'list' or seen == 'none') and ",
        "",
    ),
    Variant(
        "script-puts-one-quietly",
        "does not ring for a single job, on the server",
        "storage/redis/put_one.lua",
        "if tokens == 0 then",
        "if tokens == 1 then",
    ),
    Variant(
        "script-reverses-hand-backs",
        "puts jobs that were handed back in reverse order, on the server",
        _MOVES,
        "reversed[i] = ids[m + 1 - i]",
        "reversed[i] = ids[i]",
    ),
    Variant(
        "script-keeps-records",
        "keeps the records of jobs that have ended, on the server",
        _MOVES,
        "send('HDEL', RECORDS, ids, 1, m)",
        "",
    ),
    Variant(
        "unknown-called-refused",
        "says that nothing happened when the reply was lost",
        "storage/redis/faults.py",
        "def lost(label: str, error: BaseException) -> OutcomeUnknown:\n",
        "def lost(label: str, error: BaseException) -> NotApplied:\n    return unreachable(label, error)\n\n\n"
        "def _lost(label: str, error: BaseException) -> OutcomeUnknown:\n",
    ),
    Variant(
        "single-enqueues-reversed",
        "puts a job that is enqueued alone before all others",
        "storage/redis/put_one.lua",
        "redis.call('RPUSH', ready, ARGV[6])",
        "redis.call('LPUSH', ready, ARGV[6])",
    ),
    # ------------------------------------------------------------------------------------- rights, and what a server is
    Variant(
        "rights-not-asked",
        "begins a batch whose user may not end it",
        _BATCH,
        "  if denied then\n",
        "  if false then\n",
    ),
    Variant(
        "right-of-a-move-forgotten",
        "does not ask for one of the commands that a move runs",
        _MOVES,
        "'HDEL', 'HEXISTS',",
        "'HEXISTS',",
    ),
    Variant(
        "rights-of-a-put-not-asked",
        "stores a job that its user may not place",
        _PUT,
        "if denied then\n",
        "if false then\n",
    ),
    Variant(
        "rights-of-the-usual-put-not-asked",
        "stores the record of a single job whose id its user may not push",
        _PUT_ONE,
        "known and may and ",
        "",
    ),
    Variant(
        "policy-has-one-source",
        "does not find out where CONFIG is forbidden that a server evicts",
        _GUARDED,
        '    if "maxmemory_policy" in facts:\n',
        '    if "nothing" in facts:\n',
    ),
    Variant(
        "server-looked-at-once",
        "does not look again at a server that it once found fit",
        _GUARDED,
        "        problem = self._unfit(label, facts)\n",
        "        problem = None if label in self._warned else self._unfit(label, facts)\n        self._warned.add(label)\n",
    ),
    Variant(
        "busy-for-good",
        "takes every refusal at the start of a runner for one that does not pass",
        "storage/redis/faults.py",
        '"BUSY": Answer(True,',
        '"BUSY": Answer(False,',
    ),
    # ------------------------------------------------------------------------------------------------------------- TLS
    Variant(
        "plain-sentinels",
        "asks the sentinels of a rediss+sentinel:// URL in plain text, and believes them",
        "storage/redis/connect.py",
        "nodes, service, asked_by, _lasting(login, asked_by) | secured)",
        'nodes, service, "tcp", _lasting(login, "tcp"))',
    ),
    Variant(
        "any-host",
        "accepts the certificate of any host of the same authority",
        "storage/redis/secured.py",
        "context.check_hostname = tls.check_hostname and",
        "context.check_hostname = False and",
    ),
)
