"""Files of an application that have the name of a module of the standard library: one of the two hides the other."""

# Imports only what Python has loaded before any program: whatever else it asked for might be such a file.
# ruff: noqa: PTH109, PTH110, PTH118, PTH119, PTH120, PTH208

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["explained", "hidden", "leave_out_current_folder", "refuse"]

_LIBRARY = os.path.dirname(os.__file__)


def leave_out_current_folder() -> None:
    """Take the current directory from the path, where Python has put it first for ``python -m jobqueue``.

    A file there would run in place of a package that this library or its command line imports, although ``--app-dir`` says
    where modules are looked for. The installed program ``jobqueue`` and ``python -P`` do not have it there.
    """
    # While Python looks for the module that it is to run, and imports its package, argv begins with this.
    is_program = sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "jobqueue"
    if is_program and not sys.flags.safe_path:
        del sys.path[0]


def hidden(name: str) -> str:
    """Answer ``": …"``, what to do about the file of this name that hides a module, or is hidden by it; "" for none."""
    files = [file for module, file in _namesakes() if module == name.partition(".")[0]]
    return f": {_sentence(files[0])}" if files else ""


def explained(error: BaseException) -> str | None:
    """Answer what to do about the file that made an import fail, if it is such a file."""
    for name, file in _namesakes():
        if _file_of(name) == file or file in _files_in(error) or getattr(error, "name", None) == name:
            return _sentence(file)
    return None


def refuse() -> None:
    """Refuse to go on where a module of the standard library has got such a file instead of what it wanted.

    It would fail some time later, in the midst of that module.

    Raises:
        ImportError: There is one.
    """
    folders = {folder or os.getcwd() for folder in sys.path[: _library_index()]}
    for name in sys.stdlib_module_names & sys.modules.keys():
        file = _file_of(name)
        if file is not None and os.path.dirname(file) in folders and _is_used(name):
            raise ImportError(_sentence(file), name=name, path=file)


def _is_used(name: str) -> bool:
    module = sys.modules[name]
    others = [other for key, other in sys.modules.items() if key.partition(".")[0] in sys.stdlib_module_names]
    return any(value is module for other in others if other is not None for value in list(vars(other).values()))


def _sentence(file: str) -> str:
    name = os.path.basename(file).removesuffix(".py")
    return f"{file} has the name of the module {name!r} of the standard library, and one hides the other: rename it"


def _namesakes() -> Iterator[tuple[str, str]]:
    """The names and files of those in the folders that come before the library, where modules are looked for first."""
    for folder in sys.path[: _library_index()]:
        place = folder or os.getcwd()
        try:
            entries = os.listdir(place)
        except OSError:  # a zip, or a folder that is not there
            continue
        for entry in sorted(entries):
            name = entry.removesuffix(".py")
            path = os.path.join(place, entry)
            if name in sys.stdlib_module_names and (name != entry or os.path.exists(os.path.join(path, "__init__.py"))):
                yield name, path


def _library_index() -> int:
    return sys.path.index(_LIBRARY) if _LIBRARY in sys.path else len(sys.path)


def _file_of(name: str) -> str | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    return file and _without_init(file)


def _without_init(file: str) -> str:
    """The file of a module, or the folder of a package."""
    folder, last = os.path.split(file)
    return folder if last == "__init__.py" else file


def _files_in(error: BaseException) -> set[str]:
    files: set[str] = set()
    trace = error.__traceback__
    while trace is not None:
        files.add(_without_init(trace.tb_frame.f_code.co_filename))
        trace = trace.tb_next
    return files
