"""One module for each queue that is measured, imported in the virtual environment of that queue.

A module has ``send(kind, *arguments)``, a function or a coroutine function; ``send_many(kind, arguments)`` if its queue has
a call for many; ``start()``, a coroutine function, if something has to be opened first; and what its worker's command
line names. Kinds are ``noop`` and ``nap`` of `benchmarks.jobs`. The server's URL and the concurrency come with the
environment. Queues are listed in `benchmarks.contenders`.
"""

import os

__all__ = ["CONCURRENCY", "URL"]

URL = os.environ.get("BENCH_URL", "")
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "10"))
