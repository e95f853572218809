"""The storage in memory beside threads that write: whoever reads sees one moment, and no batch is seen half done.

No race is hoped for. The contents call back in the middle of what is tested; then a writer is started, and goes as far as
it can: through, or to the mutex that somebody holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from jobqueue.storage.interpreter import Interpreter
from jobqueue.storage.memory import MemoryStorage, Version
from jobqueue.storage.ops import Batch, Fields, HashKey, HashSet, Key, Op, Sizes

SCOPE = "ns:queue"
ONE, OTHER = HashKey(SCOPE, "one"), HashKey(SCOPE, "other")
BOTH = Batch(SCOPE, (HashSet(ONE, {b"new": b"1"}), HashSet(OTHER, {b"new": b"1"})))
WRITTEN: dict[str, object] = {ONE.full: {b"new": b"1"}, OTHER.full: {b"new": b"1"}}


class Mutex:
    """A lock that says when somebody has to wait for it; whoever waits has it next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits = False
        self._served = threading.Event()
        self.stuck = threading.Event()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waits = True
            self.stuck.set()
            self._lock.acquire()
            self._served.set()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        if self._waits:
            assert self._served.wait(30)


class Interrupted(Interpreter):
    """Contents that call back, once, in the middle of what is done with them."""

    __slots__ = ("meanwhile", "steps")

    def __init__(self, steps: int, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.steps = steps
        self.meanwhile = meanwhile

    def _step(self) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.meanwhile()

    def check_kinds(self, keys: Iterable[Key]) -> None:
        self._step()
        super().check_kinds(keys)

    def _plain(self, op: Op) -> int | None:
        self._step()
        return super()._plain(op)

    def size(self, key: Key) -> int:
        self._step()
        return super().size(key)

    def dump(self) -> dict[str, object]:
        before = super().dump()
        self._step()
        return {**super().dump(), **before}

    def copy(self) -> Interpreter:
        before = super().copy()
        self._step()
        after = super().copy()
        assert before.dump() == after.dump(), "it changed while it was copied"
        return before


class Scene:
    """A storage, and somebody who does something in the middle of what is done with it."""

    def __init__(self, steps: int, does: Callable[[MemoryStorage], Any]) -> None:
        self.storage = MemoryStorage()
        self.mutex = Mutex()
        self.answer: Any = None
        self.came = False
        self._does = does
        self._through = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        shared: Any = self.storage._shared
        shared.bell.mutex = self.mutex
        shared.version = Version(Interrupted(steps, self._meanwhile), Interpreter())

    def _run(self) -> None:
        try:
            self.answer = self._does(self.storage)
        finally:
            self._through.set()
            self.mutex.stuck.set()

    def _meanwhile(self) -> None:
        self.came = True
        self._thread.start()
        assert self.mutex.stuck.wait(30)

    def settle(self) -> None:
        """Wait for the end of the other; it must have come in the middle."""
        assert self.came, "nobody came in between: the scene proves nothing"
        assert self._through.wait(30)


READS: dict[str, tuple[int, Callable[[MemoryStorage], Any], Any]] = {
    "two queries": (2, lambda s: s.read([Fields(ONE), Fields(OTHER)]), [{}, {}]),
    "one query of two keys": (2, lambda s: s.read([Sizes((ONE, OTHER))]), [(0, 0)]),
    "a dump": (1, lambda s: s.dump(), {}),
    "a copy": (1, lambda s: s.copy().dump(), {}),
}


@pytest.mark.parametrize("name", READS)
def test_who_reads_beside_a_writer_sees_one_moment(name: str) -> None:
    steps, read, expected = READS[name]
    scene = Scene(steps, lambda storage: storage.apply([BOTH]))

    assert read(scene.storage) == expected
    scene.settle()

    assert scene.storage.dump() == WRITTEN


LOOKS: dict[str, tuple[Callable[[MemoryStorage], Any], Any]] = {
    "read": (lambda s: s.read([Fields(ONE), Fields(OTHER)]), [{b"new": b"1"}, {b"new": b"1"}]),
    "dump": (lambda s: s.dump(), WRITTEN),
    "copy": (lambda s: s.copy().dump(), WRITTEN),
}


@pytest.mark.parametrize("name", LOOKS)
def test_nobody_sees_half_a_batch(name: str) -> None:
    look, expected = LOOKS[name]
    scene = Scene(3, look)  # the check of the keys, the first write, and then

    scene.storage.apply([BOTH])
    scene.settle()

    assert scene.answer == expected


def test_who_reads_while_everything_is_restored_sees_one_moment() -> None:
    saved = MemoryStorage()
    saved.apply([BOTH])
    scene = Scene(1, lambda storage: storage.restore(saved))  # in the middle of the first query

    assert scene.storage.read([Fields(ONE), Fields(OTHER)]) == [{}, {}]
    scene.settle()

    assert scene.storage.dump() == WRITTEN
