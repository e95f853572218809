"""Walks through every state that a scenario can reach, breadth first, so that what it finds is shortest."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from jobqueue.clock import Moment, monotonic_s
from jobqueue.testing.explore.history import Broken, Past
from jobqueue.testing.explore.programs import NOT_APPLIED, UNKNOWN, Ask, Idle, Look, Part, Programs, Run, Told
from jobqueue.testing.explore.states import FAULTS, LOST, PENDING, REFUSED, Action, Found, Numbers, State, Totals
from jobqueue.testing.explore.stores import Spot, Stores

__all__ = ["Conditions", "Rules", "Search"]

_NO_REPLY: Final = {LOST: UNKNOWN, REFUSED: NOT_APPLIED}


class Conditions:
    """What `Idle` programs wait for; a method per condition."""

    def holds(self, name: str, args: tuple[Any, ...], search: Search, store: int, at: Moment, memory: Any) -> bool:
        """Whether the condition is fulfilled."""
        raise NotImplementedError


@attrs.frozen
class Rules:
    """What may happen in a scenario.

    Attributes:
        ticks: How many ms each tick lets pass.
        free: How many ticks may pass although nothing waits for them.
        urgent: Whether all living processes do what they can do at once before time passes.
        long: What may take time even so: the runs whose name ends so. The others end in the instant in which they
            start, in any order with everything else there.
        pause: Whether a process may be put to sleep and woken after a tick.
        crash: Whether a process may end at any point.
        jumps: How far (ms) the server's clock may jump ahead or (below 0) back, within the free ticks.
        rescue: How long (ms) after the end of a lease the job must have been brought back; None: nobody does.
        latest: The last tick at which something late may still arrive: later it is lost.
        alike: How many of the first processes differ in nothing but their names. Then the first of them that changes
            the storage is called the first, and what happens with other names need not be looked at.
        waits: Answers whether somebody waits for time to pass.
        aged: Answers the arguments of a program that waits, as they mean the same from a later time (local ms) on. Handed
            the program, its arguments, that time, the time at which all ends, where the jobs are, and the ends of leases
            that requests under way ask for.
        apart: Whether it comes to the same when a part under way arrives, as long as no fault is left. Handed the part,
            where the jobs are, the clocks, and the memory of the sender.
        wakes: The last tick at which a sleeper wakes, where what has to happen afterwards needs its time.
    """

    ticks: tuple[int, ...]
    free: int
    urgent: bool
    long: str
    pause: bool
    crash: bool
    jumps: tuple[int, ...]
    rescue: int | None
    latest: int
    alike: int
    waits: Callable[[Search, State], bool]
    aged: Callable[[Any, tuple[Any, ...], float, float, dict[bytes, Spot], frozenset[int]], tuple[Any, ...]] = (
        lambda _program, args, _local, _end, _spots, _coming: args
    )
    apart: Callable[[Part, dict[bytes, Spot], Moment, Any], bool] = lambda _part, _spots, _at, _memory: False
    wakes: int = 99


class Search:
    """One scenario's states.

    Args:
        stores: What the storage can hold.
        programs: What actors can be.
        conditions: What actors wait for.
        past: What is remembered and checked.
        rules: What may happen.
        start: Local and server time at the start, in ms.
    """

    def __init__(
        self, stores: Stores, programs: Programs, conditions: Conditions, past: Past, rules: Rules, start: int
    ) -> None:
        self.stores = stores
        self.programs = programs
        self.rules = rules
        self._conditions = conditions
        self._past = past
        times = [start]
        for tick in rules.ticks:
            times.append(times[-1] + tick)
        self._times = times
        self._moments: dict[tuple[int, int], Moment] = {}
        # What is compared often is compared by number.
        self.pasts = Numbers()
        self.memories = Numbers()
        self._answers = Numbers()
        self._answer_to: dict[tuple[int, int], int] = {}
        self._steps: dict[tuple[Any, ...], tuple[int, int, tuple[Told, ...]]] = {}
        self._parts: dict[int, tuple[int, ...]] = {}
        self._ready: dict[tuple[Any, ...], bool] = {}
        self._ages: dict[tuple[Any, ...], int] = {}
        self._same: dict[Any, Any] = {}

    # ------------------------------------------------------------------------------------------------------ the walk

    def walk(
        self, first: State, totals: Totals, progress: Callable[[Totals, int], None], most: int | None = None
    ) -> None:  # fmt: skip
        """Visit every state.

        Args:
            first: Where to begin.
            totals: What was walked through; filled in.
            progress: Called now and then with what was done and how many known states are still to be visited.
            most: Stop after so many states; what is then known covers less.

        Raises:
            Found: An invariant is broken.
        """
        begun = monotonic_s()
        waiting: deque[State] = deque([first])
        seen = {first: 0}
        came = array("q", [-1])
        actions: list[Action] = [Action("start")]
        at = last = 0  # where the states of one more step begin
        while waiting:
            state = waiting.popleft()
            if at == last:
                last = len(seen)
                totals.depth += 1
            leaf = True
            try:
                for action, then in self._next(state):
                    totals.transitions += 1
                    if action.what in FAULTS:
                        totals.faults[action.what] = totals.faults.get(action.what, 0) + 1
                    elif action.what != "late":
                        leaf = False
                    if then is state:
                        continue
                    if then not in seen:
                        seen[then] = len(seen)
                        waiting.append(then)
                        came.append(at)
                        actions.append(self._same.setdefault(action, action))
                if leaf:
                    totals.leaves += 1
                    self._end(state)
            except Broken as broken:
                totals.states, totals.seconds = at, monotonic_s() - begun
                raise Found(_path(list(seen), came, actions, at), str(broken)) from None
            at += 1
            if at % 2048 == 0:
                totals.states, totals.seconds = at, monotonic_s() - begun
                progress(totals, len(waiting))
                if most is not None and at >= most:
                    totals.complete = False
                    break
        totals.states, totals.seconds = at, monotonic_s() - begun

    def _end(self, state: State) -> None:
        ended = all(
            state.processes[self.programs.nodes[node].process][0] == "dead"
            or isinstance(self.programs.nodes[node].request, Idle | None)
            for node, _ in state.actors
        )
        spots = self.stores.spots[state.store]
        if state.time == len(self.rules.ticks):
            # Time was cut here: what is due later, or is brought back later, cannot have moved.
            late = {"waiting": self.moment(state).now}
            if self.rules.rescue is not None:
                late["working"] = late["waiting"] - self.rules.rescue
            spots = {id: spot for id, spot in spots.items() if spot.score <= late.get(spot.place, spot.score)}
        self._past.end(self.pasts.values[state.past], spots, [status for status, _ in state.processes], ended=ended)

    def moment(self, state: State) -> Moment:
        """The clocks in a state."""
        key = (state.time, state.skew)
        moment = self._moments.get(key)
        if moment is None:
            local = self._times[state.time]
            moment = self._moments[key] = Moment(local + state.skew, float(local - self._times[0]))
        return moment

    # ------------------------------------------------------------------------------------------------ what may happen

    def _next(self, state: State) -> Iterator[tuple[Action, State]]:
        busy = False
        at = self.moment(state)
        if not state.faults and (who := self._alone(state, at)) is not None:
            pending = state.actors[who][1]
            if PENDING in pending:
                yield from self._arrive(state, who, pending.index(PENDING), at)
            else:
                yield Action("go on", who), self._resume(state, who, at)
            return
        for who, (node, parts) in enumerate(state.actors):
            process = self.programs.nodes[node].process
            status, memory = state.processes[process]
            if status == "dead":
                continue
            for index, settled in enumerate(parts):
                if settled == PENDING:
                    busy = busy or status == "runs"
                    yield from self._arrive(state, who, index, at)
            if status == "runs" and PENDING not in parts and self._can_resume(state, node, memory, at):
                request = self.programs.nodes[node].request
                busy = busy or not (isinstance(request, Run) and self._is_long(request))
                yield Action("go on", who), self._resume(state, who, at)
        for index, part in enumerate(state.late if state.time <= self.rules.latest else ()):
            if self._is_other_name(state, part):
                yield Action("mirrored"), state
                continue
            late = state.late[:index] + state.late[index + 1 :]
            yield Action("late", part=part), self._apply(state._replace(late=late), part, at)
        yield from self._happen(state)
        asleep = any(status == f"sleeps@{state.time}" for status, _ in state.processes)
        if (
            state.time < len(self.rules.ticks)
            and not (state.time >= self.rules.wakes and any(status[0] == "s" for status, _ in state.processes))
            and not (busy and self.rules.urgent)
            and (state.time < self.rules.free or asleep or self.rules.waits(self, state))
        ):
            yield Action("time passes"), self._tick(state)

    def _alone(self, state: State, at: Moment) -> int | None:
        """An actor whose next step nobody can see and nobody can influence, so that it may as well be the very next one.

        That is a beat that sets out, as long as its runner does not wait for the answer to a claim, which might bring
        what is to be extended. And it is the end of a run that takes no time, as long as nothing else of its process is
        under way: it reads the clock and sends what is decided. If it starts the next job, then under a claim that is
        certain until later, and whoever takes such a job breaks an invariant, before the start and after it. And it is
        the arrival of what the rules say is `Rules.apart` from all else.
        """
        for who, (node, parts) in enumerate(state.actors):
            found = self.programs.nodes[node]
            status, memory = state.processes[found.process]
            if status != "runs":
                continue
            if isinstance(found.request, Idle) and found.request.until == "beat":
                waits = any(
                    isinstance(other.request, Ask) and other.process == found.process
                    for other in (self.programs.nodes[number] for number, _ in state.actors)
                )
                if not waits and self._can_resume(state, node, memory, at):
                    return who
            elif isinstance(found.request, Ask):
                spots, known = self.stores.spots[state.store], self.memories.values[memory]
                part = next((part for part, to in zip(self.parts_of(node), parts, strict=True) if to == PENDING), None)
                if part is not None and self.rules.apart(self.stores.parts[part], spots, at, known):
                    return who
            elif isinstance(found.request, Run) and not self._is_long(found.request):
                others = (number for number, _ in state.actors if self.programs.nodes[number].process == found.process)
                if not any(other != node and self._can_resume(state, other, memory, at) for other in others):
                    return who
        return None

    def _is_long(self, run: Run) -> bool:
        return bool(self.rules.long) and run.what.endswith(self.rules.long)

    def _happen(self, state: State) -> Iterator[tuple[Action, State]]:
        """Crashes, pauses and jumps of clocks."""
        last = min(len(self.rules.ticks), self.rules.wakes)
        for process, (status, memory) in enumerate(state.processes):
            if status.startswith("sleeps"):
                if status != f"sleeps@{state.time}" or state.time == len(self.rules.ticks):
                    yield Action("wake", process), self._set(state, process, "runs", memory)
            elif status == "runs" and state.faults and self._mortal(state, process):
                fewer = state._replace(faults=state.faults - 1)
                if self.rules.crash:
                    yield Action("crash", process), self._crash(fewer, process)
                if self.rules.pause and state.time < last and self._in_the_middle(state, process):
                    yield Action("pause", process), self._set(fewer, process, f"sleeps@{state.time}", memory)
        if state.faults and state.time <= self.rules.free:
            for by in self.rules.jumps:
                jumped = self._shared(state._replace(faults=state.faults - 1, skew=state.skew + by))
                yield Action("jump ahead" if by > 0 else "jump back"), jumped

    def _mortal(self, state: State, process: int) -> bool:
        """Whether there is anything left that it could die of: one that is through need not."""
        return any(
            self.programs.nodes[node].process == process and self.programs.nodes[node].request is not None
            for node, _ in state.actors
        )

    def _in_the_middle(self, state: State, process: int) -> bool:
        """Whether it makes a difference that a process sleeps: it holds or does something."""
        return bool(self.memories.values[state.processes[process][1]]) or any(
            not isinstance(self.programs.nodes[node].request, Idle | None)
            for node, _ in state.actors
            if self.programs.nodes[node].process == process
        )

    def _arrive(self, state: State, who: int, index: int, at: Moment) -> Iterator[tuple[Action, State]]:
        """A part reaches the storage, or does not."""
        node, _ = state.actors[who]
        part = self.parts_of(node)[index]
        effect = self.stores.effect(state.store, part)
        if self._is_other_name(state, part):
            yield Action("mirrored"), state
            yield from self._lose(state, who, index, part)
            return
        answer = self._answer_to.get((state.store, part))
        if answer is None:
            answer = self._answer_to[state.store, part] = self._answers.of(effect.outcomes)
        there = self._apply(state, part, at)
        settled = self._settle(there, who, index, answer)
        process = self.programs.nodes[node].process
        if not state.faults and state.processes[process][0] == "runs" and PENDING not in settled.actors[who][1]:
            # Nothing but what others do can happen between the effect and the reply, and they do not see the difference.
            settled = self._resume(settled, who, at)
        yield Action("arrive", who, part), settled
        if state.faults:
            there = there._replace(faults=state.faults - 1)
            late = tuple(sorted((*state.late, part)))
            yield Action("reply lost", who, part), self._settle(there, who, index, LOST)
            yield Action("sent twice", who, part), self._settle(there._replace(late=late), who, index, answer)
            yield from self._lose(state, who, index, part)

    def _lose(self, state: State, who: int, index: int, part: int) -> Iterator[tuple[Action, State]]:
        """A part does not reach the storage now."""
        if state.faults:
            away = state._replace(faults=state.faults - 1)
            late = tuple(sorted((*state.late, part)))
            yield Action("delayed", who, part), self._settle(away._replace(late=late), who, index, LOST)
            yield Action("refused", who, part), self._settle(away, who, index, REFUSED)

    def _is_other_name(self, state: State, part: int) -> bool:
        """Whether this would be the first change, by one of several that are alike, and another could make it as well."""
        sender = self.stores.parts[part].sender
        return (
            state.store == 0
            and 0 < sender < self.rules.alike
            and state.processes[0][0] == "runs"
            and self.stores.effect(0, part).store != 0
        )

    def parts_of(self, node: int) -> tuple[int, ...]:
        """The numbers of the parts that an actor sends."""
        parts = self._parts.get(node)
        if parts is None:
            request = self.programs.nodes[node].request
            parts = tuple(self.stores.part(part) for part in request.parts) if isinstance(request, Ask) else ()
            self._parts[node] = parts
        return parts

    def _can_resume(self, state: State, node: int, memory: int, at: Moment) -> bool:
        request = self.programs.nodes[node].request
        if not isinstance(request, Idle):
            return request is not None
        key = (node, state.store, state.time, state.skew, memory)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._ready[key] = self._conditions.holds(
                request.until, request.args, self, state.store, at, self.memories.values[memory]
            )
        return ready

    # ---------------------------------------------------------------------------------------------------- new states

    def _apply(self, state: State, part: int, at: Moment) -> State:
        effect = self.stores.effect(state.store, part)
        if effect.wrong is not None:
            raise Broken(effect.wrong)
        past = state.past
        if effect.changes or effect.locks:
            memories = [(status, self.memories.values[memory]) for status, memory in state.processes]
            past = self.pasts.of(self._past.effect(self.pasts.values[past], effect, at, memories))
        then = state._replace(store=effect.store, past=past)
        return then if effect.store == state.store else self._settled(then)

    def _settle(self, state: State, who: int, index: int, answer: int) -> State:
        node, parts = state.actors[who]
        settled = (node, (*parts[:index], answer, *parts[index + 1 :]))
        settled = self._same.setdefault(settled, settled)
        return self._shared(state._replace(actors=_with(state.actors, who, settled)))

    def _resume(self, state: State, who: int, at: Moment) -> State:
        node, parts = state.actors[who]
        found = self.programs.nodes[node]
        memory = state.processes[found.process][1]
        looks = isinstance(found.request, Look)
        key = (node, parts, state.store if looks else 0, state.time, state.skew, memory)
        step = self._steps.get(key)
        if step is None:
            answer: Any = None
            if isinstance(found.request, Ask):
                answer = tuple(_NO_REPLY[one] if one < 0 else self._answers.values[one] for one in parts)
            elif isinstance(found.request, Look):
                answer = self.stores.read(state.store, found.request.queries)
            then, after, told = self.programs.resume(node, answer, at, self.memories.values[memory])
            step = self._steps[key] = (then, self.memories.of(after), told)
        then, memory, told = step
        if not state.faults and isinstance(found.request, Idle) and isinstance(self.programs.nodes[then].request, Look):
            # Likewise: what it first looks at is what there is when it begins.
            return self._resume(state._replace(actors=_with(state.actors, who, (then, ()))), who, at)
        past = state.past
        for one in told:
            known = self._past.told(self.pasts.values[past], found.process, one, at, self.stores.spots[state.store])
            past = self.pasts.of(known)
        actor = (then, (PENDING,) * len(self.parts_of(then)))
        actor = self._same.setdefault(actor, actor)
        processes = state.processes
        if processes[found.process][1] != memory:
            processes = _with(processes, found.process, (processes[found.process][0], memory))
        return self._shared(state._replace(past=past, processes=processes, actors=_with(state.actors, who, actor)))

    def _tick(self, state: State) -> State:
        """Time passes."""
        late = state.late if state.time < self.rules.latest else ()
        return self._shared(self._settled(state._replace(time=state.time + 1, late=late)))

    def _settled(self, state: State) -> State:
        """The same state without what makes no difference any more, so that states meet."""
        sent = {part for node, _ in state.actors for part in self.parts_of(node)}.union(state.late)
        coming = frozenset(until for part in sent if (until := self.stores.parts[part].until))
        actors = tuple((self._aged(node, state.store, state.time, coming), parts) for node, parts in state.actors)
        return state._replace(actors=actors)

    def _aged(self, node: int, store: int, time: int, coming: frozenset[int]) -> int:
        """The same state of a program, at that time, if it is one that waits."""
        found = self.programs.nodes[node]
        if not isinstance(found.request, Idle) or len(found.trace) > 1:
            return node
        key = (node, store, time, coming)
        aged = self._ages.get(key)
        if aged is None:
            local, end = (float(self._times[at] - self._times[0]) for at in (time, -1))
            args = self.rules.aged(found.program, found.args, local, end, self.stores.spots[store], coming)
            aged = self._ages[key] = self.programs.waiting(node, args)
        return aged

    def _set(self, state: State, process: int, status: str, memory: int) -> State:
        return self._shared(state._replace(processes=_with(state.processes, process, (status, memory))))

    def _crash(self, state: State, process: int) -> State:
        """What it had sent may still arrive."""
        late = list(state.late)
        actors = list(state.actors)
        for who, (node, parts) in enumerate(state.actors):
            if self.programs.nodes[node].process == process:
                late += [self.parts_of(node)[index] for index, settled in enumerate(parts) if settled == PENDING]
                actors[who] = (self.programs.ended(process), ())
        state = state._replace(late=tuple(sorted(late)), actors=tuple(actors))
        return self._set(state, process, "dead", self.memories.of(()))

    def _shared(self, state: State) -> State:
        """The same state, made of values that other states have too: they take less room."""
        share = self._same.setdefault
        return State(
            state.store, state.time, state.skew, state.faults, state.past, share(state.late, state.late),
            share(state.processes, state.processes), share(state.actors, state.actors),
        )  # fmt: skip


def _path(states: list[State], came: array[int], actions: list[Action], at: int) -> list[tuple[Action, State]]:
    path = []
    while at >= 0:
        path.append((actions[at], states[at]))
        at = came[at]
    return path[::-1]


def _with(values: Sequence[Any], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])
