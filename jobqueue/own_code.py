"""Which frames of a traceback are those of a job's own code."""

from __future__ import annotations

import functools
import itertools
import sys
import sysconfig
import types
from pathlib import Path
from typing import Final

__all__ = ["OwnCode"]

FIRST: Final = 4
"""Frames of one traceback that are told: the outermost,"""
LAST: Final = 16
"""the innermost,"""
LAST_OWN: Final = 16
"""and the innermost of the job's own code."""


@functools.cache
def _libraries() -> tuple[str, ...]:
    """How the files of libraries begin, this one's too."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*(f"{path}/" for path in paths if path), f"{Path(__file__).parent}/", "<frozen ")


class OwnCode:
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
            soon[number] = at and at + 1  # 1 is for messages
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
