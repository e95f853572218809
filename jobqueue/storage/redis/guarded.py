"""What a server has to be, asked on every new connection: recent enough, and one that throws nothing away.

On every connection, because the server may be another one than before: restarted with other settings, failed over to, or
one of several nodes. Every fact has two sources where a server has two, since managed servers forbid some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions

from jobqueue.errors import StorageRefused
from jobqueue.logs import library_logger
from jobqueue.storage.redis.faults import passes, refused

__all__ = ["ABOUT", "QUESTIONS", "Guarded", "described", "facts_of"]

QUESTIONS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"INFO", b"server"),
    (b"HELLO",),
    (b"CONFIG", b"GET", b"maxmemory-policy"),
    (b"INFO", b"memory"),
)
"""What is asked on a new connection, in one trip."""
ABOUT: Final[tuple[tuple[bytes, ...], ...]] = (
    *QUESTIONS,
    (b"INFO", b"persistence"),
    (b"CONFIG", b"GET", b"appendonly"),
    (b"CONFIG", b"GET", b"appendfsync"),
    (b"CONFIG", b"GET", b"save"),
)
"""What a runner asks at its start."""


class Guarded:
    """What is asked of a server: its name in messages, and whether it may evict.

    Args:
        label: The server's address without a password.
        allow_eviction: Accept a server that may throw jobs away when it is full.
        warning: What is logged once, when it is used.
    """

    def __init__(self, label: str, *, allow_eviction: bool = False, warning: str | None = None) -> None:
        self.label = label
        self.warning = warning
        self.allow_eviction = allow_eviction
        self._warned: set[str] = set()

    def problem(self, label: str, replies: Sequence[Any]) -> StorageRefused | None:
        """Answer why a server must not be used, or None.

        Args:
            label: The server; for a cluster its node.
            replies: Its answers to `QUESTIONS`; errors are answers too.
        """
        if self.warning is not None:
            self._warn(self.warning)
        for reply in replies:
            if isinstance(reply, exceptions.RedisError) and passes(reply):
                return refused(label, reply)  # it does not say what it is, but will
        facts = facts_of(replies)
        problem = self._unfit(label, facts)
        return None if problem is None else StorageRefused(f"{label}: {problem}")

    def _unfit(self, label: str, facts: dict[str, str]) -> str | None:
        kind, version = _kind_and_version(facts)
        if not version:
            self._warn(f"{label} does not let this user ask INFO or HELLO: its version could not be checked")
        else:
            oldest = 8 if kind == "valkey" else 7
            if int(version.partition(".")[0]) < oldest:
                return f"{kind} {version} is too old: jobqueue needs Redis 7.0 or Valkey 8.0, or later"
        policy = facts.get("maxmemory-policy")
        if policy is None:
            self._warn(
                f"{label} does not let this user ask INFO or CONFIG GET: make sure its maxmemory-policy is noeviction"
            )
        elif policy != "noeviction" and not self.allow_eviction:
            return (
                f"maxmemory-policy is {policy}, under which jobs and leases can vanish. CONFIG SET maxmemory-policy "
                "noeviction (and in its configuration file), or pass allow_eviction=True"
            )
        return None

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            library_logger("jobqueue.storage").warning("%s", line)


def facts_of(replies: Sequence[Any]) -> dict[str, str]:
    """What a server said of itself; less where something is forbidden."""
    facts: dict[str, str] = {}
    for reply in replies:
        if isinstance(reply, bytes):  # INFO
            lines = [line.partition(":") for line in reply.decode(errors="replace").splitlines()]
            facts.update({name: value for name, colon, value in lines if colon})
        elif isinstance(reply, list):  # CONFIG GET, HELLO
            pairs = zip(reply[::2], reply[1::2], strict=False)
            facts.update({name.decode(): value.decode() for name, value in pairs if isinstance(value, bytes)})
    if "maxmemory_policy" in facts:
        facts.setdefault("maxmemory-policy", facts["maxmemory_policy"])
    if "aof_enabled" in facts:
        facts.setdefault("appendonly", "yes" if facts["aof_enabled"] == "1" else "no")
    return facts


def _kind_and_version(facts: dict[str, str]) -> tuple[str, str]:
    if "valkey_version" in facts:
        return "valkey", facts["valkey_version"]
    return facts.get("server_name", facts.get("server", "redis")), facts.get("redis_version", facts.get("version", ""))


def described(facts: dict[str, str]) -> dict[str, str]:
    """The facts that a runner tells at its start."""
    kind, version = _kind_and_version(facts)
    wanted = ("run_id", "maxmemory-policy", "appendonly", "appendfsync", "save")
    return {"server": kind, "version": version or "unknown"} | {name: facts[name] for name in wanted if name in facts}
