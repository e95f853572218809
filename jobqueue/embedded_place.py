"""How the users of one ``embedded://`` directory agree on one server, and the guard that ends a forgotten one.

Lock files, never deleted, and what each lock means:

* ``start``, exclusive: I am looking, starting, joining or leaving. Everything below happens while it is held.
* ``users``, shared, for life: I use the server. Whoever can take it exclusively is the last one.
* ``server``, exclusive, held *by the server* through a descriptor it inherits: it runs. It cannot be wrong: the kernel
  gives the lock back when the process is gone, however it went. (A process id may belong to somebody else by now, a
  file may be left over, and a server that does not answer may be alive: a second one on the same data would ruin it.)
* ``guard``, exclusive, held by the guard in the same way.

The other users of the system: the directory belongs to this user and no other may write to it (`private_folder`), and
neither may they to its files. Files are opened without following links, and where the server listens is believed only if
it is a private folder of this user. A server is asked only if it belongs to this user.

All are ``flock`` locks, which belong to the open file and not to the process: two users in one process count as two.

This module imports the standard library alone, and nothing of the package: the guard runs it as a program, in an
interpreter that starts in a few milliseconds and looks for no packages.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as sockets
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

__all__ = [
    "GUARD_SECONDS",
    "MARKERS",
    "SOCKET",
    "SOCKET_FOLDER",
    "NotOurs",
    "Place",
    "flaw_of",
    "is_our_socket",
    "others_may_write",
    "state_of",
]

GUARD_SECONDS = 1.0
"""How often the guard looks whether anybody is left."""

MARKERS = ("start", "users", "server")
"""The first files that are made in a new directory, all empty: without them a directory is used for something else."""

SOCKET_FOLDER = "jobqueue-"
SOCKET = "socket"
"""A server listens on the file ``socket`` of a folder whose name begins like this."""

_END_SECONDS = 10.0
_POLL_SECONDS = 0.005
_LONGEST_NOTE = 4096  # characters

_open_places: set[Place] = set()
_forking = threading.Lock()  # held while locks are opened or closed, and by a fork: a child knows all it must drop


class NotOurs(OSError):
    """A file or folder is not this user's own, or other users of the system may write to it."""


def others_may_write(found: os.stat_result) -> bool:
    """Whether users besides the owner may. A group that holds one user alone, as many systems make them, is no other."""
    return bool(found.st_mode & 0o002) or bool(found.st_mode & 0o020 and not _is_own_group(found.st_gid))


def _is_own_group(gid: int) -> bool:
    import grp  # not on Windows
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def flaw_of(found: os.stat_result) -> str | None:
    """What keeps a file or folder from being this user's own, as the end of a sentence; None if nothing does."""
    if found.st_uid != os.geteuid():
        return f"belongs to another user of the system (id {found.st_uid})"
    return "can be written by other users" if others_may_write(found) else None


def is_our_socket(socket: str) -> bool:
    """Whether this can be the path of a socket that only this user's processes can have made."""
    path = Path(socket)
    if path.name != SOCKET or not path.parent.name.startswith(SOCKET_FOLDER) or not path.is_absolute():
        return False
    try:
        found = path.parent.lstat()
    except (OSError, ValueError):  # not there; a NUL
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


class Place:
    """One directory as one user sees it: its locks, and where its server listens. For one thread at a time.

    Args:
        directory: A descriptor of the directory, which is copied.

    Raises:
        OSError: Its files cannot be opened, or are not this user's own.
    """

    def __init__(self, directory: int) -> None:
        self._fds: list[int] = []
        with _forking:
            _open_places.add(self)
            try:
                # All names are looked up in the directory that was opened here. Deleted, or deleted and made anew by
                # somebody else, its users still find each other, and leave the new one's server alone.
                self.directory = os.dup(directory)
                self._fds.append(self.directory)
                self._start, self._users, self._server = [self._open_lock(name) for name in MARKERS]
            except BaseException:
                self._drop()
                raise

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else looks, starts, joins or leaves meanwhile. Waits for its turn."""
        _lock(self._start)
        try:
            yield
        finally:
            _unlock(self._start)

    def join(self) -> None:
        """Be a user until ``leave`` or ``close``. Inside ``alone``, so nobody can be asking whether it is the last."""
        _lock(self._users, shared=True)

    def is_last(self) -> bool:
        """Whether nobody else uses the server. Inside ``alone``, and followed by ``leave`` or ``close``."""
        return _lock(self._users, wait=False)

    def leave(self) -> None:
        """Be a user no more."""
        _unlock(self._users)

    def server_runs(self) -> bool:
        """Whether the process of the server lives, ready or not. Inside ``alone``."""
        if not _lock(self._server, wait=False):
            return True
        _unlock(self._server)
        return False

    @contextlib.contextmanager
    def lend(self, name: str) -> Iterator[int | None]:
        """A descriptor that holds the lock ``name``, for the process that stands for it to inherit. Inside ``alone``.

        None if such a process lives.
        """
        with _forking:
            fd = self._open_lock(name)
        try:
            yield fd if _lock(fd, wait=False) else None
        finally:
            with _forking:
                if fd in self._fds:
                    self._fds.remove(fd)
                    os.close(fd)  # closed, not unlocked: the lock lives on with the copy of the process

    def open_file(self, name: str, flags: int) -> int:
        """Open a file of the directory, which must be a regular one of this user; a new one is for this user alone.

        Raises:
            NotOurs: It is something else.
            OSError: It cannot be opened.
        """
        # O_NONBLOCK: a pipe would be waited for.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self.directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise NotOurs(f"{name!r} in it is a link") from None
            raise
        found = os.fstat(fd)
        flaw = flaw_of(found) if stat.S_ISREG(found.st_mode) else "is not a regular file"
        if flaw is not None:
            os.close(fd)
            raise NotOurs(f"{name!r} in it {flaw}")
        if found.st_mode & 0o777 != 0o600:  # a copy, or a mask: who can read a file can hold a lock of it
            os.fchmod(fd, 0o600)
        return fd

    def new_file(self, name: str) -> int:
        """Make a file of the directory, instead of the one that may be there. Nothing is written through a link."""
        self.remove(name)
        return self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def remove(self, name: str) -> None:
        """Remove a file of the directory, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.directory)

    def socket(self) -> str | None:
        """Where the server listens, if one runs. None if that is not known, or cannot be a socket of this user."""
        try:
            fd = self.open_file("socket", os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, encoding="utf-8", errors="surrogateescape") as note:
            noted = note.read(_LONGEST_NOTE)
        return noted if is_our_socket(noted) else None

    def note_socket(self, socket: str) -> None:
        """Write down where the server will listen. Before it starts: a server nobody can find could not be ended."""
        with os.fdopen(self.new_file("socket"), "w", encoding="utf-8", errors="surrogateescape") as note:
            note.write(socket)

    def end_server(self, known: str) -> None:
        """End the server, wait until it is gone, and remove its socket. Inside ``alone``, by the last user.

        Args:
            known: Where it listens unless the directory says otherwise: the directory may be deleted, and the server
                this user started with may have died and another been started elsewhere.

        Raises:
            OSError: It cannot be reached, refuses, or takes longer than 10 s.
        """
        socket = self.socket() or known
        if self.server_runs():
            with contextlib.suppress(ConnectionResetError):  # gone in the middle of the answer: what was wanted
                refusal = _ask(socket, b"SHUTDOWN", _END_SECONDS)
                if refusal:
                    raise OSError(f"the server refuses to shut down: {refusal.decode(errors='replace').strip()}")
        for _ in range(int(_END_SECONDS / _POLL_SECONDS)):
            if not self.server_runs():
                break
            time.sleep(_POLL_SECONDS)
        else:
            raise TimeoutError(f"the server has not ended in {_END_SECONDS:.0f} s")
        with contextlib.suppress(OSError):  # somebody put something into the folder: it is theirs now
            Path(socket).unlink(missing_ok=True)
            Path(socket).parent.rmdir()
        self.remove("socket")

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        with _forking:
            self._drop()

    @property
    def closed(self) -> bool:
        """Whether everything was given back, or was left with the parent by a fork."""
        return not self._fds

    def _open_lock(self, name: str) -> int:
        self._fds.append(self.open_file(name, os.O_RDWR | os.O_CREAT))
        return self._fds[-1]

    def _drop(self) -> None:
        _open_places.discard(self)
        while self._fds:
            os.close(self._fds.pop())


def state_of(socket: str, timeout: float) -> Literal["ready", "loading", "hanging", "silent"]:
    """What the server on ``socket`` says when asked; waits at most ``timeout`` seconds."""
    try:
        answer = _ask(socket, b"PING", timeout)
    except TimeoutError:
        return "hanging"
    except OSError:
        return "silent"
    if not answer:
        return "silent"
    return "loading" if answer.startswith(b"-LOADING") else "ready"


def _ask(socket: str, command: bytes, timeout: float) -> bytes:
    """One command without arguments, and the first bytes of its answer: too little to load a client library for."""
    with sockets.socket(sockets.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(socket)
        if _owner_of(connection) not in (None, os.geteuid()):
            raise PermissionError(f"the server on {socket} belongs to another user of the system")
        connection.sendall(command + b"\r\n")
        return connection.recv(512)


def _owner_of(connection: sockets.socket) -> int | None:
    """The user whose process listens at the other end; None where the system does not tell."""
    if sys.platform == "linux":
        return int(struct.unpack("3i", connection.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12))[1])
    if sys.platform == "darwin":
        # LOCAL_PEERCRED of SOL_LOCAL answers a struct xucred: its version, the user, and groups.
        return int(struct.unpack_from("2I", connection.getsockopt(0, 1, 76))[1])
    return None


def _lock(fd: int, *, shared: bool = False, wait: bool = True) -> bool:
    import fcntl  # not on Windows, where this module is imported to say so

    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _unlock(fd: int) -> None:
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_UN)


def _drop_in_child() -> None:
    """A forked child is no user: its copies of the descriptors would keep the locks when its parent is gone."""
    for place in list(_open_places):
        place._drop()  # noqa: SLF001  the lock is held, by the fork
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_drop_in_child)


def guard(directory: int, socket: str, own_lock: int) -> None:
    """End the server that the last user could not end, because it was killed.

    Looks once a second, as any user would: under the ``start`` lock. (Waiting for ``users`` would wake up at the right
    moment, but a lock that is taken for a moment outside ``start`` makes the last user believe that there is another.)

    Args:
        directory: A descriptor of the directory of the server: its path may name another one by now.
        socket: Where the server listens.
        own_lock: The descriptor with the lock ``guard``, so that a directory has one guard.
    """
    place = Place(directory)
    while True:
        time.sleep(GUARD_SECONDS)
        with place.alone():
            with contextlib.suppress(OSError):
                socket = place.socket() or socket  # remembered in case that the directory is deleted
            if place.is_last():
                with contextlib.suppress(OSError):  # it is busy, or stopped: there is another second
                    place.end_server(socket)
            place.leave()
            if not place.server_runs():
                os.close(own_lock)  # while nobody can start a server that would rely on this guard
                return


if __name__ == "__main__":
    # The child is the guard. Its parent ends at once, so that nobody has to wait for the guard or finds a zombie.
    if os.fork() == 0:
        guard(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
