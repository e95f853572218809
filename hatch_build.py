"""What the page of the package index shows: the README, with paths where its links lead into the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK: Final = re.compile(r"\[([^]]+)]\((?!https?:)([^)#]*)[^)]*\)")
WHERE: Final = (
    "\nThe files named here are in the source distribution: "
    "`pip download --no-deps --no-binary jobqueue-py jobqueue-py`.\n"
)


def index_page(readme: str) -> str:
    """The README without links that are relative: they lead nowhere on the index, which has no files of the project."""

    def named(link: re.Match[str]) -> str:
        text, path = link.groups()
        return f"{text} (`{path}`)" if path else text

    return LINK.sub(named, readme) + WHERE


class IndexPage(MetadataHookInterface):
    """Called by hatchling for the field ``readme``, which ``pyproject.toml`` declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field."""
        text = index_page((Path(self.root) / "README.md").read_text(encoding="utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
