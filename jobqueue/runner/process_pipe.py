"""What a runner and its worker processes say to each other, and the pipe it goes through.

A frame is four bytes of length and one message as MessagePack. Records cross as the bytes that are stored; what is named in
a message is a declared kind, and no object is ever pickled.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

__all__ = ["Ended", "FromChild", "Go", "Logged", "Pipe", "Ready", "Run", "Setup", "Tell", "ToChild"]

M = TypeVar("M")
HEADER: Final = struct.Struct(">I")
PART: Final = 65_536
LONGEST: Final = 256 * 2**20
"""Bytes of a message. More is none: a job has written into the pipe."""


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first message: what a worker process has to know to import what the runner has imported.

    Attributes:
        path: The runner's ``sys.path``.
        argv: Its ``sys.argv``.
        main: What its program is imported as, and its file if that is not found by its name.
        imports: Modules that declare kinds.
        url: Where its jobs are stored; None if the module that declares the `JobQueue` says so in another way.
        namespace: Their namespace.
        levels: Logger → level, as set in the runner; the root is the empty name.
    """

    path: list[str]
    argv: list[str]
    main: tuple[str, str | None]
    imports: tuple[str, ...]
    url: str | None
    namespace: str
    levels: dict[str, int]


class Run(msgspec.Struct, tag=True, frozen=True):
    """Make ready to run a job. The names are those of the kind in the runner's own registry.

    Attributes:
        name: The kind.
        module: The module of the declared function or class.
        qualname: Its name in there.
        queue: The queue of the job.
        id: Its id.
        record: Its stored bytes.
        claim: Its claim, as a runner wrote it.
        fence: The fence in it.
    """

    name: str
    module: str
    qualname: str
    queue: str
    id: bytes
    record: bytes
    claim: bytes
    fence: int


class Go(msgspec.Struct, tag=True, frozen=True):
    """Run it."""


class Tell(msgspec.Struct, tag=True, frozen=True):
    """What the job's context shows from now on."""

    lease_lost: bool
    cancelled: bool


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The kind was found: the job can be run."""


class Ended(msgspec.Struct, tag=True, frozen=True):
    """How a run ended.

    Attributes:
        how: ``done``, ``raised``, ``unfit`` (the payload does not fit the kind), ``handed back`` (it was not started, or it
            saw that it should stop), or what the job asked for.
        text: The error as it is to be kept, or the reason of a `Discard`.
        wanted: Whether the kind's policy retries what was raised.
        after: The delay of a `Snooze`, or the time of a `Retry`, in ms.
    """

    how: Literal["done", "raised", "unfit", "handed back", "snooze", "discard", "retry"]
    text: str = ""
    wanted: bool = True
    after: int | None = None


class Logged(msgspec.Struct, tag=True, frozen=True):
    """A record of the standard logging.

    ``trace`` is its traceback and ``error`` the text of its exception, if it has one, and ``stack`` its ``stack_info``.
    ``extra`` is what it says of its job, and what the application passed, as JSON; see `jobqueue.logs.extra_of`.
    """

    logger: str
    level: int
    message: str
    created: float
    trace: str | None
    error: str
    pathname: str
    line: int
    function: str
    thread: str
    extra: str
    stack: str | None = None


ToChild: TypeAlias = Setup | Run | Go | Tell
FromChild: TypeAlias = Ready | Ended | Logged


class Pipe(Generic[M]):
    """One end.

    Args:
        end: A connected socket.
        receives: The messages that arrive here.
    """

    def __init__(self, end: socket.socket, receives: Any) -> None:
        self._socket = end
        self._decode = msgspec.msgpack.Decoder(receives).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._sending = threading.RLock()
        self._frames: deque[bytes] = deque()
        self._busy = False
        self._arrived = bytearray()
        self.closed = False

    def send(self, message: object) -> None:
        """Send a message; callable from any thread, and in a signal handler or a finalizer that interrupts another call.

        Such a call must neither wait for the one that it interrupts, nor write into the middle of its frame: that one sends
        both.

        Raises:
            OSError: The other side is gone.
        """
        frame = self._encode(message)
        self._frames.append(HEADER.pack(len(frame)) + frame)
        with self._sending:
            while self._frames and not self._busy:
                self._busy = True
                try:
                    while self._frames:
                        self._socket.sendall(self._frames.popleft())
                finally:
                    self._busy = False

    def receive(self) -> M:
        """Wait for the next message; on one thread only.

        Raises:
            TimeoutError: It did not come within the time that was set with `patience`.
            EOFError: The other side is gone.
            ValueError: What came is no message.
        """
        arrived = self._arrived
        while True:
            if len(arrived) >= HEADER.size:
                end = HEADER.size + HEADER.unpack_from(arrived)[0]
                if end > LONGEST:
                    raise ValueError("what came through the pipe is no message: did the job write into it?")
                if len(arrived) >= end:
                    message: M = self._decode(memoryview(arrived)[HEADER.size : end])
                    del arrived[:end]
                    return message
            try:
                more = self._socket.recv(PART)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            arrived += more

    def patience(self, seconds: float | None) -> None:
        """How long a call of `receive` or `send` may take."""
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self._socket.close()
