"""Connections of redis-py on which everything ends at one moment: to connect, to send, and each part of an answer.

Its own timeouts start anew with every address of a host and every piece of an answer, so a peer that trickles can hold up
a call for as long as it likes.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from redis.connection import Connection, UnixDomainSocketConnection

from jobqueue.clock import monotonic_s
from jobqueue.storage.redis.secured import Secured

__all__ = ["TIMED", "TimedSocket"]

SMALL: Final = 65_536
"""Bytes that take no time to send."""


class TimedSocket:
    """A socket that neither sends nor receives after ``end``, in seconds of `clock.monotonic_s`.

    What has come until then is still received after it: whoever was held up by something else gets its answer.
    """

    __slots__ = ("_fresh", "_most", "_recv_into", "_sendall", "_settimeout", "_socket", "end", "fileno")

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._socket = sock
        self.fileno = sock.fileno
        self._settimeout, self._sendall, self._recv_into = sock.settimeout, sock.sendall, sock.recv_into
        self._most: float | None = None
        self._fresh = False  # whether the socket was told just now how much is left
        self.end = end

    def send_until(self, end: float, data: bytes) -> None:
        """Set another end, and send this until then."""
        self.end = end
        self._most = None
        self._settimeout(max(end - monotonic_s(), 0.0))
        self._fresh = len(data) <= SMALL
        try:
            self._sendall(data)
        except BlockingIOError:
            raise self._late() from None

    def settimeout(self, seconds: float | None) -> None:
        """Wait no longer than so many seconds at a time: a look of the library, before the next `until`."""
        self._most = seconds

    def sendall(self, data: bytes) -> None:
        """See `socket.socket.sendall`; for what the library sends by itself, while it connects."""
        self._wait()
        self._fresh = False
        try:
            self._sendall(data)
        except BlockingIOError:
            raise self._late() from None

    def recv(self, *args: Any) -> bytes:
        """See `socket.socket.recv`."""
        try:
            self._wait_on()
            return self._socket.recv(*args)
        except BlockingIOError:
            raise self._late() from None

    def recv_into(self, *args: Any) -> int:
        """See `socket.socket.recv_into`."""
        try:
            self._wait_on()
            return self._recv_into(*args)
        except BlockingIOError:
            raise self._late() from None

    def _wait_on(self) -> None:
        if self._fresh:
            self._fresh = False
        else:
            self._wait()

    def _wait(self) -> None:
        left = self.end - monotonic_s()
        if self._most is not None and self._most < left:
            left = self._most
        self._settimeout(left if left > 0 else 0.0)

    def _late(self) -> OSError:
        return BlockingIOError() if self._most == 0 else TimeoutError("no answer in time")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _Timed:
    """A connection that is made with ``end``, until when it has to be connected; later ends are set at its socket."""

    def __init__(self, *, end: float, **settings: Any) -> None:
        self._end = end
        made: Any = super()
        made.__init__(**settings)

    @property
    def socket_connect_timeout(self) -> float:
        """What is left, asked for each address that the host has."""
        return max(self._end - monotonic_s(), 0.001)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, _: object) -> None:
        """There is but one bound."""

    @property
    def socket_timeout(self) -> float:
        """See `socket_connect_timeout`; for the handshake of TLS."""
        return self.socket_connect_timeout

    @socket_timeout.setter
    def socket_timeout(self, _: object) -> None:
        """There is but one bound."""

    def _connect(self) -> TimedSocket:
        connect: Any = super()
        return TimedSocket(connect._connect(), self._end)  # noqa: SLF001 - where the library makes its socket


_KINDS: Final = {"tcp": Connection, "tls": Secured, "unix": UnixDomainSocketConnection}
# Made here, since their types and ours do not agree on what is a field and what a property.
TIMED: Final[dict[str, Any]] = {by: type(f"Timed{kind.__name__}", (_Timed, kind), {}) for by, kind in _KINDS.items()}
