"""Makes text that others wrote safe for a terminal, a log and an error: the one place that does.

What is stored may hold anything. Control characters could move the cursor, recolour or rename the terminal. Line ends could
forge a line of a log. The marks of right-to-left writing could show another text than the one that is there. And a name of
megabytes would bury every other line. Whatever the library says of foreign text goes through `printable` or `quoted`.

An id is bytes, and nobody but jobqueue itself is bound to write hexadecimal digits there. So it has a text form that says
all of it: `id_text`, and `id_bytes` for the way back.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["LINE", "LONGEST", "id_bytes", "id_text", "printable", "quoted"]

LONGEST: Final = 300
"""Characters of one foreign name or id in a message: more than the longest name of a kind has."""
LINE: Final = 1_100
"""Characters of one line of an error, or of another text of several words, in a message: `texts.one_line` with its gap."""
_ESCAPED: Final = re.compile(r"\\(?:\\|x([0-9A-Fa-f]{2}))")


def printable(text: str | bytes, most: int | None = LONGEST) -> str:
    """Answer the text in one line, with everything that is not printable written as an escape.

    Args:
        text: What somebody else wrote; bytes are an id or the like, and are shown as in `id_text`.
        most: How many characters the answer has at most; a longer one ends with ``…``. None for all of them.
    """
    whole = most is None or len(text) <= 4 * most  # a character has four bytes at most
    part = text if whole else text[: 4 * (most or 0)]
    if isinstance(part, bytes):
        shown = id_text(part)
    elif part.isprintable():
        shown = part
    else:
        shown = "".join([one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in part])
    return shown if most is None or len(shown) <= most else f"{shown[: most - 1]}…"


def quoted(text: str, most: int = LONGEST) -> str:
    """Answer the same in quotes, as ``repr`` has it, where one must see where the text begins and ends."""
    shown = repr(text[:most])
    cut = len(text) > most or len(shown) > most + 2
    return f"{shown[:most].rstrip(shown[0])}…{shown[0]}" if cut else shown


def id_text(id: bytes) -> str:
    r"""Answer the text form of an id: UTF-8, with ``\xNN`` for each byte of what is not printable, and ``\\`` for ``\``.

    No two ids have the same form, and `id_bytes` is the way back.
    """
    text = id.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join([one if one.isprintable() and one != "\\" else _escape(one) for one in text])


def id_bytes(text: str) -> bytes:
    r"""Answer the id with this text form.

    A backslash that begins neither ``\\`` nor ``\xNN`` stands for itself, as does what is not printable: both are taken as
    somebody may type or paste them.

    Raises:
        UnicodeEncodeError: It holds half a character.
    """
    if "\\" not in text:
        return text.encode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    end = 0
    for match in _ESCAPED.finditer(text):
        parts.append(text[end : match.start()].encode("utf-8", "surrogateescape"))
        parts.append(bytes.fromhex(match[1]) if match[1] else b"\\")
        end = match.end()
    return b"".join([*parts, text[end:].encode("utf-8", "surrogateescape")])


def _escape(one: str) -> str:
    return "\\\\" if one == "\\" else "".join([f"\\x{byte:02x}" for byte in one.encode("utf-8", "surrogateescape")])
