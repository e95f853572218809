"""Which application uses a namespace, so that two that share one by mistake are told.

The first enqueue of a process, and each start of a runner, leave the name of their application in the namespace, where
another one's stands. That one's is kept beside it. Nothing is refused: one application may have a new name, and two
that share their jobs on purpose say the same name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from jobqueue.errors import NotApplied, OutcomeUnknown
from jobqueue.flows import Flow, Read, send_one
from jobqueue.keys import NamespaceKeys
from jobqueue.names import check_application, is_namespace, main_module
from jobqueue.record import timestamp
from jobqueue.safe_text import printable, quoted
from jobqueue.storage.ops import Absent, Batch, FieldIs, Fields, HashSet

if TYPE_CHECKING:
    from jobqueue.access import Opened

__all__ = ["Users", "application_name", "introduce", "users"]

_APPLICATION: Final = b"app"
_SINCE: Final = b"app_since"
_BEFORE: Final = b"app_before"
_ADVICE: Final = (
    "If both run, their jobs mix, and runners meet kinds that they do not know: give one of them another namespace=. If "
    "they are one, or share their jobs on purpose, give both the same JobQueue(app=…)"
)


@attrs.frozen
class Users:
    """Who uses a namespace.

    Attributes:
        name: The application that introduced itself last.
        since: When it did.
        before: The one before it, None if there was no other.
    """

    name: str
    since: datetime
    before: str | None

    def warning(self) -> str | None:
        """What to say if there were two."""
        if self.before is None:
            return None
        return f"application {quoted(self.name)} uses this namespace, before it {quoted(self.before)} did. {_ADVICE}"


def application_name(given: str | None, scope: Mapping[str, Any]) -> str | None:
    """The name of the application whose `JobQueue` is made in this scope; None if it has none that others would know.

    That is the package, or the module, in which it is made, as others import it.

    Raises:
        DeclarationError: What was given is no name.
    """
    if given is not None:
        return check_application(given)
    module = str(scope.get("__name__", ""))
    if module in ("__main__", "__mp_main__"):
        module = main_module(module)
    name = module.partition(".")[0]
    return name if is_namespace(name) and name != "__main__" else None


def introduce(opened: Opened, name: str | None) -> Flow[str | None]:
    """Leave the name of the application in the namespace, once; answers what to say if another one's stands there."""
    told = None
    if name is not None and not opened.introduced:
        told = yield from _leave(opened.keys, name, opened.backend.clock.now())
    opened.introduced = True
    return told


def _leave(keys: NamespaceKeys, name: str, now: int) -> Flow[str | None]:
    """Leave the name in the namespace; answers what to say if that of another application stands there."""
    [fields] = yield Read((Fields(keys.meta, (_APPLICATION,)),))
    last = fields.get(_APPLICATION)
    if last == name.encode():
        return None
    guard = Absent(keys.meta, _APPLICATION) if last is None else FieldIs(keys.meta, _APPLICATION, last)
    noted = {_APPLICATION: name.encode(), _SINCE: b"%d" % now, **({} if last is None else {_BEFORE: last})}
    with contextlib.suppress(NotApplied, OutcomeUnknown):  # it is told all the same, and the next process says it again
        yield from send_one(Batch(keys.scope, (HashSet(keys.meta, noted),), (guard,), "introduce"))
    if last is None:
        return None
    other = quoted(printable(last))
    return f"namespace {keys.scope!r}: this is application {name!r}, and {other} was the last to use it. {_ADVICE}"


def users(keys: NamespaceKeys) -> Flow[Users | None]:
    """Who introduced themselves to the namespace."""
    [fields] = yield Read((Fields(keys.meta, (_APPLICATION, _SINCE, _BEFORE)),))
    if _APPLICATION not in fields:
        return None
    since, before = fields.get(_SINCE, b""), fields.get(_BEFORE)
    return Users(
        printable(fields[_APPLICATION]),
        timestamp(int(since) if since.isdigit() and len(since) < 15 else 0),
        None if before is None else printable(before),
    )
