"""``audit``: find, and mend, jobs that something other than jobqueue broke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobqueue.cli.common import Named, looks, opened, print_json, refused_value, tell_refused
from jobqueue.cli.text import clean

if TYPE_CHECKING:
    from jobqueue.audit import Audit, Finding

__all__ = ["audit"]

BROKEN = 1
STEP = 10_000
"""After so many jobs a line says how far it has come."""


@click.command()
@click.option("--mend", is_flag=True, help="Take such jobs to dead with the reason, and remove what no job is left of.")
@click.option("--queue", help="Only this queue.")
@looks
def audit(mend: bool, queue: str | None, named: Named, json_output: bool) -> int:
    """Find jobs that are stored and in no place, or in several.

    Nobody runs a job in no place, and no other command shows it. Keys that somebody deleted leave such jobs behind, and
    scripts that the server broke off. Runners may be at work meanwhile. The exit code is 1 if something is left broken,
    3 if a queue could not be read.
    """
    from jobqueue.operating import audit_apart

    with opened(named) as source:
        namespace = source.namespace
        result, refused = audit_apart(source, mend, queue, _Progress())
    code = tell_refused(refused)
    left = result.broken - result.mended
    if json_output:
        print_json(
            {
                "looked": result.looked,
                "broken": result.broken,
                "mended": result.mended,
                "findings": [_value(each) for each in result.findings],
                **refused_value(refused),
            }
        )
    else:
        _print(result, left)
        if not (result.looked or result.broken or refused):
            where = f"queue {queue!r} of namespace {namespace!r}" if queue else f"namespace {namespace!r}"
            click.echo(f"no job is stored in {where}: is that what you meant?")
    return code or (BROKEN if left else 0)


class _Progress:
    """Says on standard error how far a long walk has come."""

    def __init__(self) -> None:
        self._next = STEP

    def __call__(self, looked: int) -> None:
        if looked >= self._next:
            self._next = looked + STEP
            click.echo(f"looked at {looked:,} jobs", err=True)


def _value(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "queue": finding.queue,
        "name": finding.name,
        "broken": finding.broken,
        "places": list(finding.places),
        "mended": finding.mended,
    }


def _print(result: Audit, left: int) -> None:
    if result.findings:
        from jobqueue.cli.tables import print_table

        print_table(
            ["id", "queue", "kind", "broken", "places", "mended"],
            [
                [each.id, each.queue, each.name, each.broken, " ".join(each.places), "yes" if each.mended else "no"]
                for each in result.findings
            ],
            empty="",
        )
    if result.broken > len(result.findings):
        click.echo(f"and {result.broken - len(result.findings):,} more")
    click.echo(f"{result.looked:,} jobs looked at, {result.broken:,} broken, {result.mended:,} mended")
    for finding in result.findings:
        if finding.mended and finding.broken in ("no place", "several places"):
            click.echo(f"jobs that were mended are dead now: jobqueue show {clean(finding.id)}, then requeue or delete")
            break
    if left:
        click.echo(
            "jobqueue audit --mend takes the jobs among them to the dead place, where requeue and delete find them, and "
            "removes entries and claims of which no job is left"
        )
