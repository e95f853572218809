"""What the server refuses: every step of a job's life while it does, and again when it does not any more.

Here a step is the very batch that the library sends for it, on a queue where it has something to do. What living runners
make of the same faults is in `test_trouble.py`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import redis

from jobqueue import JobQueue, Runner, transitions
from jobqueue.errors import NotApplied, StorageError, StorageRefused
from jobqueue.keys import QueueKeys, namespace_keys, queue_keys
from jobqueue.record import Stored, encode
from jobqueue.storage.ops import Applied, Batch, Moved, Put, claim_mark
from jobqueue.storage.protocol import Storage
from jobqueue.storage.redis import open_redis
from tests.conftest import MakeServer
from tests.faults.ledger import await_that
from tests.servers import Server, kinds, start_server

NOW: Final = 1_900_000_000_000
LEASE_MS: Final = 30_000
NAMES: Final = namespace_keys("refused")
QUEUE: Final = queue_keys("refused", "q")
STEPS: Final = ("ENQ", "PRO", "CLM", "ACK", "RTY", "DLQ", "REC", "HB", "LCK", "SHD")
SLOW_LOAD: Final = ("--key-load-delay", "100")
"""Microseconds per command. While it loads, the server answers after every 1024 of them."""
TOUCHED: Final = {"ENQ": "ready", "PRO": "waiting", "CLM": "ready", "LCK": "lock"}
"""The key that a foreign writer has spoilt (F23); ``working`` for the others."""


def _record(number: int) -> bytes:
    return encode(b"nonce--%d" % number, Stored("deed", b"{}", 3, 0, 0, NOW, NOW))


def _prepare(storage: Storage) -> bytes:
    """A job in each place, and one that we hold; answers the claim on it."""
    outcomes = storage.apply(
        [
            transitions.put(QUEUE, {b"held": _record(1)}, {}, {}),
            transitions.claim(QUEUE, b"me", 1, limit=1, now=NOW, lease=LEASE_MS, beat=5000),
            transitions.put(QUEUE, {b"next": _record(2)}, {b"due": _record(3)}, {b"due": NOW - 1}),
        ]
    )
    assert all(isinstance(outcome, Applied) for outcome in outcomes)
    claimed = outcomes[1]
    assert isinstance(claimed, Applied)
    [moved] = claimed.answers
    assert isinstance(moved, Moved)
    assert moved.ids == (b"held",)
    return claim_mark(b"me", moved.fence, 5000)


def _batch(step: str, queue: QueueKeys, mark: bytes) -> Batch:
    held = {b"held": mark}
    record = {b"held": _record(9)}
    match step:
        case "ENQ":
            return transitions.put(queue, {b"new": _record(4)}, {}, {})
        case "PRO":
            return transitions.promote(queue, NOW)
        case "CLM":
            return transitions.claim(queue, b"me", 2, limit=1, now=NOW, lease=LEASE_MS, beat=5000)
        case "ACK":
            return transitions.finish(queue, held)
        case "RTY":
            return transitions.move_out("retry", queue, held, record, {b"held": NOW + 9})
        case "DLQ":
            return transitions.move_out("bury", queue, held, record, {b"held": NOW + 9})
        case "REC":
            return transitions.rescue(queue, {b"held": (mark, NOW + LEASE_MS)}, record)
        case "HB":
            return transitions.extend(queue, held, NOW + 2 * LEASE_MS)
        case "SHD":
            return transitions.release(queue, held)
        case _:
            return transitions.take_lock(NAMES, "report", b"token", NOW, NOW + LEASE_MS, 0)


@attrs.define
class Bench:
    """A server of this module's own, and an operator's connection to it."""

    server: Server
    operator: redis.Redis
    data: Path

    def dump(self) -> dict[bytes, bytes]:
        """All keys as the server serialises them, but for the list of wake-up tokens."""
        names: Any = self.operator.keys("*")
        found: dict[bytes, Any] = {name: self.operator.dump(name) for name in sorted(names)}
        return {name: value for name, value in found.items() if not name.endswith(b":wake")}


@pytest.fixture(scope="module", params=kinds())
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    data = tmp_path_factory.mktemp("data")
    server = start_server(
        request.param, args=["--save", "3600 100000", "--dir", str(data), "--busy-reply-threshold", "20"]
    )
    operator = server.client()
    yield Bench(server, operator, data)
    operator.close()
    server.stop()


@contextlib.contextmanager
def read_only(bench: Bench, step: str) -> Iterator[None]:
    """F12: the server is a replica, whose primary is away."""
    bench.operator.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        bench.operator.replicaof("NO", "ONE")


@contextlib.contextmanager
def full(bench: Bench, step: str) -> Iterator[None]:
    """F14: no memory is left, and nothing may be evicted."""
    bench.operator.config_set("maxmemory", 1)
    try:
        yield
    finally:
        bench.operator.config_set("maxmemory", 0)


@contextlib.contextmanager
def no_connections(bench: Bench, step: str) -> Iterator[None]:
    """F16: all connections are taken."""
    clients: Any = bench.operator.client_list()
    bench.operator.config_set("maxclients", max(1, len(clients)))
    try:
        yield
    finally:
        bench.operator.config_set("maxclients", 1000)


@contextlib.contextmanager
def no_scripts(bench: Bench, step: str) -> Iterator[None]:
    """F17: the server has forgotten all scripts."""
    bench.operator.script_flush()
    yield


@contextlib.contextmanager
def busy(bench: Bench, step: str) -> Iterator[None]:
    """F19: somebody's script does not end."""
    spinning = bench.server.client()

    def spin() -> None:
        with contextlib.suppress(redis.RedisError):
            spinning.eval("while true do end", 0)

    thread = threading.Thread(target=spin)
    thread.start()

    def is_busy() -> bool:
        try:
            bench.operator.ping()
        except redis.ResponseError as error:
            return "BUSY" in str(error)
        return False

    await_that(is_busy, "the server busy")
    try:
        yield
    finally:
        bench.operator.script_kill()
        thread.join()
        spinning.close()


@contextlib.contextmanager
def spoilt(bench: Bench, step: str) -> Iterator[None]:
    """F23: somebody else wrote something else to a key of ours."""
    key = "{refused}:lock:report" if step == "LCK" else f"{{refused:q}}:{TOUCHED.get(step, 'working')}"
    kept = f"{key}:kept"
    existed = bool(bench.operator.exists(key))
    if existed:
        bench.operator.rename(key, kept)
    bench.operator.set(key, "something else")
    try:
        yield
    finally:
        bench.operator.delete(key)
        if existed:
            bench.operator.rename(kept, key)


@contextlib.contextmanager
def no_disk(bench: Bench, step: str) -> Iterator[None]:
    """F27: the last snapshot could not be written."""
    if bench.data.exists():
        shutil.rmtree(bench.data)
    bench.operator.config_set("stop-writes-on-bgsave-error", "yes")

    def failed() -> bool:
        info: Any = bench.operator.info("persistence")
        if info["rdb_last_bgsave_status"] == "err":
            return True
        with contextlib.suppress(redis.ResponseError):  # one is under way
            bench.operator.bgsave()
        return False

    await_that(failed, "a snapshot that fails")
    try:
        yield
    finally:
        bench.operator.config_set("stop-writes-on-bgsave-error", "no")


@contextlib.contextmanager
def no_permission(bench: Bench, step: str) -> Iterator[None]:
    """F28: the user may not run scripts any more."""
    bench.operator.acl_setuser("default", enabled=True, commands=["-evalsha", "-eval"])
    try:
        yield
    finally:
        bench.operator.acl_setuser("default", enabled=True, categories=["+@all"])


Fault = Callable[[Bench, str], contextlib.AbstractContextManager[None]]
FAULTS: Final[dict[str, tuple[Fault, str]]] = {
    "F12": (read_only, "replica"),
    "F14": (full, "raise maxmemory"),
    "F16": (no_connections, "maxclients"),
    "F17": (no_scripts, ""),
    "F19": (busy, "BUSY"),
    "F23": (spoilt, "Something other than jobqueue"),
    "F27": (no_disk, "disk"),
    "F28": (no_permission, "ACL"),
}


def _works(fault: str, step: str) -> bool:
    """Whether the step is not affected: a forgotten script is sent again, and a full server has to drain."""
    return fault == "F17" or (fault == "F14" and step != "ENQ")


@pytest.mark.parametrize("cell", [f"{fault}-{step}" for fault in FAULTS for step in STEPS])
def test_fault(cell: str, bench: Bench) -> None:
    fault, _, step = cell.partition("-")
    inject, advice = FAULTS[fault]
    bench.operator.flushall()
    server = open_redis(bench.server.url)
    storage = server.storage()
    mark = _prepare(storage)
    batch = _batch(step, QUEUE, mark)
    if fault == "F16":
        storage.close()  # a new connection is needed

    with inject(bench, step):
        before = bench.dump() if fault != "F19" else {}
        [outcome] = storage.apply([batch])
        after = bench.dump() if fault != "F19" else {}

        if _works(fault, step):
            assert isinstance(outcome, Applied)
            assert before != after
        else:
            assert isinstance(outcome, NotApplied)
            # Whether the server's last words are still read when it hangs up at once is a matter of luck.
            assert isinstance(outcome, StorageRefused) or fault == "F16"
            assert advice in str(outcome)
            assert before == after, "refused, so nothing changed"
    if not _works(fault, step):
        [outcome] = storage.apply([batch])
        assert isinstance(outcome, Applied), "the same batch, sent again"
        [answer] = outcome.answers
        assert not isinstance(answer, Moved) or len(answer.ids) == 1
    storage.close()


def test_a_full_server_applies_what_drains_in_the_same_call(bench: Bench) -> None:
    """[F14] A result, an extension and a claim that travel with an enqueue are not refused with it."""
    bench.operator.flushall()
    storage = open_redis(bench.server.url).storage()
    mark = _prepare(storage)
    batches = [_batch(step, QUEUE, mark) for step in ("ENQ", "HB", "ACK", "CLM")]
    assert any(isinstance(op, Put) for op in batches[0].ops)

    with full(bench, ""):
        outcomes = storage.apply(batches)

    assert [type(outcome) for outcome in outcomes] == [StorageRefused, Applied, Applied, Applied]
    storage.close()


def test_a_loading_server_refuses(own_server: MakeServer) -> None:
    """[F19] LOADING: nothing is applied, and the same batch is when the data is loaded."""
    server = own_server(
        "redis" if "redis" in kinds() else "valkey", args=["--appendonly", "yes", "--key-load-delay", "100"]
    )
    storage = open_redis(server.url).storage()
    batches = [transitions.put(QUEUE, {b"id%d" % number: _record(1)}, {}, {}) for number in range(6000)]
    assert all(isinstance(outcome, Applied) for outcome in storage.apply(batches))
    server.kill()
    starting = threading.Thread(target=server.restart)
    starting.start()
    refusals: list[str] = []

    def loaded() -> bool:
        [outcome] = storage.apply([transitions.put(QUEUE, {b"new": _record(7)}, {}, {})])
        assert isinstance(outcome, Applied | NotApplied)
        if isinstance(outcome, NotApplied):
            refusals.append(str(outcome))
        return isinstance(outcome, Applied)

    await_that(loaded, "the data loaded")
    starting.join()

    assert any("LOADING" in refusal for refusal in refusals), f"it was never seen loading: {set(refusals)}"
    storage.close()


# ------------------------------------------------------------------------------------------- a runner that starts meanwhile


class Started:
    """A runner on a thread, and what became of it."""

    def __init__(self, url: str) -> None:
        self.jobs = JobQueue(url, namespace="refused")
        self.ran: list[str] = []

        @self.jobs.job(name="deed", queue="q")
        def deed() -> None:
            self.ran.append("deed")
            self.runner.stop()

        self.deed = deed
        self.log = logging.getLogger(f"tests.{id(self)}")
        self.log.propagate = False
        self.lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: self.lines.append(record.getMessage())  # type: ignore[method-assign]
        self.log.addHandler(handler)
        self.runner = Runner(self.jobs, threads=1, queues=["q"], logger=self.log)
        self.ended: list[StorageError] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.runner.run(signals=False)
        except StorageError as error:
            self.ended.append(error)

    def start(self) -> None:
        self._thread.start()

    def waits(self) -> bool:
        """Whether it said twice that it waits."""
        return sum("waiting for the storage" in line for line in self.lines) >= 2

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.jobs.close()


def allow(bench: Bench, user: str, *rules: str) -> None:
    """Make a user with these rights and no others."""
    operator: Any = bench.operator
    operator.execute_command("ACL", "SETUSER", user, "reset", "on", ">pw", *rules)


@pytest.mark.parametrize("fault", ["F12", "F16", "F19", "F27"])
def test_a_runner_waits_at_its_start_for_what_passes(bench: Bench, fault: str) -> None:
    bench.operator.flushall()
    started = Started(bench.server.url)
    started.deed.enqueue()
    started.jobs.close()  # the runner needs new connections
    with FAULTS[fault][0](bench, ""):
        started.start()
        await_that(lambda: started.waits() or started.ended, "the runner waiting")
    started.join()

    assert started.ended == []
    assert started.ran == ["deed"]


@pytest.mark.parametrize("right", ["lpush", "hincrby", "blpop", "time", "zmscore", "evalsha"])
def test_a_runner_leaves_for_a_right_that_is_missing_before_it_claims(bench: Bench, right: str) -> None:
    bench.operator.flushall()
    Started(bench.server.url).deed.enqueue()
    allow(bench, "weak", "~*", "+@all", f"-{right}")
    started = Started(f"unix://weak:pw@{bench.server.socket}")
    started.start()
    started.join()

    [error] = started.ended
    assert isinstance(error, StorageRefused)
    assert right in str(error).lower()
    assert "deploy.md" in str(error)
    assert started.ran == []
    assert bench.operator.llen(QUEUE.ready.full) == 1
    assert bench.operator.exists("{refused}:runners") == 0


@pytest.mark.parametrize("keys", ["~{refused:q}:*", "~{refused}:* ~{refused:q}:re*"])
def test_a_runner_leaves_for_keys_that_it_may_not_use(bench: Bench, keys: str) -> None:
    bench.operator.flushall()
    allow(bench, "weak", "+@all", *keys.split())
    started = Started(f"unix://weak:pw@{bench.server.socket}")
    started.start()
    started.join()

    [error] = started.ended
    assert isinstance(error, StorageRefused)
    assert ("~{refused:q}:*" if " " in keys else "~{refused}:*") in str(error)


def test_a_runner_leaves_for_a_wrong_password(bench: Bench) -> None:
    started = Started(f"unix://nobody:pw@{bench.server.socket}")
    started.start()
    started.join()

    [error] = started.ended
    assert isinstance(error, StorageRefused)
    assert "password" in str(error)


def test_an_error_of_an_enqueue_says_whether_it_passes(bench: Bench) -> None:
    bench.operator.flushall()
    started = Started(bench.server.url)
    with read_only(bench, ""), pytest.raises(StorageRefused) as first:
        started.deed.enqueue()
    assert first.value.passes
    started.deed.enqueue()
    with full(bench, ""), pytest.raises(StorageRefused) as second:
        started.deed.enqueue()
    assert second.value.passes
    started.jobs.close()
    with no_permission(bench, ""), pytest.raises(StorageRefused) as third:
        Started(bench.server.url).deed.enqueue()
    assert not third.value.passes


def test_the_least_rights_are_enough(bench: Bench) -> None:
    """A producer, a runner and somebody who looks, each with the rights that the page on deployment gives them."""
    bench.operator.flushall()
    page = (Path(__file__).parents[2] / "docs/how-to/deploy.md").read_text()
    for name, rules in re.findall(r"^ACL SETUSER (\w+) on >\S+ (.+)$", page, re.MULTILINE):
        allow(bench, name, *rules.replace("shop", "refused").split())
    producer, runner, reader = [
        Started(f"unix://{name}:pw@{bench.server.socket}") for name in ("producer", "runner", "reader")
    ]
    producer.deed.enqueue()
    producer.deed.opts(delay=3600).enqueue()
    with producer.jobs.lock("report", ttl=60):
        pass

    runner.start()
    runner.join()

    assert runner.ended == []
    assert runner.ran == ["deed"]
    assert [line for line in runner.lines if "refused" in line and "namespace refused" not in line] == []
    [waiting] = reader.jobs.find(queue="q")
    assert waiting.place == "waiting"
    assert reader.jobs.counts()["q"].waiting == 1
    assert reader.jobs.get(waiting.id) == waiting
    assert reader.jobs.length("q") == 0
    assert len(reader.jobs.runners()) <= 1
    with pytest.raises(StorageRefused):
        reader.jobs.delete(waiting.id)
    runner.jobs.delete(waiting.id)
