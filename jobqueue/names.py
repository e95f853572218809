"""Which names are allowed for queues, namespaces and kinds, and what a kind is called by default."""

from __future__ import annotations

import difflib
import functools
import importlib.machinery
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jobqueue.errors import DeclarationError

__all__ = [
    "check_application",
    "check_kind_name",
    "check_namespace",
    "check_queue_name",
    "default_kind_name",
    "is_found_elsewhere",
    "is_importable",
    "is_namespace",
    "main_module",
    "module_of",
    "origin_of",
    "suggestion",
    "unknown_kind",
    "unwrapped",
]

# An allow list. Names become parts of storage keys: a colon, a brace or a newline in one could name another queue's keys.
# Rejected: percent-encoding everything else, because two spellings of a name would then look alike in a terminal.
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KIND_LENGTH = 255
_PROGRAM = ("__main__", "__mp_main__")
"""What the program that was started is called in its process, and in a process that `multiprocessing` started for it."""


def check_queue_name(name: object) -> str:
    """Answer a queue's name unchanged.

    Raises:
        DeclarationError: It is not 1 to 64 characters of ``A–Z a–z 0–9 _ . -``.
    """
    return _check(name, "a queue")


def check_namespace(name: object) -> str:
    """Answer a namespace unchanged.

    Raises:
        DeclarationError: It is not 1 to 64 characters of ``A–Z a–z 0–9 _ . -``.
    """
    return _check(name, "a namespace")


def check_application(name: object) -> str:
    """Answer the name of an application unchanged.

    Raises:
        DeclarationError: It is not 1 to 64 characters of ``A–Z a–z 0–9 _ . -``.
    """
    return _check(name, "an application")


def is_namespace(name: str) -> bool:
    """Whether `check_namespace` lets it pass."""
    return _PLAIN.fullmatch(name) is not None


def _check(name: object, what: str) -> str:
    if isinstance(name, str) and _PLAIN.fullmatch(name):
        return name
    raise DeclarationError(f"{name!r} is no name of {what}: use 1 to 64 characters of A-Z a-z 0-9 _ . -")


def check_kind_name(name: object) -> str:
    """Answer a kind's name (or alias) unchanged.

    Raises:
        DeclarationError: It is not a string of 1 to 255 printable characters.
    """
    if isinstance(name, str) and 0 < len(name) <= _KIND_LENGTH and name.isprintable():
        return name
    raise DeclarationError(f"{name!r} is no name of a kind of job: use 1 to {_KIND_LENGTH} printable characters")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Answer ``"; did you mean 'x'?"`` for the known name nearest to this one, or nothing if none is near.

    Nearest is one that ends alike: the same module goes by several names, as ``shop.mail``, ``mail`` and ``__main__``.
    """
    names = list(known)
    alike = max(names, key=lambda other: _same_end(name, other), default="")
    near = [alike] if names and _same_end(name, alike) else difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown_kind(name: str, known: Iterable[str]) -> str:
    """Answer what to say of a kind that is none of those known here: which one may be meant, or what is missing."""
    names = list(known)
    if meant := suggestion(name, names):
        return meant
    module = name.partition(".<locals>")[0].rpartition(".")[0]
    if "<locals>" in name:
        return "; it is declared inside of a function: only who has called that knows it"
    if not module or any(other.startswith(f"{module}.") for other in names):
        return ""
    return f"; is the module that declares it, such as {module!r}, named by imports=[…] or --import?"


def _same_end(name: str, other: str) -> int:
    """How many parts of two dotted names are the same, from the last one on."""
    pairs = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def default_kind_name(target: Any) -> str:
    """Answer ``module.qualname`` of a function or class.

    For one declared in the program that was started (``__main__``) the module is called what others import it as, since
    a runner will import it by that name.
    """
    return f"{module_of(target)}.{target.__qualname__}"


def unwrapped(target: Any) -> Any:
    """Answer the function in a partial, however deep; anything else as it is."""
    while isinstance(target, functools.partial):
        target = target.func
    return target


def module_of(target: Any) -> str:
    """Answer the name under which others import the module of a function or class."""
    module = str(target.__module__)
    return main_module(module) if module in _PROGRAM else module


def is_found_elsewhere(target: Any) -> bool:
    """Answer whether another process could find a function or class again by the name that it has here."""
    if "<locals>" in target.__qualname__:
        return False
    module = str(target.__module__)
    if module not in _PROGRAM:
        return True
    program = sys.modules[module]
    file = str(getattr(program, "__file__", None))
    is_module = getattr(program, "__spec__", None) is not None or file.endswith(
        tuple(importlib.machinery.all_suffixes())
    )
    name = main_module(module)
    return is_module and name not in _PROGRAM and all(part.isidentifier() for part in name.split("."))


def origin_of(target: Any) -> tuple[str, str]:
    """Answer module and qualified name of a function, of the function in a partial, or of a class."""
    target = unwrapped(target)
    return module_of(target), target.__qualname__


def is_importable(target: Any) -> bool:
    """Answer whether another process could find a function or class again by importing its module."""
    target = unwrapped(target)
    return module_of(target) not in _PROGRAM and "<locals>" not in target.__qualname__


def main_module(called: str = "__main__") -> str:
    """Answer the name under which others import the program that was started.

    Args:
        called: What it is called here.
    """
    main = sys.modules[called]
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m shop.mail
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None or file.startswith("<"):  # a session, a notebook, standard input: nobody else can import it
        return "__main__"
    path = Path(file).resolve()
    parts = [path.stem]
    # python shop/mail.py, where shop is a package: a runner started in the folder above imports shop.mail.
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))
