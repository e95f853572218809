"""Options that all commands share, and the storage that they name."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import click

from jobqueue.cli.text import as_json, clean
from jobqueue.errors import DeclarationError
from jobqueue.names import check_namespace
from jobqueue.storage.url import without_secrets

if TYPE_CHECKING:
    from jobqueue.errors import StorageRefused
    from jobqueue.queue import JobQueue

__all__ = [
    "MOST_NAMES", "Named", "app_dir_option", "json_option", "looks", "looks_at_jobs", "opened", "print_json",
    "refused_value", "tell_refused", "url_options",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

NAMESPACE: Final = "JOBQUEUE_NAMESPACE"
DEFAULT_NAMESPACE: Final = "jobqueue"
NO_STORAGE: Final = 3
MOST_NAMES: Final = 20


@attrs.frozen
class Named:
    """The storage that a command line names.

    Attributes:
        target: The `JobQueue` as ``module:attribute``, if one is named.
        app_dir: Where its module is looked for first.
        url: Where jobs are stored, instead of what the target says, or else the environment.
        namespace: The namespace, instead of what the target says, or else the environment.
    """

    target: str | None
    app_dir: Path
    url: str | None
    namespace: str | None


def json_option(help: str = "Print JSON for programs instead of text.") -> Callable[[F], F]:
    """The option ``--json``, as the parameter ``as_json``."""
    return click.option("--json", "json_output", is_flag=True, help=help)


def app_dir_option(help: str) -> Callable[[F], F]:
    """The option ``--app-dir``, as an absolute path: an application may change its directory while it is imported."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.option(
        "--app-dir", type=folder, default=Path(), callback=lambda _, __, value: value.absolute(), help=help
    )


def url_options(help: str) -> Callable[[F], F]:
    """The options ``--url`` and ``--url-file``, of which the function gets the parameter ``url``."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*, url: str | None, url_file: str | None, **others: Any) -> Any:
            if url_file is not None:
                from jobqueue.cli.url_file import read_url

                if url is not None:
                    raise click.UsageError("--url and --url-file say the same thing: give one of them")
                if "://" in url_file:  # which is not repeated: it may hold a password
                    raise click.UsageError(
                        "--url-file names a file that holds the URL: write the URL itself behind --url"
                    )
                url = read_url(Path(url_file))
            return function(url=url, **others)

        file = click.option(
            "--url-file",
            metavar="FILE",
            help="The file that holds this URL, so that a password in it is in no command line.",
        )
        return click.option("--url", help=help)(file(call))  # type: ignore[return-value]

    return decorate


def looks(function: F) -> F:
    """Give a command ``[TARGET]`` and the options of all that look; the function gets ``named`` and ``json_output``."""
    return _with_options(click.argument("target", required=False)(_handed(function)))


def looks_at_jobs(form: str) -> Callable[[F], F]:
    """The same for ``[TARGET] ID``, or several: the function gets ``ids`` besides.

    Args:
        form: How the ids are written in the help.
    """

    def decorate(function: F) -> F:
        argument = click.argument("ids", nargs=-1, required=True, metavar=f"[TARGET] {form}")
        return _with_options(argument(_handed(function)))

    return decorate


def _handed(function: F) -> F:
    @functools.wraps(function)
    def call(*, app_dir: Path, url: str | None, namespace: str | None, target: str | None = None, **others: Any) -> Any:
        if "ids" in others:
            from jobqueue.cli.target import is_target

            if any("://" in word for word in others["ids"]):
                raise click.UsageError("an argument is a URL: where jobs are stored is written behind --url")
            target, *others["ids"] = (None, *others["ids"]) if not is_target(others["ids"][0]) else others["ids"]
            if not others["ids"]:
                raise click.UsageError(
                    f"the ID of a job is missing behind {target}; in an ID that looks like one write \\x3a for the colon"
                )
        return function(named=Named(target, app_dir, url, namespace), **others)

    return call  # type: ignore[return-value]


def _with_options(function: F) -> F:
    for option in (
        json_option(),
        app_dir_option("Where the module of TARGET is looked for first; by default the current directory."),
        click.option(
            "--namespace",
            help=f"The namespace; by default that of TARGET, or the environment's {NAMESPACE}, or {DEFAULT_NAMESPACE}.",
        ),
        url_options("Where jobs are stored; by default where TARGET says, or the environment's JOBQUEUE_URL."),
    ):
        function = option(function)
    return function


@contextmanager
def opened(named: Named) -> Iterator[JobQueue]:
    """A `JobQueue` for the length of a command: the one that is named, or one without kinds.

    Raises:
        DeclarationError: The target, the URL or the namespace cannot be, or no embedded server was ever started in the
            folder that is named.
        StorageRefused: That folder is used for something else, or is not this user's alone.
    """
    from jobqueue.backend import ENVIRONMENT, MemoryBackend, embedded_folder, named_url
    from jobqueue.queue import JobQueue

    if named.target is None:
        namespace = named.namespace or _namespace_of_environment() or DEFAULT_NAMESPACE
        jobs = JobQueue(named.url, namespace=namespace)
        try:
            url = named_url(named.url)
        except DeclarationError as error:
            if named.url is not None or os.environ.get(ENVIRONMENT):
                raise
            raise click.UsageError(
                "where jobs are stored is not said: name a TARGET, as in shop.work:jobs, or --url, or --url-file, or set "
                f"the environment's {ENVIRONMENT}"
            ) from error
    else:
        from jobqueue.cli.target import load_target, put_first_on_path

        put_first_on_path(named.app_dir)
        jobs = load_target(named.target)
        jobs.relocate(url=named.url, namespace=named.namespace)
        url = jobs.url or os.environ.get(ENVIRONMENT) or ""
    folder = embedded_folder(url)
    if folder is not None:
        from jobqueue.embedded import EmbeddedServer

        # A server would be started there, to say that it holds nothing.
        if not EmbeddedServer.was_used(folder):
            raise DeclarationError(
                f"no embedded server was ever started in {str(folder)!r}, so nothing is stored there"
            )
    with jobs:
        if isinstance(jobs.access.opened().backend, MemoryBackend):
            raise click.UsageError("memory:// lives inside of one program; nothing can be seen of it from here")
        yield jobs


def _namespace_of_environment() -> str | None:
    found = os.environ.get(NAMESPACE)
    try:
        return found and check_namespace(found)
    except DeclarationError as error:
        raise DeclarationError(f"the environment's {NAMESPACE}: {error}") from None


def tell_refused(refused: Mapping[str, StorageRefused]) -> int:
    """Name the queues that cannot be read, of very many the first ones; answers the exit code."""
    for name, refusal in itertools.islice(refused.items(), MOST_NAMES):
        click.echo(f"jobqueue: queue {name}: {clean(without_secrets(str(refusal)))}", err=True)
    return NO_STORAGE if refused else 0


def refused_value(refused: Mapping[str, StorageRefused]) -> dict[str, Any]:
    """The same as JSON: nothing where all queues can be read."""
    return {"refused": {name: str(refusal) for name, refusal in refused.items()}} if refused else {}


def print_json(value: Any) -> None:
    """Print one JSON document in one line."""
    click.echo(as_json(value))
