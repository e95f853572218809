"""Texts of what a job raises or returns: of an exception with all that led to it, within bounds.

Both are foreign code: a ``__str__``, a property, even a ``__class__`` may raise anything. The functions here never raise.
They look at types and not at what an object says of itself, and what has to be asked of it is asked under a guard.
"""

from __future__ import annotations

import itertools
import traceback
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from jobqueue.own_code import OwnCode
from jobqueue.record import ERROR_LIMIT, clean
from jobqueue.retry import Retry
from jobqueue.safe_text import printable

__all__ = [
    "CAUSED",
    "before",
    "class_name",
    "error_text",
    "first_line",
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
MEMBERS: Final = (30, 20, 10)
"""Members of one group: the most of these with which everything said has room, or the last."""
NESTED: Final = 4
"""How deep groups in groups are told of; of those further down the members are."""
FARTHEST: Final = 10_000
"""Causes of causes that are looked at."""
HEADLINE: Final = 1_000
"""Bytes of a first line alone, and of the first message, if there is no room for all."""
HEADING: Final = 200
"""Bytes of another message, if there is no room for all."""
PORTIONS: Final = (500, 2_000, LONGEST)
"""Bytes of a message where there is more room: all have one of these before any has the next."""
FRAMES: Final = 4_000
"""Bytes that long messages leave for frames."""
GAP: Final = 40
"""Bytes that say how much is left out."""
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


def first_line(text: str) -> str:
    """The first line of the text of an exception, not too long for a log."""
    return _cut(text.split("\n", 1)[0], HEADLINE)


def _headline(error: BaseException, own: str) -> str:
    """The first line of a text: what the exception says itself. Of a group or a `Retry` that is little, so it goes on."""
    if _is_group(error):
        about = [_lines(leaf)[0] for leaf in itertools.islice(leaves(error), 4)]
        return f"{own}: {_cut('; '.join([*about[:3], '…'] if len(about) > 3 else about), HEADLINE)}"
    if issubclass(type(error), Retry) and (led := before(error)) is not None:
        line = _lines(led[1])[0]
        return f"{own}: {_cut(_headline(led[1], line) if _is_group(led[1]) else line, HEADLINE)}"
    return own


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
    return printable(name, HEADING)


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
        alone = traceback.TracebackException(cls, error, None, _seen=set())
        alone.exceptions = None  # Python 3.13 misses it then
        entries = list(alone.format_exception_only())
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

    Its first line is what people look for, and what lists show. Then come the frames of its traceback, the members of a
    group, and its causes: what it was raised ``from``, or what was being handled. What fits is told whole. Of what does
    not, the messages and the innermost frames of the job's own code go last.

    No local variables: they hold what arguments hold.

    Args:
        error: The exception; any object of any class. This never raises.
        caller: The file that called the job. Where the traceback begins there, its first frame says nothing.
    """
    try:
        told = [_Told(error)]
        for walk in (_Walk(error, most) for most in MEMBERS):
            told = walk.told
            _describe(told, caller)
            if (_fit(told) and walk.is_whole) or walk.widest <= MEMBERS[-1]:
                break
        return clean("\n".join(_written(told[0])))
    except BaseException:  # noqa: BLE001 - memory ran out, or a thread was interrupted
        return clean(one_line(error))


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
        message: What it says, behind the label.
        size: Bytes of that.
        room: Bytes of it that are written.
        frames: The frames that are written: number → text.
        tiers: How soon each may be written: number → tier.
        count: How many there are.
    """

    error: BaseException
    label: str = ""
    depth: int = 0
    is_cause: bool = False
    again: bool = False
    members: list[_Told | str] = attrs.field(factory=list)
    causes: list[_Told | str] = attrs.field(factory=list)
    message: str = ""
    size: int = 0
    room: int = LONGEST
    frames: dict[int, str] = attrs.field(factory=dict)
    tiers: dict[int, int] = attrs.field(factory=dict)
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
        widest: Members of the largest group.
        is_whole: Whether the bound on exceptions left out no cause.
    """

    def __init__(self, error: BaseException, most: int) -> None:
        root = _Told(error)
        self.told = [root]
        self.widest, self.is_whole = 0, True
        self._most = most
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
        self.widest = max(self.widest, len(members))
        shown = 0
        for number, member in enumerate(members[: self._most], 1):
            one = _Told(member, f"{what} {number} of {len(members)}: ", group.depth + 1)
            shown += self._is_told(one, group.members)
        if left := len(members) - shown:
            kinds = Counter(type_name(type(member)) for member in members[shown:]).most_common(MEMBERS[-1])
            which = ", ".join(f"{count:,} of {name}" for name, count in kinds)
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
                self.is_whole = False
                break
            if one.again:
                break


def _describe(told: list[_Told], caller: str | None) -> None:
    """Make the texts of what is told, with no regard to their room."""
    own = OwnCode()
    for order, one in enumerate(told):
        first, *rest = _lines(one.error)
        if one.again:
            first, rest = f"{_cut(first, HEADING)} (told at another place)", []
        elif order == 0:
            first = _headline(one.error, first)
        # The rest behind a bar: whatever it looks like, it is no frame of ours and names no cause.
        one.message = f"\n{'  ' * one.depth}| ".join([f"{one.label}{first}", *rest])
        one.size = _bytes(one.message)
        if not one.again:
            frames = _frames(_TRACEBACK(one.error), None if order else caller)
            one.count = len(frames)
            one.tiers = own.chosen(frames)
            one.frames = _frame_texts(frames, sorted(one.tiers))


def _fit(told: list[_Told]) -> bool:
    """Leave out what has no room. Answer whether every message is whole, and has its innermost frames."""
    if sum(_bytes(line) + 1 for line in _written(told[0])) <= LONGEST:
        return True
    room, kept, is_whole = LONGEST, 0, True
    offers: list[tuple[int, int, int, int, int]] = []  # what matters most comes first
    for order, one in enumerate(told):
        one.room = min(one.size, HEADING if order else HEADLINE)
        notes = [note for note in (*one.members, *one.causes) if isinstance(note, str)]
        room -= one.room + sum(_size(one, note) for note in ("", *notes)) + GAP * (1 + (one.size > one.room))
        kept += sum(_size(one, text) for at, text in one.frames.items() if one.tiers[at])
        offers += [(one.tiers[at], 0, 0, order, at) for at in one.frames]
        offers += [(1, portion, one.depth, order, -1) for portion in PORTIONS]
    chosen: set[tuple[int, int]] = set()
    for tier, portion, _, order, at in sorted(offers):
        one = told[order]
        if portion:
            size = max(0, min(portion, one.size, one.room + room - min(kept, FRAMES)) - one.room)
            one.room += size
        else:
            is_next = at + 1 == one.count or bool(chosen & {(order, at - 1), (order, at + 1)})
            size = _size(one, one.frames[at]) + (0 if is_next else GAP)
            if size > room:
                del one.frames[at]
                is_whole = is_whole and tier > 0
                continue
            chosen.add((order, at))
        room -= size
    return is_whole and all(one.room == one.size for one in told)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def _size(one: _Told, text: str) -> int:  # with its margin
    return _bytes(text) + (text.count("\n") + 1) * (2 * one.depth + 1)


def _written(one: _Told) -> Iterator[str]:
    margin = "  " * one.depth
    yield margin + _cut(one.message, one.room)
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
        yield from [margin + note] if isinstance(note, str) else _written(note)


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
