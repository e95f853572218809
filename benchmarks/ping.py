"""``python -m benchmarks.ping URL``: another client, which sends a PING every 2 ms until its standard input ends.

Prints how long the longest one took, in milliseconds. A process of its own: the interpreter of a busy producer would count.
"""

from __future__ import annotations

import sys
import threading
import time

import redis

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    over = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    longest = 0.0
    with redis.Redis.from_url(sys.argv[1]) as client:
        client.ping()
        print("ready", flush=True)
        while not over.wait(0.002):
            sent = time.monotonic()
            client.ping()
            longest = max(longest, (time.monotonic() - sent) * 1000)
    print(longest)


if __name__ == "__main__":
    main()
