"""Memory and a real server do the same, below the storage too: the server's own keys and its wake-ups are compared.

The steps are those of `jobqueue.testing.lockstep`. The test fails too if they did not meet every operation both applied
and refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from jobqueue.errors import StorageRefused
from jobqueue.storage import ops
from jobqueue.storage.ops import (
    Answer,
    Applied,
    Batch,
    HashKey,
    ListKey,
    Move,
    Moved,
    Placed,
    Query,
    Refused,
    SetKey,
)
from jobqueue.storage.protocol import Outcome
from jobqueue.storage.redis import flow, open_redis, scripts
from jobqueue.testing.lockstep import Lockstep
from tests.servers import Server

pytestmark = pytest.mark.timeout(400)  # a few seconds each, but not on a machine that is busy with other things

OPS: tuple[type, ...] = (
    ops.ListPush, ops.SetAdd, ops.SetRemove, ops.HashSet, ops.HashAdd, ops.HashDelete, ops.LockTake, ops.LockDrop,
    ops.Put, ops.Move, ops.Mend, ops.Ring,
)  # fmt: skip
GUARDS = (ops.Absent, ops.FieldIs, ops.Member, ops.Empty, ops.Unlocked, ops.Locked)
QUERIES = (ops.Peek, ops.Page, ops.Records, ops.Sizes, ops.Fields, ops.Holder, ops.Ids, ops.Where, ops.Match)


def dump_of(client: redis.Redis) -> tuple[dict[str, Any], set[str]]:
    """What the server holds, as `MemoryStorage.dump` tells it, through plain commands; and which scopes are rung."""
    keys: Any = client.keys("*")
    names = sorted(key.decode() for key in keys)
    rung = {name.removesuffix(":wake") for name in names if name.endswith(":wake")}
    names = [name for name in names if not name.endswith(":wake")]
    asked: Any = client.pipeline(transaction=False)
    for name in names:
        asked.type(name)
    kinds = asked.execute()
    for name, kind in zip(names, kinds, strict=True):
        if kind == b"list":
            asked.lrange(name, 0, -1)
        elif kind == b"zset":
            asked.zrange(name, 0, -1, withscores=True)
        else:
            asked.hgetall(name)
    everything: dict[str, Any] = {}
    for name, kind, value in zip(names, kinds, asked.execute(), strict=True):
        everything[name] = value
        if kind == b"zset":
            everything[name] = [(member, int(score)) for member, score in value]
        elif kind == b"hash":
            everything[name] = dict(sorted(value.items()))
            if ":lock:" in name:
                everything[name] = (value[b"token"], int(value[b"until"]), int(value[b"fence"]))
    return everything, rung


class OnServer(Lockstep):
    """Looks below the storage: at the server's own keys and its wake-ups. Counts what was met."""

    client: redis.Redis
    met: Counter[Any]
    foreign = (ListKey, SetKey, HashKey)

    def new_scopes(self, name: str) -> tuple[str, str]:
        self.client.flushall()
        return "n:q", "n"

    def compare(self) -> None:
        dump, rung = dump_of(self.client)
        self.check(dump, self.memory.dump(), "the keys of the server")
        self.check(rung, {f"{{{scope}}}" for scope in self.memory._shared.bell._tokens}, "the scopes that are rung")

    def plant(self, key: ListKey | SetKey | HashKey) -> None:
        if not isinstance(key, ListKey):
            super().plant(key)
        else:
            self.client.rpush(key.full, b"a")
            self.memory._shared.contents.lists[key.full] = deque([b"a"])

    def uproot(self, key: ListKey | SetKey | HashKey) -> None:
        if not isinstance(key, ListKey):
            super().uproot(key)
        else:
            self.client.delete(key.full)
            self.memory._shared.contents.lists.pop(key.full, None)

    @rule(batch=Lockstep.sent)
    def send_again(self, batch: Batch) -> None:
        before = self.memory.dump()
        self.apply([batch])
        self.met["repeated"] += self.memory.dump() != before

    @precondition(lambda self: self.memory._shared.bell._tokens)
    @rule()
    def wait(self) -> None:
        super().wait()
        self.met["waited"] += 1

    def answered(self, queries: Sequence[Query], answers: Sequence[Answer] | None) -> None:
        if answers is None:
            self.met["read refused"] += 1
        else:
            for query, answer in zip(queries, answers, strict=True):
                self.met[type(query), bool(answer.entries if isinstance(answer, ops.Matched) else answer)] += 1

    def applied(self, batch: Batch, outcome: Outcome) -> None:
        met = self.met
        for op in batch.ops:
            met[type(op), type(outcome)] += 1
        for index, guard in enumerate(batch.guards):
            if isinstance(outcome, Refused):
                met[type(guard), index in outcome.failed] += 1
            elif isinstance(outcome, Applied):
                met[type(guard), False] += 1
        if isinstance(outcome, Refused) and max(outcome.failed) >= len(batch.guards):
            met["once refused"] += 1
            met["some would be skipped"] += bool(outcome.skipped)
        if isinstance(outcome, Applied):
            for op, answer in zip(batch.ops, outcome.answers, strict=True):
                met["mended"] += isinstance(op, ops.Mend) and answer == 1
                if isinstance(answer, Placed):
                    met.update(answer.states)
                if isinstance(answer, Moved) and isinstance(op, Move):
                    self.count_move(op, answer)

    def count_move(self, op: Move, answer: Moved) -> None:
        met = self.met
        met[type(op.pick), bool(answer.ids)] += 1
        expect: Any = op.expect
        form = type(next(iter(expect.values()), expect)) if isinstance(expect, dict) else type(expect)
        met["expect", form, bool(answer.ids)] += 1
        met["missing"] += bool(answer.missing)
        met["extended"] += bool(answer.ids) and op.source == op.target
        met["forgotten"] += bool(answer.ids) and op.target is None
        met["to the head"] += len(answer.ids) > 1 and op.front and isinstance(op.target, ops.ListKey)
        met["claimed by number"] += bool(answer.ids) and op.once is not None
        met["records given"] += bool(answer.records)
        met["counted"] += bool(answer.ids) and op.count is not None
        met["all moved", bool(answer.ids)] += op.whole
        met["records replaced"] += any(id_ in (op.records or ()) for id_ in answer.ids)


def run_machine(server: Server, met: Counter[Any], how: settings) -> None:
    class Machine(OnServer):
        pass

    Machine.client, Machine.real, Machine.met = server.client(), open_redis(server.url).storage(), met
    try:
        run_state_machine_as_test(Machine, settings=how)
    finally:
        Machine.real.close()
        Machine.client.close()


WANTED: list[Any] = [
    *((op, ending) for op in OPS for ending in (Applied, Refused, StorageRefused)),
    *((guard, failed) for guard in GUARDS for failed in (False, True)),
    *((query, some) for query in QUERIES for some in (False, True)),
    *((pick, some) for pick in (ops.Head, ops.Due, ops.These) for some in (False, True)),
    *(("expect", form, some) for form in (bytes, tuple, int, ops.NoClaim, type(None)) for some in (False, True)),
    *("stored", "same", "different", "missing", "extended", "forgotten", "to the head", "claimed by number"),
    *(
        "records given",
        "records replaced",
        "counted",
        "once refused",
        "repeated",
        "some would be skipped",
        ("all moved", True),
        "read refused",
        "waited",
        "mended",
    ),
]


def test_memory_and_server_agree(server: Server) -> None:
    met: Counter[Any] = Counter()
    lacking = WANTED
    for _ in range(4):  # more, in the rare case that something was not met
        run_machine(server, met, settings(max_examples=100, stateful_step_count=40))
        lacking = [what for what in WANTED if not met[what]]
        if not lacking:
            break
    assert lacking == []


MISTAKES = {
    "an extension may shorten a lease": ("'XX', 'GT'", "'XX'"),
    "the fence does not follow the clock": (") + 1, op.now)\n      local claim", ") + 1, 0)\n      local claim"),
    "an older request is not refused": ("mine < last", "mine + 1 < last"),
    "a repeated request answers what has left": ("and claims[i] == claim then", "then"),
    "jobs handed back come in reverse": ("reversed[i] = ids[m + 1 - i]", "reversed[i] = ids[i]"),
    "another job of the same id passes for this one": ("old:sub(1, 8) == ARGV[records + i]:sub(1, 8)", "old"),
    "records of finished jobs stay": ("send('HDEL', RECORDS, ids, 1, m)", ""),
    "claims of finished jobs stay": ("RECORDS, ids, 1, m)\n      send('HDEL', CLAIMS, ids, 1, m)", "RECORDS, ids, 1, m)"),
    "a record that is too long stops the queue": ("if size > max then", "if false then"),
    "more bytes are answered than were asked for": ("if bytes > max then", "if false then"),
    "skipped jobs lose their order": ("for i = #skipped, 1, -1 do", "for i = 1, #skipped do"),
    "the score is not compared": ("tonumber(ARGV[op.was + j])", "tonumber(present and present[i] or 0)"),
    "missing jobs are counted": ("HINCRBY', op.count, op.field, m)", "HINCRBY', op.count, op.field, #ids)"),
    "a dropped lock may be taken again": ("return till > 0", "return true"),
    "the wake-up is not passed on": ("rings = left > 0", "rings = false"),
    "a foreign key is found when half is written": ("  if seen ~= kind then\n    problem", "  if false then\n    problem"),
    "what an earlier batch emptied keeps its kind": (
        "if seen ~= kind then\n      local length",
        "if not seen then\n      local length",
    ),
    "an id that is in two places passes for whole": ("n + times ==", "min(n + times, 1) =="),
    "an id is mended though its record is another": ("elseif call('HGET', RECORDS, id) ~=", "elseif nil =="),
    "an id is mended though its record has another size": ("~= tonumber(op.seen) then", "== nil then"),
    "an id that is twice in a list is taken out once": ("'LREM', op.ready, 0, id", "'LREM', op.ready, 1, id"),
    "a move of all or none moves some": ("op.whole and holds.whole(op) or {}", "{}"),
    "a move of all or none needs no records": ("able[ids[i]] = call(", "able[ids[i]] = true or call("),
    "a put alone does not ring": ("if silent and rings then", "if false then"),
    "a put alone rings twice": ("if silent and rings then", "if rings then"),
}  # fmt: skip


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_script_is_found(
    running_servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    old, new = MISTAKES[mistake]
    sources = {name: getattr(scripts, name).source.decode() for name in ("PUT", "GROW", "DRAIN")}
    counts = {name: source.count(old) for name, source in sources.items()}
    assert max(counts.values()) == 1, f"{old} is there {counts} times"
    for name in [name for name in sources if counts[name]]:
        wrong = sources[name].replace(old, new).encode()
        monkeypatch.setattr(flow, name, scripts.Script(wrong, hashlib.sha1(wrong).hexdigest().encode()))

    with pytest.raises((AssertionError, TypeError, ValueError)):
        run_machine(
            running_servers("valkey"),
            Counter(),
            settings(
                max_examples=20_000,  # it stops at the first that differs: the rarest needs 500 in the mean
                stateful_step_count=40,
                phases=[Phase.generate],
                database=None,
                report_multiple_bugs=False,
            ),
        )
