"""Whether the demo's numbers are right. Pure: entries of the ledger and the plain loop in, a verdict out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from jobqueue.cli.demo.files import Count
from jobqueue.cli.demo.ledger import Entry

__all__ = ["Totals", "Verdict", "judge", "totals"]


@attrs.frozen
class Totals:
    """Sums over files.

    Attributes:
        files: How many were counted.
        lines: Their lines.
        words: Their words.
        unreadable: How many of them could not be read.
    """

    files: int
    lines: int
    words: int
    unreadable: int


@attrs.frozen
class Verdict:
    """What the ledger says.

    Attributes:
        jobs: How many were enqueued.
        counted: Jobs with at least one result.
        lost: Enqueued jobs without a result that the queue does not know any more. Must be empty.
        unfinished: Enqueued jobs without a result that the queue still has.
        runs: Runs that started.
        stumbled: Runs that failed as planned.
        repeated: Runs beyond the first of each job.
        different: Files whose result differs from the plain loop, or from another run of the same job.
        foreign: Entries of jobs that were not enqueued by this demo.
        by_jobs: The sums of the jobs' results.
        by_loop: The sums of the plain loop.
    """

    jobs: int
    counted: int
    lost: tuple[str, ...]
    unfinished: tuple[str, ...]
    runs: int
    stumbled: int
    repeated: int
    different: tuple[str, ...]
    foreign: int
    by_jobs: Totals
    by_loop: Totals

    @property
    def equal(self) -> bool:
        """Whether each file, and so the totals, came out as in the plain loop."""
        return not self.different and self.by_jobs == self.by_loop

    @property
    def ok(self) -> bool:
        """Whether nothing is lost, unfinished or wrong."""
        return self.equal and not self.lost and not self.unfinished and not self.foreign


def totals(counts: Collection[Count]) -> Totals:
    """Sum up."""
    return Totals(
        files=len(counts),
        lines=sum(count.lines for count in counts),
        words=sum(count.words for count in counts),
        unreadable=sum(bool(count.error) for count in counts),
    )


def judge(
    enqueued: Mapping[str, str], still_known: Collection[str], entries: Sequence[Entry], plain: Mapping[str, Count]
) -> Verdict:
    """Compare the ledger with what had to happen.

    Args:
        enqueued: Job id → path of what was stored.
        still_known: Ids of these that the queue has in any place, looked up after the end.
        entries: The whole ledger.
        plain: Path → result of the plain loop.
    """
    results: dict[str, Count] = {}
    different: set[str] = set()
    foreign = runs = stumbled = 0
    for entry in entries:
        path = enqueued.get(entry.job)
        if path is None or path != entry.path:
            foreign += 1
            continue
        runs += entry.what == "started"
        stumbled += entry.what == "stumbled"
        if entry.what == "counted":
            assert entry.count is not None, "an entry of a result holds it"
            results.setdefault(entry.job, entry.count)
            if entry.count != plain.get(path):
                different.add(path)
    started = {entry.job for entry in entries if entry.what == "started" and entry.job in enqueued}
    missing = [id for id in enqueued if id not in results]
    return Verdict(
        jobs=len(enqueued),
        counted=len(results),
        lost=tuple(id for id in missing if id not in still_known),
        unfinished=tuple(id for id in missing if id in still_known),
        runs=runs,
        stumbled=stumbled,
        repeated=runs - len(started),
        different=tuple(sorted(different)),
        foreign=foreign,
        by_jobs=totals(list(results.values())),
        by_loop=totals(list(plain.values())),
    )
