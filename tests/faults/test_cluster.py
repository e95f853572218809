"""[F13] A cluster moves the slot of a queue from node to node, key by key, while its jobs flow."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.faults.apps.deeds import QUEUE
from tests.faults.ledger import await_that
from tests.faults.stage import NAMESPACE, Stage
from tests.servers import Server
from tests.storage.test_redis_nodes import MIDDLE, address, nodes, run, slot_of

__all__ = ["nodes"]

SLOT: Final = slot_of(f"{NAMESPACE}:{QUEUE}")
ON_ITS_WAY: Final = {"errorstat_ASK", "errorstat_TRYAGAIN"}
"""What a node answers for a slot that is moving."""


def move(here: Server, there: Server) -> None:
    """Move the slot and its keys, as an operator's tool does: between the steps the keys are on two nodes."""
    ids = [run(node, "CLUSTER", "MYID").decode() for node in (here, there)]
    run(there, "CLUSTER", "SETSLOT", SLOT, "IMPORTING", ids[0])
    run(here, "CLUSTER", "SETSLOT", SLOT, "MIGRATING", ids[1])
    while keys := run(here, "CLUSTER", "GETKEYSINSLOT", SLOT, 1):
        run(here, "MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)
    for node in (there, here):
        run(node, "CLUSTER", "SETSLOT", SLOT, "NODE", ids[1])


def test_fault(nodes: tuple[Server, Server], tmp_path: Path) -> None:
    pair = nodes
    stage = Stage(pair[0].client(), f"redis+cluster://{address(pair[0])}", tmp_path)
    jobs = stage.jobs()
    here, there = pair if SLOT < MIDDLE else pair[::-1]
    keys: set[str] = set()
    with stage.worker(jobs, lease=10), stage.worker(stage.jobs(), lease=10):
        for turn in range(60):  # six, but more while nobody has met a slot on its way
            if turn >= 6 and _errors(pair) & ON_ITS_WAY:
                break
            jobs.enqueue(stage.deed(f"delayed-{turn}"), delay=0.1)
            jobs.enqueue(stage.deed(f"fails-{turn}", fails=1))
            for number in range(10):
                jobs.enqueue(stage.deed(f"job-{turn}-{number}"))
                keys.add(f"job-{turn}-{number}")
            keys |= {f"delayed-{turn}", f"fails-{turn}"}
            move(here, there)
            here, there = there, here

        def settled() -> bool:
            counts = jobs.counts()[QUEUE]
            return (counts.waiting, counts.ready, counts.working, counts.dead) == (0, 0, 0, 0)

        await_that(lambda: keys <= set(stage.ledger.runs("end")), "all jobs run")
        await_that(settled, "all results stored")
    stage.ledger.check(keys, runs={key: 2 for key in keys if key.startswith("fails")})
    counters = run(here, "HKEYS", f"{{{NAMESPACE}:{QUEUE}}}:counters")
    assert b"rescued" not in counters, "a claim was torn, and its jobs waited for the end of a lease"
    met = _errors(pair)
    assert met & {"errorstat_MOVED"}, f"nobody met a slot that had moved: {met}"
    assert met & ON_ITS_WAY, f"nobody met a slot that was moving: {met}"
    stage.close()


def _errors(pair: tuple[Server, Server]) -> set[str]:
    return {name for node in pair for name in run(node, "INFO", "errorstats")}
