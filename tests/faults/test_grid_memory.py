"""The whole grid of faults and steps on the storage in memory, one test per cell; the table says what must hold in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import pytest

import jobqueue.flows
from jobqueue.errors import NotApplied
from jobqueue.record import Stored, encode
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import ListPush, Put
from jobqueue.testing import Fault
from tests.faults.play import SCENES, Play
from tests.faults.steps import STEPS
from tests.faults.world import BEAT, LEASE, Actor, Crashed, Trip, Wire, World

TABLE: Final = """
F1  | e | n | n | r  | rd | r  | r  | n | r | - | x | r
F2  | i | r | r | rd | .  | .  | .  | . | r | - | x | .
F3  | i | . | i | -  | i  | i  | i  | . | . | - | i | i
F4  | n | n | n | -  | n  | n  | n  | n | n | - | n | n
F4b | n | n | n | -  | n  | n  | n  | n | n | - | n | n
F5  | i | w | i | .  | rd | rd | r  | w | wr | - | x | wr
F6  | i | . | r | rd | ed | ed | ed | . | ed | - | x | d
F7  | - | - | - | rd | ed | ed | ed | . | wd | - | x | wd
F8  | i | . | i | .  | i  | i  | i  | . | w | - | x | w
F9  | L | d | d | d  | d  | d  | d  | . | wd | - | x | d
F10 | L | L | L | L  | L  | L  | L  | L | L | - | L | L
F11 | L | d | d | d  | d  | d  | d  | . | wd | - | x | d
F12 | e | w | w | .  | w  | w  | w  | w | w | - | w | w
F13 | e | w | w | .  | w  | w  | w  | w | w | - | w | w
F14 | e | . | . | .  | .  | .  | .  | . | . | - | . | .
F16 | e | w | w | .  | w  | w  | w  | w | w | - | w | w
F17 | n | n | n | .  | n  | n  | n  | n | n | - | n | n
F18 | i | w | i | .  | i  | i  | i  | w | w | - | x | w
F19 | n | n | n | .  | n  | n  | n  | n | n | - | n | n
F20 | . | . | . | .  | .  | .  | .  | . | . | - | x | .
F21 | . | . | . | .  | .  | .  | .  | . | . | - | . | .
F23 | e | e | e | .  | e  | e  | e  | e | e | - | e | e
F24 | e | - | - | rd | ed | ed | ed | . | r | - | x | rd
F25 | e | - | w | -  | -  | -  | -  | - | w | - | - | .
F27 | e | e | e | .  | e  | e  | e  | e | e | - | e | e
F28 | e | e | e | .  | e  | e  | e  | e | e | - | e | e
F29 | . | . | . | .  | .  | .  | .  | . | . | - | . | .
F30 | - | . | . | .  | .  | .  | .  | . | . | - | - | .
"""
"""Rows are faults, columns the steps. ``.`` completes, ``n`` nothing happened, ``i`` settled by sending again, ``e`` a loud
error and nothing changed, ``w`` waits and goes on, ``x`` a lock ends and its next holder has a greater fence; ``r`` and
``d`` allow one more run, ``L`` allows a loss; ``-`` cannot be.

A promotion travels with a claim in one call, so after PRO a claim may have been made or undone as well.

There is no cron yet, so that its column is empty. F15 is refused at the start (a server that evicts); F22 is in
``test_rubbish``; F26 needs processes and event loops, and is tested on real servers.
"""
HOLD: Final = 1_000
"""Milliseconds for which a server refuses, or is away: less than a lease."""


def cells() -> dict[str, str]:
    """Name of a cell → its code."""
    found: dict[str, str] = {}
    for line in TABLE.strip().splitlines():
        row, *codes = (part.strip() for part in line.split("|"))
        found |= {f"{row}-{step}": code for step, code in zip(STEPS, codes, strict=True) if code != "-"}
    return found


CELLS: Final = cells()


# -------------------------------------------------------------------------------------------------------------- faults


def _crash(wire: Wire) -> None:
    if wire.actor is not None:
        wire.actor.crash()
    raise Crashed


def _crash_before(wire: Wire) -> Fault:
    _crash(wire)
    return Fault.OK


def _pause(wire: Wire) -> None:
    if wire.actor is not None:
        wire.actor.pause(3 * LEASE)
    else:
        wire.world.spend(3 * LEASE)


def _pause_before(wire: Wire) -> Fault:
    _pause(wire)
    return Fault.OK


def _late(wire: Wire) -> None:
    while wire.stalled:
        wire.deliver()


def _slow(wire: Wire) -> Fault:
    wire.world.spend(600)
    return Fault.STALLED


def _restarts(wire: Wire) -> Fault:
    wire.world.refuse(HOLD)
    return Fault.REPLY_LOST


def _refuses(wire: Wire) -> Fault:
    wire.world.refuse(HOLD)
    return Fault.REFUSED


def _full(wire: Wire) -> Fault:
    world = wire.world
    world.refuse(HOLD, lambda batch: batch is not None and any(isinstance(op, Put | ListPush) for op in batch.ops))
    return Fault.REFUSED if wire.trip is not None and wire.trip.step == "ENQ" else Fault.OK


def _stalls(wire: Wire) -> Fault:
    wire.world.stalled_until = wire.world.local + 1.5 * LEASE
    wire.world.stall()
    return Fault.OK


def _partition(wire: Wire) -> Fault:
    wire.dark = True
    wire.world.later(3 * LEASE, lambda: setattr(wire, "dark", False))
    return Fault.REQUEST_LOST


def _undo(play: Play) -> Trip:
    """What the sender was told has happened is undone."""
    saved: list[MemoryStorage] = []

    def before(wire: Wire) -> Fault:
        saved.append(wire.world.memory.copy())
        return Fault.OK

    return Trip(play.step, before=before, after=lambda wire: wire.world.memory.restore(saved[-1]))


def _fail_over(play: Play) -> Trip:
    """A copy takes over that has heard nothing of the last moments."""
    copies = [play.world.memory.copy()]

    def copying() -> None:
        copies.append(play.world.memory.copy())
        del copies[:-4]
        play.world.later(50, copying)

    copying()
    return Trip(play.step, after=lambda wire: wire.world.memory.restore(copies[0]))


def _jump(by: int) -> Callable[[Play], Trip]:
    """The server's clock jumps, and is put right after some seconds."""

    def make(play: Play) -> Trip:
        def before(wire: Wire) -> Fault:
            world = wire.world
            world.now += by
            world.later(3 * LEASE, lambda: setattr(world, "now", world.now - by))
            return Fault.OK

        return Trip(play.step, before=before)

    return make


def _skew(play: Play) -> Trip:
    play.world.skew = 3_600_000
    return Trip(play.step)


def _spoil(play: Play) -> Trip:
    """Somebody else writes something else to a key of ours, and takes it away again."""

    def before(wire: Wire) -> Fault:
        world = wire.world
        contents = world.memory._shared.contents
        name = "{world}:lock:report" if play.step == "LCK" else f"{{world:q}}:{SPOILT[play.step]}"
        tables: list[Any] = [contents.lists, contents.sets, contents.locks]
        kept = [(table, table.pop(name)) for table in tables if name in table]
        contents.hashes[name] = {b"something": b"else"}
        world.lawless = True

        def mend() -> None:
            del contents.hashes[name]
            for table, value in kept:
                table[name] = value
            world.lawless = False

        world.later(HOLD, mend)
        return Fault.OK

    return Trip(play.step, before=before)


SPOILT: Final = {"ENQ": "ready", "PRO": "waiting", "CLM": "ready"} | dict.fromkeys(
    ["RUN", "ACK", "RTY", "DLQ", "REC", "HB", "SHD"], "working"
)


def _down_at_first(play: Play) -> Trip:
    if play.step != "ENQ":  # those of the other scenes have been enqueued before the server went down
        play.world.later(0, lambda: play.world.refuse(HOLD))
    else:
        play.world.refuse(HOLD)
    return Trip(play.step)


def _newer(play: Play) -> Trip:
    """Records were written by a newer version, and have a field more."""

    def after(wire: Wire) -> None:
        dump: dict[str, Any] = wire.world.memory.dump()
        for id, record in dump.get("{world:q}:records", {}).items():
            assert b"from the future" in record, f"{id!r} lost a field"

    return Trip(play.step, after=after, times=10**6)


def _told_to_stop(wire: Wire) -> Fault:
    assert wire.actor is not None
    wire.actor.stop()
    return Fault.OK


def _simple(before: Callable[[Wire], Fault], **more: Any) -> Callable[[Play], Trip]:
    return lambda play: Trip(play.step, before=before, **more)


def _after(act: Callable[[Wire], None]) -> Callable[[Play], Trip]:
    return lambda play: Trip(play.step, after=act)


def _zombie(play: Play) -> Trip:
    return (
        Trip(play.step, after=_pause) if play.step in ("ENQ", "CLM", "LCK") else Trip(play.step, before=_pause_before)
    )


FAULTS: Final[Mapping[str, Sequence[Callable[[Play], Trip]]]] = {
    "F1": [_simple(_crash_before)],
    "F2": [_after(_crash)],
    "F3": [_simple(lambda _: Fault.REPLY_LOST), _simple(lambda _: Fault.REPLY_LOST, times=2)],
    "F4": [_simple(lambda _: Fault.REQUEST_LOST), _simple(lambda _: Fault.REQUEST_LOST, times=2)],
    "F4b": [_simple(lambda _: Fault.STALLED, repeated=_late)],
    "F5": [_simple(_slow, times=2, repeated=_late)],
    "F6": [_zombie],
    "F7": [_simple(_pause_before)],
    "F8": [_simple(_restarts), _simple(_refuses)],
    "F9": [_undo],
    "F10": [_after(lambda wire: wire.world.memory.restore(MemoryStorage()))],
    "F11": [_fail_over],
    "F14": [_simple(_full)],
    "F17": [_simple(lambda _: Fault.REFUSED)],
    "F18": [_simple(_stalls)],
    "F20": [_jump(45_000), _jump(-3_600_000)],
    "F21": [_skew],
    "F23": [_spoil],
    "F24": [_simple(_partition)],
    "F25": [_down_at_first],
    "F29": [_newer],
    "F30": [_simple(_told_to_stop)],
    **{fault: [_simple(_refuses)] for fault in ("F12", "F13", "F16", "F19", "F27", "F28")},
}


@pytest.mark.parametrize("cell", CELLS)
def test_fault(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, _, step = cell.partition("-")
    for make in FAULTS[fault]:
        with monkeypatch.context() as patch:
            if fault == "F29":
                patch.setattr(jobqueue.flows, "encode", _with_another_field)
            play = Play(World(patch), step)
            play.trip = make(play)
            _perform(play, fault, CELLS[cell])


def _with_another_field(nonce: bytes, stored: Stored) -> bytes:
    record = encode(nonce, stored)
    fields = msgspec.msgpack.decode(record[len(nonce) :], type=list[msgspec.Raw])
    names = Stored.__struct_fields__[len(fields) :]
    return nonce + msgspec.msgpack.encode([*fields, *(getattr(stored, name) for name in names), "from the future"])


def _perform(play: Play, fault: str, code: str) -> None:
    world = play.world
    SCENES[play.step](play)
    assert play.trip is not None
    assert play.trip.hit, "the fault did not happen, so nothing was tested"
    if play.step == "LCK":
        assert play.fences == sorted(set(play.fences)), f"each holder has a greater fence: {play.fences}"
        assert play.refused or code not in ("e", "w"), "a refusal is loud"
        return
    peer = Actor(world, "peer")
    world.gate_open = True
    if code == "e" and play.step == "ENQ" and fault != "F1":
        assert isinstance(play.refused[0], NotApplied) or fault == "F24"
    if "L" not in code:
        world.until(lambda: world.settled(play.dead), "all jobs at their end")
    else:
        world.spend(6 * LEASE)
        assert all(place == "dead" for place in world.places().values())
    play.enqueue("fresh")
    world.until(lambda: world.runs("end")["fresh"], "a new job run")
    world.until(lambda: world.settled(len(world.places())) or world.settled(play.dead), "nothing left")
    _judge(play, fault, code)
    peer.stop()
    world.until(lambda: peer.gone, "the end of the peer")


def _judge(play: Play, fault: str, code: str) -> None:
    world = play.world
    started, ended = world.runs(), world.runs("end")
    known = play.accepted | ({"a"} if play.step == "ENQ" and fault == "F2" else set())
    again = bool(set(code) & set("rd"))
    assert set(started) <= known, "unexpected"
    for key, count in started.items():
        wanted = play.runs.get(key, 1)
        assert count <= wanted + again, f"{key} ran {count} times: {world.ledger}"
    if "L" not in code:
        assert set(ended) | ({"doomed"} if play.dead else set()) >= known, f"lost: {world.ledger}"
        assert world.count(b"done") == len(known) - play.dead or fault in ("F9", "F11"), "each success counts once"
    fences: dict[str, list[int]] = {}
    for what, key, fence, _ in world.ledger:
        if what == "start":
            fences.setdefault(key, []).append(fence)
    assert all(seen == sorted(set(seen)) for seen in fences.values()), f"fences grow: {fences}"
    if not again and "L" not in code and play.step != "REC" and "x" not in code:
        assert not world.count(b"rescued"), "nobody was robbed"


def test_the_table_has_every_cell() -> None:
    """Twelve columns; a row that is missing here is named with the reason in the table's docstring."""
    rows = {cell.partition("-")[0] for cell in CELLS}
    missing = {f"F{number}" for number in range(1, 31)} - rows

    assert missing == {"F15", "F22", "F26"}
    assert rows == set(FAULTS)
    assert {cell.partition("-")[2] for cell in CELLS} == set(STEPS) - {"CRN"}
    assert BEAT * 6 == LEASE
