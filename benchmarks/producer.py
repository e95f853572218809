"""``python -m benchmarks.producer QUEUE MODE JOBS [SECONDS]``, run in the virtual environment of the queue.

Modes: ``one`` sends no-ops one after the other, ``many`` a thousand in a call, ``naps`` jobs that sleep for so long,
``paced`` one nap of 0 s every 50 ms, ``later`` the same delayed by so many seconds, ``mixed`` jobs that sleep as many
seconds as standard input says, a line each. Prints one JSON object: jobs per second, and with pauses
when each job was sent. ``many`` needs two calls at least.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

CHUNK: Final = 1000
PACE_S: Final = 0.05


def calls(mode: str, jobs: int, seconds: float) -> Iterator[tuple[str, tuple[Any, ...], float]]:
    """Function of the queue's module, its arguments, and the pause after it."""
    if mode == "many":
        if jobs < 2 * CHUNK or jobs % CHUNK:
            raise ValueError(f"{jobs} is not a multiple of {CHUNK}")
        for start in range(0, jobs, CHUNK):
            yield "send_many", ("noop", [(number,) for number in range(start, start + CHUNK)]), 0.0
        return
    lengths = [float(line) for line in sys.stdin] if mode == "mixed" else [seconds] * jobs
    for number in range(jobs):
        if mode == "one":
            yield "send", ("noop", number), 0.0
        elif mode in ("naps", "mixed"):
            yield "send", ("nap", number, lengths[number]), 0.0
        elif mode == "paced":
            yield "send", ("nap", number, 0.0), PACE_S
        else:
            yield "send_later", (seconds, "nap", number, 0.0), PACE_S


async def produce(queue: Any, mode: str, jobs: int, seconds: float) -> dict[str, Any]:
    """Send, by awaiting where the queue's functions are coroutine functions."""
    if hasattr(queue, "start"):
        await queue.start()
    sent = []
    awaits = inspect.iscoroutinefunction(queue.send)
    began, timed = 0.0, 0
    for name, arguments, pause in calls(mode, jobs, seconds):
        if began:
            timed += 1
        if pause:
            sent.append(time.time())
        result = getattr(queue, name)(*arguments)
        if awaits:
            await result
        if pause:
            await asyncio.sleep(pause)
        began = began or time.perf_counter()  # the first call opened connections and is not timed
    per_call = (time.perf_counter() - began) / max(1, timed)
    return {"rate": (CHUNK if mode == "many" else 1) / per_call, "sent": sent}


def main() -> None:
    """Produce and tell."""
    name, mode, jobs, seconds = (*sys.argv[1:], "0")[:4]
    queue = importlib.import_module(f"benchmarks.queues.{name}")
    loops = importlib.import_module("uvloop" if importlib.util.find_spec("uvloop") else "asyncio")
    with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
        told = runner.run(produce(queue, mode, int(jobs), float(seconds)))
    print(json.dumps(told), flush=True)
    os._exit(0)  # some clients have threads that would take seconds to end


if __name__ == "__main__":
    main()
