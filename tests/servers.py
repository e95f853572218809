"""Real servers for tests: started on a unix socket in a folder of their own, ended by process id.

A test asks for the fixture ``server`` (shared, flushed before each test) or ``own_server`` (a factory: kill it,
reconfigure it, restart it). Both are in ``conftest.py``.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket as sockets
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobqueue.embedded import server_binary
from jobqueue.errors import StorageError

__all__ = ["KINDS", "OLDEST", "Server", "binary_of", "kinds", "start_server", "version_of"]

KINDS = ("valkey", "redis")
OLDEST = (7, 0)
"""Older servers know neither ``enable-debug-command`` nor the script flags."""

_SETTINGS = (
    "--save",
    "",
    "--appendonly",
    "no",
    "--enable-debug-command",
    "yes",
    "--daemonize",
    "no",
    "--databases",
    "1",
)
_START_SECONDS = 20.0
_POLL_SECONDS = 0.002

# The guard sees its standard input end when the test process is gone, however that ended (SIGKILL too), and cleans up.
# A line means that the server was stopped in the regular way. (PR_SET_PDEATHSIG would end a server with the *thread*
# that started it, and needs code between fork and exec.)
_GUARD = 'read -r line || { kill -KILL "$1"; rm -rf -- "$2"; }'


@cache
def binary_of(kind: str) -> Path | None:
    """The server's program, or None where it is not installed."""
    if kind == "valkey":
        try:
            return server_binary()
        except StorageError:
            return None
    found = shutil.which("redis-server") or shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
    return Path(found) if found else None


@cache
def version_of(kind: str) -> str:
    """What the program says its version is, for example ``9.1.2``."""
    binary = binary_of(kind)
    assert binary is not None, f"no {kind} server is installed"
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    match = re.search(r"v=([0-9.]+)", told)
    assert match, f"{binary} --version told {told!r}"
    return match[1]


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of server tests can run on here."""
    return tuple(
        kind
        for kind in KINDS
        if binary_of(kind) is not None and tuple(int(part) for part in version_of(kind).split(".")[:2]) >= OLDEST
    )


class Server:
    """One running server. Its folder (socket, data, log) goes when it is stopped, not when it is killed."""

    def __init__(self, kind: str, *, port: bool = False, args: Sequence[str] = ()) -> None:
        binary = binary_of(kind)
        assert binary is not None, f"no {kind} server is installed"
        self.kind = kind
        self.directory = Path(tempfile.mkdtemp(prefix="jq-"))
        self.socket = str(self.directory / "s")
        self.url = f"unix://{self.socket}"
        self.port = _free_port() if port else 0
        self._command = [str(binary), *_SETTINGS, "--dir", str(self.directory), "--unixsocket", self.socket]
        self._command += ["--port", str(self.port), "--bind", "127.0.0.1", "--logfile", str(self.log), *args]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._own = self.client()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "log"

    @property
    def pid(self) -> int:
        """The process id of the running server; another one after ``restart``."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def tcp_url(self) -> str:
        """The address on the loopback port; only with ``port=True``."""
        assert self.port, "start the server with port=True"
        return f"redis://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def client(self) -> redis.Redis:
        """A new client: bytes in, bytes out, and never a second attempt."""
        return redis.Redis(unix_socket_path=self.socket, retry=Retry(NoBackoff(), 0))

    def flush(self) -> None:
        """Remove all data."""
        self._own.flushall()

    def kill(self) -> None:
        """End the process with SIGKILL; returns when it is gone. Socket, data and log stay where they are."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again on the same socket, port and data; ends the process (SIGTERM) if it still runs.

        Data comes back only if the server keeps it: ``args=["--appendonly", "yes", "--appendfsync", "always"]``.
        """
        self._end(signal.SIGTERM)
        self._start()

    def stop(self) -> None:
        """End the process and remove its folder. A second call does nothing."""
        self._own.close()
        self._end(signal.SIGKILL)  # at once: an orderly end takes a tenth of a second, and there is nothing to keep
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> None:
        # A session of its own: Ctrl-C at pytest must not take the server away before the tests have ended.
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._process = process
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(process.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for _ in range(int(_START_SECONDS / _POLL_SECONDS)):
            try:
                process.wait(_POLL_SECONDS)  # the pause between two looks, which also sees the server fail
            except subprocess.TimeoutExpired:
                if self._answers():
                    return
            else:
                break
        log = self.log.read_text() if self.log.exists() else ""
        raise RuntimeError(f"{' '.join(self._command)} did not start; the end of its log:\n{log[-2000:]}")

    def _answers(self) -> bool:
        try:
            return bool(self._own.ping())
        except redis.ConnectionError:  # no socket yet, or the data is being loaded
            return False

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # stopped by SIGSTOP, or busy with a script
                process.kill()
                process.wait()
        if guard is not None:
            guard.communicate(b"\n")


def start_server(kind: str, *, port: bool = False, args: Sequence[str] = ()) -> Server:
    """Start a server without persistence and wait until it answers.

    Args:
        kind: ``"valkey"`` or ``"redis"``, one of ``kinds()``.
        port: Listen on a loopback port too (``tcp_url``).
        args: More settings, as on the server's command line; they win over the ones set here.
    """
    return Server(kind, port=port, args=args)


def _free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
