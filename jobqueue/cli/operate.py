"""``requeue`` and ``delete``: what an operator does to single jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from jobqueue.cli.common import Named, looks_at_jobs, opened, print_json
from jobqueue.cli.look import record_value
from jobqueue.cli.text import clean
from jobqueue.errors import JobNotFound, StorageRefused

if TYPE_CHECKING:
    from jobqueue.record import JobRecord

__all__ = ["delete", "requeue"]

NOT_FOUND = 1
REFUSED = 3


@click.command()
@click.option("--queue", help="Their queue; spares looking into all of them.")
@looks_at_jobs("ID...")
def requeue(ids: list[str], queue: str | None, named: Named, json_output: bool) -> int:
    """Make dead or waiting jobs ready now.

    Their count of failed runs stays: a dead one gets one more run.
    """
    with opened(named) as source:
        return _each(ids, lambda job: source.requeue(job, queue=queue), "requeued", json_output)


@click.command()
@click.option("--queue", help="Their queue; spares looking into all of them.")
@looks_at_jobs("ID...")
def delete(ids: list[str], queue: str | None, named: Named, json_output: bool) -> int:
    """Forget jobs that are waiting, ready or dead.

    With --json each is printed as it was, arguments included.
    """
    with opened(named) as source:
        return _each(ids, lambda job: source.delete(job, queue=queue), "deleted", json_output)


def _each(ids: Sequence[str], operation: Callable[[str], JobRecord[Any]], done: str, json_output: bool) -> int:
    """Do it to each job, go on after one that cannot be, and answer the worst exit code."""
    code = 0
    values: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for id in dict.fromkeys(ids):
        try:
            record = operation(id)
        except (JobNotFound, StorageRefused) as error:
            code = max(code, NOT_FOUND if isinstance(error, JobNotFound) else REFUSED)
            failures.append({"id": id, "error": str(error)})
            click.echo(f"jobqueue: {clean(str(error))}", err=True)
            continue
        values.append(record_value(record))
        if not json_output:
            click.echo(f"{done} {clean(record.id)} ({clean(record.name) or 'unreadable'}, queue {record.queue})")
    if json_output:
        print_json({done: values, "failed": failures})
    return code
