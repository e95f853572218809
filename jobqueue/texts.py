"""Texts of what a job raises or returns: of an exception with all that led to it, within bounds.

Both are foreign code: a ``__str__``, a property, even a ``__class__`` may raise anything. The functions here never raise.
They look at types and not at what an object says of itself, and what has to be asked of it is asked under a guard.
"""

from __future__ import annotations

import functools
import itertools
import sys
import sysconfig
import traceback
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from jobqueue.record import ERROR_LIMIT, clean
from jobqueue.retry import Retry

__all__ = [
    "CAUSED",
    "before",
    "class_name",
    "error_text",
    "headline",
    "leaves",
    "one_line",
    "said",
    "shortened",
    "text_of",
    "type_name",
]

CAUSED: Final = "caused by "
"""In front of what an exception was raised ``from``."""
LONGEST: Final = ERROR_LIMIT - 2_500
"""Bytes of a text; the rest is left for what a retry policy has to add."""
EXCEPTIONS: Final = 32
"""Exceptions that one text tells of."""
LINKS: Final = 8
"""Causes of one exception, and their causes: the nearest, and the farthest."""
MEMBERS: Final = 10
"""Members of one group."""
NESTED: Final = 4
"""How deep groups in groups are told of; of those further down the members are."""
FIRST, LAST, LAST_OWN = 4, 16, 16
"""Frames of one traceback: the outermost, the innermost, and the innermost of the job's own code."""
FARTHEST: Final = 10_000
"""Causes of causes that are looked at."""
HEADLINE: Final = 1_000
"""Bytes of the first line."""
MESSAGE: Final = 2_000
"""Bytes of the lines behind it."""
HEADING: Final = 200
"""Bytes of the first line of another exception than the first; its other lines have as many, unless it has no frames."""
FRAME: Final = 600
"""Bytes of a frame with its line of source."""

# What `type` itself knows of a class, past a metaclass that answers something else.
_SHORT: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
_NAME: Final[Callable[[type], str]] = type.__dict__["__qualname__"].__get__
_MODULE: Final[Callable[[type], object]] = type.__dict__["__module__"].__get__
# And what every exception has, past the attributes that a class puts in front of it.
_TRACEBACK: Final[Callable[[BaseException], types.TracebackType | None]] = BaseException.__dict__[
    "__traceback__"
].__get__
_CAUSE: Final[Callable[[BaseException], BaseException | None]] = BaseException.__dict__["__cause__"].__get__
_CONTEXT: Final[Callable[[BaseException], BaseException | None]] = BaseException.__dict__["__context__"].__get__
_NO_CONTEXT: Final[Callable[[BaseException], bool]] = BaseException.__dict__["__suppress_context__"].__get__
_MEMBERS: Final[Callable[[BaseException], tuple[BaseException, ...]]] = BaseExceptionGroup.__dict__[
    "exceptions"
].__get__


# ---------------------------------------------------------------------------------------------------------- of one object


def said(value: object) -> str:
    """What an object says of itself; of an exception without its type. This never raises."""
    try:
        return "".join((str(value),))  # an exact str, whatever subclass it was
    except BaseException as broken:  # noqa: BLE001 - the object's own code
        return _without_text(type(value), broken)


def text_of(value: object) -> str:
    """The text of an object; of an exception its type as well, and not what led to it. This never raises."""
    return "\n".join(_lines(value)) if issubclass(type(value), BaseException) else said(value)


def one_line(error: BaseException) -> str:
    """The type of an exception, and the first line of its message. This never raises."""
    return _cut(_lines(error)[0], HEADLINE)


def headline(error: BaseException) -> str:
    """The first line of the text of an exception: its type and message. This never raises.

    A group, and a `Retry`, say little of what went wrong. So it goes on with the members of that, or the cause of this.
    """
    return _headline(error, _lines(error)[0])


def _headline(error: BaseException, own: str) -> str:
    if _is_group(error):
        about = [_lines(leaf)[0] for leaf in itertools.islice(leaves(error), 4)]
        own = f"{own}: {'; '.join([*about[:3], '…'] if len(about) > 3 else about)}"
    elif issubclass(type(error), Retry) and (led := before(error)) is not None:
        own = f"{own}: {headline(led[1]) if _is_group(led[1]) else _lines(led[1])[0]}"
    return _cut(own, HEADLINE)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, and in the groups in there, each once; of any other exception itself. This never raises."""
    seen = {id(error)}
    left = [error]
    while left:
        error = left.pop()
        if not _is_group(error):
            yield error
            continue
        for member in reversed(_MEMBERS(error)):
            if id(member) not in seen:
                seen.add(id(member))
                left.append(member)


def before(error: BaseException) -> tuple[str, BaseException] | None:
    """What led to an exception, behind words that say how; None if nothing did. This never raises."""
    cause = _CAUSE(error)
    if cause is not None:
        return CAUSED, cause
    context = None if _NO_CONTEXT(error) else _CONTEXT(error)
    return None if context is None else ("while handling ", context)


def class_name(cls: type) -> str:
    """The plain name of a class, whatever its metaclass answers. This never raises."""
    return _SHORT(cls)


def type_name(cls: type) -> str:
    """The name of a class with its module, as a traceback has it. This never raises."""
    name = "".join((_NAME(cls),))
    try:
        module = _MODULE(cls)
    except AttributeError:  # it was deleted
        module = None
    if type(module) is str and module not in ("builtins", "__main__"):
        name = f"{module}.{name}"
    return _cut(name if name.isprintable() else name.encode("unicode_escape").decode(), HEADING)


def _lines(error: Any) -> list[str]:
    """What an exception says: type and message in the first line; then the rest of the message, its place, its notes."""
    cls = type(error)
    name = type_name(cls)
    try:
        message = "".join((str(error),))
    except BaseException as broken:  # noqa: BLE001 - the exception's own code
        return [_without_text(cls, broken)]
    place: list[str] = []
    notes: list[str] = []
    try:
        # Told that it is one of a chain, it does not walk through the chain.
        entries = list(traceback.TracebackException(cls, error, None, _seen=set()).format_exception_only())
        if issubclass(cls, SyntaxError):
            place = list(itertools.takewhile(lambda entry: entry.startswith("  "), entries))
        elif entries[0].startswith(f"{name}: "):
            message = entries[0].removeprefix(f"{name}: ")  # it may end with a suggestion
        notes = entries[len(place) + 1 :]
    except BaseException:  # noqa: BLE001 - a note or a line of source that is no text, or whatever the exception hides
        place, notes = [], []
    first, *more = message.strip().split("\n")
    return [f"{name}: {first.rstrip()}" if first else name, *more, *"".join([*place, *notes]).splitlines()]


def _without_text(cls: type, broken: BaseException) -> str:
    return f"{type_name(cls)}: its text could not be made, that raised {type_name(type(broken))}"


def shortened(text: str) -> str:
    """A text that may be kept or sent: its begin and its end, where it is too long. This never raises."""
    return _cut(text, LONGEST)


def _cut(text: str, limit: int) -> str:
    """The text in about so many bytes: its begin and its end."""
    if len(text) <= limit and text.isascii():
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data.decode()
    head, tail = limit * 2 // 3, limit // 3
    begin, end = data[:head].decode("utf-8", "ignore"), data[-tail:].decode("utf-8", "ignore")
    return f"{begin} … {len(data) - head - tail:,} bytes left out … {end}"


# ------------------------------------------------------------------------------------------------- with all that led to it


def error_text(error: BaseException, caller: str | None = None) -> str:
    """The text of an exception as it is kept with a job: what it says, its frames, and all that led to it.

    Its first line is what people look for, and what lists show: `headline`. Then come the frames of its traceback, the
    members of a group, and its causes: what it was raised ``from``, or what was being handled when it was raised.
    Everything is bounded. Of what does not fit, the messages and the innermost frames of the job's own code go last.

    No local variables: they hold what arguments hold.

    Args:
        error: The exception; any object of any class. This never raises.
        caller: The file that called the job. Where the traceback begins there, its first frame says nothing.
    """
    try:
        return clean("\n".join(_fitted(_Walk(error).told, caller)))
    except BaseException:  # noqa: BLE001 - memory ran out, or a thread was interrupted
        return clean(headline(error))


@attrs.define(eq=False)
class _Told:
    """An exception in the text of another.

    Attributes:
        error: The exception.
        label: What it is to the other.
        depth: In how many groups it is.
        is_cause: Whether it led to the other, which tells of all that led to it in turn.
        again: Whether it is told of at another place.
        members: What is told of its members.
        causes: What is told of its causes, and theirs, in order.
        lines: What is written of it.
        frames: The frames that are written: number → text.
        count: How many there are.
    """

    error: BaseException
    label: str = ""
    depth: int = 0
    is_cause: bool = False
    again: bool = False
    members: list[_Told | str] = attrs.field(factory=list)
    causes: list[_Told | str] = attrs.field(factory=list)
    lines: list[str] = attrs.field(factory=list)
    frames: dict[int, str] = attrs.field(factory=dict)
    count: int = 0


def _is_group(error: BaseException) -> bool:
    return issubclass(type(error), BaseExceptionGroup)


def _chain(error: BaseException) -> list[tuple[str, BaseException]]:
    """What led to an exception, what led to that, and so on. A circle ends with what was there before."""
    chain: list[tuple[str, BaseException]] = []
    seen = {id(error)}
    led = before(error)
    while led is not None and len(chain) < FARTHEST:
        chain.append(led)
        if id(led[1]) in seen:
            break
        seen.add(id(led[1]))
        led = before(led[1])
    return chain


class _Walk:
    """Goes from an exception to all that is told of, those nearest to it first.

    Attributes:
        told: What was found, in this order.
    """

    def __init__(self, error: BaseException) -> None:
        root = _Told(error)
        self.told = [root]
        self._seen = {id(error)}
        self._ahead = deque([root])
        while self._ahead:
            one = self._ahead.popleft()
            if _is_group(one.error):
                self._members_of(one)
            if not one.is_cause:
                self._causes_of(one)

    def _is_told(self, one: _Told, into: list[_Told | str]) -> bool:
        if len(self.told) >= EXCEPTIONS:
            return False
        one.again = id(one.error) in self._seen
        self._seen.add(id(one.error))
        self.told.append(one)
        into.append(one)
        if not one.again:
            self._ahead.append(one)
        return True

    def _members_of(self, group: _Told) -> None:
        members, what = _MEMBERS(group.error), "member"
        if group.depth >= NESTED and any(map(_is_group, members)):
            members, what = tuple(leaves(group.error)), "in its groups,"
        shown = 0
        for number, member in enumerate(members[:MEMBERS], 1):
            one = _Told(member, f"{what} {number} of {len(members)}: ", group.depth + 1)
            shown += self._is_told(one, group.members)
        if len(members) > shown:
            kinds = Counter(type_name(type(member)) for member in members[shown:]).most_common(MEMBERS)
            which = ", ".join(f"{count:,} of {name}" for name, count in kinds)
            left = len(members) - shown
            group.members.append(_cut(f"  {left:,} more member{'s' if left > 1 else ''}: {which}", HEADING))

    def _causes_of(self, first: _Told) -> None:
        chain = _chain(first.error)
        near = chain if len(chain) <= LINKS else chain[: LINKS // 2]
        far = chain[len(near) :][-LINKS // 2 :]
        for number, (label, cause) in enumerate([*near, *far]):
            if far and number == len(near):
                first.causes.append(f"… {len(chain) - len(near) - len(far):,} exceptions between them are left out")
            one = _Told(cause, label, first.depth, is_cause=True)
            if not self._is_told(one, first.causes):
                first.causes.append(f"{label}{type_name(type(cause))} …")
                break
            if one.again:
                break


def _fitted(told: list[_Told], caller: str | None) -> Iterator[str]:
    """The lines of a text that is short enough: what matters most comes first into what room there is."""
    room = LONGEST
    offers: list[tuple[tuple[int, int], _Told, int, str]] = []  # rank, of whom, the number of a frame or -1, text
    own = _Own()
    for order, one in enumerate(told):
        first, *rest = _lines(one.error)
        first = _headline(one.error, first) if order == 0 else _cut(f"{one.label}{first}", HEADING)
        one.lines.append(f"{first} (told at another place)" if one.again else first)
        notes = [note for note in (*one.members, *one.causes) if isinstance(note, str)]
        room -= sum(_size(one, line) for line in (*one.lines, *notes))
        if one.again:
            continue
        frames = _frames(_TRACEBACK(one.error), None if order else caller)
        if rest:  # of a cause without frames it is all there is: it may be the traceback of another process
            whole = order == 0 or (one.is_cause and not frames)
            offers.append(((1, order), one, -1, _cut("\n".join(rest), MESSAGE if whole else HEADING)))
        one.count = len(frames)
        chosen = own.chosen(frames)
        texts = _frame_texts(frames, sorted(chosen))
        offers += [((tier, order), one, at, texts[at]) for at, tier in chosen.items()]
    for _, one, at, text in sorted(offers, key=lambda offer: offer[0]):
        size = _size(one, text)
        if size <= room:
            room -= size
            if at < 0:
                one.lines += text.split("\n")
            else:
                one.frames[at] = text
    return _written(told[0])


def _size(one: _Told, text: str) -> int:
    """Bytes that a text takes with its indentation, and a line that frames are left out."""
    return len(text.encode("utf-8", "backslashreplace")) + (text.count("\n") + 1) * (2 * one.depth + 1) + 40


def _written(one: _Told) -> Iterator[str]:
    margin = "  " * one.depth
    for line in one.lines:
        yield margin + line
    if one.frames:
        last = -1
        for at in (*sorted(one.frames), one.count):
            if at - last > 1:
                yield f"{margin}  … {at - last - 1:,} frames left out"
            if at < one.count:
                for line in one.frames[at].split("\n"):
                    yield margin + line
            last = at
    for note in (*one.members, *one.causes):
        if isinstance(note, str):
            yield f"{margin}{note}"
        else:
            yield from _written(note)


# ---------------------------------------------------------------------------------------------------------------- frames


def _frames(trace: types.TracebackType | None, caller: str | None) -> list[types.TracebackType]:
    frames = []
    if trace is not None and trace.tb_frame.f_code.co_filename == caller:
        trace = trace.tb_next
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames


def _frame_texts(frames: list[types.TracebackType], numbers: list[int]) -> dict[int, str]:
    """The texts of some frames of a traceback, those that follow each other made at once."""
    texts: dict[int, str] = {}
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        try:
            found = traceback.extract_tb(frames[run[0]], limit=len(run))
            texts |= {
                at: _cut(found.format_frame_summary(one).rstrip("\n"), FRAME)
                for at, one in zip(run, found, strict=True)
            }
        except BaseException:  # noqa: BLE001 - the lines of source come from a loader, which may be the job's own
            for at in run:
                code = frames[at].tb_frame.f_code
                texts[at] = _cut(f'  File "{code.co_filename}", line {frames[at].tb_lineno}, in {code.co_name}', FRAME)
    return texts


@functools.cache
def _libraries() -> tuple[str, ...]:
    """How the files of libraries begin, this one's too."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(f"{path}/" for path in paths if path), f"{Path(__file__).parent}/", "<frozen ")


class _Own:
    """Tells the frames of the job's own code from those of libraries.

    Its own is what lies in no folder of libraries, and the package of the function that was called, wherever that lies: an
    application may be installed.
    """

    def __init__(self) -> None:
        self._package = ""

    def chosen(self, frames: list[types.TracebackType]) -> dict[int, int]:
        """The numbers of the frames that may be told, each with how soon: 0 before all others."""
        if not self._package:
            self._package = next(filter(None, map(_package, frames[:FIRST])), "")
        last = len(frames) - 1
        soon = {number: 6 + number for number in range(min(FIRST, len(frames)))}
        for at in range(min(LAST, len(frames))):
            soon[last - at] = 4 + at
        own = (number for number in range(last, -1, -1) if self._is_own(frames[number]))
        for at, number in enumerate(itertools.islice(own, LAST_OWN)):
            soon[number] = at and at + 1  # 1 is the rest of the message
        if frames:
            soon[last] = 0
        return soon

    def _is_own(self, trace: types.TracebackType) -> bool:
        file = trace.tb_frame.f_code.co_filename.replace("\\", "/")
        foreign = file.startswith(_libraries()) or "/site-packages/" in file or "/dist-packages/" in file
        return not foreign or (self._package != "" and _package(trace) == self._package)


def _package(trace: types.TracebackType) -> str:
    """The package of the code of a frame; empty where that is unknown, this library, or in the standard library."""
    module = trace.tb_frame.f_globals.get("__name__")
    name = module.partition(".")[0] if type(module) is str else ""
    return "" if name == "jobqueue" or name in sys.stdlib_module_names else name
