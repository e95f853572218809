"""What a planted bug is: one text of the library replaced by another, with a sentence that says what is wrong then.

Rejected: functions that patch attributes of loaded modules. They miss every name that another module has imported by
itself, the script that the server runs, and the processes that tests start. A changed file is what a programmer's slip
is, and it cannot be half in force.
"""

from __future__ import annotations

from pathlib import Path

import attrs

__all__ = ["ROOT", "StaleVariant", "Variant"]

ROOT = Path(__file__).parents[2]


class StaleVariant(Exception):
    """The text that a variant replaces is not in the library any more, or more than once."""


@attrs.frozen
class Variant:
    """A wrong library.

    Attributes:
        name: What it is called on the command line.
        sentence: What it does wrong.
        file: The file that is changed, from ``jobqueue/``; ``../`` leads out of it.
        old: A text that is in the file exactly once.
        new: What stands there instead.
    """

    name: str
    sentence: str
    file: str
    old: str
    new: str

    def plant(self, root: Path) -> None:
        """Change the library below ``root``.

        Raises:
            StaleVariant: The text is not there exactly once.
        """
        path = root / "jobqueue" / self.file
        source = path.read_text()
        if (count := source.count(self.old)) != 1:
            raise StaleVariant(
                f"the variant {self.name!r} replaces a text that is {count} times in jobqueue/{self.file}: say in "
                f"tests/mutants what to replace now, so that it still {self.sentence}\n{self.old}"
            )
        path.write_text(source.replace(self.old, self.new))
