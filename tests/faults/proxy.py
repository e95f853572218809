"""A TCP proxy between client and server that goes wrong where a test tells it to.

It is the only tool that hits "executed, reply lost" exactly. It understands where requests and replies begin and end,
so a `Rule` speaks of the nth request that matches, and everything else passes unchanged.

One thread serves all connections. Rejected: two threads for each, which cannot close each other's sockets with a reset.
"""

from __future__ import annotations

import contextlib
import enum
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import attrs

__all__ = ["Cut", "Proxy", "Rule", "Words"]

Words = Sequence[bytes]
"""A request: the words of one command."""

_RESET = struct.pack("ii", 1, 0)
_TICK_MS = 50


class Cut(enum.Enum):
    """What happens to a request that matches."""

    LOSE_REQUEST = "request lost"
    """The client's connection is reset; the server never sees the request."""
    LOSE_REPLY = "reply lost"
    """The server carries it out; then, instead of the reply, the client's connection is reset."""
    DELAY = "delayed"
    """The client's connection is reset; the request arrives after the next one that matches was answered."""
    DUPLICATE = "sent twice"
    """The server gets it twice and the client the second reply."""
    HOLE = "black hole"
    """Nothing of this connection arrives any more until `Proxy.lift`; then all of it does, even if the client is gone."""


@attrs.define(eq=False)
class Rule:
    """When to do what.

    Attributes:
        match: Whether a request is meant.
        cut: What happens to it.
        nth: To which of those that match, counted from 1.
        times: To how many of them in a row.
        seen: How many matched.
        hit: To how many it happened.
        late: Replies to delayed requests, in order.
        then: Called when it happened, before the client can know: everything else waits meanwhile.
    """

    match: Callable[[Words], bool]
    cut: Cut
    nth: int = 1
    times: int = 1
    seen: int = 0
    hit: int = 0
    late: list[bytes] = attrs.field(factory=list)
    then: Callable[[], None] | None = None
    held: list[bytes] = attrs.field(factory=list)

    def applies(self, words: Words) -> bool:
        """Count a request and answer whether it is one to be cut."""
        if not self.match(words):
            return False
        self.seen += 1
        if not self.nth <= self.seen < self.nth + self.times:
            return False
        self.hit += 1
        return True


def _line(data: bytes | bytearray, start: int) -> tuple[bytes, int] | None:
    end = data.find(b"\r\n", start)
    return None if end < 0 else (bytes(data[start:end]), end + 2)


def _request(data: bytearray) -> tuple[list[bytes], int] | None:
    """The first whole request in the bytes, and where it ends."""
    head = _line(data, 0)
    if head is None:
        return None
    words = []
    at = head[1]
    for _ in range(int(head[0][1:])):
        size = _line(data, at)
        if size is None:
            return None
        end = size[1] + int(size[0][1:])
        if len(data) < end + 2:
            return None
        words.append(bytes(data[size[1] : end]))
        at = end + 2
    return words, at


def _reply(data: bytearray, start: int = 0) -> int | None:
    """Where the reply that begins at ``start`` ends, if it is whole."""
    head = _line(data, start)
    if head is None:
        return None
    text, at = head
    kind, size = text[:1], text[1:]
    if kind == b"$" and int(size) >= 0:
        end = at + int(size) + 2
        return end if len(data) >= end else None
    if kind == b"*":
        for _ in range(int(size)):
            part = _reply(data, at)
            if part is None:
                return None
            at = part
    return at


class _Pair:
    """A client's connection and ours to the server."""

    def __init__(self, client: socket.socket | None, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.asked = bytearray()
        self.answered = bytearray()
        self.due: deque[Callable[[bytes], bool]] = deque()  # for each request under way: takes its reply; pass it on?
        self.dark = False

    def reset(self) -> None:
        """Cut the client off."""
        if self.client is not None:
            with contextlib.suppress(OSError):
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.client.close()
            self.client = None

    def close(self) -> None:
        self.reset()
        self.server.close()


class Proxy:
    """Listens on a loopback port and passes everything on to a server.

    Args:
        upstream: Path of the server's socket, or its host and port; may be changed, for new connections.
        raw: Pass bytes on without looking for requests in them, as a link between two servers needs; there are no rules.
    """

    def __init__(self, upstream: str | tuple[str, int], *, raw: bool = False) -> None:
        self.upstream = upstream
        self._raw = raw
        self.rules: list[Rule] = []
        self.refused = 0
        self._dark = False
        self._refusing = False
        self._pairs: list[_Pair] = []
        self._mutex = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._hear, self._ring = socket.socketpair()
        self._over = False
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to connect to."""
        host, port = self._listener.getsockname()
        return f"redis://{host}:{port}"

    def rule(self, match: Callable[[Words], bool], cut: Cut, *, nth: int = 1, times: int = 1) -> Rule:
        """Add a rule; see `Rule`."""
        made = Rule(match, cut, nth, times)
        with self._mutex:
            self.rules.append(made)
        return made

    def darken(self) -> None:
        """From now on nothing arrives anywhere, on connections that are and that come, until `lift`."""
        with self._mutex:
            self._dark = True

    def lift(self) -> None:
        """End all black holes: what was sent meanwhile arrives now."""
        with self._mutex:
            self._dark = False
            for pair in list(self._pairs):
                pair.dark = False
                self._requests(pair)
                self._replies(pair)

    def cut_all(self, *, refuse: bool = False) -> None:
        """Reset all connections; with ``refuse`` new ones too, until `allow`."""
        with self._mutex:
            self._refusing = refuse
            for pair in self._pairs:
                pair.close()
            self._pairs.clear()

    def allow(self) -> None:
        """Accept connections again."""
        with self._mutex:
            self._refusing = False

    def close(self) -> None:
        """End the proxy and all connections through it."""
        self._over = True
        self._ring.send(b"x")
        self._thread.join(5)
        self.cut_all()
        for each in (self._listener, self._hear, self._ring):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------ the thread

    def _serve(self) -> None:
        while not self._over:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            poll.register(self._hear, select.POLLIN)
            with self._mutex:
                watched: dict[int, tuple[_Pair, bool]] = {}
                for pair in self._pairs:
                    if pair.client is not None:
                        watched[pair.client.fileno()] = (pair, True)
                    watched[pair.server.fileno()] = (pair, False)
                for fd in watched:
                    poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(_TICK_MS)]
            with self._mutex:
                for fd in ready:
                    if fd == self._listener.fileno():
                        self._accept()
                    elif fd in watched:
                        self._arrived(*watched[fd])

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._refusing:
            self.refused += 1
            _Pair(client, client).reset()
            return
        try:
            server = self._upstream()
        except OSError:
            self.refused += 1
            _Pair(client, client).reset()
            return
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs.append(_Pair(client, server))

    def _upstream(self) -> socket.socket:
        if isinstance(self.upstream, tuple):
            return socket.create_connection(self.upstream, timeout=5)
        server = socket.socket(socket.AF_UNIX)
        server.settimeout(5)
        try:
            server.connect(self.upstream)
        except OSError:
            server.close()
            raise
        return server

    def _arrived(self, pair: _Pair, from_client: bool) -> None:
        if pair not in self._pairs:
            return  # closed by what came before it in this turn
        source = pair.client if from_client else pair.server
        if source is None:
            return
        try:
            data = source.recv(1 << 18)
        except OSError:
            data = b""
        if from_client:
            if not data:
                self._client_left(pair)
                return
            pair.asked += data
            if not (self._dark or pair.dark):
                self._requests(pair)
        else:
            if not data:
                pair.close()
                self._pairs.remove(pair)
                return
            pair.answered += data
            if not (self._dark or pair.dark):
                self._replies(pair)

    def _client_left(self, pair: _Pair) -> None:
        pair.reset()
        # What it has sent is under way and arrives all the same, as it does in a network.
        if not (pair.asked or pair.due):
            pair.close()
            self._pairs.remove(pair)

    def _requests(self, pair: _Pair) -> None:
        if self._raw:
            arrived, pair.asked = pair.asked, bytearray()
            pair.server.sendall(arrived)
            return
        while pair in self._pairs and not pair.dark and (found := _request(pair.asked)):
            words, end = found
            data = bytes(pair.asked[:end])
            rule = next((rule for rule in self.rules if rule.applies(words)), None)
            if rule is not None and rule.cut is Cut.HOLE and not pair.dark:
                pair.dark = True
                rule.match = _nothing  # it is to pass when the hole is lifted
                return
            del pair.asked[:end]
            self._cut(pair, words, data, rule)

    def _cut(self, pair: _Pair, words: Words, data: bytes, rule: Rule | None) -> None:
        cut = None if rule is None else rule.cut
        if cut in (Cut.LOSE_REQUEST, Cut.DELAY):
            assert rule is not None
            if cut is Cut.DELAY:
                rule.held.append(data)
            if rule.then is not None:
                rule.then()
            pair.close()
            self._pairs.remove(pair)
            return
        if cut is Cut.LOSE_REPLY:

            def swallow(_: bytes) -> bool:
                if rule is not None and rule.then is not None:
                    rule.then()
                pair.reset()
                return False

            pair.due.append(swallow)
        elif cut is Cut.DUPLICATE:
            pair.due.append(_drop)
            pair.due.append(_pass)
            data += data
        else:
            late = next((rule for rule in self.rules if rule.held and rule.match(words)), None)
            pair.due.append(_pass if late is None else lambda _: self._deliver(late))
        try:
            pair.server.sendall(data)
        except OSError:
            pair.close()
            self._pairs.remove(pair)

    def _deliver(self, rule: Rule) -> bool:
        """The repetition was answered: now the first sending arrives, before its sender hears anything."""
        held, rule.held = rule.held, []
        for data in held:
            with self._upstream() as server:
                server.sendall(data)
                answer = bytearray()
                while _reply(answer) is None:
                    part = server.recv(1 << 18)
                    assert part, "the server closed the connection of a late request"
                    answer += part
            rule.late.append(bytes(answer))
        return True

    def _replies(self, pair: _Pair) -> None:
        if self._raw:
            arrived, pair.answered = pair.answered, bytearray()
            if pair.client is not None:
                pair.client.sendall(arrived)
            return
        while pair.answered and (end := _reply(pair.answered)) is not None:
            data = bytes(pair.answered[:end])
            del pair.answered[:end]
            wanted = pair.due.popleft()(data) if pair.due else True
            if wanted and pair.client is not None:
                try:
                    pair.client.sendall(data)
                except OSError:
                    pair.reset()
        if pair.client is None and not pair.due and not pair.asked and pair in self._pairs:
            pair.close()
            self._pairs.remove(pair)


def _nothing(_: Words) -> bool:
    return False


def _pass(_: bytes) -> bool:
    return True


def _drop(_: bytes) -> bool:
    return False
