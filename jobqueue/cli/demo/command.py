"""The command ``demo``."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from jobqueue.cli.common import json_option, print_json, url_options
from jobqueue.cli.text import clean_lines

if TYPE_CHECKING:
    from jobqueue.cli.demo.files import Found
    from jobqueue.cli.demo.play import Outcome, Scene, Settings

__all__ = ["demo"]

LEASE: Final = 3.0
"""Seconds. The default of 30 s would be most of the demo: it is what the killed runner's jobs wait for."""
PATIENCE: Final = 60.0


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--runners", type=click.IntRange(2, 32), default=2, show_default=True, help="Runner processes.")
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="Jobs at a time in each.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the server's data, the ledger and the logs go, and stay; by default a temporary folder.",
)
@url_options("Use this server; by default an embedded one is started, and JOBQUEUE_URL is not looked at.")
@click.option("--namespace", help="The namespace, which must hold no jobs; by default a new one.")
@json_option("Show nothing on the way, and print JSON at the end.")
def demo(
    path: Path | None,
    runners: int,
    threads: int,
    folder: Path | None,
    url: str | None,
    namespace: str | None,
    json_output: bool,
) -> int:
    """Process real files, lose a runner half-way, and check that no job is lost.

    Enqueues one job per file below PATH, by default the sources of Python's standard library. Each reads its file and
    counts lines, words and a SHA-256. One in ten fails in its first run. When about half of them are done, one of the
    runner processes is killed with SIGKILL. At the end the results are compared with a plain loop over the same files;
    the exit code is 1 if they are not equal or a job is lost. On a server of your own (--url) a few small keys remain.
    """
    from jobqueue.cli.demo.files import find_files
    from jobqueue.cli.demo.play import DemoFailed, Settings
    from jobqueue.names import check_namespace
    from jobqueue.private_folder import make_private

    found = find_files(path)
    if not found.paths:
        raise click.UsageError(f"there is no file below {path}" if path else "this Python has no sources: name a PATH")
    namespace = f"demo-{secrets.token_hex(4)}" if namespace is None else check_namespace(namespace)
    with _terminated_like_interrupted(), _workplace(folder) as place:
        own = place / namespace
        try:
            make_private(own)
        except OSError as error:
            raise click.UsageError(f"{own} cannot be made: {error.strerror or error}") from error
        settings = Settings(
            paths=found.paths,
            url=url or f"embedded://{quote(os.fsencode(place / 'server'))}",
            namespace=namespace,
            folder=own,
            runners=runners,
            threads=threads,
            lease=LEASE,
            patience=PATIENCE,
        )
        try:
            ok = _as_json(settings, found) if json_output else _on_screen(settings, found)
        except DemoFailed as error:
            if json_output:
                print_json({"ok": False, "error": str(error)})
            click.echo(f"jobqueue: {clean_lines(str(error))}", err=True)
            ok = False
        if folder is not None and not json_output:
            click.echo(f"ledger and logs: {own}")
    return 0 if ok else 1


def _on_screen(settings: Settings, found: Found) -> bool:
    from jobqueue.cli.demo.play import play
    from jobqueue.cli.demo.screen import live, print_outcome

    if found.left_out:
        click.echo(f"{found.left_out} files are left out: their names are no text", err=True)
    with live() as show:
        outcome = play(settings, show)
    print_outcome(outcome)
    return outcome.ok


def _as_json(settings: Settings, found: Found) -> bool:
    from jobqueue.cli.demo.play import play

    outcome = play(settings, _show_nothing)
    print_json(_value(outcome, found))
    return outcome.ok


def _show_nothing(_: Scene) -> None:
    """Progress for programs: none."""


@contextmanager
def _workplace(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="jobqueue-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, with its processes and its temporary folder."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _value(outcome: Outcome, found: Found) -> dict[str, Any]:
    verdict = outcome.verdict
    return {
        "ok": outcome.ok,
        "files": verdict.jobs,
        "left_out": found.left_out,
        "processed": verdict.counted,
        "runs": verdict.runs,
        "repeated": verdict.repeated,
        "failed_at_first": verdict.stumbled,
        "lost": len(verdict.lost),
        "unfinished": len(verdict.unfinished),
        "dead": outcome.dead,
        "equal": verdict.equal,
        "different": list(verdict.different),
        "totals": {
            who: {"files": sums.files, "lines": sums.lines, "words": sums.words, "unreadable": sums.unreadable}
            for who, sums in (("jobs", verdict.by_jobs), ("loop", verdict.by_loop))
        },
        "killed": outcome.killed
        and {"pid": outcome.killed, "done_before": outcome.done_before, "cut_off": outcome.cut_off},
        "exit_codes": list(outcome.exit_codes),
        "seconds": round(outcome.seconds, 3),
        "loop_seconds": round(outcome.loop_seconds, 3),
    }
