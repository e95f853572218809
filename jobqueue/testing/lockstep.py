"""A storage and the memory storage do the same: every reply and everything they hold, after each random step.

The memory storage is the specification. Batches are sent twice, are held back and sent late, and meet records that are
gone and keys of another kind. Needs the package ``hypothesis``; `jobqueue.testing.check_storage` loads this module only
when it is asked for. Subclass `Lockstep` to look below the storage, or to count what was met.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, Phase, settings
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
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import (
    Answer,
    Batch,
    Fields,
    HashKey,
    Holder,
    IdPage,
    Ids,
    ListKey,
    LockKey,
    Page,
    Peek,
    Query,
    SetKey,
    Sizes,
    Where,
)
from jobqueue.storage.protocol import Outcome, Storage
from jobqueue.testing.batches import IDS, Draw, draw_batch, draw_query
from jobqueue.testing.cases.bench import CaseFailed
from jobqueue.testing.story import Step, Story, rescoped, shortest

__all__ = ["Differ", "Lockstep", "check_lockstep"]

STEPS: Final = 40
PATIENCE: Final = 60.0
"""How long in seconds a wait may take that should return at once."""
_MANY: Final = 1000
_SLOW: Final = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
_USUAL: Final[Sequence[tuple[Callable[[str, str], ListKey | SetKey | HashKey], Sequence[str]]]] = (
    (ListKey, ("ready", "list", "plain")),
    (SetKey, ("waiting", "working", "dead", "set")),
    (HashKey, ("records", "claims", "requests", "counters", "hash")),
)
"""The names that random batches use, as the kinds that they usually are."""

seeds: Final = st.integers(0, 2**32 - 1)


class Differ(CaseFailed):
    """Two storages did not do the same. Holds what was sent, and the two scopes it was sent to."""

    def __init__(self, text: str, scopes: Sequence[str], story: Story) -> None:
        super().__init__(text)
        self.scopes = scopes
        self.story = story


class Lockstep(RuleBasedStateMachine):
    """Two storages and the same steps. Set ``real`` in a subclass: the storage that is compared with the memory storage.

    Attributes:
        real: What is tested; it need not be empty.
        memory: What it has to do.
        scopes: The two scopes of this run.
        foreign: The kinds of keys that somebody else may write.
        story: What was sent.
    """

    real: Storage
    foreign: Sequence[type[ListKey | SetKey | HashKey]] = (SetKey, HashKey)

    sent = Bundle("sent")
    held = Bundle("held")

    @initialize()
    def start(self) -> None:
        """Begin with nothing."""
        name = f"lockstep:{secrets.token_hex(8)}"
        self.scopes = self.new_scopes(name)
        self.memory = MemoryStorage()
        self.story: Story = ()
        self._drawn = 0

    def new_scopes(self, name: str) -> tuple[str, str]:
        """Two scopes that hold nothing; override it where the storage is emptied instead."""
        return f"{name}:q", name

    # ------------------------------------------------------------------------------------------------------- comparing

    def apply(self, these: Sequence[Batch]) -> None:
        """Apply the batches to both, and compare."""
        self.story += (Step("apply", tuple(these)),)
        expected = self.memory.apply(these)
        got = self.real.apply(these)
        self.check([_comparable(each) for each in got], [_comparable(each) for each in expected], "the outcomes")
        for batch, outcome in zip(these, expected, strict=True):
            self.applied(batch, outcome)
        self.compare()

    def ask(self, queries: Sequence[Query]) -> None:
        """Ask both, and compare."""
        self.story += (Step("read", tuple(queries)),)
        try:
            expected: list[Answer] | None = _walked(self.memory, queries)
        except StorageRefused:
            expected = None
        self.check(self.read(queries), expected, "the answers")
        self.answered(queries, expected)

    def read(self, queries: Sequence[Query]) -> list[Answer] | None:
        """What the storage answers; None where it refuses."""
        try:
            return _walked(self.real, queries)
        except StorageRefused:
            return None

    def compare(self) -> None:
        """Compare everything that both hold; override it to look below the storage."""
        expected = self.memory.dump()
        held: list[Any] = []
        for scope in self.scopes:
            for kind, names in _USUAL:
                held += [key for key in (kind(scope, name) for name in names) if key.full not in expected]
        by_kind: list[Query] = [_whole(name, value) for name, value in expected.items()]
        *answers, sizes = self.read([*by_kind, Sizes(tuple(held))]) or [None]
        values = [list(each) if isinstance(each, tuple) else each for each in answers]
        values = [msgspec.structs.astuple(each) if isinstance(each, ops.Held) else each for each in values]  # type: ignore[misc]
        self.check(dict(zip(expected, values, strict=False)), expected, "everything that is held")
        self.check(sizes, (0,) * len(held), f"the sizes of {', '.join(key.full for key in held)}")

    def check(self, got: object, expected: object, what: str) -> None:
        """Fail unless both are equal."""
        if got != expected:
            raise Differ(f"{what}\n  expected: {expected!r}\n  got:      {got!r}", self.scopes, self.story)

    def applied(self, batch: Batch, outcome: Outcome) -> None:
        """Called for every batch that both answered alike; for those who count what was met."""

    def answered(self, queries: Sequence[Query], answers: Sequence[Answer] | None) -> None:
        """Called for queries that both answered alike, None if both refused; for those who count what was met."""

    # --------------------------------------------------------------------------------------------------- everyday steps

    def random(self, seed: int) -> Random:
        """Different ones for equal seeds: most of the seeds that Hypothesis draws are equal to others."""
        self._drawn += 1
        return Random(seed << 16 | self._drawn)  # noqa: S311 - repeatable on purpose

    def draw(self, random: Random) -> Batch:
        """A random batch."""
        return draw_batch(random, self.memory.dump(), self.scopes)

    def draw_query(self, random: Random) -> Query:
        """A random query."""
        return draw_query(random, self.memory.dump(), self.scopes)

    def run_of(self, random: Random, size: int) -> None:
        """So many batches, each with a query after it."""
        for _ in range(size):
            self.apply([self.draw(random)])
            self.ask([self.draw_query(random)])

    @rule(target=sent, seed=seeds)
    def send(self, seed: int) -> Batch:
        """One batch."""
        batch = self.draw(self.random(seed))
        self.apply([batch])
        return batch

    @rule(seed=seeds, size=st.integers(0, 4))
    def send_some_at_once(self, seed: int, size: int) -> None:
        """Several in one call."""
        random = self.random(seed)
        self.apply([self.draw(random) for _ in range(size)])

    @rule(seed=seeds, size=st.integers(1, 12))
    def send_a_run(self, seed: int, size: int) -> None:
        """Several, one after the other."""
        self.run_of(self.random(seed), size)

    @rule(batch=sent)
    def send_again(self, batch: Batch) -> None:
        """One that was sent before."""
        self.apply([batch])

    @rule(target=held, seed=seeds)
    def hold_back(self, seed: int) -> Batch:
        """One that will arrive late."""
        return self.draw(self.random(seed))

    @rule(target=sent, batch=consumes(held))
    def send_late(self, batch: Batch) -> Batch:
        """It arrives."""
        self.apply([batch])
        return batch

    @rule(seed=seeds, size=st.integers(0, 4))
    def ask_some(self, seed: int, size: int) -> None:
        """Several queries in one call."""
        random = self.random(seed)
        self.ask([self.draw_query(random) for _ in range(size)])

    @precondition(lambda self: self.memory._shared.bell._tokens)  # noqa: SLF001 - the bell has no other reader
    @rule()
    def wait(self) -> None:
        """A scope was rung, so both waits end."""
        rung = self.memory.wait(self.scopes, 0)
        assert self.real.wait(self.scopes, PATIENCE) in (rung, None), rung
        self.compare()

    # --------------------------------------------------------------------------------------------------- somebody else

    @rule(seed=seeds, name=st.sampled_from(["records", "records", "claims"]))
    def somebody_deletes_fields(self, seed: int, name: str) -> None:
        """Records or claims are lost, as when a server loses writes."""
        random = self.random(seed)
        scope = random.choice(self.scopes)
        key = HashKey(scope, name)
        fields = sorted(self.memory.dump().get(key.full, ()))  # type: ignore[call-overload]
        if not fields:
            return
        self.smuggle(ops.HashDelete, HashKey(scope, "x"), key, tuple(random.sample(fields, (len(fields) + 1) // 2)))
        for _ in range(2):  # those who hold these jobs notice first
            self.apply([Batch(scope, (Draw(random, scope, self.memory.dump()).ending(),))])
        self.run_of(random, 4)

    @rule(seed=seeds)
    def somebody_moves_an_id(self, seed: int) -> None:
        """An id is lost from its place, or turns up in another one as well; some are mended."""
        random = self.random(seed)
        scope = random.choice(self.scopes)
        draw = Draw(random, scope, self.memory.dump())
        for _ in range(3):
            id_, kind = random.choice(IDS), random.randrange(4)
            place = SetKey(scope, random.choice(["waiting", "working", "dead"]))
            if kind == 0:
                self.smuggle(ops.ListPush, ListKey(scope, "x"), ListKey(scope, "ready"), (id_,))
            elif kind == 1:
                self.smuggle(ops.SetAdd, SetKey(scope, "x"), place, {id_: draw.time()})
            else:
                self.smuggle(ops.SetRemove, SetKey(scope, "x"), place, (id_,))
        for _ in range(3):
            self.apply([Batch(scope, (Draw(random, scope, self.memory.dump()).mending(),))])
            self.ask([Where(scope, IDS, search=True)])

    @rule(
        name=st.sampled_from(["records", "requests", "counters", "ready", "working", "hash"]),
        kind=st.integers(0, 2),
        seed=seeds,
    )
    def somebody_writes_a_key(self, name: str, kind: int, seed: int) -> None:
        """A key exists as another kind than it should."""
        batch = self.draw(self.random(seed))
        key = self.foreign[kind % len(self.foreign)](batch.scope, name)
        if key.full in self.memory.dump():
            return
        self.plant(key)
        self.apply([batch])
        self.ask([self.draw_query(self.random(seed))])
        self.uproot(key)  # it goes again, or soon nothing else would be met

    def plant(self, key: ListKey | SetKey | HashKey) -> None:
        """Write a key in both."""
        if isinstance(key, SetKey):
            self.smuggle(ops.SetAdd, SetKey(key.scope, "x"), key, {b"a": 3})
        else:
            self.smuggle(ops.HashSet, HashKey(key.scope, "x"), HashKey(key.scope, key.name), {b"f": b"7"})

    def uproot(self, key: ListKey | SetKey | HashKey) -> None:
        """Delete a key in both, whatever became of it."""
        value: Any = self.memory.dump().get(key.full, ())
        if isinstance(value, dict):
            self.smuggle(ops.HashDelete, HashKey(key.scope, "x"), HashKey(key.scope, key.name), tuple(value))
        elif value:
            members = tuple(member for member, _ in value)
            self.smuggle(ops.SetRemove, SetKey(key.scope, "x"), SetKey(key.scope, key.name), members)

    def smuggle(
        self,
        make: Callable[..., Any],
        harmless: ListKey | SetKey | HashKey,
        key: ListKey | SetKey | HashKey,
        values: object,
    ) -> None:
        """Change a key that no operation may name, past the check of the operation."""
        op = make(harmless, values)
        kind = "list" if isinstance(key, ListKey) else "set" if isinstance(key, SetKey) else "hash"
        msgspec.structs.force_setattr(op, kind, key)
        self.apply([Batch(key.scope, (op,))])


def check_lockstep(make: Callable[[], Storage], examples: int = 100) -> None:
    """Compare a storage with the memory storage over random sequences of steps.

    Args:
        make: Makes the storage; it need not be empty.
        examples: How many sequences.

    Raises:
        CaseFailed: They differ; says what was sent, as short as it could be made, what was expected and what was got.
    """
    storage = make()
    machine = type("Lockstep", (Lockstep,), {"real": storage})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples, stateful_step_count=STEPS, deadline=None, database=None, print_blob=False,
                phases=[Phase.generate], report_multiple_bugs=False, suppress_health_check=_SLOW,
            ),
        )  # fmt: skip
    except Differ as differ:
        shown = _tell_again(machine, differ.scopes, shortest(differ.story, partial(_is_wrong, machine, differ.scopes)))
        shown = shown or differ  # where it does not happen again, that is all there is
        lines = "\n".join(f"    {step}" for step in shown.story)
        raise CaseFailed(
            f"what a storage with nothing in it does otherwise than the memory storage:\n{lines}\n{shown}"
        ) from None
    finally:
        storage.close()


def _is_wrong(machine: type[Lockstep], scopes: Sequence[str], story: Story) -> bool:
    return _tell_again(machine, scopes, story) is not None


def _tell_again(machine: type[Lockstep], scopes: Sequence[str], story: Story) -> Differ | None:
    """Take the same steps in scopes that hold nothing; where the two differ, if they do."""
    again = machine()
    again.start()
    try:
        for step in rescoped(story, dict(zip(scopes, again.scopes, strict=True))):
            (again.apply if step.what == "apply" else again.ask)(step.of)
    except Differ as differ:
        return differ
    return None


def _walked(storage: Storage, queries: Sequence[Query]) -> list[Answer]:
    """The answers; a page of ids is walked to its end, because every storage pages and orders them as it likes."""
    answers = storage.read(queries)
    for index, query in enumerate(queries):
        page = answers[index]
        if isinstance(query, Ids) and isinstance(page, IdPage):
            ids = {*page.ids}
            while page.next is not None:
                [page] = storage.read([Ids(query.hash, query.limit, page.next)])
                assert isinstance(page, IdPage)
                ids.update(page.ids)
            answers[index] = tuple(sorted(ids))
    return answers


def _whole(name: str, value: object) -> Query:
    """A query for all that memory holds under a full name."""
    scope, _, short = name[1:].partition("}:")
    if isinstance(value, dict):
        return Fields(HashKey(scope, short), None, None)
    if isinstance(value, tuple):
        return Holder(LockKey(scope, short))
    if isinstance(value, list) and isinstance(value[0], tuple):
        return Page(SetKey(scope, short), _MANY)
    return Peek(ListKey(scope, short), 0, _MANY)


def _comparable(outcome: Outcome) -> object:
    """The outcome, without the words of an error."""
    return type(outcome) if isinstance(outcome, Exception) else outcome
