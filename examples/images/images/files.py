"""The folder that all steps share. On several machines it would be an object store."""

import os
from pathlib import Path

ROOT = Path("pictures")


def read(name: str) -> bytes:
    """The contents of a file."""
    return (ROOT / name).read_bytes()


def write(name: str, data: bytes) -> None:
    """Write a file as one step: others see all of it or nothing, and the same again does no harm."""
    path = ROOT / name
    # Two runs of one job may overlap, so each has its own unfinished file.
    unfinished = path.with_suffix(f".{os.urandom(4).hex()}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def exists(name: str) -> bool:
    """Whether there is such a file."""
    return (ROOT / name).exists()
