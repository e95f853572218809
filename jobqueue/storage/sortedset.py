"""A sorted set: members by (score, member bytes), fast to look up by member and to walk from the lowest.

The order is kept in short sorted runs, so that adding and removing costs a search and a small shift whatever the size.
Rejected: one sorted list (each change moves half of it) and a heap with lazy deletion (no pages with a cursor).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Final

from jobqueue.storage.answers import Score

__all__ = ["SortedSet"]

_MOST: Final = 2**53
_RUN: Final = 512
"""A run that grows past twice this is cut in two."""


class SortedSet:
    """Members with scores, in order of (score, member)."""

    __slots__ = ("_runs", "scores")

    def __init__(self) -> None:
        self.scores: dict[bytes, Score] = {}
        """Member → score. Read only."""
        self._runs: list[list[tuple[Score, bytes]]] = []

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[Score, bytes]]:
        return chain.from_iterable(self._runs)

    def copy(self) -> SortedSet:
        """Another set of the same entries."""
        other = SortedSet()
        other.scores = self.scores.copy()
        other._runs = [run.copy() for run in self._runs]
        return other

    def first(self) -> tuple[Score, bytes]:
        """The lowest entry; the set must not be empty."""
        return self._runs[0][0]

    def lowest(self) -> int:
        """The lowest score as a time, rounded up and cut to 53 bits; the set must not be empty."""
        return math.ceil(max(-_MOST, min(_MOST, self._runs[0][0][0])))

    def add(self, members: Mapping[bytes, Score]) -> None:
        """Add members, or give them another score."""
        scores = self.scores
        for member, score in members.items():
            old = scores.get(member)
            if old == score:
                continue
            if old is not None:
                self._cut((old, member))
            scores[member] = score
            self._insert((score, member))

    def remove(self, members: Iterable[bytes]) -> None:
        """Remove the members that are there."""
        scores = self.scores
        for member in members:
            score = scores.pop(member, None)
            if score is not None:
                self._cut((score, member))

    def due(self, before: int, limit: int) -> list[bytes]:
        """The first ``limit`` members whose score is at most ``before``, lowest first."""
        found: list[bytes] = []
        for score, member in islice(self, limit):
            if score > before:
                break
            found.append(member)
        return found

    def after(self, cursor: tuple[Score, bytes]) -> Iterator[tuple[Score, bytes]]:
        """The entries behind the cursor, in order."""
        at = self._run_of(cursor)
        if at == len(self._runs):
            return iter(())
        run = self._runs[at]
        rest = islice(run, bisect_right(run, cursor), None)
        return chain(rest, chain.from_iterable(islice(self._runs, at + 1, None)))

    def _run_of(self, entry: tuple[Score, bytes]) -> int:
        """The first run whose last entry is not below this one."""
        runs = self._runs
        if len(runs) == 1:
            return 0 if runs[0][-1] >= entry else 1
        return bisect_left(runs, entry, key=_last)

    def _insert(self, entry: tuple[Score, bytes]) -> None:
        runs = self._runs
        at = self._run_of(entry)
        if at < len(runs):
            run = runs[at]
            run.insert(bisect_left(run, entry), entry)
        elif runs:
            at -= 1
            run = runs[at]
            run.append(entry)
        else:
            runs.append([entry])
            return
        if len(run) > 2 * _RUN:
            runs.insert(at + 1, run[_RUN:])
            del run[_RUN:]

    def _cut(self, entry: tuple[Score, bytes]) -> None:
        at = self._run_of(entry)
        run = self._runs[at]
        del run[bisect_left(run, entry)]
        if not run:
            del self._runs[at]


def _last(run: list[tuple[Score, bytes]]) -> tuple[Score, bytes]:
    return run[-1]
