"""Name → kind of job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from jobqueue.errors import DuplicateJob
from jobqueue.job import Job, Kind

__all__ = ["Registry"]


class Registry:
    """The kinds declared on one `JobQueue`; nothing else can be run, whatever a payload names.

    Attributes:
        private: The kinds whose names no other process can import, and whether that is still to be said.
    """

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self._by_name: dict[str, Kind[Any]] = {}
        self._by_class: dict[Any, Kind[Any]] = {}
        self._lock = threading.RLock()

    def add(self, kind: Kind[Any]) -> None:
        """Add a kind, in the place of one that the same lines of the same file declared before (a reload).

        Raises:
            DuplicateJob: Another kind has its name or one of its aliases.
        """
        with self._lock:
            names = (kind.name, *kind.aliases)
            earlier = {name: self._by_name[name] for name in names if name in self._by_name}
            for name, other in earlier.items():
                if other.origin != kind.origin:
                    raise DuplicateJob(
                        f"{name!r} is declared twice, by {_where(other)} and by {_where(kind)}: give one of them name=…"
                    )
            # Not taken out first: a runner, or a signal handler, that looked meanwhile would find no such kind.
            self._by_name.update(dict.fromkeys(names, kind))
            for other in earlier.values():
                self._by_class.pop(other.target, None)
                for name in {other.name, *other.aliases} - {*names}:
                    self._by_name.pop(name, None)
            if isinstance(kind.target, type):
                self._by_class[kind.target] = kind

    def get(self, name: str) -> Kind[Any] | None:
        """Answer the kind of this name or alias, or None."""
        return self._by_name.get(name)

    def of_class(self, cls: type[Job]) -> Kind[Any] | None:
        """Answer the kind of exactly this class, or None."""
        return self._by_class.get(cls)

    def names(self) -> list[str]:
        """Answer the names of all kinds, without aliases, sorted."""
        return sorted(kind.name for kind in self)

    def __iter__(self) -> Iterator[Kind[Any]]:
        return iter([kind for name, kind in list(self._by_name.items()) if kind.name == name])

    def __len__(self) -> int:
        return len(list(iter(self)))


def _where(kind: Kind[Any]) -> str:
    file, name, *_ = kind.origin  # what else there is may be the arguments of a partial
    return f"{file} {name}"
