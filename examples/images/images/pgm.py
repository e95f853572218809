"""Grey pictures in the format PGM, which needs no library. A real pipeline would use Pillow here."""

import re

_HEADER = re.compile(rb"P5\s+(\d+)\s+(\d+)\s+255\s")


class NotAPicture(ValueError):
    """These bytes are no picture, and never will be."""


def decode(data: bytes) -> list[bytes]:
    """The rows of a picture, a byte for each point."""
    header = _HEADER.match(data)
    if header is None:
        raise NotAPicture(f"begins with {data[:8]!r}")
    width, height = int(header[1]), int(header[2])
    points = data[header.end() :]
    if width * height != len(points) or not points:
        raise NotAPicture(f"{len(points)} points instead of {width} × {height}")
    return [points[start : start + width] for start in range(0, len(points), width)]


def encode(rows: list[bytes]) -> bytes:
    """The picture with these rows."""
    return b"P5 %d %d 255\n" % (len(rows[0]), len(rows)) + b"".join(rows)


def shrunk(rows: list[bytes], width: int) -> list[bytes]:
    """The picture, no wider than this; every point is one of the old ones."""
    step = -(-len(rows[0]) // width)
    return [row[::step] for row in rows[::step]]
