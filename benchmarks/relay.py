"""``python -m benchmarks.relay HOST PORT MS``: a server at a distance, so many milliseconds of round trip away.

Prints the port where it listens, on loopback. A number on a line of standard input is another distance from then on. It
ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

__all__ = ["main"]


class _Relay:
    def __init__(self, host: str, port: int, milliseconds: float) -> None:
        self._server = host, port
        self.one_way = milliseconds / 2000

    async def serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection(*self._server)
        await asyncio.gather(self._carry(client, writer), self._carry(reader, answer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Each piece arrives so much later; a piece does not wait for the one before it."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            with contextlib.suppress(ConnectionError):
                while (piece := await pieces.get())[1]:
                    await asyncio.sleep(max(0.0, piece[0] - loop.time()))
                    writer.write(piece[1])
                    await writer.drain()
            writer.close()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                pieces.put_nowait((loop.time() + self.one_way, data))
        pieces.put_nowait((0.0, b""))
        await delivering


async def _main(host: str, port: int, milliseconds: float) -> None:
    relay = _Relay(host, port, milliseconds)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # connections are cut when it ends
    listening = await asyncio.start_server(relay.serve, "127.0.0.1")
    print(listening.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        relay.one_way = float(line) / 2000
    listening.close()


def main() -> None:
    """Run the command."""
    host, port, milliseconds = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(host, int(port), float(milliseconds)))


if __name__ == "__main__":
    main()
