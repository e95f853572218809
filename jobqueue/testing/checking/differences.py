"""How two states differ, in words."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["cut", "difference"]

LONGEST: Final = 300
"""Characters of a value that are shown."""


def cut(text: str, longest: int = LONGEST) -> str:
    """A text that is not longer than that."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def difference(here: Any, clean: Any, where: str = "") -> list[str]:
    """Lines that tell how two states differ: the parts that do, if both are tuples of one length or dicts."""
    if isinstance(here, tuple) and isinstance(clean, tuple) and len(here) == len(clean):
        keys: list[Any] = list(range(len(here)))
    elif isinstance(here, dict) and isinstance(clean, dict):
        keys = [*clean, *(key for key in here if key not in clean)]
    else:
        return _as_wholes(here, clean, where)
    lines = []
    for key in keys:
        place = f"{where}[{key!r}]"
        if isinstance(here, dict) and (key not in here or key not in clean):
            lines.append(f"  state{place} is {'missing' if key not in here else f'new: {cut(repr(here[key]))}'}")
        elif here[key] != clean[key]:
            lines += difference(here[key], clean[key], place)
    return lines or _as_wholes(here, clean, where)


def _as_wholes(here: Any, clean: Any, where: str) -> list[str]:
    return [f"  state{where}: {cut(repr(here))}", f"     instead of {cut(repr(clean))}"]
