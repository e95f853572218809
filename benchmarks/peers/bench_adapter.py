"""jobqueue in a harness of somebody else's: one that takes a folder with a module `bench_adapter` and calls itself `peers`.

Such a harness hands over its jobs (`peers.noop`, `peers.lat`, `peers.slp` and their coroutine twins), its URL and its
options; it is imported inside of methods only, because it imports this module in its turn. In its orchestrator it is the
main module, in producers and runners it is `peers`. ``JOBQUEUE_BIN`` names the folder of the python to use; without it,
the virtual environment of this clone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["ADAPTERS", "BIN", "DURABLE", "TUNED"]


class Functions:
    """Functions on threads."""

    concs = (4, 8)
    n_enq, n_drain = 20_000, 100_000

    def __init__(self) -> None:
        import peers

        from jobqueue import JobQueue

        self.jobs = jobs = JobQueue(peers.URL, namespace="bench")

        @jobs.job(name="noop")
        def noop(i: int) -> None:
            peers.noop(i)

        @jobs.job(name="lat")
        def lat(i: int, sent: float) -> None:
            peers.lat(i, sent)

        @jobs.job(name="slp")
        def slp(i: int, seconds: float) -> None:
            peers.slp(i, seconds)

        self.kinds: dict[str, Any] = {"noop": noop, "lat": lat, "slp": slp}
        self.globals = {"jobs": jobs}

    def send(self, kind: str, *arguments: Any) -> None:
        self.kinds[kind].enqueue(*arguments)

    def bulk(self, kind: str, many: list[tuple[Any, ...]]) -> None:
        call = self.kinds[kind].call
        self.jobs.enqueue_many([call(*arguments) for arguments in many])

    @staticmethod
    def cmd(options: dict[str, Any]) -> list[str]:
        import __main__ as harness

        size = str(harness.CONC_NOW)
        words = ["--threads", size, "--coroutines", size, *options.get("cli", []), "--log-level", "warning"]
        return list(harness.py("jobqueue", "run", "peers:jobs", *words))


class Coroutines(Functions):
    """Coroutines on one event loop."""

    concs = (100, 400)
    is_async = True

    def __init__(self) -> None:
        import peers

        from jobqueue import JobQueue

        self.jobs = jobs = JobQueue(peers.URL, namespace="bench")

        @jobs.job(name="noop")
        async def noop(i: int) -> None:
            await peers.anoop(i)

        @jobs.job(name="lat")
        async def lat(i: int, sent: float) -> None:
            await peers.alat(i, sent)

        @jobs.job(name="slp")
        async def slp(i: int, seconds: float) -> None:
            await peers.aslp(i, seconds)

        self.kinds = {"noop": noop, "lat": lat, "slp": slp}
        self.globals = {"jobs": jobs}

    async def open(self) -> None:
        """The first use connects."""

    async def send(self, kind: str, *arguments: Any) -> None:  # type: ignore[override]
        await self.kinds[kind].aenqueue(*arguments)

    async def bulk(self, kind: str, many: list[tuple[Any, ...]]) -> None:  # type: ignore[override]
        call = self.kinds[kind].call
        await self.jobs.aenqueue_many([call(*arguments) for arguments in many])


ADAPTERS = {"jobqueue": Functions, "jobqueue-async": Coroutines}
_folder = os.environ.get("JOBQUEUE_BIN") or str(Path(__file__).parents[2] / ".venv/bin")
BIN = dict.fromkeys(ADAPTERS, _folder)
TUNED = {"jobqueue-async": {"cli": ["--uvloop"]}}
DURABLE = {
    "jobqueue": {"default": (10, 1, {}), "lease of 5 s": (10, 1, {"cli": ["--lease", "5"]})},
}
