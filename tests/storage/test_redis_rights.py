"""A user whose ACL lacks a right: refused before anything is written, with the right's name, whatever the call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import pytest

from jobqueue import transitions
from jobqueue.errors import NotApplied, StorageRefused
from jobqueue.keys import namespace_keys, queue_keys
from jobqueue.record import Stored, encode
from jobqueue.storage.ops import Applied, Batch, Fields, Moved, Page, Peek, Put, Query, Records, Sizes, claim_mark
from jobqueue.storage.redis import RedisStorage, open_redis
from tests.servers import Server, kinds, start_server

NOW: Final = 1_900_000_000_000
LEASE: Final = 30_000
SCRIPTS: Final = "\n".join(
    path.read_text()
    for folder in (files("jobqueue.storage.redis"), files("jobqueue.storage.redis").joinpath("interpret"))
    for path in folder.iterdir()
    if path.name.endswith(".lua")
)
COMMANDS: Final = sorted(
    {word.lower() for word in re.findall(r"'([A-Z]{3,})'", SCRIPTS)} - {"count", "limit", "novalues", "withscores"}
)
"""Every command that a script runs."""
NOT_NEEDED: Final = {"hgetall", "hlen", "hscan", "hsetnx", "zcount"}
"""What only questions run, and what has a substitute."""
STEPS: Final = {
    "enqueue": lambda q, n, held: transitions.put(q, {b"new": record(4)}, {}, {}),
    "bounded": lambda q, n, held: transitions.put(q, {b"new": record(4)}, {}, {}, 9),
    "schedule": lambda q, n, held: transitions.put(q, {}, {b"later": record(5)}, {b"later": NOW}),
    "promote": lambda q, n, held: transitions.promote(q, NOW),
    "claim": lambda q, n, held: transitions.claim(q, b"me", 2, limit=1, now=NOW, lease=LEASE, beat=5000),
    "finish": lambda q, n, held: transitions.finish(q, held),
    "retry": lambda q, n, held: transitions.move_out(
        "retry", q, held, {b"held": record(9)}, {b"held": NOW + 9}
    ),
    "rescue": lambda q, n, held: transitions.rescue(
        q, {b"held": (held[b"held"], NOW + LEASE)}, {b"held": record(9)}
    ),
    "extend": lambda q, n, held: transitions.extend(q, held, NOW + 2 * LEASE),
    "release": lambda q, n, held: transitions.release(q, held),
    "delete": lambda q, n, held: transitions.delete(q.ready, [b"next"], None),
    "close": lambda q, n, held: transitions.close_requests(q, b"me"),
    "register": lambda q, n, held: transitions.register_queue(n, "other", NOW),
    "mend": lambda q, n, held: transitions.mend(q, b"held", b"other", record(9), NOW),
    "lock": lambda q, n, held: transitions.take_lock(n, "report", b"token", NOW, NOW + LEASE, 0),
}  # fmt: skip


def record(number: int) -> bytes:
    return encode(b"nonce--%d" % number, Stored("deed", b"{}", 3, 0, 0, NOW, NOW))


QUEUE: Final = queue_keys("shop", "q")
NAMES: Final = namespace_keys("shop")


@attrs.define
class Bench:
    """A server, its operator, and a storage of a user whose rights the operator changes."""

    server: Server
    operator: Any
    storage: RedisStorage

    def allow(self, *rules: str) -> None:
        """The user's rights from now on; its connections stay."""
        self.operator.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)

    def prepare(self) -> dict[bytes, bytes]:
        """A job in each place, one of them held by us; answers the claim on that."""
        self.operator.flushall()
        self.allow("+@all", "~*")
        outcomes = self.storage.apply(
            [
                transitions.put(QUEUE, {b"held": record(1)}, {}, {}),
                transitions.claim(QUEUE, b"me", 1, limit=1, now=NOW, lease=LEASE, beat=5000),
                transitions.put(QUEUE, {b"next": record(2)}, {b"due": record(3)}, {b"due": NOW - 1}),
            ]
        )
        assert isinstance(outcomes[1], Applied)
        [moved] = outcomes[1].answers
        assert isinstance(moved, Moved)
        return {b"held": claim_mark(b"me", moved.fence, 5000)}

    def dump(self) -> dict[bytes, Any]:
        """All keys, as the server serialises them."""
        names: Any = self.operator.keys("*")
        return {name: self.operator.dump(name) for name in sorted(names)}

    def batch(self, step: str, held: dict[bytes, bytes]) -> Batch:
        return STEPS[step](QUEUE, NAMES, held)


@pytest.fixture(scope="module", params=kinds())
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    server = start_server(request.param)
    made = Bench(server, server.client(), open_redis(f"unix://app:pw@{server.socket}").storage())
    yield made
    made.storage.close()
    made.operator.close()
    server.stop()


def told(error: object) -> str:
    """The text of a refusal that says what is missing, on which keys, and where to look."""
    assert isinstance(error, StorageRefused), error
    assert not error.passes
    assert "nothing was changed" in str(error)
    assert "may have been done" not in str(error)
    assert "deploy.md" in str(error)
    return str(error)


def test_the_commands_are_found_in_the_scripts() -> None:
    assert {"zadd", "hset", "hexists", "rpush", "hdel", "pexpire", "type", "hincrby", "lpos"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_step_is_refused_before_its_first_write_or_not_at_all(bench: Bench, command: str) -> None:
    """[F28] The right is taken away while the connection stays."""
    refused = set()
    for step in STEPS:
        held = bench.prepare()
        before = bench.dump()
        bench.allow("+@all", f"-{command}", "~*")

        [outcome] = bench.storage.apply([bench.batch(step, held)])

        if isinstance(outcome, Applied):
            continue
        refused.add(step)
        assert f"{command.upper()} on {{shop" in told(outcome)
        assert f"+{command} ~{{shop" in str(outcome)
        assert bench.dump() == before
        bench.allow("+@all", "~*")
        [outcome] = bench.storage.apply([bench.batch(step, held)])
        assert isinstance(outcome, Applied), "the same batch, sent again"
    assert bool(refused) is (command not in NOT_NEEDED)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_batch_of_a_call_is_whole_or_refused(bench: Bench, command: str) -> None:
    steps = ("enqueue", "finish", "promote", "schedule", "claim")
    held = bench.prepare()
    bench.allow("+@all", f"-{command}", "~*")

    outcomes = bench.storage.apply([bench.batch(step, held) for step in steps])

    ended = dict(zip(steps, outcomes, strict=True))
    for outcome in outcomes:
        assert isinstance(outcome, Applied | StorageRefused), outcome
    client = bench.operator
    records: Any = client.hkeys("{shop:q}:records")
    ready: Any = client.lrange("{shop:q}:ready", 0, -1)
    places = [*ready]
    for name in ("waiting", "working"):
        placed: Any = client.zrange(f"{{shop:q}}:{name}", 0, -1)
        places += placed
    assert sorted(places) == sorted(records)
    assert (b"new" in records) is isinstance(ended["enqueue"], Applied)
    assert (b"held" in records) is not isinstance(ended["finish"], Applied)


READS: Final[dict[str, Query]] = {
    "lrange": Peek(QUEUE.ready, 0, 9),
    "llen": Sizes((QUEUE.ready,)),
    "zcard": Sizes((QUEUE.waiting,)),
    "zrange": Page(QUEUE.waiting, 9),
    "zcount": Page(QUEUE.waiting, 9, before=NOW),
    "hmget": Records("shop:q", (b"held",)),
    "zmscore": Records("shop:q", (b"held",)),
    "hgetall": Fields(QUEUE.counters),
    "type": Sizes((QUEUE.ready,)),
}


@pytest.mark.parametrize("command", READS)
def test_a_question_is_refused_by_the_name_of_the_right(bench: Bench, command: str) -> None:
    bench.prepare()
    bench.allow("+@all", f"-{command}", "~*")

    with pytest.raises(StorageRefused) as caught:
        bench.storage.read([READS[command]])

    assert f"{command.upper()} on {{shop:q}}:" in str(caught.value)
    assert "~{shop:q}:*" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "command"), [("enqueue", "rpush"), ("schedule", "zadd"), ("enqueue", "hset"), ("schedule", "hexists")]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_selector_for_one_key_is_no_right_to_the_others(bench: Bench, step: str, command: str, several: bool) -> None:
    """What is stored is placed: each command is asked about on the key that it is run on."""
    held = bench.prepare()
    before = bench.dump()
    key = "records" if command in ("rpush", "zadd") else "ready"
    bench.allow("+@all", f"-{command}", "~*", f"(+{command} ~{{shop:q}}:{key})")
    batch = bench.batch(step, held)
    if several:
        [put] = batch.ops
        assert isinstance(put, Put)
        more = {b"more": record(6), **put.records}
        score = put.score if not isinstance(put.score, Mapping) else dict.fromkeys(more, NOW)
        batch = Batch(batch.scope, (msgspec.structs.replace(put, records=more, score=score),))

    [outcome] = bench.storage.apply([batch])

    if command == "hset" and not several:
        assert isinstance(outcome, Applied), "a single job is stored by another command"
    else:
        assert f"{command.upper()} on {{shop:q}}:" in told(outcome)
        assert bench.dump() == before


def test_a_selector_for_the_list_is_no_right_to_ring(bench: Bench) -> None:
    """A single job is stored by a way of its own, which writes into two lists."""
    bench.prepare()
    bench.operator.delete("{shop:q}:wake")
    before = bench.dump()
    bench.allow("+@all", "-rpush", "~*", "(+rpush ~{shop:q}:ready)")

    [outcome] = bench.storage.apply([bench.batch("enqueue", {})])

    assert "RPUSH on {shop:q}:" in told(outcome)
    assert bench.dump() == before


@pytest.mark.parametrize("keys", ["~{shop:q}:re*", "%R~{shop:*", "~other*"])
def test_a_user_of_some_keys_only_is_told_the_pattern(bench: Bench, keys: str) -> None:
    for step in STEPS:
        held = bench.prepare()
        before = bench.dump()
        bench.allow("+@all", keys)
        batch = bench.batch(step, held)

        [outcome] = bench.storage.apply([batch])

        assert f"~{{{batch.scope}}}:*" in told(outcome)
        assert bench.dump() == before
    with pytest.raises(StorageRefused, match=re.escape("~{shop:q}:*")):
        bench.storage.read([Peek(QUEUE.ready, 0, 1)])
    with pytest.raises(StorageRefused, match=re.escape("~{shop:q}:*")):
        bench.storage.wait(["shop:q"], 0.01)


@pytest.mark.parametrize("command", ["evalsha", "blpop", "time"])
async def test_what_no_script_runs_is_named_too(bench: Bench, command: str) -> None:
    bench.prepare()
    bench.allow("+@all", f"-{command}", "~*")
    awaited = open_redis(f"unix://app:pw@{bench.server.socket}").async_storage()
    if command == "blpop":
        with pytest.raises(StorageRefused, match="blpop") as caught:
            bench.storage.wait(["shop:q"], 0.01)
        with pytest.raises(StorageRefused, match="blpop"):
            await awaited.wait(["shop:q"], 0.01)
    elif command == "time":
        with pytest.raises(StorageRefused, match="time") as caught:
            bench.storage.time_ms("shop:q")
    else:
        [outcome] = await awaited.apply([bench.batch("enqueue", {})])
        assert isinstance(outcome, NotApplied)
        with pytest.raises(StorageRefused, match="evalsha") as caught:
            bench.storage.read([READS["llen"]])
    told(caught.value)
    await awaited.close()


def test_the_rights_in_the_docs_are_enough(bench: Bench) -> None:
    """Each role of `docs/how-to/deploy.md` does what it is for, with these rights and no others."""
    page = (Path(__file__).parents[2] / "docs/how-to/deploy.md").read_text()
    roles = dict(re.findall(r"^ACL SETUSER (\w+) on >\S+ (.+)$", page, re.MULTILINE))
    assert set(roles) == {"producer", "runner", "reader"}
    does: dict[str, tuple[str, ...]] = {
        "producer": ("enqueue", "bounded", "schedule", "register"), "runner": tuple(STEPS), "reader": (),
    }  # fmt: skip
    for role, steps in does.items():
        held = bench.prepare()
        for step in steps:
            held = bench.prepare()
            bench.allow(*roles[role].split())
            again = open_redis(f"unix://app:pw@{bench.server.socket}").storage()
            [outcome] = again.apply([bench.batch(step, held)])
            assert isinstance(outcome, Applied), (role, step, outcome)
            again.close()
        bench.allow(*roles[role].split())
        bench.storage.read([*READS.values()] if role != "producer" else [READS["hgetall"]])
        if role == "runner":
            bench.storage.wait(["shop:q"], 0.01)
            bench.storage.time_ms("shop:q")
