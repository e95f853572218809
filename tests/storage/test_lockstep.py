"""Memory and a real server do the same: every reply, every dump and every ring, after each step of random sequences.

The memory storage is the specification. Batches are sent twice, are held back and sent late, and meet keys that somebody
else has written to. The test fails too if the sequences did not meet every operation both applied and refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobqueue.errors import StorageRefused
from jobqueue.storage import ops
from jobqueue.storage.contents import Contents
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Batch, Move, Moved, Placed, Refused
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.storage.redis import flow, open_redis, scripts
from jobqueue.storage.sortedset import SortedSet
from tests.servers import Server
from tests.storage import batches as gen

pytestmark = pytest.mark.timeout(400)  # a few seconds each, but not on a machine that is busy with other things

OPS: tuple[type, ...] = (
    ops.ListPush, ops.SetAdd, ops.SetRemove, ops.HashSet, ops.HashAdd, ops.HashDelete, ops.LockTake, ops.LockDrop,
    ops.Put, ops.Move,
)  # fmt: skip
GUARDS = (ops.Absent, ops.FieldIs, ops.Member, ops.Unlocked, ops.Locked)
QUERIES = (ops.Peek, ops.Page, ops.Records, ops.Sizes, ops.Fields, ops.Holder)


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


seeds = st.integers(0, 2**32 - 1)


class Lockstep(RuleBasedStateMachine):
    """Two storages and the same steps."""

    client: redis.Redis
    real: Storage
    met: Counter[Any]

    sent = Bundle("sent")
    held = Bundle("held")

    @initialize()
    def start(self) -> None:
        self.client.flushall()
        self.memory = MemoryStorage()
        self.drawn = 0

    def random(self, seed: int) -> Random:
        """Different ones for equal seeds: most of the seeds that Hypothesis draws are equal to others."""
        self.drawn += 1
        return Random(seed << 16 | self.drawn)

    @property
    def contents(self) -> Contents:
        return self.memory._shared.contents

    def apply(self, these: list[Batch]) -> None:
        expected = self.memory.apply(these)
        got = self.real.apply(these)
        assert [comparable(outcome) for outcome in got] == [comparable(outcome) for outcome in expected], these
        for batch, outcome in zip(these, expected, strict=True):
            self.count(batch, outcome)
        self.compare()

    def run_of(self, random: Random, size: int) -> None:
        for _ in range(size):
            self.apply([gen.draw_batch(random, self.memory.dump())])
            self.ask([gen.draw_query(random, self.memory.dump())])

    def ask(self, queries: list[ops.Query]) -> None:
        try:
            expected = self.memory.read(queries)
        except StorageRefused:
            self.met["read refused"] += 1
            with pytest.raises(StorageRefused):
                self.real.read(queries)
            return
        assert self.real.read(queries) == expected, queries
        for query, answer in zip(queries, expected, strict=True):
            self.met[type(query), bool(answer)] += 1

    def compare(self) -> None:
        dump, rung = dump_of(self.client)
        assert dump == self.memory.dump()
        assert rung == {f"{{{scope}}}" for scope in self.memory._shared.bell._tokens}

    def count(self, batch: Batch, outcome: Outcome) -> None:
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
        if isinstance(outcome, Applied):
            for op, answer in zip(batch.ops, outcome.answers, strict=True):
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
        met["records replaced"] += any(id_ in (op.records or ()) for id_ in answer.ids)

    @rule(target=sent, seed=seeds)
    def send(self, seed: int) -> Batch:
        batch = gen.draw_batch(self.random(seed), self.memory.dump())
        self.apply([batch])
        return batch

    @rule(seed=seeds, size=st.integers(0, 4))
    def send_some_at_once(self, seed: int, size: int) -> None:
        dump, random = self.memory.dump(), self.random(seed)
        self.apply([gen.draw_batch(random, dump) for _ in range(size)])

    @rule(seed=seeds, size=st.integers(1, 12))
    def send_a_run(self, seed: int, size: int) -> None:
        self.run_of(self.random(seed), size)

    @rule(batch=sent)
    def send_again(self, batch: Batch) -> None:
        before = self.memory.dump()
        self.apply([batch])
        self.met["repeated"] += self.memory.dump() != before

    @rule(target=held, seed=seeds)
    def hold_back(self, seed: int) -> Batch:
        return gen.draw_batch(self.random(seed), self.memory.dump())

    @rule(target=sent, batch=consumes(held))
    def send_late(self, batch: Batch) -> Batch:
        self.apply([batch])
        return batch

    @rule(seed=seeds, name=st.sampled_from(["records", "records", "claims"]))
    def somebody_else_deletes_fields(self, seed: int, name: str) -> None:
        random = self.random(seed)
        scope = random.choice(gen.SCOPES)
        key = f"{{{scope}}}:{name}"
        fields = sorted(self.contents.hashes.get(key, ()))
        if fields:
            lost = random.sample(fields, (len(fields) + 1) // 2)
            self.client.hdel(key, *lost)
            self.contents.hash_delete(key, lost)
            for _ in range(2):  # those who hold these jobs notice first
                self.apply([Batch(scope, (gen.Draw(random, scope, self.memory.dump()).ending(),))])
            self.run_of(random, 4)

    @rule(
        name=st.sampled_from(["records", "requests", "counters", "ready", "working", "hash"]),
        kind=st.sampled_from(["list", "zset", "hash"]),
        seed=seeds,
    )
    def somebody_else_writes_a_key(self, name: str, kind: str, seed: int) -> None:
        batch = gen.draw_batch(self.random(seed), self.memory.dump())
        key = f"{{{batch.scope}}}:{name}"
        if key in self.memory.dump():
            return
        table: dict[str, Any]
        if kind == "list":
            self.client.rpush(key, b"a")
            table = self.contents.lists
            table[key] = deque([b"a"])
        elif kind == "zset":
            self.client.zadd(key, {b"a": 3})
            table = self.contents.sets
            table[key] = SortedSet()
            table[key].add({b"a": 3})
        else:
            self.client.hset(key, b"f", b"7")
            table = self.contents.hashes
            table[key] = {b"f": b"7"}
        self.apply([batch])
        self.ask([gen.draw_query(self.random(seed), self.memory.dump())])
        # It goes again, or soon nothing else would be met.
        self.client.delete(key)
        table.pop(key, None)

    @rule(seed=seeds, size=st.integers(0, 4))
    def read(self, seed: int, size: int) -> None:
        dump, random = self.memory.dump(), self.random(seed)
        self.ask([gen.draw_query(random, dump) for _ in range(size)])

    @precondition(lambda self: self.memory._shared.bell._tokens)
    @rule()
    def wait(self) -> None:
        self.memory.wait(gen.SCOPES, 0)
        self.real.wait(gen.SCOPES, 60)
        self.compare()
        self.met["waited"] += 1


def comparable(outcome: Outcome) -> object:
    """The outcome, without the words of an error."""
    return type(outcome) if isinstance(outcome, Exception) else outcome


def machine(server: Server, met: Counter[Any]) -> type[Lockstep]:
    class Machine(Lockstep):
        pass

    Machine.client, Machine.real, Machine.met = server.client(), open_redis(server.url).storage(), met
    return Machine


WANTED: list[Any] = [
    *((op, ending) for op in OPS for ending in (Applied, Refused, StorageRefused)),
    *((guard, failed) for guard in GUARDS for failed in (False, True)),
    *((query, some) for query in QUERIES for some in (False, True)),
    *((pick, some) for pick in (ops.Head, ops.Due, ops.These) for some in (False, True)),
    *(("expect", form, some) for form in (bytes, tuple, int, ops.NoClaim, type(None)) for some in (False, True)),
    *("stored", "same", "different", "missing", "extended", "forgotten", "to the head", "claimed by number"),
    *("records given", "records replaced", "counted", "once refused", "repeated", "read refused", "waited"),
]


def test_memory_and_server_agree(server: Server) -> None:
    met: Counter[Any] = Counter()
    lacking = WANTED
    for _ in range(4):  # more, in the rare case that something was not met
        run_state_machine_as_test(machine(server, met), settings=settings(max_examples=100, stateful_step_count=40))
        lacking = [what for what in WANTED if not met[what]]
        if not lacking:
            break
    assert lacking == []


MISTAKES = {
    "an extension may shorten a lease": ("'XX', 'GT'", "'XX'"),
    "the fence does not follow the clock": (") + 1, op.now)\n    local claim", ") + 1, 0)\n    local claim"),
    "an older request is not refused": ("mine < last", "mine + 1 < last"),
    "a repeated request answers what has left": ("and claims[i] == claim and stored[i]", ""),
    "jobs handed back come in reverse": ("reversed[i] = ids[m + 1 - i]", "reversed[i] = ids[i]"),
    "another job of the same id passes for this one": ("old:sub(1, 8) == record:sub(1, 8)", "old"),
    "records of finished jobs stay": ("send('HDEL', RECORDS, ids, 1, m)", ""),
    "claims of finished jobs stay": ("RECORDS, ids, 1, m)\n    send('HDEL', CLAIMS, ids, 1, m)", "RECORDS, ids, 1, m)"),
    "a head of one job too large stops the queue": ("if some and bytes > max", "if bytes > max"),
    "skipped jobs lose their order": ("for i = #skipped, 1, -1 do", "for i = 1, #skipped do"),
    "the score is not compared": ("tonumber(ARGV[op.was + j])", "tonumber(present and present[i] or 0)"),
    "missing jobs are counted": ("HINCRBY', op.count, op.field, m)", "HINCRBY', op.count, op.field, #ids)"),
    "a dropped lock may be taken again": ("return till > 0", "return true"),
    "the wake-up is not passed on": ("rings = left > 0", "rings = false"),
    "a foreign key is found when half is written": ("if seen ~= kind then", "if false then"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_script_is_found(
    running_servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    old, new = MISTAKES[mistake]
    for name in ("GROW", "DRAIN"):
        source = getattr(scripts, name).source.decode()
        assert source.count(old) == 1, f"{old} is {source.count(old)} times in the script"
        wrong = source.replace(old, new).encode()
        monkeypatch.setattr(flow, name, scripts.Script(wrong, hashlib.sha1(wrong).hexdigest().encode()))

    with pytest.raises((AssertionError, TypeError, ValueError)):
        run_state_machine_as_test(
            machine(running_servers("valkey"), Counter()),
            settings=settings(
                max_examples=1000,
                stateful_step_count=40,
                phases=[Phase.generate],
                database=None,
                report_multiple_bugs=False,
            ),
        )
