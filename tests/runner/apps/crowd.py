"""The crew's queue as a target of ``jobqueue run``: where, is in the environment."""

from __future__ import annotations

import os
from pathlib import Path

from tests.faults.ledger import Ledger
from tests.runner.apps.crew import declare

__all__ = ["jobs"]

jobs = declare(os.environ["CREW_URL"], Ledger(Path(os.environ["CREW_LEDGER"])))
