"""``stats``, ``jobs`` and ``show``: looking without changing anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from jobqueue.cli.common import opened, print_json, storage_options
from jobqueue.cli.text import clean, clean_lines, moment, moment_or_none, payload_value, shortened, span

if TYPE_CHECKING:
    from jobqueue.looking import Counts
    from jobqueue.record import JobRecord
    from jobqueue.runner_info import RunnerInfo

__all__ = ["jobs", "record_value", "show", "stats"]

PLACES = ("waiting", "ready", "working", "dead")
ERROR_WIDTH = 60


@click.command()
@storage_options
def stats(url: str | None, namespace: str, json_output: bool) -> None:
    """Show how many jobs are in each place of each queue, and the runners that are alive."""
    with opened(url, namespace) as queue:
        counts, runners = queue.counts(), queue.runners()
        now = queue.access.clock().now() / 1000
        where = queue.access.opened().backend.url
    if json_output:
        print_json(
            {
                "url": where,
                "namespace": namespace,
                "queues": {name: {place: getattr(count, place) for place in PLACES} for name, count in counts.items()},
                "runners": [_runner_value(runner) for runner in runners],
            }
        )
        return
    from jobqueue.cli.tables import print_table

    click.echo(f"{clean(where)}, namespace {namespace}")
    print_table(
        ["queue", *(f">{place}" for place in PLACES), ">runners"],
        [_queue_row(name, count, runners) for name, count in counts.items()],
        empty="no queue was ever used here",
    )
    print_table(
        ["runner", "host", ">pid", ">up", ">seen", ">lease", "queues", ">threads", ">coroutines", "version"],
        [_runner_row(runner, now) for runner in runners],
        empty="no runner is alive",
    )


def _queue_row(name: str, counts: Counts, runners: list[RunnerInfo]) -> list[str]:
    serving = sum(name in runner.queues for runner in runners)
    return [name, *(str(getattr(counts, place)) for place in PLACES), str(serving)]


def _runner_row(runner: RunnerInfo, now: float) -> list[str]:
    return [
        runner.id[:8],
        runner.host,
        str(runner.pid),
        span(now - runner.started.timestamp()),
        f"{span(now - runner.seen.timestamp())} ago",
        f"{runner.lease:g} s",
        " ".join(f"{queue}={weight}" for queue, weight in runner.queues.items()),
        str(runner.threads),
        str(runner.coroutines),
        runner.version,
    ]


def _runner_value(runner: RunnerInfo) -> dict[str, Any]:
    return {
        "id": runner.id,
        "host": runner.host,
        "pid": runner.pid,
        "started": moment_or_none(runner.started),
        "seen": moment_or_none(runner.seen),
        "lease": runner.lease,
        "queues": runner.queues,
        "threads": runner.threads,
        "coroutines": runner.coroutines,
        "version": runner.version,
    }


@click.command()
@click.option("--queue", help="Only jobs of this queue.")
@click.option("--place", type=click.Choice(PLACES), help="Only jobs in this place.")
@click.option("--name", help="Only jobs of this kind.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Go on behind this job, the last one of the page before.")
@storage_options
def jobs(
    queue: str | None,
    place: Any,
    name: str | None,
    limit: int,
    after: str | None,
    url: str | None,
    namespace: str,
    json_output: bool,
) -> None:
    """List jobs, by queue, place and their order there."""
    with opened(url, namespace) as source:
        # One more than is shown tells whether there are more.
        found = source.find(queue=queue, place=place, name=name, limit=limit + 1, after=after)
    shown, more = found[:limit], len(found) > limit
    if json_output:
        print_json({"jobs": [record_value(record) for record in shown], "next": shown[-1].id if more else None})
        return
    from jobqueue.cli.tables import print_table

    print_table(
        ["id", "queue", "place", "kind", ">failed", "due", "error"],
        [_job_row(record) for record in shown],
        empty="no such jobs",
    )
    if more:
        click.echo(f"more: --after {clean(shown[-1].id)}")


def _job_row(record: JobRecord[Any]) -> list[str]:
    return [
        record.id,
        record.queue,
        record.place,
        record.name or "(unreadable)",
        f"{record.attempt}/{_runs(record)}",
        moment(record.due),
        _waits_for(record) or shortened(record.error or "", ERROR_WIDTH),
    ]


def _waits_for(record: JobRecord[Any]) -> str:
    """What a job waits for that is due, but of a kind that its runners do not know; else nothing."""
    if record.parked_since is None or record.place not in ("waiting", "ready"):
        return ""
    return f"unknown to its runners since {moment(record.parked_since)}"


def _runs(record: JobRecord[Any]) -> str:
    return "∞" if record.retry < 0 else str(record.retry + 1)


@click.command()
@click.argument("id")
@click.option("--queue", help="Its queue; spares looking into all of them.")
@storage_options
def show(id: str, queue: str | None, url: str | None, namespace: str, json_output: bool) -> None:
    """Show everything that is stored of the job ID."""
    from jobqueue.errors import JobNotFound
    from jobqueue.names import suggestion

    with opened(url, namespace) as source:
        record = source.get(id, queue=queue)
        meant = suggestion(record.name, source.registry.names()) if record else ""
    if record is None:
        raise JobNotFound(f"no job {id} is stored in namespace {namespace}; it may have ended")
    if json_output:
        print_json(record_value(record))
        return
    from jobqueue.cli.tables import print_fields

    value = payload_value(record.payload)
    waits = _waits_for(record)
    print_fields(
        [
            ("id", record.id),
            ("kind", record.name or "(unreadable)"),
            ("queue", record.queue),
            ("place", record.place),
            ("created", moment(record.created)),
            ("due", moment(record.due)),
            *([("waits for", f"a runner that knows its kind; it is {waits}{meant}")] if waits else []),
            ("failed runs", f"{record.attempt} of {_runs(record)}"),
            ("crashes", str(record.recoveries)),
            ("fence", str(record.fence) if record.fence else "not claimed"),
            (
                "arguments" if "arguments" in value else "payload",
                json.dumps(value["arguments"], indent=2, ensure_ascii=False)
                if "arguments" in value
                else repr(record.payload),
            ),
            ("error", clean_lines(record.error or "none")),
        ]
    )


def record_value(record: JobRecord[Any]) -> dict[str, Any]:
    """A record as JSON: the same keys in every command."""
    return {
        "id": record.id,
        "name": record.name,
        "queue": record.queue,
        "place": record.place,
        "attempt": record.attempt,
        "retry": record.retry,
        "recoveries": record.recoveries,
        "fence": record.fence,
        "created": moment_or_none(record.created),
        "due": moment_or_none(record.due),
        "parked_since": moment_or_none(record.parked_since),
        "error": record.error,
        **payload_value(record.payload),
    }
