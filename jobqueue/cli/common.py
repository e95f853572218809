"""Options that all commands share, and the storage that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobqueue.cli.text import as_json
from jobqueue.errors import DeclarationError

if TYPE_CHECKING:
    from jobqueue.queue import JobQueue

__all__ = ["json_option", "opened", "print_json", "storage_options"]

F = TypeVar("F", bound=Callable[..., Any])


def json_option(help: str = "Print JSON for programs instead of text.") -> Callable[[F], F]:
    """The option ``--json``, as the parameter ``as_json``."""
    return click.option("--json", "json_output", is_flag=True, help=help)


def storage_options(function: F) -> F:
    """The options ``--url``, ``--namespace`` and ``--json`` of a command that looks into a storage."""
    for option in (
        json_option(),
        click.option("--namespace", default="jobqueue", show_default=True, help="The namespace of the JobQueue."),
        click.option("--url", help="Where jobs are stored; by default the environment's JOBQUEUE_URL."),
    ):
        function = option(function)
    return function


@contextmanager
def opened(url: str | None, namespace: str) -> Iterator[JobQueue]:
    """A `JobQueue` without kinds, for the length of a command.

    Raises:
        DeclarationError: The URL or the namespace cannot be, or the folder of an embedded server is not there.
    """
    from jobqueue.backend import MemoryBackend, embedded_folder, named_url
    from jobqueue.queue import JobQueue

    jobs = JobQueue(url, namespace=namespace)
    folder = embedded_folder(named_url(url))
    if folder is not None and not folder.is_dir():
        # A server would be started there, to say that it holds nothing.
        raise DeclarationError(f"there is no folder {str(folder)!r}, so nothing was ever stored in it")
    with jobs:
        if isinstance(jobs.access.opened().backend, MemoryBackend):
            raise click.UsageError("memory:// lives inside of one program; nothing can be seen of it from here")
        yield jobs


def print_json(value: Any) -> None:
    """Print one JSON document in one line."""
    click.echo(as_json(value))
