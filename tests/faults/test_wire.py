"""Faults between client and server: each step of a job's life, cut by a proxy at the very request that takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.faults.proxy import Cut, Proxy
from tests.faults.scenes import SCENES, Cell, judge
from tests.faults.stage import Stage
from tests.servers import Server

CUTS: Final = {
    "F2": Cut.DUPLICATE,  # the caller died after the effect, and somebody else sends the same again
    "F3": Cut.LOSE_REPLY,
    "F4": Cut.LOSE_REQUEST,
    "F4b": Cut.DELAY,
    "F5": Cut.HOLE,
}
MAY_RUN_TWICE: Final = {"F5-ACK", "F5-RTY", "F5-DLQ"}
"""Cells with a ``d``."""


@pytest.fixture
def make_cell(server: Server, stage: Stage) -> Iterator[Callable[[str], Cell]]:
    proxies: list[Proxy] = []

    def make(fault: str) -> Cell:
        proxies.append(Proxy(server.socket))
        return Cell(stage, proxies[-1], CUTS[fault])

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.mark.parametrize("name", [f"{fault}-{step}" for fault in CUTS for step in SCENES])
def test_fault(name: str, make_cell: Callable[[str], Cell]) -> None:
    fault, _, step = name.partition("-")
    cell = make_cell(fault)

    accepted, dead = SCENES[step](cell)

    judge(cell, step, accepted, dead, again=name in MAY_RUN_TWICE)
    if step != "REC" and fault != "F5":
        assert b"rescued" not in cell.stage.counters(), "it was settled by sending again, not by the end of a lease"
