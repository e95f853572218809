"""Folders that this user of the system can rely on: who owns them, who may change them, and the way that leads to them.

Only root and this user may be able to change what the path names. So every folder and every link on the way belongs to
one of the two, and no folder there can be written by others, except a sticky one such as ``/tmp``, where a name belongs to
who made it. Then no name that was checked can be replaced by another user before it is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobqueue.embedded_place import MARKERS, NotOurs, flaw_of, others_may_write

__all__ = ["check_contents", "find_folder", "make_private", "open_folder"]

_MOST_LINKS: Final = 40
_DATA: Final = "appendonlydir"


def find_folder(path: Path, *, make: bool = False) -> Path:
    """Follow a path, and answer where it leads, without links.

    Args:
        path: The path of a folder.
        make: Make the folders that are missing; the last one for this user alone.

    Raises:
        NotOurs: Another user could change what the path names.
        OSError: It leads nowhere, or a folder cannot be made.
    """
    here = Path(path.absolute().anchor)
    left = list(reversed(path.absolute().parts[1:]))
    links = 0
    _check_step(here, here.lstat())
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        step = here / name
        try:
            found = step.lstat()
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):
                step.mkdir(0o755 if left else 0o700)
            found = step.lstat()
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = step.readlink()
            if target.is_absolute():
                here = Path(target.anchor)
            left += reversed(target.parts[target.is_absolute() :])
        else:
            here = step
        _check_step(step, found)
    return here


def _check_step(step: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise NotOurs(f"{step} belongs to another user of the system (id {found.st_uid})")
    if stat.S_ISDIR(found.st_mode) and others_may_write(found) and not found.st_mode & stat.S_ISVTX:
        raise NotOurs(
            f"{step} can be written by other users, who could replace what is in it: chmod go-w it, or use another"
        )


@contextlib.contextmanager
def open_folder(path: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor, for the length of a block, of a folder of this user that no other user may write to.

    Args:
        path: Where it is.
        make: Make it, and what is missing on the way, if it is not there.

    Raises:
        NotOurs: It is another user's, or other users can write to it or change what its path names.
        OSError: It is not there, or is no folder.
    """
    fd = os.open(find_folder(path, make=make), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if (flaw := flaw_of(os.fstat(fd))) is not None:
            raise NotOurs(f"it {flaw}")
        yield fd
    finally:
        os.close(fd)


def make_private(path: Path) -> None:
    """Make a new folder for this user alone, and what is missing on the way.

    Raises:
        NotOurs: Other users could change what the path names.
        OSError: It is there already, or cannot be made.
    """
    if sys.platform == "win32":  # who may enter is inherited there
        path.mkdir(parents=True)
        return
    (find_folder(path.parent, make=True) / path.name).mkdir(0o700)


def check_contents(folder: int) -> bool:
    """Whether an embedded server was started in a folder (True), or the folder is empty or as good as empty (False).

    Only what an embedded server makes is looked into; all of it must be this user's own.

    Args:
        folder: A descriptor of it.

    Raises:
        NotOurs: It holds a link, a file of another user or one that other users can write to, or it is used for something
            else.
        OSError: It cannot be read.
    """
    names = set(os.listdir(folder))  # before the markers are looked for, which a new server makes before all else
    markers = {name for name in MARKERS if _is_empty_file(name, folder)}
    if not names <= markers and len(markers) < len(MARKERS):
        raise NotOurs("it is used for something else: name a folder that is new or empty, or one of an embedded server")
    _check_entries(folder, "")
    if names <= markers:  # a starter was killed, or is at it
        return False
    with contextlib.suppress(FileNotFoundError):
        data = os.open(_DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _check_entries(data, f"{_DATA}/")
        finally:
            os.close(data)
    return True


def _is_empty_file(name: str, folder: int) -> bool:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and not found.st_size


def _check_entries(folder: int, prefix: str) -> None:
    # The server opens its files by name and follows links, so there must be none.
    for name in os.listdir(folder):
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a server that runs renames and removes files of its own
        flaw = flaw_of(found)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            flaw = "is a link" if stat.S_ISLNK(found.st_mode) else "is neither a file nor a folder"
        if flaw is not None:
            raise NotOurs(f"{prefix + name!r} in it {flaw}")
