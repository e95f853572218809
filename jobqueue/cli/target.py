"""From ``shop.work:jobs`` to the `JobQueue` that it names."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Final

import click

from jobqueue import shadows
from jobqueue.errors import DeclarationError
from jobqueue.names import suggestion
from jobqueue.storage.url import without_secrets

if TYPE_CHECKING:
    from jobqueue.queue import JobQueue

__all__ = ["import_module", "is_target", "load_target", "put_first_on_path"]

_PASSED: Final = frozenset({"jobqueue", "importlib"})


def put_first_on_path(folder: Path) -> None:
    """Make a folder the first place where modules are looked for."""
    sys.path.insert(0, str(folder.absolute()))


def import_module(name: str, where: str = "") -> ModuleType:
    """Import a module that a user named.

    Args:
        name: Its name.
        where: What it is named by, for the error; empty for a TARGET.

    Raises:
        DeclarationError: There is none, or importing it failed; then its traceback was printed, unless it is our refusal.
    """
    of = f"{where}: " if where else ""
    if where and not all(part.isidentifier() for part in name.split(".")):
        raise DeclarationError(f"{where} names a module, as in shop.mail, not {name!r}")
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, name):
            raise DeclarationError(
                f"{of}there is no module {error.name!r} below {sys.path[0]} or elsewhere on the path"
                f"{_module_meant(str(error.name)) or ': '}run from the project's directory, or name it with --app-dir"
            ) from error
        if isinstance(error, ValueError | TypeError) and not name.strip("."):
            raise DeclarationError(f"{name!r} is no name of a module") from error
        # It is the user's code that fails: where, is what helps, and not how it was come to.
        trace = _theirs(error.__traceback__)
        if isinstance(error, DeclarationError):
            # Its text says what to write. The line itself may be a URL with a password.
            places = [frame for frame in traceback.extract_tb(trace) if not _is_ours(Path(frame.filename))]
            where = f" at {places[-1].filename}:{places[-1].lineno}" if places else ""
            raise DeclarationError(f"importing {name} failed{where}: {error}") from error
        click.echo(
            without_secrets("".join(traceback.format_exception(error.with_traceback(trace)))), err=True, nl=False
        )
        told = shadows.explained(error) or _folder_above(error, name)
        words = "" if told is None else f": {told}"
        raise DeclarationError(f"importing {name} failed: {type(error).__name__}: {error}{words}") from error


def _module_meant(name: str) -> str:
    """Answer ``"; did you mean 'x'? Else "`` for the nearest module in the folder where they are looked for first."""
    package, dot, _ = name.rpartition(".")
    folder = Path(sys.path[0], *package.split(".")) if package else Path(sys.path[0])
    names = [f"{package}{dot}{one.name}" for one in pkgutil.iter_modules([str(folder)])]
    meant = suggestion(name, names)
    return f"{meant} Else " if meant else ""


def _folder_above(error: Exception, name: str) -> str | None:
    """What to do where a module calls the folder in which it was looked for by its name, as a package."""
    folder = Path(sys.path[0])
    if not isinstance(error, ModuleNotFoundError) or str(error.name).partition(".")[0] != folder.name:
        return None
    return (
        f"{folder.name!r} is the folder that modules are looked for in: name the one above it with --app-dir, and the "
        f"module as {folder.name}.{name}"
    )


def _is_ours(file: Path) -> bool:
    return Path(__file__).parents[1] in file.parents


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """The trace from the first frame on that is neither ours nor of the import system."""
    first = trace
    while first is not None and first.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        first = first.tb_next
    return first


def _is_part(missing: str | None, name: str) -> bool:
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def is_target(word: str) -> bool:
    """Whether this is of the form ``module:attribute``, which no id that jobqueue makes is."""
    module_name, colon, path = word.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module_name.split("."), *path.split(".")))


def load_target(target: str) -> JobQueue:
    """The `JobQueue` named by ``module:attribute``.

    Raises:
        UsageError: It is not of this form.
        DeclarationError: There is no such module or attribute, or it is something else.
    """
    from jobqueue.queue import JobQueue

    module_name, _, path = target.partition(":")
    if "://" in target:  # which is not repeated: it may hold a password
        raise click.UsageError("TARGET is module:attribute, as in shop.work:jobs, not a URL: write that behind --url")
    if not is_target(target):
        raise click.UsageError(f"TARGET is module:attribute, as in shop.work:jobs, not {target!r}")
    module = import_module(module_name)
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            told = _queues_of(module) + shadows.hidden(module_name)
            raise DeclarationError(f"{module_name} has no {path!r}{told}") from None
    if not isinstance(found, JobQueue):
        raise DeclarationError(f"{target} is no JobQueue but {type(found).__name__}{_queues_of(module)}")
    return found


def _queues_of(module: ModuleType) -> str:
    from jobqueue.queue import JobQueue

    names = sorted(name for name, value in vars(module).items() if isinstance(value, JobQueue))
    return f"; its JobQueues are: {', '.join(names)}" if names else "; it holds no JobQueue"
