"""What a runner and its worker processes say to each other, and the pipe it goes through.

A frame is four bytes of length and one message as MessagePack. Records cross as the bytes that are stored; what is named in
a message is a declared kind, and no object is ever pickled.

Every message but the first names its run, by random bytes that the runner draws for it. A program that a job has started
may hold the pipe although nothing hands it on; it cannot speak for a run that it was not told of.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import weakref
from collections import deque
from typing import Annotated, Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from jobqueue.clock import monotonic_s
from jobqueue.durations import LONGEST_MS

__all__ = ["Ended", "FromChild", "Go", "Logged", "OfRun", "Pipe", "Ready", "Run", "Setup", "Tell", "ToChild"]

M = TypeVar("M")
HEADER: Final = struct.Struct(">I")
PART: Final = 65_536
LONGEST: Final = 256 * 2**20
"""Bytes of a message at most, where the sender is trusted: records may be as long as the application allows."""


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

    def __repr__(self) -> str:
        """Without the URL, which may hold a password: tracebacks with variables show this."""
        return f"Setup(main={self.main!r}, imports={self.imports!r}, namespace={self.namespace!r}, …)"


class OfRun(msgspec.Struct, frozen=True):
    """A message about one run.

    Attributes:
        run: Which one.
    """

    run: bytes


class Run(OfRun, tag=True, frozen=True):
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


class Go(OfRun, tag=True, frozen=True):
    """Run it."""


class Tell(OfRun, tag=True, frozen=True):
    """What the job's context shows from now on."""

    lease_lost: bool
    cancelled: bool


class Ready(OfRun, tag=True, frozen=True):
    """The kind was found: the job can be run."""


class Ended(OfRun, tag=True, frozen=True):
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
    after: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_MS)] | None = None


class Logged(OfRun, tag=True, frozen=True):
    """A record of the standard logging.

    ``trace`` is its traceback and ``error`` the text of its exception, if it has one, and ``stack`` its ``stack_info``.
    ``extra`` is what it says of its job, and what the application passed, as JSON; see `jobqueue.logs.extra_of`. A thread
    that an earlier job has left behind may still log under that job's run.
    """

    logger: str
    level: int
    message: str
    created: Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
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
    """One end. Nothing that a job starts or forks has it: it is not inherited, and closed in a forked child.

    Args:
        end: A connected socket.
        receives: The messages that arrive here.
        longest: How many bytes such a message may have.
    """

    def __init__(self, end: socket.socket, receives: Any, longest: int = LONGEST) -> None:
        end.set_inheritable(False)
        self._socket = end
        self._pid = os.getpid()
        self._longest = longest
        self._decode = msgspec.msgpack.Decoder(receives).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._sending = threading.RLock()
        self._frames: deque[bytes] = deque()
        self._busy = False
        self._arrived = bytearray()
        self._patience: float | None = None
        self._closed = False
        _pipes.add(self)

    @property
    def closed(self) -> bool:
        """Whether this process has no end of it: it was closed, or left with the parent by a fork."""
        return self._closed or self._pid != os.getpid()

    def send(self, message: OfRun | Setup) -> None:
        """Send a message; callable from any thread, and in a signal handler or a finalizer that interrupts another call.

        Such a call must neither wait for the one that it interrupts, nor write into the middle of its frame: that one sends
        both.

        Raises:
            OSError: The other side is gone, or this end is closed.
        """
        if self.closed:
            raise OSError(errno.EBADF, "this process has no end of the pipe")
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
            ValueError: What came is not a message, or is too long for one. Says nothing of what it holds.
        """
        arrived = self._arrived
        end = None if self._patience is None else monotonic_s() + self._patience
        while True:
            if len(arrived) >= HEADER.size:
                size = HEADER.unpack_from(arrived)[0]
                if size > self._longest:
                    raise ValueError("what came through the pipe is too long for a message")
                if len(arrived) >= HEADER.size + size:
                    message = self._message(bytes(memoryview(arrived)[HEADER.size : HEADER.size + size]))
                    del arrived[: HEADER.size + size]
                    return message
            if end is not None:
                # Of the whole message: a sender that trickles must not keep its reader here.
                left = end - monotonic_s()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
            try:
                more = self._socket.recv(PART)
            except ConnectionError:
                more = b""
            if not more:
                raise EOFError
            arrived += more

    def _message(self, data: bytes) -> M:
        try:
            message: M = self._decode(data)
        except (ValueError, RecursionError):
            raise ValueError("what came through the pipe is not a message") from None
        return message

    def patience(self, seconds: float | None) -> None:
        """How long a call of `receive` or `send` may take."""
        self._patience = seconds
        self._socket.settimeout(seconds)

    def close(self) -> None:
        """Close this end."""
        self._closed = True
        self._socket.close()


_pipes: Final[weakref.WeakSet[Pipe[Any]]] = weakref.WeakSet()


def _close_in_child() -> None:
    """A process that a job has forked is neither a runner nor a worker process."""
    for pipe in list(_pipes):
        pipe.close()


os.register_at_fork(after_in_child=_close_in_child)
