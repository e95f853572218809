"""All known-wrong variants by name."""

from __future__ import annotations

from typing import Final

from tests.mutants.audits import AUDITS
from tests.mutants.calls import CALLS
from tests.mutants.checkers import CHECKERS
from tests.mutants.edges import EDGES
from tests.mutants.moves import MOVES
from tests.mutants.runners import RUNNERS
from tests.mutants.storages import STORAGES
from tests.mutants.variant import Variant

__all__ = ["VARIANTS"]

VARIANTS: Final[dict[str, Variant]] = {
    variant.name: variant for variant in (*MOVES, *RUNNERS, *STORAGES, *AUDITS, *CHECKERS, *EDGES, *CALLS)
}
