"""How the users of one ``embedded://`` directory agree on one server, and the guard that ends a forgotten one.

Lock files, never deleted, and what each lock means:

* ``start``, exclusive: I am looking, starting, joining or leaving. Everything below happens while it is held.
* ``users``, shared, for life: I use the server. Whoever can take it exclusively is the last one.
* ``server``, exclusive, held *by the server* through a descriptor it inherits: it runs. It cannot be wrong: the kernel
  gives the lock back when the process is gone, however it went. (A process id may belong to somebody else by now, a
  file may be left over, and a server that does not answer may be alive: a second one on the same data would ruin it.)
* ``guard``, exclusive, held by the guard in the same way.

All are ``flock`` locks, which belong to the open file and not to the process: two users in one process count as two.

This module imports the standard library alone, and nothing of the package: the guard runs it as a program, in an
interpreter that starts in a few milliseconds and looks for no packages.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

__all__ = ["GUARD_SECONDS", "Place", "state_of"]

GUARD_SECONDS = 1.0
"""How often the guard looks whether anybody is left."""

_END_SECONDS = 10.0
_POLL_SECONDS = 0.005

_open_places: set[Place] = set()
_forking = threading.Lock()  # held while locks are opened or closed, and by a fork: a child knows all it must drop


class Place:
    """One directory as one user sees it: its locks, and where its server listens. For one thread at a time.

    Raises:
        OSError: The directory is not there, or its files cannot be opened.
    """

    def __init__(self, directory: Path) -> None:
        self._fds: list[int] = []
        with _forking:
            _open_places.add(self)
            try:
                # All names are looked up in the directory that was opened here. Deleted, or deleted and made anew by
                # somebody else, its users still find each other, and leave the new one's server alone.
                self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._fds.append(self._directory)
                self._start = self._open_lock("start")
                self._users = self._open_lock("users")
                self._server = self._open_lock("server")
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

    def socket(self) -> str | None:
        """Where the server listens, if one runs. None if none was started since the last one ended in order."""
        try:
            fd = os.open("socket", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, encoding="utf-8", errors="surrogateescape") as note:
            return note.read() or None

    def note_socket(self, socket: str) -> None:
        """Write down where the server will listen. Before it starts: a server nobody can find could not be ended."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open("socket", flags, 0o600, dir_fd=self._directory)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as note:
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
        Path(socket).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put something into the folder: it is theirs now
            Path(socket).parent.rmdir()
        with contextlib.suppress(FileNotFoundError):
            os.unlink("socket", dir_fd=self._directory)

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        with _forking:
            self._drop()

    @property
    def closed(self) -> bool:
        """Whether everything was given back, or was left with the parent by a fork."""
        return not self._fds

    def _open_lock(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fds.append(os.open(name, flags, 0o600, dir_fd=self._directory))
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
        connection.sendall(command + b"\r\n")
        return connection.recv(512)


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


def guard(directory: Path, socket: str, own_lock: int) -> None:
    """End the server that the last user could not end, because it was killed.

    Looks once a second, as any user would: under the ``start`` lock. (Waiting for ``users`` would wake up at the right
    moment, but a lock that is taken for a moment outside ``start`` makes the last user believe that there is another.)

    Args:
        directory: The directory of the server.
        socket: Where the server listens.
        own_lock: The descriptor with the lock ``guard``, so that a directory has one guard.
    """
    place = Place(directory)
    while True:
        time.sleep(GUARD_SECONDS)
        with place.alone():
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
        guard(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
