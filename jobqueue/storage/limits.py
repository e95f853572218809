"""What a call may take at most: seconds in all, and connections of one process."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

import attrs

from jobqueue.errors import DeclarationError

__all__ = ["CONNECTIONS", "SECONDS", "Limits", "limits_in"]

SECONDS: Final = 10.0
"""How long a call may take in all unless somebody says otherwise."""
CONNECTIONS: Final = 10
"""How many connections a process opens for its calls unless somebody says otherwise."""
LONGEST: Final = 24 * 3600.0
_NAMES: Final = ("timeout", "socket_timeout", "max_connections")
_MEANS: Final = {"timeout": "a call may take in all", "socket_timeout": "one answer is waited for within the timeout"}


@attrs.frozen
class Limits:
    """The limits of the calls of one `JobQueue`.

    Attributes:
        timeout: Seconds that a call may take in all.
        max_connections: How many connections are open for calls at a time: for all threads of the process, and again for
            each event loop; in a cluster to each node.
        answer: Seconds that one answer is waited for, what redis-py calls ``socket_timeout``; None for half of the timeout.
    """

    timeout: float = SECONDS
    max_connections: int = CONNECTIONS
    answer: float | None = None

    @property
    def patience(self) -> float:
        """Seconds that one answer is waited for: then there is time left to ask once more on another connection."""
        return self.timeout / 2 if self.answer is None else min(self.answer, self.timeout)

    @classmethod
    def of(cls, timeout: float | timedelta | None, max_connections: int | None) -> Limits:
        """The limits that somebody typed; None for the default.

        Raises:
            DeclarationError: A limit that cannot be.
        """
        seconds: object = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if seconds is None:
            seconds = SECONDS
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not _is_bound(seconds):
            raise DeclarationError(
                f"timeout= is how long a call may take in all: a timedelta or a number of seconds above 0 and up to a day, "
                f"not {timeout!r}"
            )
        most = CONNECTIONS if max_connections is None else max_connections
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise DeclarationError(f"max_connections= is a whole number, at least 1, not {max_connections!r}")
        return cls(float(seconds), most)


def _is_bound(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 < seconds <= LONGEST


def limits_in(url: str, default: Limits | None = None) -> tuple[str, Limits]:
    """The URL without its limits, and the limits: those of the URL, or else the default.

    Its settings are ``timeout``, ``max_connections`` and ``socket_timeout``.

    Raises:
        DeclarationError: A limit that cannot be. Its value is not shown: in a URL written wrongly it may be a secret.
    """
    limits = Limits() if default is None else default
    base, mark, query = url.partition("?")
    scheme = base.partition("://")[0]
    kept: list[str] = []
    seen: set[str] = set()
    for setting in query.split("&") if mark else ():
        name, _, value = setting.partition("=")
        if name not in _NAMES:
            kept.append(setting)
            continue
        if name in seen:
            raise DeclarationError(f"the setting {name!r} stands twice in the {scheme}:// URL")
        seen.add(name)
        if not value:
            raise DeclarationError(f"the setting {name!r} in the {scheme}:// URL has no value")
        if name == "timeout":
            limits = attrs.evolve(limits, timeout=_seconds(scheme, name, value))
        elif name == "socket_timeout":
            limits = attrs.evolve(limits, answer=_seconds(scheme, name, value))
        else:
            limits = attrs.evolve(limits, max_connections=_count(scheme, value))
    return (f"{base}?{'&'.join(kept)}" if kept else base), limits


def _seconds(scheme: str, name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not _is_bound(seconds):
        raise DeclarationError(
            f"the setting {name!r} in the {scheme}:// URL is how long {_MEANS[name]}: a number of seconds above 0 and up to "
            f"a day, as in ?{name}=2"
        )
    return seconds


def _count(scheme: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise DeclarationError(
            f"the setting 'max_connections' in the {scheme}:// URL is a whole number, at least 1, as in ?max_connections=10"
        )
    return int(text)
