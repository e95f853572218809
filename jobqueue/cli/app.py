"""The group of all commands, and the way from an error to one line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from jobqueue.cli.audit import audit
from jobqueue.cli.demo.command import demo
from jobqueue.cli.look import jobs, show, stats
from jobqueue.cli.operate import delete, requeue
from jobqueue.cli.run import run as run_command
from jobqueue.cli.text import clean
from jobqueue.errors import JobNotFound, JobQueueError, StorageError
from jobqueue.storage.url import without_secrets
from jobqueue.version import __version__

__all__ = ["cli", "run"]

NOT_FOUND: Final = 1
WRONG: Final = 2
NO_STORAGE: Final = 3
INTERRUPTED: Final = 130
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says where output finds no room."""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Exit codes: 0 done; 1 a job was not found, an audit left something broken, the demo's numbers are wrong, or nobody "
        "read the output to its end; 2 the command line or a declaration is wrong; 3 the storage could not be reached, or "
        "refused; 130 interrupted."
    ),
)
@click.version_option(__version__, prog_name="jobqueue")
def cli() -> None:
    """Run background jobs, look at them and operate on them.

    Where jobs are stored is said by --url, --url-file or the environment's JOBQUEUE_URL, for example
    redis://localhost:6379/0 or embedded:///var/lib/shop. A URL with a password belongs into a file or the environment:
    everybody on the machine can read the arguments of a command.
    """


for _command in (run_command, stats, jobs, show, requeue, delete, audit, demo):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What was typed behind the program's name; by default that of this process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter is no reason to fail
    try:
        code = cli.main(arguments, prog_name="jobqueue", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(without_secrets(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except JobNotFound as error:
        return _fail(str(error), NOT_FOUND)
    except StorageError as error:
        return _fail(str(error), NO_STORAGE)
    except JobQueueError as error:
        return _fail(str(error), WRONG)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        return _fail(f"what it prints could not be written: {error.strerror or error}", NOT_FOUND)
    return code if isinstance(code, int) else 0


def _drop_output() -> None:
    """What is left in the buffer of standard output is not tried again at the end of the program."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: standard output is no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _fail(message: str, code: int) -> int:
    click.echo(f"jobqueue: {clean(without_secrets(message))}", err=True)
    return code
