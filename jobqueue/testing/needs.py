"""A clear word where a package is not installed that only some of the tools need."""

from __future__ import annotations

import importlib.util

__all__ = ["need_hypothesis"]


def need_hypothesis(what: str) -> None:
    """Raise `ModuleNotFoundError`, with what to do, unless the package ``hypothesis`` is installed."""
    try:
        found = importlib.util.find_spec("hypothesis") is not None
    except ValueError:  # somebody blocked it
        found = False
    if not found:
        raise ModuleNotFoundError(f"{what} needs the package hypothesis: pip install hypothesis", name="hypothesis")
