"""``--url-file``: a URL that is in no command line, where everybody on the machine could read its password."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

import click

from jobqueue.cli.text import clean
from jobqueue.errors import DeclarationError
from jobqueue.storage.url import check_url

__all__ = ["read_url"]

LONGEST: Final = 65_536
"""Bytes of such a file."""
ASSIGNED: Final = re.compile(r"\s*(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=")


def read_url(file: Path) -> str:
    """The URL in a file, of which it is the only line that is not blank.

    Warns on standard error if other users may read or change it.

    Raises:
        DeclarationError: The file cannot be read, or holds no URL that can be opened. Says nothing of what is in it.
    """
    name = f"--url-file {file}"
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            data = stream.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if warning := _exposed(status):
        click.echo(f"jobqueue: {clean(f'{name} {warning}')}", err=True)
    text, problem = _line(data)
    if not problem:
        try:
            return check_url(text, allow_unverified_tls=True)  # whether it is allowed, the target may say
        except DeclarationError as error:
            problem = str(error)
    raise DeclarationError(f"{name}: {problem}")


def _line(data: bytes) -> tuple[str, str]:
    """The only line that is not blank, or what is wrong."""
    if len(data) > LONGEST:
        return "", f"it is longer than {LONGEST:,} bytes: it holds more than a URL"
    try:
        lines = [line.removesuffix("\r") for line in data.decode().split("\n") if line.strip()]
    except UnicodeDecodeError:
        return "", "it is not UTF-8"
    if not lines:
        return "", "it is empty"
    if len(lines) > 1:
        return "", "it holds more than one line"
    text = lines[0]
    if text.startswith("\ufeff"):
        return "", "it begins with a byte order mark (BOM): save it without one"
    if text.startswith(("'", '"')):
        return "", "the URL stands in quotes: write it without"
    if ASSIGNED.match(text):
        return "", "it gives the URL a name, as a file of variables does: write the URL alone, without NAME= before it"
    return text, ""


def _exposed(status: os.stat_result) -> str:
    """Who else may read or change a file, as a warning; "" where that is as it should be, and for a pipe."""
    if not stat.S_ISREG(status.st_mode):
        return ""
    if status.st_uid not in (0, os.geteuid()):
        return "belongs to another user, who can change where jobs are stored"
    # A file that root has made for a service is handed over by its group.
    if status.st_mode & (0o037 if status.st_uid == 0 else 0o077):
        return "can be read or changed by other users, and may hold a password: chmod 600"
    return ""
