"""The files of the demo, and what is counted of one: the same function for the jobs and for the plain loop."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Count", "Found", "count", "find_files", "plain_loop", "standard_library"]

CHUNK: Final = 1 << 20
SKIPPED: Final = frozenset({"__pycache__", "site-packages", "dist-packages"})
"""Folders inside of the standard library's that hold no sources of it."""


class Count(msgspec.Struct, frozen=True):
    """What was counted of a file; one that cannot be read has no hash, but the name of the error.

    Attributes:
        lines: Its lines; a last one without end counts too.
        words: What stands between white space.
        sha256: The hash of its bytes in hexadecimal.
        error: Why it could not be read, or empty.
    """

    lines: int = 0
    words: int = 0
    sha256: str = ""
    error: str = ""


class Found(msgspec.Struct, frozen=True):
    """The files below a place.

    Attributes:
        paths: Absolute paths, the smallest file first.
        left_out: How many were left out because their name is no text, which JSON could not hold.
    """

    paths: tuple[str, ...]
    left_out: int


def standard_library() -> Path:
    """The folder with the sources of this Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(place: Path | None) -> Found:
    """All regular files at or below a place; None: the standard library's sources."""
    if place is None:
        candidates: Iterator[str] = (path for path in _walk(str(standard_library()), SKIPPED) if path.endswith(".py"))
    elif place.is_dir():
        candidates = _walk(str(place.absolute()), frozenset())
    else:
        candidates = iter([str(place.absolute())])
    found: list[tuple[int, str]] = []
    left_out = 0
    for path in candidates:
        try:
            # Not a pipe or a device, which could be read for ever. What vanished in between is counted as unreadable.
            if not os.path.isfile(path) and os.path.exists(path):  # noqa: PTH110, PTH113 - a Path for each is slow
                continue
            size = os.path.getsize(path)  # noqa: PTH202
        except OSError:
            size = 0
        if path.isascii() or _is_text(path):
            found.append((size, path))
        else:
            left_out += 1
    return Found(tuple(path for _, path in sorted(found)), left_out)


def _walk(place: str, skipped: frozenset[str]) -> Iterator[str]:
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name not in skipped)
        for name in sorted(names):
            yield f"{folder}{os.sep}{name}"


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def count(path: str) -> Count:
    """Count the lines and words of a file and hash it. One that cannot be read is an answer too."""
    digest = hashlib.sha256()
    lines = words = 0
    inside = False  # of a word that goes on in the next chunk
    last = b"\n"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                words += len(chunk.split()) - (inside and not chunk[:1].isspace())
                last = chunk[-1:]
                inside = not last.isspace()
    except OSError as error:
        return Count(error=type(error).__name__)
    return Count(lines + (last != b"\n"), words, digest.hexdigest())


def plain_loop(paths: Sequence[str]) -> dict[str, Count]:
    """What the jobs are compared with: no queue, one file after the other."""
    return {path: count(path) for path in paths}
