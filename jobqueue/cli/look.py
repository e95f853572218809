"""``stats``, ``jobs`` and ``show``: looking without changing anything."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs
import click

from jobqueue.cli.common import MOST_NAMES, Named, looks, looks_at_jobs, opened, print_json, refused_value, tell_refused
from jobqueue.cli.text import (
    claimed_at,
    clean,
    clean_lines,
    died_at,
    moment,
    moment_or_none,
    payload_start,
    payload_value,
    shortened,
)
from jobqueue.durations import span
from jobqueue.safe_text import id_bytes, printable

if TYPE_CHECKING:
    from jobqueue.application import Users
    from jobqueue.looking import Counts
    from jobqueue.queue import JobQueue
    from jobqueue.record import JobRecord
    from jobqueue.runner_info import RunnerInfo

__all__ = ["jobs", "record_value", "show", "stats"]

PLACES = ("waiting", "ready", "working", "dead")
ERROR_WIDTH = 60
ARGUMENTS_WIDTH = 40
WIDE = 140
"""Columns of a terminal that has room for whole times and for arguments."""
MIDDLE = 100
"""Columns of a terminal that has room for how often a job failed."""
INDENTED = 5_000
"""Bytes of arguments that are shown on several lines."""
SEARCHED = 1_000
"""Jobs among which a kind is looked for that may have been meant."""


@click.command()
@looks
def stats(named: Named, json_output: bool) -> int:
    """Show how many jobs are in each place of each queue, and the runners that are alive.

    TARGET names a JobQueue as module:attribute, as for jobqueue run: its URL and namespace are used then.
    """
    from jobqueue.application import users
    from jobqueue.looking import counts_apart

    with opened(named) as queue:
        counts, refused = queue.access.run(counts_apart(queue.access))
        runners, totals = queue.runners(), queue.totals()
        application = queue.access.run(users(queue.access.keys))
        now = queue.access.clock().now() / 1000
        where, namespace = queue.access.opened().backend.url, queue.namespace
        others = [] if counts or refused else _namespaces(queue)
    code = tell_refused(refused)
    if json_output:
        print_json(
            {
                "url": where,
                "namespace": namespace,
                "application": None if application is None else _application_value(application),
                **({} if counts or refused else {"namespaces": others}),
                **refused_value(refused),
                "queues": {name: {place: getattr(count, place) for place in PLACES} for name, count in counts.items()},
                "totals": {name: attrs.asdict(total) for name, total in totals.items()},
                "runners": [_runner_value(runner) for runner in runners],
            }
        )
        return code
    from jobqueue.cli.tables import print_table

    of = "" if application is None else f", application {application.name}"
    click.echo(f"{clean(where)}, namespace {namespace}{of}")
    if application is not None and (told := application.warning()) is not None:
        click.echo(f"since {moment(application.since)} {told}")
    print_table(
        ["queue", *(f">{place}" for place in PLACES), ">runners"],
        [_queue_row(name, counts.get(name), runners) for name in sorted([*counts, *refused])],
        empty=f"no queue was ever used here{_instead(others)}",
    )
    print_table(
        ["runner", "host", ">pid", ">up", ">seen", ">lease", "queues", ">threads", ">coroutines", "version"],
        [_runner_row(runner, now) for runner in runners],
        empty="no runner is alive",
    )
    return code


def _queue_names(queue: JobQueue) -> list[str]:
    from jobqueue.lookup import queues

    return queue.access.run(queues(queue.access.keys, queue.access.clock().now()))


def _application_value(application: Users) -> dict[str, Any]:
    since = moment_or_none(application.since)
    return {"name": application.name, "since": since, "before": application.before}


def _namespaces(queue: JobQueue) -> list[str]:
    """Which namespaces there are on the server, as far as it lets itself be asked."""
    from jobqueue.backend import RedisBackend
    from jobqueue.errors import StorageError

    backend = queue.access.opened().backend
    try:
        return backend.namespaces() if isinstance(backend, RedisBackend) else []
    except StorageError:
        return []


def _instead(namespaces: list[str]) -> str:
    shown = ", ".join(namespaces[:MOST_NAMES]) + (", …" if len(namespaces) > MOST_NAMES else "")
    return f"; namespaces with queues on this server: {shown}" if shown else ""


def _queue_row(name: str, counts: Counts | None, runners: list[RunnerInfo]) -> list[str]:
    serving = sum(name in runner.queues for runner in runners)
    return [name, *("?" if counts is None else str(getattr(counts, place)) for place in PLACES), str(serving)]


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
@click.option(
    "--after",
    metavar="CURSOR",
    help="Go on behind this job: the cursor that a page ends with, or the ID of a job that is there.",
)
@click.option("--no-arguments", is_flag=True, help="Leave the arguments out: they may be nobody else's business.")
@looks
def jobs(
    queue: str | None,
    place: Any,
    name: str | None,
    limit: int,
    after: str | None,
    no_arguments: bool,
    named: Named,
    json_output: bool,
) -> int:
    """List jobs, by queue, place and their order there.

    With --place working also who runs them, and since when. TARGET names a JobQueue as module:attribute, as for jobqueue
    run: its URL and namespace are used then.
    """
    from jobqueue.looking import find_apart

    with opened(named) as source:
        # One more than is shown tells whether there are more.
        found, refused = find_apart(source, queue, place, name, limit + 1, after)
        runners = {runner.id: runner for runner in source.runners()} if place == "working" and not json_output else {}
        why_none = "" if found or refused or json_output else _why_none(source, queue, name)
        now = source.access.clock().now() / 1000
    code = tell_refused(refused)
    shown, more = found[:limit], len(found) > limit
    if json_output:
        values = [record_value(record, arguments=not no_arguments) for record in shown]
        print_json({"jobs": values, "next": shown[-1].cursor if more else None, **refused_value(refused)})
        return code
    from jobqueue.cli.tables import print_table, terminal_width

    width = terminal_width()
    narrow = width < WIDE

    def told(time: datetime | None) -> str:
        return "" if time is None else _apart(time, now) if narrow else moment(time)

    errors = {record.id: _waits_for(record) or shortened(record.error or "", ERROR_WIDTH) for record in shown}
    kind_width = (12 if any(errors.values()) else 18) + max(0, width - 80) // 2 if narrow else None
    columns: list[tuple[str, Callable[[JobRecord[Any]], str]]] = [
        ("id", lambda record: record.id),
        *([] if narrow and queue else [("queue", lambda record: record.queue)]),
        *([] if narrow and place else [("place", lambda record: record.place)]),
        ("kind", lambda record: _kind(record, kind_width)),
        *([] if width < MIDDLE else [(">failed", lambda record: f"{record.attempt}/{_runs(record)}")]),
        *(
            [
                ("runner", lambda record: _runner_of(record, runners)),
                ("started", lambda record: told(claimed_at(record))),
            ]
            if place == "working"
            else [("died", lambda record: told(died_at(record)))]
            if place == "dead"
            else [("due", lambda record: told(record.due) if record.place == "waiting" or not narrow else "")]
        ),
        # A narrow terminal has room for what somebody looks for, and no more.
        *([] if narrow and not any(errors.values()) else [("error", lambda record: errors[record.id])]),
        *(
            []
            if narrow or no_arguments
            else [("arguments", lambda record: payload_start(record.payload, ARGUMENTS_WIDTH))]
        ),
    ]
    print_table(
        [heading for heading, _ in columns],
        [[cell(record) for _, cell in columns] for record in shown],
        empty="no such jobs",
        cut=("error", "arguments", "runner") if narrow else ("kind", "error", "arguments", "runner"),
    )
    if why_none:
        click.echo(f"jobqueue: {clean(why_none)}", err=True)
    if more:
        click.echo(f"more: --after {clean(shown[-1].cursor)}")
    return code


def _kind(record: JobRecord[Any], most: int | None) -> str:
    """The name of the kind; where there is little room its end, which tells more than its beginning."""
    name = clean(record.name or "(unreadable)")
    return name if most is None or len(name) <= most else f"…{name[1 - most :]}"


def _apart(time: datetime, now: float) -> str:
    """How far a time is from now (s), in few letters."""
    seconds = time.timestamp() - now
    return span(seconds) if seconds > 0 else f"{span(-seconds)} ago"


def _why_none(source: JobQueue, queue: str | None, name: str | None) -> str:
    """What may be wrong with what was asked for, where nothing was found; nothing if it is only not there."""
    from jobqueue.names import suggestion

    known = _queue_names(source)
    if not known:
        return f"no queue was ever used in namespace {source.namespace}{_instead(_namespaces(source))}"
    if queue is not None and queue not in known:
        return f"no queue {queue!r} was ever used here{suggestion(queue, known)}"
    if name is None:
        return ""
    names = {record.name for record in itertools.islice(source.scan(queue=queue), SEARCHED)}
    return "" if name in names else f"no kind {name!r} is among the jobs here{suggestion(name, names)}"


def _runner_of(record: JobRecord[Any], runners: Mapping[str, RunnerInfo]) -> str:
    """The runner that holds a job, as `stats` lists it, and where it is if it is alive."""
    alive = runners.get(record.runner)
    return record.runner[:8] + (f" {alive.host}:{alive.pid}" if alive else " (silent)")


def _started(record: JobRecord[Any]) -> str:
    since = claimed_at(record)
    return "" if since is None else moment(since)


def _died(record: JobRecord[Any]) -> str:
    since = died_at(record)
    return "" if since is None else moment(since)


def _waits_for(record: JobRecord[Any]) -> str:
    """What a job waits for that is due, but of a kind that its runners do not know; else nothing."""
    if record.parked_since is None or record.place not in ("waiting", "ready"):
        return ""
    return f"unknown to its runners since {moment(record.parked_since)}"


def _runs(record: JobRecord[Any]) -> str:
    return "∞" if record.retry < 0 else str(record.retry + 1)


def _meant(source: JobQueue, name: str) -> str:
    """The kind that may be meant by the name of an unknown one, among those that the target and its imports declare."""
    from jobqueue.names import unknown_kind

    with contextlib.suppress(Exception):  # what cannot be imported here is the business of `run`
        source.load()
    return "" if source.registry.get(name) else unknown_kind(name, source.registry.names())


@click.command()
@click.option("--queue", help="Its queue; spares looking into all of them.")
@looks_at_jobs("ID")
def show(ids: list[str], queue: str | None, named: Named, json_output: bool) -> None:
    """Show everything that is stored of the job ID.

    TARGET names a JobQueue as module:attribute, as for jobqueue run: its URL and namespace are used then.
    """
    from jobqueue.errors import JobNotFound

    [id, *more] = ids
    if more:
        raise click.UsageError(f"one ID at a time; a TARGET in front of it is module:attribute, not {id!r}")
    with opened(named) as source:
        record = source.get(id, queue=queue)
        waits = "" if record is None else _waits_for(record)
        meant = _meant(source, record.name) if record and waits else ""
        namespace = source.namespace
    if record is None:
        raise JobNotFound(f"no job {printable(id_bytes(id))} is stored in namespace {namespace}; it may have ended")
    if json_output:
        print_json(record_value(record))
        return
    from jobqueue.cli.tables import print_fields

    value = payload_value(record.payload)
    print_fields(
        [
            ("id", record.id),
            ("kind", record.name or "(unreadable)"),
            ("queue", record.queue),
            ("place", record.place),
            ("created", moment(record.created)),
            ("died", _died(record)) if record.place == "dead" else ("due", moment(record.due)),
            *([("waits for", f"a runner that knows its kind; it is {waits}{meant}")] if waits else []),
            ("failed runs", f"{record.attempt} of {_runs(record)}"),
            ("crashes", str(record.recoveries)),
            ("fence", str(record.fence) if record.fence else "not claimed"),
            *([("runner", record.runner), ("started", _started(record))] if record.runner else []),
            (
                "arguments" if "arguments" in value else "payload",
                # On lines of their own where that is no more than a few screens: what is nested deep grows a hundredfold.
                json.dumps(
                    value["arguments"], indent=2 if len(record.payload) <= INDENTED else None, ensure_ascii=False
                )
                if "arguments" in value
                else repr(record.payload),
            ),
            ("error", clean_lines(record.error or "none")),
        ]
    )


def record_value(record: JobRecord[Any], *, arguments: bool = True) -> dict[str, Any]:
    """A record as JSON: the same keys in every command, but that the arguments may be left out."""
    return {
        "id": record.id,
        "name": record.name,
        "queue": record.queue,
        "place": record.place,
        "attempt": record.attempt,
        "retry": record.retry,
        "recoveries": record.recoveries,
        "fence": record.fence,
        "runner": record.runner or None,
        "started": moment_or_none(claimed_at(record)),
        "created": moment_or_none(record.created),
        "due": moment_or_none(record.due),
        "died": moment_or_none(died_at(record)),
        "parked_since": moment_or_none(record.parked_since),
        "error": record.error,
        **(payload_value(record.payload) if arguments else {}),
    }
