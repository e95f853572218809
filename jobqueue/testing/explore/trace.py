"""The way to a state, told line by line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from jobqueue.testing.explore.programs import Ask, Idle, Run
from jobqueue.testing.explore.search import Search
from jobqueue.testing.explore.states import Action, State

__all__ = ["describe"]

_FAULTS: Final = {
    "reply lost": "takes effect, the reply is lost",
    "sent twice": "takes effect; a second copy is still on its way",
    "delayed": "gets no answer; it is still on its way",
    "refused": "is refused, nothing happened",
    "arrive": "takes effect",
}


def describe(search: Search, path: Sequence[tuple[Action, State]], names: Sequence[str]) -> str:
    """One line per step: milliseconds since the start, who, what, and what it did to jobs."""
    lines: list[str] = []
    for (_, before), (action, after) in pairwise(path):
        at = search.moment(after)
        who, what = _step(search, before, action, after, names)
        lines.append(f"{len(lines) + 1:4}  {at.local:5.0f} ms  {who:<10} {what}{_moves(search, before, after)}")
    return "\n".join(lines)


def _step(search: Search, before: State, action: Action, after: State, names: Sequence[str]) -> tuple[str, str]:
    nodes = search.programs.nodes
    if action.what in _FAULTS:
        name = names[search.stores.parts[action.part].sender]
        return "storage", f"{_part(search, action.part)} of {name} {_FAULTS[action.what]}"
    if action.what == "late":
        name = names[search.stores.parts[action.part].sender]
        return "storage", f"{_part(search, action.part)} of {name} arrives late"
    if action.what == "go on":
        was, now = nodes[before.actors[action.who][0]], nodes[after.actors[action.who][0]]
        ended = f"ends: {was.request.what}; " if isinstance(was.request, Run) else ""
        return names[was.process], ended + _does(search, after.actors[action.who][0], now.request)
    if action.what == "time passes":
        return "clock", f"{search.moment(after).local - search.moment(before).local:.0f} ms pass"
    if action.what.startswith("jump"):
        return "clock", f"the server's clock jumps by {after.skew - before.skew:+} ms"
    told = {"crash": "dies", "pause": "falls asleep", "wake": "wakes up"}
    return names[action.who], told[action.what]


def _does(search: Search, node: int, request: object) -> str:
    match request:
        case Ask():
            return "sends " + " and ".join(_part(search, part) for part in search.parts_of(node))
        case Run(what):
            return what
        case Idle():
            return "rests"
        case None:
            return "is through"
        case _:
            return "has a look"


def _part(search: Search, number: int) -> str:
    part = search.stores.parts[number]
    meant = ", ".join(id.decode() for id, _ in part.meant)
    return f"[{' + '.join(part.steps)}{f' of {meant}' if meant else ''}]"


def _moves(search: Search, before: State, after: State) -> str:
    if before.store == after.store:
        return ""
    old, new = search.stores.spots[before.store], search.stores.spots[after.store]
    told = []
    for id in sorted(old.keys() | new.keys()):
        was, now = old.get(id), new.get(id)
        if was != now:
            places = f"{was.place if was else '–'} → {now.place if now else '–'}"
            score = f", {now.score}" if now and now.score else ""
            claim = f", {now.claim.decode()}" if now and now.claim else ""
            told.append(f"{id.decode()}: {places}{score}{claim}")
    return f"\n{'':25}{'; '.join(told)}" if told else ""
